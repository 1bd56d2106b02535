"""A client that speaks MQTT 5.0 on a Bench, and what a server says to it, by hand.

bench = online(b"\x21\x00\x02")        online at a server with these properties of CONNACK
bench = asked(auth=...)                CONNECT has left
refused(bench, b"\x20\x03\x00\x87\x00")    the error with which the server's packet ends it
"""

from fakes import Bench, needs

CONNACK = b"\x20\x03\x00\x00\x00"  # accepted, no session, no properties
CONNACK_SESSION = b"\x20\x03\x01\x00\x00"
# What each CONNECT announces, if nothing else is asked for: receive maximum 256, maximum packet
# size 1024, topic alias maximum 8. MicroPython's dicts have no order.
ANNOUNCED = (b"\x21\x01\x00", b"\x27\x00\x00\x04\x00", b"\x22\x00\x08")


def connack(properties=b"", flags=0, reason_code=0):
    head = bytes((0x20, 3 + len(properties), flags, reason_code, len(properties)))
    return head + properties


def asked(**options):
    needs("mqtt5")
    options.setdefault("protocol", 5)
    bench = Bench(**options)
    bench.client.connect()
    bench.steps()
    return bench


def online(answered=b"", **options):
    needs("mqtt5")
    options.setdefault("protocol", 5)
    return Bench(**options).go_online(connack(answered))


def take_apart(wire):
    """A CONNECT: (flags, keep alive, list of properties, payload)."""
    assert wire[:1] == b"\x10" and wire[1] < 0x80 and len(wire) == wire[1] + 2, wire
    assert wire[2:9] == b"\x00\x04MQTT\x05", wire
    size = wire[12]
    return wire[9], wire[10] << 8 | wire[11], split(wire[13 : 13 + size]), wire[13 + size :]


SIZES = {0x11: 4, 0x17: 1, 0x18: 4, 0x19: 1, 0x21: 2, 0x22: 2, 0x23: 2, 0x27: 4, 0x01: 1, 0x02: 4}


def split(data):
    """Properties as a list of bytes, each whole."""
    found = []
    at = 0
    while at < len(data):
        end = at + 1
        if data[at] in SIZES:
            end += SIZES[data[at]]
        else:
            for _ in range(2 if data[at] == 0x26 else 1):
                end += 2 + (data[end] << 8 | data[end + 1])
        found.append(bytes(data[at:end]))
        at = end
    assert at == len(data), data
    return found


def refused(bench, packet):
    """The server ends the connection by a packet; returns (error, what the client says to it)."""
    bench.take_events()
    bench.server.received()
    answer = bench.exchange(packet)
    assert bench.server.is_closed, "it goes on"
    return bench.error(), answer
