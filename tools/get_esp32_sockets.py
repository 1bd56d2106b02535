"""Build MicroPython with the ESP32's own socket module, over lwIP, for this machine.

    python3 tools/get_esp32_sockets.py            build it, print where it is
    python3 tools/get_esp32_sockets.py --check    build nothing; print what is there (1: none)

`ports/esp32/modsocket.c` differs from the modules of all other ports, and no emulator runs an
ESP32 with Wi-Fi. Here it is compiled unchanged into the unix port, over lwIP's sockets with a
thread for TCP/IP, as on the board; tests/esp32_sockets/ has what stands around it, and a README.
The network below lwIP is libslirp's: this machine is 10.0.2.2.

The sources are Debian's packages of MicroPython, lwIP and mbedTLS (tools/debian_sources.py). It
needs a compiler and the headers of libslirp and libffi: root gets what lacks, others are told. The
build takes about a minute and lands in `.cache/esp32-sockets/`; when a file of
tests/esp32_sockets/ has changed, it is built again.

For other tools: `find()` looks and builds nothing, `ensure()` builds what lacks. Both answer the
command to start with, as a list, or None; `ensure` says why.
"""

import argparse
import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile

import debian_sources
import get_micropython
import setup_env
from commands import exit_with, put
from setup_env import ROOT, SHORT_TIMEOUT_S, SetupError, one_at_a_time, run

CACHE = setup_env.CACHE / "esp32-sockets"
VARIANT = ROOT / "tests" / "esp32_sockets"
PROGRAM = CACHE / "micropython"
STAMP = CACHE / "stamp"

# Release -> the packages that are taken from it. sid has the newest MicroPython.
SOURCES = {"sid": ("micropython",), "trixie": ("lwip", "mbedtls")}

# What must be there -> the Debian package that has it.
PROGRAMS = {"gcc": "gcc", "make": "make", "pkg-config": "pkg-config"}
HEADERS = {"stdio.h": "libc6-dev", "ffi.h": "libffi-dev", "slirp/libslirp.h": "libslirp-dev"}

BUILD_TIMEOUT_S = 1200


def say(text):
    put("esp32-sockets: " + text)


def variant_stamp():
    """Return the text that says what was built: it differs whenever it must be built again."""
    digest = hashlib.sha256(repr(sorted(SOURCES.items())).encode())
    for path in sorted(VARIANT.rglob("*")):
        if path.suffix in (".c", ".h", ".mk", ".py"):
            digest.update(str(path.relative_to(VARIANT)).encode() + path.read_bytes())
    return digest.hexdigest() + "\n"


def find():
    """Return the command that starts it, or None. Builds nothing."""
    is_built = STAMP.is_file() and STAMP.read_text() == variant_stamp()
    return [str(PROGRAM)] if is_built and get_micropython.probe(str(PROGRAM)) else None


def version(command):
    """Return what the command from find() or ensure() calls itself, "MicroPython v1.26.1 ..."."""
    return get_micropython.version(command)


def has_header(name):
    ran = subprocess.run(
        ["gcc", "-E", "-x", "c", "-"],
        input=b"#include <%s>\n" % name.encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=SHORT_TIMEOUT_S,
    )
    return ran.returncode == 0


def install_lacking():
    """Install the compiler and the headers that lack, or raise SetupError that names them all."""
    lacking = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    has_compiler = "gcc" not in lacking
    lacking += [p for name, p in HEADERS.items() if not (has_compiler and has_header(name))]
    if lacking:
        setup_env.install_debian_package(*lacking)


def build(folder):
    """Unpack the sources in `folder`, build there, and return the path of the program."""
    tree = folder / "tree"
    places = {"micropython": tree, "lwip": folder / "lwip", "mbedtls": tree / "lib" / "mbedtls"}
    tarballs = {}
    for suite, packages in SOURCES.items():
        tarballs.update(debian_sources.fetch(suite, packages))
    for package, place in places.items():
        debian_sources.unpack(tarballs[package], place)
    # The makefile looks whether this submodule is there; nothing of it is needed.
    readme = tree / "lib" / "micropython-lib" / "README.md"
    readme.parent.mkdir(parents=True, exist_ok=True)
    readme.touch()
    make = ["make", "-s", "-j%d" % (os.cpu_count() or 1), "-C"]
    # The tree lies in this project's repository, whose version it would take for its own.
    tag = {"MICROPY_GIT_TAG": "v" + debian_sources.version(tarballs["micropython"])}
    say("building mpy-cross")
    run(make + [tree / "mpy-cross"], BUILD_TIMEOUT_S, env=tag)
    say("building MicroPython with the ESP32's sockets")
    settings = {"VARIANT_DIR": VARIANT, "LWIP": places["lwip"], "BUILD": folder / "build"}
    settings = ["%s=%s" % setting for setting in settings.items()]
    run(make + [tree / "ports" / "unix", *settings], BUILD_TIMEOUT_S, env=tag)
    return folder / "build" / "micropython"


def make():
    """Build it, and put it in its place."""
    setup_env.check_for_make(CACHE, VARIANT)
    for leftover in CACHE.glob(".making-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=".making-", dir=str(CACHE)))
    try:
        stamp = variant_stamp()
        install_lacking()
        STAMP.unlink(missing_ok=True)
        build(work).replace(PROGRAM)
        STAMP.write_text(stamp)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def ensure():
    """Return the command that starts it, building it if it lacks.

    Returns None after one printed line with the reason when it can't be had.
    """
    command = find()
    if command:
        return command
    try:
        with one_at_a_time(CACHE / ".lock"):
            get_micropython.probe.cache_clear()
            if not find():
                make()
                get_micropython.probe.cache_clear()
    except (SetupError, OSError) as error:
        say("not available: %s" % error)
        return None
    command = find()
    say("ready: " + version(command) if command else "not available: what was built does not run")
    return command


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="build nothing; print what is there")
    options = parser.parse_args()
    command = find() if options.check else ensure()
    if command:
        put("ESP32 sockets: %s (%s)" % (shlex.join(command), version(command)))
    elif options.check:
        put("ESP32 sockets: none")
    return 0 if command else 1


if __name__ == "__main__":
    exit_with(main)
