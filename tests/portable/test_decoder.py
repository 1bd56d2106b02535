"""The decoder: every packet a server may send, however its bytes come."""

from fakes import has_memory, needs, raises

import mqttpipe

# (wire, first byte, body)
PACKETS = (
    (b"\x20\x02\x00\x00", 0x20, b"\x00\x00"),  # CONNACK
    (b"\x30\x07\x00\x03a/bhi", 0x30, b"\x00\x03a/bhi"),  # PUBLISH, QoS 0
    (b"\x3d\x09\x00\x03a/b\x12\x34hi", 0x3D, b"\x00\x03a/b\x12\x34hi"),  # QoS 2, DUP, RETAIN
    (b"\x32\x05\x00\x01t\x00\x01", 0x32, b"\x00\x01t\x00\x01"),  # QoS 1, no payload
    (b"\x40\x02\x12\x34", 0x40, b"\x12\x34"),  # PUBACK
    (b"\x50\x02\x12\x34", 0x50, b"\x12\x34"),  # PUBREC
    (b"\x62\x02\x12\x34", 0x62, b"\x12\x34"),  # PUBREL
    (b"\x70\x02\x12\x34", 0x70, b"\x12\x34"),  # PUBCOMP
    (b"\x90\x05\x00\x01\x00\x02\x80", 0x90, b"\x00\x01\x00\x02\x80"),  # SUBACK
    (b"\xb0\x02\x00\x01", 0xB0, b"\x00\x01"),  # UNSUBACK
    (b"\xd0\x00", 0xD0, b""),  # PINGRESP
    (b"\x30\x82\x01\x00\x01t" + b"x" * 127, 0x30, b"\x00\x01t" + b"x" * 127),
)


# What packets() yields beside the first byte of a packet.
IDLE = 0
STUCK = -1
MOVES = -2
LATE = 0x100


class Source:
    """A stream that gives `wire` in pieces of at most `pieces` bytes, and None behind it."""

    def __init__(self, pieces):
        self.wire = b""
        self.pieces = pieces
        self.reads = 0

    def read(self, buf, count):
        assert 0 < count <= len(buf), (count, len(buf))
        self.reads += 1
        count = min(count, self.pieces, len(self.wire))
        buf[:count] = self.wire[:count]
        self.wire = self.wire[count:]
        return count or None


class Feeder:
    """A decoder of `size` bytes and the packets of one connection."""

    def __init__(self, size, pieces):
        self.decoder = mqttpipe.Decoder(size)
        self.begin(pieces)

    def begin(self, pieces):
        self.source = Source(pieces)
        self.packets = self.decoder.packets(self.source.read)

    def feed(self, wire):
        """The packets that `wire` completes: (first byte, body, is it cut)."""
        self.source.wire = wire
        decoder = self.decoder
        packets = []
        while True:
            first_byte = next(self.packets)
            if first_byte > 0:
                body = bytes(decoder.buf[: min(decoder.length, decoder.have)])
                packets.append((first_byte, body, decoder.have < decoder.length))
            elif not self.source.wire:
                return packets

    def rest(self):
        """What it says when nothing more comes."""
        return next(self.packets)


def test_each_packet_whole_byte_by_byte_and_with_a_tail():
    for wire, first_byte, body in PACKETS:
        expected = [(first_byte, body, False)]
        for pieces in (1, 2, 3, 1000):
            feeder = Feeder(256, pieces)
            assert feeder.feed(wire) == expected, (wire, pieces)
            assert feeder.rest() == IDLE, wire
            assert feeder.feed(b"\xd0") == [], wire  # half a packet is none
            assert feeder.rest() == STUCK, wire
            assert feeder.feed(b"\x00") == [(0xD0, b"", False)], wire


def test_a_packet_is_not_whole_before_its_last_byte():
    for wire, _, _ in PACKETS:
        feeder = Feeder(256, 1)
        assert feeder.feed(wire[:-1]) == [], wire
        assert len(feeder.feed(wire[-1:])) == 1, wire


def test_half_a_packet_moves_as_long_as_something_comes_and_is_stuck_then():
    for wire, _, _ in PACKETS:
        check_half(wire, 1, len(wire))


def test_so_does_the_rest_of_a_packet_that_is_cut():
    """Of 64 bytes: the head has three, so 65 make it whole for the first time."""
    check_half(b"\x30\xc8\x01\x00\x01t" + b"x" * 197, 66, 203)


def check_half(wire, first, end):
    for count in range(first, end):
        feeder = Feeder(64 if first > 1 else 256, 1000)
        if count % 2:  # before its first byte, or as the first of all
            assert feeder.rest() == IDLE
        feeder.source.wire = wire[:count]
        told = [next(feeder.packets) for _ in range(3 + (first > 1))]
        if first > 1:
            assert told.pop(0) == 0x30
        assert told == [MOVES, STUCK, STUCK], (wire, count, told)
        feeder.source.wire = wire[count : count + 1]
        if count + 1 < end:
            assert next(feeder.packets) == MOVES and feeder.rest() == STUCK, (wire, count)


def test_a_stream_of_all_packets_in_pieces_of_each_size():
    stream = b"".join(wire for wire, _, _ in PACKETS)
    expected = [(first_byte, body, False) for _, first_byte, body in PACKETS]
    for pieces in range(1, 40):
        assert Feeder(256, pieces).feed(stream) == expected, pieces


def test_small_messages_in_a_row_cost_one_read_each():
    feeder = Feeder(64, 1000)
    feeder.source.wire = b"\x30\x07\x00\x03a/bhi" * 10
    for _ in range(10):
        assert next(feeder.packets) == 0x30
    assert feeder.source.reads == 11, feeder.source.reads


def test_a_stream_that_has_ended_is_told():
    for wire in (b"", b"\x30", b"\x30\x04\x00\x01"):
        packets = mqttpipe.Decoder(64).packets(End(wire).read)
        message = raises(mqttpipe.TransportError, next, packets)
        assert "closed by the server" in message, message
    packets = mqttpipe.Decoder(64).packets(End(b"\x30\xc8\x01\x00\x01t" + b"x" * 100).read)
    assert next(packets) == 0x30, "as far as it is kept"
    raises(mqttpipe.TransportError, next, packets)


class End(Source):
    """Answers 0 behind its last byte."""

    def __init__(self, wire):
        super().__init__(1000)
        self.wire = wire

    def read(self, buf, count):
        return super().read(buf, count) or 0


def test_the_error_of_the_stream_reaches_the_caller():
    def broken(buf, count):
        raise OSError(104)

    raises(OSError, next, mqttpipe.Decoder(64).packets(broken))


def test_what_breaks_the_protocol_is_rejected():
    """[MQTT-2.2.2-2] [MQTT-3.3.1-4]"""
    cases = (
        b"\x00\x00",  # reserved type 0
        b"\x10\x0c",  # CONNECT, from a server
        b"\x10\xff\x01",
        b"\x82\x08",  # SUBSCRIBE
        b"\xa2\x08",  # UNSUBSCRIBE
        b"\xc0\x00",  # PINGREQ
        b"\xe0\x00",  # DISCONNECT
        b"\xf0\x00",  # reserved type 15
        b"\x20\x03",  # CONNACK of three bytes
        b"\x21\x02",  # CONNACK with a flag
        b"\x36\x05",  # PUBLISH with QoS 3
        b"\x41\x02",  # PUBACK with a flag
        b"\x40\x03",
        b"\x52\x02",
        b"\x60\x02",  # PUBREL without its flag
        b"\x62\x01",
        b"\x92\x03",  # SUBACK with a flag
        b"\xb0\x03",
        b"\xd0\x01",
    )
    for wire in cases:
        message = raises(mqttpipe.ServerError, Feeder(64, 2).feed, wire)
        assert "2.2" in message, (wire, message)
    raises(mqttpipe.ServerError, Feeder(64, 2).feed, b"\x00")  # that alone tells


def test_a_packet_larger_than_the_buffer_is_cut_and_skipped():
    big = b"\x32\xc8\x01\x00\x01t\x00\x07" + b"x" * 195  # remaining length 200
    after = b"\x30\x04\x00\x01tz"
    for pieces in (1, 3, 7, 1000):
        feeder = Feeder(64, pieces)
        packets = feeder.feed(big + after + big)
        assert packets[0] == (0x32, b"\x00\x01t\x00\x07" + b"x" * 57, True), pieces
        assert packets[1] == (0x30, b"\x00\x01tz", False), pieces
        assert packets[2] == packets[0] and len(packets) == 3, pieces
        assert feeder.rest() == IDLE


def test_the_identifier_of_a_packet_that_is_cut_is_found_wherever_it_stands():
    for topic_bytes in list(range(1, 12)) + list(range(50, 135)) + [196]:
        body = b"\x00" + bytes((topic_bytes,)) + b"t" * topic_bytes + b"\x12\x34"
        wire = b"\x32\xc8\x01" + body + b"x" * (200 - len(body))
        for pieces in (1, 2, 7, 1000):
            feeder = Feeder(64, pieces)
            decoder = feeder.decoder
            feeder.source.wire = wire + b"\xd0\x00"
            told = []
            while len(told) < 3:
                first_byte = next(feeder.packets)
                if first_byte == 0x32:
                    assert decoder.have == 62 and decoder.length == 200
                    decoder.late_at = 2 + topic_bytes
                elif first_byte == 0x32 | LATE:
                    told.append(decoder.late_id)
                if first_byte > 0:
                    told.append(first_byte)
            assert told == [0x32, 0x1234, 0x32 | LATE], (topic_bytes, pieces, told)
            assert next(feeder.packets) == 0xD0, (topic_bytes, pieces)


def test_the_identifier_of_a_packet_that_is_cut_is_looked_for_in_no_other():
    big = b"\x32\xc8\x01\x00\x01t\x12\x34" + b"x" * 195
    feeder = Feeder(64, 1000)
    feeder.source.wire = big + big + b"\xd0\x00"
    assert next(feeder.packets) == 0x32
    feeder.decoder.late_at = 3
    told = [next(feeder.packets) for _ in range(3)]
    assert told == [0x32 | LATE, 0x32, 0xD0], told


def test_every_byte_of_a_packet_is_counted_once():
    needs("stats")
    for head in (b"\x7f", b"\x80\x01", b"\xff\x7f", b"\x80\x80\x01"):
        body = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(head))
        if not has_memory(body * 8):  # the source has it in pieces, too
            continue
        feeder = Feeder(64, 1000)
        assert len(feeder.feed(b"\x30" + head + b"\x00\x01t" + b"x" * (body - 3))) == 1
        assert feeder.decoder.byte_count == 1 + len(head) + body


def test_the_largest_packet_that_fits_is_not_cut():
    # 64 bytes in all: 2 of fixed header, 62 of body.
    wire = b"\x30\x3e\x00\x01t" + b"x" * 59
    for pieces in (1, 5, 1000):
        packets = Feeder(64, pieces).feed(wire)
        assert packets == [(0x30, wire[2:], False)], pieces


def test_the_next_connection_begins_with_no_half_a_packet():
    feeder = Feeder(64, 1000)
    feeder.feed(b"\x30\x20\x00\x03a/b")
    feeder.begin(1000)
    assert feeder.rest() == IDLE
    assert feeder.feed(b"\x40\x02\x00\x01") == [(0x40, b"\x00\x01", False)]


def test_the_next_connection_begins_with_no_half_a_packet_that_is_cut():
    """Nor with its identifier."""
    big = b"\x32\xc8\x01\x00\x01t\x12\x34" + b"x" * 195
    feeder = Feeder(64, 1000)
    feeder.source.wire = big[:100]
    assert next(feeder.packets) == 0x32
    feeder.decoder.late_at = 3
    assert next(feeder.packets) == MOVES
    feeder.begin(1000)
    assert feeder.feed(big + b"\xd0\x00") == [(0x32, big[3:65], True), (0xD0, b"", False)]
