"""Get the sources of Debian packages, as their authors released them, without touching the system.

    python3 tools/debian_sources.py trixie micropython lwip     print where the tarballs are
    python3 tools/debian_sources.py --check sid micropython     get nothing; 1: one lacks

The tarballs land in `.cache/sources/<suite>/`. apt-get does it, with lists and a configuration of
its own (tools/get_micropython.py does the like for binary packages): it verifies the lists with
Debian's key and each tarball with the lists. Root is not needed. Debian's patches are fetched with
`kind="diff"` only. What is there is not fetched again; delete the folder for newer versions.

For other tools: `fetch(suite, packages)` answers the tarballs by package, `unpack()` unpacks one,
`version()` tells its version. `find(suite, packages)` looks and gets nothing.
"""

import argparse
import itertools
import pathlib
import platform
import re
import shutil
import sys
import tempfile

import get_micropython
import setup_env
from commands import exit_with, put
from setup_env import SetupError, one_at_a_time, run

CACHE = setup_env.CACHE / "sources"

# Seconds: the list has 10 MB, MicroPython's tarball 5 MB, mbedTLS's 4 MB.
UPDATE_TIMEOUT_S = 300
DOWNLOAD_TIMEOUT_S = 300
UNPACK_TIMEOUT_S = 120

# What there is of a package: apt-get's option, what the tarball's name has, what it is.
KINDS = {
    "tar": ("--tar-only", ".orig.tar.", "upstream tarball"),
    "diff": ("--diff-only", ".debian.tar.", "patches"),  # and all else that is Debian's
}

# What tar starts for a tarball of this kind, and the package that has it.
UNPACKERS = {".xz": ("xz", "xz-utils"), ".bz2": ("bzip2", "bzip2"), ".gz": ("gzip", "gzip")}


def say(text):
    put("sources: " + text)


def version(tarball):
    """Return the version of a tarball from fetch(), "1.26.1"."""
    # micropython_1.26.1+ds.orig.tar.xz: "+ds" says that Debian left something out.
    return re.match(r"[^_]+_([0-9.]*[0-9])", tarball.name).group(1)


def sort_key(tarball):
    return [int(number) for number in version(tarball).split(".")]


def find(suite, packages, kind="tar"):
    """Return the tarballs that are here, by package. Gets nothing. `kind`: one of KINDS."""
    found = {}
    for package in packages:
        tarballs = (CACHE / suite).glob("%s_[0-9]*%s*" % (package, KINDS[kind][1]))
        tarballs = [path for path in tarballs if path.suffix in UNPACKERS]  # no signatures
        if tarballs:
            found[package] = max(tarballs, key=sort_key)
    return found


def download(folder, suite, packages, kind="tar"):
    """Download the tarballs of `packages` into `folder` from the first mirror that has them."""
    for tool in ("apt-get", "apt-config"):
        if not shutil.which(tool):
            raise SetupError("not a Debian system (no %s)" % tool)
    keyrings = [path for path in get_micropython.KEYRINGS if pathlib.Path(path).is_file()]
    if not keyrings:
        raise SetupError("no %s: install debian-archive-keyring" % get_micropython.KEYRINGS[0])
    mirrors = get_micropython.find_mirrors()
    if not mirrors:
        raise SetupError("apt's sources name no Debian mirror")
    # apt wants an architecture, sources have none.
    known = get_micropython.ARCHITECTURES.get(platform.machine(), {64: "amd64"})
    architecture = next(iter(known.values()))
    failure = None
    for mirror, name in itertools.product(mirrors, get_micropython.RELEASES.get(suite, (suite,))):
        state = folder / "apt"
        shutil.rmtree(state, ignore_errors=True)
        configuration = get_micropython.write_apt_state(
            state, architecture, mirror, name, keyrings[0], kind="deb-src"
        )
        apt_get = ["apt-get", "-c", str(configuration), "-q"]
        try:
            say("fetching the list of Debian %s's sources" % name)
            run(apt_get + ["update", "--error-on=any"], UPDATE_TIMEOUT_S)
            say("downloading the sources of %s" % ", ".join(packages))
            command = apt_get + ["source", KINDS[kind][0], "--download-only", *packages]
            run(command, DOWNLOAD_TIMEOUT_S, cwd=folder)
            return
        except SetupError as error:
            failure = error
    raise failure


def fetch(suite, packages, kind="tar"):
    """Return the tarballs of Debian source packages, by package, getting those that lack.

    Raises SetupError, whose message says why they can't be had.
    """
    if len(find(suite, packages, kind)) == len(packages):
        return find(suite, packages, kind)
    with one_at_a_time(CACHE / ".lock"):
        lacking = [package for package in packages if package not in find(suite, packages, kind)]
        if lacking:
            # Made beside its place and renamed: an interrupted download never looks whole.
            work = pathlib.Path(tempfile.mkdtemp(prefix=".getting-", dir=str(CACHE)))
            try:
                download(work, suite, lacking, kind)
                (CACHE / suite).mkdir(exist_ok=True)
                for tarball in work.glob("*%s*" % KINDS[kind][1]):
                    tarball.rename(CACHE / suite / tarball.name)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    found = find(suite, packages, kind)
    for package in packages:
        if package not in found:
            raise SetupError("Debian %s has no %s of %s" % (suite, KINDS[kind][2], package))
    return found


def unpack(tarball, folder):
    """Put the content of a tarball into `folder`, without the folder that it all lies in."""
    program, package = UNPACKERS[tarball.suffix]
    if not shutil.which(program):
        raise SetupError("no %s: install %s" % (program, package))
    folder.mkdir(parents=True, exist_ok=True)
    command = ["tar", "-x", "-f", tarball, "-C", folder, "--strip-components=1"]
    # Unpacked by root, the files would belong to whoever made the tarball.
    run(command + ["--no-same-owner"], UNPACK_TIMEOUT_S)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="get nothing; print what is there")
    parser.add_argument("suite", help="a release of Debian: trixie, sid, ...")
    parser.add_argument("packages", nargs="+", metavar="package", help="a source package")
    options = parser.parse_args()
    try:
        found = (find if options.check else fetch)(options.suite, options.packages)
    except SetupError as error:
        sys.exit("sources: %s" % error)
    for package in options.packages:
        put("%s: %s" % (package, found.get(package, "none")))
    return 0 if len(found) == len(options.packages) else 1


if __name__ == "__main__":
    exit_with(main)
