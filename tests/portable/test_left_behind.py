"""Each message for itself: what was in its slot before has left nothing behind."""

from fakes import CONNACK, ECONNRESET, Bench, needs, offline, raises, sent_after_connect

import mqttpipe


def test_a_message_that_was_refused_leaves_no_expiry_behind():
    needs("offline")
    bench = offline(pipe_bytes_max=3)
    token = bench.client.publish("t", b"12")
    raises(mqttpipe.QueueFull, bench.client.publish, "t", b"3", expiry_s=1)
    assert bench.client.cancel(token)
    bench.client.publish("t", b"4")  # in the slot of the one that was refused
    bench.clock.advance(2000)
    bench.steps()
    assert bench.take_events() == [("dropped", token)]
    assert sent_after_connect(bench) == b"\x30\x04\x00\x01t4"


def test_a_message_that_has_left_leaves_no_expiry_behind():
    needs("offline")
    bench = offline(pipe_slots=1, reconnect_min_ms=10_000, reconnect_max_ms=10_000).go_online()
    bench.client.on_published = None  # nobody asks: a short way is taken then
    for payload, expiry_s in ((b"1", 5), (b"2", None)):  # one for each slot there is
        bench.client.publish("t", payload, expiry_s=expiry_s)
        bench.steps()
    bench.server.error = ECONNRESET
    bench.steps()
    bench.client.publish("t", b"3")
    for _ in range(2):
        bench.clock.advance(6000)
        bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == b"\x30\x04\x00\x01t3"


def test_the_earliest_expiry_counts_though_it_was_asked_for_last():
    needs("offline")
    for later_ms in (2, 1, 0):
        bench = offline()
        bench.client.publish("t", b"1", expiry_s=2)
        bench.clock.advance(1000 - later_ms)
        bench.client.publish("t", b"2", expiry_s=1)
        bench.steps()
        bench.clock.advance(999)
        bench.steps()
        assert bench.take_events() == []
        bench.clock.advance(1)
        bench.steps()
        assert ("dropped", 2) in bench.take_events(), later_ms


def test_latest_replaces_even_a_message_of_one_byte():
    """Small messages go a short way into the pipe; not those that may take another's place."""
    needs("offline")
    bench = offline(offline="latest")
    for _ in range(2):
        bench.client.publish("t", b"")
    assert bench.take_events() == [("dropped", 1)]


def test_a_client_that_has_done_nothing_has_counted_nothing():
    needs("stats")
    stats = Bench().client.stats
    assert set(stats.values()) == {0}, stats
