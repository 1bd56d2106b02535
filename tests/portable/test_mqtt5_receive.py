"""MQTT 5.0: messages that come: properties, identifiers, flow control; what is malformed."""

from fakes import ECONNRESET, lose, needs
from mqtt5 import CONNACK_SESSION, online, refused

import mqttpipe


def keep(messages):
    return lambda client, message: messages.append(
        (message.topic_name, message.payload, message.properties)
    )


def test_the_properties_of_a_message_reach_its_callback():
    """[MQTT5-3.3.4-1] [MQTT5-4.3.2-4, -5]"""
    bench = online()
    got = []
    bench.client.on_message = keep(got)
    for wire, properties in (
        (b"", {}),
        (b"\x01\x01", {"payload_format_indicator": 1}),
        (b"\x02\x00\x00\x00\x09", {"message_expiry_interval": 9}),
        (b"\x03\x00\x01c", {"content_type": "c"}),
        (
            b"\x08\x00\x01r\x09\x00\x02\x00\xff",
            {"response_topic": "r", "correlation_data": b"\x00\xff"},
        ),
        (
            b"\x26\x00\x01b\x00\x011\x26\x00\x01a\x00\x012",
            {"user_property": [("b", "1"), ("a", "2")]},
        ),
    ):
        for qos in range(3):
            if qos == 2 and "qos2" in mqttpipe.__version__:
                continue
            head = b"\x00\x01t" + (b"\x00\x09" if qos else b"") + bytes((len(wire),)) + wire
            answer = bench.exchange(bytes((0x30 | qos << 1, len(head) + 2)) + head + b"xy")
            assert answer == (b"", b"\x40\x02\x00\x09", b"\x50\x02\x00\x09")[qos]
            if qos == 2:
                assert bench.exchange(b"\x62\x02\x00\x09") == b"\x70\x02\x00\x09"
            assert got == [("t", b"xy", properties)], (wire, qos)
            got.clear()


def test_whole_byte_by_byte_and_with_a_tail_it_is_the_same():
    packet = b"\x32\x0d\x00\x02tt\x00\x09\x04\x03\x00\x01cxyz"[:15]
    packet = bytes((0x32, len(packet) - 2)) + packet[2:]
    for pieces in (
        (packet,),
        [packet[i : i + 1] for i in range(len(packet))],
        (packet + packet[:3], packet[3:]),
    ):
        bench = online()
        got = []
        bench.client.on_message = keep(got)
        answer = b""
        for piece in pieces:
            answer += bench.exchange(piece)
        count = 2 if len(pieces) == 2 else 1
        assert got == [("tt", b"xy", {"content_type": "c"})] * count, pieces
        assert answer == b"\x40\x02\x00\x09" * count


def test_without_properties_it_is_the_same_object_each_time():
    bench = online()
    got = []
    bench.client.on_message = lambda client, message: got.append(message.properties)
    bench.exchange(
        b"\x30\x05\x00\x01t\x00x", b"\x30\x07\x00\x01t\x02\x01\x00x", b"\x30\x05\x00\x01t\x00x"
    )
    assert got == [{}, {"payload_format_indicator": 0}, {}] and got[0] is got[2]


def test_views_and_lengths_that_change_from_message_to_message():
    bench = online()
    got = []
    bench.client.on_message = lambda client, message: got.append(bytes(message.view))
    for head in (b"\x00", b"\x02\x01\x00", b"\x03\x23\x00\x01", b"\x00"):
        for payload in (b"", b"x", b"yy", b"zz"):
            body = b"\x00\x01t" + head + payload
            bench.exchange(bytes((0x30, len(body))) + body)
            assert got.pop() == payload and not got, (head, payload)


def subscribed(bench, topic_filter, callback, identifier=None):
    properties = {"subscription_identifier": identifier} if identifier else None
    bench.client.subscribe(topic_filter, callback, 0, properties=properties)
    bench.steps()
    number = bench.server.received()[3]
    bench.exchange(b"\x90\x04\xff" + bytes((number,)) + b"\x00\x00")
    bench.take_events()


def test_an_identifier_finds_the_callback_without_comparing_the_topic():
    """[MQTT5-3.3.4-3, -4, -5]"""
    bench = online()
    got = []
    subscribed(bench, "a/#", lambda c, m: got.append(1), 1)
    subscribed(bench, "a/b", lambda c, m: got.append(2), 200)
    subscribed(bench, "+/b", lambda c, m: got.append(3))
    for properties, expected in (
        (b"\x0b\x01", [3, 1]),
        (b"\x0b\xc8\x01", [3, 2]),
        (b"\x0b\x01\x0b\xc8\x01", [3, 2, 1]),
        (b"\x0b\xc8\x01\x0b\x01", [3, 2, 1]),
        (b"\x0b\x07", [3]),
        (b"", [3]),  # were it for the others, it would say so
    ):
        body = b"\x00\x03a/b" + bytes((len(properties),)) + properties
        bench.exchange(bytes((0x30, len(body))) + body)
        assert sorted(got) == sorted(expected), (properties, got)
        got.clear()
    bench.exchange(b"\x30\x06\x00\x01x\x02\x0b\x01")
    assert got == [1], "the server knows what matches"
    bench.exchange(b"\x30\x06\x00\x01x\x02\x0b\x63")
    assert bench.take_events() == [("message", "x", b"", 0)], "nobody's: on_message"


def test_an_identifier_of_a_subscription_without_callback_is_for_on_message():
    """Its topic name is not compared either: another callback would get what is not its own."""
    bench = online()
    got = []
    subscribed(bench, "a/#", lambda c, m: got.append(1), 1)
    subscribed(bench, "a/b", None, 2)
    subscribed(bench, "a/+", None)
    for properties, expected, told in (
        (b"\x0b\x01", [1], 0),
        (b"\x0b\x02", [], 1),
        (b"\x0b\x02\x0b\x01", [1], 0),
        (b"\x0b\x03", [1], 0),  # nobody's: now names are compared
    ):
        body = b"\x00\x03a/b" + bytes((len(properties),)) + properties
        bench.exchange(bytes((0x30, len(body))) + body)
        assert got == expected and len(bench.take_events()) == told, (properties, got)
        got.clear()


def test_a_message_without_identifier_is_for_a_filter_that_has_one_if_no_other_matches():
    """It was queued before the filter had one, or the server has left it out."""
    bench = online()
    got = []
    subscribed(bench, "a/#", lambda c, m: got.append(1), 1)
    subscribed(bench, "+/b", lambda c, m: got.append(2), 2)
    subscribed(bench, "a/c", None)
    subscribed(bench, "b/#", None, 3)
    for name, expected, told in ((b"a/b", [1, 2], 0), (b"a/c", [], 1), (b"b/c", [], 1)):
        for _ in range(2):
            bench.exchange(b"\x30\x06\x00\x03" + name + b"\x00")
            assert sorted(got) == expected and len(bench.take_events()) == told, (name, got)
            got.clear()
    bench.client.unsubscribe("a/c")
    bench.steps()
    bench.exchange(b"\x30\x06\x00\x03a/c\x00")
    assert got == [], "it still stands"
    bench.exchange(b"\xb0\x04\xff\x05\x00\x00")
    bench.exchange(b"\x30\x06\x00\x03a/c\x00")
    assert got == [1]


def test_filters_that_share_an_identifier_are_told_apart_by_their_topics():
    """[5: 3.3.4] Or each message would go to the callbacks of all, or to one as often."""
    bench = online()
    got = []
    subscribed(bench, "a/#", lambda c, m: got.append(1), 7)
    subscribed(bench, "b/#", lambda c, m: got.append(2), 7)
    subscribed(bench, "b/c", None, 7)
    for name, expected in ((b"a/c", [1]), (b"b/x", [2]), (b"b/c", [2]), (b"c/c", [])):
        for properties in (b"\x0b\x07", b"\x0b\x07\x0b\x07"):
            body = b"\x00\x03" + name + bytes((len(properties),)) + properties
            bench.exchange(bytes((0x30, len(body))) + body)
            assert got == expected, (name, properties, got)
            assert len(bench.take_events()) == (not expected)
            got.clear()


def test_a_message_from_before_its_filter_had_an_identifier_finds_the_callback():
    """As from a session that this device has had before it gave any."""
    bench = online()
    got = []
    subscribed(bench, "a/b", lambda c, m: got.append(1))
    bench.client.subscribe(
        "a/b", lambda c, m: got.append(2), properties={"subscription_identifier": 7}
    )
    bench.steps()  # what comes now was sent before this SUBSCRIBE came
    for _ in range(2):
        bench.exchange(b"\x30\x07\x00\x03a/b\x00x")
        assert got.pop() == 2 and bench.take_events() == []
    bench.exchange(b"\x90\x04\xff\x02\x00\x00")
    subscribed(bench, "a/+", None)
    bench.take_events()
    bench.exchange(b"\x30\x07\x00\x03a/b\x00x")
    assert got == [] and bench.take_events() == [("message", "a/b", b"x", 0)], "for that one"
    bench.client.unsubscribe("a/+")
    bench.steps()
    bench.exchange(b"\xb0\x04\xff\x04\x00\x00", b"\x30\x07\x00\x03a/b\x00x")
    assert got == [2]
    bench.client.unsubscribe("a/b")
    bench.steps()
    bench.exchange(b"\x30\x07\x00\x03a/b\x00x")
    assert got == [2, 2], "until UNSUBACK"


def test_qos_2_is_delivered_once_and_what_is_unknown_is_told_so():
    """[MQTT5-4.3.3-8, -9, -10, -11, -12, -13] [MQTT5-3.5.2-1] [MQTT5-3.7.2-1] [MQTT5-4.5.0-2]"""
    needs("qos2")
    bench = online(clean_session=False, session_expiry_s=60)
    assert bench.exchange(b"\x34\x07\x00\x01t\x00\x09\x00x") == b"\x50\x02\x00\x09"
    assert bench.exchange(b"\x3c\x07\x00\x01t\x00\x09\x00x") == b"\x50\x02\x00\x09"
    assert bench.take_events() == [("message", "t", b"x", 2)]
    assert bench.exchange(b"\x62\x02\x00\x09") == b"\x70\x02\x00\x09"
    assert bench.exchange(b"\x62\x02\x00\x09") == b"\x70\x03\x00\x09\x92", "again: not found"
    assert bench.exchange(b"\x34\x07\x00\x01t\x00\x09\x00y") == b"\x50\x02\x00\x09"
    assert bench.take_events() == [("message", "t", b"y", 2)], "a new one"
    for packet, answer in (
        (b"\x62\x03\x00\x09\x00", b"\x70\x02\x00\x09"),
        (b"\x62\x03\x00\x08\x92", b"\x70\x03\x00\x08\x92"),
        (b"\x62\x08\x00\x08\x92\x04\x1f\x00\x01r", b"\x70\x03\x00\x08\x92"),
    ):
        assert bench.exchange(packet) == answer, packet
    bench.exchange(b"\x34\x07\x00\x01t\x00\x0a\x00z")
    lose(bench)
    bench.exchange(CONNACK_SESSION)
    assert bench.exchange(b"\x3c\x07\x00\x01t\x00\x0a\x00z") == b"\x50\x02\x00\x0a"
    assert [one for one in bench.take_events() if one[0] == "message"] == []


def test_acknowledgements_keep_the_order():
    """[MQTT5-4.6.0-1, -2, -3, -4]"""
    needs("qos2")
    bench = online()
    packets = b""
    for number in range(1, 9):
        packets += (
            bytes((0x32 if number % 2 else 0x34, 6))
            + b"\x00\x01t\x00"
            + bytes((number,))
            + b"\x00"
        )
    answer = bench.exchange(packets)
    assert answer == b"".join(
        bytes((0x40 if number % 2 else 0x50, 2, 0, number)) for number in range(1, 9)
    )
    for _ in range(3):
        bench.client.publish("t", "", 2)
    bench.steps()
    bench.server.received()
    assert bench.exchange(b"\x50\x02\x00\x02\x50\x02\x00\x01\x50\x02\x00\x03") == (
        b"\x62\x02\x00\x02\x62\x02\x00\x01\x62\x02\x00\x03"
    )


def test_more_at_qos_2_than_we_announced_end_the_connection():
    """[MQTT5-3.3.4-9]"""
    needs("qos2")
    bench = online(properties={"receive_maximum": 3})
    for number in range(1, 4):
        bench.exchange(b"\x34\x06\x00\x01t\x00" + bytes((number,)) + b"\x00")
    assert bench.client.is_online()
    bench.exchange(b"\x3c\x06\x00\x01t\x00\x03\x00")
    assert bench.client.is_online(), "that one is not new"
    error, answer = refused(bench, b"\x34\x06\x00\x01t\x00\x04\x00")
    assert type(error) is mqttpipe.ServerError and answer[-3:] == b"\xe0\x01\x93"


def test_what_came_on_the_last_connection_does_not_count_against_the_receive_maximum():
    """[5: 4.9] The quota begins anew; PUBRELs may come behind new messages."""
    needs("qos2")
    messages = [b"\x34\x06\x00\x01t\x00" + bytes((number,)) + b"\x00" for number in range(10)]
    bench = online(
        clean_session=False,
        session_expiry_s=60,
        reconnect_max_ms=1000,
        properties={"receive_maximum": 2},
    )
    for first in (1, 3, 5):
        for number in (first, first + 1):
            assert bench.exchange(messages[number]) == b"\x50\x02\x00" + bytes((number,))
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(1000)
        bench.steps()
        bench.server.received()
        bench.exchange(CONNACK_SESSION)
    for number in range(1, 7):
        packet = b"\x62\x02\x00" + bytes((number,))
        assert bench.exchange(packet) == b"\x70" + packet[1:]
        if number == 2 or number == 4:
            bench.exchange(messages[6 + number // 2])
    bench.exchange(b"\x62\x02\x00\x07", messages[9])
    assert bench.client.is_online(), "never more than two"
    error, answer = refused(bench, messages[1])
    assert error.reason_code == 0x93 and answer[-3:] == b"\xe0\x01\x93"


def test_the_server_hears_why_also_behind_what_it_is_owed():
    """All in one segment: the acknowledgements of what was in order go before the reason."""
    needs("qos2")
    bench = online(properties={"receive_maximum": 2})
    bench.client.on_message = None
    flood = b"".join(b"\x34\x07\x00\x01t\x00" + bytes((n,)) + b"\x00x" for n in (1, 2, 3))
    error, answer = refused(bench, flood)
    assert type(error) is mqttpipe.ServerError
    assert answer == b"\x50\x02\x00\x01\x50\x02\x00\x02\xe0\x01\x93"


def test_a_message_that_waits_to_leave_is_not_sent_for_that():
    """It counts as unsent, and would come twice."""
    bench = online()
    bench.server.write_credit = 0
    bench.client.publish("t", b"x" * 20)
    bench.steps()
    bench.server.write_credit = 1 << 20
    error, answer = refused(bench, b"\x00\x00")
    assert type(error) is mqttpipe.ServerError and answer == b""


def test_what_is_malformed_ends_the_connection_and_the_server_hears_why():
    """[MQTT5-4.13.1-1] [MQTT5-2.1.3-1] [MQTT5-3.14.1-1] [MQTT5-3.3.1-4] [MQTT5-3.6.1-1]

    [MQTT5-3.15.1-1] [MQTT5-4.7.3-1] [MQTT5-1.5.4-1, -2] [MQTT5-3.8.4-6]
    """
    for packet, code in (
        (b"\x30\x00", 0x81),
        (b"\x30\x02\x00\x01", 0x81),
        (b"\x30\x03\x00\x01t", 0x81),  # no properties
        (b"\x32\x05\x00\x01t\x00\x09", 0x81),
        (b"\x32\x06\x00\x01t\x00\x00\x00", 0x82),  # identifier 0
        (b"\x30\x05\x00\x01t\x01\x01", 0x81),
        (b"\x30\x05\x00\x01t\x09\x01", 0x81),
        (b"\x30\x06\x00\x01t\x02\x01\x02", 0x82),
        (b"\x30\x06\x00\x01t\x02\x24\x01", 0x81),  # of CONNACK
        (b"\x30\x06\x00\x02t\x00\x00x", 0x81),  # U+0000
        (b"\x30\x05\x00\x01\xff\x00x", 0x81),
        (b"\x36\x07\x00\x01t\x00\x09\x00x", 0x81),  # QoS 3
        (b"\x40\x00", 0x81),
        (b"\x40\x01\x00", 0x81),
        (b"\x40\x03\x00\x00\x00", 0x82),
        (b"\x40\x05\x00\x01\x00\x00\x00", 0x81),
        (b"\x40\x05\x00\x01\x00\x02\x01", 0x81),
        (b"\x41\x02\x00\x01", 0x81),
        (b"\x60\x02\x00\x01", 0x81),
        (b"\x62\x03\x00\x00\x00", 0x82),
        (b"\xd0\x01\x00", 0x81),
        (b"\x90\x03\xff\x01\x00", 0x81),  # no code
        (b"\x90\x05\xff\x01\x00\x00\x00", 0x81),  # two
        (b"\xc0\x00", 0x82),
        (b"\x10\x00", 0x82),
        (b"\xe1\x00", 0x81),
        (b"\xf1\x00", 0x81),
        (b"\xf0\x00", 0x82),  # AUTH, without auth
    ):
        error, answer = refused(online(), packet)
        assert type(error) is mqttpipe.ServerError, packet
        assert answer == b"\xe0\x01" + bytes((code,)), (packet, answer, error)


def test_a_packet_of_our_own_that_is_half_sent_is_not_followed_by_a_reason():
    bench = online()
    bench.server.write_credit = 3
    bench.client.publish("t", "x" * 50)
    bench.steps()
    bench.server.received()
    bench.server.write_credit = 1 << 20
    bench.server.write_max = 1
    bench.server.send(b"\x30\x00")
    bench.client.step()
    assert b"\xe0" not in bench.server.received()


def test_a_topic_name_with_a_wildcard_is_passed_over():
    """[MQTT5-3.3.2-2] [MQTT5-4.7.0-1]"""
    bench = online()
    assert bench.exchange(b"\x32\x07\x00\x01#\x00\x09\x00x") == b"\x40\x02\x00\x09"
    ((name, error),) = bench.take_events()
    assert name == "error" and type(error) is mqttpipe.ServerError
    raised = []
    for topic in ("a/+", "#", ""):
        try:
            bench.client.publish(topic, "x")
        except mqttpipe.LocalError:
            raised.append(topic)
    assert len(raised) == 3


def test_a_packet_that_is_larger_than_we_announced_does_no_harm():
    """[MQTT5-3.1.2-24]"""
    bench = online(packet_bytes_max=64)
    for topic in (b"\x00\x01t", b"\x00\x00"):
        for qos in (0, 1):
            body = topic + (b"\x00\x09" if qos else b"") + b"\x00" + b"x" * 100
            answer = bench.exchange(bytes((0x30 | qos << 1, len(body))) + body)
            assert answer == (b"\x40\x02\x00\x09" if qos else b"") and bench.client.is_online()
            ((name, error),) = bench.take_events()
            assert name == "error" and type(error) is mqttpipe.LocalError
    error, answer = refused(
        bench, b"\x40\x64\x00\x01\x00" + b"\x61\x1f\x00\x5e" + b"y" * 94 + b"\x00" * 9
    )
    assert error.reason_code == 0x95 and answer == b"\xe0\x01\x95"
