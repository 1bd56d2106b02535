"""A program at a terminal, typed at and looked at: for tests of what a person sees.

    with Terminal([python, "-i"], env=...) as terminal:
        terminal.wait_for(">>> ")            on the screen, anywhere
        terminal.type("print(1 + 1)\r")
        terminal.wait_for("2", ...)
    terminal.ask("1 + 2", "3")           types a line; what was there before is no answer
        print(terminal.lines())              the rows, but for empty ones at the end
        print(terminal.line())               the row that the cursor is in, up to its end
        print(terminal.raw())                every byte that came

The screen is pyte's, an emulator of the terminals that people use: what a control sequence does
there is not for these tests to say. A thread reads what comes; every wait has an end, and shows
the screen when that comes.
"""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time

import pyte

WAIT_S = 60  # a busy machine; who waits sees the end at once
COLUMNS = 80
ROWS = 24


class Terminal:
    """A program behind a pseudo-terminal.

    Args:
        command: list of str. env: dict, all of the program's environment, TERM aside.
        columns, rows: of the screen. cwd: the program's folder. term: what TERM says.
    """

    def __init__(self, command, env=None, columns=COLUMNS, rows=ROWS, cwd=None, term="xterm"):
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = threading.Condition()
        self._raw = bytearray()
        self._is_over = False
        self.master, slave = pty.openpty()
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, size)

        def take_terminal():  # Ctrl-C goes to whom the terminal belongs
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=dict(os.environ if env is None else env, TERM=term),
            cwd=cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=take_terminal,
        )
        os.close(slave)
        self._thread = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _read(self):
        while True:
            try:
                data = os.read(self.master, 4096)
            except OSError:  # the program has ended: EIO on Linux
                data = b""
            with self._changed:
                if data:
                    self._raw += data
                    self._stream.feed(data)
                else:
                    self._is_over = True
                self._changed.notify_all()
            if not data:
                return

    # -- what a person does

    def type(self, text):
        """Type `text` (str or bytes): "\\r" is the return key, "\\x03" Ctrl-C."""
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def ask(self, line, answer, timeout_s=WAIT_S):
        """Type a line, and wait until `answer` has come behind that."""
        __tracebackhide__ = True
        since = len(self.raw())
        self.type(line + "\r")

        def find(_):
            return answer.encode() in self.raw()[since:]

        self.wait_until(find, "%r behind %r" % (answer, line), timeout_s)

    # -- what a person sees

    def lines(self):
        with self._changed:
            return self._lines()

    def _lines(self):
        rows = [row.rstrip() for row in self._screen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def line(self):
        """Return the row of the cursor, without the blanks at its end."""
        with self._changed:
            return self._screen.display[self._screen.cursor.y].rstrip()

    def column(self):
        with self._changed:
            return self._screen.cursor.x

    def raw(self):
        with self._changed:
            return bytes(self._raw)

    def wait_until(self, condition, what, timeout_s=WAIT_S):
        """Wait until condition(rows of the screen) is true, and return what it answered."""
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                answer = condition(self._lines())
                if answer:
                    return answer
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self._is_over:
                    raise AssertionError("no %s on the screen:\n%s" % (what, self._story()))
                self._changed.wait(min(left_s, 0.5))

    def wait_for(self, text, timeout_s=WAIT_S):
        """Wait until a row of the screen holds `text`, and return that row."""
        __tracebackhide__ = True

        def find(rows):
            return next((row for row in rows if text in row), None)

        return self.wait_until(find, repr(text), timeout_s)

    def wait_for_line(self, text, timeout_s=WAIT_S):
        """Wait until the row of the cursor is `text`."""
        __tracebackhide__ = True
        self.wait_until(
            lambda rows: self._screen.display[self._screen.cursor.y].rstrip() == text,
            "%r where the cursor is" % text,
            timeout_s,
        )

    def story(self):
        with self._changed:
            return self._story()

    def _story(self):
        status = self.process.poll()
        state = "runs" if status is None else "ended with status %d" % status
        frame = "+" + "-" * self._screen.columns + "+"
        rows = ["|%s|" % row for row in self._screen.display]
        return "\n".join([state, frame, *rows, frame])

    def wait_for_end(self, timeout_s=WAIT_S):
        """Wait until the program has ended; return its exit status."""
        status = self.process.wait(timeout_s)
        self._thread.join(timeout_s)
        return status

    def close(self):
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(WAIT_S)
        self._thread.join(WAIT_S)
        os.close(self.master)
