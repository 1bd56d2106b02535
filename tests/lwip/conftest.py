"""Fixtures of the tests on the emulated board (tools/emulated_board.py): real lwIP, no hardware.

    firmware      its path; the test is skipped with --no-lwip
    make_board    make_board(clock="steady", ...): a Board, switched on, at its raw REPL; its
                  arguments are Board's
    board         make_board(): one in real time
    flash_with_client    a function: a profile -> an image with mqttpipe.mpy in it, to be copied
    start_client         start_client(uri, clock="steady", profile="full", **options): a board,
                         online, with that client, watched by on_board.py
    own_broker           a broker that the test may kill and freeze
    topic                of this test alone

Boards end with the test, which shows what they have printed if it has failed.
"""

import contextlib
import pathlib
import random
import shutil

import pytest

import build
import emulated_board
import get_lwip_board
import servers

ON_BOARD = (pathlib.Path(__file__).resolve().parent / "on_board.py").read_text()

# Run on the board, by test_portable_on_lwip.py.
collect_ignore = ["portable"]

BOARDS = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    finally:  # pytest shows it if the test failed
        for number, board in enumerate(item.stash.get(BOARDS, [])):
            item.add_report_section("call", "board %d: output" % number, board.output())


@pytest.fixture(scope="session")
def firmware(request):
    """The Path of the firmware."""
    if request.config.getoption("--no-lwip"):
        pytest.skip("--no-lwip")
    found = get_lwip_board.find()
    if not found:
        advice = "python3 tools/get_lwip_board.py gets it, --no-lwip leaves it out"
        pytest.fail("no emulated board: " + advice, pytrace=False)
    return found


@pytest.fixture
def make_board(request, firmware):
    """A function that switches a board on."""
    boards = request.node.stash.setdefault(BOARDS, [])
    with contextlib.ExitStack() as stack:

        def make(**options):
            board = emulated_board.Board(firmware, **options)
            boards.append(board)
            return stack.enter_context(board)

        yield make
    boards.clear()


@pytest.fixture
def board(make_board):
    return make_board()


@pytest.fixture(scope="session")
def firmware_version(firmware):
    return get_lwip_board.describe()


@pytest.fixture(scope="session")
def clients():
    """A function: a profile -> the bytes of its mqttpipe.mpy (keeps_names: to look inside)."""
    made = {}

    def get(profile, keeps_names=False):
        if (profile, keeps_names) not in made:
            text = build.read_source()
            switches = build.find_switches(text)
            text = build.configure(text, switches, build.parts_of(profile, switches))
            made[profile, keeps_names] = build.compile_mpy(text, keeps_names=keeps_names)
        return made[profile, keeps_names]

    return get


@pytest.fixture(scope="session")
def flash_with_client(firmware, clients, tmp_path_factory):
    """A function: a profile -> the Path of an image with its mqttpipe.mpy. Start a copy of it."""
    folder = tmp_path_factory.mktemp("flash")

    def get(profile, keeps_names=False):
        image = folder / (profile + "-named" * keeps_names)
        if not image.exists():
            with emulated_board.Board(firmware, flash=image) as board:
                board.put("/mqttpipe.mpy", clients(profile, keeps_names))
        return image

    return get


@pytest.fixture
def topic():
    return "lwip/%08x" % random.getrandbits(32)


@pytest.fixture
def own_broker(broker):
    try:
        another = broker.another()
    except servers.NotOurs as error:
        pytest.skip(str(error))
    with another:
        yield another


@pytest.fixture
def start_client(make_board, flash_with_client, tmp_path):
    """A function that starts a board and makes a client there, `watch.client`."""

    def start(uri, clock="steady", profile="full", **options):
        flash = tmp_path / ("flash-%d" % len(list(tmp_path.iterdir())))
        shutil.copyfile(flash_with_client(profile), flash)
        board = make_board(clock=clock, flash=flash)
        board.go_online()
        board.run(ON_BOARD)
        board.run("client = MQTTClient(%r, **%r)\nwatch = Watch(client)" % (uri, options))
        return board

    return start
