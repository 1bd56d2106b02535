"""Answers of DNS servers: decode_answer() against a reference.

Case: bit 0: type A or AAAA; the datagram.
"""

import ipaddress

import fuzz_streams
from dns_reference import DAY_S, make_answer, read_answer

import mqttpipe

HOST = "mq.example"
ALLOCATED_MAX = 100_000


def query_of(case):
    return mqttpipe.encode_query(0x1234, HOST, 28 if case[0] & 1 else 1)


def make(draw):
    first = draw.randbytes(1)
    data = make_answer(draw, query_of(first))
    what = draw.random()
    if what < 0.05:
        data = draw.randbytes(draw.randrange(600))
    elif what < 0.6:
        data = fuzz_streams.spoil(draw, data)
    return first + data


def check(case):
    case = case.ljust(1, b"\0")
    query, data = query_of(case), case[1:]
    expected = read_answer(data, query)
    found = mqttpipe.decode_answer(data, query)
    if expected is None or found is None:
        assert found == expected, (found, expected)
        return
    code, addresses, seconds, is_whole = expected
    assert found[0] == code, (found, expected)
    assert 0 <= found[2] <= DAY_S and len(found[1]) <= len(data), found
    for address in found[1]:
        ipaddress.ip_address(address)  # it is one
    # Of a datagram that is not well formed the client may read more than the reference.
    told = [ipaddress.ip_address(address) for address in found[1]]
    assert told[: len(addresses)] == addresses, (found, expected)
    assert not is_whole or (told, found[2]) == (addresses, seconds), (found, expected)
