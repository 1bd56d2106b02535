"""The decoder: every packet a server may send, however its bytes come."""

from fakes import raises

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


def feed(decoder, wire, pieces):
    """Give `wire` in pieces of at most `pieces` bytes; return the packets and what was left.

    Never more than the decoder wants, as a socket does.
    """
    packets = []
    at = 0
    while at < len(wire):
        count = min(pieces, decoder.wanted, len(wire) - at)
        assert decoder.wanted <= len(decoder.target)
        decoder.target[:count] = wire[at : at + count]
        at += count
        decoder.on_bytes(count)
        while decoder.is_whole:
            body = bytes(decoder.buf[: min(decoder.remaining_length, decoder.have)])
            is_cut = decoder.have < decoder.remaining_length
            packets.append((decoder.first_byte, body, is_cut))
            decoder.on_bytes(0)
    return packets


def test_each_packet_whole_byte_by_byte_and_with_a_tail():
    for wire, first_byte, body in PACKETS:
        expected = [(first_byte, body, False)]
        for pieces in (1, 2, 3, 1000):
            decoder = mqttpipe.Decoder(256)
            assert feed(decoder, wire, pieces) == expected, (wire, pieces)
            assert not decoder.first_byte, wire
            assert feed(decoder, b"\xd0", 1) == [], wire  # half a packet is none
            assert decoder.first_byte, wire
            assert feed(decoder, b"\x00", 1) == [(0xD0, b"", False)], wire


def test_a_packet_is_not_whole_before_its_last_byte():
    for wire, _, _ in PACKETS:
        decoder = mqttpipe.Decoder(256)
        assert feed(decoder, wire[:-1], 1) == [], wire
        assert len(feed(decoder, wire[-1:], 1)) == 1, wire


def test_a_stream_of_all_packets_in_pieces_of_each_size():
    stream = b"".join(wire for wire, _, _ in PACKETS)
    expected = [(first_byte, body, False) for _, first_byte, body in PACKETS]
    for pieces in range(1, 40):
        assert feed(mqttpipe.Decoder(256), stream, pieces) == expected, pieces


def test_small_messages_in_a_row_cost_one_read_each():
    wire = b"\x30\x07\x00\x03a/bhi"
    decoder = mqttpipe.Decoder(64)
    stream = wire * 10
    reads = at = 0
    while at < len(stream):
        count = min(decoder.wanted, len(stream) - at)
        decoder.target[:count] = stream[at : at + count]
        at += count
        reads += 1
        decoder.on_bytes(count)
        if decoder.is_whole:
            decoder.on_bytes(0)
    assert reads == 11, reads


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
        decoder = mqttpipe.Decoder(64)
        message = raises(mqttpipe.ServerError, feed, decoder, wire, 2)
        assert "2.2" in message, (wire, message)


def test_a_packet_larger_than_the_buffer_is_cut_and_skipped():
    big = b"\x32\xc8\x01\x00\x01t\x00\x07" + b"x" * 195  # remaining length 200
    after = b"\x30\x04\x00\x01tz"
    for pieces in (1, 3, 7, 1000):
        decoder = mqttpipe.Decoder(64)
        packets = feed(decoder, big + after + big, pieces)
        assert packets[0] == (0x32, b"\x00\x01t\x00\x07" + b"x" * 57, True), pieces
        assert packets[1] == (0x30, b"\x00\x01tz", False), pieces
        assert packets[2] == packets[0], pieces
        assert not decoder.first_byte


def test_the_largest_packet_that_fits_is_not_cut():
    # 64 bytes in all: 2 of fixed header, 62 of body.
    wire = b"\x30\x3e\x00\x01t" + b"x" * 59
    for pieces in (1, 5, 1000):
        packets = feed(mqttpipe.Decoder(64), wire, pieces)
        assert packets == [(0x30, wire[2:], False)], pieces


def test_reset_forgets_half_a_packet():
    decoder = mqttpipe.Decoder(64)
    feed(decoder, b"\x30\x20\x00\x03a/b", 1000)
    decoder.reset()
    assert not decoder.first_byte
    assert feed(decoder, b"\x40\x02\x00\x01", 1000) == [(0x40, b"\x00\x01", False)]
