"""Build MicroPython for a board with the client frozen in, where it takes next to no memory.

    python3 tools/build_firmware.py --micropython DIR --board ESP32_GENERIC
    python3 tools/build_firmware.py --micropython DIR --board RPI_PICO_W --out DIR

DIR is MicroPython's source, with its toolchain ready: in it,

    source tools/ci.sh && ci_esp32_idf_setup && source esp-idf/export.sh      ESP32
    source tools/ci.sh && ci_rp2_setup                                        Pico W, Pico 2 W

The board's own manifest comes first, then micropython/manifest.py. What is made is copied to the
folder firmware/, by the board's name: mqttpipe-ESP32_GENERIC.bin, mqttpipe-RPI_PICO_W.uf2.

Nothing is set up by this tool. The exit status is 1 if there is no firmware; the last line says
why.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import tempfile

import setup_env
from commands import exit_with, put

ROOT = setup_env.ROOT
MAKE_TIMEOUT_S = 3600

# Board: port, the manifest that it has without us, and what is made.
BOARDS = {
    "ESP32_GENERIC": ("esp32", "$(PORT_DIR)/boards/manifest.py", "firmware.bin"),
    "RPI_PICO_W": ("rp2", "$(BOARD_DIR)/manifest.py", "firmware.uf2"),
    "RPI_PICO2_W": ("rp2", "$(BOARD_DIR)/manifest.py", "firmware.uf2"),
}


class FirmwareError(Exception):
    """What is wrong, in one line that one can act on."""


def say(text):
    put("build_firmware: " + text)


def manifest(board):
    """Return the text of the manifest for a board."""
    return "include(%r)\ninclude(%r)\n" % (BOARDS[board][1], str(ROOT / "micropython"))


def make(folder, *arguments):
    """Run make in a folder of MicroPython's; raise FirmwareError if it fails."""
    command = ["make", "-j%d" % (os.cpu_count() or 1), "-C", str(folder), *arguments]
    try:
        ran = subprocess.run(command, timeout=MAKE_TIMEOUT_S)
    except OSError as error:
        raise FirmwareError("make does not start: %s" % error) from error
    except subprocess.TimeoutExpired as error:
        raise FirmwareError("make did not end within %d s" % MAKE_TIMEOUT_S) from error
    if ran.returncode != 0:
        raise FirmwareError("%s: status %d, see above" % (" ".join(command), ran.returncode))


def build(micropython, board, out):
    """Build the firmware of a board; return the Path of the file, which is in the folder `out`."""
    port, _, made = BOARDS[board]
    folder = micropython / "ports" / port
    if not (folder / "boards" / board).is_dir():
        raise FirmwareError(
            "--micropython: %s has no ports/%s/boards/%s" % (micropython, port, board)
        )
    with tempfile.TemporaryDirectory(prefix="mqttpipe-firmware-") as temporary:
        file = pathlib.Path(temporary) / "manifest.py"
        file.write_text(manifest(board))
        options = ["BOARD=" + board, "FROZEN_MANIFEST=%s" % file]
        make(micropython / "mpy-cross")
        make(folder, *options, "submodules")
        make(folder, *options)
    made = folder / ("build-" + board) / made
    if not made.is_file():
        raise FirmwareError("make has made no %s" % made)
    out.mkdir(parents=True, exist_ok=True)
    target = out / ("mqttpipe-%s%s" % (board, made.suffix))
    shutil.copyfile(made, target)
    return target


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--micropython",
        type=pathlib.Path,
        required=True,
        metavar="DIR",
        help="MicroPython's source, 1.23 or later",
    )
    parser.add_argument("--board", choices=BOARDS, required=True, help="as MicroPython names it")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("firmware"),
        metavar="DIR",
        help="where to (default: firmware)",
    )
    options = parser.parse_args(arguments)
    try:
        target = build(options.micropython.absolute(), options.board, options.out)
    except (FirmwareError, OSError) as error:
        say("failed: %s" % error)
        return 1
    say("%s, %s bytes" % (target, "{:,}".format(target.stat().st_size)))
    return 0


if __name__ == "__main__":
    exit_with(main)
