"""MQTT 5.0: properties, one by one, by hand (section 2.2.2)."""

from fakes import has_memory, needs, raises

import mqttpipe

PUBLISH = 0x30
CONNECT = 0x10
CONNACK = 0x20
SUBSCRIBE = 0x82
UNSUBSCRIBE = 0xA2
DISCONNECT = 0xE0
AUTH = 0xF0

# What an application may give: (packet, name, value, wire bytes).
GIVEN = (
    (PUBLISH, "payload_format_indicator", 1, b"\x01\x01"),
    (PUBLISH, "message_expiry_interval", 258, b"\x02\x00\x00\x01\x02"),
    (PUBLISH, "content_type", "text", b"\x03\x00\x04text"),
    (PUBLISH, "response_topic", b"r/1", b"\x08\x00\x03r/1"),
    (PUBLISH, "correlation_data", b"", b"\x09\x00\x00"),
    (
        PUBLISH,
        "user_property",
        [("a", "b"), ("a", "c")],
        b"\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01c",
    ),
    (PUBLISH, "user_property", [], b""),
    (0, "will_delay_interval", 0, b"\x18\x00\x00\x00\x00"),
    (CONNECT, "receive_maximum", 65535, b"\x21\xff\xff"),
    (CONNECT, "maximum_packet_size", 0xFFFFFFFF, b"\x27\xff\xff\xff\xff"),
    (CONNECT, "topic_alias_maximum", 0, b"\x22\x00\x00"),
    (CONNECT, "request_response_information", True, b"\x19\x01"),
    (CONNECT, "request_problem_information", 0, b"\x17\x00"),
    (SUBSCRIBE, "subscription_identifier", 127, b"\x0b\x7f"),
    (SUBSCRIBE, "subscription_identifier", 128, b"\x0b\x80\x01"),
    (SUBSCRIBE, "subscription_identifier", 16383, b"\x0b\xff\x7f"),
    (SUBSCRIBE, "subscription_identifier", 16384, b"\x0b\x80\x80\x01"),
    (SUBSCRIBE, "subscription_identifier", 2097151, b"\x0b\xff\xff\x7f"),
    (SUBSCRIBE, "subscription_identifier", 268435455, b"\x0b\xff\xff\xff\x7f"),
    (UNSUBSCRIBE, "user_property", (("", "\u20ac"),), b"\x26\x00\x00\x00\x03\xe2\x82\xac"),
    (DISCONNECT, "session_expiry_interval", 1, b"\x11\x00\x00\x00\x01"),
    (DISCONNECT, "reason_string", "why", b"\x1f\x00\x03why"),
)

# What a server may send: (packet, name, value, wire bytes).
RECEIVED = (
    GIVEN[:3]
    + GIVEN[4:6]
    + (
        (PUBLISH, "response_topic", "r/1", b"\x08\x00\x03r/1"),
        (
            PUBLISH,
            "subscription_identifier",
            [1, 268435455, 1],
            b"\x0b\x01\x0b\xff\xff\xff\x7f\x0b\x01",
        ),
        (PUBLISH, "topic_alias", 65535, b"\x23\xff\xff"),
        (CONNACK, "session_expiry_interval", 0xFFFFFFFF, b"\x11\xff\xff\xff\xff"),
        (CONNACK, "assigned_client_identifier", "me", b"\x12\x00\x02me"),
        (CONNACK, "server_keep_alive", 0, b"\x13\x00\x00"),
        (CONNACK, "authentication_method", "m", b"\x15\x00\x01m"),
        (CONNACK, "authentication_data", b"\xff", b"\x16\x00\x01\xff"),
        (CONNACK, "response_information", "r", b"\x1a\x00\x01r"),
        (CONNACK, "server_reference", "h:1", b"\x1c\x00\x03h:1"),
        (CONNACK, "receive_maximum", 1, b"\x21\x00\x01"),
        (CONNACK, "topic_alias_maximum", 9, b"\x22\x00\x09"),
        (CONNACK, "maximum_qos", 1, b"\x24\x01"),
        (CONNACK, "retain_available", 0, b"\x25\x00"),
        (CONNACK, "maximum_packet_size", 1, b"\x27\x00\x00\x00\x01"),
        (CONNACK, "wildcard_subscription_available", 0, b"\x28\x00"),
        (CONNACK, "subscription_identifier_available", 1, b"\x29\x01"),
        (CONNACK, "shared_subscription_available", 0, b"\x2a\x00"),
        (DISCONNECT, "server_reference", "h", b"\x1c\x00\x01h"),
        (AUTH, "authentication_data", b"", b"\x16\x00\x00"),
    )
)
# The packets in which a server may give a reason string, and user properties.
REASONED = (0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0xB0, 0xE0, 0xF0)


def test_what_an_application_gives_is_encoded():
    """[MQTT5-1.5.4-1] [MQTT5-1.5.5-1] [MQTT5-3.3.2-13, -19]"""
    needs("mqtt5")
    for packet, name, value, wire in GIVEN:
        assert mqttpipe.encode_properties({name: value}, packet) == wire, (name, value)
    assert mqttpipe.encode_properties(None, PUBLISH) == b""
    assert mqttpipe.encode_properties({}, PUBLISH) == b""


def test_what_an_application_must_not_give_is_a_local_error():
    """[MQTT5-1.5.4-2] [MQTT5-1.5.7-1] [MQTT5-3.3.2-13, -14, -19] [MQTT5-3.3.4-6]"""
    needs("mqtt5")
    for packet, properties in (
        (PUBLISH, {"topic_alias": 1}),  # they come by themselves
        (PUBLISH, {"subscription_identifier": 1}),
        (PUBLISH, {"will_delay_interval": 1}),
        (0, {"topic_alias": 1}),
        (CONNECT, {"user_property": [("a", "b"), "cd", ("e",)]}),
        (CONNECT, {"session_expiry_interval": 1}),  # session_expiry_s
        (CONNECT, {"authentication_data": b""}),  # auth
        (SUBSCRIBE, {"content_type": "x"}),
        (SUBSCRIBE, {"subscription_identifier": 0}),
        (SUBSCRIBE, {"subscription_identifier": 268435456}),
        (SUBSCRIBE, {"subscription_identifier": [1]}),
        (UNSUBSCRIBE, {"subscription_identifier": 1}),
        (DISCONNECT, {"server_reference": "h"}),
        (DISCONNECT, {"session_expiry_interval": -1}),
        (DISCONNECT, {"session_expiry_interval": 0x100000000}),
        (CONNECT, {"receive_maximum": 0}),
        (CONNECT, {"receive_maximum": 65536}),
        (CONNECT, {"maximum_packet_size": 0}),
        (PUBLISH, {"payload_format_indicator": 2}),
        (PUBLISH, {"payload_format_indicator": "1"}),
        (PUBLISH, {"message_expiry_interval": True}),
        (PUBLISH, {"content_type": 5}),
        (PUBLISH, {"content_type": "a\0"}),
        (PUBLISH, {"content_type": b"\xff"}),
        (PUBLISH, {"content_type": "x" * 65536 if has_memory(400_000) else 1}),
        (PUBLISH, {"correlation_data": None}),
        (PUBLISH, {"response_topic": "a/+"}),
        (PUBLISH, {"response_topic": ""}),
        (PUBLISH, {"user_property": "ab"}),
        (PUBLISH, {"user_property": [("a", "\0")]}),
        (PUBLISH, {"": 1}),
        (PUBLISH, {1: 1}),
        (PUBLISH, {("a", "b"): 1}),
        (PUBLISH, {"content_type;02i30/3": 1}),
        (PUBLISH, {"content_type;08s30/3:response_topic": "x"}),
        (PUBLISH, [("content_type", "x")]),
        (PUBLISH, "content_type"),
    ):
        raises(mqttpipe.LocalError, mqttpipe.encode_properties, properties, packet)


def decoded(wire, packet, head=b"ab", tail=b"cd"):
    """The properties between other bytes of a packet."""
    buf = bytearray(head + bytes((len(wire),)) + wire + tail)
    end = len(buf)
    properties, at = mqttpipe.decode_properties(buf + b"\x01" * 9, len(head), end, packet)
    assert at == end - len(tail)
    return properties


def test_what_a_server_sends_is_decoded():
    """[MQTT5-1.5.4-3] [MQTT5-2.2.2-1]"""
    needs("mqtt5")
    for packet, name, value, wire in RECEIVED:
        assert decoded(wire, packet) == {name: value}, (name, value)
    for packet in REASONED:
        wire = b"\x1f\x00\x03\xef\xbb\xbf\x26\x00\x00\x00\x01v\x26\x00\x00\x00\x01u"
        assert decoded(wire, packet) == {
            "reason_string": "\ufeff",
            "user_property": [("", "v"), ("", "u")],
        }
    assert decoded(b"", PUBLISH) == {}
    for tail in (b"", b"\x00"):
        assert decoded(b"\x01\x00", PUBLISH, tail=tail) == {"payload_format_indicator": 0}


def test_a_property_that_came_twice_is_a_protocol_error_one_in_a_wrong_packet_malformed():
    """Section 2.2.2.2 [MQTT5-3.14.2-2]"""
    needs("mqtt5")
    for packet, _, _, wire in RECEIVED:
        if wire[0] in (0x0B, 0x26):
            continue
        error = error_of(wire + wire, packet)
        assert error.reason_code == 0x82 and "twice" in str(error), wire
        for other in (0x60, 0xB0):  # PUBREL, UNSUBACK: only reasons and user properties
            assert error_of(wire, other).reason_code == 0x81, wire
    for wire in (
        b"\x11\x00\x00\x00\x01",  # a session expiry of the server's DISCONNECT
        b"\x17\x00",
        b"\x18\x00\x00\x00\x00",
        b"\x19\x00",
    ):
        assert error_of(wire, DISCONNECT).reason_code == 0x81, wire
    for wire, packet in (
        (b"\x0b\x00", PUBLISH),
        (b"\x23\x00\x00", PUBLISH),
        (b"\x01\x02", PUBLISH),
        (b"\x21\x00\x00", CONNACK),
        (b"\x28\x02", CONNACK),
    ):
        assert error_of(wire, packet).reason_code == 0x82, wire


def error_of(wire, packet):
    try:
        decoded(wire, packet)
    except mqttpipe.ServerError as error:
        return error
    raise AssertionError("taken: %r" % wire)


def test_what_is_cut_off_or_unknown_is_malformed():
    """[MQTT5-1.5.4-1, -2] [MQTT5-1.5.7-1]"""
    needs("mqtt5")
    for packet, name, _, wire in RECEIVED:
        first = {"user_property": 7, "subscription_identifier": 2}.get(name, len(wire))
        for end in range(1, first):
            assert error_of(wire[:end], packet).reason_code == 0x81, wire[:end]
    for number in range(256):
        if b";%02x" % number not in mqttpipe._PROPERTIES.encode():
            assert error_of(bytes((number, 0, 0, 0, 0)), PUBLISH).reason_code == 0x81, number
    for wire in (
        b"\x03\x00\x01\x00",
        b"\x03\x00\x01\xff",
        b"\x03\x00\x03\xed\xa0\x80",  # a surrogate
        b"\x26\x00\x01\xff\x00\x01a",
        b"\x26\x00\x01a\x00\x01\xff",
        b"\x26\x00\x01a",
        b"\x0b\x80\x00",  # longer than need be
        b"\x0b\x80\x80\x80\x80\x01",
        b"\x0b\xff\xff\xff\xff",
        b"\x0b\x80",
    ):
        assert error_of(wire, PUBLISH).reason_code == 0x81, wire


def test_a_length_that_is_wrong_is_malformed():
    needs("mqtt5")
    for wire, at, end in (
        (b"\x05\x01\x00", 0, 3),
        (b"\x02\x01\x00", 0, 2),
        (b"\x80", 0, 1),
        (b"\x80\x00", 0, 2),
        (b"\xff\xff\xff\xff\x7f", 0, 5),
        (b"\x80\x80\x80\x80\x00", 0, 5),
        (b"\x00", 0, 0),
    ):
        try:
            mqttpipe.decode_properties(bytearray(wire) + b"\x00\x01\x00", at, end, PUBLISH)
        except mqttpipe.ServerError as error:
            assert error.reason_code == 0x81, wire
        else:
            raise AssertionError("taken: %r" % wire)


def test_of_many_of_a_kind_only_the_first_is_looked_up():
    """500 subscription identifiers, which fit a packet of 1 KB, took 12 ms.

    In turn with user properties they still did. No other kind may come more than once.
    """
    needs("mqtt5")
    look_up = mqttpipe._property
    looks = []

    def counted(at):
        looks.append(at)
        return look_up(at)

    mqttpipe._property = counted
    pair = b"\x26\x00\x01a\x00\x01b"
    data = (b"\x0b\x07" + pair) * 5 + b"\x0b\x07" * 15 + b"\x03\x00\x01c" + pair + b"\x0b\x08"
    found = mqttpipe.decode_properties(bytes((len(data),)) + data, 0, 1 + len(data), PUBLISH)[0]
    mqttpipe._property = look_up
    assert found == {
        "subscription_identifier": [7] * 20 + [8],
        "user_property": [("a", "b")] * 6,
        "content_type": "c",
    }
    assert len(looks) <= 5, looks  # content_type came between


def test_a_response_topic_that_is_none_is_named():
    needs("mqtt5")
    for value in "a/#", "":
        text = raises(
            mqttpipe.LocalError, mqttpipe.encode_properties, {"response_topic": value}, PUBLISH
        )
        assert text.startswith("response_topic "), text


def test_texts_are_looked_at_byte_by_byte_only_if_they_are_not_ascii():
    """In a packet of 60 KB that took 6 ms; and what MQTT forbids is found either way."""
    needs("mqtt5")
    looks = []
    is_utf8 = mqttpipe._is_utf8

    def counted(*arguments):
        looks.append(arguments)
        return is_utf8(*arguments)

    mqttpipe._is_utf8 = counted
    try:
        for text, count in (
            (b"", 0),
            (b"ascii", 0),
            (b"\xc3\xa4", 1),
        ):
            looks.clear()
            wire = b"\x03\x00" + bytes((len(text),)) + text
            assert decoded(wire, PUBLISH) == {"content_type": str(text, "utf-8")}
            assert len(looks) == count, text
    finally:
        mqttpipe._is_utf8 = is_utf8
    for text in b"a\0", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xc3":
        error = raises_server_error(b"\x03\x00" + bytes((len(text),)) + text)
        assert error.reason_code == 0x81, text


def raises_server_error(wire):
    try:
        decoded(wire, PUBLISH)
    except mqttpipe.ServerError as error:
        return error
    raise AssertionError(wire)
