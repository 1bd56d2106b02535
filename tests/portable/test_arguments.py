"""Wrong arguments raise LocalError at the call, name the value and the rule, change nothing."""

import board_heap  # noqa: F401
from fakes import CONNACK, Bench, SkipTest, has_memory, needs, raises

import mqttpipe

LocalError = mqttpipe.LocalError


def new(uri="mqtt://h", **options):
    return mqttpipe.MQTTClient(uri, **options)


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
        (dict(clean_session="no"), "clean_session is 'no', must be a bool"),
        (dict(clean_session=None), "clean_session is None"),
        (dict(clean_session=2), "clean_session is 2"),
        (dict(password="p"), "[MQTT-3.1.2-22]"),
        (dict(user=5), "user"),
        (dict(user="u", password=5), "password"),
        (dict(will="w"), "will"),
        (dict(will=("t", "p", 0)), "will"),
        (dict(will=("t/#", "p", 0, False)), "[MQTT-3.3.2-2]"),
        (dict(will=("t", "p", 3, False)), "will qos is 3"),
        (dict(will=("t", "p", True, False)), "will qos is True"),
        (dict(will=("t", None, 0, False)), "payload must be str or bytes, not NoneType"),
        (dict(will=("t", "p", 0, 2)), "retain is 2"),
        (dict(will=("t", "p", 0, 1.0)), "retain is 1.0"),
        (dict(will=("t", "p", 0, "no")), "retain is 'no'"),
        (dict(tls_name="h"), "mqtts://"),
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
        (("t", None), "payload must be str or bytes, not NoneType: use str() or json.dumps()"),
        (("t", ["a"]), "list: use str() or json.dumps()"),
        (("t", {"a": 1}), "dict: use str() or json.dumps()"),
        (("t", True), "payload must be str or bytes, not bool"),
        (("t", b"p", 3), "qos is 3, must be an int in 0..2"),
        (("t", b"p", -1), "qos is -1"),
        (("t", b"p", "1"), "qos is '1'"),
        (("t", b"p", 1.5), "1.5"),
        (("t", b"p", 0.0), "qos is 0.0"),
        (("t", b"p", True), "qos is True"),  # it was meant for retain
        (("t", b"p", False), "qos is False"),
        (("t", b"p", 0, 2), "retain is 2"),
        (("t", b"p", 0, None), "retain is None"),
        (("t", b"p", 0, 0.0), "retain is 0.0"),
        (("t", b"p", 0, 1.0), "retain is 1.0"),
        (("t", b"p", 0, "yes"), "retain is 'yes'"),
        (("t", b"x" * 100), "105 bytes does not fit: raise packet_bytes_max, 64"),
        (("t" * 61, b""), "65 bytes does not fit: raise packet_bytes_max, 64"),
        (("t" * 59, b"", 1), "65 bytes does not fit: raise packet_bytes_max, 64"),
    )
    for arguments, part in cases:
        message = raises(LocalError, client.publish, *arguments)
        assert part in message, (arguments, message)
    assert client.publish("t" * 60, b"") == 1, "just 64 bytes, and no token was used up"
    assert client.is_done(2) and not client.is_done(1)


def test_retain_may_be_a_bool_or_0_or_1():
    bench = Bench().go_online()
    for retain, first_byte in ((False, b"\x30"), (True, b"\x31"), (0, b"\x30"), (1, b"\x31")):
        bench.client.publish("t", b"", 0, retain)
        bench.steps()
        assert bench.server.received() == first_byte + b"\x03\x00\x01t", retain


def test_a_number_is_published_as_str_writes_it():
    bench = Bench(will=("w", 7, 0, False))
    bench.client.connect()
    bench.steps()
    assert bench.server.received() == (
        b"\x10\x13\x00\x04MQTT\x04\x06\x00\x3c\x00\x01c\x00\x01w\x00\x017"
    )
    bench.exchange(CONNACK)
    for payload, wire in ((0, b"0"), (-17, b"-17"), (21.5, b"21.5"), (10**9, b"1000000000")):
        bench.client.publish("t", payload)
        bench.steps()
        assert bench.server.received() == bytes((0x30, 3 + len(wire), 0, 1, 0x74)) + wire


def test_a_released_memoryview_is_a_local_error():
    view = memoryview(b"p")
    if not hasattr(view, "release"):
        raise SkipTest("this interpreter's memoryview has no release()")
    view.release()
    assert "released" in raises(LocalError, Bench().client.publish, "t", view)


def test_import_star_brings_the_public_names_only():
    assert sorted(mqttpipe.__all__) == [
        "LocalError",
        "MQTTClient",
        "MQTTError",
        "QueueFull",
        "Refused",
        "STATE_NAMES",
        "ServerError",
        "TimedOut",
        "TransportError",
        "parse_uri",
    ]
    for name in mqttpipe.__all__:
        assert hasattr(mqttpipe, name), name


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
        ("t" * 60, "does not fit: raise packet_bytes_max, 64"),
    )
    for topic_filter, part in cases:
        for call in (client.subscribe, client.unsubscribe):
            message = raises(LocalError, call, topic_filter)
            assert part in message, (topic_filter, message)
    for qos in (3, -1, 1.0, True, None, "1"):
        assert "qos is %r" % (qos,) in raises(LocalError, client.subscribe, "t", None, qos)
    assert "callback" in raises(LocalError, client.subscribe, "t", "print")
    assert client.subscribe("t") == 1
    assert len(client._filters.rows) == 1


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
    assert len(client._filters.rows) == 10


def test_step_and_the_waits_refuse_a_bad_timeout():
    client = Bench().client
    for bad in (-1, 1.5, "1", [], None, 0x10000000):
        raises(LocalError, client.step, bad)
        raises(LocalError, client.wait_offline, bad)
        raises(LocalError, client.wait_for, 1, bad)
    client.connect()
    for bad in (-1, 1.5, "1"):
        raises(LocalError, client.wait_online, bad)


def test_a_wait_that_could_never_end_says_so():
    client = Bench().client
    assert "without connect()" in raises(LocalError, client.wait_online, 10)
    assert client.wait_offline(0)
    client.connect()
    assert "without disconnect()" in raises(LocalError, client.wait_offline, 10)


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
        assert "token" in raises(LocalError, client.was_refused, bad)
        assert "token" in raises(LocalError, client.wait_for, bad, 10)
    assert "is_up" in raises(LocalError, new, link=5)


def test_a_token_to_cancel_must_be_one():
    needs("offline")
    client = Bench().client
    for bad in (None, "1", 1.5, -1, []):
        assert "token" in raises(LocalError, client.cancel, bad)
    assert not client.cancel(0) and not client.cancel(5)
