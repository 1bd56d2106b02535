"""The client's Decoder against the reference: the same packets, and an error where it has one.

Case: the decoder's size, and whether the server closes (bit 7); how the stream is divided; the
stream.
"""

import fuzz_streams
from mqtt_reference import Broken, CutOff, read_packets

import mqttpipe

SIZES = (64, 65, 130, 300)
ALLOCATED_MAX = 100_000
IDLE = 0
LATE = 0x100


def make(draw):
    return draw.randbytes(2) + fuzz_streams.make_stream(draw)


class Source:
    """Gives the stream piece by piece; None behind each, 0 at the end if the server closes."""

    def __init__(self, pieces, closes):
        self.pieces = list(pieces)
        self.is_at_end = False
        self.closes = closes

    def read(self, buf, count):
        assert 0 < count <= len(buf), (count, len(buf))
        if not self.pieces:
            self.is_at_end = True
            return 0 if self.closes else None
        piece = self.pieces.pop(0)
        if not piece:
            return None
        if piece[count:]:
            self.pieces.insert(0, piece[count:])
        elif self.pieces:
            self.pieces.insert(0, b"")
        buf[: len(piece[:count])] = piece[:count]
        return len(piece[:count])


def expect(stream, size):
    """(packets, what comes then): an error's clause, "in doubt", "half a packet" or None."""
    packets = []
    try:
        for packet in read_packets(stream):
            is_large = packet.size > size - 2
            if len(packet.body) < min(packet.size, size - 2):
                return packets, "half a packet"
            packets.append((packet.name, packet.flags, packet.size, packet.body[: size - 2]))
            if is_large and not packet.is_whole:
                return packets, "half a packet"
    except CutOff:
        return packets, "half a packet"
    except Broken as broken:
        return packets, str(broken) if broken.is_whole else "in doubt"
    return packets, None


NAMES = {"CONNACK": 2, "PUBLISH": 3, "PUBACK": 4, "PUBREC": 5, "PUBREL": 6, "PUBCOMP": 7}
NAMES.update(SUBACK=9, UNSUBACK=11, PINGRESP=13)


def check(case):
    case = case.ljust(2, b"\0")
    size = SIZES[case[0] % 4]
    closes = case[0] > 127
    stream = case[2:]
    packets, then = expect(stream, size)
    decoder = mqttpipe.Decoder(size)
    source = Source(fuzz_streams.pieces(case[1], stream), closes)
    generator = decoder.packets(source.read)
    found = []
    error = None
    last = IDLE
    calls_max = 4 * len(stream) + 20
    try:
        while not source.is_at_end or last > 0:
            last = next(generator)
            calls_max -= 1
            assert calls_max, "it yields without end"
            if last > 0:
                kept = min(decoder.length, decoder.have)
                found.append((last, decoder.length, bytes(decoder.buf[:kept])))
    except (mqttpipe.ServerError, mqttpipe.TransportError) as failure:
        error = failure
    assert len(decoder.buf) == size, "the buffer has grown"
    told = [(NAMES[name] << 4 | flags, length, body) for name, flags, length, body in packets]
    assert found == told, (found, told)
    is_offence = isinstance(error, mqttpipe.ServerError)
    if then == "in doubt":
        assert is_offence or closes or error is None, error
    elif then in ("half a packet", None):
        assert not is_offence, (error, then)
        assert closes == (error is not None), (error, then)
        assert closes or (last == IDLE) == (then is None), (last, then)
    else:
        assert is_offence, (error, then)
