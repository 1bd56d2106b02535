"""Streams of MQTT 5.0, as fuzz_streams.py has them of 3.1.1: properties in every manner."""

from fuzz_streams import IDS, ODD_TOPICS, TOPICS, make_payload, spoil, with_length
from mqtt5_reference import NAMES, PROPERTIES

TEXTS = (b"", b"a", b"a/b", b"content", "ä€".encode(), b"x" * 60)
ODD_TEXTS = (b"\xff", b"a\0", b"\xed\xa0\x80", b"\xc0\x80")
LARGE = 130  # bytes of payload: too many for most clients here, which forget their aliases then
NUMBERS = (0, 1, 1, 2, 8, 9, 127, 128, 300, 16383, 16384, 65535, 268435455, (1 << 32) - 1)


def field(data):
    return len(data).to_bytes(2, "big") + data


def make_value(draw, kind):
    kind = kind.partition(",")[0]
    text = draw.choice(ODD_TEXTS if draw.random() < 0.03 else TEXTS)
    if kind in ("text", "data"):
        return field(text)
    if kind == "pair":
        return field(text) + field(draw.choice(TEXTS))
    number = draw.choice(NUMBERS)
    if kind == "bit":
        return bytes((number & 0xFF if draw.random() < 0.05 else number & 1,))
    if kind == "two":
        return (number & 0xFFFF).to_bytes(2, "big")
    if kind == "four":
        return number.to_bytes(4, "big")
    return with_length(draw, number & 0x0FFFFFFF)


def make_properties(draw, kind, alias=0):
    """With their length. Most are those of this packet, each once."""
    own = [key for key in PROPERTIES if NAMES[kind] in PROPERTIES[key][2].split()]
    own = [key for key in own if key != 35 and (key not in (21, 22) or draw.random() < 0.1)]
    chosen = draw.sample(own, min(len(own), draw.choice((0, 0, 0, 1, 1, 2, 3))))
    if draw.random() < 0.03:
        chosen += chosen[:1]
    if draw.random() < 0.02:
        chosen.append(draw.choice(sorted(PROPERTIES)))
    data = b"".join(bytes((key,)) + make_value(draw, PROPERTIES[key][1]) for key in chosen)
    if alias:
        data += b"\x23\x00" + bytes((alias,))
    if draw.random() < 0.01:  # its length is another
        return with_length(draw, max(0, len(data) + draw.choice((-2, -1, 1, 2)))) + data
    return with_length(draw, len(data)) + data


def make_message(draw, given):
    """A PUBLISH: (flags, body). given: topic aliases that the client knows; more are added."""
    qos = draw.choice((0, 1, 2))
    flags = draw.choice((0, 0, 8 if qos else 0)) | qos << 1 | draw.randrange(2)
    topic = draw.choice(ODD_TOPICS if draw.random() < 0.03 else TOPICS)
    alias = draw.choice((0, 0, 1, 1, 2, 3, 8))
    if draw.random() < 0.01:
        alias = 9
    if alias in given and draw.random() < 0.6 or draw.random() < 0.01:
        topic = b""
    given.add(alias)
    body = field(topic) + (make_id(draw) if qos else b"") + make_properties(draw, 3, alias)
    payload = make_payload(draw, (0, 1, 5, 40, 57, 58, 130, 300), len(body))
    if topic and len(payload) >= LARGE:
        given.clear()
    return flags, body + payload


def make_id(draw):
    return (draw.choice(IDS) or draw.choice(IDS)).to_bytes(2, "big")


def make_packet(draw, given):
    """A packet of a server, mostly legal."""
    kind = draw.choice((2, 3, 3, 3, 3, 3, 3, 3, 4, 4, 5, 5, 6, 7, 9, 9, 11, 13, 14, 15))
    flags = 2 if kind == 6 else 0
    if kind in (2, 14, 15) and draw.random() < 0.9:  # they end it
        kind = 3
    if kind == 2:
        body = make_connack(draw)
    elif kind == 3:
        flags, body = make_message(draw, given)
    elif kind in (9, 11):
        codes = ((0,), (0,), (1,), (2,), (0x80,), (0x87,), (0x11,)) if kind == 11 else GRANTED
        if draw.random() < 0.05:
            codes = ((3,), (0x11,), (0, 0), ())
        body = make_id(draw) + make_properties(draw, kind) + bytes(draw.choice(codes))
    elif kind == 13:
        body = b""
    else:
        body = make_id(draw) if kind < 8 else b""
        if draw.random() < 0.6:
            body += bytes((draw.choice((0, 0, 0x10, 0x92, 0x97, 0x80, 0xFF, 0x18)),))
            if draw.random() < 0.6:
                body += make_properties(draw, kind)
    if draw.random() < 0.01:  # its fields go on beyond its end
        body = body[: draw.randrange(len(body) + 1)]
    return bytes((kind << 4 | flags,)) + with_length(draw, len(body)) + body


GRANTED = ((0,), (1,), (2,), (0x80,), (0x87,))


def make_connack(draw):
    head = bytes((draw.choice((0, 0, 0, 1)), draw.choice((0, 0, 0, 0, 0, 0x87))))
    return head + make_properties(draw, 2)


def make_stream(draw, is_new=False):
    """Valid, spoiled, or noise. is_new: the client waits for CONNACK."""
    what = draw.random()
    if what < 0.05:
        return draw.randbytes(draw.randrange(60))
    stream = b""
    if is_new and draw.random() < 0.9:
        body = make_connack(draw)
        stream = b"\x20" + with_length(draw, len(body)) + body
    given = set()
    for _ in range(draw.randrange(1, 12)):
        stream += make_packet(draw, given)
    return spoil(draw, stream) if what > 0.7 else stream
