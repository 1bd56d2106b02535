"""What comes back from a time server (boards/common/wifi_core.py), against RFC 4330 read with
datetime; and Sntp.step(), which must raise nothing, and set the clock to that time or not at all.

Case: the datagrams, each behind its length (one byte). What the client has sent is in `REQUEST`.
"""

import datetime
import errno
import struct

import fuzz_streams
import wifi_core

ALLOCATED_MAX = 100_000
NONCE = b"\x01\x02\x03\x04\x05\x06\x07\x08"
REQUEST = b"\x23" + bytes(39) + NONCE
START = datetime.datetime(1900, 1, 1)
ERA_S = 1 << 32


def make(draw):
    case = b""
    for _ in range(draw.randrange(1, 4)):
        seconds = draw.choice((0, 1, 3_913_055_999, 3_913_056_000, 3_996_131_696, 0xFFFFFFFF))
        seconds = draw.choice((seconds, draw.getrandbits(32), 2_016_466_303, 2_016_466_304))
        first = draw.choice((0x24, 0x24, 0x1C, 0x64, 0xE4, 0x23, 0x25, 0x14))
        data = struct.pack(">BB22x8s", first, draw.choice((0, 1, 2, 15, 16, 255)), NONCE)
        data += draw.randbytes(8) + struct.pack(">II", seconds, 0)
        if draw.random() < 0.5:
            data = fuzz_streams.spoil(draw, data)
        case += bytes((min(len(data), 255),)) + data[:255]
    return case


def datagrams(case):
    at = 0
    while at < len(case):
        end = at + 1 + case[at]
        yield case[at + 1 : end]
        at = end


def expect(data):
    """The time, or None."""
    if len(data) < 48 or data[24:32] != NONCE:
        return None
    first, stratum = data[:2]
    leap, version, mode = first >> 6, first >> 3 & 7, first & 7
    if leap == 3 or version not in (3, 4) or mode != 4 or stratum not in range(1, 16):
        return None
    (seconds,) = struct.unpack(">I", data[40:44])
    if not seconds:
        return None
    for era in range(2):
        when = START + datetime.timedelta(seconds=seconds + era * ERA_S)
        if 2024 <= when.year < 2100:
            return when
    return None


class Clock:
    """Stands for machine.RTC."""

    def __init__(self):
        self.told = []

    def __call__(self):
        return self

    def datetime(self, fields):
        self.told.append(fields)


class Network:
    """Stands for the module `socket`, and for its one socket."""

    SOCK_DGRAM = 2

    def __init__(self, answers):
        self.answers = answers
        self.is_open = False

    def getaddrinfo(self, host, port):
        return [(2, 1, 0, "", (host, port))]

    def socket(self, family, kind):
        assert not self.is_open, "two at a time"
        self.is_open = True
        return self

    def setblocking(self, flag):
        assert flag is False

    def connect(self, where):
        pass

    def write(self, data):
        assert data == REQUEST, data

    def recv(self, count):
        if not self.answers:
            raise OSError(errno.EAGAIN, "nothing yet")
        return self.answers.pop(0)[:count]

    def close(self):
        assert self.is_open, "closed twice"
        self.is_open = False


def check(case):
    answers = list(datagrams(case))
    times = [expect(data) for data in answers]
    for data, when in zip(answers, times):
        found = wifi_core.decode_time(data, REQUEST)
        assert (found and tuple(found[:6])) == (when and when.timetuple()[:6]), (found, when)
    clock = Clock()
    kept = wifi_core.socket, wifi_core.urandom, wifi_core.RTC
    wifi_core.socket = network = Network(answers)
    wifi_core.urandom = lambda count: NONCE[:count]
    wifi_core.RTC = clock
    try:
        sntp = wifi_core.Sntp("192.0.2.123", lambda: ["192.0.2.53"])
        is_set = [sntp.step(now_ms) for now_ms in range(len(times) + 2)]
        sntp.close()
    finally:
        wifi_core.socket, wifi_core.urandom, wifi_core.RTC = kept
    good = [when for when in times if when]
    assert sum(is_set) == len(clock.told) == min(1, len(good)), (is_set, clock.told, good)
    if good:
        year, month, day, _, hour, minute, second, _ = clock.told[0]
        assert datetime.datetime(year, month, day, hour, minute, second) == good[0]
    assert not network.is_open
