"""Statements of the specification about messages and filters that no other test has.

The tags in a docstring say which; `python3 tools/list_spec_coverage.py` prints the table of all.
"""

import board_heap  # noqa: F401
from fakes import (
    CONNACK,
    CONNACK_SESSION,
    ECONNRESET,
    Bench,
    needs,
)

import mqttpipe

LocalError = mqttpipe.LocalError


def cut(bench):
    """The connection is lost; returns the CONNECT of the next one."""
    bench.server.error = ECONNRESET
    bench.steps()
    return bench.server.received()


# -- PUBLISH and its answers (3.3, 4.3 to 4.6) ------------------------------------


def test_the_answer_is_that_of_the_quality_of_service():
    """[MQTT-3.3.4-1] [MQTT-4.5.0-2]: whether or not anybody takes the message."""
    needs("qos2")
    for on_message in (None, lambda client, message: None):
        bench = Bench().go_online()
        bench.client.on_message = on_message
        assert bench.exchange(b"\x30\x03\x00\x01t") == b""
        assert bench.exchange(b"\x32\x05\x00\x01t\x12\x34") == b"\x40\x02\x12\x34"
        assert bench.exchange(b"\x34\x05\x00\x01t\x12\x34") == b"\x50\x02\x12\x34"


def test_after_puback_the_identifier_is_that_of_a_new_message():
    """[MQTT-4.3.2-2]: whatever its DUP says."""
    bench = Bench().go_online()
    for first_byte in (0x32, 0x3A, 0x32):
        wire = bytes((first_byte,)) + b"\x06\x00\x01t\x00\x07x"
        assert bench.exchange(wire) == b"\x40\x02\x00\x07"
        assert bench.take_events() == [("message", "t", b"x", 1)], first_byte


def test_publish_is_not_sent_again_once_pubrel_was():
    """[MQTT-4.3.3-1]: through any number of connections."""
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    bench.client.publish("t", b"", qos=2)
    bench.steps()
    assert bench.server.received() == b"\x34\x05\x00\x01t\x00\x01"
    assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x02\x00\x01"
    for _ in range(3):
        cut(bench)
        assert bench.exchange(CONNACK_SESSION) == b"\x62\x02\x00\x01"
    assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x02\x00\x01"
    bench.exchange(b"\x70\x02\x00\x01")
    cut(bench)
    assert bench.exchange(CONNACK_SESSION) == b""


def test_an_answer_that_is_older_than_the_connection_is_taken():
    """[MQTT-4.3.2-1] [MQTT-4.3.3-1]: a server may owe it from the connection before."""
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    token = bench.client.publish("t", b"1", qos=1)
    bench.client.publish("t", b"2", qos=2)
    bench.steps()
    cut(bench)
    bench.take_events()
    # All in one read: before PUBLISH can be sent again.
    sent = bench.exchange(CONNACK_SESSION + b"\x40\x02\x00\x01\x50\x02\x00\x02")
    assert bench.client.is_online() and ("published", token) in bench.take_events()
    assert b"\x62\x02\x00\x02" in sent and b"\x3c\x06" not in sent, sent
    assert b"\x3a\x06" not in sent, sent


def test_nothing_is_sent_again_within_a_connection():
    """[MQTT-4.4.0-1]: and no acknowledgement is waited for in vain."""
    bench = Bench(keep_alive_s=0, connect_timeout_ms=5000).go_online()
    bench.client.publish("t", b"", qos=1)
    bench.steps()
    bench.server.received()
    for _ in range(5):
        assert bench.client.is_online() and bench.server.received() == b""
        bench.clock.advance(1000)
        bench.steps()
    assert bench.error().stage == "ACK"


def test_what_was_never_sent_can_not_be_acknowledged():
    """[MQTT-4.3.2-1] [MQTT-4.3.3-1]: a server that guesses identifiers breaks nothing."""
    needs("qos2")
    for qos, wire in ((1, b"\x40\x02\x00\x02"), (2, b"\x50\x02\x00\x02\x70\x02\x00\x02")):
        bench = Bench(packet_bytes_max=64, reconnect_min_ms=0).go_online()
        bench.server.write_credit = 0
        tokens = [bench.client.publish("t", b"x" * 45, qos=qos) for _ in range(2)]
        bench.steps()
        bench.exchange(wire)
        bench.server.write_credit = 1 << 20
        bench.steps()
        sent = bench.server.received()
        # Either it is let pass and the message leaves, or the connection is closed.
        assert sent.count(b"x" * 45) == 2 or len(bench.network.connections) == 2
        assert not bench.client.is_done(tokens[1]), qos


def test_acknowledgements_leave_in_the_order_of_the_messages():
    """[MQTT-4.6.0-2, -3]"""
    needs("qos2")
    bench = Bench().go_online()
    assert (
        bench.exchange(
            b"\x32\x05\x00\x01t\x00\x05",
            b"\x34\x05\x00\x01t\x00\x08",
            b"\x32\x05\x00\x01t\x00\x03",
            b"\x34\x05\x00\x01t\x00\x02",
            b"\x32\x05\x00\x01t\x00\x09",
        )
        == b"\x40\x02\x00\x05\x50\x02\x00\x08\x40\x02\x00\x03\x50\x02\x00\x02\x40\x02\x00\x09"
    )


def test_pubrels_leave_in_the_order_of_the_pubrecs():
    """[MQTT-4.6.0-4]"""
    needs("qos2")
    bench = Bench().go_online()
    for _ in range(3):
        bench.client.publish("t", b"", qos=2)
    bench.steps()
    bench.server.received()
    assert bench.exchange(b"\x50\x02\x00\x03\x50\x02\x00\x01\x50\x02\x00\x02") == (
        b"\x62\x02\x00\x03\x62\x02\x00\x01\x62\x02\x00\x02"
    )


def test_pubrels_sent_again_keep_the_order_of_the_pubrecs():
    """[MQTT-4.6.0-4]"""
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    for _ in range(3):
        bench.client.publish("t", b"", qos=2)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x03\x50\x02\x00\x01\x50\x02\x00\x02")
    cut(bench)
    assert bench.exchange(CONNACK_SESSION) == b"\x62\x02\x00\x03\x62\x02\x00\x01\x62\x02\x00\x02"


# -- SUBSCRIBE and UNSUBSCRIBE (3.8, 3.10) -------------------------------------


def test_each_filter_has_a_packet_of_its_own():
    """[MQTT-3.8.3-1] [MQTT-3.10.3-1]: AWS IoT closes at more than eight in one."""
    bench = Bench().go_online()
    for topic_filter in ("a", "b/c"):
        bench.client.subscribe(topic_filter, qos=1)
    bench.steps()
    assert bench.server.received() == (
        b"\x82\x06\xff\x01\x00\x01a\x01\x82\x08\xff\x02\x00\x03b/c\x01"
    )
    bench.exchange(b"\x90\x03\xff\x01\x01\x90\x03\xff\x02\x01")
    for topic_filter in ("a", "b/c"):
        bench.client.unsubscribe(topic_filter)
    bench.steps()
    assert bench.server.received() == b"\xa2\x05\xff\x03\x00\x01a\xa2\x07\xff\x04\x00\x03b/c"


def test_without_a_filter_there_is_no_subscribe_and_no_unsubscribe():
    """[MQTT-3.8.3-3] [MQTT-3.10.3-2]"""
    bench = Bench(reconnect_min_ms=0)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == b"" and bench.client.is_online()
    bench.client.subscribe("a")
    bench.steps()
    bench.exchange(b"\x90\x03\xff\x01\x00")
    bench.client.unsubscribe("a")
    bench.steps()
    bench.exchange(b"\xb0\x02\xff\x02")
    cut(bench)
    assert bench.exchange(CONNACK) == b"" and bench.client.is_online()
