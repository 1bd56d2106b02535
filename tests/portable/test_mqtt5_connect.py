"""MQTT 5.0: CONNECT and CONNACK (sections 3.1, 3.2). Section numbers are those of 5.0."""

from fakes import ECONNRESET, PINGREQ, Bench, needs, raises
from mqtt5 import (
    ANNOUNCED,
    CONNACK,
    CONNACK_SESSION,
    asked,
    connack,
    online,
    refused,
    take_apart,
)

import mqttpipe


def test_the_smallest_connect():
    """[MQTT5-3.1.0-1] [MQTT5-3.1.2-1, -2, -4, -11, -13, -16, -18] [MQTT5-3.1.3-1, -2, -3, -4]"""
    wire = asked().server.received()
    assert wire[:14] == b"\x10\x19\x00\x04MQTT\x05\x02\x00\x3c\x0b\x21"[:13] + wire[13:14], wire
    flags, keep_alive_s, properties, payload = take_apart(wire)
    assert (flags, keep_alive_s, payload) == (0x02, 60, b"\x00\x01c")
    assert sorted(properties) == sorted(ANNOUNCED)


def test_everything_that_a_connect_may_have():
    """[MQTT5-3.1.2-9, -12, -17, -19] [MQTT5-3.1.3-1, -11, -12] [MQTT5-1.5.7-1]"""
    needs("qos2")
    bench = asked(
        packet_bytes_max=64,
        client_id="id",
        user="me",
        password=b"\xff",
        clean_session=False,
        session_expiry_s=0x01020304,
        will=("w", "x", 2, True, {"will_delay_interval": 7, "payload_format_indicator": True}),
        properties={
            "receive_maximum": 3,
            "topic_alias_maximum": 0,
            "request_response_information": 1,
            "request_problem_information": False,
            "user_property": [("a", "1"), ("a", "2"), ("", "")],
        },
    )
    flags, keep_alive_s, properties, payload = take_apart(bench.server.received())
    assert flags == 0xF4
    users = [one for one in properties if one[0] == 0x26]
    assert users == [b"\x26\x00\x01a\x00\x011", b"\x26\x00\x01a\x00\x012", b"\x26\x00\x00\x00\x00"]
    assert sorted(one for one in properties if one[0] != 0x26) == [
        b"\x11\x01\x02\x03\x04",
        b"\x17\x00",
        b"\x19\x01",
        b"\x21\x00\x03",
        b"\x22\x00\x00",
        b"\x27\x00\x00\x00\x40",
    ]
    assert payload[:3] == b"\x00\x02i" and payload[3:5] == b"d\x07"
    will = payload[5:12]
    assert will in (b"\x18\x00\x00\x00\x07\x01\x01", b"\x01\x01\x18\x00\x00\x00\x07")
    assert payload[12:] == b"\x00\x01w\x00\x01x\x00\x02me\x00\x01\xff"


def test_all_properties_of_a_will():
    for name, value, wire in (
        ("payload_format_indicator", 0, b"\x01\x00"),
        ("message_expiry_interval", 0xFFFFFFFF, b"\x02\xff\xff\xff\xff"),
        ("content_type", "a/b", b"\x03\x00\x03a/b"),
        ("response_topic", "r", b"\x08\x00\x01r"),
        ("correlation_data", b"\x00\xff", b"\x09\x00\x02\x00\xff"),
        ("will_delay_interval", 1, b"\x18\x00\x00\x00\x01"),
        ("user_property", [("k", "v")], b"\x26\x00\x01k\x00\x01v"),
    ):
        bench = asked(will=("w", b"", 0, False, {name: value}))
        payload = take_apart(bench.server.received())[3]
        assert payload == b"\x00\x01c" + bytes((len(wire),)) + wire + b"\x00\x01w\x00\x00", name


def test_a_will_without_properties_has_the_length_of_none():
    """[MQTT5-2.2.2-1]"""
    payload = take_apart(asked(will=("w", b"", 0, False)).server.received())[3]
    assert payload == b"\x00\x01c\x00\x00\x01w\x00\x00"


def test_a_password_needs_no_user_and_an_empty_client_id_no_clean_start():
    """[MQTT5-3.1.2-16, -19]"""
    bench = asked(client_id="", password="p", clean_session=False)
    flags, _, _, payload = take_apart(bench.server.received())
    assert (flags, payload) == (0x40, b"\x00\x00\x00\x01p")


def test_what_the_server_assigns_is_the_client_id_from_then_on():
    """[MQTT5-3.1.3-2]"""
    bench = asked(client_id="", session_expiry_s=9)
    bench.exchange(connack(b"\x12\x00\x03you"))
    assert bench.client.client_id == b"you"
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    flags, _, _, payload = take_apart(bench.server.received())
    assert (flags, payload) == (0, b"\x00\x03you")


def test_clean_start_is_that_of_the_first_connect_if_the_session_outlives_connections():
    """[MQTT5-3.1.2-4, -23] [MQTT5-3.2.2-2]"""
    for session_expiry_s, second in ((0, 0x02), (60, 0x00)):
        bench = asked(session_expiry_s=session_expiry_s)
        assert take_apart(bench.server.received())[0] == 0x02
        bench.exchange(CONNACK)
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        assert take_apart(bench.server.received())[0] == second
        bench.exchange(CONNACK)
        bench.client.disconnect()
        bench.steps()
        bench.client.connect()
        bench.steps()
        assert take_apart(bench.server.received())[0] == 0x02, "it was asked for anew"


def test_a_disconnect_that_connect_takes_back_does_not_begin_a_new_session():
    """Nothing has ended: neither an attempt, whose CONNECT has left, nor a connection."""
    bench = asked(session_expiry_s=60)
    bench.exchange(CONNACK)
    bench.client.disconnect()
    bench.client.connect()
    for is_online in (True, False):
        bench.steps()
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        assert take_apart(bench.server.received())[0] == 0x00, is_online
        bench.client.disconnect()
        bench.client.connect()
        bench.exchange(CONNACK_SESSION)
        assert bench.client.is_online()


def test_a_session_is_begun_anew_behind_a_disconnect_whenever_connect_is_called():
    """If it has come to that: a connection that breaks before goes on as it was."""
    for is_cut in (True, False):
        bench = asked(session_expiry_s=60)
        bench.exchange(CONNACK)
        bench.client.publish("t", b"x", 1)
        bench.steps()
        bench.client.disconnect()
        bench.steps()  # it waits for PUBACK
        bench.client.connect()
        bench.server.received()
        if is_cut:
            bench.server.error = ECONNRESET
        else:
            bench.server.send(b"\x40\x02\x00\x01")
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        flags = take_apart(bench.server.received())[0]
        assert flags == (0x00 if is_cut else 0x02), is_cut


def test_session_present_after_a_clean_start_closes_the_connection():
    """[MQTT5-3.2.2-4]"""
    error, answer = refused(asked(), CONNACK_SESSION)
    assert type(error) is mqttpipe.ServerError and answer == b"\xe0\x01\x82"
    bench = asked(clean_session=False)
    bench.exchange(CONNACK_SESSION)
    assert bench.take_events() == [("connect", True), ("online",)]


def test_a_session_that_the_server_lost_is_begun_anew():
    """[MQTT5-3.2.2-5]"""
    needs("qos2")
    bench = asked(clean_session=False, session_expiry_s=60)
    bench.exchange(CONNACK_SESSION)
    bench.server.received()
    bench.client.publish("t", "x", 1)
    bench.steps()
    assert bench.server.received() == b"\x32\x07\x00\x01t\x00\x01\x00x"
    bench.exchange(b"\x34\x07\x00\x01t\x00\x09\x00y")
    for answer, wire in (
        (CONNACK_SESSION, b"\x3a\x07\x00\x01t\x00\x01\x00x"),
        (CONNACK, b"\x32\x07\x00\x01t\x00\x01\x00x"),
    ):
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        bench.server.received()
        assert bench.exchange(answer) == wire, answer
    bench.take_events()
    bench.exchange(b"\x34\x07\x00\x01t\x00\x09\x00y")
    assert bench.take_events() == [("message", "t", b"y", 2)], "its identifier is forgotten"


def test_the_properties_of_connack_are_there_to_read():
    properties = {
        "session_expiry_interval": (b"\x11\x00\x00\x00\x05", 5),
        "receive_maximum": (b"\x21\x00\x02", 2),
        "maximum_qos": (b"\x24\x01", 1),
        "retain_available": (b"\x25\x00", 0),
        "maximum_packet_size": (b"\x27\x00\x01\x00\x00", 65536),
        "assigned_client_identifier": (b"\x12\x00\x02id", "id"),
        "topic_alias_maximum": (b"\x22\xff\xff", 65535),
        "reason_string": (b"\x1f\x00\x02ok", "ok"),
        "user_property": (b"\x26\x00\x01a\x00\x01b", [("a", "b")]),
        "wildcard_subscription_available": (b"\x28\x01", 1),
        "subscription_identifier_available": (b"\x29\x00", 0),
        "shared_subscription_available": (b"\x2a\x01", 1),
        "server_keep_alive": (b"\x13\x00\x0a", 10),
        "response_information": (b"\x1a\x00\x01r", "r"),
        "server_reference": (b"\x1c\x00\x01h", "h"),
    }
    for name in properties:
        wire, value = properties[name]
        bench = asked()
        bench.exchange(connack(wire))
        assert bench.client.is_online(), name
        assert bench.client.server_properties == {name: value}
    bench = asked()
    assert bench.client.server_properties == {}
    wires = [properties[name][0] for name in properties]
    bench.exchange(connack(b"".join(wires)))
    assert len(bench.client.server_properties) == len(properties)
    bench = asked()
    wire = connack(b"".join(wires))
    for i in range(len(wire)):
        assert not bench.client.is_online(), i
        bench.exchange(wire[i : i + 1])
    assert bench.client.is_online(), "byte by byte"


def test_the_keep_alive_of_the_server_counts_and_ours_is_asked_for_again():
    """[MQTT5-3.1.2-20, -21] [MQTT5-3.2.2-21]"""
    bench = online(b"\x13\x00\x0a", keep_alive_s=100)
    bench.clock.advance(9999)
    bench.steps()
    assert bench.server.received() == b""
    bench.clock.advance(1)
    bench.steps()
    assert bench.server.received() == PINGREQ
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    assert take_apart(bench.server.received())[1] == 100
    bench.exchange(CONNACK)
    assert bench.client.keep_alive_s == 100
    bench = online(b"\x13\x00\x00", keep_alive_s=1)
    bench.clock.advance(100_000_000)
    bench.steps()
    assert bench.server.received() == b"" and bench.client.is_online(), "off"


def test_a_keep_alive_that_the_application_changes_is_asked_for():
    for is_changed_online in (False, True):
        for answer in (b"", b"\x13\x00\x0a"):
            bench = online(answer, keep_alive_s=100)
            if is_changed_online:
                bench.client.keep_alive_s = 33
            bench.server.error = ECONNRESET
            bench.steps()
            bench.client.keep_alive_s = 33
            bench.clock.advance(60_000)
            bench.steps()
            assert take_apart(bench.server.received())[1] == 33, (is_changed_online, answer)


# Each reason code of CONNACK (table 3-1), in the words of the error.
REFUSALS = (
    (0x80, "unspecified error"),
    (0x81, "malformed packet"),
    (0x82, "protocol error"),
    (0x83, "implementation specific error"),
    (0x84, "unsupported protocol version"),
    (0x85, "client identifier not valid"),
    (0x86, "bad user name or password"),
    (0x87, "not authorized"),
    (0x88, "server unavailable"),
    (0x89, "server busy"),
    (0x8A, "banned"),
    (0x8C, "bad authentication method"),
    (0x90, "topic name invalid"),
    (0x95, "packet too large"),
    (0x97, "quota exceeded"),
    (0x99, "payload format invalid"),
    (0x9A, "retain not supported"),
    (0x9B, "QoS not supported"),
    (0x9C, "use another server"),
    (0x9D, "server moved"),
    (0x9F, "connection rate exceeded"),
    (0xFE, "reason code 0xfe"),  # it is no reason code, but a refusal all the same
)


def test_a_refusal_is_told_in_words_and_tried_again_later():
    """[MQTT5-4.13.2-1] [MQTT5-3.2.2-7]"""
    for code, words in REFUSALS:
        error, answer = refused(asked(), connack(reason_code=code))
        assert type(error) is mqttpipe.Refused and error.stage == "CONNACK", code
        assert error.reason_code == error.return_code == code
        assert error.reason == words and words in str(error), error
        assert error.properties == {} and answer == b""
    bench = asked()
    # Whatever it says, it is no other protocol.
    wire = connack(b"\x1f\x00\x0eillegal packet\x26\x00\x01a\x00\x01b", reason_code=0x87)
    error, _ = refused(bench, wire)
    assert type(error) is mqttpipe.Refused and str(error).endswith("(0x87): 'illegal packet'")
    assert error.reason == "illegal packet"
    assert error.properties == {"reason_string": "illegal packet", "user_property": [("a", "b")]}
    assert bench.client.state_name == "WAITING"


def test_no_refusal_controls_the_terminal_that_shows_it():
    said = b"\x1b[2J\xe2\x80\xae\n"  # clears it, writes from right to left, begins a line
    bench = asked()
    error, _ = refused(bench, connack(b"\x1f\x00\x08" + said, reason_code=0x87))
    assert all(" " <= one <= "~" for one in str(error)), repr(str(error))
    assert error.reason.encode() == said


def test_a_refusal_by_disconnect_in_place_of_connack_is_told_in_words():
    """[MQTT5-3.14.0-1] forbids it; servers do it."""
    for tail in (b"", b"\x00", b"\x05\x1f\x00\x02ok"):
        bench = asked()
        error, answer = refused(bench, bytes((0xE0, 1 + len(tail), 0x87)) + tail)
        assert type(error) is mqttpipe.Refused and error.stage == "CONNACK", error
        assert error.reason_code == 0x87 and "not authorized" in str(error), error
        assert answer == b"" and bench.client.state_name == "WAITING"


def test_a_server_that_knows_only_3_1_1_is_told_as_that():
    bench = asked()
    error, _ = refused(bench, b"\x20\x02\x00\x01")
    assert type(error) is mqttpipe.Refused and error.return_code == 1
    assert "protocol version" in str(error) and "leave protocol=5 out" in str(error), error
    error, answer = refused(asked(), b"\x20\x02\x00\x00")
    assert type(error) is mqttpipe.ServerError and answer == b"\xe0\x01\x81"


def test_a_connack_that_is_malformed_closes_the_connection_and_says_why():
    """[MQTT5-3.2.2-1] [MQTT5-4.13.1-1] [MQTT5-2.1.3-1]"""
    for wire, code in (
        (b"\x20\x03\x02\x00\x00", 0x81),  # reserved flag
        (b"\x20\x04\x00\x00\x00\x00", 0x81),  # more behind the properties
        (b"\x20\x04\x00\x00\x02\x00", 0x81),  # fewer
        (b"\x20\x05\x00\x00\x02\x21\x00", 0x81),  # half a property
        (b"\x20\x06\x00\x00\x03\x21\x00\x00", 0x82),  # receive maximum 0
        (b"\x20\x05\x00\x00\x02\x24\x02", 0x82),  # maximum QoS 2
        (b"\x20\x05\x00\x00\x02\x25\x02", 0x82),
        (b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x00", 0x82),  # maximum packet size 0
        (b"\x20\x07\x00\x00\x04\x25\x01\x25\x01", 0x82),  # twice
        (b"\x20\x08\x00\x00\x05\x18\x00\x00\x00\x01", 0x81),  # will delay: not for CONNACK
        (b"\x20\x05\x00\x00\x02\x7f\x00", 0x81),  # no such property
        (b"\x20\x07\x00\x00\x04\x15\x00\x01m", 0x82),  # a method that was not asked for
        (b"\x30\x04\x00\x01t\x00", 0x82),  # no CONNACK
        (b"\xd0\x00", 0x82),  # nor is that
    ):
        error, answer = refused(asked(), wire)
        assert type(error) is mqttpipe.ServerError, wire
        assert answer == b"\xe0\x01" + bytes((code,)), (wire, answer)


def test_a_second_connack_closes_the_connection():
    """[MQTT5-3.2.0-2]"""
    error, answer = refused(online(), CONNACK)
    assert type(error) is mqttpipe.ServerError and answer == b"\xe0\x01\x82"


def test_arguments_of_mqtt_5_are_checked_and_refused_with_protocol_4():
    needs("mqtt5")
    for options in (
        dict(session_expiry_s=1),
        dict(properties={}),
        dict(properties=[]),
        dict(properties={"receive_maximum": 1}),
        dict(auth=()),
        dict(auth=("m", print)),
        dict(will=("w", "x", 0, False, {})),
        dict(protocol=3),
        dict(protocol=6),
        dict(protocol=5, session_expiry_s=-1),
        dict(protocol=5, session_expiry_s=0x100000000),
        dict(protocol=5, auth="m"),
        dict(protocol=5, auth=("m", 1)),
        dict(protocol=5, properties=[]),
        dict(protocol=5, properties=[1]),
        dict(protocol=5, properties={"receive_maximum": 0}),
        dict(protocol=5, properties={"receive_maximum": 257}),
        dict(protocol=5, properties={"topic_alias_maximum": 9}),
        dict(protocol=5, properties={"maximum_packet_size": 1025}),
        dict(protocol=5, properties={"session_expiry_interval": 1}),
        dict(protocol=5, properties={"authentication_method": "m"}),
        dict(protocol=5, properties={"topic_alias": 1}),
        dict(protocol=5, properties={"no_such": 1}),
        dict(protocol=5, properties={"user_property": {"a": "b"}}),
        dict(protocol=5, properties={"user_property": [("a",)]}),
        dict(protocol=5, properties={"user_property": [("a", 1)]}),
        dict(protocol=5, properties={"request_problem_information": 2}),
        dict(protocol=5, will=("w", "x", 0, False, {"will_delay_interval": -1})),
        dict(protocol=5, will=("w", "x", 0, False, {"response_topic": "a/#"})),
        dict(protocol=5, will=("w", "x", 0, False, {"content_type": "a\0"})),
        dict(protocol=5, will=("w", "x", 0, False, {"topic_alias": 1})),
    ):
        raises(mqttpipe.LocalError, Bench, **options)
    for name, value, limits in (
        ("receive_maximum", 257, "1..256"),
        ("maximum_packet_size", 1025, "1..1024"),
        ("topic_alias_maximum", 9, "0..8"),
    ):
        text = raises(mqttpipe.LocalError, Bench, protocol=5, properties={name: value})
        assert text == "%s is %d, must be an int in %s" % (name, value, limits), text


def next_connect(bench):
    """The connection breaks: to which server is the next CONNECT, with which flags?"""
    bench.server.error = ECONNRESET
    for _ in range(10):
        bench.steps()
        wire = bench.server.received()
        if wire:
            return bench.server.address[0], take_apart(wire)[0]
        bench.clock.advance(1000)
    raise AssertionError("no CONNECT")


def test_the_session_of_another_server_is_not_taken_up_by_who_asked_for_none():
    """[MQTT5-3.2.2-4] What it had kept from before a restart of the board opened a gate."""
    needs("failover")
    first, second = "192.0.2.1", "192.0.2.2"
    bench = asked(
        uri=["mqtt://" + first, "mqtt://" + second], session_expiry_s=60, reconnect_max_ms=1000
    )
    assert take_apart(bench.server.received())[0] == 0x02
    bench.exchange(CONNACK)
    assert next_connect(bench) == (second, 0x02), "the session is the first one's"
    assert next_connect(bench) == (first, 0x00), "and still is: the second one has said nothing"
    bench.exchange(CONNACK_SESSION)
    assert next_connect(bench) == (second, 0x02)
    bench.exchange(CONNACK)
    assert next_connect(bench) == (first, 0x02), "the session is the second one's"
    bench.take_events()
    server = bench.server
    bench.exchange(CONNACK_SESSION)
    assert server.is_closed and "clean start" in str(bench.error())


def test_who_asked_for_a_session_takes_up_what_each_server_has():
    needs("failover")
    bench = asked(uri=["mqtt://192.0.2.1", "mqtt://192.0.2.2"], clean_session=False)
    for _ in range(3):
        bench.exchange(CONNACK_SESSION)
        assert next_connect(bench)[1] == 0x00


def test_a_keep_alive_set_in_service_is_at_most_the_server_s():
    """[MQTT5-3.2.2-21]"""
    for keep_alive_s in (100, 0, 9):
        bench = online(b"\x13\x00\x0a", keep_alive_s=100)
        bench.client.keep_alive_s = keep_alive_s
        for _ in range(10):
            bench.clock.advance(1000)
            bench.steps()
        assert bench.server.received() == PINGREQ, keep_alive_s
