"""Streams and files of tools/mqtt.py: reading has limits, and writing is complete."""

import errno
import io
import os
import sys
import time

import mqttpipe

STATUS_TIMEOUT = 27  # as libmosquitto numbers its errors
READ_BYTES = 64 * 1024  # at a time
STDERR_S = 1  # so long a message waits for who has made stderr non-blocking, and does not read


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
        _wait_for(fd, mqttpipe.select.POLLIN, deadline_s)
        try:
            part = os.read(fd, min(READ_BYTES, limit + 1 - len(data)))
        except BlockingIOError:  # another process was faster
            continue
        if not part:
            break
        data += part
    return bytes(data)


def _wait_for(fd, events, deadline_s):
    poll = mqttpipe.select.poll()
    poll.register(fd, events)
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


class _Stdout(io.RawIOBase):
    """Takes all that it is given. Python's own may take a part, with PYTHONUNBUFFERED=1, or where
    another program has made the descriptor non-blocking; and its callers go on without the rest.

    Raises: Ended: it can't be written. From then on it takes everything, and throws it away.
    """

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

    def _write(self, data, deadline_s=None):
        with memoryview(data) as left:
            at = 0
            while at < len(left):
                try:
                    at += os.write(self._fd, left[at:])
                except BlockingIOError:
                    _wait_for(self._fd, mqttpipe.select.POLLOUT, deadline_s)


class _Stderr(_Stdout):
    """What can't be told there is lost: it changes nothing of what is done, nor the status."""

    _patience_s = STDERR_S

    def write(self, data):
        try:
            self._write(data, time.monotonic() + self._patience_s)
            self._patience_s = STDERR_S
        except (OSError, Ended):
            self._patience_s = 0  # the next line holds nothing up
        return len(data)
