"""Make the shim behave as one particular port does, or worse than any: for tests.

Theory
------
The client is the same file on every port, and what the ports' sockets do differs most where it
matters most: while a connection is made, and when it fails. The unix port is all that a PC can
run, and it is the tamest. So here are the others' ways, on top of this machine's own sockets:

    esp32     IDF's sockets over lwIP: newlib's error numbers, no POLLERR, a poll that ticks
    rp2       lwIP's raw API as modlwip.c uses it: POLLERR without POLLOUT, a small send buffer
    unix      CPython has this already, but for opaque addresses and what close() can do
    hostile   few bytes at a time and None for no reason; nothing that a stream may not do
    faulty    hostile, and connections that break late, or fall silent for ever

    import shim_personality
    shim_personality.use("esp32")       before mqttpipe is imported, and for the whole process

use() puts a class of sockets into shim_socket, a poll into shim_select and numbers into
shim_errno, where the client finds them. Without it not one line of this file runs.

A socket of a personality knows its own state, in the words of the port's source, and asks the
kernel below only where both can be meant. Its readiness is its own as well: `_shim_events(mask)`
stands for the port's `ioctl(POLL)`, and the poll asks it (shim_select._Entry.ask), also for the
socket below a TLS stream.

Loopback is too fast to see a connection being made: it stands when connect() returns. On Wi-Fi
the answer takes a round trip, so here nothing is heard of a connect() for ROUND_TRIP_S.

Where a quirk is from is said beside it. Paths are MicroPython's, with the lines of
v1.29.0-preview: modsocket.c is ports/esp32/modsocket.c, modlwip.c is extmod/modlwip.c. "lwIP" is
the network stack of both boards, read in Espressif's form of January 2024. What was tried on the
real unix port says so. "Seen on the module": modsocket.c itself was run, of v1.26.1, over lwIP
2.2.1 on a PC (tools/get_esp32_sockets.py). Nothing here was seen on a real board.

Not imitated: rp2's write() that blocks for up to 10 s when lwIP has no memory (modlwip.c:795-815);
DNS that hangs with the link; receive windows; lwIP's own retransmission times; getaddrinfo() of
rp2 that calls every address AF_INET (modlwip.c:1894); rp2's setblocking() that says nothing of a
closed socket; `fileno`, which rp2 has not, and this shim needs.
"""

import errno
import gc
import random
import select
import socket as _socket
import struct
import sys
import time
import traceback
import weakref

import shim_errno
import shim_micropython
import shim_select
import shim_socket

try:
    import fcntl
    import termios
except ImportError:  # no such system calls; see _unacknowledged()
    fcntl = None

NAMES = ("esp32", "rp2", "unix", "hostile", "faulty")

ROUND_TRIP_S = 0.003

_IN = shim_select.POLLIN
_OUT = shim_select.POLLOUT
_ERR = shim_select.POLLERR
_HUP = shim_select.POLLHUP
_NVAL = 32
_RDHUP = getattr(select, "POLLRDHUP", 0)  # the peer has closed; Linux only

# ---------------------------------------------------------------------------
# Error numbers
# ---------------------------------------------------------------------------

# ESP32: newlib's sys/errno.h (ports/esp32/mpconfigport.h:71).
NEWLIB = {
    "EPERM": 1,
    "ENOENT": 2,
    "EIO": 5,
    "EBADF": 9,
    "EAGAIN": 11,
    "ENOMEM": 12,
    "EACCES": 13,
    "EEXIST": 17,
    "ENODEV": 19,
    "EISDIR": 21,
    "EINVAL": 22,
    "ENFILE": 23,
    "EMFILE": 24,
    "EPIPE": 32,
    "EOPNOTSUPP": 95,
    "ECONNRESET": 104,
    "ENOBUFS": 105,
    "EAFNOSUPPORT": 106,
    "EPROTOTYPE": 107,
    "ENOTSOCK": 108,
    "ENOPROTOOPT": 109,
    "ECONNREFUSED": 111,
    "EADDRINUSE": 112,
    "ECONNABORTED": 113,
    "ENETUNREACH": 114,
    "ENETDOWN": 115,
    "ETIMEDOUT": 116,
    "EHOSTDOWN": 117,
    "EHOSTUNREACH": 118,
    "EINPROGRESS": 119,
    "EALREADY": 120,
    "EDESTADDRREQ": 121,
    "EMSGSIZE": 122,
    "EPROTONOSUPPORT": 123,
    "EADDRNOTAVAIL": 125,
    "EISCONN": 127,
    "ENOTCONN": 128,
}

# rp2: py/mperrno.h:31-84. The unix port has the system's own: on Linux they are these.
LINUX = {
    **NEWLIB,
    "EDESTADDRREQ": 89,
    "EMSGSIZE": 90,
    "EPROTOTYPE": 91,
    "ENOPROTOOPT": 92,
    "EPROTONOSUPPORT": 93,
    "EAFNOSUPPORT": 97,
    "EADDRINUSE": 98,
    "EADDRNOTAVAIL": 99,
    "ENETDOWN": 100,
    "ENETUNREACH": 101,
    "ECONNABORTED": 103,
    "EISCONN": 106,
    "ENOTCONN": 107,
    "ETIMEDOUT": 110,
    "EHOSTDOWN": 112,
    "EHOSTUNREACH": 113,
    "EALREADY": 114,
    "EINPROGRESS": 115,
    "ENOTSOCK": 88,
}

_HOST = {name: getattr(errno, name) for name in NEWLIB if hasattr(errno, name)}
_NAME_OF = {number: name for name, number in _HOST.items()}


class BoardError(OSError):
    """An OSError with the port's number, and its name as the text, as a board prints it.

    A class of its own, because OSError(115, ...) makes a BlockingIOError of Linux's EINPROGRESS,
    while newlib's 115 is ENETDOWN; and because it tells what has been translated already.
    """


class Misuse(AssertionError):
    """What a board would answer with harm, and no exception. No program catches this one."""


def _translated(method):
    # The method, with the port's numbers in all that it raises.
    def call(self, *arguments, **options):
        try:
            return method(self, *arguments, **options)
        except OSError as error:
            # The frames down there have views of the caller's buffer, which could not be resized
            # while somebody keeps the error.
            traceback.clear_frames(error.__traceback__)
            board_error = error
            if not isinstance(error, BoardError):
                board_error = self._error(_NAME_OF.get(error.errno, "EIO"))
        raise board_error.with_traceback(None)

    call.__doc__ = method.__doc__
    call.__name__ = method.__name__
    return call


# ---------------------------------------------------------------------------
# What all personalities share
# ---------------------------------------------------------------------------

_METHODS = (
    "accept bind close connect listen read readinto recv recvfrom send sendto setblocking "
    "setsockopt settimeout write"
).split()


class _Socket(shim_socket.socket):
    numbers = _HOST

    def _error(self, name):
        return BoardError(self.numbers[name], name)

    def _is_blocking(self):
        return self._sock.gettimeout() != 0

    def _kernel_events(self):
        kernel = select.poll()
        kernel.register(self._sock.fileno(), _IN | _OUT | _RDHUP)
        for _, events in kernel.poll(0):
            return events
        return 0

    # The error that the kernel has for us, 0 if none; asking takes it away.
    def _take_kernel_error(self):
        return self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)


class _Poll(shim_select.poll):
    """A poll of sockets that answer for themselves; it sleeps in the kernel all the same."""

    _is_doubtful = False  # the kernel woke us, and nothing was ready

    def _sleep(self, timeout_ms):
        self._is_doubtful = False
        return super()._sleep(timeout_ms)

    # The kernel may call ready what the socket does not; then there is a pause, or a core
    # would be busy with asking both.
    def _sleep_once(self, left_ms):
        if self._is_doubtful:
            _sleep_until_schedule(1 if left_ms < 0 else min(left_ms, 1))
        else:
            super()._sleep_once(left_ms)
        self._is_doubtful = not self._is_doubtful


def _sleep_until_schedule(left_ms):
    bell = shim_micropython.enter_sleep()
    try:
        kernel = select.poll()
        if bell is not None:
            kernel.register(bell, _IN)
        if not shim_micropython.is_scheduled():
            kernel.poll(left_ms)
    finally:
        if bell is not None:
            shim_micropython.exit_sleep()


# ---------------------------------------------------------------------------
# lwIP: what ESP32 and rp2 share
# ---------------------------------------------------------------------------

# States of a socket, as in both modsocket.c and modlwip.c.
_NEW = "new"  # TCP, and connect() was not called
_LISTENING = "listening"
_CONNECTING = "connecting"
_STANDING = "standing"  # connected; and UDP from the beginning
_FAILED = "failed"
_RESET_TOLD = "reset told"  # rp2: a read has raised ECONNRESET
_INVALID = "invalid"  # rp2: a read has raised another error
_CLOSED = "closed"


class _LwipSocket(_Socket):
    """States and errors of lwIP's TCP; what is said of them is the port's, in the subclasses.

    Subclasses have:
        _events_standing(kernel, mask)   the events of a connection that stands
        _events_failed(mask)             those of one that has failed
        _read_failed()                   what a read of it answers, or raises
        _write_failed()                  what a write to it raises
        _read_connecting()               what a read answers before a connection stands
        _read_new()                      what it answers before connect()
    """

    def _wrap(self, sock):
        super()._wrap(sock)
        self._is_tcp = sock.type == _socket.SOCK_STREAM
        self._state = _NEW if self._is_tcp else _STANDING
        self._heard_at_s = 0  # when the first word of the peer can be here
        self._failure = None  # name of the error

    def connect(self, address):
        if not self._is_tcp:
            super().connect(address)
            return
        if self._state != _NEW:
            self._refuse_connect()
        try:
            super().connect(address)
        except BlockingIOError:
            # Both boards say EINPROGRESS: modsocket.c:401, modlwip.c:1234-1247.
            self._state = _CONNECTING
            self._heard_at_s = time.monotonic() + ROUND_TRIP_S
            raise
        except OSError as error:
            if error.errno == errno.ETIMEDOUT and self._sock.gettimeout():
                raise  # the caller's own time
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                raise self._error("EHOSTUNREACH") from None  # lwIP: ERR_RTE of tcp_connect()
            self._fail(error.errno)
            raise self._error(self._failure) from None
        self._state = _STANDING

    # modlwip.c:1211-1217; for ESP32 lwIP: lwip_netconn_do_connect() in api_msg.c.
    def _refuse_connect(self):
        self._look_at_connect()
        names = {_STANDING: "EISCONN", _CONNECTING: "EALREADY"}
        raise self._error(names.get(self._state, "ENOTCONN"))

    def listen(self, backlog=2):
        super().listen(backlog)
        self._state = _LISTENING

    def accept(self):
        accepted, address = super().accept()
        accepted._state = _STANDING
        return accepted, address

    def close(self):
        self._state = _CLOSED
        super().close()

    # What lwIP's callbacks would have told meanwhile of a connect().
    def _look_at_connect(self):
        if self._state != _CONNECTING or time.monotonic() < self._heard_at_s:
            return
        if self._kernel_events():
            code = self._take_kernel_error()
            if code:
                self._fail(code)
            else:
                self._state = _STANDING

    # lwIP: a refusal is ERR_RST as a reset is (tcp_process() in tcp_in.c), every other end is
    # ERR_ABRT (tcp_slowtmr() in tcp.c). To both ports these are ECONNRESET and ECONNABORTED
    # (modlwip.c:207-300; err_to_errno() in lwIP's err.c).
    def _fail(self, code):
        is_reset = code in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)
        self._failure = "ECONNRESET" if is_reset else "ECONNABORTED"
        self._state = _FAILED

    # The caller's own timeout ends a call and not the connection.
    def _fail_unless_late(self, error):
        if error.errno == errno.ETIMEDOUT and self._sock.gettimeout():
            raise error
        if self._state == _STANDING:
            self._fail(error.errno)

    # -- streams --

    def write(self, buf, *part):
        self._look_at_connect()
        if self._state == _STANDING:
            return self._write_standing(shim_socket.part_of(buf, *part))
        if self._state == _CONNECTING:
            return None  # modsocket.c:800-818 swallows EINPROGRESS; modlwip.c:758-768
        if self._state in (_NEW, _LISTENING):
            raise self._error("ENOTCONN")  # lwIP: tcp_write() says ERR_CONN
        if self._state == _CLOSED:
            raise self._error("EBADF")
        return self._write_failed()

    def _write_standing(self, view):
        try:
            return super().write(view)
        except OSError as error:
            if not self._is_tcp:
                return self._write_datagram(error, view)
            self._fail_unless_late(error)
        return self._write_failed()

    # lwIP tells nobody of ICMP's "port unreachable" (icmp_input() in its icmp.c has no case for
    # it): a datagram to nobody just gets no answer.
    def _write_datagram(self, error, view):
        if error.errno != errno.ECONNREFUSED:
            raise error
        return super().write(view)

    def readinto(self, buf, length=-1):
        self._look_at_connect()
        size = len(buf) if length < 0 else min(length, len(buf))
        if self._state in (_STANDING, _FAILED):
            # Also after an error: what came before it is still to be had. But less than asked
            # is lost, as the port's stream reads on, and finds the error (py/stream.c:67-72).
            received = self._read_kernel(buf, length)
            if self._state == _STANDING or received == size:
                return received
        elif self._state == _CONNECTING:
            return self._read_connecting()
        elif self._state in (_NEW, _LISTENING):
            return self._read_new()
        elif self._state == _CLOSED:
            raise self._error("EBADF")
        return self._read_failed()

    # None: nothing there, or an error, which has changed the state.
    def _read_kernel(self, buf, length):
        try:
            return super().readinto(buf, length)
        except OSError as error:
            traceback.clear_frames(error.__traceback__)  # see _translated()
            if self._is_tcp:
                self._fail_unless_late(error)
            elif error.errno != errno.ECONNREFUSED:
                raise
        return None

    def recv(self, length, flags=0):
        if not self._is_tcp:
            try:
                return super().recv(length, flags)
            except ConnectionRefusedError:
                raise self._error("EAGAIN") from None
        received = self.read(length)
        if received is None:
            raise self._error("EAGAIN")
        return received

    def send(self, buf, flags=0):
        sent = self.write(buf)
        if sent is None:
            raise self._error("EAGAIN")
        return sent

    # -- poll --

    def _shim_events(self, mask):
        self._look_at_connect()
        if self._state == _NEW:
            # modsocket.c:862-865; modlwip.c:1634-1645, as a new PCB has a send buffer
            # (tcp_alloc() in lwIP's tcp.c).
            return mask & _OUT | _HUP
        if self._state == _CONNECTING:
            return 0  # lwIP's events begin with the end of it; modlwip.c: not while connecting
        if self._state in (_STANDING, _LISTENING):
            kernel = self._kernel_events()
            if kernel & _ERR:
                code = self._take_kernel_error()
                if self._is_tcp and code:
                    self._fail(code)
            if self._state != _FAILED:
                return self._events_standing(kernel, mask)
        return self._events_failed(mask)


# ---------------------------------------------------------------------------
# ESP32
# ---------------------------------------------------------------------------


class _Esp32Socket(_LwipSocket):
    numbers = NEWLIB

    # modsocket.c:297-301: ENFILE, but the port collects garbage first. 6 is the limit of the
    # profile free_ram (boards/sdkconfig.free_ram:34).
    limit = 6
    open_sockets = None  # weakref.WeakSet, of the personality

    def __init__(self, af=_socket.AF_INET, type=_socket.SOCK_STREAM, proto=0):
        if len(self.open_sockets) >= self.limit:
            gc.collect()
            if len(self.open_sockets) >= self.limit:
                raise self._error("ENFILE")
        super().__init__(af, type, proto)

    def _wrap(self, sock):
        super()._wrap(sock)
        self.open_sockets.add(self)
        self._is_told_to = {"mailbox": True, "pending": True}

    def close(self):
        self.open_sockets.discard(self)
        super().close()

    # Seen on the module: an IPv6 literal wants a socket of AF_INET6.
    def connect(self, address):
        if self._sock.family == _socket.AF_INET and ":" in address[0]:
            raise self._error("EINVAL")
        super().connect(address)

    # Seen on the module: it looks at no answer of lwIP's (modsocket.c, _socket_settimeout()).
    def setblocking(self, flag):
        if self._state != _CLOSED:
            super().setblocking(flag)

    def settimeout(self, value):
        if self._state != _CLOSED:
            super().settimeout(value)

    # Seen on the module. To the port it is connected (modsocket.c:401), so lwIP answers, "would
    # block" (netconn_recv_data() in api_lib.c).
    def _read_connecting(self):
        return None

    # modsocket.c:617-625: "A new socket cannot be read from."
    def _read_new(self):
        raise self._error("ENOTCONN")

    # The error lies in two places, and each tells it once: the mailbox of what was received, and
    # `pending_err`, which a write looks at first. Then it is "not connected". (lwIP: err_tcp() and
    # lwip_netconn_do_write() in api_msg.c, netconn_recv_data() in api_lib.c.)
    def _tell(self, *places):
        for place in places:
            if self._is_told_to[place]:
                self._is_told_to[place] = False
                raise self._error(self._failure)
        raise self._error("ENOTCONN")

    def _read_failed(self):
        self._tell("mailbox", "pending")

    def _write_failed(self):
        self._tell("pending")

    def _events_standing(self, kernel, mask):
        # modsocket.c:822-860: reading and writing are all it knows; an end is something to read.
        return kernel & mask & (_IN | _OUT)

    # modsocket.c:822-860: no POLLERR ever, and POLLHUP only if asked for. lwIP: err_tcp() in
    # api_msg.c makes it readable and writable as well.
    def _events_failed(self, mask):
        return mask & (_IN | _OUT | _HUP)


def _esp32_getaddrinfo(host, port, af=0, type=0, proto=0, flags=0):
    """As everywhere, but the address of an IPv6 answer is None. Seen on the module.

    connect() takes the pair (literal, port) instead, on a socket of AF_INET6.
    """
    return [
        (family, kind, protocol, name, address if family == _socket.AF_INET else None)
        for family, kind, protocol, name, address in _getaddrinfo(
            host, port, af, type, proto, flags
        )
    ]


class _TickingPoll(_Poll):
    """A select() with no timeout for each object, then a tick of FreeRTOS, and again.

    What comes from the network meanwhile does not wake it; schedule() does. A pause ends with a
    tick, so poll(2) may last 10 ms. (ports/esp32/mpconfigport.h:350-357. That a tick is 10 ms,
    IDF's default, was not verified.)
    """

    TICK_MS = 10

    def _sleep_once(self, left_ms):
        now_ms = time.monotonic_ns() // 1_000_000
        _sleep_until_schedule(self.TICK_MS - now_ms % self.TICK_MS)


# ---------------------------------------------------------------------------
# rp2
# ---------------------------------------------------------------------------


class _Rp2Socket(_LwipSocket):
    numbers = LINUX

    # extmod/lwip-include/lwipopts_common.h:88-96.
    SEGMENT_BYTES = 800
    SEND_BUFFER_BYTES = 8 * SEGMENT_BYTES

    def _wrap(self, sock):
        super()._wrap(sock)
        self._in_flight = 0  # bytes written whose acknowledgement we have not heard of
        self._asked_at_s = 0

    def connect(self, address):
        if self._is_tcp and self._state in (_FAILED, _RESET_TOLD, _INVALID):
            raise self._error("EBADF")  # modlwip.c: the PCB is gone
        try:
            super().connect(address)
        finally:
            if self._is_tcp and not self._is_blocking():
                time.sleep(0.001)  # modlwip.c:1234-1247: one wait of 1 ms

    # How much lwIP takes now. What is on its way fills whole segments, and acknowledgements are
    # a round trip away.
    def _send_buffer_bytes(self):
        now_s = time.monotonic()
        if self._in_flight and now_s - self._asked_at_s >= ROUND_TRIP_S:
            self._asked_at_s = now_s
            segments = -(-self._unacknowledged() // self.SEGMENT_BYTES)
            self._in_flight = segments * self.SEGMENT_BYTES
        return max(0, self.SEND_BUFFER_BYTES - self._in_flight)

    # Bytes that the peer's TCP has not acknowledged. Where the system does not tell, none: then
    # the buffer is small and empties with every round trip.
    def _unacknowledged(self):
        if fcntl is None or not sys.platform.startswith("linux"):
            return 0
        answer = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return struct.unpack("i", answer)[0]

    def _write_standing(self, view):
        if not self._is_tcp:
            return super()._write_standing(view)
        written = 0
        while written < len(view):
            room = self._send_buffer_bytes()
            if not room:
                # modlwip.c, lwip_tcp_send(): a part, or EAGAIN. (A blocking one waits.)
                if not self._is_blocking():
                    return written or None
                time.sleep(ROUND_TRIP_S)
                continue
            count = super()._write_standing(view[written : written + room])
            if not count:
                return written or None
            if not self._in_flight:
                self._asked_at_s = time.monotonic()
            self._in_flight += count
            written += count
        return written

    def _read_connecting(self):
        if self._is_blocking():
            raise self._error("ENOTCONN")
        return None  # modlwip.c:853-857

    # As while connecting, but for a listening one (modlwip.c:832-837).
    def _read_new(self):
        if self._state == _LISTENING:
            raise self._error("ENOTCONN")
        return self._read_connecting()

    # One read clears the error: a reset leaves an end of file behind, another error an invalid
    # socket (modlwip.c:839-849).
    def _read_failed(self):
        if self._state == _RESET_TOLD:
            return 0
        if self._state == _INVALID:
            raise self._error("EBADF")
        self._state = _RESET_TOLD if self._failure == "ECONNRESET" else _INVALID
        raise self._error(self._failure)

    def _write_failed(self):
        if self._state == _RESET_TOLD:
            raise Misuse("written after a read had raised ECONNRESET: rp2 has no PCB to look at")
        if self._state == _INVALID:
            raise self._error("EBADF")
        raise self._error(self._failure)

    # modlwip.c:1604-1648.
    def _events_standing(self, kernel, mask):
        if kernel & (_RDHUP | _HUP):
            return mask & (_IN | _OUT)  # "peer-closed socket is both readable and writable"
        events = kernel & mask & _IN
        if not self._is_tcp or self._state != _LISTENING and self._send_buffer_bytes():
            events |= mask & _OUT
        return events

    # modlwip.c:1652-1665: a reset is ERR and HUP with all that was asked for, what else may
    # happen is ERR alone.
    def _events_failed(self, mask):
        if self._state == _RESET_TOLD:
            return mask & _IN | _HUP
        if self._state == _INVALID:
            return _NVAL
        if self._failure == "ECONNRESET":
            return mask & (_IN | _OUT) | _ERR | _HUP
        return mask & _IN & self._kernel_events_left() | _ERR

    # POLLIN if something is left to read that came before the error.
    def _kernel_events_left(self):
        try:
            return _IN if self._sock.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT) else 0
        except OSError:
            return 0


# ---------------------------------------------------------------------------
# unix
# ---------------------------------------------------------------------------


class _UnixSocket(_Socket):
    def _wrap(self, sock):
        super()._wrap(sock)
        self._is_closed = False

    # Seen on the real VM 1.25: close() goes by the number, again and again, and whoever has got
    # that number meanwhile loses its socket.
    def close(self):
        if self._is_closed:
            raise Misuse("closed twice: the unix port closes somebody else's socket")
        self._is_closed = True
        super().close()

    # Seen on the real VM 1.25: opaque bytearrays, and tuples are rejected.
    def connect(self, address):
        super().connect(_unpacked(address))

    def bind(self, address):
        super().bind(_unpacked(address))

    def sendto(self, buf, address):
        return super().sendto(buf, _unpacked(address))

    def accept(self):
        accepted, address = super().accept()
        return accepted, bytearray(_packed(self._sock.family, address))

    def recvfrom(self, length, flags=0):
        data, address = super().recvfrom(length, flags)
        return data, _packed(self._sock.family, address)


# struct sockaddr_in and sockaddr_in6, the numbers in the order that each has there.
def _packed(family, address):
    head = struct.pack("=H", family) + struct.pack("!H", address[1])
    raw = _socket.inet_pton(family, address[0].partition("%")[0])
    if family == _socket.AF_INET:
        return head + raw + bytes(8)
    return head + struct.pack("!I", address[2]) + raw + struct.pack("=I", address[3])


def _unpacked(address):
    try:
        data = bytes(memoryview(address))
    except TypeError:
        raise TypeError("object with buffer protocol required") from None
    (family,) = struct.unpack("=H", data[:2])
    (port,) = struct.unpack("!H", data[2:4])
    if family == _socket.AF_INET:
        return _socket.inet_ntop(family, data[4:8]), port
    (flow,) = struct.unpack("!I", data[4:8])
    (scope,) = struct.unpack("=I", data[24:28])
    return _socket.inet_ntop(family, data[8:24]), port, flow, scope


def _unix_getaddrinfo(host, port, af=0, type=0, proto=0, flags=0):
    """Return a list of (family, type, proto, None, address); address is a bytearray.

    Raises:
        OSError: the name is not known; the only argument, and errno, is a text
            (ports/unix/modsocket.c:643, seen on the real VM 1.25).
    """
    try:
        found = _getaddrinfo(host, port, af, type, proto, flags)
    except OSError as error:
        text = "[addrinfo error %d]" % error.errno
        unix_error = BoardError(text)
        unix_error.errno = text
        raise unix_error from None
    return [
        (family, kind, protocol, None, bytearray(_packed(family, address)))
        for family, kind, protocol, _, address in found
    ]


_getaddrinfo = shim_socket.getaddrinfo


# ---------------------------------------------------------------------------
# Hostile
# ---------------------------------------------------------------------------


class _HostileSocket(_Socket):
    """A stream that keeps to the contract of streams, and to nothing more.

    A call that could move bytes moves few of them, or answers None, although the poll says that
    the socket is ready, again and again for a while. The poll tells the truth. What can block is
    left alone, and so are `send` and `recv`.
    """

    STORM = 0.05  # a call in twenty is the first of a storm
    STORM_CALLS_MAX = 20

    random = None  # random.Random, of the personality

    def _wrap(self, sock):
        super()._wrap(sock)
        self._storm_calls = 0

    # How many bytes of `size` this call moves; 0: it answers None.
    def _share(self, size):
        if not size or self._is_blocking() or self._sock.type != _socket.SOCK_STREAM:
            return size
        draw = self.random
        if self._storm_calls:
            self._storm_calls -= 1
            return 0
        if draw.random() < self.STORM:
            self._storm_calls = draw.randrange(self.STORM_CALLS_MAX)
            return 0
        # Half of the calls: few bytes, so that every seam of every packet is met; a quarter: some
        # more; a quarter: all, or large messages would take for ever.
        kind = draw.randrange(4)
        if kind == 3:
            return size
        return min(size, 1 + draw.randrange(8 if kind < 2 else 200))

    def write(self, buf, *part):
        view = shim_socket.part_of(buf, *part)
        share = self._share(len(view))
        return super().write(view[:share]) if share or not len(view) else None

    def readinto(self, buf, length=-1):
        size = len(buf) if length < 0 else min(length, len(buf))
        share = self._share(size)
        return super().readinto(buf, share) if share or not size else None


class _FaultySocket(_HostileSocket):
    """Hostile, and the network is bad as well: a connection may be one of two that are no good.

    Late: poll() says that it stands, and the first read or write says ECONNREFUSED. Nothing of it
    reaches the peer.
    Silent: after some bytes of either direction nothing passes any more, and nobody says so: what
    is written vanishes until the send buffer is full, nothing is heard, not even the peer's end.
    """

    LATE = 0.15
    SILENT = 0.15
    SILENT_AFTER_BYTES_MAX = 6000
    VANISHED_BYTES_MAX = 6400  # rp2's send buffer; ESP32's is of that size

    def _wrap(self, sock):
        super()._wrap(sock)
        self._is_late = False
        self._is_late_told = False
        self._left_bytes = -1  # until it falls silent; -1: it does not
        self._vanished = 0

    def connect(self, address):
        if self._is_blocking() or self._sock.type != _socket.SOCK_STREAM:
            super().connect(address)
            return
        fate = self.random.random()
        if fate < self.LATE:
            self._is_late = True
            raise self._error("EINPROGRESS")
        if fate < self.LATE + self.SILENT:
            self._left_bytes = 1 + self.random.randrange(self.SILENT_AFTER_BYTES_MAX)
        super().connect(address)

    def _is_silent(self):
        return self._left_bytes == 0

    # As the unix port was seen to tell it: once, and then reads find the end.
    def _be_late(self):
        if not self._is_late_told:
            self._is_late_told = True
            raise self._error("ECONNREFUSED")

    def _count(self, moved):
        if self._left_bytes > 0 and moved:
            self._left_bytes = max(0, self._left_bytes - moved)
        return moved

    def write(self, buf, *part):
        if self._is_late:
            self._be_late()
            raise self._error("EPIPE")
        view = shim_socket.part_of(buf, *part)
        if self._is_silent():
            taken = min(len(view), self.VANISHED_BYTES_MAX - self._vanished)
            self._vanished += taken
            return taken or None
        if self._left_bytes > 0:
            view = view[: self._left_bytes]
        return self._count(super().write(view))

    def readinto(self, buf, length=-1):
        if self._is_late:
            self._be_late()
            return 0
        if self._is_silent():
            return None
        return self._count(super().readinto(buf, length))

    def _shim_events(self, mask):
        if self._is_late:
            return mask & _OUT
        if self._is_silent():
            return mask & _OUT if self._vanished < self.VANISHED_BYTES_MAX else 0
        return self._kernel_events() & (mask | _ERR | _HUP | _NVAL)


# ---------------------------------------------------------------------------
# Choosing one
# ---------------------------------------------------------------------------


class Personality:
    """What use() installs, for tests that want it without."""

    # name -> (class of sockets, class of polls, getaddrinfo, names that shim_socket then lacks)
    _PARTS = {
        "esp32": (_Esp32Socket, _TickingPoll, _esp32_getaddrinfo, ()),
        "rp2": (_Rp2Socket, _Poll, _getaddrinfo, ()),
        # Seen on the real VM 1.25: neither name is there.
        "unix": (_UnixSocket, shim_select.poll, _unix_getaddrinfo, ("IPPROTO_TCP", "TCP_NODELAY")),
        "hostile": (_HostileSocket, shim_select.poll, _getaddrinfo, ()),
        "faulty": (_FaultySocket, _Poll, _getaddrinfo, ()),
    }

    def __init__(self, name, seed=None):
        if name not in self._PARTS:
            raise ValueError("no personality %r; there are: %s" % (name, ", ".join(NAMES)))
        base, self.poll, self.getaddrinfo, self.absent = self._PARTS[name]
        self.name = name
        self.numbers = base.numbers
        methods = {method: _translated(getattr(base, method)) for method in _METHODS}
        constructor = _translated(base.__init__)
        methods.update(
            __init__=constructor, random=random.Random(seed), open_sockets=weakref.WeakSet()
        )
        self.socket = type("socket", (base,), methods)


def use(name, seed=None):
    """Let this process be a board of that name, one of NAMES, from now on.

    Args:
        seed: of what "hostile" and "faulty" draw; None: another one each time.

    Raises:
        ValueError: no such name.
        RuntimeError: mqttpipe has been imported, and has taken its errno numbers.
    """
    personality = Personality(name, seed)
    if "mqttpipe" in sys.modules:
        raise RuntimeError("too late: mqttpipe has been imported")
    shim_socket.socket = personality.socket
    shim_socket.getaddrinfo = personality.getaddrinfo
    for absent in personality.absent:
        delattr(shim_socket, absent)
    shim_select.poll = personality.poll
    for error in shim_errno.__all__:
        setattr(shim_errno, error, personality.numbers[error])
