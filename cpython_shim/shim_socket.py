"""The board's `socket`: sockets that are streams.

What differs, and how it is bridged
-----------------------------------
- A board's socket is a stream: `readinto`, `read` and `write` answer a count (or bytes), None
  for "would block", 0 (or b"") when the peer has closed, and raise OSError when the connection
  is lost. CPython's has `recv_into` and `send`, which raise BlockingIOError for the first.
  `recv`, `send` and `accept` raise it on a board too, and are handed through.
- A board's stream calls go on until all of the buffer was moved or the socket would block: a
  `write` answers less than asked only when the send buffer is full. Here the same.
- `write(buf, length)` and `write(buf, offset, length)`, `readinto(buf, length)` are the board's
  forms, with its arithmetic: what lies beyond the buffer is cut off, nothing is raised, and a
  negative length is a very large one. A str is written as UTF-8.
- A timeout ends in OSError(ETIMEDOUT). CPython raises one without errno.
- `connect` takes an address from `getaddrinfo` and no host name: rp2 refuses a name, CPython
  and ESP32 would stop the whole program for the DNS query, unseen until the day it is slow.
- While a non-blocking connect is under way, write() and readinto() answer None on boards, and
  on Linux. macOS has ENOTCONN for that, which is told apart from a failure by SO_ERROR.
- Only the board's methods are here. `sendall`, `makefile`, `getsockopt` and the like would
  work on a PC and break on the first board.

An address is a `(host, port, ...)` tuple as on ESP32 and rp2. Treat it as opaque: the unix port
has a bytearray there.
"""

import errno
import socket as _socket
import weakref
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_REUSEADDR,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
)

__all__ = [
    "AF_INET",
    "AF_INET6",
    "IPPROTO_TCP",
    "SOCK_DGRAM",
    "SOCK_STREAM",
    "SOL_SOCKET",
    "SO_REUSEADDR",
    "TCP_NODELAY",
    "getaddrinfo",
    "socket",
]

# readall's first buffer, as large as the board's (py/stream.c).
_READ_ALL_BYTES = 256


def getaddrinfo(host, port, af=0, type=0, proto=0, flags=0):
    """Return a list of (family, type, proto, name, address).

    Raises:
        OSError: the name is not known; args[0] is negative (EAI_*), as on ESP32.

    Blocks: until the answer is there, seconds long if there is none.
    """
    try:
        return _socket.getaddrinfo(host, port, af, type, proto, flags)
    except ValueError as exc:
        # A label of 64 letters, an empty one, a NUL: CPython's IDNA codec complains with
        # UnicodeError, where a board's resolver would say that there is no such host.
        raise OSError(_socket.EAI_NONAME, f"not a host name: {host!r}") from exc


class socket:  # noqa: N801  the board's name for it
    """A TCP or UDP socket with the board's methods.

    `write()`, `readinto()` and `read()` have one contract:
        n > 0 (or bytes)   that many were moved
        None               nothing now; poll
        0 (or b"")         reading only: the peer has closed the connection
        OSError            the connection is lost
    """

    __slots__ = ("_sock", "_send", "_recv_into", "_is_connecting", "_polls", "__weakref__")

    def __init__(self, af=AF_INET, type=SOCK_STREAM, proto=0):
        self._wrap(_socket.socket(af, type, proto))

    def _wrap(self, sock):
        self._sock = sock  # CPython's; one forgotten unclosed says ResourceWarning, as ever
        self._send = sock.send  # bound once: the hot paths are one attribute shorter
        self._recv_into = sock.recv_into
        self._is_connecting = False  # connect() said EINPROGRESS; matters on macOS only
        self._polls = ()  # weak references to the shim's polls that have us registered

    # -- streams --

    def write(self, buf, *part):
        """Send all of `buf`, or `buf[:length]`, or `buf[offset:offset+length]`.

        Args:
            part: nothing, or `length`, or `offset, length`.

        Returns:
            The bytes that the kernel took; None if it takes none now.
        """
        if part:
            buf = part_of(buf, *part)
        elif isinstance(buf, str):
            buf = buf.encode()
        try:
            sent = self._send(buf)
        except OSError as exc:
            # The traceback keeps this frame: a view left in it would forbid the caller to
            # resize its bytearray, which a board allows.
            buf = None
            return self._on_error(exc)
        self._is_connecting = False
        left = len(buf) - sent
        while left > 0:
            # Rare: the send buffer is full. Once more, as a board does; it may have drained.
            try:
                more = self._send(memoryview(buf)[sent:])
            except BlockingIOError:
                break
            except OSError as exc:
                buf = None
                return self._on_error(exc)
            sent += more
            left -= more
        return sent

    def readinto(self, buf, length=-1):
        """Receive into `buf`, at most `length` bytes if that is given.

        Returns:
            The bytes received; None if there are none now; 0 if the peer has closed.
        """
        size = len(buf)
        if 0 <= length < size:
            size = length
            if not size:
                return 0  # recv_into() would take it for "as much as fits"
        try:
            received = self._recv_into(buf, size)
            if received == size or not received:
                return received
        except OSError as exc:
            return self._on_error(exc)
        # Less than asked: a board reads on until the socket would block. This is more than
        # good manners. An error behind the last bytes makes the board lose them, and a client
        # must live with that.
        view = memoryview(buf)
        while received < size:
            try:
                more = self._recv_into(view[received:size])
            except BlockingIOError:
                break
            except OSError as exc:
                return self._on_error(exc)
            if not more:
                break
            received += more
        return received

    def read(self, length=-1):
        """Receive `length` bytes, or fewer if no more are there; -1 for all that is there.

        Returns:
            bytes; None if there are none now; b"" if the peer has closed.
        """
        if length is None or length < 0:
            return self._read_all()
        buf = bytearray(length)
        received = self.readinto(buf)
        return None if received is None else bytes(buf[:received])

    def _read_all(self):
        whole = b""
        while True:
            piece = self.read(_READ_ALL_BYTES)
            if not piece:
                return whole or piece
            whole += piece

    # -- the board's other methods --

    def connect(self, address):
        """Connect to `address`, which comes from getaddrinfo().

        Raises:
            OSError: EINPROGRESS on a non-blocking socket; poll for POLLOUT, then write.
            ValueError: address holds a host name.
        """
        _refuse_host_name(self._sock.family, address)
        try:
            self._sock.connect(address)
        except BlockingIOError:
            self._is_connecting = True
            raise
        except OSError as exc:
            self._on_error(exc)
            raise

    def bind(self, address):
        """Bind to `address`, which comes from getaddrinfo()."""
        self._sock.bind(address)

    def listen(self, backlog=2):
        """Accept connections from now on."""
        self._sock.listen(backlog)

    def accept(self):
        """Return (socket, address). Raises OSError(EAGAIN) if nobody waits, without blocking."""
        try:
            sock, address = self._sock.accept()
        except OSError as exc:
            raise _with_errno(exc) from None
        # A board's new socket blocks. On macOS it inherits "non-blocking" from the listener,
        # and CPython would not know.
        sock.setblocking(True)
        accepted = type(self).__new__(type(self))
        accepted._wrap(sock)
        return accepted, address

    def recv(self, length, flags=0):
        """Return up to `length` bytes. Raises OSError(EAGAIN) if there are none now."""
        return _call(self._sock.recv, length, flags)

    def send(self, buf, flags=0):
        """Return how many bytes of `buf` were taken. Raises OSError(EAGAIN) if none now."""
        return _call(self._send, buf, flags)

    def recvfrom(self, length, flags=0):
        """Return (bytes, address). Raises OSError(EAGAIN) if there is no datagram now."""
        return _call(self._sock.recvfrom, length, flags)

    def sendto(self, buf, address):
        """Send one datagram to `address`, which comes from getaddrinfo()."""
        return _call(self._sock.sendto, buf, address)

    def setsockopt(self, level, option, value):
        """Set an option; value is an int or bytes."""
        self._sock.setsockopt(level, option, value)

    def setblocking(self, is_blocking):
        """True: every call waits for ever. False: none waits."""
        if self._sock.fileno() < 0:
            raise OSError(errno.EBADF, "closed")  # CPython would say nothing
        self._sock.setblocking(is_blocking)

    def settimeout(self, timeout_s):
        """Wait at most `timeout_s` seconds in a call; None: for ever; 0: not at all."""
        self._sock.settimeout(timeout_s)

    def fileno(self):
        """Return the descriptor, -1 once closed."""
        return self._sock.fileno()

    def close(self):
        """Close. Twice does no harm here; on the unix port 1.25 it closes somebody else's."""
        for reference in self._polls:
            poller = reference()
            if poller is not None:
                poller._on_closed(self)
        self._polls = ()
        self._sock.close()

    # -- private --

    def _shim_watched_by(self, poller):
        # From shim_select.poll.register(); unregistering needs no word, the poll looks itself.
        self._polls = tuple(ref for ref in self._polls if ref() not in (None, poller)) + (
            weakref.ref(poller),
        )

    # What a failed call means for a stream: None for "would block", else the error is raised.
    def _on_error(self, exc):
        if isinstance(exc, BlockingIOError):
            return None
        if exc.errno == errno.ENOTCONN and self._is_connecting:
            # macOS: not connected yet, or not any more. SO_ERROR knows, once.
            code = self._sock.getsockopt(SOL_SOCKET, _socket.SO_ERROR)
            if code == 0:
                return None
            self._is_connecting = False
            raise OSError(code, "connect failed") from None
        raise _with_errno(exc)


# Slice as py/stream.c does: an offset beyond the end is the end, a length beyond it or below 0
# is the rest, and a negative offset, which is a very large one there, is the end as well.
def part_of(buf, *part):
    """Return a view of `buf`, or of what write()'s arguments `[offset,] length` say of it."""
    if len(part) == 2:
        offset, length = part
    else:
        offset, length = 0, part[0] if part else -1
    view = memoryview(buf.encode() if isinstance(buf, str) else buf)
    if view.itemsize != 1:
        view = view.cast("B")
    if offset < 0 or offset > len(view):
        offset = len(view)
    return view[offset:] if length < 0 else view[offset : offset + length]


def _with_errno(exc):
    # CPython's timeout has no errno; a board's is ETIMEDOUT.
    if exc.errno is None and isinstance(exc, _socket.timeout):
        return OSError(errno.ETIMEDOUT, "timed out")
    return exc


def _call(method, *arguments):
    try:
        return method(*arguments)
    except OSError as exc:
        raise _with_errno(exc) from None


def _refuse_host_name(family, address):
    if family in (AF_INET, AF_INET6):
        host = address[0].partition("%")[0]  # fe80::1%eth0 has a zone behind it
        try:
            _socket.inet_pton(family, host)
        except OSError:
            raise ValueError(f"address is not from getaddrinfo(): {address!r}") from None
