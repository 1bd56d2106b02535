"""The shim's sockets behind the simulated Wi-Fi: shim_socket.py with a look at the link.

What happens with the link down, or the interface gone, is said in the file of this name of the
virtual board (tests/board/vm/), whose class this one follows method by method. Here
addresses are tuples anyway, and readiness goes through `_shim_events()` (shim_select.py). One
thing is worse here: a poll that sleeps while packets wait behind a link that is down does not
sleep, but looks again and again.
"""

import select
import time
from errno import ECONNABORTED, EHOSTUNREACH, ETIMEDOUT

import board_bus

import shim_socket

_IN = 1
_OUT = 4
_ERR = 8
_HUP = 16
_NVAL = 32

_SLICE_S = 0.005

_SEND_BUFFER_BYTES = 6400  # lwIP's on rp2: 8 x 800

_EAI_FAIL_ESP32 = -202

_getaddrinfo = shim_socket.getaddrinfo
_Socket = shim_socket.socket


def getaddrinfo(host, port, af=0, type=0, proto=0, flags=0):
    """As shim_socket's; a name may take long with the link down, or fail."""
    if not _is_literal(host):
        address = board_bus.call("resolve", host)
        while not board_bus.does_traffic_flow():
            if board_bus.PORT == "esp32":
                raise OSError(_EAI_FAIL_ESP32, "no answer")
            time.sleep(_SLICE_S)
        host = address or host
    return _getaddrinfo(host, port, shim_socket.AF_INET, type, proto, flags)


def _is_literal(host):
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdigit() for part in parts)


def _route(address):
    return board_bus.call("route", address[0], address[1])


class socket(_Socket):  # noqa: N801  the board's name for it
    """A TCP or UDP socket."""

    def _wrap(self, sock):
        super()._wrap(sock)
        self._is_stream = sock.type == shim_socket.SOCK_STREAM
        self._generation = board_bus.generation()
        self._is_linked = False  # connect() was called: it stands and falls with Wi-Fi
        self._is_connected = False  # seen to stand
        self._held = b""  # written with the link down
        self._held_since_s = 0.0
        self._has_given_up = False

    def _check(self):
        if self._is_linked and self._generation != board_bus.generation():
            self._has_given_up = True
        if self._has_given_up:
            raise OSError(ECONNABORTED, "the interface is gone")
        flows = board_bus.does_traffic_flow()
        if self._held:
            if flows:
                sent = super().write(self._held)
                self._held = self._held[sent or 0 :]
            elif (time.monotonic() - self._held_since_s) * 1000 > board_bus.call("tcp_give_up_ms"):
                self._has_given_up = True
                raise OSError(ECONNABORTED, "given up")
        return flows

    # A blocking socket: wait for the link. Another: False.
    def _wait_for_link(self):
        timeout_s = self._sock.gettimeout()
        if timeout_s == 0:
            return False
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._check():
            if end_s is not None and time.monotonic() >= end_s:
                raise OSError(ETIMEDOUT, "timed out")
            time.sleep(_SLICE_S)
        return True

    def _shim_events(self, mask):
        if self._sock.fileno() < 0:
            return _NVAL
        try:
            flows = self._check()
        except OSError:
            return mask & (_IN | _OUT) | _ERR | _HUP
        if not flows:
            is_room = self._is_connected and len(self._held) < _SEND_BUFFER_BYTES
            return mask & _OUT if is_room or not self._is_stream else 0
        poller = select.poll()
        poller.register(self._sock, mask)
        for _, events in poller.poll(0):
            if events & (_OUT | _ERR | _HUP) == _OUT and self._is_linked:
                self._is_connected = True
            return events & ~_OUT if self._held else events
        return 0

    def write(self, buf, *part):
        view = shim_socket.part_of(buf, *part)
        if self._check() or self._wait_for_link():
            sent = None if self._held else super().write(view)
            self._is_connected = self._is_connected or bool(sent)
            return sent
        if not self._is_stream:
            raise OSError(EHOSTUNREACH, "no route")
        if not self._is_connected:
            return None
        room = min(len(view), _SEND_BUFFER_BYTES - len(self._held))
        if room and not self._held:
            self._held_since_s = time.monotonic()
        self._held += bytes(view[:room])
        return room or None

    def readinto(self, buf, length=-1):
        if self._check() or self._wait_for_link():
            return super().readinto(buf, length)
        return None

    def recv(self, length, flags=0):
        if self._check() or self._wait_for_link():
            return super().recv(length, flags)
        raise BlockingIOError(11, "nothing now")

    def recvfrom(self, length, flags=0):
        if self._check() or self._wait_for_link():
            return super().recvfrom(length, flags)
        raise BlockingIOError(11, "nothing now")

    def send(self, buf, flags=0):
        sent = self.write(buf)
        if sent is None:
            raise BlockingIOError(11, "no room now")
        return sent

    def sendto(self, buf, address):
        if not self._check():
            raise OSError(EHOSTUNREACH, "no route")
        return super().sendto(buf, _route(address))

    def connect(self, address):
        if not board_bus.does_traffic_flow():
            raise OSError(EHOSTUNREACH, "no route")
        self._generation = board_bus.generation()
        self._is_linked = True
        super().connect(_route(address))
