"""Packets taken apart and answered, whatever identifiers the client has chosen.

    split(wire)         [(first byte, body), ...]
    publishes(wire)     [(first byte, topic name, identifier, payload), ...]   the PUBLISHes in it
    filters(wire)       [(identifier, [filter, ...]), ...]                     the SUBSCRIBEs in it
    answers(wire)       what a server answers
    serve(bench)        a server that answers until nothing more comes

Identifiers are two bytes, as on the wire; b"" where there is none.
"""

# Of `stats`: what came, broke no framing, and was passed over.
PASSED_OVER = "ignored"

_ACKS = {0x50: b"\x62\x02", 0x60: b"\x70\x02", 0xA0: b"\xb0\x02"}


def split(wire):
    packets = []
    at = 0
    while at < len(wire):
        first_byte = wire[at]
        size = shift = 0
        while True:
            at += 1
            size |= (wire[at] & 0x7F) << shift
            shift += 7
            if wire[at] < 0x80:
                break
        at += 1
        assert at + size <= len(wire), "the last packet is not whole"
        packets.append((first_byte, bytes(wire[at : at + size])))
        at += size
    return packets


def kinds(wire):
    return [first_byte & 0xF0 for first_byte, _ in split(wire)]


def publishes(wire):
    found = []
    for first_byte, body in split(wire):
        if first_byte & 0xF0 == 0x30:
            end = 2 + body[0] * 256 + body[1]
            start = end + (2 if first_byte & 6 else 0)
            found.append((first_byte, body[2:end], body[end:start], body[start:]))
    return found


def filters(wire):
    found = []
    for first_byte, body in split(wire):
        if first_byte == 0x82:
            names = []
            at = 2
            while at < len(body):
                end = at + 2 + body[at] * 256 + body[at + 1]
                names.append(body[at + 2 : end])
                at = end + 1
            found.append((body[:2], names))
    return found


def answers(wire):
    out = b""
    for first_byte, body in split(wire):
        kind = first_byte & 0xF0
        if kind in _ACKS:
            out += _ACKS[kind] + body[:2]
        elif kind == 0xC0:
            out += b"\xd0\x00"
        elif kind == 0x80:
            out += suback(first_byte, body)
        elif kind == 0x30 and first_byte & 6:
            out += puback(first_byte, body)
    return out


def suback(first_byte, body, code=None):
    """Grants what was asked for, or answers `code` to all."""
    codes = b""
    at = 2
    while at < len(body):
        at += 3 + body[at] * 256 + body[at + 1]
        codes += bytes((body[at - 1] if code is None else code,))
    return bytes((0x90, 2 + len(codes))) + body[:2] + codes


def puback(first_byte, body):
    """PUBACK, or PUBREC for QoS 2."""
    end = 2 + body[0] * 256 + body[1]
    return (b"\x40\x02" if first_byte & 6 == 2 else b"\x50\x02") + body[end : end + 2]


def publish(topic_name, payload, qos=0, packet_id=b"\x00\x09", flags=0):
    """A PUBLISH of the server; shorter than 128 bytes."""
    body = bytes((0, len(topic_name))) + topic_name + (packet_id if qos else b"") + payload
    return bytes((0x30 | qos << 1 | flags, len(body))) + body


def serve(bench, *packets):
    """The server sends, and answers until nothing more comes; returns all that the client sent."""
    wire = total = bench.exchange(*packets)
    while wire:
        reply = answers(wire)
        wire = bench.exchange(reply) if reply else b""
        total += wire
    return total
