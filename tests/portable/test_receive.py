"""Receiving at each quality of service, and what a server must not send (3.3, 4.3)."""

import board_heap  # noqa: F401
from fakes import CONNACK_SESSION, Bench, needs, reconnect

import mqttpipe


def test_half_a_packet_that_does_not_go_on_ends_the_connection():
    bench = Bench(connect_timeout_ms=5000, keep_alive_s=0).go_online()
    bench.exchange(b"\x30\x07\x00\x03a/")
    bench.clock.advance(4000)
    bench.exchange(b"b")
    bench.clock.advance(4999)
    bench.steps()
    assert bench.take_events() == []
    bench.clock.advance(1)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "PACKET"


def test_received_messages_reach_the_callback_with_all_they_carry():
    bench = Bench().go_online()
    seen = []

    def on_message(client, message):
        seen.append((message.topic_name, message.payload, bytes(message.view), message.qos))
        seen.append((message.retain, message.dup))

    bench.client.on_message = on_message
    bench.exchange(b"\x31\x07\x00\x03a/bhi", b"\x3a\x07\x00\x01t\x00\x09hi", b"\x30\x03\x00\x01t")
    assert seen == [
        ("a/b", b"hi", b"hi", 0),
        (True, False),
        ("t", b"hi", b"hi", 1),
        (False, True),
        ("t", b"", b"", 0),
        (False, False),
    ]


def test_qos_1_is_acknowledged_after_the_callback():
    """[MQTT-2.3.1-6] [MQTT-4.3.2-2]"""
    bench = Bench().go_online()
    answered = []
    bench.client.on_message = lambda client, message: answered.append(bytes(client._outbox.buf))
    assert bench.exchange(b"\x32\x06\x00\x01t\x12\x34x") == b"\x40\x02\x12\x34"
    assert answered == [b""]


def test_qos_2_is_delivered_once_however_often_it_is_sent():
    """[MQTT-2.3.1-6] [MQTT-4.3.3-2]"""
    needs("qos2")
    bench = Bench().go_online()
    publish = b"\x34\x06\x00\x01t\x12\x34x"
    assert bench.exchange(publish) == b"\x50\x02\x12\x34"
    assert bench.exchange(b"\x3c\x06\x00\x01t\x12\x34x") == b"\x50\x02\x12\x34"
    assert bench.take_events() == [("message", "t", b"x", 2)]
    assert bench.exchange(b"\x62\x02\x12\x34") == b"\x70\x02\x12\x34"
    assert bench.exchange(b"\x62\x02\x12\x34") == b"\x70\x02\x12\x34"
    assert bench.exchange(publish) == b"\x50\x02\x12\x34"
    assert bench.take_events() == [("message", "t", b"x", 2)], "a new message, the same id"


def test_qos_2_stays_exactly_once_through_a_resumed_session():
    """[MQTT-4.1.0-1] [MQTT-4.3.3-2]"""
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    bench.exchange(b"\x34\x06\x00\x01t\x12\x34x")
    reconnect(bench, CONNACK_SESSION)
    assert bench.exchange(b"\x3c\x06\x00\x01t\x12\x34x") == b"\x50\x02\x12\x34"
    messages = [event for event in bench.take_events() if event[0] == "message"]
    assert len(messages) == 1


def test_publish_that_breaks_the_rules_closes_the_connection():
    """[MQTT-2.3.1-1] [MQTT-3.3.1-4] [MQTT-4.7.3-1] [MQTT-4.8.0-1]"""
    for wire in (
        b"\x30\x00",
        b"\x30\x01\x00",
        b"\x30\x02\x00\x00",  # empty topic name
        b"\x30\x04\x00\x05ab",  # topic name longer than the packet
        b"\x32\x03\x00\x01t",  # QoS 1 without identifier
        b"\x32\x05\x00\x01t\x00\x00",  # identifier 0
        b"\x36\x05\x00\x01t\x00\x01",  # QoS 3
    ):
        bench = Bench().go_online()
        bench.exchange(wire)
        error = bench.error()
        assert type(error) is mqttpipe.ServerError, (wire, error)
        assert bench.server.is_closed


def test_a_message_too_large_is_dropped_acknowledged_and_reported():
    """[MQTT-4.5.0-2]"""
    needs("stats")
    bench = Bench(packet_bytes_max=64).go_online()
    big = b"\x32\xc8\x01\x00\x01t\x00\x07" + b"x" * 195
    assert bench.exchange(big, b"\x30\x04\x00\x01ty") == b"\x40\x02\x00\x07"
    (name, error), message = bench.take_events()
    assert name == "error" and "200 bytes" in str(error) and "64" in str(error)
    assert message == ("message", "t", b"y", 0)
    assert bench.client.stats["too_large"] == 1 and bench.client.is_online()


def test_without_room_for_an_acknowledgement_the_server_has_to_wait():
    bench = Bench(packet_bytes_max=64).go_online()
    bench.server.write_credit = 0
    wire = b"\x32\x06\x00\x01t\x00\x01x"
    for _ in range(40):
        bench.server.send(wire)
    bench.steps()
    assert len(bench.server.to_client) > 20 * len(wire), "it read on without room to answer"
    bench.server.write_credit = 1 << 20
    bench.steps()
    assert bench.server.received() == b"\x40\x02\x00\x01" * 40


def test_a_flood_from_the_server_does_not_hold_up_step_or_publishing():
    needs("stats")
    bench = Bench().go_online()
    for _ in range(500):
        bench.server.send(b"\x30\x04\x00\x01tx")
    bench.client.publish("t", b"y")
    bench.client.step()
    assert bench.server.received() == b"\x30\x04\x00\x01ty"
    received = bench.client.stats["received"]
    assert 0 < received < 100, received


def test_a_large_payload_passes_in_pieces():
    bench = Bench(packet_bytes_max=1400).go_online()
    payload = bytes(range(256)) * 5
    bench.server.write_max = 700
    token = bench.client.publish("t", payload, qos=1)
    bench.steps()
    assert bench.server.received() == b"\x32\x85\x0a\x00\x01t\x00\x01" + payload
    bench.server.read_max = 999
    bench.exchange(b"\x40\x02\x00\x01", b"\x30\x83\x0a\x00\x01t" + payload)
    assert bench.take_events() == [("published", token), ("message", "t", payload, 0)]


def test_a_topic_name_that_is_not_utf_8_closes_the_connection():
    """[MQTT-1.5.3-1] and [MQTT-1.5.3-2]"""
    for topic in (b"\xff", b"a\x00b", b"\xed\xa0\x80", b"\xc3"):
        bench = Bench().go_online()
        bench.exchange(bytes((0x30, 2 + len(topic), 0, len(topic))) + topic)
        error = bench.error()
        assert type(error) is mqttpipe.ServerError and "1.5.3" in str(error), topic
    bench = Bench().go_online()
    bench.exchange(b"\x30\x06\x00\x03\xc3\xa9t!")
    assert bench.take_events() == [("message", "\u00e9t", b"!", 0)]


def test_many_qos_2_messages_at_once_are_each_delivered_once():
    """One more than the client remembers is not delivered, and the server keeps it."""
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    seen = []
    bench.client.on_message = lambda client, message: seen.append(
        message.view[0] << 8 | message.view[1]
    )

    def publish(first, last, first_byte):
        for packet_id in range(first, last + 1):
            number = bytes((packet_id >> 8, packet_id & 0xFF))
            bench.server.send(bytes((first_byte, 7, 0, 1, 0x74)) + number + number)
            if not packet_id % 64:
                bench.steps()
        bench.steps()

    publish(1, 257, 0x34)
    assert seen == list(range(1, 257)), len(seen)
    error = bench.take_events()[0][1]
    assert type(error) is mqttpipe.TransportError and "256" in str(error)
    bench.exchange(CONNACK_SESSION)
    publish(1, 256, 0x3C)
    for packet_id in range(1, 257):
        bench.server.send(bytes((0x62, 2, packet_id >> 8, packet_id & 0xFF)))
        if not packet_id % 64:
            bench.steps()
    publish(257, 257, 0x3C)
    # Without a list to compare with: a board's heap may have no place for another of this size.
    assert len(seen) == 257 and all(number == i + 1 for i, number in enumerate(seen))
    assert bench.client.is_online()
    assert bench.client._received == [0, 257]


def test_a_topic_name_too_long_for_the_buffer_is_dropped_and_acknowledged():
    """Anybody may publish such a message: it must not keep the client away."""
    topic = b"t" * 200
    for wire, reply in (
        (b"\x30\xcb\x01\x00\xc8" + topic + b"p", b""),
        (b"\x32\xcd\x01\x00\xc8" + topic + b"\x12\x34p", b"\x40\x02\x12\x34"),
        (b"\x34\xcd\x01\x00\xc8" + topic + b"\x12\x34p", b"\x50\x02\x12\x34"),
    ):
        for read_max in (1, 7, 61, 1000):
            bench = Bench(packet_bytes_max=64).go_online()
            bench.server.read_max = read_max
            assert bench.exchange(wire, b"\x30\x04\x00\x01ty") == reply, (wire, read_max)
            (name, _), message = bench.take_events()
            assert name == "error" and message == ("message", "t", b"y", 0)
    for length in range(57, 64):  # the identifier on both sides of the buffer's end
        bench = Bench(packet_bytes_max=64).go_online()
        wire = bytes((0x32, length + 5, 0, length)) + b"t" * length + b"\x12\x34p"
        assert bench.exchange(wire) == b"\x40\x02\x12\x34", length


def test_a_message_too_large_whose_identifier_is_cut_off_is_not_acknowledged():
    """[MQTT-4.8.0-1] Half of it was there, and was taken for all of it."""
    for topic_bytes in (96, 97, 98):  # remaining length 100: it fits, but for one byte, or both
        bench = Bench(packet_bytes_max=64).go_online()
        wire = b"\x32\x64\x00" + bytes((topic_bytes,)) + b"t" * topic_bytes + b"\x12\x34"
        answer = bench.exchange(wire[:102])
        if topic_bytes == 96:
            assert answer == b"\x40\x02\x12\x34" and bench.client.is_online()
        else:
            assert answer == b"" and bench.server.is_closed, (topic_bytes, answer)


def test_ctrl_c_in_a_callback_does_not_keep_back_the_acknowledgement():
    bench = Bench().go_online()

    def on_message(client, message):
        raise KeyboardInterrupt

    bench.client.on_message = on_message
    bench.server.send(b"\x32\x05\x00\x01t\x00\x07")
    try:
        bench.client.step()
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("Ctrl-C is lost")
    assert bench.server.received() == b"\x40\x02\x00\x07", "it has left in the same step"
    bench.steps()
    assert bench.client.is_online() and bench.take_events() == []


def test_many_topic_names_in_turn_each_reach_their_own_callbacks():
    """The last few are known; what is known of them is forgotten when a filter changes."""
    bench = Bench().go_online()
    seen = []

    def taker(name):
        return lambda client, message: seen.append((name, message.topic_name, message.payload))

    bench.client.subscribe("a/+", taker("+"))
    bench.client.subscribe("a/1", taker("1"))
    bench.steps()
    bench.exchange(b"\x90\x03\xff\x01\x00\x90\x03\xff\x02\x00")
    for turn in range(3):
        for i in range(12):
            name = b"a/%d" % i
            payload = b"%d" % (turn * 12 + i)
            size = 2 + len(name) + len(payload)
            bench.exchange(bytes((0x30, size, 0, len(name))) + name + payload)
            expected = [("+", "a/%d" % i, payload)]
            if i == 1:
                expected.append(("1", "a/1", payload))
            assert seen == expected, (turn, i, seen)
            seen.clear()
    # One name that begins like another, and one that ends like it.
    bench.take_events()
    bench.exchange(b"\x30\x04\x00\x02a/", b"\x30\x06\x00\x03a/1x", b"\x30\x06\x00\x04a/1x")
    assert [entry[1:] for entry in seen] == [
        ("a/", b""),
        ("a/1", b"x"),
        ("a/1", b"x"),
        ("a/1x", b""),
    ]
    seen.clear()
    bench.client.unsubscribe("a/1")
    bench.steps()
    bench.exchange(b"\xb0\x02\xff\x03", b"\x30\x06\x00\x03a/1y")
    assert seen == [("+", "a/1", b"y")]
    bench.client.subscribe("#", taker("#"))
    bench.exchange(b"\x30\x06\x00\x03a/1z")
    assert seen[1:] == [("+", "a/1", b"z"), ("#", "a/1", b"z")], "at once, before SUBACK"


def test_slow_callbacks_send_what_is_owed_before_the_next_message():
    """Ten of one second each, with a keep alive of four: PINGREQ and PUBACK leave in between."""
    bench = Bench(keep_alive_s=4, connect_timeout_ms=4000).go_online()
    longest_ms = [0]
    spoken_ms = [bench.clock.now_ms]

    def on_message(client, message):
        if bench.server.from_client:
            spoken_ms[0] = bench.clock.now_ms
            bench.server.from_client = bytearray()
        bench.clock.advance(1000)
        longest_ms[0] = max(longest_ms[0], bench.clock.now_ms - spoken_ms[0])

    bench.client.on_message = on_message
    for i in range(10):
        bench.server.send(b"\x32\x06\x00\x01t\x00" + bytes((1 + i, 0x78)))
    bench.steps()
    assert longest_ms[0] <= 2000, longest_ms
    assert bench.client.is_online() and bench.take_events() == []
    sent = []
    for _ in range(12):
        bench.server.send(b"\x30\x04\x00\x01tx")
        bench.client.step()
        sent.append(bench.server.received())
        if sent[-1] == b"\xc0\x00":
            bench.server.send(b"\xd0\x00")
    assert sent.count(b"\xc0\x00") == 3, sent
    bench.steps()
    assert bench.client.is_online()


def test_a_packet_in_two_pieces_after_a_long_sleep_has_its_full_time():
    bench = Bench(connect_timeout_ms=5000, keep_alive_s=0).go_online()
    bench.clock.advance(60_000)
    bench.exchange(b"\x30\x04\x00")
    bench.clock.advance(4999)
    bench.exchange(b"\x01tx")
    assert bench.take_events() == [("message", "t", b"x", 0)]


def test_the_round_trip_of_a_ping_is_measured():
    needs("stats")
    bench = Bench(keep_alive_s=10).go_online()
    bench.clock.advance(10_000)
    bench.steps()
    bench.clock.advance(123)
    bench.exchange(b"\xd0\x00")
    assert bench.client.stats["ping_ms"] == 123
