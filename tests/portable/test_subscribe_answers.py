"""Subscriptions, continued: matching, and what comes in answer (3.9, 3.11, 4.7)."""

from fakes import (
    CONNACK,
    CONNACK_SESSION,
    ECONNRESET,
    Bench,
    needs,
    reconnect,
)

import mqttpipe


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
    """[MQTT-3.8.4-5] [MQTT-4.8.0-1]"""
    for wire in (
        b"\x90\x04\xff\x01\x00\x00",  # two codes for one filter
        b"\x90\x02\xff\x01",  # none
    ):
        bench = Bench().go_online()
        token = bench.client.subscribe("a")
        bench.steps()
        bench.exchange(wire)
        assert type(bench.error()) is mqttpipe.ServerError, wire
        assert len(bench.client._filters.rows) == 1 and not bench.client.is_done(token)


def test_suback_with_a_reserved_code_is_a_refusal():
    """[MQTT-3.9.3-2]: servers send 8 (WSO2), or what MQTT 5.0 has (0x87)."""
    for code in (3, 8, 0x7F, 0x81, 0x87, 0xFF):
        bench = Bench().go_online()
        token = bench.client.subscribe("a")
        bench.steps()
        bench.exchange(b"\x90\x03\xff\x01" + bytes((code,)))
        assert bench.take_events() == [("subscribed", token, bytes((code,)))]
        assert bench.client.was_refused(token) and bench.client.is_online()


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


def test_suback_without_an_identifier_closes_the_connection_whatever_came_before():
    """[MQTT-4.8.0-1] Bytes of the packet before were taken for its identifier."""
    for before in (b"\x30\x04\x00\x01tx", b"\x62\x02\x12\x34", b"\x70\x02\xff\x09"):
        for wire in (b"\x90\x00", b"\x90\x01\xff"):
            bench = Bench().go_online()
            bench.exchange(before, wire)
            assert bench.server.is_closed, (before, wire)
            assert type(bench.take_events()[-1][1]) is mqttpipe.ServerError, (before, wire)


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
    (b"$SYS/broker/#", b"$SYS/broker/load", True),
    (b"/", b"/", True),
    (b"+/+", b"/", True),
    (b"+/#", b"a", True),
    (b"$share/g/", b"$SYS/x", False),  # nothing behind the group: looked beyond its end
    (b"$share//", b"$", False),
    (b"$share/g/", b"a", False),
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


def test_an_unsuback_that_came_while_another_thread_added_a_filter_is_not_forgotten():
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    bench.client.subscribe("a")
    bench.exchange(b"", b"\x90\x03\xff\x01\x00")
    bench.client.unsubscribe("a")
    bench.steps()
    assert bench.client._pipe._acquire(False)  # the other thread
    bench.exchange(b"\xb0\x02\xff\x02")
    bench.client._pipe.release_lock()
    bench.steps()
    assert reconnect(bench, CONNACK_SESSION) == b""


def test_a_message_behind_unsuback_is_not_for_the_callback_that_went():
    """In one step with the UNSUBACK, and of a topic name that was matched just before."""
    bench = Bench().go_online()
    heard = []
    message = b"\x30\x04\x00\x01tx"
    bench.client.subscribe("t", lambda client, message: heard.append("old"))
    bench.steps()
    bench.exchange(b"\x90\x03\xff\x01\x00", message)
    token = bench.client.unsubscribe("t")
    bench.steps()
    bench.take_events()
    bench.exchange(message + b"\xb0\x02\xff\x02" + message)
    assert bench.client.is_done(token) and heard == ["old", "old"], heard
    assert bench.take_events() == [("message", "t", b"x", 0)]


def test_a_callback_that_is_replaced_within_a_step_hears_no_more():
    bench = Bench().go_online()
    heard = []

    def old(client, message):
        heard.append("old")
        client.subscribe("t", lambda client, message: heard.append("new"))

    bench.client.subscribe("t", old)
    bench.steps()
    bench.exchange(b"\x90\x03\xff\x01\x00")
    bench.exchange(b"\x30\x04\x00\x01tx" * 3)
    assert heard == ["old", "new", "new"], heard


def test_a_granted_filter_is_told_where_there_is_no_memory_to_prune_the_table():
    bench = Bench().go_online()
    filters = bench.client._filters
    prune, failed = filters.prune, []

    def fail_once():
        if not failed:
            failed.append(1)
            raise MemoryError
        prune()

    token = bench.client.subscribe("a")
    bench.steps()
    filters.prune = fail_once
    bench.exchange(b"\x90\x03\xff\x01\x01")
    assert failed and bench.take_events() == [("subscribed", token, b"\x01")]
    assert bench.client.is_online() and bench.client.is_done(token)


class Interrupted:
    """A row of the table of filters: Ctrl-C comes when it is changed the first time."""

    def __init__(self, row):
        self.row = row
        self.is_over = False

    def __getitem__(self, at):
        return self.row[at]

    def __setitem__(self, at, value):
        if not self.is_over:
            self.is_over = True
            raise KeyboardInterrupt
        self.row[at] = value


def test_ctrl_c_while_unsuback_is_handled_brings_no_subscription_back():
    for connack in (CONNACK, CONNACK_SESSION):
        bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
        bench.client.subscribe("a")
        bench.steps()
        bench.server.received()
        bench.exchange(b"\x90\x03\xff\x01\x00")
        rows = bench.client._filters.rows
        rows[0] = Interrupted(rows[0])
        bench.client.unsubscribe("a")
        bench.steps()
        bench.server.received()
        bench.server.send(b"\xb0\x02\xff\x02")
        try:
            bench.steps()
            raise AssertionError("not interrupted")
        except KeyboardInterrupt:
            pass
        bench.steps()
        bench.server.received()
        # A session may still have it; a new one has nothing, and gets nothing.
        again = b"\xa2\x05\xff\x03\x00\x01a" if connack == CONNACK_SESSION else b""
        assert bench.exchange(connack) == again
