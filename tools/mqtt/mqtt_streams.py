"""Streams and files of tools/mqtt.py: reading has limits, and writing is complete."""

import contextlib
import errno
import io
import os
import select
import sys
import time

STATUS_TIMEOUT = 27  # as libmosquitto numbers its errors
READ_BYTES = 64 * 1024  # at a time
UNREAD_S = 1  # so long is waited, once it shall end, for who does not read what we write
LOOK_MS = 100  # whether it shall end


class Ended(Exception):
    """It is over: `.status` for the shell, and a line for the person, or ""."""

    def __init__(self, status, text=""):
        super().__init__(text)
        self.status = status


class UsageError(Exception):
    """The options are wrong; the message is one line for the person who gave them."""


# ---------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------


def read_path(path, limit, deadline_s=None):
    """Return what is in a file; of more than `limit` bytes, the first limit + 1.

    Args: deadline_s: of time.monotonic(), or None.

    Raises: UsageError. Ended: the deadline is over.
    """
    try:
        # A pipe with a name: open() would wait for its writer, for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return _read_all(fd, limit, deadline_s)
        finally:
            os.close(fd)
    except OSError as error:
        raise UsageError('Unable to open file "%s": %s' % (path, error.strerror))


def read_stdin(limit, deadline_s=None):
    """Return what comes from there, as read_path() does it."""
    try:
        return _read_all(sys.stdin.fileno(), limit, deadline_s)
    except OSError as error:
        raise UsageError("Unable to read stdin: %s" % error.strerror)


def _read_all(fd, limit, deadline_s):
    data = bytearray()
    while len(data) <= limit:
        _wait_for(fd, deadline_s)
        try:
            part = os.read(fd, min(READ_BYTES, limit + 1 - len(data)))
        except BlockingIOError:  # another process was faster
            continue
        if not part:
            break
        data += part
    return bytes(data)


def _wait_for(fd, deadline_s):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    timeout_ms = -1
    while True:
        if deadline_s is not None:
            timeout_ms = max(0, int((deadline_s - time.monotonic()) * 1000) + 1)
        if poll.poll(timeout_ms):
            return
        if deadline_s is not None and time.monotonic() >= deadline_s:
            raise Ended(STATUS_TIMEOUT, "Timed out")


# ---------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------


def open_streams():
    """Make the three streams good for us.

    What our caller has closed (`<&-`, `>&-`) is given back: nothing comes from there or goes
    there. Else sys.stdout is None, and the number of its descriptor becomes that of our socket.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    sys.stdout = _text_to(_Stdout(sys.stdout), sys.stdout)
    sys.stderr = _text_to(_Stderr(sys.stderr), sys.stderr)


def _text_to(raw, stream):
    is_line_buffered = stream.line_buffering or stream.write_through
    how = {"errors": "backslashreplace", "line_buffering": is_line_buffered}
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, **how)


def end_output_at(deadline_s):
    """From then on (of time.monotonic(); None: never) a reader that does not read is given up.

    It may be called by a signal's handler, while that is waited for.
    """
    _Stdout.deadline_s = deadline_s


class _Stdout(io.RawIOBase):
    """Takes all that it is given. Python's own may take a part, with PYTHONUNBUFFERED=1, or where
    another program has made the descriptor non-blocking; and its callers go on without the rest.

    Raises: Ended: it can't be written. From then on it takes everything, and throws it away.
    """

    deadline_s = None  # see end_output_at()
    _patience_s = UNREAD_S

    def __init__(self, stream):
        self._stream = stream  # which would close the descriptor
        self._fd = stream.fileno()

    def fileno(self):
        return self._fd

    def isatty(self):
        return os.isatty(self._fd)

    def writable(self):
        return True

    def write(self, data):
        try:
            self._write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._fd)
            if error.errno == errno.EPIPE:  # nobody reads it: `| head`
                raise Ended(0)
            raise Ended(1, "Error: can't write the output: %s" % error.strerror)
        return len(data)

    # A pipe that is ready takes PIPE_BUF bytes at once: so no write blocks, which no signal ends.
    def _write(self, data):
        with memoryview(data) as left:
            at = 0
            while at < len(left):
                self._wait()
                with contextlib.suppress(BlockingIOError):  # another process was faster
                    at += os.write(self._fd, left[at : at + select.PIPE_BUF])

    def _wait(self):
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        began_s = time.monotonic()
        while not poll.poll(LOOK_MS):
            since_s = self._over_since_s(began_s)
            if since_s is not None and time.monotonic() - since_s >= self._patience_s:
                raise OSError(errno.ETIMEDOUT, "nobody reads it")

    def _over_since_s(self, began_s):
        return None if self.deadline_s is None else max(self.deadline_s, began_s)


class _Stderr(_Stdout):
    """What can't be told there is lost: it changes nothing of what is done, nor the status.

    Who has made it non-blocking, and does not read it, is not waited for longer, either.
    """

    def write(self, data):
        try:
            self._write(data)
            self._patience_s = UNREAD_S
        except OSError:
            self._patience_s = 0  # the next line holds nothing up
        return len(data)

    def _over_since_s(self, began_s):
        return super()._over_since_s(began_s) if os.get_blocking(self._fd) else began_s
