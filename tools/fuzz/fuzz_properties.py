"""The client's decode_properties() against the reference: the same dict and end, or an error.

Case: the packet they are in; how many bytes are behind them; the bytes.
"""

import fuzz_streams_5
from mqtt5_reference import NAMES, Offence, named, read_properties
from mqtt_reference import CutOff, Reader

import mqttpipe

ALLOCATED_MAX = 100_000
KINDS = sorted(kind for kind in NAMES if kind != 13)


def make(draw):
    number = draw.randrange(256)
    kind = KINDS[number % len(KINDS)]
    data = fuzz_streams_5.make_properties(draw, kind, draw.choice((0, 0, 1)))
    if draw.random() < 0.4:
        data = fuzz_streams_5.spoil(draw, data)
    return bytes((number, draw.choice((0, 0, 1, 5)))) + data


def check(case):
    case = case.ljust(3, b"\0")
    kind = KINDS[case[0] % len(KINDS)]
    wire = case[2:]
    end = len(wire)
    buf = bytearray(wire + b"\x80" * (case[1] % 8))
    fields = Reader(wire)
    try:
        expected = named(read_properties(fields, NAMES[kind])), end - len(fields.data)
    except (CutOff, Offence) as offence:
        expected = offence
    try:
        found = mqttpipe.decode_properties(buf, 0, end, kind << 4)
    except mqttpipe.ServerError as error:
        assert isinstance(expected, Exception), (error, expected)
        assert error.reason_code in (0x81, 0x82), error.reason_code
        return
    assert found == expected, (found, expected)
