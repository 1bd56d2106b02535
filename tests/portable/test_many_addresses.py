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
