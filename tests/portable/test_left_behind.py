"""Each message for itself: what was in its slot before has left nothing behind."""

from fakes import (
    CONNACK,
    CONNACK_SESSION,
    ECONNRESET,
    Bench,
    needs,
    offline,
    raises,
    sent_after_connect,
)

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


def test_a_message_that_has_ended_leaves_no_expiry_behind():
    needs("offline")
    for qos, answer in ((0, b""), (1, b"\x40\x02\x00\x01")):
        bench = offline(pipe_slots=1, reconnect_min_ms=10_000, reconnect_max_ms=10_000)
        bench.go_online()
        bench.client.on_published = None  # nobody asks: a short way is taken then
        bench.client.publish("t", b"1", qos, expiry_s=5)
        bench.steps()
        bench.exchange(answer)
        bench.client.publish("t", b"2")  # in the other slot that there is
        bench.steps()
        bench.server.error = ECONNRESET
        bench.steps()
        bench.client.publish("t", b"3")
        for _ in range(2):
            bench.clock.advance(6000)
            bench.steps()
        bench.server.received()
        assert bench.exchange(CONNACK) == b"\x30\x04\x00\x01t3", qos


def test_a_message_that_moves_leaves_no_expiry_behind():
    needs("offline")
    bench = offline(pipe_slots=3)
    tokens = [bench.client.publish("t", b"%d" % n) for n in range(3)]
    bench.client.cancel(tokens[1])
    bench.client.publish("t", b"moves", expiry_s=1)  # to where there is room
    bench.client.cancel(tokens[0])
    bench.client.publish("t", b"stays")  # where it was first
    bench.clock.advance(2000)
    bench.steps()
    bench.take_events()
    assert sent_after_connect(bench) == b"\x30\x04\x00\x01t2\x30\x08\x00\x01tstays"


def test_a_message_that_takes_the_place_of_another_leaves_no_expiry_behind():
    needs("offline")
    bench = offline(offline="latest")
    bench.client.publish("t", b"1")
    bench.client.publish("t", b"2", expiry_s=1)
    bench.client.publish("u", b"3")
    bench.clock.advance(2000)
    bench.steps()
    assert bench.take_events() == [("dropped", 1), ("dropped", 2)]
    assert sent_after_connect(bench) == b"\x30\x04\x00\x01u3"


def test_a_message_takes_the_place_of_the_one_that_it_replaces():
    needs("offline")
    bench = offline(offline="latest")
    for topic, payload in (("a", b"1"), ("b", b"1"), ("a", b"2")):
        bench.client.publish(topic, payload)
    assert sent_after_connect(bench) == b"\x30\x04\x00\x01a2\x30\x04\x00\x01b1"


def test_a_larger_message_in_the_place_of_a_smaller_one_is_counted_whole():
    needs("offline")
    for size in (8, 9):  # and the topic name: of 10 bytes one is left, or none
        bench = offline(offline="latest", pipe_bytes_max=10)
        bench.client.publish("t", b"1")
        bench.client.publish("t", b"x" * size)
        raises(mqttpipe.QueueFull, bench.client.publish, "u", b"1"[: 9 - size])
        assert bench.take_events() == [("dropped", 1)]


def test_expiries_a_millisecond_apart_are_kept_apart():
    needs("offline")
    bench = offline()
    bench.client.publish("t", b"1", expiry_s=1)
    bench.clock.advance(2)
    bench.client.publish("t", b"2", expiry_s=1)
    bench.clock.advance(998)
    bench.client.publish("t", b"3", expiry_s=1)
    bench.clock.advance(-1)
    bench.client.publish("t", b"4", expiry_s=1)
    bench.clock.advance(1)
    for after_ms, token in ((0, 1), (2, 2), (997, 4), (1, 3)):
        for ms in [1] * after_ms:
            assert bench.take_events() == []
            bench.clock.advance(ms)
            bench.steps()
        bench.steps()
        assert bench.take_events() == [("dropped", token)]


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


def test_a_qos_1_message_that_was_taken_back_leaves_no_pubrel_behind():
    """Retained or not, in flight or between two connections: its PUBACK can not come any more."""
    needs("offline")
    for retain in (False, True):
        for is_cut_first in (False, True):
            bench = offline(clean_session=False, reconnect_max_ms=1000).go_online()
            token = bench.client.publish("t", b"", 1, retain)
            bench.steps()
            if not is_cut_first:
                assert bench.client.cancel(token)
            bench.server.error = ECONNRESET
            bench.steps()
            if is_cut_first:
                assert bench.client.cancel(token)
            bench.clock.advance(1000)
            bench.steps()
            bench.server.received()
            assert bench.exchange(CONNACK_SESSION) == b"", (retain, is_cut_first)
            assert bench.client.is_online()


def test_an_expiry_outlives_a_session_that_was_lost():
    needs("offline")
    bench = offline(reconnect_min_ms=10_000, reconnect_max_ms=10_000).go_online()
    bench.client.publish("t", b"1", 1, expiry_s=15)
    bench.steps()
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(10_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == b"\x32\x06\x00\x01t\x00\x011"
    bench.server.error = ECONNRESET
    bench.steps()
    bench.take_events()
    bench.clock.advance(5000)
    bench.steps()
    assert bench.take_events() == [("dropped", 1)]
