"""Strings of the protocol, both ways (sections 1.5.3 and 4.7.3)."""

import board_heap  # noqa: F401
from fakes import Bench, raises
from offences import check_closes, publish_of

import mqttpipe

LocalError = mqttpipe.LocalError

# Not UTF-8 in the sense of RFC 3629.
ILL_FORMED = (
    b"\x80",  # goes on with what has not begun
    b"a\xc3",  # begins and does not go on
    b"\xe2\x82",
    b"\xc3a",
    b"\xed\xa0\x80",  # U+D800
    b"\xed\xbf\xbf",  # U+DFFF
    b"\xff",
)
# The same, and MicroPython's own decoder takes them.
ILL_FORMED_HARDER = (
    b"\xc0\x80",  # U+0000 in two bytes
    b"\xc1\xbf",  # U+007F in two bytes
    b"\xe0\x9f\xbf",  # U+07FF in three
    b"\xf0\x8f\xbf\xbf",  # U+FFFF in four
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xf5\x80\x80\x80",
)
# The first and the last of each length, and both sides of the surrogates.
WELL_FORMED = (
    b"\x01",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
)


def check_all_strings_refuse(texts):
    client = Bench().client
    for text in texts:
        for options in (dict(client_id=text), dict(user=text), dict(will=(text, b"", 0, False))):
            raises(LocalError, mqttpipe.MQTTClient, "mqtt://h", **options)
        raises(LocalError, client.publish, text, b"")
        raises(LocalError, client.subscribe, text)
        raises(LocalError, client.unsubscribe, text)
    assert client.publish("t", b"") == 1, "nothing was queued"


def test_every_string_must_be_well_formed_utf_8():
    """[MQTT-1.5.3-1] [MQTT-3.1.3-4, -10, -11] [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1]"""
    check_all_strings_refuse(ILL_FORMED)
    client = Bench().client
    for text in WELL_FORMED:
        client.publish(text, b"")
        client.subscribe(text)
        mqttpipe.MQTTClient("mqtt://h", client_id=text, user=text, will=(text, b"", 0, False))


def test_the_user_name_of_a_uri_is_looked_at_like_any_other():
    """[MQTT-1.5.3-1, -2] [MQTT-3.1.3-11]: percent-encoding can say any byte."""
    for text in ("%ff", "%c3", "%ed%a0%80", "%00", "a%00b"):
        raises(LocalError, mqttpipe.MQTTClient, "mqtt://%s@h" % text)
        raises(LocalError, mqttpipe.MQTTClient, ["mqtt://h", "mqtt://%s:p@h" % text])
    mqttpipe.MQTTClient("mqtt://%c3%a9:%ff%00@h")  # a password is binary


def test_utf_8_that_is_longer_than_need_be_is_refused():
    """[MQTT-1.5.3-1]"""
    check_all_strings_refuse(ILL_FORMED_HARDER)


def test_no_string_may_hold_u_0000():
    """[MQTT-1.5.3-2] [MQTT-4.7.3-2]"""
    check_all_strings_refuse((b"\0", b"a\0b", "a\0b"))


def test_a_topic_name_received_must_be_well_formed_utf_8():
    """[MQTT-1.5.3-1]"""
    for topic_name in ILL_FORMED:
        check_closes(publish_of(topic_name))


def test_a_topic_name_received_longer_than_need_be_closes_the_connection():
    """[MQTT-1.5.3-1]"""
    for topic_name in ILL_FORMED_HARDER:
        check_closes(publish_of(topic_name))


def test_a_topic_name_received_with_u_0000_closes_the_connection():
    """[MQTT-1.5.3-2] [MQTT-4.7.3-2]"""
    check_closes(publish_of(b"a\0b"))


def test_the_byte_order_mark_is_a_character_like_others():
    """[MQTT-1.5.3-3]"""
    bench = Bench().go_online()
    seen = []
    bench.client.subscribe("t", lambda client, message: seen.append(1))
    bench.client.publish("\ufefft", b"")
    bench.steps()
    assert bench.server.received() == b"\x82\x06\xff\x01\x00\x01t\x00\x30\x06\x00\x04\xef\xbb\xbft"
    bench.take_events()
    bench.exchange(publish_of(b"\xef\xbb\xbft"))
    assert bench.take_events() == [("message", "\ufefft", b"", 0)] and not seen
