"""Remaining Length (section 2.2.3): encoding, and the decoder's view of it."""

from fakes import raises

import mqttpipe

# (value, wire bytes): the corner values of table 2.4.
CASES = (
    (0, b"\x00"),
    (1, b"\x01"),
    (127, b"\x7f"),
    (128, b"\x80\x01"),
    (16383, b"\xff\x7f"),
    (16384, b"\x80\x80\x01"),
    (2097151, b"\xff\xff\x7f"),
    (2097152, b"\x80\x80\x80\x01"),
    (268435455, b"\xff\xff\xff\x7f"),
)


def test_encode_at_each_length_boundary():
    for value, wire in CASES:
        buf = bytearray(b"\x30")
        mqttpipe.append_remaining_length(buf, value)
        assert bytes(buf) == b"\x30" + wire, value


class ByteByByte:
    """A stream that gives one byte a read."""

    def __init__(self, wire):
        self.wire = wire

    def read(self, buf, count):
        if not self.wire:
            return None
        buf[0] = self.wire[0]
        self.wire = self.wire[1:]
        return 1


def test_decode_at_each_length_boundary():
    for value, wire in CASES:
        decoder = mqttpipe.Decoder(64)
        packets = decoder.packets(ByteByByte(b"\x30" + wire).read)
        assert next(packets) == (0x30 if not value else -2), value  # -2: some of it has come
        assert decoder.length == value, value


def test_decode_rejects_a_fifth_byte():
    stream = ByteByByte(b"\x30\xff\xff\xff\x80\x01")
    packets = mqttpipe.Decoder(64).packets(stream.read)
    message = raises(mqttpipe.ServerError, next, packets)
    assert "2.2.3" in message, message
    assert stream.wire == b"\x01", "the fourth byte said it"
