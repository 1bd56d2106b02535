"""MQTT 5.0: a message that the server refuses, at a moment that rarely comes."""

from fakes import ECONNRESET, needs
from mqtt5 import CONNACK_SESSION, connack, online

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
    bench = watched(clean_session=False)
    for payload in (b"1", b"2", b"3"):
        bench.client.publish("t", payload, 1)
    bench.steps()
    only_one = b"\x21\x00\x01"  # Receive Maximum
    first = b"\x3a\x07\x00\x01t\x00\x01\x001"
    assert again(bench, connack(only_one, 1)) == first
    assert bench.exchange(PUBACK_FAILED % 2) == b"", "the first is still in flight"
    assert bench.take_events() == [("error", 2), ("dropped", 2)]
    assert bench.exchange(b"\x40\x02\x00\x01") == b"\x3a\x07\x00\x01t\x00\x03\x003"
    assert again(bench, CONNACK_SESSION)[-1:] == b"3"
