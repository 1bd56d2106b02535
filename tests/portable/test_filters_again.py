"""Filters at the next connection: what is asked for again, and what is not."""

from fakes import CONNACK, CONNACK_SESSION, ECONNRESET, Bench, reconnect
from wire import serve


def online(*filters):
    """A client with a session, and filters that were granted: their identifiers are 1, 2, ..."""
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    for one in filters:
        bench.client.subscribe(one)
        serve(bench)
    bench.take_events()
    return bench


def asked(kind, last_id, name):
    if kind == "subscribe":
        return b"\x82\x06\xff" + bytes((last_id,)) + b"\x00\x01" + name + b"\x00"
    return b"\xa2\x05\xff" + bytes((last_id,)) + b"\x00\x01" + name


def test_the_callback_of_the_last_call_counts():
    for is_online in (False, True):
        bench = Bench()
        seen = []
        if is_online:
            bench.go_online()
        for name in "fg":
            bench.client.subscribe("a", lambda c, m, s=seen, n=name: s.append(n))
            if is_online:
                serve(bench)
        if not is_online:
            bench.client.connect()
            bench.steps()
            bench.server.received()
            serve(bench, CONNACK)
        bench.exchange(b"\x30\x04\x00\x01ax")
        assert seen == ["g"], is_online


def test_an_unsubscribe_without_answer_goes_again_and_behind_it_what_came_behind_it():
    """[MQTT-3.10.4-1]: whether the server had taken the second SUBSCRIBE already or not."""
    for answer in (b"", b"\x90\x03\xff\x03\x00"):
        bench = online("a")
        bench.client.unsubscribe("a")
        bench.client.subscribe("a")
        bench.steps()
        bench.exchange(answer)
        sent = reconnect(bench, CONNACK_SESSION)
        assert sent == asked("unsubscribe", 4, b"a") + asked("subscribe", 5, b"a"), answer


def test_a_subscribe_without_answer_goes_again_before_its_unsubscribe():
    """So each of the two calls is answered."""
    bench = online()
    bench.client.subscribe("a")
    bench.client.unsubscribe("a")
    bench.steps()
    sent = reconnect(bench, CONNACK_SESSION)
    assert sent == asked("subscribe", 3, b"a") + asked("unsubscribe", 4, b"a")


def test_after_a_connack_that_may_have_been_lost_all_filters_are_asked_for_once():
    """Perhaps the server has begun another session unheard; but not what was taken back."""
    bench = online("a", "b")
    bench.client.unsubscribe("a")
    bench.steps()
    bench.server.error = ECONNRESET
    bench.steps()  # the next connection is there, its CONNECT has left,
    sent = reconnect(bench, CONNACK_SESSION)  # and is cut before its CONNACK
    assert sent == asked("subscribe", 4, b"b") + asked("unsubscribe", 5, b"a")
    bench.exchange(b"\x90\x03\xff\x04\x00\xb0\x02\xff\x05")
    assert bench.client.is_online()
    assert reconnect(bench, CONNACK_SESSION) == b"", "it is in order again"
