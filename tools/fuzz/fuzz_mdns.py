"""The way from a host name to a connection, with what comes on the socket of the query.

By multicast for a name in .local, where anybody may answer; else from a DNS server. Case: bit 0:
which; bit 1: ask for AAAA first; then datagrams, each behind its length (two bytes).
"""

import ipaddress

import fakes
import fuzz_streams
from dns_reference import make_answer, read_answer

import mqttpipe

HOSTS = ("broker.local", "mq.example")
ALLOCATED_MAX = 200_000
STEPS_MS = (0, 400, 800, 1600, 3000)  # time goes on when nothing more comes
LOOKUPS_MAX = 8


class NoCollector:
    """CPython is not short of memory."""

    collect = staticmethod(lambda: None)


fakes.gc = NoCollector


def kind_of(options):
    return 28 if options & 2 else 1


def make(draw):
    options = draw.randrange(4)
    query = mqttpipe.encode_query(0, HOSTS[options & 1], kind_of(options))
    case = bytes((options,))
    for _ in range(draw.randrange(1, 5)):
        data = make_answer(draw, query)
        if draw.random() < 0.6:
            data = fuzz_streams.spoil(draw, data)
        case += len(data).to_bytes(2, "big") + data
    return case


def datagrams(case):
    at = 1
    while at + 2 <= len(case):
        end = at + 2 + int.from_bytes(case[at : at + 2], "big")
        yield case[at + 2 : end]
        at = end


def check(case):
    case = case.ljust(1, b"\0")
    bench = fakes.Bench(uri="mqtt://" + HOSTS[case[0] & 1], connect_timeout_ms=5000)
    client, network = bench.client, bench.network
    client._server[mqttpipe._FAMILY] = kind_of(case[0])
    client.connect()
    bench.steps()
    (lookup,) = network.lookups
    query = lookup.query
    wanted = None
    for data in datagrams(case):
        lookup.answers.append(data)
        answer = read_answer(data[:512], query)
        if answer is not None and not case[0] & 1:
            if answer[0] or answer[3] and not answer[1]:
                answer = None  # an error in the group, or no address
        if wanted is None and answer is not None and answer[3]:
            wanted = answer
        elif wanted is None and answer is not None:
            wanted = "in doubt"
    for ms in STEPS_MS:
        bench.clock.advance(ms)
        bench.steps()
        if network.connections:
            break
    assert len(network.lookups) <= LOOKUPS_MAX, len(network.lookups)
    open_ones = [one for one in network.lookups if not one.is_closed]
    assert len(open_ones) <= 1, open_ones
    addresses = [one.address[0] for one in network.connections]
    for address in addresses:
        ipaddress.ip_address(address)
    if wanted is None:
        assert not addresses, addresses
    elif wanted != "in doubt" and wanted[1]:
        assert ipaddress.ip_address(addresses[0]) == wanted[1][0], (addresses, wanted)
    elif wanted != "in doubt":
        assert not addresses, (addresses, wanted)  # the next query has other answers: none
    told = [event[1] for event in bench.events if event[0] in ("offline", "error")]
    assert all(isinstance(error, mqttpipe.MQTTError) for error in told), told
