"""Get real MicroPython (the unix port, 64-bit and 32-bit) without touching the system.

    python3 tools/get_micropython.py              get both, print where they are
    python3 tools/get_micropython.py --bits 32    only the one with a board's pointer size
    python3 tools/get_micropython.py --release sid    those of Debian's newest release instead
    python3 tools/get_micropython.py --check      get nothing; print what is there (1: one lacks)

A program that the variable MQTTPIPE_MICROPYTHON names, or a `micropython` on the PATH, serves for
the width that it has. For the other width, or both, Debian's own packages are unpacked in
`.cache/micropython/<architecture>/` and started through the C library that comes with them, by
the script `.cache/micropython/<architecture>/micropython`. The packages are those of Debian 13
(trixie), the first release with `micropython`; they run on older ones that way. Those of sid, with
a newer MicroPython, are beside them in `<architecture>-sid/`. apt-get does the work, with lists,
caches and a configuration of its own in that folder: the system's packages, lists and sources
stay as they are, and root is not needed. The mirror, proxies and passwords are those that this
machine's apt uses.

For other tools: `find(bits, release)` looks and gets nothing, `ensure(bits, release)` gets what
lacks. Both answer the command to start with, as a list, or None; `ensure` says why.
"""

import argparse
import functools
import itertools
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import tempfile

import setup_env
from commands import exit_with, put
from setup_env import SHORT_TIMEOUT_S, SetupError, one_at_a_time, run

CACHE = setup_env.CACHE / "micropython"

# Names a program that serves, as one on the PATH does, and before it.
VARIABLE = "MQTTPIPE_MICROPYTHON"

BITS = (64, 32)

# Each Debian by its two names. While a mirror is being brought up to date, the list that one
# name leads to may not be the one that its signature is for; seen for a whole day, with the
# other name in order.
RELEASES = {"trixie": ("trixie", "stable"), "sid": ("sid", "unstable")}
RELEASE = "trixie"
# libgcc is what glibc wants at the end of a program that has threads.
PACKAGES = (
    "micropython",
    "libc6",
    "libffi8",
    "libgcc-s1",
    "libmbedcrypto16",
    "libmbedtls21",
    "libmbedx509-7",
)

# The Debian architecture for each width, by the machine that platform.machine() names. x86_64 was
# tried, aarch64 was not; its processors often lack the 32-bit mode, so there is no 32 here.
ARCHITECTURES = {
    "x86_64": {64: "amd64", 32: "i386"},
    "aarch64": {64: "arm64"},
    "i686": {32: "i386"},
}

# A source with one of these suites is a mirror of Debian itself, and mirrors carry all suites.
# Many third parties call their suites `stable` too, but then the component is not `main`.
DEBIAN_SUITES = ("bullseye", "bookworm", "trixie", "forky", "sid")
DEBIAN_SUITES += ("oldoldstable", "oldstable", "stable", "testing", "unstable")

KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)

# Seconds. The package list is 10 MB and the packages are 5 MB: these bound a dead mirror, not a
# slow one.
UPDATE_TIMEOUT_S = 300
DOWNLOAD_TIMEOUT_S = 300

# The sandbox user _apt, to whom apt drops when it runs as root, cannot enter a private folder in
# somebody's home. What is fetched is checked against Debian's key in any case.
# The hooks cleared here are for the system's lists (docker-clean, packagekit, appstream, ...), and
# would work on those.
APT_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::State::extended_states "{folder}/state/extended_states";
Dir::Cache "{folder}/cache";
Dir::Log "{folder}/log";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""

# Everything is found from the script's own place, so the folder can be renamed and moved.
LAUNCHER = """\
#!/bin/sh
# Starts Debian's micropython with the C library unpacked beside it (tools/get_micropython.py).
here=$(cd "$(dirname "$0")" && pwd) || exit 127
exec "$here/{loader}" --library-path "{library_path}" "$here/usr/bin/micropython" "$@"
"""


def say(text):
    put("micropython: " + text)


# ---------------------------------------------------------------------------
# What is there
# ---------------------------------------------------------------------------


def architecture_of(bits):
    """Return Debian's architecture of this width, or None if never here."""
    return ARCHITECTURES.get(platform.machine(), {}).get(bits)


def launcher_path(bits, release=RELEASE):
    """Return where the unpacked MicroPython's launcher is or would be, or None if never here."""
    architecture = architecture_of(bits)
    suffix = "" if release == RELEASE else "-" + release
    return architecture and CACHE / (architecture + suffix) / "micropython"


@functools.lru_cache(maxsize=None)
def probe(path):
    """Ask the interpreter at `path` what it is: (bits, version), or None when it does not run."""
    # MicroPython's small integers have one bit less than a word, so sys.maxsize tells the width.
    # A CPython (or anything else) with this name does not count.
    code = "import sys; print(sys.implementation.name, sys.maxsize > 1 << 32, sys.version)"
    try:
        ran = subprocess.run(
            [path, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SHORT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = ran.stdout.decode(errors="replace").strip().split(" ", 2)
    if ran.returncode != 0 or len(words) != 3 or words[0] != "micropython":
        return None
    # sys.version is "3.4.0; MicroPython v1.25.0 on 2025-05-04"; the first is Python's own.
    return (64 if words[1] == "True" else 32), words[2].split("; ")[-1]


def find(bits, release=RELEASE):
    """Return the command that starts a MicroPython of this width, or None. Gets nothing."""
    candidates = [launcher_path(bits, release)]
    if release == RELEASE:
        candidates[:0] = [os.environ.get(VARIABLE), shutil.which("micropython")]
    for candidate in candidates:
        found = probe(str(candidate)) if candidate else None
        if found and found[0] == bits:
            return [str(candidate)]
    return None


def version(command):
    """Return what the command from find() or ensure() calls itself, "MicroPython v1.25.0 ..."."""
    return probe(command[0])[1]


# ---------------------------------------------------------------------------
# The machine's Debian mirrors
# ---------------------------------------------------------------------------


def parse_one_line_sources(text):
    """Yield (uri, suites, components) for each `deb` line of a sources.list."""
    for line in text.splitlines():
        line = line.split("#", 1)[0].strip()
        match = re.match(r"deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(.*)", line)
        if match:
            suite, *components = match.group(2).split()
            yield match.group(1), [suite], components


def parse_deb822_sources(text):
    """Yield (uri, suites, components) for each address of each `deb` stanza of a *.sources."""
    # A comment line may stand between the lines of a field, so comments go first.
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = {}
        name = None
        for line in stanza.splitlines():
            if line[:1].isspace() and name:
                fields[name] += " " + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").lower() in ("no", "false", "0", "off"):
            continue
        for uri in fields.get("uris", "").split():
            yield uri, fields.get("suites", "").split(), fields.get("components", "").split()


def choose_mirrors(sources):
    """Return the addresses among `sources` that mirror Debian, the likeliest first."""
    mirrors = []
    for uri, suites, components in sources:
        is_debian = any(suite in DEBIAN_SUITES for suite in suites)
        if is_debian and "main" in components and uri not in mirrors:
            mirrors.append(uri)
    # Some third parties also use a suite's name and `main`; Debian's own layout ends in /debian.
    return sorted(mirrors, key=lambda uri: not uri.rstrip("/").endswith("/debian"))


def find_mirrors():
    """Return the addresses of the Debian mirrors that this machine's apt is set up with."""
    wanted = ["LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]
    asked = run(["apt-config", "shell", *wanted], SHORT_TIMEOUT_S)
    places = dict(word.split("=", 1) for word in shlex.split(asked))
    files = [pathlib.Path(places["LIST"])] if "LIST" in places else []
    if "PARTS" in places:
        files += sorted(pathlib.Path(places["PARTS"]).glob("*"))
    parsers = {".list": parse_one_line_sources, ".sources": parse_deb822_sources}
    sources = []
    for file in files:
        if file.suffix in parsers and file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            sources += parsers[file.suffix](text)
    return choose_mirrors(sources)


# ---------------------------------------------------------------------------
# Getting it
# ---------------------------------------------------------------------------


def write_apt_state(folder, architecture, mirror, suite, keyring, kind="deb"):
    """Fill `folder` with an apt state of our own, and return the path of its configuration."""
    for name in ("state/lists/partial", "cache/archives/partial", "log"):
        (folder / name).mkdir(parents=True)
    (folder / "state" / "status").touch()
    options = "arch=%s signed-by=%s" % (architecture, keyring)
    (folder / "sources.list").write_text("%s [%s] %s %s main\n" % (kind, options, mirror, suite))
    configuration = folder / "apt.conf"
    configuration.write_text(APT_CONFIGURATION.format(architecture=architecture, folder=folder))
    return configuration


def download(folder, architecture, release, mirrors, keyring):
    """Download PACKAGES into `folder` from the first mirror that has them; return the files."""
    failure = None
    for mirror, suite in itertools.product(mirrors, RELEASES[release]):
        apt_folder = folder / "apt"
        shutil.rmtree(apt_folder, ignore_errors=True)
        configuration = write_apt_state(apt_folder, architecture, mirror, suite, keyring)
        apt_get = ["apt-get", "-c", str(configuration), "-q"]
        try:
            say("%s: fetching the package list of Debian %s" % (architecture, suite))
            run(apt_get + ["update", "--error-on=any"], UPDATE_TIMEOUT_S)
            say("%s: downloading %d packages, 5 MB" % (architecture, len(PACKAGES)))
            run(apt_get + ["download", *PACKAGES], DOWNLOAD_TIMEOUT_S, cwd=folder)
            return sorted(folder.glob("*.deb"))
        except SetupError as error:
            failure = error
    raise failure


def write_launcher(folder):
    """Write the script that starts what was unpacked in `folder`, and return its path."""
    loaders = [p for p in sorted(folder.glob("usr/lib/**/ld-linux*.so.*")) if p.is_file()]
    if not loaders:
        raise SetupError("the package libc6 holds no ld-linux*.so")
    libraries = sorted({p.parent.relative_to(folder) for p in folder.glob("usr/lib/**/*.so.*")})
    launcher = folder / "micropython"
    text = LAUNCHER.format(
        loader=loaders[0].relative_to(folder),
        library_path=":".join("$here/%s" % p for p in libraries),
    )
    launcher.write_text(text)
    launcher.chmod(0o755)
    return launcher


def build(bits, release):
    """Download, unpack and try a MicroPython of this width; put it in its place if it runs."""
    place = launcher_path(bits, release)
    if place is None:
        raise SetupError("no %d-bit package is known for %s" % (bits, platform.machine()))
    for tool in ("apt-get", "apt-config", "dpkg"):
        if not shutil.which(tool):
            raise SetupError("not a Debian system (no %s): put a `micropython` on the PATH" % tool)
    keyring = next((k for k in KEYRINGS if pathlib.Path(k).is_file()), None)
    if keyring is None:
        raise SetupError("no %s: install debian-archive-keyring" % KEYRINGS[0])
    mirrors = find_mirrors()
    if not mirrors:
        raise SetupError("apt's sources name no Debian mirror: put a `micropython` on the PATH")

    architecture = architecture_of(bits)
    # Made beside its place, so that the rename at the end is one step: what is interrupted before
    # it leaves nothing that looks ready.
    work = pathlib.Path(tempfile.mkdtemp(prefix=".making-", dir=str(CACHE)))
    try:
        unpacked = work / architecture
        unpacked.mkdir()
        packages = download(work, architecture, release, mirrors, keyring)
        say("%s: unpacking" % architecture)
        for package in packages:
            run(["dpkg", "-x", str(package), str(unpacked)], SHORT_TIMEOUT_S)
        launcher = write_launcher(unpacked)
        answer = run([str(launcher), "-c", "print(1+1)"], SHORT_TIMEOUT_S).strip()
        if answer != "2":
            raise SetupError("the unpacked micropython says 1+1 is %r" % answer)
        shutil.rmtree(place.parent, ignore_errors=True)
        unpacked.rename(place.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def ensure(bits, release=RELEASE):
    """Return the command that starts a MicroPython of this width, getting it if it lacks.

    Returns None after one printed line with the reason when it can't be had.
    """
    command = find(bits, release)
    if command:
        return command
    try:
        # One at a time: the second one finds it made.
        with one_at_a_time(CACHE / ".lock"):
            probe.cache_clear()
            if not find(bits, release):
                for leftover in CACHE.glob(".making-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                build(bits, release)
                probe.cache_clear()
    except (SetupError, OSError) as error:
        say("%d-bit: not available: %s" % (bits, error))
        return None
    command = find(bits, release)
    if command:
        say("%d-bit: ready: %s" % (bits, version(command)))
    return command


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--bits", type=int, choices=BITS, help="only this width")
    parser.add_argument("--release", default=RELEASE, choices=RELEASES, help="of Debian")
    parser.add_argument("--check", action="store_true", help="get nothing; print what is there")
    options = parser.parse_args()
    lacking = 0
    for bits in [options.bits] if options.bits else BITS:
        command = (find if options.check else ensure)(bits, options.release)
        if command:
            put("%d-bit: %s (%s)" % (bits, shlex.join(command), version(command)))
        else:
            lacking += 1
            if options.check:
                put("%d-bit: none" % bits)
    return 1 if lacking else 0


if __name__ == "__main__":
    exit_with(main)
