"""Attributes that the application may change at any time: a new value counts from its next use."""

from fakes import CONNACK, PINGREQ, PINGRESP, Bench


def pings(bench, seconds):
    """How many PINGREQs come in this time; each is answered."""
    count = 0
    for _ in range(seconds):
        bench.clock.advance(1000)
        bench.steps()
        if bench.server.received() == PINGREQ:
            count += 1
            bench.exchange(PINGRESP)
    return count


def test_a_keep_alive_that_is_switched_off_in_service_sends_no_more_pings():
    bench = Bench(keep_alive_s=10).go_online()
    assert pings(bench, 20) == 2
    bench.client.keep_alive_s = 0
    assert pings(bench, 100) <= 1
    assert bench.client.is_online() and bench.client.next_deadline_ms() is None, "it may sleep"


def test_a_shorter_or_longer_keep_alive_counts_from_the_next_ping():
    bench = Bench(keep_alive_s=10).go_online()
    bench.client.keep_alive_s = 2
    assert 45 <= pings(bench, 100) <= 50
    bench.client.keep_alive_s = 50
    assert pings(bench, 100) <= 3


def test_the_next_connect_asks_for_the_new_keep_alive():
    bench = Bench(keep_alive_s=10, reconnect_min_ms=0)
    bench.client.keep_alive_s = 20
    for wanted in (b"\x00\x14", b"\x01\x00"):
        bench.client.connect()
        bench.steps()
        assert bench.server.received()[10:12] == wanted
        bench.exchange(CONNACK)
        bench.client.keep_alive_s = 256
        bench.client.disconnect()
        bench.steps()
