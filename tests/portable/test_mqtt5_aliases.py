"""MQTT 5.0: topic aliases, which come and go by themselves, both ways (section 3.3.2.3.4)."""

from fakes import ECONNRESET, needs
from mqtt5 import connack, online, refused

import mqttpipe


def sent(bench, topic_name, payload, qos=0, **options):
    bench.client.publish(topic_name, payload, qos, **options)
    bench.steps()
    return bench.server.received()


def test_without_a_maximum_there_are_none():
    """[MQTT5-3.2.2-18]"""
    for properties in (b"", b"\x22\x00\x00"):
        bench = online(properties)
        for _ in range(3):
            assert sent(bench, "topic", "x") == b"\x30\x09\x00\x05topic\x00x"


def test_a_topic_name_is_sent_once():
    """[MQTT5-3.2.2-17] [MQTT5-3.3.2-8, -9]"""
    bench = online(b"\x22\x00\x08")
    assert sent(bench, "topic", "x") == b"\x30\x0c\x00\x05topic\x03\x23\x00\x01x"
    assert sent(bench, "topic", "yy") == b"\x30\x08\x00\x00\x03\x23\x00\x01yy"
    assert sent(bench, "other", "x") == b"\x30\x0c\x00\x05other\x03\x23\x00\x02x"
    assert sent(bench, b"topic", "x", 1) == b"\x32\x09\x00\x00\x00\x04\x03\x23\x00\x01x"
    assert sent(bench, "other", "x", retain=True) == b"\x31\x07\x00\x00\x03\x23\x00\x02x"


def test_a_short_topic_name_needs_none():
    bench = online(b"\x22\x00\x08")
    for _ in range(2):
        assert sent(bench, "abc", "x") == b"\x30\x07\x00\x03abc\x00x"
    assert sent(bench, "abcd", "x") == b"\x30\x0b\x00\x04abcd\x03\x23\x00\x01x"


def test_many_at_once_and_large_ones_use_them_as_well():
    bench = online(b"\x22\x00\x08")
    for payload in (b"1", b"2" * 200, b"3", b"4" * 900, b"5"):
        bench.client.publish("topic", payload)
    bench.steps()
    assert bench.server.received() == (
        b"\x30\x0c\x00\x05topic\x03\x23\x00\x011"
        + (b"\x30\xce\x01\x00\x00\x03\x23\x00\x01" + b"2" * 200)
        + b"\x30\x07\x00\x00\x03\x23\x00\x013"
        + (b"\x30\x8a\x07\x00\x00\x03\x23\x00\x01" + b"4" * 900)
        + b"\x30\x07\x00\x00\x03\x23\x00\x015"
    )
    bench = online(b"\x22\x00\x08")
    wire = sent(bench, "topic", b"2" * 200)
    assert wire == b"\x30\xd3\x01\x00\x05topic\x03\x23\x00\x01" + b"2" * 200, (
        "begun by a large one"
    )
    assert sent(bench, "topic", "x") == b"\x30\x07\x00\x00\x03\x23\x00\x01x"


def test_with_properties_they_stand_among_them():
    bench = online(b"\x22\x00\x08")
    one = {"content_type": "c"}
    wire = sent(bench, "topic", "x", properties=one)
    assert wire == b"\x30\x10\x00\x05topic\x07\x23\x00\x01\x03\x00\x01cx"
    assert sent(bench, "topic", "x", properties=one) == (
        b"\x30\x0b\x00\x00\x07\x23\x00\x01\x03\x00\x01cx"
    )
    assert sent(bench, "topic", "x") == b"\x30\x07\x00\x00\x03\x23\x00\x01x"


def test_the_oldest_gives_way_when_the_server_takes_no_more():
    """[MQTT5-3.2.2-17] [MQTT5-3.3.2-9]"""
    for maximum, count in ((1, 1), (2, 2), (8, 8), (100, 8)):
        bench = online(bytes((0x22, 0, maximum)))
        for turn in range(3):
            for number in range(count + 1):
                wire = sent(bench, "topic%d" % number, "x")
                alias = (turn * (count + 1) + number) % count + 1
                expected = b"\x30\x0d\x00\x06topic%d\x03\x23\x00" % number + bytes((alias,)) + b"x"
                assert wire == expected, (wire, expected)


def test_the_next_connection_knows_none_of_them():
    """[MQTT5-3.3.2-7]"""
    bench = online(b"\x22\x00\x08", clean_session=False, session_expiry_s=60)
    sent(bench, "topic", "x")
    assert sent(bench, "topic", "x", 1) == b"\x32\x09\x00\x00\x00\x02\x03\x23\x00\x01x"
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    wire = bench.exchange(connack(b"\x22\x00\x08", flags=1))
    assert wire == b"\x3a\x0e\x00\x05topic\x00\x02\x03\x23\x00\x01x", "sent again, with its name"
    assert sent(bench, "topic", "x") == b"\x30\x07\x00\x00\x03\x23\x00\x01x"
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(connack(flags=1)) == b"\x3a\x0b\x00\x05topic\x00\x02\x00x", "no aliases"


def test_what_a_socket_takes_in_pieces_is_the_same():
    """[MQTT5-4.2.0-1]"""
    expected = None
    for credit in (1 << 20, 1, 2, 7, 20):
        bench = online(b"\x22\x00\x02", packet_bytes_max=64)
        bench.server.write_max = credit
        for number in range(12):
            bench.client.publish(
                "topic/%d" % (number % 3 // 2), b"%d" % number * (1 + number % 5 * 9)
            )
        for _ in range(300):
            bench.steps()
            bench.clock.advance(1)
        wire = bench.server.received()
        expected = expected or wire
        assert wire == expected, credit


def test_a_server_may_give_eight_and_give_them_anew():
    """[MQTT5-3.3.2-10]"""
    bench = online()
    for turn in range(2):
        for alias in range(1, 9):
            name = b"topic%d%d" % (turn, alias)
            packet = b"\x30\x0e\x00\x07" + name + b"\x03\x23\x00" + bytes((alias,)) + b"x"
            bench.exchange(packet)
            short = b"\x30\x07\x00\x00\x03\x23\x00" + bytes((alias,)) + b"y"
            bench.exchange(short)
            text = name.decode()
            assert bench.take_events() == [
                ("message", text, b"x", 0),
                ("message", text, b"y", 0),
            ]
    for alias in (8, 1, 1, 3):
        bench.exchange(b"\x30\x07\x00\x00\x03\x23\x00" + bytes((alias,)) + b"z")
        assert bench.take_events() == [("message", "topic1%d" % alias, b"z", 0)]


def test_they_mix_with_names_and_identifiers_and_properties():
    needs("qos2")
    bench = online()
    got = []
    bench.client.subscribe("a/+", lambda c, m: got.append((m.topic_name, m.payload, m.properties)))
    bench.steps()
    bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    bench.server.received()
    for packet, answer, expected in (
        (b"\x30\x09\x00\x03a/b\x03\x23\x00\x05", b"", ("a/b", b"", {})),
        (b"\x32\x09\x00\x00\x00\x09\x03\x23\x00\x05x", b"\x40\x02\x00\x09", ("a/b", b"x", {})),
        (b"\x30\x07\x00\x03a/c\x00y", b"", ("a/c", b"y", {})),
        (b"\x34\x09\x00\x00\x00\x07\x03\x23\x00\x05z", b"\x50\x02\x00\x07", ("a/b", b"z", {})),
        (b"\x30\x07\x00\x03a/b\x00y", b"", ("a/b", b"y", {})),
        (
            b"\x30\x09\x00\x00\x05\x01\x01\x23\x00\x05w",
            b"",
            ("a/b", b"w", {"payload_format_indicator": 1}),
        ),
    ):
        assert bench.exchange(packet) == answer, packet
        assert got == [expected], (packet, got)
        got.clear()


def test_a_subscription_that_came_later_takes_what_comes_by_an_alias():
    bench = online()
    bench.exchange(b"\x30\x09\x00\x03a/b\x03\x23\x00\x05")
    got = []
    bench.client.subscribe("a/#", lambda c, m: got.append(m.topic_name))
    bench.steps()
    bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    bench.take_events()
    bench.exchange(b"\x30\x07\x00\x00\x03\x23\x00\x05x")
    assert got == ["a/b"] and bench.take_events() == []
    bench.client.unsubscribe("a/#")
    bench.steps()
    bench.exchange(b"\xb0\x04\xff\x02\x00\x00")
    bench.exchange(b"\x30\x07\x00\x00\x03\x23\x00\x05x")
    assert got == ["a/b"] and bench.take_events() == [("message", "a/b", b"x", 0)]


def test_an_alias_that_was_never_given_or_is_none_ends_the_connection():
    """[MQTT5-3.3.2-7, -11] [MQTT5-3.1.2-26, -27] [MQTT5-4.13.1-1]"""
    known = b"\x30\x09\x00\x03a/b\x03\x23\x00\x01"
    for packet, code, maximum in (
        (b"\x30\x07\x00\x00\x03\x23\x00\x02x", 0x82, 8),
        (b"\x30\x07\x00\x00\x03\x23\x00\x00x", 0x94, 8),
        (b"\x30\x09\x00\x03a/b\x03\x23\x00\x00", 0x94, 8),
        (b"\x30\x09\x00\x03a/b\x03\x23\x00\x09", 0x94, 8),
        (b"\x30\x09\x00\x03a/b\x03\x23\x00\x03", 0x94, 2),
        (b"\x30\x09\x00\x00\x05\x01\x01\x23\x00\x09w", 0x94, 8),
        (b"\x30\x04\x00\x00\x00x", 0x82, 8),
        (b"\x30\x05\x00\x00\x03\x23\x00", 0x81, 8),  # one byte is lacking
    ):
        bench = online(properties={"topic_alias_maximum": maximum})
        bench.exchange(known)
        error, answer = refused(
            bench, packet if packet[1] + 2 == len(packet) else packet + b"\x00"
        )
        assert type(error) is mqttpipe.ServerError, packet
        assert answer == b"\xe0\x01" + bytes((code,)), (packet, answer)
    bench = online(clean_session=False, session_expiry_s=60)
    bench.exchange(known)
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.exchange(connack())
    error, _ = refused(bench, b"\x30\x07\x00\x00\x03\x23\x00\x01x")
    assert error.reason_code == 0x82, "it was the last connection's"


def test_a_message_that_is_passed_over_leaves_no_alias_to_the_name_before():
    """It is larger than we take, and may have given the alias to another topic name."""
    for qos, packet_id in ((0, b""), (1, b"\x00\x09")):
        bench = online(packet_bytes_max=64)
        first_byte = bytes((0x30 | qos << 1,))
        end = packet_id + b"\x03\x23\x00\x01"
        answer = b"\x40\x02" + packet_id if qos else b""
        bench.exchange(b"\x30\x0d\x00\x07valve/1\x03\x23\x00\x01")
        large = b"\x00\x07valve/2" + end + b"x" * (100 - len(end))
        assert bench.exchange(first_byte + b"\x6d" + large) == answer
        assert bench.client.is_online(), "that one alone is passed over"
        assert [one[0] for one in bench.take_events()] == ["message", "error"]
        error, _ = refused(bench, b"\x30\x07\x00\x00\x03\x23\x00\x01x")
        assert error.reason_code == 0x82 and "alias" in str(error)


def test_a_large_message_by_an_alias_alone_takes_none_away():
    for qos, packet_id in ((0, b""), (1, b"\x00\x09")):
        bench = online(packet_bytes_max=64)
        bench.exchange(b"\x30\x0d\x00\x07valve/1\x03\x23\x00\x01")
        large = b"\x00\x00" + packet_id + b"\x03\x23\x00\x01"
        bench.exchange(bytes((0x30 | qos << 1, 0x6A)) + large + b"x" * (0x6A - len(large)))
        bench.take_events()
        bench.exchange(b"\x30\x07\x00\x00\x03\x23\x00\x01x")
        assert bench.take_events() == [("message", "valve/1", b"x", 0)], qos


def test_a_large_message_without_an_alias_or_with_another_takes_no_alias_away():
    """The next message by its alias ended the connection, and the server was blamed."""
    for more in b"\x00", b"\x03\x23\x00\x02", b"\x07\x03\x00\x01c\x23\x00\x02":
        for qos, packet_id in ((0, b""), (1, b"\x00\x09")):
            bench = online(packet_bytes_max=64)
            bench.exchange(b"\x30\x0d\x00\x07valve/1\x03\x23\x00\x01")
            large = b"\x00\x07valve/2" + packet_id + more
            bench.exchange(bytes((0x30 | qos << 1, 0x6A)) + large + b"x" * (0x6A - len(large)))
            bench.take_events()
            bench.exchange(b"\x30\x07\x00\x00\x03\x23\x00\x01x")
            assert bench.take_events() == [("message", "valve/1", b"x", 0)], (more, qos)


def test_a_large_message_whose_properties_are_not_kept_or_wrong_takes_all_aliases_away():
    """It may have given any of them to another topic name."""
    pair = b"\x26\x00\x01k\x00\x32" + b"v" * 50
    for more in (
        bytes((len(pair) + 3,)) + pair + b"\x23\x00\x01",  # the kept part ends before
        b"\x03\x23\x00\x77",  # no alias of ours
        b"\x03\xff\x00\x01",
    ):
        bench = online(packet_bytes_max=64)
        for alias in b"\x01\x02":
            bench.exchange(b"\x30\x0d\x00\x07valve/1\x03\x23\x00" + bytes((alias,)))
        large = b"\x00\x07valve/2" + more
        bench.exchange(b"\x30\x6a" + large + b"x" * (0x6A - len(large)))
        assert bench.client.is_online()
        error, _ = refused(bench, b"\x30\x07\x00\x00\x03\x23\x00\x02x")
        assert error.reason_code == 0x82, more


def test_a_refused_message_leaves_no_alias_to_the_next():
    """A server over its quota may not have taken the alias in."""
    for qos, refusal in ((1, b"\x40\x03\x00\x01\x97"), (2, b"\x50\x03\x00\x01\x97")):
        bench = online(b"\x22\x00\x02")
        client = bench.client
        for payload in "xy":
            client.publish("topic", payload, qos)
            bench.steps()
        wire = bench.server.received()
        assert wire.count(b"\x00\x05topic") == 1 and wire.count(b"\x03\x23\x00\x01") == 2
        bench.exchange(refusal)
        for payload in "zz":
            client.publish("topic", payload, qos)
            bench.steps()
        wire = bench.server.received()
        assert wire.count(b"\x00\x05topic") == 1 and wire.count(b"\x03\x23\x00\x02") == 2, wire
        for topic_name in ("other", "others", "topic"):  # 1 and 2 go to others, and come back
            client.publish(topic_name, "")
            bench.steps()
        assert bench.server.received().count(b"\x23\x00\x01") == 2
