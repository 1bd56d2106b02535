"""The codec of MQTT 5.0's properties against paho-mqtt's own, which was written by others."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import mqttpipe

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=40
)
TOPIC = st.text(st.characters(codec="ascii", exclude_characters="\0+#"), min_size=1, max_size=20)
BYTE = st.integers(0, 1)
TWO = st.integers(0, 0xFFFF)
FOUR = st.integers(0, 0xFFFFFFFF)
PACKET_SIZE = st.integers(1, 268435455)  # paho takes no more, the specification does
PAIRS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4)

MESSAGE = {
    "payload_format_indicator": BYTE,
    "message_expiry_interval": FOUR,
    "content_type": TEXT,
    "response_topic": TOPIC,
    "correlation_data": st.binary(max_size=60),
    "user_property": PAIRS,
}
# first byte -> (paho's number, the properties that an application may give).
GIVEN = {
    0x10: (
        PacketTypes.CONNECT,
        {
            "receive_maximum": st.integers(1, 0xFFFF),
            "maximum_packet_size": PACKET_SIZE,
            "topic_alias_maximum": TWO,
            "request_response_information": BYTE,
            "request_problem_information": BYTE,
            "user_property": PAIRS,
        },
    ),
    0x00: (PacketTypes.WILLMESSAGE, dict(MESSAGE, will_delay_interval=FOUR)),
    0x30: (PacketTypes.PUBLISH, MESSAGE),
    0x82: (
        PacketTypes.SUBSCRIBE,
        {"subscription_identifier": st.integers(1, 268435455), "user_property": PAIRS},
    ),
    0xA2: (PacketTypes.UNSUBSCRIBE, {"user_property": PAIRS}),
    0xE0: (
        PacketTypes.DISCONNECT,
        {"session_expiry_interval": FOUR, "reason_string": TEXT, "user_property": PAIRS},
    ),
}
REASON = {"reason_string": TEXT, "user_property": PAIRS}
# The same of what a server may send.
RECEIVED = {
    0x20: (
        PacketTypes.CONNACK,
        dict(
            REASON,
            session_expiry_interval=FOUR,
            receive_maximum=st.integers(1, 0xFFFF),
            maximum_qos=BYTE,
            retain_available=BYTE,
            maximum_packet_size=PACKET_SIZE,
            assigned_client_identifier=TEXT,
            topic_alias_maximum=TWO,
            wildcard_subscription_available=BYTE,
            subscription_identifier_available=BYTE,
            shared_subscription_available=BYTE,
            server_keep_alive=TWO,
            response_information=TEXT,
            server_reference=TEXT,
            authentication_method=TEXT,
            authentication_data=st.binary(max_size=60),
        ),
    ),
    0x30: (PacketTypes.PUBLISH, dict(MESSAGE, topic_alias=st.integers(1, 0xFFFF))),
    0x40: (PacketTypes.PUBACK, REASON),
    0x50: (PacketTypes.PUBREC, REASON),
    0x60: (PacketTypes.PUBREL, REASON),
    0x70: (PacketTypes.PUBCOMP, REASON),
    0x90: (PacketTypes.SUBACK, REASON),
    0xB0: (PacketTypes.UNSUBACK, REASON),
    0xE0: (PacketTypes.DISCONNECT, dict(REASON, server_reference=TEXT)),
    0xF0: (
        PacketTypes.AUTH,
        dict(REASON, authentication_method=TEXT, authentication_data=st.binary(max_size=60)),
    ),
}


def paho_name(name):
    return "".join(part.title().replace("Qos", "QoS") for part in name.split("_"))


def paho_properties(kind, properties):
    made = Properties(kind)
    for name, value in properties.items():
        setattr(made, paho_name(name), value)
    return made


def some_of(table):
    return st.fixed_dictionaries({}, optional=table)


@pytest.mark.parametrize("first_byte", GIVEN, ids=hex)
def test_what_we_encode_paho_decodes(first_byte):
    kind, table = GIVEN[first_byte]

    @settings(max_examples=60, deadline=None, database=None)
    @given(some_of(table))
    def check(properties):
        wire = mqttpipe._with_length(mqttpipe.encode_properties(properties, first_byte))
        found, size = Properties(kind).unpack(wire)
        assert size == len(wire)
        for name, value in properties.items():
            given_back = getattr(found, paho_name(name))
            if name == "subscription_identifier":
                value = [value]
            assert given_back == value, name
        assert len(wire) == len(paho_properties(kind, properties).pack())

    check()


@pytest.mark.parametrize("first_byte", RECEIVED, ids=hex)
def test_what_paho_encodes_we_decode(first_byte):
    kind, table = RECEIVED[first_byte]

    @settings(max_examples=60, deadline=None, database=None)
    @given(some_of(table), st.binary(max_size=5), st.binary(max_size=5))
    def check(properties, head, tail):
        wire = paho_properties(kind, properties).pack()
        packet = bytearray(head + wire + tail)
        end = len(packet)
        found, at = mqttpipe.decode_properties(packet + b"\x80" * 5, len(head), end, first_byte)
        assert at == len(head) + len(wire)
        assert found == properties

    check()


@settings(max_examples=1000, deadline=None, database=None)
@given(st.binary(max_size=40), st.sampled_from(sorted(RECEIVED)))
def test_whatever_comes_is_decoded_or_a_server_error(wire, first_byte):
    buf = bytearray(wire) + bytearray(8)
    try:
        properties, at = mqttpipe.decode_properties(buf, 0, len(wire), first_byte)
    except mqttpipe.ServerError as error:
        assert error.reason_code in (0x81, 0x82)
        return
    assert 0 < at <= len(wire) and isinstance(properties, dict)
    # What we take, paho takes as well.
    kind = RECEIVED[first_byte][0]
    assert Properties(kind).unpack(bytes(wire[:at]))[1] == at


@settings(max_examples=300, deadline=None, database=None)
@given(some_of(dict(MESSAGE, topic_alias=st.integers(1, 0xFFFF))), st.data())
def test_a_byte_that_changed_does_no_harm(properties, data):
    wire = bytearray(paho_properties(PacketTypes.PUBLISH, properties).pack())
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] = data.draw(st.integers(0, 255))
    try:
        mqttpipe.decode_properties(wire + bytearray(4), 0, len(wire), 0x30)
    except mqttpipe.ServerError as error:
        assert error.reason_code in (0x81, 0x82)
