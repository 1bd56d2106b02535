"""MQTT 5.0: SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK (sections 3.8 to 3.11, 4.8.2)."""

from fakes import ECONNRESET, Bench, has_memory, needs, raises
from mqtt5 import connack, online, refused

import mqttpipe


def sent(bench, *arguments, **options):
    bench.client.subscribe(*arguments, **options)
    bench.steps()
    return bench.server.received()


def test_the_options_of_a_subscription():
    """[MQTT5-3.8.1-1] [MQTT5-3.8.3-1, -2, -5] [MQTT5-2.2.1-3] [MQTT5-2.2.2-1]"""
    for options, bits in (
        (dict(), 0x00),
        (dict(qos=1), 0x01),
        (dict(no_local=True), 0x04),
        (dict(retain_as_published=True), 0x08),
        (dict(retain_handling=1), 0x10),
        (dict(retain_handling=2, no_local=True, retain_as_published=True, qos=1), 0x2D),
    ):
        wire = sent(online(), "a/+", **options)
        assert wire == b"\x82\x09\xff\x01\x00\x00\x03a/+" + bytes((bits,)), options


def test_the_properties_of_a_subscription():
    identified = {"subscription_identifier": 268435455}
    wire = sent(online(), "a", properties=identified)
    assert wire == b"\x82\x0c\xff\x01\x05\x0b\xff\xff\xff\x7f\x00\x01a\x00"
    wire = sent(online(), "a", properties={"user_property": [("k", "v")]})
    assert wire == b"\x82\x0e\xff\x01\x07\x26\x00\x01k\x00\x01v\x00\x01a\x00"
    bench = online()
    bench.client.unsubscribe("a", properties={"user_property": [("k", "v")]})
    bench.client.unsubscribe("b")
    bench.steps()
    assert bench.server.received() == (
        b"\xa2\x0d\xff\x01\x07\x26\x00\x01k\x00\x01v\x00\x01a\xa2\x06\xff\x02\x00\x00\x01b"
    ), "[MQTT5-3.10.1-1] [MQTT5-3.10.3-1, -2]"


def test_they_are_asked_for_in_the_same_way_when_the_session_is_lost():
    bench = online()
    options = dict(no_local=True, properties={"subscription_identifier": 7})
    wire = sent(bench, "a", **options)
    assert wire == b"\x82\x09\xff\x01\x02\x0b\x07\x00\x01a\x04"
    bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(connack()) == b"\x82\x09\xff\x02\x02\x0b\x07\x00\x01a\x04"


# A board's heap has no room for so much, or the test would not be about it.
LONG = "a" * 65536 if has_memory(400_000) else ""


def test_wrong_options_are_local_errors():
    """[MQTT5-3.8.3-4] [MQTT5-4.8.2-1, -2] [MQTT5-4.7.1-1, -2] [MQTT5-4.7.3-1, -2, -3]"""
    bench = online()
    for topic_filter, options in (
        ("a", dict(no_local=2)),
        ("a", dict(retain_as_published="x")),
        ("a", dict(retain_handling=3)),
        ("a", dict(retain_handling=True)),
        ("a", dict(properties={"subscription_identifier": 0})),
        ("a", dict(properties={"content_type": "x"})),
        ("$share/g/a", dict(no_local=True)),
        ("$share//a", {}),
        ("$share/g", {}),
        ("$share/g/", {}),
        ("$share/+/a", {}),
        ("$share/#", {}),
        ("a/#/b", {}),
        ("a+", {}),
        ("", {}),
        ("a\0", {}),
        (LONG, {}),
    ):
        raises(mqttpipe.LocalError, bench.client.subscribe, topic_filter, **options)
    raises(mqttpipe.LocalError, bench.client.unsubscribe, "a", {"subscription_identifier": 1})
    assert sent(bench, "$share/g/a/#", None, 1) == b"\x82\x12\xff\x01\x00\x00\x0c$share/g/a/#\x01"
    bench = Bench()
    for options in (
        dict(no_local=True),
        dict(retain_handling=1),
        dict(properties={}),
    ):
        raises(mqttpipe.LocalError, bench.client.subscribe, "a", **options)


# Each reason code of SUBACK from 0x80 on (table 3-8).
REFUSALS = (
    (0x80, "unspecified error"),
    (0x83, "implementation specific error"),
    (0x87, "not authorized"),
    (0x8F, "topic filter invalid"),
    (0x91, "packet identifier in use"),
    (0x97, "quota exceeded"),
    (0x9E, "shared subscriptions not supported"),
    (0xA1, "subscription identifiers not supported"),
    (0xA2, "wildcard subscriptions not supported"),
)


def test_each_reason_code_of_a_suback():
    """[MQTT5-2.2.1-6] [MQTT5-3.9.3-2]"""
    for code in (0, 1, 2):
        bench = online()
        bench.client.subscribe("a", None, 1)
        bench.exchange()
        bench.exchange(bytes((0x90, 4, 0xFF, 1, 0, code)))
        assert bench.take_events() == [("subscribed", 1, bytes((code,)))]
        assert bench.client.is_done(1) and not bench.client.was_refused(1)
    for code, words in REFUSALS:
        bench = online()
        bench.client.subscribe("a/b", None, 1)
        bench.exchange()
        bench.exchange(bytes((0x90, 8, 0xFF, 1, 4, 0x1F, 0, 1, 0x6E, code)))
        (name, error), subscribed = bench.take_events()
        assert name == "error" and type(error) is mqttpipe.Refused
        assert (error.token, error.reason_code, error.reason) == (1, code, "n")
        assert words in str(error) and "a/b" in str(error)
        assert subscribed == ("subscribed", 1, bytes((code,)))
        assert bench.client.is_done(1) and bench.client.was_refused(1) and bench.client.is_online()
    for code in (0x03, 0x7F, 0x11):
        bench = online()
        bench.client.subscribe("a")
        bench.exchange()
        error, answer = refused(bench, bytes((0x90, 4, 0xFF, 1, 0, code)))
        assert type(error) is mqttpipe.ServerError and answer == b"\xe0\x01\x82"


def keep(payloads):
    return lambda client, message: payloads.append(message.payload)


def test_each_reason_code_of_an_unsuback():
    """[MQTT5-2.2.1-6]"""
    for code in (0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91):
        bench = online()
        got = []
        bench.client.subscribe("a", keep(got))
        bench.exchange()
        bench.exchange(b"\x90\x04\xff\x01\x00\x00")
        bench.client.unsubscribe("a")
        bench.exchange()
        bench.take_events()
        bench.exchange(bytes((0xB0, 4, 0xFF, 2, 0, code)))
        events = bench.take_events()
        assert bench.client.is_done(2)
        bench.exchange(b"\x30\x05\x00\x01a\x00x")
        if code < 0x80:
            assert events == [] and got == [] and bench.take_events()[0][0] == "message", code
        else:
            ((name, error),) = events
            assert name == "error" and (error.token, error.reason_code) == (2, code)
            assert got == [b"x"], "the subscription stands"
    bench = online()
    bench.client.unsubscribe("a")
    bench.exchange()
    refused(bench, b"\xb0\x04\xff\x01\x00\x12")


def test_an_answer_that_nothing_waits_for_is_passed_over():
    bench = online()
    assert (
        bench.exchange(b"\x90\x04\xff\x01\x00\x00\xb0\x04\xff\x01\x00\x00\x90\x04\x00\x01\x00\x00")
        == b""
    )
    assert bench.client.is_online() and bench.take_events() == []


LACKS = (
    (b"\x28\x00", 0xA2, dict(topic_filter="a/+")),
    (b"\x28\x00", 0xA2, dict(topic_filter="#")),
    (b"\x29\x00", 0xA1, dict(topic_filter="a", properties={"subscription_identifier": 1})),
    (b"\x2a\x00", 0x9E, dict(topic_filter="$share/g/a")),
    (b"\x27\x00\x00\x00\x40", 0x95, dict(topic_filter="a" * 60)),
)


def test_what_the_server_has_not_is_refused_at_the_call():
    for properties, _, options in LACKS:
        bench = online(properties)
        raises(mqttpipe.LocalError, bench.client.subscribe, **options)
        assert sent(bench, "plain") == b"\x82\x0b\xff\x01\x00\x00\x05plain\x00"
        wire = sent(online(), **options)
        assert wire[0] == 0x82, "another one has it"


def test_or_told_if_it_was_queued_before():
    needs("mqtt5")
    for properties, code, options in LACKS:
        bench = Bench(protocol=5)
        bench.client.subscribe(**options)
        bench.client.subscribe("plain")
        bench.client.connect()
        bench.steps()
        bench.server.received()
        assert bench.exchange(connack(properties)) == b"\x82\x0b\xff\x01\x00\x00\x05plain\x00"
        connected, (name, error) = bench.take_events()
        assert name == "error" and (error.token, error.reason_code) == (1, code)
        assert bench.client.is_done(1) and bench.client.was_refused(1)
        bench.exchange(b"\x90\x04\xff\x01\x00\x00")
        assert bench.client.is_online(), "nothing waits for it"
        bench.take_events()
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        bench.server.received()
        assert bench.exchange(connack()).count(b"\x82") == 2, "the next server is asked"
        assert [one for one in bench.take_events() if one[0] == "error"] == []


def test_many_of_them_are_told_a_few_in_each_step():
    needs("mqtt5")
    bench = Bench(protocol=5)
    count = 100 if has_memory(400_000) else 40
    for i in range(count):
        bench.client.subscribe("a/%d/#" % i)
    bench.client.subscribe("plain")
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.take_events()
    bench.server.send(connack(b"\x28\x00"))
    told = []
    while len(told) < count:
        assert bench.client.step(), "it goes on by itself"
        events = [one for one in bench.take_events() if one[0] == "error"]
        assert len(events) <= 16, len(events)
        told += [one[1].token for one in events]
    assert told == list(range(1, count + 1))
    bench.steps()
    wire = bench.server.received()
    assert wire == b"\x82\x0b\xff\x01\x00\x00\x05plain\x00", wire


def test_or_told_if_another_server_had_granted_it():
    for properties, code, options in LACKS:
        bench = online(reconnect_max_ms=1000)
        bench.client.subscribe(**options)
        bench.steps()
        bench.exchange(b"\x90\x04\xff\x01\x00\x00")
        for _ in range(2):
            bench.server.error = ECONNRESET
            bench.steps()
            bench.clock.advance(1000)
            bench.steps()
            bench.take_events()
            bench.exchange(connack(properties))
            errors = [one[1] for one in bench.take_events() if one[0] == "error"]
            assert [(one.token, one.reason_code) for one in errors] == [(1, code)]
            assert bench.client.was_refused(1)


SIXTY_FOUR = b"\x27\x00\x00\x00\x40"  # its Maximum Packet Size


def test_a_packet_that_just_fits_the_server_is_sent_and_one_byte_more_is_refused_in_its_name():
    """No larger packet_bytes_max would help; with our own as the smaller one it does."""
    for properties, options, words in (
        (SIXTY_FOUR, {}, "the server says: packet too large: "),
        (b"", {"packet_bytes_max": 64}, "of 65 bytes does not fit: raise packet_bytes_max, 64"),
    ):
        bench = online(properties, **options)
        client = bench.client
        assert len(sent(bench, "f" * 56)) == 64
        error = raises(mqttpipe.LocalError, client.subscribe, "f" * 57)
        assert words in error, error
        client.unsubscribe("f" * 57)
        bench.steps()
        assert len(bench.server.received()) == 64
        error = raises(mqttpipe.LocalError, client.unsubscribe, "f" * 58)
        assert words in error, error
        if words.endswith(" "):
            assert error.endswith("UNSUBSCRIBE of 65 bytes, at most 64"), error
        client.publish("a", "x" * 58)
        bench.steps()
        assert len(bench.server.received()) == 64
        error = raises(mqttpipe.LocalError, client.publish, "a", "x" * 59)
        assert words in error, error
        reason = {"reason_string": "x" * 58}
        error = raises(mqttpipe.LocalError, client.disconnect, 0, reason)
        assert words in error, error
        reason["reason_string"] = "x" * 57
        client.disconnect(0, reason)


def test_an_unsubscribe_that_the_server_does_not_take_is_refused_at_the_call():
    """[MQTT5-3.2.2-15] Its properties count; one byte less is sent."""
    bench = online(SIXTY_FOUR)
    for topic_filter, properties in (
        ("a" * 58, None),
        ("a", {"user_property": [("k", "v" * 51)]}),
        ("a", {"user_property": [("k", "v" * 300)]}),
    ):
        error = raises(mqttpipe.LocalError, bench.client.unsubscribe, topic_filter, properties)
        assert "large" in error, error
    bench.steps()
    assert bench.server.received() == b""
    bench.client.unsubscribe("a", {"user_property": [("k", "v" * 50)]})
    bench.steps()
    wire = bench.server.received()
    assert len(wire) == 64 and wire.endswith(b"v\x00\x01a"), wire


def test_an_unsubscribe_from_before_the_server_said_so_is_told_and_over():
    """[MQTT5-3.2.2-15] It is not sent at the next CONNACK either, and the session goes on."""
    needs("mqtt5")
    bench = online(clean_session=False, session_expiry_s=60, reconnect_max_ms=1000)
    bench.server.error = ECONNRESET
    bench.steps()
    bench.client.unsubscribe("x" * 200)
    bench.client.unsubscribe("y")
    for small in (b"\xa2\x06\xff\x01\x00\x00\x01y", b""):
        bench.clock.advance(1000)
        bench.steps()
        bench.server.received()
        bench.take_events()
        assert bench.exchange(connack(SIXTY_FOUR, 1)) == small
        errors = [one[1] for one in bench.take_events() if one[0] == "error"]
        told = [(one.token, one.reason_code) for one in errors]
        assert told == ([(1, 0x95)] if small else []), told
        assert bench.client.is_done(1) and not bench.client.was_refused(1)
        bench.exchange(b"\xb0\x04\xff\x01\x00\x00")
        assert bench.client.is_online(), "nothing waits for it"
        bench.server.error = ECONNRESET
        bench.steps()


def test_a_session_that_is_there_is_not_subscribed_to_again():
    """[MQTT5-4.1.0-1] [MQTT5-3.1.2-23]"""
    needs("mqtt5")
    bench = online(clean_session=False, session_expiry_s=60)
    bench.client.subscribe("a")
    bench.exchange()
    bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(connack(flags=1)) == b"" and bench.client.is_online()


def test_a_callback_is_found_by_the_identifier_of_its_last_call_or_else_by_its_filter():
    """[MQTT5-3.3.4-3, -4, -5]"""
    named = {"user_property": [("k", "v")]}
    seven = {"subscription_identifier": 7}
    for first, last, more in ((named, named, b"\x00"), (seven, seven, b"\x02\x0b\x07")):
        bench = online()
        seen = []
        for name, properties in (("f", first), ("g", last)):
            bench.client.subscribe(
                "a", lambda c, m, n=name, s=seen: s.append(n), properties=properties
            )
        bench.steps()
        for suback in (b"", b"\x90\x04\xff\x01\x00\x00", b"\x90\x04\xff\x02\x00\x00"):
            bench.exchange(suback)
            bench.exchange(bytes((0x30, 4 + len(more))) + b"\x00\x01a" + more + b"x")
        assert seen == ["g", "g", "g"], more


def test_a_message_with_an_identifier_that_is_ours_no_more_goes_by_its_topic_name():
    """Of the subscription that another has replaced, or from before a reset of this device."""
    bench = online()
    seen = []
    for identifier in (1, 2):
        bench.client.subscribe(
            "a",
            lambda client, message, by=identifier: seen.append((by, message.payload)),
            properties={"subscription_identifier": identifier},
        )
        bench.steps()
    bench.server.received()
    bench.exchange(b"\x30\x07\x00\x01a\x02\x0b\x01x", b"\x30\x07\x00\x01a\x02\x0b\x02y")
    assert seen == [(2, b"x"), (2, b"y")]
    bench.exchange(b"\x30\x07\x00\x01b\x02\x0b\x01z")
    assert bench.take_events() == [("message", "b", b"z", 0)], "nobody's"


def test_an_answer_without_properties_or_code_is_malformed():
    """As MQTT 3.1.1 has UNSUBACK, and as none has SUBACK; whether it was asked for or not."""
    for packet in (
        b"\x90\x02\xff\x01",
        b"\x90\x02\xff\x09",
        b"\xb0\x02\xff\x01",
        b"\xb0\x02\xff\x09",
    ):
        bench = online()
        if packet[0] == 0x90:
            bench.client.subscribe("a")
        else:
            bench.client.unsubscribe("a")
        bench.steps()
        error, answer = refused(bench, packet)
        assert type(error) is mqttpipe.ServerError and answer == b"\xe0\x01\x81", (packet, error)
