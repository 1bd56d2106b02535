"""tests/portable/ on the emulated board, in two profiles (--long: in each), a board for a module.

The client is in the board's flash, as deployed; the tests are in its ROMFS, so that its heap is
the client's. The clock jumps over pauses: the tests bring their own servers, or use lwIP's way to
itself, and nothing waits for this machine. What MicroPython's unix port and lwIP do differently
is in portable/test_lwip_semantics.py.
"""

import contextlib
import pathlib
import re
import shutil
import socket

import pytest

import build
from emulated_board import BoardError
from summary import record_portable
from test_portable import EACH_CALL, MODULES, PORTABLE, ROOT, TESTS, count_results

LWIP_PORTABLE = pathlib.Path(__file__).resolve().parent / "portable"
SEMANTICS = "test_board_semantics"
LWIP_SEMANTICS = "test_lwip_semantics"

# On MicroPython 32-bit tests/test_portable.py and tests/host/test_build.py run all of them, in
# each profile. Here "mqtt5" has the tests of MQTT 5.0 only.
PROFILES = ("full", "mqtt5")

# What a test may be left out for, beside a part that this build has not.
TOO_LARGE = "needs more than a board's memory"
NO_RELEASE = "this interpreter's memoryview has no release()"

TIMEOUT_S = 110


def cases(is_long):
    for profile in build.PROFILES if is_long else PROFILES:
        for module in MODULES:
            # The one has nothing to do with the client: see below.
            if module != SEMANTICS and (is_long or is_short(profile, module)):
                yield profile, module


def is_short(profile, module):
    return module not in EACH_CALL and module.startswith("test_mqtt5_") == (profile == "mqtt5")


def pytest_generate_tests(metafunc):
    if "module" in metafunc.fixturenames:
        is_long = metafunc.config.getoption("--long")
        metafunc.parametrize(("profile", "module"), list(cases(is_long)))


@pytest.fixture(scope="session")
def rom_of_tests(tmp_path_factory, compile_mpy):
    """The Path of a ROMFS with all portable tests, compiled with their assertions."""
    from mpremote.romfs import VfsRomWriter

    folder = tmp_path_factory.mktemp("rom")
    sources = [TESTS / "run_portable.py", ROOT / "micropython" / "mqttpipe_repl.py"]
    sources += [*sorted(PORTABLE.glob("*.py")), *sorted(LWIP_PORTABLE.glob("*.py"))]
    writer = VfsRomWriter()
    for source in sources:
        target = folder / (source.stem + ".mpy")
        compile_mpy(source, target, "-s", source.name)
        writer.mkfile(target.name, target.read_bytes())
    image = folder / "image"
    image.write_bytes(bytes(writer.finalise()))
    return image


@pytest.fixture
def start(make_board, flash_with_client, rom_of_tests, tmp_path):
    """A function that starts a board with all tests and the client of a profile."""

    def start_board(profile):
        flash = tmp_path / "flash"
        shutil.copyfile(flash_with_client(profile, keeps_names=True), flash)
        board = make_board(clock="jump", flash=flash, romfs=rom_of_tests)
        board.go_online()  # lwIP's way to itself needs a network, too
        return board

    return start_board


def run_module(board, module):
    code = "import run_portable\nrun_portable.main('/rom', [%r])" % module
    try:
        return board.run(code, TIMEOUT_S)
    except BoardError as error:
        return str(error)


def parts_left_out(profile):
    switches = build.find_switches(build.read_source())
    return {switch.name for switch in switches} - build.parts_of(profile, switches)


def unexpected_skips(profile, output):
    """Return the lines of tests that were left out for no good reason."""
    allowed = ["this build has no " + part for part in parts_left_out(profile)] + [
        TOO_LARGE,
        NO_RELEASE,
    ]
    skips = [line for line in output.splitlines() if line.startswith("skip ")]
    return [line for line in skips if line.split(": ", 1)[1] not in allowed]


def test_portable(profile, module, start, firmware_version, record_property):
    output = run_module(start(profile), module)
    results = count_results(output)
    record_portable(record_property, "lwIP, " + profile, firmware_version, results)
    strange = unexpected_skips(profile, output)
    if results[1] or strange:
        pytest.fail("%s, %s:\n%s" % (module, profile, output), pytrace=False)


def names_in(path):
    return set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M))


HERE = names_in(LWIP_PORTABLE / (LWIP_SEMANTICS + ".py"))
THERE = names_in(PORTABLE / (SEMANTICS + ".py"))


# A board for each: what a test leaves of closed connections changes what the next one sees.
@pytest.mark.parametrize("name", sorted(HERE | THERE))
def test_semantics(name, start):
    start("tiny").run("import %s\n%s.%s()" % (LWIP_SEMANTICS, LWIP_SEMANTICS, name))


def test_each_test_of_lwip_s_own_says_whose_place_it_takes():
    assert len(HERE & THERE) == 6, "renamed there, or added here: %s" % sorted(HERE & THERE)


CONNECT_TWICE = """
import errno, socket, time
from time import ticks_ms, ticks_diff
def connect(port):
    sock = socket.socket()
    sock.connect(("10.0.2.2", port))
    sock.setblocking(False)
    return sock
one, other = connect(%d), connect(%d)
lan.config(watch_phy=False)
"""
# Small pieces take more memory than they have bytes: it ends before the buffers are full.
WRITE_TO_BOTH = """
longest = 0
for sock in (one, other):
    count = 1
    while count and longest < 1000:
        start = ticks_ms()
        try:
            count = sock.write(b"x" * 100)
        except OSError:
            count = 0
        longest = max(longest, ticks_diff(ticks_ms(), start))
print(longest)
"""


def test_a_write_that_must_not_wait_waits_for_seconds_when_lwip_has_no_memory(make_board):
    """lwip_tcp_send() of extmod/modlwip.c: up to 200 times 50 ms. The client must avoid it."""
    board = make_board(clock="jump")
    board.go_online()
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(2):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            ports.append(listener.getsockname()[1])
        board.run(CONNECT_TWICE % tuple(ports))
        board.pull_cable()
        assert int(board.run(WRITE_TO_BOTH)) >= 1000
