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
    if not has_memory(100_000):
        raise SkipTest("needs more than a board's memory")
    bench = Bench(keep_alive_s=0, packet_bytes_max=128).go_online()
    for i in range(300):
        bench.client.subscribe("f/%03d" % i)
    bench.steps()
    ids = check_subscribes(bench.server.received(), range(255))
    assert bench.exchange(b"\x90\x03" + ids[6] + b"\x00") == (
        b"\x82\x0a" + ids[6] + b"\x00\x05f/255\x00"
    ), "the only one that is free"
    for packet_id in ids:
        bench.server.send(b"\x90\x03" + packet_id + b"\x00")
    bench.steps()
    for packet_id in check_subscribes(bench.server.received(), range(256, 300)):
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


def test_a_retained_message_before_its_suback_is_delivered():
    bench = Bench().go_online()
    bench.client.subscribe("a")
    bench.steps()
    bench.exchange(b"\x31\x04\x00\x01ax", b"\x90\x03\xff\x01\x00")
    assert [event[0] for event in bench.take_events()] == ["message", "subscribed"]


def test_overlapping_filters_each_get_the_message_and_the_default_only_the_rest():
    bench = Bench().go_online()
    seen = []
    for topic_filter in ("a/#", "a/+", "b", "+/b"):
        bench.client.subscribe(topic_filter, lambda c, m, name=topic_filter: seen.append(name))
    bench.client.subscribe("c")  # no callback of its own
    bench.steps()
    bench.exchange(b"\x30\x05\x00\x03a/b", b"\x30\x03\x00\x01c", b"\x30\x03\x00\x01d")
    assert seen == ["a/#", "a/+", "+/b"]
    assert [event[1] for event in bench.take_events()] == ["c", "d"]


def test_suback_that_does_not_fit_the_question_closes_the_connection():
    """[MQTT-3.8.4-5] [MQTT-3.9.3-2] [MQTT-4.8.0-1]"""
    for wire in (
        b"\x90\x04\xff\x01\x00\x00",  # two codes for one filter
        b"\x90\x03\xff\x01\x03",  # reserved code
        b"\x90\x03\xff\x01\x81",
        b"\x90\x02\xff\x01",  # none
    ):
        bench = Bench().go_online()
        token = bench.client.subscribe("a")
        bench.steps()
        bench.exchange(wire)
        assert type(bench.error()) is mqttpipe.ServerError, wire
        assert len(bench.client._filters.rows) == 1 and not bench.client.is_done(token)


def test_suback_and_unsuback_that_nothing_waits_for_are_ignored_and_counted():
    """[MQTT-2.3.1-7] [MQTT-3.8.4-2]: it answers nothing, and changes nothing."""
    needs("stats")
    for wire in (
        b"\x90\x03\xff\x02\x00",  # another identifier
        b"\x90\x03\x00\x01\x00",  # of the range of messages
        b"\x90\x04\x12\x34\x07\x07",
        b"\xb0\x02\xff\x01",  # UNSUBACK for a SUBSCRIBE
    ):
        bench = Bench().go_online()
        token = bench.client.subscribe("a")
        bench.steps()
        bench.exchange(wire)
        assert bench.take_events() == [] and bench.client.is_online(), wire
        assert bench.client.stats["ignored"] == 1 and not bench.client.is_done(token), wire
        bench.exchange(b"\x90\x03\xff\x01\x00")
        assert bench.client.is_done(token)
        bench.exchange(b"\x90\x03\xff\x01\x80")  # once more
        assert bench.take_events() == [("subscribed", token, b"\x00")]
        assert not bench.client.was_refused(token) and bench.client.stats["ignored"] == 2
    bench = Bench().go_online()
    token = bench.client.unsubscribe("a")
    bench.steps()
    bench.exchange(b"\x90\x03\xff\x01\x00")  # SUBACK for an UNSUBSCRIBE
    assert not bench.client.is_done(token) and bench.client.stats["ignored"] == 1


def test_a_server_that_never_answers_subscribe_is_left():
    bench = Bench(connect_timeout_ms=5000)
    bench.client.subscribe("a")
    bench.client.connect()
    bench.steps()
    bench.exchange(CONNACK)
    bench.take_events()
    bench.clock.advance(5000)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "SUBACK"


# (filter, topic name, does it match?): the examples of section 4.7 and their corners.
MATCHES = (
    (b"sport/tennis/player1/#", b"sport/tennis/player1", True),
    (b"sport/tennis/player1/#", b"sport/tennis/player1/ranking", True),
    (b"sport/tennis/player1/#", b"sport/tennis/player1/score/wimbledon", True),
    (b"sport/tennis/player1/#", b"sport/tennis/player12", False),
    (b"sport/#", b"sport", True),
    (b"sport/#", b"sports", False),
    (b"#", b"anything/at/all", True),
    (b"#", b"/", True),
    (b"sport/tennis/+", b"sport/tennis/player1", True),
    (b"sport/tennis/+", b"sport/tennis/player1/ranking", False),
    (b"sport/tennis/+", b"sport/tennis/", True),
    (b"sport/+", b"sport", False),
    (b"sport/+", b"sport/", True),
    (b"+", b"a", True),
    (b"+", b"a/b", False),
    (b"+/+", b"/finance", True),
    (b"/+", b"/finance", True),
    (b"+", b"/finance", False),
    (b"+/tennis/#", b"sport/tennis", True),
    (b"+/tennis/#", b"sport/tennis/a/b", True),
    (b"a/+/c", b"a/b/c", True),
    (b"a/+/c", b"a//c", True),
    (b"a/+/c", b"a/b/d", False),
    (b"a/+/c", b"a/b/c/d", False),
    (b"a//b", b"a//b", True),
    (b"a//b", b"a/b", False),
    (b"a", b"ab", False),
    (b"ab", b"a", False),
    (b"a/b", b"a", False),
    (b"A", b"a", False),
    (b"#", b"$SYS/x", False),
    (b"+/x", b"$SYS/x", False),
    (b"$SYS/#", b"$SYS/x", True),
    (b"$SYS/+", b"$SYS/x", True),
    (b"$SYS/x", b"$SYS/x", True),
    (b"/", b"/", True),
    (b"+/+", b"/", True),
    (b"+/#", b"a", True),
)


def test_matching_follows_section_4_7():
    """[MQTT-4.7.2-1] [MQTT-4.7.3-4]"""
    for topic_filter, topic_name, expected in MATCHES:
        buf = bytearray(b"??" + topic_name + b"/tail")
        end = 2 + len(topic_name)
        assert mqttpipe.topic_matches(topic_filter, buf, 2, end) is expected, (
            topic_filter,
            topic_name,
        )


def test_a_token_once_done_stays_done_when_all_is_subscribed_again():
    bench = Bench(reconnect_min_ms=0).go_online()
    token = bench.client.subscribe("a")
    bench.steps()
    bench.exchange(b"\x90\x03\xff\x01\x00")
    for packet_id, return_code in ((2, 0), (3, 0x80), (4, 0)):
        bench.take_events()
        bench.server.error = ECONNRESET
        bench.steps()
        bench.server.received()
        bench.exchange(CONNACK)
        assert bench.client.is_done(token)
        bench.exchange(bytes((0x90, 3, 0xFF, packet_id, return_code)))
        told = [event for event in bench.take_events() if event[0] == "subscribed"]
        # A refusal of what was granted before is news; that it is granted again is not.
        assert told == ([("subscribed", token, b"\x80")] if return_code else []), packet_id
        assert bench.client.is_online() and bench.client.is_done(token)
        assert bench.client.was_refused(token) is bool(return_code)


def test_a_suback_that_is_wrong_in_one_place_changes_nothing():
    bench = Bench(reconnect_min_ms=0).go_online()
    tokens = [bench.client.subscribe(name) for name in ("a", "b")]
    bench.steps()
    bench.exchange(b"\x90\x04\xff\x01\x00\x07")
    assert not any(bench.client.is_done(token) for token in tokens)
