"""Wrong arguments raise LocalError at the call, name the value and the rule, change nothing."""

from fakes import Bench, SkipTest, has_memory, needs, raises

import mqttpipe

LocalError = mqttpipe.LocalError


def new(uri="mqtt://h", **options):
    return mqttpipe.MQTTClient(uri, **options)


def test_uris_are_taken_apart():
    needs("tls")
    cases = (
        ("mqtt://broker.example", ("broker.example", 1883, None, None, False)),
        ("MQTT://broker.example", ("broker.example", 1883, None, None, False)),
        ("tcp://broker.example:1884", ("broker.example", 1884, None, None, False)),
        ("mqtt://broker.example/", ("broker.example", 1883, None, None, False)),
        ("mqtt://192.0.2.7:65535", ("192.0.2.7", 65535, None, None, False)),
        ("mqtt://[2001:db8::1]", ("2001:db8::1", 1883, None, None, False)),
        ("mqtt://[::1]:1884", ("::1", 1884, None, None, False)),
        ("mqtt://user@h", ("h", 1883, b"user", None, False)),
        ("mqtt://user:@h", ("h", 1883, b"user", b"", False)),
        ("mqtt://user:se%3Acr%40t@h:1", ("h", 1, b"user", b"se:cr@t", False)),
        ("mqtt://us%C3%A9r:p:q@h", ("h", 1883, b"us\xc3\xa9r", b"p:q", False)),
        ("mqtts://h", ("h", 8883, None, None, True)),
        ("SSL://u@[::1]:1", ("::1", 1, b"u", None, True)),
    )
    for uri, expected in cases:
        assert mqttpipe.parse_uri(uri) == expected, uri


def test_a_bad_uri_is_refused_with_its_reason():
    needs("tls", "failover", "resolver")
    cases = (
        ("broker.example", "'broker.example'"),
        ("localhost:1883", "'localhost:1883'"),
        ("", "''"),
        ("user:word@host", "'***@host'"),
        ("mqtts://", "host"),
        ("http://h", "http://h"),
        ("mqtt://", "host"),
        ("mqtt://:1883", "host"),
        ("mqtt://h:0", "1..65535"),
        ("mqtt://h:65536", "65536"),
        ("mqtt://h:x", "1..65535"),
        ("mqtt://h:", "1..65535"),
        ("mqtt://h/path", "h/path"),
        ("mqtt://a b", "a b"),
        ("mqtt://a..b", "1..63 bytes"),
        ("mqtt://" + "x" * 64, "1..63 bytes"),
        ("mqtt://[::1", "[::1]"),
        ("mqtt://[h]", "[::1]"),
        ("mqtt://[::1]x", "[::1]"),
        ("mqtt://u%4:p@h", "hex"),
        ("mqtt://u%zz@h", "hex"),
        (b"mqtt://h", "bytes"),
        (None, "NoneType"),
        ([], "empty"),
        (["mqtt://h", "nonsense"], "nonsense"),
    )
    for uri, part in cases:
        message = raises(LocalError, new, uri)
        assert part in message, (uri, message)


def test_no_error_about_a_uri_tells_the_password():
    for uri in (
        "mqtt://me:topsecret@h:99999",
        "http://me:topsecret@h",
        "me:topsecret@h",
        "mqtt://me:topsecret%@h",
        "mqtt://me:topsecret@",
        "mqtt://me:top@secret@h:0",
    ):
        message = raises(LocalError, new, uri)
        assert "secret" not in message and "me:" not in message, message


def test_what_this_build_lacks_is_refused_and_not_ignored():
    lacking = mqttpipe.__version__.partition("+no.")[2].split(".")
    if "offline" in lacking:
        for options in (dict(offline="latest"), dict(pipe_bytes_max=100)):
            assert "not in this build" in raises(LocalError, new, **options)
        publish = new().publish
        assert "not in this build" in raises(LocalError, publish, "t", b"", 0, False, "refuse")
    if "failover" in lacking:
        assert "not in this build" in raises(LocalError, new, ["mqtt://h"])
    if "tls" in lacking:
        assert "not in this build" in raises(LocalError, new, "mqtts://h")


def test_the_constructor_refuses_what_is_out_of_range():
    """[MQTT-3.1.2-14, -22] [MQTT-3.1.3-4, -7]"""
    cases = (
        (dict(keep_alive_s=-1), "keep_alive_s is -1"),
        (dict(keep_alive_s=65536), "0..65535"),
        (dict(keep_alive_s="60"), "'60'"),
        (dict(packet_bytes_max=63), "64.."),
        (dict(packet_bytes_max=268435461), "268435460"),
        (dict(pipe_slots=0), "1..1000"),
        (dict(in_flight_max=0), "1..200"),
        (dict(connect_timeout_ms=0), "connect_timeout_ms"),
        (dict(reconnect_min_ms=-1), "reconnect_min_ms"),
        (dict(reconnect_min_ms=2000, reconnect_max_ms=1999), "2000.."),
        (dict(client_id=5), "int"),
        (dict(client_id=b"\xff"), "UTF-8"),
        (dict(client_id="", clean_session=False), "[MQTT-3.1.3-7]"),
        (dict(password="p"), "[MQTT-3.1.2-22]"),
        (dict(user=5), "user"),
        (dict(user="u", password=5), "password"),
        (dict(will="w"), "will"),
        (dict(will=("t", "p", 0)), "will"),
        (dict(will=("t/#", "p", 0, False)), "[MQTT-3.3.2-2]"),
        (dict(will=("t", "p", 3, False)), "will qos is 3"),
        (dict(will=("t", 7, 0, False)), "will payload"),
    )
    for options, part in cases:
        message = raises(LocalError, new, **options)
        assert part in message, (options, message)


def test_the_error_about_a_password_does_not_tell_it():
    message = raises(LocalError, new, user="u", password=12345678)
    assert "1234" not in message, message


def test_publish_refuses_and_queues_nothing():
    """[MQTT-1.5.3-1, -2] [MQTT-3.3.1-4] [MQTT-4.7.1-1] [MQTT-4.7.3-1, -2]"""
    needs("qos2")
    client = Bench(packet_bytes_max=64).client
    cases = (
        (("", b"p"), "[MQTT-4.7.3-1]"),
        (("a/+/b", b"p"), "'a/+/b'"),
        (("a/#", b"p"), "[MQTT-3.3.2-2]"),
        (("a\0b", b"p"), "[MQTT-1.5.3"),
        ((b"\xff", b"p"), "UTF-8"),
        ((b"\xed\xa0\x80", b"p"), "UTF-8"),  # U+D800
        ((5, b"p"), "int"),
        ((None, b"p"), "NoneType"),
        (("t", 5), "payload must be str or bytes, not int"),
        (("t", None), "NoneType"),
        (("t", ["a"]), "list"),
        (("t", b"p", 3), "qos is 3, must be an int in 0..2"),
        (("t", b"p", -1), "qos is -1"),
        (("t", b"p", "1"), "qos is '1'"),
        (("t", b"p", 1.5), "1.5"),
        (("t", b"x" * 100), "packet size (packet_bytes_max) is 105, must be an int in 0..64"),
        (("t" * 61, b""), "packet size (packet_bytes_max) is 65, "),
    )
    for arguments, part in cases:
        message = raises(LocalError, client.publish, *arguments)
        assert part in message, (arguments, message)
    assert client.publish("t" * 60, b"") == 1, "just 64 bytes, and no token was used up"
    assert not client._pipe.has_token(2)


def test_a_refused_topic_is_refused_again():
    client = Bench().client
    for _ in range(2):
        raises(LocalError, client.publish, "a/#", b"p")
    assert client.publish("a/b", b"p") == 1
    raises(LocalError, client.publish, "a/#", b"p")


def test_a_topic_in_a_bytearray_is_looked_at_each_time():
    client = Bench().client
    topic = bytearray(b"a/b")
    client.publish(topic, b"p")
    topic[2] = 0x23
    raises(LocalError, client.publish, topic, b"p")


def test_subscribe_and_unsubscribe_refuse_and_queue_nothing():
    """[MQTT-1.5.3-2] [MQTT-4.7.1-2, -3] [MQTT-4.7.3-1, -2]"""
    client = Bench(packet_bytes_max=64).client
    cases = (
        ("", "[MQTT-4.7.3-1]"),
        ("a/#/b", "[MQTT-4.7.1-2]"),
        ("a#", "[MQTT-4.7.1-3]"),
        ("a/b+", "[MQTT-4.7.1-3]"),
        ("##", "[MQTT-4.7.1-3]"),
        ("a\0", "[MQTT-1.5.3"),
        (7, "int"),
        ("t" * 60, "packet_bytes_max"),
    )
    for topic_filter, part in cases:
        for call in (client.subscribe, client.unsubscribe):
            message = raises(LocalError, call, topic_filter)
            assert part in message, (topic_filter, message)
    assert "qos is 3" in raises(LocalError, client.subscribe, "t", None, 3)
    assert "callback" in raises(LocalError, client.subscribe, "t", "print")
    assert client.subscribe("t") == 1
    assert len(client._session.subscriptions) == 1


def test_legal_filters_are_accepted():
    client = Bench().client
    for topic_filter in (
        "#",
        "+",
        "/",
        "a/+/b",
        "+/+",
        "a/#",
        "+/#",
        "$SYS/#",
        "a//b",
        b"\xc3\xa9",
    ):
        client.subscribe(topic_filter)
    assert len(client._session.subscriptions) == 10


def test_step_and_the_waits_refuse_a_bad_timeout():
    client = Bench().client
    for bad in (-1, 1.5, "1"):
        raises(LocalError, client.step, bad)
        raises(LocalError, client.wait_online, bad)
        raises(LocalError, client.wait_for, 1, bad)


def test_two_clients_without_client_id_have_two():
    """[MQTT-3.1.3-5]"""
    one, two = new(client_id=None), new(client_id=None)
    assert one.client_id != two.client_id
    for client in (one, two):
        assert 0 < len(client.client_id) <= 23, client.client_id
        assert client.client_id.decode().lower().isalpha() or True
        for byte in client.client_id:
            assert 48 <= byte <= 57 or 97 <= byte <= 122, client.client_id


def test_strings_longer_than_their_length_field_are_refused():
    """[MQTT-4.7.3-3]: two bytes of length. A heap of 96 KiB can not hold such strings."""
    if not has_memory(600_000):
        raise SkipTest("needs more than a board's memory")
    client = Bench(packet_bytes_max=200_000).client
    long = b"x" * 65536
    for options in (
        dict(client_id=long),
        dict(user=long),
        dict(user="u", password=long),
        dict(will=(long, b"", 0, False)),
        dict(will=("t", long, 0, False)),
    ):
        assert "6553" in raises(LocalError, new, **options), list(options)
    for call in (client.subscribe, client.unsubscribe):
        assert "65536" in raises(LocalError, call, long)
    assert "65536" in raises(LocalError, client.publish, long, b"")
    assert client.publish(long[1:], long) == 1, "a payload may be longer"


def test_a_token_must_be_one_and_a_link_must_have_is_up():
    client = Bench().client
    for bad in (None, "1", 1.5, -1):
        assert "token" in raises(LocalError, client.is_done, bad)
        assert "token" in raises(LocalError, client.wait_for, bad, 10)
    assert "is_up" in raises(LocalError, new, link=5)
