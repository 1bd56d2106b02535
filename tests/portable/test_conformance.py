"""Statements of the specification that no other test has for its subject.

The tags in a docstring say which; `python3 tools/list_spec_coverage.py` prints the table of all.
"""

import board_heap  # noqa: F401
from fakes import (
    CONNACK,
    CONNACK_SESSION,
    DISCONNECT,
    ECONNRESET,
    PINGREQ,
    PINGRESP,
    Bench,
    needs,
    raises,
)
from offences import check_closes, publish_of

import mqttpipe

LocalError = mqttpipe.LocalError


def cut(bench):
    """The connection is lost; returns the CONNECT of the next one."""
    bench.server.error = ECONNRESET
    bench.steps()
    return bench.server.received()


# -- topic names received (3.3.2, 4.7) ------------------------------------------


def test_a_topic_name_received_with_a_wildcard_is_passed_over_acknowledged_and_told():
    """[MQTT-3.3.2-2] [MQTT-4.7.1-1]: stream and session are whole, so the connection stays."""
    needs("qos2", "stats")
    for topic_name, first_byte, answer in (
        (b"#", 0x30, b""),
        (b"+", 0x32, b"\x40\x02\x12\x34"),
        (b"a/#", 0x34, b"\x50\x02\x12\x34"),
        (b"a/+/b", 0x31, b""),
        (b"a+b", 0x34, b"\x50\x02\x12\x34"),
    ):
        end = bytes((0, len(topic_name))) + topic_name
        bench = Bench().go_online()
        packet_id = b"\x12\x34" if answer else b""
        wire = bytes((first_byte, 2 + len(topic_name) + len(packet_id))) + end + packet_id
        assert bench.exchange(wire) == answer, wire
        ((name, error),) = bench.take_events()
        assert name == "error" and type(error) is mqttpipe.ServerError, wire
        assert "[MQTT-3.3.2-2]" in str(error) and topic_name.decode() in str(error), error
        if first_byte == 0x34:
            assert bench.exchange(b"\x62\x02\x12\x34") == b"\x70\x02\x12\x34"
        assert bench.exchange(wire, publish_of(b"t")) == answer
        assert bench.take_events() == [("message", "t", b"", 0)], "told once"
        stats = bench.client.stats
        assert (stats["ignored"], stats["received"]) == (2, 1) and bench.client.is_online()


def test_an_empty_topic_name_received_closes_the_connection():
    """[MQTT-4.7.3-1] [MQTT-4.8.0-1]"""
    check_closes(publish_of(b""))


# -- fixed header and packet identifier (2.2.2, 2.3.1) ---------------------------


def test_every_packet_sent_has_the_flags_of_table_2_2():
    """[MQTT-2.2.2-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]"""
    needs("qos2")
    bench = Bench(keep_alive_s=10)
    client = bench.client
    client.connect()
    bench.steps()
    sent = [bench.server.received()[:1]]  # CONNECT
    bench.exchange(CONNACK)
    for call, wire in (
        (lambda: client.subscribe("a"), b"\x90\x03\xff\x01\x00"),
        (lambda: client.unsubscribe("a"), b"\xb0\x02\xff\x02"),
        (lambda: client.publish("t", b"", qos=2), b"\x50\x02\x00\x03\x70\x02\x00\x03"),  # PUBREL
        (lambda: bench.clock.advance(10_000), PINGRESP),
        (lambda: bench.server.send(b"\x32\x05\x00\x01t\x00\x07"), b""),
        (lambda: bench.server.send(b"\x34\x05\x00\x01t\x00\x08"), b"\x62\x02\x00\x08"),
    ):
        call()
        bench.steps()
        sent.append(bench.server.received()[:1])
        sent.append(bench.exchange(wire)[:1])
    client.disconnect()
    bench.steps()
    sent.append(bench.server.received())
    assert b"".join(sent) == b"\x10\x82\xa2\x34\x62\xc0\x40\x50\x70" + DISCONNECT


def test_a_packet_received_with_other_flags_closes_the_connection():
    """[MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-4.8.0-1]"""
    for wire in (
        b"\x41\x02\x00\x01",
        b"\x52\x02\x00\x01",
        b"\x60\x02\x00\x01",  # PUBREL without its flag
        b"\x63\x02\x00\x01",
        b"\x74\x02\x00\x01",
        b"\x98\x03\x00\x01\x00",
        b"\xb2\x02\x00\x01",
        b"\xd1\x00",
    ):
        check_closes(wire)


def test_dup_at_qos_0_is_passed_over():
    """[MQTT-3.3.1-2]: brokers pass it on; it means nothing there."""
    needs("stats")
    bench = Bench().go_online()
    seen = []
    bench.client.on_message = lambda client, message: seen.append((message.qos, message.dup))
    bench.exchange(publish_of(b"t", 0x38), publish_of(b"t", 0x39))
    assert seen == [(0, False), (0, False)] and bench.client.is_online()
    assert bench.take_events() == [] and bench.client.stats["duplicates_received"] == 0


def test_a_second_connack_with_a_code_is_a_refusal():
    """[MQTT-4.8.0-1]: it says why the server closes; without a code it breaks the protocol."""
    bench = Bench().go_online()
    bench.exchange(b"\x20\x02\x00\x05")
    error = bench.error()
    assert type(error) is mqttpipe.Refused and error.return_code == 5, error
    assert bench.server.is_closed and bench.client.state_name == "WAITING"


def test_an_acknowledgement_of_identifier_0_closes_the_connection():
    """[MQTT-2.3.1-6] [MQTT-4.8.0-1]: no packet that it could belong to has this identifier."""
    for first_byte in (0x40, 0x50, 0x62, 0x70, 0xB0):
        check_closes(bytes((first_byte, 2, 0, 0)))
    check_closes(b"\x90\x03\x00\x00\x00")


def test_publish_subscribe_and_unsubscribe_never_have_the_same_identifier():
    """[MQTT-2.3.1-1, -2]: never 0, never one in use, freed by its own acknowledgement."""
    needs("qos2")
    bench = Bench().go_online()
    client = bench.client
    client._pipe.last_token = 65277
    client._filters.last_id = 253
    client.subscribe("a")
    client.publish("t", b"", qos=1)
    client.subscribe("b")
    bench.steps()
    assert bench.server.received() == (
        b"\x82\x06\xff\xfe\x00\x01a\x00\x82\x06\xff\xff\x00\x01b\x00\x32\x05\x00\x01t\xfe\xff"
    )
    client.publish("t", b"", qos=2)
    client._filters.last_id = 253
    client.unsubscribe("a")
    bench.steps()
    assert bench.server.received() == b""  # in use
    assert bench.exchange(b"\x90\x03\xff\xfe\x00") == (
        b"\xa2\x05\xff\xfe\x00\x01a\x34\x05\x00\x01t\x00\x02"
    )
    client._filters.last_id = 253
    bench.exchange(b"\xb0\x02\xff\xfe")
    client.unsubscribe("b")
    bench.steps()
    assert bench.server.received() == b"\xa2\x05\xff\xfe\x00\x01b"
    client._pipe.last_token = 65277 + 65279
    client.publish("t", b"", qos=1)  # a filter's tokens may make two messages meet
    assert bench.exchange() == b"\x32\x05\x00\x01t\xfe\xfe"


# -- CONNECT and the session (3.1, 4.1) --------------------------------------------


def test_nothing_leaves_before_connect():
    """[MQTT-3.1.0-1]: nor, with us, before CONNACK."""
    needs("qos2")
    connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"
    bench = Bench(reconnect_min_ms=0)
    client = bench.client
    client.subscribe("a")
    for qos in (0, 1, 2):
        client.publish("t", b"", qos=qos)
    client.connect()
    bench.steps()
    assert bench.server.received() == connect
    bench.exchange(CONNACK)
    bench.exchange(b"\x90\x03\xff\x01\x00")
    assert client.is_online()
    client.publish("t", b"")
    assert cut(bench) == connect, "with messages in flight and in the pipe"


def test_connect_has_the_will_just_as_the_flags_say():
    """[MQTT-3.1.2-9, -11, -13, -14, -15]"""
    needs("qos2")
    for qos, retain, flags in (
        (0, False, 0x06),
        (0, True, 0x26),
        (1, False, 0x0E),
        (1, True, 0x2E),
        (2, False, 0x16),
        (2, True, 0x36),
    ):
        bench = Bench(will=("w", "x", qos, retain))
        bench.client.connect()
        bench.steps()
        assert bench.server.received() == (
            b"\x10\x13\x00\x04MQTT\x04%s\x00\x3c\x00\x01c\x00\x01w\x00\x01x" % bytes((flags,))
        ), (qos, retain)
    raises(LocalError, Bench, will=("w", "x", 3, False))
    bench = Bench()
    bench.client.connect()
    bench.steps()
    assert bench.server.received() == b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"


def test_a_session_is_known_by_one_client_id_through_all_connections():
    """[MQTT-3.1.3-2, -3]"""
    bench = Bench(client_id=None, clean_session=False, reconnect_min_ms=0)
    bench.client.connect()
    bench.steps()
    first = bench.server.received()
    assert first[14:] == bench.client.client_id and len(first) > 14
    bench.exchange(CONNACK)
    assert cut(bench) == first


def test_a_session_outlives_disconnect():
    """[MQTT-3.1.2-4] [MQTT-4.1.0-1]: what is in flight both ways is taken up again."""
    needs("qos2")
    bench = Bench(clean_session=False, connect_timeout_ms=5000).go_online()
    client = bench.client
    client.publish("t", b"1", qos=1)
    client.publish("t", b"2", qos=2)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x02", b"\x34\x06\x00\x01t\x12\x343")
    client.disconnect()
    bench.steps()
    bench.clock.advance(5000)
    bench.steps()
    assert client.state_name == "DOWN"
    bench.clock.advance(100_000)
    client.connect()
    bench.steps()
    bench.server.received()
    bench.take_events()
    assert bench.exchange(CONNACK_SESSION) == b"\x62\x02\x00\x02\x3a\x06\x00\x01t\x00\x011"
    assert bench.exchange(b"\x3c\x06\x00\x01t\x12\x343") == b"\x50\x02\x12\x34"
    assert bench.take_events() == [("connect", True), ("online",)], "it was delivered before"
    assert bench.exchange(b"\x62\x02\x12\x34") == b"\x70\x02\x12\x34"


def test_a_clean_session_takes_nothing_over():
    """[MQTT-3.1.2-6]"""
    needs("qos2")
    bench = Bench(reconnect_min_ms=0).go_online()
    publish = b"\x34\x06\x00\x01t\x12\x34x"
    bench.exchange(publish)
    bench.client.publish("t", b"1", qos=2)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x01")
    cut(bench)
    bench.take_events()
    assert bench.exchange(CONNACK) == b"\x34\x06\x00\x01t\x00\x011", "a new message: no DUP"
    assert bench.exchange(publish) == b"\x50\x02\x12\x34"
    assert bench.take_events()[-1] == ("message", "t", b"x", 2)


def test_a_session_lasts_as_long_as_its_connection():
    """[MQTT-4.1.0-2]"""
    needs("qos2")
    bench = Bench(keep_alive_s=3600).go_online()
    bench.exchange(b"\x34\x06\x00\x01t\x12\x34x")
    assert len(bench.take_events()) == 1
    for _ in range(200):  # more than eight days
        bench.clock.advance(3_600_000)
        bench.steps()
        assert bench.server.received() == PINGREQ
        bench.exchange(PINGRESP)
    assert bench.exchange(b"\x3c\x06\x00\x01t\x12\x34x") == b"\x50\x02\x12\x34"
    assert bench.take_events() == []


# -- the end of a connection (3.14, 4.8) --------------------------------------


def test_after_disconnect_nothing_more_is_sent_and_the_connection_is_closed():
    """[MQTT-3.14.4-1, -2]"""
    bench = Bench(keep_alive_s=10).go_online()
    bench.client.disconnect()
    bench.client.publish("t", b"before")
    bench.steps()
    assert bench.server.received() == b"\x30\x09\x00\x01tbefore" + DISCONNECT
    assert bench.server.is_closed
    bench.client.publish("t", b"after", qos=1)
    bench.clock.advance(60_000)
    bench.steps()
    assert bench.server.received() == b"" and len(bench.network.connections) == 1


def test_a_passing_failure_while_a_packet_is_dealt_with_closes_the_connection():
    """[MQTT-4.8.0-2]: no memory for a message; it is not acknowledged, and comes again."""
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    callbacks = bench.client._filters.callbacks

    def fail(*arguments):
        raise MemoryError

    bench.client._filters.callbacks = fail
    bench.server.send(b"\x32\x06\x00\x01t\x00\x07x")
    bench.client.step()
    error = bench.error()
    assert type(error) is mqttpipe.TransportError and "memory" in str(error), error
    assert bench.server.is_closed and bench.server.received() == b""
    bench.client._filters.callbacks = callbacks
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK_SESSION, b"\x3a\x06\x00\x01t\x00\x07x") == b"\x40\x02\x00\x07"
    assert ("message", "t", b"x", 1) in bench.take_events()
