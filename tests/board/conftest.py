"""Fixtures of the tests with a virtual board.

    virtual_board   virtual_board(machine=..., files={"main.py": text}, ...): a VirtualBoard,
                    switched on; its other arguments are VirtualBoard's
    board_kind      the test runs for each machine of BOARD_KINDS
    board           a blank board of that kind, at its prompt
    mpremote        mpremote(board, *arguments, status=0): run it, return what it printed

All of it ends with the test, which shows the board's log and output if it has failed.
"""

import contextlib
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import virtual_board as virtual  # noqa: E402

BOARD_KINDS = {"ESP32": virtual.ESP32, "Pico W": virtual.PICO_W}

MPREMOTE_TIMEOUT_S = 60

BOARDS = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    finally:  # pytest shows it if the test failed
        for number, board in enumerate(item.stash.get(BOARDS, [])):
            events = "\n".join(str(event) for event in board.log)
            item.add_report_section("call", "board %d: log" % number, events)
            item.add_report_section("call", "board %d: output" % number, board.output)


@pytest.fixture
def virtual_board(request, tmp_path, get_interpreter):
    """A function that makes a board and switches it on."""
    get_interpreter("MicroPython 32-bit")  # or skip, or say how to get it
    boards = request.node.stash.setdefault(BOARDS, [])
    with contextlib.ExitStack() as stack:

        def make(machine=virtual.ESP32, files=None, **options):
            board = virtual.VirtualBoard(
                tmp_path / ("board%d" % len(boards)), machine=machine, **options
            )
            for name, text in (files or {}).items():
                path = board.files / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode() if isinstance(text, str) else text)
            boards.append(board)
            return stack.enter_context(board)

        yield make
    boards.clear()


@pytest.fixture(params=BOARD_KINDS)
def board_kind(request):
    return BOARD_KINDS[request.param]


@pytest.fixture
def board(virtual_board, board_kind):
    board = virtual_board(board_kind)
    board.wait_for_output(">>> ")
    return board


@pytest.fixture
def mpremote():
    """A function that runs mpremote on a board."""

    def run(board, *arguments, status=0, **options):
        ran = subprocess.run(
            [sys.executable, "-m", "mpremote", "connect", board.port, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=MPREMOTE_TIMEOUT_S,
            text=True,
            **options,
        )
        assert ran.returncode == status, "mpremote %r: %d\n%s" % (
            arguments,
            ran.returncode,
            ran.stdout,
        )
        return ran.stdout

    return run
