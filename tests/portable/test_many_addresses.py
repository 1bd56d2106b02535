"""A name with many addresses: TCP is shared among them; TLS and CONNACK have all that is left."""

import fake_tls  # noqa: F401  it puts itself into fakes
from fakes import CONNACK, Bench, needs

import mqttpipe

COUNT = 8


def start(**options):
    """A client that has asked for a name and got eight addresses."""
    needs("resolver", "tls")
    bench = Bench(uri="mqtts://many.example", ca=b"\x30\x82der", **options)
    bench.client.connect()
    bench.steps()
    lookup = bench.network.lookups[-1]
    data = lookup.query[:2] + b"\x81\x80\x00\x01" + bytes((0, COUNT)) + b"\x00\x00\x00\x00"
    data += lookup.query[12:]
    for n in range(COUNT):
        data += b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02" + bytes((n + 1,))
    lookup.answers.append(data)
    return bench


def wait(bench, ms):
    for _ in range(ms // 100):
        bench.clock.advance(100)
        bench.steps()


def test_a_slow_handshake_with_the_first_of_eight_addresses_succeeds():
    bench = start(connect_timeout_ms=10_000)
    bench.network.tls.stuck_at = 1
    bench.steps()
    assert bench.client.state_name == "TLS_HANDSHAKE"
    wait(bench, 4000)
    assert bench.client.state_name == "TLS_HANDSHAKE", bench.take_events()
    bench.network.tls.stuck_at = None
    bench.steps()
    assert bench.client.state_name == "AWAITING_CONNACK"
    wait(bench, 4000)
    bench.exchange(CONNACK)
    assert bench.client.is_online(), bench.take_events()
    assert len(bench.network.connections) == 1


def test_the_attempt_still_has_an_end():
    for state, stuck_at in (("TLS_HANDSHAKE", 1), ("AWAITING_CONNACK", None)):
        bench = start(connect_timeout_ms=10_000)
        bench.network.tls.stuck_at = stuck_at
        bench.steps()
        wait(bench, 100)
        assert bench.client.state_name == state
        wait(bench, 9700)
        assert bench.client.state_name == state, bench.take_events()
        wait(bench, 300)
        assert type(bench.error()) is mqttpipe.TimedOut, state


def test_an_address_where_nothing_answers_costs_its_share_only():
    bench = start(connect_timeout_ms=10_000)
    bench.network.is_silent = True
    bench.steps()
    first = bench.server
    wait(bench, 1500)
    assert first.is_closed and len(bench.network.connections) == 2
    bench.network.is_silent = False
    bench.network.tls.stuck_at = 1
    bench.steps()
    wait(bench, 4000)
    assert bench.client.state_name == "TLS_HANDSHAKE", bench.take_events()
    bench.network.tls.stuck_at = None
    bench.steps()
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def is_found_within(bench, ms, stands_after_ms, reachable):
    """Are these addresses, to which a connection takes that long, reached in that time?"""
    network = bench.network
    sock = None
    began_ms = 0
    for _ in range(ms // 100):
        if network.connections:
            if network.connections[-1] is not sock:
                sock = network.connections[-1]
                began_ms = bench.clock.now_ms
                del network.connections[:-1]  # a board's heap has no room for them
            age_ms = bench.clock.now_ms - began_ms
            network.is_silent = sock.address[0] not in reachable or age_ms < stands_after_ms
        wait(bench, 100)
        del network.lookups[:-1]
        for lookup in network.lookups:
            if not lookup.is_closed and not lookup.answers:
                is_ipv6 = lookup.query[-3] == 28
                lookup.answers.append(answer(lookup.query, IPV6 if is_ipv6 else IPV4))
        if bench.client.state_name == "TLS_HANDSHAKE":
            return True
    return False


IPV4 = [b"\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02" + bytes((n,)) for n in range(1, 9)]
IPV6 = [b"\x00\x1c\x00\x01\x00\x00\x00\x3c\x00\x10\x20\x01\x0d\xb8" + b"\x00" * 11 + b"\x01"]


def answer(query, records):
    head = query[:2] + b"\x81\x80\x00\x01" + bytes((0, len(records))) + b"\x00\x00\x00\x00"
    return head + query[12:] + b"".join(b"\xc0\x0c" + record for record in records)


def test_a_link_over_which_tcp_takes_two_seconds_reaches_one_of_eight():
    """A share of one second each would never do."""
    every = ["192.0.2.%d" % n for n in range(1, 9)]
    bench = start(reconnect_min_ms=100, reconnect_max_ms=100)
    bench.network.is_silent = bench.network.tls.stuck_at = 1
    assert is_found_within(bench, 15_000, 2000, every), bench.take_events()


def test_the_only_one_of_eight_that_is_alive_is_reached_over_such_a_link():
    for n in (5, 8):
        bench = None  # a board's heap has room for one
        bench = start(reconnect_min_ms=100, reconnect_max_ms=100)
        bench.network.is_silent = bench.network.tls.stuck_at = 1
        assert is_found_within(bench, 40_000, 2000, ["192.0.2.%d" % n]), n


def test_the_other_family_has_its_turn_when_the_first_took_all_the_time():
    address = "2001:0db8:0000:0000:0000:0000:0000:0001"
    bench = start(reconnect_min_ms=100, reconnect_max_ms=100)
    bench.network.is_silent = bench.network.tls.stuck_at = 1
    assert is_found_within(bench, 45_000, 2000, [address]), bench.take_events()
