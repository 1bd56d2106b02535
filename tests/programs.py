"""A program in a process: its lines, as they come.

with Program([*micropython.command, "program.py"], environment) as program:
    program.wait_for("online")      the next line that is so; those before it are passed over
"""

import collections
import os
import re
import subprocess
import threading
import time

WAIT_S = 30
LINES_MAX = 2000


class Program:
    """Starts at once; close(), or the end of a `with`, ends it.

    Attributes: process; lines: what it has printed (the newest of it) and nobody waited for.
    """

    def __init__(self, command, environment=None, cwd=None):
        self.lines = collections.deque(maxlen=LINES_MAX)
        self._all = collections.deque(maxlen=LINES_MAX)
        self._changed = threading.Condition()
        self._is_over = False
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=dict(os.environ, **(environment or {})),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._all.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def story(self):
        """All that it has printed."""
        return "\n".join(self._all)

    def wait_for(self, pattern, timeout_s=WAIT_S):
        """Return the match of the next line that the pattern (from its begin) fits."""
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                while self.lines:
                    found = re.match(pattern, self.lines.popleft())
                    if found:
                        return found
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self._is_over:
                    raise AssertionError("no line %r; it printed:\n%s" % (pattern, self.story()))
                self._changed.wait(min(left_s, 0.5))

    def wait_for_end(self, timeout_s=WAIT_S):
        """Return (exit status, all lines)."""
        __tracebackhide__ = True
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError("it goes on; it printed:\n%s" % self.story()) from None
        self._thread.join(timeout_s)
        return status, list(self._all)

    def close(self):
        self.process.kill()
        self.process.wait(WAIT_S)
        self._thread.join(WAIT_S)
        self.process.stdout.close()
