"""A reference for the fuzz targets: answers of DNS (RFC 1035, RFC 6762), and datagrams to try.

Written from the RFCs, with struct and ipaddress: the client has neither.
"""

import ipaddress
import struct

TYPES = {1: ipaddress.IPv4Address, 28: ipaddress.IPv6Address}
CLASS_IN = 1
DAY_S = 86400

NAMES = (
    b"\xc0\x0c",
    b"\xc0\x0c",
    b"\0",
    b"\x01x\0",
    b"\x01x\xc0\x0c",
    b"\x3f" + b"n" * 63 + b"\0",
)


class Malformed(Exception):
    """The datagram ends too early, or holds what no RFC defines."""


def skip_name(data, at):
    """RFC 1035, section 4.1.4; where the name goes on behind a pointer is nobody's business."""
    while True:
        if at >= len(data):
            raise Malformed
        length = data[at]
        if length & 0xC0 == 0xC0:
            return at + 2
        if length & 0xC0:  # reserved
            raise Malformed
        at += 1 + length
        if not length:
            return at


def read_answer(data, query):
    """Return (code, addresses, seconds) of an answer to a query, or None: it is none to it.

    addresses: a list of ipaddress objects; seconds: the shortest TTL, a day at most. The last
    field is whether all that the header counts was there.
    """
    question = query[12:]
    if len(data) < 12 + len(question):
        return None
    number, flags, questions, answers = struct.unpack(">HHHH", data[:8])
    name, (kind, _) = data[12 : 12 + len(question) - 4], struct.unpack(">HH", question[-4:])
    asked_kind, asked_class = struct.unpack(">HH", data[12 + len(name) : 12 + len(question)])
    if number != struct.unpack(">H", query[:2])[0] or not flags & 0x8000 or questions != 1:
        return None
    if name.lower() != question[:-4].lower() or asked_kind != kind:
        return None
    if asked_class & 0x7FFF != CLASS_IN:  # RFC 6762, section 10.2
        return None
    addresses, seconds = [], DAY_S
    at = 12 + len(question)
    is_whole = True
    try:
        for _ in range(answers):
            at = skip_name(data, at)
            if at + 10 > len(data):
                raise Malformed
            found, found_class, ttl, size = struct.unpack(">HHIH", data[at : at + 10])
            at += 10 + size
            if at > len(data):
                raise Malformed
            if found == kind and found_class & 0x7FFF == CLASS_IN:
                if size == TYPES[kind](0).max_prefixlen // 8:
                    addresses.append(TYPES[kind](data[at - size : at]))
            seconds = min(seconds, ttl if ttl < 1 << 31 else 0)  # RFC 2181, section 8
    except Malformed:
        is_whole = False
    return flags & 15, addresses, seconds, is_whole


def make_answer(draw, query):
    """A datagram for a query: an answer, mostly whole."""
    kind = struct.unpack(">H", query[-4:-2])[0]
    count = draw.choice((0, 1, 1, 2, 3))
    records = b""
    for _ in range(count):
        what = draw.choice((kind, kind, kind, 1, 28, 5, 41))
        size = draw.choice(({1: 4, 28: 16}.get(what, 6),) * 9 + (0, 3))
        records += draw.choice(NAMES)
        ttl = draw.choice((0, 60, 60, 3600, 99999, 0x8000003C))
        records += struct.pack(">HHIH", what, draw.choice((1, 1, 0x8001)), ttl, size)
        records += draw.randbytes(size)
    flags = draw.choice((0x8180, 0x8180, 0x8180, 0x8183, 0x8182, 0x8380, 0x0180))
    count = draw.choice((count, count, count, 0xFFFF))
    return query[:2] + struct.pack(">HHHHH", flags, 1, count, 0, 0) + query[12:] + records
