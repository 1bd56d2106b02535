"""Run programs on a simulated board, piece by piece, and see what they print.

    console.run("import network")            raises BoardFailed with the traceback
    console.run("print(1 + 1)") == "2\\n"
    console.world, console.sync(), console.events(kind)      of the board

The pieces share their variables, as at a REPL. There are two kinds: RawRepl, on a virtual board
through its port, and InProcess, a simulated board in this CPython. What a test does with one it
can do with the other.
"""

import contextlib
import io
import os
import pathlib
import select
import sys
import time
import traceback

import pexpect

ROOT = pathlib.Path(__file__).resolve().parents[2]

RUN_TIMEOUT_S = 20


def end(terminal):
    """End the program on a terminal of pexpect's, which gives a killed one 0.1 s to be gone."""
    try:
        terminal.close(force=True)
    except pexpect.ExceptionPexpect:
        terminal.wait()  # SIGKILL was sent; a busy machine takes its time


class BoardFailed(AssertionError):
    """What ran on the board has raised; the message is the traceback."""


class RawRepl:
    """The raw REPL of a virtual board: what mpremote does, without its 150 ms a command."""

    def __init__(self, board):
        self.board = board
        self.world = board.world
        self.events = board.events
        self.sync = board.sync
        self._fd = None
        self._buffer = b""

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *_):
        self.close()

    def open(self):
        """Open the port, interrupt what runs, enter the raw REPL. No soft reset."""
        self._fd = _open_when_there(self.board.port)
        self._buffer = b""
        self.write(b"\r\x03\r\x01")
        self.read_until(b"raw REPL; CTRL-B to exit\r\n>")

    def close(self):
        """Let go of the port."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None

    def write(self, data):
        """Send bytes."""
        while data:
            select.select([], [self._fd], [], RUN_TIMEOUT_S)
            data = data[os.write(self._fd, data) :]

    def read_until(self, ending, timeout_s=RUN_TIMEOUT_S):
        """Return what comes up to and with `ending`."""
        end_s = time.monotonic() + timeout_s
        while ending not in self._buffer:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([self._fd], [], [], left_s)[0]:
                raise BoardFailed("no %r, but %r" % (ending, self._buffer[-500:]))
            try:
                data = os.read(self._fd, 4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                raise BoardFailed("the port is gone; before: %r" % self._buffer[-500:])
            self._buffer += data
        found, ending, self._buffer = self._buffer.partition(ending)
        return found + ending

    def start(self, program):
        """Start a program without waiting for its end."""
        self.write(program.encode() + b"\x04")
        self.read_until(b"OK")

    def run_to_reset(self, program):
        """Run a program that ends in a reset; be at the next life's raw REPL."""
        since = len(self.board.output)
        # Not start(): the port of a board with its own USB may be gone before it says "OK".
        self.write(program.encode() + b"\x04")
        self.board.wait_for_output(">>> ", since=since)
        self.close()
        self.open()

    def run(self, program):
        """Run a program; return what it printed."""
        self.start(program)
        output = self.read_until(b"\x04")[:-1].decode().replace("\r\n", "\n")
        error = self.read_until(b"\x04")[:-1].decode().replace("\r\n", "\n")
        self.read_until(b">")
        if error:
            raise BoardFailed(error)
        return output


def _open_when_there(path):
    end_s = time.monotonic() + RUN_TIMEOUT_S
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        if time.monotonic() > end_s:
            raise BoardFailed("no port " + path)
        time.sleep(0.005)


class InProcess:
    """A board in this process: cpython_shim/board/simulated_board.py."""

    def __init__(self, machine):
        folder = str(ROOT / "cpython_shim" / "board")
        sys.path.insert(0, folder)
        try:
            import simulated_board
        finally:
            sys.path.remove(folder)
        self.board = simulated_board.SimulatedBoard(machine)
        self.world = self.board.world
        self.events = self.board.events
        self.sync = self.board.sync
        self._variables = {"__name__": "__main__"}

    def __enter__(self):
        self.board.__enter__()
        return self

    def __exit__(self, *details):
        self.board.__exit__(*details)

    def run_to_reset(self, program):
        """Run a program that ends in a reset; begin the next life."""
        import board_bus

        try:
            self.run(program)
        except board_bus.BoardReset:
            self.board.reset()
        else:
            raise BoardFailed("no reset")

    def run(self, program):
        """Run a program; return what it printed."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            try:
                exec(compile(program, "<stdin>", "exec"), self._variables)
            except Exception:
                raise BoardFailed(traceback.format_exc())
        return output.getvalue()
