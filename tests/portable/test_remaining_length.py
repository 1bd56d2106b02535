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


def test_decode_at_each_length_boundary():
    for value, wire in CASES:
        decoder = mqttpipe.Decoder(64)
        for byte in b"\x30" + wire:
            assert decoder.first_byte == 0 or decoder.wanted == 1, value
            decoder.target[0] = byte
            decoder.on_bytes(1)
        assert decoder.remaining_length == value, value


def test_decode_rejects_a_fifth_byte():
    decoder = mqttpipe.Decoder(64)
    for byte in b"\x30\xff\xff\xff":
        decoder.target[0] = byte
        decoder.on_bytes(1)
    decoder.target[0] = 0x80
    message = raises(mqttpipe.ServerError, decoder.on_bytes, 1)
    assert "2.2.3" in message, message
