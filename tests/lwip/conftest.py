"""Fixtures of the tests on the emulated board (tools/emulated_board.py): real lwIP, no hardware.

    firmware      its path; the test is skipped with --no-lwip
    make_board    make_board(clock="steady", ...): a Board, switched on, at its raw REPL; its
                  arguments are Board's
    board         make_board(): one in real time

Boards end with the test, which shows what they have printed if it has failed.
"""

import contextlib

import pytest

import emulated_board
import get_lwip_board

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
