"""Subscriptions: the table, its acknowledgements, reconnection, matching (3.8-3.11, 4.7)."""

from fakes import (
    CONNACK,
    CONNACK_SESSION,
    ECONNRESET,
    Bench,
    SkipTest,
    has_memory,
    needs,
    raises,
)
from wire import serve

import mqttpipe


def test_subscribe_is_acknowledged_to_its_token():
    """[MQTT-2.3.1-1] [MQTT-3.8.1-1]"""
    bench = Bench().go_online()
    token = bench.client.subscribe("a/+", qos=1)
    bench.steps()
    assert bench.server.received() == b"\x82\x08\xff\x01\x00\x03a/+\x01"
    assert not bench.client.is_done(token)
    bench.exchange(b"\x90\x03\xff\x01\x01")
    assert bench.take_events() == [("subscribed", token, b"\x01")] and bench.client.is_done(token)


def test_each_filter_goes_in_a_packet_of_its_own_all_in_one_write_before_online():
    needs("qos2")
    bench = Bench()
    tokens = [bench.client.subscribe(name, qos=i) for i, name in enumerate(("a", "b/#", "c"))]
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.server.send(CONNACK)
    calls = bench.server.calls
    bench.client.step()  # CONNACK
    bench.client.step()
    assert bench.server.received() == (
        b"\x82\x06\xff\x01\x00\x01a\x00"
        b"\x82\x08\xff\x02\x00\x03b/#\x01"
        b"\x82\x06\xff\x03\x00\x01c\x02"
    )
    assert bench.server.calls - calls <= 4, "two reads for CONNACK, one in vain, one write"
    assert bench.client.state_name == "SUBSCRIBING"
    assert bench.take_events() == [("connect", False)]
    bench.exchange(b"\x90\x03\xff\x01\x00", b"\x90\x03\xff\x02\x80", b"\x90\x03\xff\x03\x02")
    assert bench.take_events() == [
        ("subscribed", tokens[0], b"\x00"),
        ("subscribed", tokens[1], b"\x80"),
        ("subscribed", tokens[2], b"\x02"),
        ("online",),
    ], "a refused filter takes nothing else down"


def test_a_refused_subscription_is_done_and_known_as_refused():
    """[MQTT-3.9.3-2]"""
    bench = Bench().go_online()
    granted, refused = bench.client.subscribe("a"), bench.client.subscribe("b")
    bench.steps()
    assert not bench.client.was_refused(refused), "it is not known yet"
    bench.exchange(b"\x90\x03\xff\x01\x00", b"\x90\x03\xff\x02\x80")
    for token in (granted, refused):
        assert bench.client.is_done(token)
    assert bench.client.was_refused(refused) and not bench.client.was_refused(granted)
    for bad in (None, "1", 1.5, -1):
        assert "token" in raises(mqttpipe.LocalError, bench.client.was_refused, bad)


def check_subscribes(wire, numbers):
    """`wire` is SUBSCRIBE for "f/000" and so on, QoS 0. Returns the identifiers: all differ."""
    ids = [wire[at + 2 : at + 4] for at in range(0, len(wire), 12)]
    assert wire == b"".join(
        b"\x82\x0a" + packet_id + b"\x00\x05f/%03d\x00" % number
        for packet_id, number in zip(ids, numbers)
    )
    assert len(ids) == len(numbers) == len(set(ids)), "an identifier stands twice"
    assert all(packet_id[0] == 0xFF and packet_id[1] for packet_id in ids), ids
    return ids


def test_more_subscriptions_than_the_pipe_has_slots_before_connect():
    bench = Bench(pipe_slots=4, packet_bytes_max=64)
    for i in range(20):
        bench.client.subscribe("f/%03d" % i)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    for packet_id in check_subscribes(bench.exchange(CONNACK), range(20)):
        assert not bench.client.is_online()
        assert bench.exchange(b"\x90\x03" + packet_id + b"\x00") == b""
    assert bench.client.is_online()


def test_more_filters_than_identifiers_go_out_as_answers_come():
    """[MQTT-2.3.1-2]: 255 at once, and no identifier twice."""
    if not has_memory(200_000):
        raise SkipTest("needs more than a board's memory")
    bench = Bench(keep_alive_s=0, packet_bytes_max=128).go_online()
    for i in range(300):
        bench.client.subscribe("f/%03d" % i)
    bench.steps()
    ids = check_subscribes(bench.server.received(), range(255))
    assert bench.exchange(b"\x90\x03" + ids[6] + b"\x00") == b"", "it is not its turn"
    for packet_id in ids:
        bench.server.send(b"\x90\x03" + packet_id + b"\x00")
    bench.steps()
    for packet_id in check_subscribes(bench.server.received(), range(255, 300)):
        bench.server.send(b"\x90\x03" + packet_id + b"\x00")
    bench.steps()
    tokens = set(event[1] for event in bench.take_events() if event[0] == "subscribed")
    assert len(tokens) == 300 and all(bench.client.is_done(token) for token in tokens)


def test_filters_go_before_messages_that_wait_whatever_was_called_first():
    bench = Bench()
    bench.client.publish("t", b"1")
    bench.client.subscribe("a")
    bench.client.connect()
    bench.steps()
    bench.client.publish("t", b"2")
    bench.client.subscribe("b")
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == (
        b"\x82\x06\xff\x01\x00\x01a\x00\x82\x06\xff\x02\x00\x01b\x00"
    )
    assert bench.exchange(b"\x90\x03\xff\x01\x00") == b"", "one answer of two is not enough"
    assert bench.exchange(b"\x90\x03\xff\x02\x00") == (b"\x30\x04\x00\x01t1\x30\x04\x00\x01t2")


def test_after_a_reconnection_all_is_subscribed_again():
    needs("qos2")
    bench = Bench(reconnect_min_ms=0).go_online()
    bench.client.subscribe("a", qos=1)
    bench.steps()
    bench.client.subscribe("b", qos=2)
    bench.exchange(b"\x90\x03\xff\x01\x01")
    bench.exchange(b"\x90\x03\xff\x02\x02")
    bench.server.error = ECONNRESET
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == (
        b"\x82\x06\xff\x03\x00\x01a\x01\x82\x06\xff\x04\x00\x01b\x02"
    )
    bench.take_events()
    bench.exchange(b"\x90\x03\xff\x03\x01")
    assert bench.take_events() == []
    bench.exchange(b"\x90\x03\xff\x04\x02")
    assert ("online",) in bench.take_events()


def test_a_resumed_session_is_not_subscribed_again():
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    bench.client.subscribe("a")
    bench.steps()
    bench.client.subscribe("b")
    bench.exchange(b"\x90\x03\xff\x01\x00")  # b is still on the way
    bench.server.error = ECONNRESET
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK_SESSION) == b"\x82\x06\xff\x03\x00\x01b\x00"
    assert not bench.client.is_online()
    bench.exchange(b"\x90\x03\xff\x03\x00")
    assert bench.client.is_online()


def test_unsubscribe_ends_the_callbacks_after_unsuback():
    """[MQTT-2.3.1-1] [MQTT-3.10.1-1]"""
    bench = Bench(reconnect_min_ms=0).go_online()
    seen = []
    bench.client.subscribe("a", lambda client, message: seen.append(message.payload))
    bench.steps()
    bench.exchange(b"\x90\x03\xff\x01\x00")
    token = bench.client.unsubscribe("a")
    assert bench.exchange(b"\x30\x04\x00\x01a1") == b"\xa2\x05\xff\x02\x00\x01a"
    assert seen == [b"1"], "until UNSUBACK the server may still send"
    assert not bench.client.is_done(token)
    bench.exchange(b"\xb0\x02\xff\x02")
    assert bench.client.is_done(token)
    bench.take_events()
    bench.exchange(b"\x30\x04\x00\x01a2")
    assert seen == [b"1"] and bench.take_events() == [("message", "a", b"2", 0)]
    bench.server.error = ECONNRESET
    bench.steps()
    bench.go_online()
    assert bench.server.received() == b"", "it is not subscribed again"


def test_unsubscribe_unanswered_when_the_connection_breaks():
    for session_present, connack, expected in (
        (True, CONNACK_SESSION, b"\xa2\x05\xff\x03\x00\x01a"),
        (False, CONNACK, b""),
    ):
        bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
        bench.client.subscribe("a")
        bench.steps()
        bench.exchange(b"\x90\x03\xff\x01\x00")
        token = bench.client.unsubscribe("a")
        bench.steps()
        bench.server.error = ECONNRESET
        bench.steps()
        bench.server.received()
        assert bench.exchange(connack) == expected, session_present
        if session_present:
            bench.exchange(b"\xb0\x02\xff\x03")
        assert bench.client.is_done(token) and bench.client.is_online()
        assert bench.client._filters.rows == []


def test_what_was_taken_back_is_not_asked_for_again_before_its_unsubscribe():
    """A refused filter is, and a granted one after an attempt that got no CONNACK."""
    for code, attempts in ((0x80, 0), (0x80, 1), (0x00, 1)):
        bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
        seen = []
        bench.client.subscribe("a", lambda c, m, seen=seen: seen.append(m.payload))
        bench.steps()
        bench.exchange(bytes((0x90, 3, 0xFF, 1, code)))
        for _ in range(1 + attempts):
            bench.server.error = ECONNRESET
            bench.steps()
        token = bench.client.unsubscribe("a")
        bench.steps()
        bench.server.received()
        bench.take_events()
        wire = bench.exchange(CONNACK_SESSION)
        assert wire == b"\xa2\x05\xff\x02\x00\x01a", (code, attempts, wire)
        bench.exchange(b"\x30\x04\x00\x01a1")
        assert seen == [b"1"], "until UNSUBACK the server may still send"
        bench.exchange(b"\xb0\x02\xff\x02")
        assert bench.client.is_done(token) and bench.client._filters.rows == []
        assert [event[0] for event in bench.take_events()] == ["connect", "online"]


def test_a_second_subscribe_to_a_filter_takes_the_place_of_the_first():
    bench = Bench().go_online()
    seen = []
    first = bench.client.subscribe("a", lambda client, message: seen.append(1))
    second = bench.client.subscribe("a", lambda client, message: seen.append(2), qos=1)
    bench.steps()
    assert bench.server.received() == (
        b"\x82\x06\xff\x01\x00\x01a\x00\x82\x06\xff\x02\x00\x01a\x01"
    )
    bench.exchange(b"\x90\x03\xff\x01\x00", b"\x90\x03\xff\x02\x01")
    assert bench.take_events() == [("subscribed", first, b"\x00"), ("subscribed", second, b"\x01")]
    bench.exchange(b"\x30\x04\x00\x01ax")
    assert seen == [2]


def test_subscribe_unsubscribe_and_subscribe_again_leave_the_last_word():
    bench = Bench(reconnect_min_ms=0).go_online()
    seen = []
    bench.client.subscribe("a", lambda client, message: seen.append(1))
    bench.client.unsubscribe("a")
    bench.client.subscribe("a", lambda client, message: seen.append(2))
    bench.steps()
    assert bench.server.received() == (
        b"\x82\x06\xff\x01\x00\x01a\x00\xa2\x05\xff\x02\x00\x01a\x82\x06\xff\x03\x00\x01a\x00"
    )
    bench.exchange(b"\x90\x03\xff\x01\x00", b"\xb0\x02\xff\x02", b"\x90\x03\xff\x03\x00")
    bench.exchange(b"\x30\x04\x00\x01ax")
    assert seen == [2] and len(bench.client._filters.rows) == 1
    bench.server.error = ECONNRESET
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == b"\x82\x06\xff\x04\x00\x01a\x00", "once, not twice"


def test_rows_that_others_have_replaced_are_gone_when_all_have_their_answers():
    bench = Bench().go_online()
    for _ in range(3):
        for n in range(5):
            bench.client.subscribe("f/%d" % n)
    for n in range(4):
        bench.client.unsubscribe("f/%d" % n)
    serve(bench)
    assert [row[0] for row in bench.client._filters.rows] == [b"f/4"]
