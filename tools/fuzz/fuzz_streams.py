"""Streams of bytes for the targets that read MQTT: what they begin with, and how they are spoiled.

A case is bytes alone, so that it can be kept, shrunk, and made by a coverage-guided fuzzer. What
else a target needs to know (sizes, where the stream is divided) is in its first bytes.
"""

import random

PIECES = (1, 1, 2, 3, 5, 7, 16, 61, 1000)
TOPICS = (b"a", b"a/b", b"a/b/c", b"gone/x", b"late", b"one", b"s/t", b"$SYS/x", b"x" * 70)
ODD_TOPICS = (
    b"",
    b"a/#",
    b"+",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"a\0b",
    "\u00e4/\U0001f600".encode(),
)
EDGES = (127, 128)  # remaining lengths
# Identifiers that a client has given out, and some that it has not.
IDS = (1, 2, 3, 4, 5, 6, 7, 9, 300, 0xFF01, 0xFF02, 0xFF03, 0xFF04, 0xFF05, 0xFF06, 0xFF07, 0)


def pieces(number, stream):
    """Divide a stream as a number says; 0: not at all."""
    draw = random.Random(number)
    while stream and number:
        size = draw.choice(PIECES)
        yield stream[:size]
        stream = stream[size:]
    if stream:
        yield stream


def with_length(draw, size):
    """A remaining length; sometimes longer than need be, as the specification does not forbid."""
    out = bytearray()
    while True:
        byte = size & 127
        size >>= 7
        if not size and (len(out) == 3 or draw.random() < 0.97):
            return bytes(out) + bytes((byte,))
        out.append(byte | 128)
        if len(out) == 3 and not size:
            return bytes(out) + b"\0"


def make_payload(draw, sizes, before):
    """One of these sizes; or it ends a body of which there are `before` bytes where its length
    begins to need another byte.
    """
    size = draw.choice((*sizes, *(max(0, end - before) for end in EDGES)))
    return draw.getrandbits(8 * size).to_bytes(size, "big") if size else b""


def make_packet(draw):
    """A packet of a server, mostly legal."""
    kind = draw.choice((2, 3, 3, 3, 3, 3, 4, 5, 6, 7, 9, 11, 13))
    number = draw.choice(IDS).to_bytes(2, "big")
    flags = 2 if kind == 6 else 0
    if kind == 2:
        body = bytes((draw.choice((0, 0, 1)), draw.choice((0, 0, 0, 5))))
    elif kind == 3:
        qos = draw.choice((0, 1, 2))
        flags = draw.choice((0, 0, 8 if qos else 0)) | qos << 1 | draw.randrange(2)
        topic = draw.choice(ODD_TOPICS if draw.random() < 0.05 else TOPICS)
        if draw.random() < 0.02:
            topic *= draw.randrange(1, 300) // (len(topic) or 1) + 1
        body = len(topic).to_bytes(2, "big") + topic + (number if qos else b"")
        body += make_payload(draw, (0, 1, 5, 40, 57, 58, 59, 60, 130, 300), len(body))
    elif kind == 9:
        body = number + bytes(draw.choice(((0,), (1,), (2,), (128,), (3,), (0, 0), ())))
    else:
        body = b"" if kind == 13 else number
    if draw.random() < 0.02:  # its fields go on beyond its end
        body = body[: draw.randrange(len(body) + 1)]
    return bytes((kind << 4 | flags,)) + with_length(draw, len(body)) + body


def make_stream(draw):
    """Valid, spoiled, or noise."""
    what = draw.random()
    if what < 0.1:
        return draw.randbytes(draw.randrange(60))
    stream = b"".join(make_packet(draw) for _ in range(draw.randrange(1, 12)))
    if what < 0.25:  # any bits in the first bytes of packets
        stream += bytes((draw.randrange(256), draw.choice((0, 2, 3, 40))))
        stream += draw.randbytes(draw.randrange(10))
    elif what < 0.7:
        stream = spoil(draw, stream)
    return stream


def spoil(draw, stream):
    """Change, take out, double, cut off."""
    out = bytearray(stream)
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(out) + 1)
        end = at + draw.choice((1, 1, 2, 4, 20))
        what = draw.randrange(5)
        if what == 0 and at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        elif what == 1:
            del out[at:end]
        elif what == 2:
            out[at:at] = out[at:end]
        elif what == 3:
            out[at:at] = draw.randbytes(end - at)
        else:
            del out[at + (len(out) - at) // 2 :]
    return bytes(out)
