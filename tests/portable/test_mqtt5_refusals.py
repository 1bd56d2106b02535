"""MQTT 5.0: a message that the server refuses, at a moment that rarely comes."""

from fakes import ECONNRESET, Guarded, needs
from mqtt5 import connack, online

PUBACK_FAILED = b"\x40\x04\x00%c\x97\x00"


def watched(**options):
    """A client online, whose events have drops and errors of tokens."""
    needs("offline")
    bench = online(reconnect_max_ms=1000, **options)
    bench.client.on_dropped = lambda client, token: bench.events.append(("dropped", token))
    bench.client.on_error = lambda client, error: bench.events.append(("error", error.token))
    return bench


def again(bench, answer):
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(1000)
    bench.steps()
    bench.server.received()
    sent = bench.exchange(answer)
    bench.take_events()
    return sent


def test_it_waits_for_a_cancel_of_another_thread():
    bench = watched()
    token = bench.client.publish("t", b"x", 1)
    bench.steps()
    pipe = bench.client._pipe
    pipe.wait_for_lock()  # another thread is in cancel()
    pipe.wait_for_lock(True)
    bench.server.send(PUBACK_FAILED % 1)
    for _ in range(5):
        bench.client.step()
    assert bench.take_events() == []
    pipe.release_lock()
    bench.steps()
    assert sorted(bench.take_events()) == [("dropped", token), ("error", token)]


def test_of_one_that_was_cancelled_nobody_is_told_and_its_slot_is_free():
    bench = watched(pipe_slots=1)
    token = bench.client.publish("t", b"x", 1)
    bench.steps()
    bench.client.cancel(token)
    bench.take_events()
    bench.exchange(PUBACK_FAILED % 1)
    assert bench.take_events() == [] and bench.client.is_online()
    bench.client.publish("t", b"y", 1)


def test_one_that_waits_to_be_sent_again_is_not_among_those_in_flight():
    for answer in (PUBACK_FAILED % 2, b"\x40\x02\x00\x02"):
        bench = watched(clean_session=False)
        for payload in (b"1", b"2", b"3"):
            bench.client.publish("t", payload, 1)
        bench.steps()
        only_one = b"\x21\x00\x01"  # Receive Maximum
        first = b"\x3a\x07\x00\x01t\x00\x01\x001"
        assert again(bench, connack(only_one, 1)) == first
        assert bench.exchange(answer) == b"", "the first is still in flight"
        assert bench.take_events()[-1] in (("dropped", 2), ("published", 2))
        assert bench.exchange(b"\x40\x02\x00\x01") == b"\x3a\x07\x00\x01t\x00\x03\x003"


def test_one_for_no_message_or_of_another_qos_ends_nothing():
    needs("stats", "qos2")
    pubrec = b"\x50" + PUBACK_FAILED[1:]
    for at, (qos, answer, packet_id) in enumerate(
        ((1, PUBACK_FAILED, 40), (1, pubrec, 40), (1, pubrec, 1), (2, PUBACK_FAILED, 1))
    ):
        bench = watched(pipe_slots=1)
        bench.client.publish("t", b"x", qos, True)
        bench.steps()
        bench.server.received()
        assert bench.exchange(answer % packet_id) == b"", at
        assert bench.take_events() == [] and bench.client.stats["ignored"] == 1, at
        assert not bench.client.is_done(1)


def test_one_for_no_message_is_none_for_that_in_the_last_slot():
    needs("qos2")
    for qos, answer in ((1, PUBACK_FAILED), (2, b"\x50" + PUBACK_FAILED[1:])):
        bench = watched(pipe_slots=1)  # and one is always empty
        for token in (1, 2):
            bench.client.publish("t", b"x", qos)
            bench.steps()
            bench.exchange(answer % 40)
            assert bench.take_events() == [], token
            bench.exchange(answer % token)
            assert len(bench.take_events()) == 2, token


def test_it_is_told_once_and_after_pubrec_not_at_all():
    needs("stats", "qos2")
    for qos, kind in ((1, b"\x40"), (2, b"\x50")):
        bench = watched()
        bench.client.publish("t", b"x", qos)
        bench.steps()
        bench.exchange(kind + PUBACK_FAILED[1:] % 1)
        assert sorted(bench.take_events()) == [("dropped", 1), ("error", 1)]
        assert bench.client.stats["ignored"] == 0
    bench.client.publish("t", b"y", 2)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x02")
    bench.exchange(b"\x50" + PUBACK_FAILED[1:] % 2)
    assert bench.take_events() == [] and bench.client.stats["ignored"] == 1


def test_on_error_may_take_back_another():
    bench = watched()
    tokens = [bench.client.publish("t", b"x", 1) for _ in range(2)]
    bench.steps()
    taken = []
    bench.client.on_error = lambda client, error: taken.append(client.cancel(tokens[1]))
    bench.exchange(PUBACK_FAILED % 1)
    assert taken == [True]


def test_no_cancel_of_another_thread_comes_between_it_and_its_message():
    bench = watched()
    bench.client.publish("t", b"x", 1)
    bench.steps()
    pipe = bench.client._pipe
    find_id, noted = pipe.find_id, []
    pipe.find_id = lambda packet_id: noted.append(pipe._lock.locked()) or find_id(packet_id)
    pipe.dropped = Guarded(pipe._lock)
    bench.exchange(PUBACK_FAILED % 1)
    assert noted == [True] and not pipe._lock.locked() and not pipe.is_looking
    assert ("dropped", 1) in bench.take_events()
    bench.client.publish("t", b"x", 1)
    bench.steps()
    pipe.wait_for_lock()  # another thread writes
    bench.server.send(PUBACK_FAILED % 2)
    for _ in range(3):
        bench.client.step()
    assert bench.take_events() == [] and bench.client.is_online()
    pipe.release_lock()
    bench.steps()
    assert sorted(bench.take_events()) == [("dropped", 2), ("error", 2)]


def test_a_pubrec_for_nothing_at_qos_2_is_told_with_both_bytes_of_its_identifier():
    needs("qos2")
    bench = online()
    assert bench.exchange(b"\x50\x02\x12\x34") == b"\x62\x03\x12\x34\x92"
    bench.client.publish("t", b"x", 1, True)  # PUBREC is no answer to that
    bench.steps()
    bench.server.received()
    assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x03\x00\x01\x92"
