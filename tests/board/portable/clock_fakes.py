"""The clock's fakes: time servers, the sockets to them, the RTC, and a Bench of all."""

import wifi_core
from board_fakes import Clock
from wifi_core import Sntp

EAGAIN = wifi_core.EAGAIN
DAY_MS = 86_400_000

# 2026-08-19 12:34:56 UTC, a Wednesday, in seconds since 1900.
NOW_S = 3_996_131_696
NOW = (2026, 8, 19, 12, 34, 56)
NONCE = b"\x01\x02\x03\x04\x05\x06\x07\x08"


def answer(request, seconds=NOW_S, first=0x24, stratum=2, originate=None):
    """A server's datagram (RFC 4330, section 4)."""
    originate = request[40:48] if originate is None else originate
    stamp = seconds.to_bytes(4, "big") + b"\x00\x00\x00\x00"
    return bytes((first, stratum)) + bytes(22) + originate + stamp + stamp


class Socket:
    def __init__(self, network):
        self.network = network
        self.answers = []
        self.is_closed = False
        self.is_blocking = True

    def setblocking(self, flag):
        self.is_blocking = flag

    def connect(self, where):
        self.network.expect(not self.is_blocking, "the clock must never block")
        self.where = where
        if self.network.connect_error:
            raise OSError(self.network.connect_error)

    def write(self, data):
        self.sent = bytes(data)
        return len(data)

    def recv(self, count):
        self.network.expect(not self.is_closed, "used after close")
        if self.network.receive_error:
            raise OSError(self.network.receive_error)
        if not self.answers:
            raise OSError(EAGAIN, "nothing yet")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer[:count]

    def close(self):
        self.network.expect(not self.is_closed, "closed twice")
        self.is_closed = True
        if self.network.close_error:
            raise self.network.close_error


class Network:
    """Stands for the module `socket`."""

    SOCK_DGRAM = 2

    def __init__(self):
        self.sockets = []
        self.connect_error = self.receive_error = 0
        self.close_error = None
        self.wrongs = []

    # What is raised here the clock would take for an error of this server.
    def expect(self, is_so, what):
        if not is_so:
            self.wrongs.append(what)

    # lwIP prints a complaint if it is asked for datagrams, and answers a stream in any case.
    def getaddrinfo(self, host, port):
        self.expect(host.replace(".", "").isdigit(), "a name would block")
        return [(2, 1, 0, "", (host, port))]

    def socket(self, family, kind):
        self.expect(kind == self.SOCK_DGRAM, "a stream")
        self.expect(not [one for one in self.sockets if not one.is_closed], "two at a time")
        self.sockets.append(Socket(self))
        return self.sockets[-1]


class Rtc:
    set_to = None

    def datetime(self, when):
        Rtc.set_to = when


class Bench:
    def __init__(self, *servers):
        self.clock = Clock()
        self.network = wifi_core.socket = Network()
        wifi_core.urandom = lambda count: NONCE[:count]
        wifi_core.ticks_add = self.clock.ticks_add
        wifi_core.ticks_diff = self.clock.ticks_diff
        wifi_core.gmtime = REAL_GMTIME
        wifi_core.RTC = Rtc
        Rtc.set_to = None
        self.sntp = Sntp(servers, lambda: ["192.0.2.53", "192.0.2.54"])

    def step(self):
        is_set = self.sntp.step(self.clock.now_ms)
        assert self.network.wrongs == [], self.network.wrongs
        return is_set

    def run(self, time_ms):
        for _ in range(time_ms // 250):
            self.step()
            self.clock.advance(250)

    @property
    def socket(self):
        return self.network.sockets[-1]

    def hosts(self):
        return [one.where[0] for one in self.network.sockets]


REAL_GMTIME = wifi_core.gmtime


def never_set(*seconds):
    return REAL_GMTIME(*seconds) if seconds else (2000, 1, 1, 0, 0, 0, 5, 1)
