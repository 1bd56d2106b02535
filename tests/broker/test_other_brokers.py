"""Our client at RabbitMQ, ActiveMQ, aedes and amqtt: with --long, as they start slowly.

What each does otherwise than mosquitto is in KNOWN, and stated: docs/brokers.md tells users of it.
"""

import socket
import urllib.parse

import ends
import pytest

import other_brokers
import servers

# qos_max: the highest that it grants. has_qos_2: PUBREC answers a PUBLISH of QoS 2. lowers: a
# message comes with the lower QoS of publisher and subscriber [MQTT-3.8.4-6]; else with the
# subscriber's. keeps: messages for a session whose client is away; tells: that CONNACK says so.
KNOWN = {
    "rabbitmq": {"qos_max": 1, "has_qos_2": False, "lowers": True, "keeps": True, "tells": True},
    "rabbitmq4": {"qos_max": 1, "has_qos_2": False, "lowers": True, "keeps": True, "tells": True},
    "activemq": {"qos_max": 2, "has_qos_2": True, "lowers": True, "keeps": True, "tells": False},
    "aedes": {"qos_max": 2, "has_qos_2": True, "lowers": True, "keeps": True, "tells": True},
    "amqtt": {"qos_max": 2, "has_qos_2": True, "lowers": False, "keeps": False, "tells": False},
}
QOS = (0, 1, 2)
PAYLOAD = bytes(range(256))
COUNT = 100
FILTERS = 50


@pytest.fixture(scope="module", params=sorted(other_brokers.KINDS))
def other(request):
    try:
        broker = other_brokers.start(request.param)
    except servers.BrokerError as error:
        pytest.skip("not here: %s" % error)
    broker.known = KNOWN[request.param]
    with broker:
        yield broker


@pytest.fixture(params=["CPython", ends.BOARD])
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


@pytest.fixture
def peer(add_peer, other):
    return add_peer(other.uri)


@pytest.fixture
def client(remote, other):
    """A function: options -> a client at this broker."""
    return lambda **options: remote(uri=other.uri, **options)


@pytest.fixture(autouse=True)
def log_of(other, request):
    yield
    request.node.add_report_section("teardown", other.description, ends.tail(other.log(), 30))


@pytest.mark.parametrize("qos", QOS)
def test_what_we_publish_arrives(client, peer, other, topic, qos):
    peer.subscribe(topic + "/#")
    ours = client()
    for name, payload in (("a", PAYLOAD), ("grüße/東京/🙂", b"utf-8")):
        ours.tell("publish", "%s/%s" % (topic, name), payload.hex(), qos, False)
        assert ours.next("published") == ours.next("token")
        message = peer.next_message()
        assert (message.topic_name, message.payload) == ("%s/%s" % (topic, name), payload)
        granted = other.known["qos_max"]
        assert message.qos == (min(qos, granted) if other.known["lowers"] else granted)
    errors = [ours.next("error")[0] for _ in range(ours.count("error"))]
    if qos == 2 and not other.known["has_qos_2"]:
        assert len(errors) == 1 and "QoS 2" in errors[0], "told once"
    else:
        assert not errors
    assert not ours.count("offline")
    ours.finish()


@pytest.mark.parametrize("qos", QOS)
def test_what_others_publish_arrives(client, peer, other, topic, qos):
    ours = client()
    ours.tell("subscribe", topic + "/#", qos)
    (token,) = ours.next("token")
    granted = min(qos, other.known["qos_max"])
    assert ours.next("subscribed") == [token, [granted]]
    for name, payload in (("a", PAYLOAD), ("empty", b"")):
        peer.publish("%s/%s" % (topic, name), payload, min(qos, 1))
        came = ours.next("message")
        assert came[:2] == ["%s/%s" % (topic, name), payload.hex()]
        assert came[2] == (min(granted, qos, 1) if other.known["lowers"] else granted)
    ours.finish()


def test_many_messages_come_in_order(client, peer, topic):
    ours = client()
    ours.tell("subscribe", topic, 1)
    ours.next("subscribed")
    for number in range(COUNT):
        peer.publish(topic, b"%d" % number)
    for number in range(COUNT):
        assert ours.next("message")[1] == (b"%d" % number).hex()
    ours.finish()


def test_a_retained_message_is_kept_and_can_be_removed(client, add_peer, other, topic):
    ours = client()
    ours.tell("publish", topic, b"kept".hex(), 1, True)
    ours.next("published")
    late = client()
    late.tell("subscribe", topic, 1)
    assert late.next("message")[:2] == [topic, b"kept".hex()]
    ours.tell("publish", topic, "", 1, True)
    ours.next("published")
    later = add_peer(other.uri)
    later.subscribe(topic, qos=1)
    assert not later.make_round_trip(topic)
    ours.finish()
    late.finish()


def test_messages_wait_for_a_client_that_keeps_its_session(client, peer, other, topic):
    ours = client(client_id=topic.replace("/", "-"), clean_session=False)
    assert ours.next("connect") == [False]
    ours.tell("subscribe", topic, 1)
    ours.next("subscribed")
    ours.tell("disconnect")
    assert ours.next("offline") == [None, None]
    for number in range(20):
        peer.publish(topic, b"%d" % number, 1)
    ours.tell("connect")
    (session_present,) = ours.next("connect")
    assert session_present or not other.known["tells"]
    for number in range(20 if other.known["keeps"] else 0):
        assert ours.next("message")[1] == (b"%d" % number).hex()
    peer.publish(topic, b"live", 1)
    assert ours.next("message")[1] == b"live".hex(), "it is subscribed in any case"
    ours.finish()


def test_the_will_is_published_when_the_process_is_killed(client, peer, topic):
    peer.subscribe(topic, qos=1)
    client(will=[topic, "gone", 1, False]).kill()
    assert peer.next_message().payload == b"gone"


def test_wildcards_match_as_everywhere(client, peer, topic):
    ours = client()
    names = ["/a", "/a/b", "/b", "/a/b/c"]
    for topic_filter, expected in (("/+", ["/a", "/b"]), ("/a/#", ["/a", "/a/b", "/a/b/c"])):
        ours.tell("subscribe", topic + topic_filter, 1)
        ours.next("subscribed")
        for name in names:
            peer.publish(topic + name, b"w")
        assert [ours.next("message")[0] for _ in expected] == [topic + one for one in expected]
        ours.tell("unsubscribe", topic + topic_filter)
        ours.next("unsubscribed")
    assert not ours.count("message")
    ours.finish()


def test_many_filters_before_the_connection_are_all_in_service(client, peer, topic):
    ours = client(connect=False)
    for number in range(FILTERS):
        ours.tell("subscribe", "%s/%d" % (topic, number), 1)
    ours.tell("connect")
    ours.next("online")
    assert not ours.count("offline")
    for number in (0, 7, 8, FILTERS - 1):
        peer.publish("%s/%d" % (topic, number), b"x")
        assert ours.next("message")[0] == "%s/%d" % (topic, number)
    ours.finish()


def test_a_connection_that_was_cut_comes_back_with_all_filters(
    remote, add_proxy, peer, other, topic
):
    proxy = add_proxy(behind=other)
    ours = remote(uri=proxy.uri)
    for number in range(10):
        ours.tell("subscribe", "%s/%d" % (topic, number), 1)
        ours.next("subscribed")
    proxy.cut()
    ours.next("offline")
    ours.next("online")
    peer.publish(topic + "/9", b"again")
    assert ours.next("message")[:2] == [topic + "/9", b"again".hex()]
    ours.finish()


def test_dup_at_qos_0_from_somebody_else_does_no_harm(client, peer, other, topic):
    """aedes passes it on [MQTT-3.3.1-2]; amqtt and RabbitMQ may, or may close its connection."""
    ours = client()
    ours.tell("subscribe", topic, 0)
    ours.next("subscribed")
    parts = urllib.parse.urlsplit(other.uri)
    with socket.create_connection((parts.hostname, parts.port), timeout=ends.WAIT_S) as sock:
        sock.sendall(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d")
        assert sock.recv(4) == b"\x20\x02\x00\x00"
        body = bytes((0, len(topic))) + topic.encode() + b"dup"
        sock.sendall(bytes((0x38, len(body))) + body)
        peer.publish(topic, b"plain")
        while ours.next("message")[1] != b"plain".hex():
            pass
    assert not ours.count("offline")
    ours.finish()


@pytest.mark.parametrize("other", ["activemq"], indirect=True)
def test_a_topic_name_with_a_wildcard_is_told_and_the_connection_stays(client, topic):
    """ActiveMQ tells of a new subscription under a topic name that holds the filter."""
    ours = client()
    ours.tell("subscribe", "ActiveMQ/Advisory/Consumer/Topic/%s/#" % topic, 1)
    ours.next("subscribed")
    another = client()
    another.tell("subscribe", topic + "/#", 1)
    another.next("subscribed")
    assert topic + "/#" in ours.next("error")[0]
    assert not ours.count("offline")
    ours.finish()
    another.finish()
