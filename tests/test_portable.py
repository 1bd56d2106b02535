"""Run tests/portable/ in every interpreter: CPython, MicroPython 64-bit and MicroPython 32-bit.

And in Debian's newest MicroPython, in one with the ESP32's sockets (tools/get_esp32_sockets.py),
and in CPython with the personalities of the other ports (cpython_shim/shim_personality.py).
One pytest test for each interpreter and module. In the 32-bit MicroPython things are as on a
board: the heap has 96 KiB, the client and the tests are compiled with mpy-cross beforehand, and
nothing else is on the path. Each module gets a fresh process: none inherits another's heap.

There the client is without MQTT 5.0, but for the tests of that; and once more all tests of MQTT
3.1.1 are run with it built in. The other interpreters take the source, which has it.
"""

import os
import pathlib
import re
import subprocess

import pytest

import build
from summary import record_portable

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
PORTABLE = TESTS / "portable"
MODULES = sorted(path.stem for path in PORTABLE.glob("test_*.py"))

BOARD = "MicroPython 32-bit"  # the width of a board
PERSONALITIES = ["CPython as ESP32", "CPython as rp2", "CPython as unix", "CPython hostile"]
BOARD_5 = "32-bit with MQTT 5.0"
MICROPYTHONS = ["MicroPython 64-bit", "MicroPython sid", BOARD, "ESP32 sockets"]
INTERPRETERS = ["CPython", *MICROPYTHONS, *PERSONALITIES]

# Modules that a personality cannot pass, and why.
EXEMPT = {
    ("CPython hostile", "test_board_semantics"): "it counts bytes that hostile sockets divide",
}

# The short form leaves out what the long form finds the same again.
#
# Modules that play a session once for each call, or each byte, of the client alone, are half of
# the time of all. CPython's client has MQTT 5.0 built in, and the board's has not.
EACH_CALL = (
    "test_failing_calls test_mqtt5_failing_calls test_stalls test_stalls_on_the_way".split()
)
EACH_CALL_IN = ("CPython", BOARD)
# A personality changes sockets and poll, and the ESP32's the error numbers as well. Most modules
# have fakes in the place of all that. The unix port itself is here three times.
PARTS_OF = {
    "CPython as ESP32": re.compile(r"use_real_parts|import socket|errno|\bE[A-Z]{4,}\b"),
    "CPython as rp2": re.compile(r"use_real_parts|import socket"),
    "CPython hostile": re.compile(r"use_real_parts|import socket"),
    "CPython as unix": re.compile(r"(?!)"),
}

# About what an ESP32 without PSRAM leaves to a program, 8 KiB for the tests, which are large, and
# 4 for the names that this build keeps. test_build.py runs them with the build that is shipped.
BOARD_HEAP = "108k"
# MQTT 5.0 is a part that a board has room for, or leaves out: there these tests are run.
MQTT5_HEAP = "144k"

CASES = [(name, module) for name in INTERPRETERS for module in MODULES]
CASES += [(BOARD_5, module) for module in MODULES if not module.startswith("test_mqtt5_")]

# For one module; the limit of the pytest test is a little more, and would not show the output.
TIMEOUT_S = 300


@pytest.fixture(scope="session")
def board_folder(tmp_path_factory, compile_mpy):
    """A folder with what would be on a board's flash: all of it compiled."""
    folder = tmp_path_factory.mktemp("board")
    # As they are shipped, -O3. That drops `assert`, so the tests are compiled without. They look
    # inside, so the client keeps its names; tests/host/test_build.py takes one that does not.
    text = build.read_source()
    switches = build.find_switches(text)
    for profile in (build.WHOLE, "mqtt5"):
        configured = build.configure(text, switches, build.parts_of(profile, switches))
        (folder / ("client-" + profile)).mkdir()
        mpy = build.compile_mpy(configured, keeps_names=True)
        (folder / ("client-" + profile) / "mqttpipe.mpy").write_bytes(mpy)
    source = ROOT / "micropython" / "mqttpipe_repl.py"
    compile_mpy(source, folder / "mqttpipe_repl.mpy", "-O3", "-s", source.name)
    for source in [TESTS / "run_portable.py", *sorted(PORTABLE.glob("*.py"))]:
        compile_mpy(source, folder / (source.stem + ".mpy"))
    return folder


def run_module(interpreter, module, has_5, request):
    """Run one module of portable tests in a process; return its exit status and output."""
    command = list(interpreter.command)
    environment = dict(os.environ)
    if interpreter.name == BOARD:
        folder = str(request.getfixturevalue("board_folder"))
        profile = "mqtt5" if has_5 else build.WHOLE
        environment["MICROPYPATH"] = "%s/client-%s:%s:.frozen" % (folder, profile, folder)
        code = "import sys, run_portable; sys.exit(run_portable.main(%r, [%r]))" % (folder, module)
        command += ["-X", "heapsize=" + (MQTT5_HEAP if has_5 else BOARD_HEAP), "-c", code]
    else:
        # CPython looks at no such variable; run_portable.py finds the folders by itself there.
        parts = [ROOT / "micropython", PORTABLE, TESTS, ".frozen"]
        environment["MICROPYPATH"] = ":".join(str(part) for part in parts)
        command += [str(TESTS / "run_portable.py"), str(PORTABLE), module]
    try:
        ran = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        return None, output + "\nended after %d s" % TIMEOUT_S
    return ran.returncode, ran.stdout.decode(errors="replace")


def count_results(output):
    """Return (passed, failed, skipped) from the runner's last line, or from its lines."""
    lines = output.strip().splitlines()
    last = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", lines[-1] if lines else "")
    if last:
        return tuple(int(number) for number in last.groups())
    # It ended before its time, which is a failure more than those it printed.
    passed, failed, skipped = (
        sum(line.startswith(word + " ") for line in lines) for word in ("ok", "FAIL", "skip")
    )
    return passed, failed + 1, skipped


def is_short(name, module):
    if name in PARTS_OF:
        text = (PORTABLE / (module + ".py")).read_text(encoding="utf-8")
        if not PARTS_OF[name].search(text):
            return False
    return name in EACH_CALL_IN or module not in EACH_CALL


def pytest_generate_tests(metafunc):
    is_long = metafunc.config.getoption("--long")
    cases = [case for case in CASES if is_long or is_short(*case)]
    metafunc.parametrize(("name", "module"), cases)


def test_portable(name, module, get_interpreter, record_property, request):
    if (name, module) in EXEMPT:
        pytest.skip(EXEMPT[name, module])
    interpreter = get_interpreter(BOARD if name == BOARD_5 else name)
    has_5 = name == BOARD_5 or module.startswith("test_mqtt5_")
    status, output = run_module(interpreter, module, has_5, request)

    heaps = {BOARD: ", heap " + BOARD_HEAP, BOARD_5: ", heap " + MQTT5_HEAP}
    version = interpreter.version + heaps.get(name, "")
    results = count_results(output)
    skips = [line for line in output.splitlines() if line.startswith("skip ")]
    record_portable(record_property, name, version, results, skips)

    # Whatever else a test may be left out for: what we ship is on the path of all of them.
    lacks = [line for line in output.splitlines() if line.endswith(" is not here")]
    if status != 0 or results[1] or lacks:
        pytest.fail("%s in %s: status %s\n%s" % (module, name, status, output), pytrace=False)
