"""MQTT 5.0: messages that leave: properties, expiry, what the server can take, what it answers."""

from fakes import CONNACK as CONNACK_4
from fakes import ECONNRESET, Bench, lose, needs, raises
from mqtt5 import CONNACK_SESSION, connack, online

import mqttpipe


def sent(bench, *arguments, **options):
    bench.client.publish(*arguments, **options)
    bench.steps()
    return bench.server.received()


def test_a_message_without_properties_at_each_qos():
    """[MQTT5-2.2.1-2, -3] [MQTT5-2.2.2-1] [MQTT5-3.3.1-2, -4] [MQTT5-3.3.2-1] [MQTT5-4.3.1-1]

    [MQTT5-4.3.2-1, -2] [MQTT5-4.3.3-1, -2]
    """
    bench = online()
    assert sent(bench, "t", "x") == b"\x30\x05\x00\x01t\x00x"
    assert sent(bench, "t", "x", 1) == b"\x32\x07\x00\x01t\x00\x02\x00x"
    assert sent(bench, "t", "x", retain=True) == b"\x31\x05\x00\x01t\x00x"
    assert sent(bench, "t", b"y" * 200) == b"\x30\xcc\x01\x00\x01t\x00" + b"y" * 200
    assert sent(bench, "longer", b"") == b"\x30\x09\x00\x06longer\x00"


def test_each_property_of_a_message():
    """[MQTT5-3.3.2-13, -14, -19] [MQTT5-3.3.4-6]"""
    for name, value, wire in (
        ("payload_format_indicator", 1, b"\x01\x01"),
        ("content_type", "a", b"\x03\x00\x01a"),
        ("response_topic", "r", b"\x08\x00\x01r"),
        ("correlation_data", b"\x00", b"\x09\x00\x01\x00"),
        (
            "user_property",
            [("b", "1"), ("a", "2"), ("b", "1")],
            b"\x26\x00\x01b\x00\x011\x26\x00\x01a\x00\x012\x26\x00\x01b\x00\x011",
        ),
    ):
        bench = online()
        head = bytes((0x30, 5 + len(wire))) + b"\x00\x01t"
        assert (
            sent(bench, "t", "x", properties={name: value})
            == head + bytes((len(wire),)) + wire + b"x"
        )
        assert sent(bench, "t", "x", properties={}) == b"\x30\x05\x00\x01t\x00x"
    for properties in ({"topic_alias": 1}, {"subscription_identifier": 1}, [], "x"):
        raises(mqttpipe.LocalError, bench.client.publish, "t", "x", properties=properties)
    needs("mqtt5")
    bench = Bench().go_online(CONNACK_4)
    raises(mqttpipe.LocalError, bench.client.publish, "t", "x", properties={"content_type": "a"})
    assert sent(bench, "t", "x") == b"\x30\x04\x00\x01tx", "nothing is left behind"


def test_properties_that_are_long():
    bench = online()
    value = b"c" * 300
    wire = sent(bench, "t", "x", properties={"correlation_data": value})
    assert wire == b"\x30\xb5\x02\x00\x01t\xaf\x02\x09\x01\x2c" + value + b"x"
    for size, is_taken in ((1000, True), (1012, True), (1013, False)):
        properties = {"correlation_data": b"c" * size}
        if is_taken:
            wire = sent(bench, "t", "x", properties=properties)
            assert len(wire) == size + 12 and wire[-2:] == b"cx", len(wire)
        else:
            raises(mqttpipe.LocalError, bench.client.publish, "t", "x", properties=properties)


def test_a_message_says_how_long_it_is_still_of_use():
    """[MQTT5-4.3.3-7]"""
    needs("offline")
    bench = online()
    interval = {"message_expiry_interval": 10}
    assert (
        sent(bench, "t", "x", properties=interval) == b"\x30\x0a\x00\x01t\x05\x02\x00\x00\x00\x0ax"
    )
    assert interval == {"message_expiry_interval": 10}, "it is the caller's"
    assert sent(bench, "t", "x", expiry_s=10) == b"\x30\x0a\x00\x01t\x05\x02\x00\x00\x00\x0ax"
    bench.server.write_credit = 0
    bench.client.publish("t", b"0" * 1000)
    bench.steps()
    for s in (5, 7, 600_000):
        bench.client.publish("t", "x", properties={"message_expiry_interval": s})
    bench.client.publish("t", "x", properties={"message_expiry_interval": 0})
    bench.clock.advance(4999)
    bench.steps()
    bench.server.write_credit = 1 << 20
    bench.steps()
    wire = bench.server.received()
    head = b"\x30\x0a\x00\x01t\x05\x02"
    rests = (
        b"\x00\x00\x00\x01x",
        b"\x00\x00\x00\x03x",
        b"\x00\x09\x27\xc0x",
        b"\x00\x00\x00\x00x",
    )
    assert wire[-48:] == b"".join([head + rest for rest in rests]), wire[-48:]


def test_what_waits_longer_than_its_expiry_is_dropped():
    needs("offline")
    bench = online()
    dropped = []
    bench.client.on_dropped = lambda client, token: dropped.append(token)
    bench.server.error = ECONNRESET
    bench.steps()
    token = bench.client.publish("t", "x", properties={"message_expiry_interval": 2})
    bench.clock.advance(2000)
    bench.steps()
    assert dropped == [token] and bench.client.is_done(token)


def test_no_message_says_twice_how_long_it_is_of_use():
    """[5: 3.3.2.3.3] Neither where the interval is 0, nor where it is sent as it is."""
    needs("offline")
    bench = online()
    for s in (0, 2, 259_200, 259_201, 0xFFFFFFFF):
        interval = {"message_expiry_interval": s}
        publish = bench.client.publish
        error = raises(mqttpipe.LocalError, publish, "t", "x", expiry_s=2, properties=interval)
        assert "both expiry_s" in error, error
    assert bench.exchange() == b""


def test_the_rest_of_it_is_said_when_it_is_sent_again():
    """[MQTT5-3.3.1-1] [MQTT5-4.3.2-3] [MQTT5-4.4.0-1]"""
    needs("offline")
    bench = online(clean_session=False, session_expiry_s=100)
    wire = sent(
        bench, "topic", "x", 1, properties={"message_expiry_interval": 90, "content_type": "c"}
    )
    assert (
        wire
        == b"\x32\x14\x00\x05topic\x00\x01\x09\x02\x00\x00\x00\x5a\x03\x00\x01cx"[:12] + wire[12:]
    )
    assert wire[-10:] == b"\x02\x00\x00\x00\x5a\x03\x00\x01cx"
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    wire = bench.exchange(CONNACK_SESSION)
    assert wire[0] == 0x3A and wire[-10:] == b"\x02\x00\x00\x00\x1e\x03\x00\x01cx", wire


def test_what_was_sent_at_qos_2_does_not_expire():
    """[MQTT5-4.3.3-7]"""
    needs("qos2", "offline")
    for qos, again in ((1, b""), (2, b"\x3c\x0c\x00\x01t\x00\x01\x05\x02\x00\x00\x00\x01x")):
        bench = online(clean_session=False, session_expiry_s=100)
        bench.client.publish("t", "x", qos, expiry_s=5)
        bench.steps()
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        bench.server.received()
        assert bench.exchange(CONNACK_SESSION) == again, qos


def test_past_pubrec_a_session_that_is_lost_leaves_the_expiry():
    """[MQTT5-4.3.3-7]"""
    needs("qos2", "offline")
    bench = online(clean_session=False, session_expiry_s=100)
    bench.client.publish("t", "x", 2, expiry_s=90)
    bench.steps()
    for left in (b"\x1e", b""):
        bench.exchange(b"\x50\x02\x00\x01")
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        bench.server.received()
        again = b"\x34\x0c\x00\x01t\x00\x01\x05\x02\x00\x00\x00" + left + b"x"
        assert bench.exchange(connack()) == (again if left else b""), left
    assert bench.client.is_done(1)


# What the server answers -> is that message over, and how is it told?
FAILURES = (0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)


def fail(qos, packet):
    """A message at this QoS fails; returns (bench, error)."""
    bench = online(clean_session=False, session_expiry_s=60)
    bench.client.on_dropped = lambda client, token: bench.events.append(("dropped", token))
    bench.client.publish("t", "x", qos)
    bench.steps()
    bench.take_events()
    bench.server.received()
    assert bench.exchange(packet) == b"", "there is no answer"
    events = bench.take_events()
    assert [one[0] for one in events] == ["error", "dropped"], events
    error = events[0][1]
    assert events[1][1] == 1
    return bench, error


def test_a_failed_message_ends_and_the_connection_stays():
    """[MQTT5-4.4.0-2] [MQTT5-4.3.2-3] [MQTT5-4.3.3-3]"""
    needs("qos2", "offline")
    for qos, kind in ((1, 0x40), (2, 0x50)):
        for code in FAILURES:
            for tail in (b"", b"\x00", b"\x07\x1f\x00\x04full"):
                packet = bytes((kind, 3 + len(tail), 0, 1, code)) + tail
                bench, error = fail(qos, packet)
                assert type(error) is mqttpipe.Refused
                assert (error.token, error.reason_code) == (1, code)
                assert bench.client.is_done(1) and bench.client.is_online()
                if len(tail) > 1:
                    assert error.reason == "full" and error.properties == {"reason_string": "full"}
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK_SESSION) == b"", "it is not sent again"


def test_a_success_with_a_reason_code_is_one():
    """[MQTT5-4.3.3-4, -5, -6, -11] [MQTT5-2.2.1-5] [MQTT5-3.4.2-1] [MQTT5-3.6.1-1]"""
    needs("qos2")
    bench = online()
    for number, tail in enumerate((b"", b"\x00", b"\x10", b"\x10\x00", b"\x00\x04\x1f\x00\x01r")):
        bench.client.publish("t", "x", 1)
        bench.steps()
        bench.exchange(bytes((0x40, 2 + len(tail), 0, number + 1)) + tail)
        assert bench.take_events() == [("published", number + 1)], tail
    for tail in (b"", b"\x00", b"\x10", b"\x10\x00", b"\x00\x04\x1f\x00\x01r"):
        token = bench.client.publish("t", "x", 2)
        bench.steps()
        bench.server.received()
        assert bench.exchange(bytes((0x50, 2 + len(tail), 0, token)) + tail) == bytes(
            (0x62, 2, 0, token)
        )
        for end in (b"", b"\x92") if not tail else (tail.replace(b"\x10", b"\x00"),):
            bench.exchange(bytes((0x70, 2 + len(end), 0, token)) + end)
            assert bench.take_events() == ([("published", token)] if end != b"\x92" else [])


def test_a_pubcomp_that_knows_no_such_identifier_ends_it():
    needs("qos2")
    bench = online()
    bench.client.publish("t", "x", 2)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x01")
    bench.exchange(b"\x70\x03\x00\x01\x92")
    assert bench.take_events() == [("published", 1)]


def test_a_pubrec_for_nothing_is_told_so():
    """[MQTT5-3.6.2-1] [MQTT5-4.3.3-4]"""
    needs("qos2")
    bench = online()
    assert bench.exchange(b"\x50\x02\x00\x07") == b"\x62\x03\x00\x07\x92"
    assert bench.exchange(b"\x50\x03\x00\x07\x10") == b"\x62\x03\x00\x07\x92"
    assert bench.exchange(b"\x50\x03\x00\x07\x87") == b"", "the server has ended it itself"
    assert (
        bench.exchange(b"\x40\x03\x00\x07\x87\x40\x02\x00\x07") == b"" and bench.client.is_online()
    )


def test_no_more_are_in_flight_than_the_server_takes_or_we_want():
    """[MQTT5-3.3.4-7, -8] [MQTT5-4.9.0-1, -2, -3]"""
    for maximum, wanted, count in ((2, 8, 2), (9, 3, 3), (None, 8, 8)):
        bench = online(b"" if maximum is None else bytes((0x21, 0, maximum)), in_flight_max=wanted)
        for _ in range(12):
            bench.client.publish("t", "x", 1)
        bench.steps()
        assert len(bench.server.received()) == 9 * count, (maximum, wanted)
        bench.client.publish("t", "", 0)
        bench.client.subscribe("s")
        assert bench.exchange(b"\x30\x04\x00\x01i\x00") == b"\x82\x07\xff\x01\x00\x00\x01s\x00"
        wire = bench.exchange(b"\x40\x02\x00\x01\x40\x03\x00\x02\x97")
        assert len(wire) == 18, "one for each that has ended, if it has failed or not"


def test_a_pubrec_that_failed_makes_room_for_the_next():
    needs("qos2")
    bench = online(b"\x21\x00\x01")
    for _ in range(2):
        bench.client.publish("t", "x", 2)
    bench.steps()
    assert bench.server.received() == b"\x34\x07\x00\x01t\x00\x01\x00x"
    assert bench.exchange(b"\x50\x03\x00\x01\x97") == b"\x34\x07\x00\x01t\x00\x02\x00x"


def test_what_the_server_can_not_is_refused_at_the_call():
    """[MQTT5-3.2.2-11, -14, -15]"""
    needs("qos2")
    bench = online(b"\x24\x01\x25\x00\x27\x00\x00\x00\x40")
    client = bench.client
    for arguments in (("t", "x", 2), ("t", "x", 0, True), ("t", "x", 1, True), ("t", b"y" * 59)):
        raises(mqttpipe.LocalError, client.publish, *arguments)
    raises(mqttpipe.LocalError, client.subscribe, "t" * 60)
    client.publish("t", "x", 1)
    client.publish("t", b"y" * 58)
    bench.steps()
    wire = bench.server.received()
    assert wire[:9] == b"\x32\x07\x00\x01t\x00\x01\x00x" and len(wire) == 9 + 64
    bench = online(b"\x24\x00")
    raises(mqttpipe.LocalError, bench.client.publish, "t", "x", 1)
    raises(mqttpipe.LocalError, bench.client.publish, "t", "x", 2)


def test_what_was_queued_before_the_server_said_so_is_told_and_dropped():
    """[MQTT5-3.2.2-11, -14, -15]"""
    needs("mqtt5", "qos2", "offline")
    bench = Bench(protocol=5)
    client = bench.client
    client.on_dropped = lambda client, token: bench.events.append(("dropped", token))
    client.publish("t", "1", 2)
    client.publish("t", "2", retain=True)
    client.publish("t", b"3" * 58)
    client.publish("t", b"4" * 57)
    client.publish("t", "5", 1)
    client.connect()
    bench.steps()
    bench.server.received()
    wire = bench.exchange(connack(b"\x24\x01\x25\x00\x27\x00\x00\x00\x3f"))
    assert wire[-9:] == b"\x32\x07\x00\x01t\x00\x05\x005" and len(wire) == 63 + 9
    events = bench.take_events()
    codes = [(one[1].token, one[1].reason_code) for one in events if one[0] == "error"]
    assert codes == [(1, 0x9B), (2, 0x9A), (3, 0x95)], events
    assert [one[1] for one in events if one[0] == "dropped"] == [1, 2, 3]
    assert client.is_done(1) and client.is_done(2) and client.is_done(3)


def test_many_of_them_are_told_a_few_in_each_step():
    needs("mqtt5", "offline")
    bench = Bench(protocol=5, pipe_slots=64)
    client = bench.client
    for _ in range(60):
        client.publish("t", "x", 1)
    client.publish("t", "y")
    client.connect()
    bench.steps()
    bench.server.received()
    bench.take_events()
    bench.server.send(connack(b"\x24\x00"))
    told = []
    while len(told) < 60:
        assert client.step(), "it goes on by itself"
        events = [one for one in bench.take_events() if one[0] == "error"]
        assert len(events) <= 2 * 16, len(events)
        told += [(one[1].token, one[1].reason_code) for one in events]
    assert told == [(token, 0x9B) for token in range(1, 61)]
    bench.steps()
    assert bench.server.received() == b"\x30\x05\x00\x01t\x00y"


def test_each_error_comes_before_the_drop_of_its_message_however_many_there_are():
    needs("mqtt5", "offline")
    bench = Bench(protocol=5, pipe_slots=64)
    client = bench.client
    told = []
    client.on_error = lambda client, error: told.append(error.token)
    client.on_dropped = lambda client, token: told.append(-token)
    for _ in range(40):
        client.publish("t", "x", 1)
    bench.go_online(connack(b"\x24\x00"))
    assert sorted(told) == list(range(-40, 0)) + list(range(1, 41))
    for token in range(1, 41):
        assert told.index(token) < told.index(-token), told


def test_a_payload_is_what_its_format_indicator_says():
    """Sections 3.1.3.2.3 and 3.3.2.3.2. U+0000 is a character of a payload."""
    properties = {"payload_format_indicator": 1}
    bench = online()
    for wrong in (b"\xff", b"a\xc3", b"\xed\xa0\x80", bytearray(b"\xc0\x80"), memoryview(b"\x80")):
        raises(mqttpipe.LocalError, bench.client.publish, "t", wrong, properties=properties)
        will = "t", wrong, 0, False, properties
        raises(mqttpipe.LocalError, mqttpipe.MQTTClient, "mqtt://h", protocol=5, will=will)
    for right in ("a\0b", b"\0\xc3\xa4", b"", 3.5, memoryview(b"\xf0\x9f\x98\x80")):
        assert sent(bench, "t", right, properties=properties)[4:8] == b"t\x02\x01\x01", right
    assert sent(bench, "t", b"\xff", properties={"payload_format_indicator": 0})[-1:] == b"\xff"


def test_a_slow_on_error_hears_of_the_others_in_the_next_steps():
    """Also where the server says nothing more."""
    needs("mqtt5", "offline")
    bench = Bench(protocol=5)
    client = bench.client
    told = []

    def on_error(client, error):
        told.append(error.token)
        bench.clock.advance(100)

    client.on_error = on_error
    for _ in range(3):
        client.publish("t", "x", 1)
    client.connect()
    bench.steps()
    bench.server.send(connack(b"\x24\x00"))
    bench.steps()
    assert told == [1, 2, 3], told
    assert client.next_deadline_ms() != 0, "it never sleeps"


def test_what_begins_anew_past_pubrec_is_told_and_dropped_as_well():
    """[MQTT5-3.2.2-11, -14, -15] Only PUBREL was to follow, but that session is gone."""
    needs("qos2", "offline")
    for lacks, code in (
        (b"\x24\x01", 0x9B),
        (b"\x25\x00", 0x9A),
        (b"\x27\x00\x00\x00\x20", 0x95),
    ):
        bench = online(clean_session=False, session_expiry_s=60)
        bench.client.publish("t", "x" * 40, 2, True)
        bench.exchange()
        bench.exchange(b"\x50\x02\x00\x01")
        for session_present, sent in ((1, b"\x62\x02\x00\x01"), (0, b"")):
            lose(bench)
            assert bench.exchange(connack(lacks, session_present)) == sent, code
            errors = [one[1] for one in bench.take_events() if one[0] == "error"]
            told = [(error.token, error.reason_code) for error in errors]
            assert told == ([] if session_present else [(1, code)]), told
            assert bench.client.is_done(1) == (not session_present)


def test_the_next_server_may_take_what_the_last_one_did_not():
    bench = online(b"\x24\x00\x27\x00\x00\x00\x40\x21\x00\x01")
    raises(mqttpipe.LocalError, bench.client.publish, "t", "x", 1)
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.exchange(connack())
    bench.server.received()
    bench.client.publish("t", b"x" * 500, 1)
    bench.client.publish("t", "x", 1)
    bench.steps()
    assert len(bench.server.received()) == 509 + 9


def test_the_largest_message_of_each_kind_is_found_to_the_byte():
    """[MQTT5-3.2.2-15]"""
    needs("offline")
    for qos in (0, 1):
        for expiry_s in (None, 5):
            for properties in (None, {"content_type": "cc"}):
                for topic in ("t", "topic/long"):
                    bench = online(b"\x22\x00\x08\x27\x00\x00\x00\x50")
                    size = 80
                    while True:
                        try:
                            bench.client.publish(
                                topic, b"x" * size, qos, expiry_s=expiry_s, properties=properties
                            )
                            break
                        except mqttpipe.LocalError:
                            size -= 1
                    bench.steps()
                    wire = bench.server.received()
                    # An alias is given only where it fits.
                    assert 77 <= len(wire) <= 80 and wire[1] == len(wire) - 2, (len(wire), qos)


def test_a_server_that_has_a_message_that_is_sent_again_goes_on_with_it():
    """EMQX says so with 0x91, packet identifier in use."""
    needs("qos2", "offline")
    for is_again in (True, False):
        bench = online(clean_session=False, session_expiry_s=60)
        bench.client.on_dropped = lambda client, token, b=bench: b.events.append(("drop", token))
        bench.client.publish("t", "x", 2)
        bench.steps()
        if is_again:
            lose(bench)
            assert bench.exchange(CONNACK_SESSION) == b"\x3c\x07\x00\x01t\x00\x01\x00x"
        bench.take_events()
        bench.server.received()
        wire = bench.exchange(b"\x50\x03\x00\x01\x91")
        assert wire == (b"\x62\x02\x00\x01" if is_again else b""), (is_again, wire)
        bench.exchange(b"\x70\x02\x00\x01")
        ends = [event for event in bench.take_events() if event[0] != "error"]
        assert ends == [("published" if is_again else "drop", 1)]
    bench = online(clean_session=False, session_expiry_s=60)
    bench.client.publish("t", "x", 2)
    bench.steps()
    lose(bench)
    bench.exchange(connack())  # a new session: it has nothing of it
    bench.take_events()
    assert bench.exchange(b"\x50\x03\x00\x01\x91") == b""
