"""The board's `socket`: this machine's sockets, behind the simulated Wi-Fi.

A socket object is the unix port's own with a look at the link before each use:

- The link is down: connect() and sendto() raise EHOSTUNREACH, as lwIP does without a route
  (err_to_errno_table of extmod/modlwip.c). A TCP connection falls silent: nothing comes, and what
  is written is kept, up to the size of a board's send buffer; when the link is back it goes out.
  After "tcp_give_up_ms" with bytes to send the connection is aborted.
- The interface was switched off, or has got another address: lwIP has aborted every connection,
  and each use says ECONNABORTED.
- Addresses are tuples, as on ESP32 and rp2. Where they lead on this machine the World says
  ("routes"), as well as what a name stands for ("hosts").
- getaddrinfo() of a name with the link down: ESP32 says OSError(-202); rp2 waits for ever, or
  until the link is back (micropython#18797).

Blocking calls and time-outs are made here, of waits of some milliseconds, because the link may
fall meanwhile. The quirks of the ports' own poll() and error numbers are not here: CPython's
shim_personality.py has them. Left out: IPv6, listening with the link down (it goes on).
"""

import io
import select
import socket as _native
from errno import EAGAIN, ECONNABORTED, EHOSTUNREACH, EINPROGRESS, ETIMEDOUT
from socket import (  # noqa: F401  a program finds some of them here
    AF_INET,
    SO_REUSEADDR,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_SOCKET,
)
from time import sleep_ms, ticks_add, ticks_diff, ticks_ms

import board_bus

IPPROTO_TCP = 6
TCP_NODELAY = 1

_POLL = 3  # py/stream.h
_CLOSE = 4
_IN = 1
_OUT = 4
_ERR = 8
_HUP = 16
_NVAL = 32

_SLICE_MS = 5
_EISCONN = 106
_EALREADY = 114

# lwIP's send buffer: 8 x 800 bytes on rp2 (extmod/lwip-include/lwipopts_common.h).
_SEND_BUFFER_BYTES = 6400

_EAI_NONAME = -2
_EAI_FAIL_ESP32 = -202


def getaddrinfo(host, port, af=0, type=0, proto=0, flags=0):
    """Return [(family, type, protocol, name, (address, port))]. A name may take long."""
    if not _is_literal(host):
        address = board_bus.call("resolve", host)
        while not board_bus.does_traffic_flow():
            if board_bus.PORT == "esp32":
                raise OSError(_EAI_FAIL_ESP32)
            sleep_ms(_SLICE_MS)
        if address is None:
            try:
                found = _native.getaddrinfo(host, port, _native.AF_INET, SOCK_STREAM)
            except OSError:
                raise OSError(_EAI_NONAME if board_bus.PORT == "rp2" else _EAI_FAIL_ESP32)
            address = _native.inet_ntop(AF_INET, _native.sockaddr(found[0][4])[1])
        host = address
    return [(AF_INET, type or SOCK_STREAM, 0, "", (host, port))]


def _is_literal(host):
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdigit() for part in parts)


# The unix port's own form of an address.
def _to_native(address, is_outward=True):
    host, port = address[0], address[1]
    if is_outward:
        host, port = board_bus.call("route", host, port)
    return _native.getaddrinfo(host, port, AF_INET, SOCK_STREAM)[0][4]


def _from_native(address):
    parts = _native.sockaddr(address)
    return _native.inet_ntop(AF_INET, parts[1]), parts[2]


class socket(io.IOBase):  # noqa: N801  the board's name for it
    """A TCP or UDP socket."""

    def __init__(self, af=AF_INET, type=SOCK_STREAM, proto=0, *, _sock=None):
        self._sock = _sock or _native.socket(af, type, proto)
        self._sock.setblocking(False)
        self._is_stream = type == SOCK_STREAM
        self._generation = board_bus.generation()
        self._timeout_ms = -1  # -1: blocking; 0: not
        self._is_linked = _sock is not None  # connect() was called: it stands and falls with Wi-Fi
        self._is_connected = _sock is not None  # seen to stand
        self._is_listening = False
        self._held = b""  # written with the link down
        self._held_since_ms = 0
        self._has_given_up = False
        self._poll = select.poll()
        self._poll.register(self._sock, 0)

    # -- the link --

    # Is this connection still one? Raises, or answers whether packets pass.
    def _check(self):
        if self._sock is None:
            raise OSError(9)  # EBADF
        if self._is_linked and self._generation != board_bus.generation():
            self._has_given_up = True
        if self._has_given_up:
            raise OSError(ECONNABORTED)
        flows = board_bus.does_traffic_flow() or self._is_listening
        if self._held:
            if flows:
                self._send_held()
            elif ticks_diff(ticks_ms(), self._held_since_ms) > board_bus.call("tcp_give_up_ms"):
                self._has_given_up = True
                raise OSError(ECONNABORTED)
        return flows

    def _send_held(self):
        sent = self._sock.write(self._held)
        if sent:
            self._held = self._held[sent:]

    # Call `attempt` until it answers something else than None, as long as the socket may block.
    def _wait(self, events, attempt, *arguments):
        result = attempt(*arguments)
        if result is not None or self._timeout_ms == 0:
            return result
        end_ms = ticks_add(ticks_ms(), self._timeout_ms) if self._timeout_ms > 0 else None
        while True:
            if board_bus.does_traffic_flow() or self._is_listening:
                self._poll.modify(self._sock, events)
                self._poll.poll(_SLICE_MS)
            else:
                sleep_ms(_SLICE_MS)
            result = attempt(*arguments)
            if result is not None:
                return result
            if end_ms is not None and ticks_diff(ticks_ms(), end_ms) >= 0:
                raise OSError(ETIMEDOUT)

    def ioctl(self, request, mask):
        if request == _CLOSE:
            self.close()
            return 0
        if request != _POLL:
            return -1
        if self._sock is None:
            return _NVAL
        try:
            flows = self._check()
        except OSError:
            return mask & (_IN | _OUT) | _ERR | _HUP
        if not flows:
            is_room = self._is_connected and len(self._held) < _SEND_BUFFER_BYTES
            return mask & _OUT if is_room or not self._is_stream else 0
        self._poll.modify(self._sock, mask)
        for _, events in self._poll.poll(0):
            if events & (_OUT | _ERR | _HUP) == _OUT and self._is_linked:
                self._is_connected = True
            return events & ~_OUT if self._held else events
        return 0

    # -- streams --

    def write(self, buf, *part):
        view = _part_of(buf, *part)
        if self._timeout_ms == 0 or not self._is_stream:
            return self._write_some(view)
        done = 0
        while done < len(view):  # a blocking write takes all
            done += self._wait(_OUT, self._write_some, view[done:])
        return done

    def _write_some(self, view):
        if self._check():
            if self._held:
                return None
            count = self._sock.write(view)
            if count:
                self._is_connected = True
            return count
        if not self._is_stream:
            raise OSError(EHOSTUNREACH)
        if not self._is_connected:
            return None
        room = min(len(view), _SEND_BUFFER_BYTES - len(self._held))
        if not room:
            return None
        if not self._held:
            self._held_since_ms = ticks_ms()
        self._held += bytes(view[:room])
        return room

    def readinto(self, buf, *length):
        return self._wait(_IN, self._read_some, buf, *length)

    def _read_some(self, buf, *length):
        if not self._check():
            return None
        return self._sock.readinto(buf, *length)

    def read(self, length=-1):
        if length is None or length < 0:
            whole = b""
            while True:
                piece = self._wait(_IN, self._recv_some, 256)
                if not piece:
                    return whole or piece
                whole += piece
        whole = b""
        while len(whole) < length:
            piece = self._wait(_IN, self._recv_some, length - len(whole))
            if not piece:
                return whole or piece
            whole += piece
        return whole

    def _recv_some(self, length):
        if not self._check():
            return None
        try:
            # recv() and not readinto(), which would read on until the buffer is full.
            return self._sock.recv(length)
        except OSError as error:
            if error.errno == EAGAIN:
                return None
            raise

    def readline(self):
        line = b""
        while not line.endswith(b"\n"):
            piece = self.read(1)
            if not piece:
                return line or piece
            line += piece
        return line

    # -- the other methods --

    def connect(self, address):
        if not board_bus.does_traffic_flow():
            raise OSError(EHOSTUNREACH)
        self._generation = board_bus.generation()
        self._is_linked = True
        native = _to_native(address)
        try:
            self._sock.connect(native)
        except OSError as error:
            if error.errno != EINPROGRESS or self._timeout_ms == 0:
                raise
            self._wait(_OUT, self._look_at_connect, native)
        self._is_connected = True

    def _look_at_connect(self, native):
        self._poll.modify(self._sock, _OUT)
        if not self._poll.poll(0):
            return None
        try:
            self._sock.connect(native)  # asks how the first call has ended
        except OSError as error:
            if error.errno not in (_EISCONN, _EALREADY):
                raise
        return True

    def send(self, buf, *flags):
        sent = self._wait(_OUT, self._write_some, _part_of(buf))
        if sent is None:
            raise OSError(EAGAIN)
        return sent

    def sendall(self, buf, *flags):
        self.write(buf)

    def recv(self, length, *flags):
        received = self._wait(_IN, self._recv_some, length)
        if received is None:
            raise OSError(EAGAIN)
        return received

    def sendto(self, buf, address):
        if not self._check():
            raise OSError(EHOSTUNREACH)
        return self._sock.sendto(buf, _to_native(address))

    def recvfrom(self, length, *flags):
        def attempt():
            if not self._check():
                return None
            try:
                data, address = self._sock.recvfrom(length)
            except OSError as error:
                if error.errno == EAGAIN:
                    return None
                raise
            return data, _from_native(address)

        received = self._wait(_IN, attempt)
        if received is None:
            raise OSError(EAGAIN)
        return received

    def bind(self, address):
        if isinstance(address, tuple):
            address = _to_native((address[0] or "0.0.0.0", address[1]), False)
        self._sock.bind(address)

    def listen(self, backlog=2):
        self._sock.listen(backlog)
        self._is_listening = True

    def accept(self):
        def attempt():
            try:
                return self._sock.accept()
            except OSError as error:
                if error.errno == EAGAIN:
                    return None
                raise

        accepted = self._wait(_IN, attempt)
        if accepted is None:
            raise OSError(EAGAIN)
        return socket(_sock=accepted[0]), _from_native(accepted[1])

    def setblocking(self, is_blocking):
        if self._sock is None:
            raise OSError(9)
        self._timeout_ms = -1 if is_blocking else 0

    def settimeout(self, timeout_s):
        self._timeout_ms = -1 if timeout_s is None else int(timeout_s * 1000)

    def setsockopt(self, level, option, value):
        self._sock.setsockopt(level, option, value)

    def makefile(self, *_):
        return self

    def close(self):
        # Once: the unix port's second close() would close another's descriptor.
        if self._sock is not None:
            sock, self._sock = self._sock, None
            self._poll.unregister(sock)
            sock.close()


# What write()'s arguments say of the buffer (py/stream.c).
def _part_of(buf, *part):
    view = memoryview(buf.encode() if isinstance(buf, str) else buf)
    if len(part) == 2:
        view = view[part[0] :]
        return view[: part[1]] if part[1] >= 0 else view
    if part and part[0] >= 0:
        return view[: part[0]]
    return view
