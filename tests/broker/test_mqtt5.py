"""MQTT 5.0 at a real broker, with paho-mqtt, which speaks 5.0 as well, at the other end."""

import queue
import time

import ends
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

import mqttpipe
import servers
from proxy import random_cuts

WAIT_S = 30


class Other:
    """paho-mqtt with MQTT 5.0: what it received is in `messages`."""

    def __init__(self, broker, client_id="", will=None, session_expiry_s=0, receive_maximum=None):
        self.messages = queue.Queue()
        self.answers = queue.Queue()
        self._paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5
        )
        self._paho.on_message = lambda client, data, message: self.messages.put(message)
        for name in ("on_connect", "on_subscribe", "on_publish", "on_unsubscribe"):
            setattr(self._paho, name, lambda *arguments: self.answers.put(arguments))
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = session_expiry_s
        if receive_maximum:
            properties.ReceiveMaximum = receive_maximum
        self._paho.connect(broker.host, broker.port, properties=properties, clean_start=False)
        self._paho.loop_start()
        self.answers.get(timeout=WAIT_S)

    def subscribe(self, topic_filter, qos=2, **options):
        self._paho.subscribe(topic_filter, options=SubscribeOptions(qos, **options))
        return self.answers.get(timeout=WAIT_S)

    def publish(self, topic_name, payload=b"", qos=1, retain=False, **properties):
        made = Properties(PacketTypes.PUBLISH)
        for name in properties:
            setattr(made, name, properties[name])
        self._paho.publish(topic_name, payload, qos, retain, made)
        self.answers.get(timeout=WAIT_S)

    def next(self):
        return self.messages.get(timeout=WAIT_S)

    def close(self):
        servers.end_paho(self._paho)


@pytest.fixture
def add_paho5(broker, closing):
    return lambda **options: closing(Other(broker, **options), "paho", lambda: "")


@pytest.fixture
def paho5(add_paho5):
    return add_paho5()


class Client:
    """One of ours with MQTT 5.0, online, in this process; `events` is what it told."""

    def __init__(self, uri, **options):
        options.setdefault("reconnect_min_ms", 10)
        options.setdefault("reconnect_max_ms", 50)
        options.setdefault("protocol", 5)
        self.events = []
        self.messages = []
        self.mqtt = client = mqttpipe.MQTTClient(uri, **options)
        client.on_offline = lambda client, error: self.events.append(("offline", error))
        client.on_error = lambda client, error: self.events.append(("error", error))
        client.on_dropped = lambda client, token: self.events.append(("dropped", token))
        client.on_message = lambda client, message: self.messages.append(message.copy())
        client.connect()
        self.until(client.is_online)

    def until(self, condition):
        """step() until it holds; returns what it answered."""
        deadline = time.monotonic() + WAIT_S
        while True:
            answer = condition()
            if answer:
                return answer
            assert time.monotonic() < deadline, (self.mqtt.state_name, self.events)
            self.mqtt.step(20)

    def done(self, token):
        self.until(lambda: self.mqtt.is_done(token))

    def next(self):
        self.until(lambda: self.messages)
        return self.messages.pop(0)

    def subscribe(self, *arguments, **options):
        self.done(self.mqtt.subscribe(*arguments, **options))

    def publish(self, *arguments, **options):
        self.done(self.mqtt.publish(*arguments, **options))

    def round_trip(self, topic):
        """What has come before a message that goes to the broker and back."""
        self.subscribe(topic + "/mark", None, 1)
        self.publish(topic + "/mark", b"mark", 1)
        self.until(lambda: [one for one in self.messages if one.topic_name == topic + "/mark"])
        before = [one for one in self.messages if one.topic_name != topic + "/mark"]
        self.messages.clear()
        return before

    def cut(self):
        """The connection breaks, without a word."""
        self.mqtt._socket.close()
        self.until(lambda: not self.mqtt.is_online())

    def close(self):
        self.mqtt.disconnect()
        for _ in range(200):
            if self.mqtt.state_name == "DOWN":
                break
            self.mqtt.step(10)


@pytest.fixture
def add_client(broker, closing):
    def add(uri=None, **options):
        client = Client(uri or broker.uri, **options)
        return closing(client, "mqttpipe", lambda: "%r" % client.events)

    return add


@pytest.fixture
def client(add_client):
    return add_client()


@pytest.mark.parametrize("protocol", (4, 5))
def test_each_interpreter_speaks_both_protocols_with_one_broker(remote, peer, topic, protocol):
    client = remote(protocol=protocol, heap="128k") if protocol == 5 else remote()
    ends.check_both_ways(client, peer, topic)
    client.finish()


PROPERTIES = {
    "payload_format_indicator": 1,
    "content_type": "text/plain",
    "response_topic": "answers/here",
    "correlation_data": b"\x00\xff",
    "user_property": [("b", "1"), ("a", "2"), ("b", "3")],
}


@pytest.mark.parametrize("qos", (0, 1, 2))
def test_properties_arrive_as_they_were_sent_both_ways(client, paho5, topic, qos):
    paho5.subscribe(topic + "/out")
    client.publish(topic + "/out", "x", qos, properties=PROPERTIES)
    came = paho5.next()
    assert came.payload == b"x" and came.qos == qos
    assert came.properties.json() == {
        "PayloadFormatIndicator": 1,
        "ContentType": "text/plain",
        "ResponseTopic": "answers/here",
        "CorrelationData": "00ff",
        "UserProperty": [("b", "1"), ("a", "2"), ("b", "3")],
    }
    client.subscribe(topic + "/in", None, qos)
    paho5.publish(
        topic + "/in",
        b"y",
        2,
        PayloadFormatIndicator=1,
        ContentType="text/plain",
        ResponseTopic="answers/here",
        CorrelationData=b"\x00\xff",
        UserProperty=PROPERTIES["user_property"],
    )
    came = client.next()
    assert (came.payload, came.qos, came.properties) == (b"y", qos, PROPERTIES)


def test_many_messages_by_aliases_of_our_own(add_client, paho5, topic):
    client = add_client(pipe_slots=100)
    maximum = client.mqtt.server_properties["topic_alias_maximum"]
    assert maximum > 1, "mosquitto takes ten"
    paho5.subscribe(topic + "/#", qos=1)
    names = ["%s/a/long/name/%d" % (topic, number % 12) for number in range(100)]
    before = client.mqtt.stats["bytes_sent"]
    for number, name in enumerate(names):
        client.mqtt.publish(name, b"%d" % number, number % 2)
        client.mqtt.step()
    client.until(lambda: client.mqtt._pipe.head == client.mqtt._pipe.tail)
    came = sorted((int(one.payload), one.topic) for one in [paho5.next() for _ in names])
    assert came == list(enumerate(names))
    one = client.mqtt.stats["bytes_sent"]
    for _ in range(20):
        client.publish(names[0], b"x")
    size = (client.mqtt.stats["bytes_sent"] - one) / 20
    assert size < len(names[0]), "after the first one by its alias"
    assert before < one


def test_aliases_of_the_server_are_followed(add_broker, closing, topic):
    """mosquitto gives none before 2.1; then this shows that both understand each paho5."""
    try:
        broker = add_broker("max_topic_alias_broker 5\nmax_topic_alias 10")
    except Exception:
        pytest.skip("this broker gives no topic aliases")
    client = closing(Client(broker.uri), "mqttpipe", lambda: "")
    paho5 = closing(Other(broker), "paho", lambda: "")
    client.subscribe(topic + "/#", None, 1)
    for number in range(20):
        paho5.publish("%s/%d" % (topic, number % 7), b"%d" % number)
    came = [client.next() for _ in range(20)]
    assert [(one.topic_name, one.payload) for one in came] == [
        ("%s/%d" % (topic, number % 7), b"%d" % number) for number in range(20)
    ]


def test_what_is_left_of_an_expiry_is_what_the_receiver_sees(client, paho5, topic):
    paho5.subscribe(topic)
    client.publish(topic, "x", 1, properties={"message_expiry_interval": 100})
    assert 90 < paho5.next().properties.MessageExpiryInterval <= 100
    client.publish(topic, "x", 1, expiry_s=200)
    assert 190 < paho5.next().properties.MessageExpiryInterval <= 200
    client.subscribe(topic)
    paho5.publish(topic, b"x", MessageExpiryInterval=50)
    assert 40 < client.next().properties["message_expiry_interval"] <= 50


def test_a_message_that_has_expired_at_the_server_is_not_delivered(add_client, paho5, topic):
    options = {"client_id": topic, "session_expiry_s": 60, "clean_session": False}
    client = add_client(**options)
    client.subscribe(topic + "/#", None, 1)
    client.close()
    paho5.publish(topic + "/1", b"soon over", MessageExpiryInterval=1)
    paho5.publish(topic + "/2", b"lasting", MessageExpiryInterval=60)
    time.sleep(2.2)
    client = add_client(**options)
    assert client.next().payload == b"lasting"
    assert client.round_trip(topic) == []


def test_the_flow_is_what_both_ends_can_take(add_broker, closing, topic):
    broker = add_broker("max_inflight_messages 3\nmax_queued_messages 1000")
    client = closing(Client(broker.uri, pipe_slots=100), "mqttpipe", lambda: "")
    assert client.mqtt.server_properties["receive_maximum"] == 3
    assert client.mqtt._flying_max == 3
    paho5 = closing(Other(broker, receive_maximum=2), "paho", lambda: "")
    paho5.subscribe(topic + "/#")
    for number in range(60):
        client.mqtt.publish(topic + "/%d" % (number % 3), b"%d" % number, 1 + number % 2)
        client.mqtt.step()
        assert client.mqtt._flying <= 3
    client.until(lambda: client.mqtt._pipe.head == client.mqtt._pipe.tail)
    came = [int(paho5.next().payload) for _ in range(60)]
    assert sorted(came) == list(range(60))


def test_a_packet_larger_than_we_announced_is_not_sent_to_us(add_client, paho5, topic):
    client = add_client(packet_bytes_max=200)
    client.subscribe(topic, None, 1)
    paho5.publish(topic, b"x" * 500)
    paho5.publish(topic, b"small")
    assert client.next().payload == b"small"
    assert client.mqtt.stats["too_large"] == 0 and client.events == []


def test_no_local_and_retain_as_published(client, paho5, topic):
    client.subscribe(topic + "/a", None, 1, no_local=True)
    client.subscribe(topic + "/b", None, 1, retain_as_published=True)
    client.subscribe(topic + "/c", None, 1)
    for name in "abc":
        client.publish("%s/%s" % (topic, name), "own", 1)
        paho5.publish("%s/%s" % (topic, name), b"other", 1, retain=True)
    came = client.round_trip(topic)
    assert sorted((one.topic_name[-1], one.payload, one.retain) for one in came) == [
        ("a", b"other", False),
        ("b", b"other", True),
        ("b", b"own", False),
        ("c", b"other", False),
        ("c", b"own", False),
    ]
    for name in "abc":
        paho5.publish("%s/%s" % (topic, name), b"", 1, retain=True)


def test_retained_messages_as_the_handling_says(client, paho5, topic):
    paho5.publish(topic + "/r", b"kept", retain=True)
    for handling, counts in ((0, (1, 1)), (1, (1, 0)), (2, (0, 0))):
        for count in counts:
            client.subscribe(topic + "/r", None, 1, retain_handling=handling)
            came = client.round_trip(topic)
            assert [(one.payload, one.retain) for one in came] == [(b"kept", True)] * count, (
                handling
            )
        client.done(client.mqtt.unsubscribe(topic + "/r"))
    paho5.publish(topic + "/r", b"", retain=True)


def test_subscription_identifiers_find_each_callback(client, paho5, topic):
    got = []
    for number, topic_filter in (
        (1, topic + "/#"),
        (200, topic + "/+/b"),
        (30000, topic + "/a/b"),
    ):

        def keep(client, message, number=number):
            got.append((number, message.topic_name[len(topic) :]))

        properties = {"subscription_identifier": number}
        client.subscribe(topic_filter, keep, 1, properties=properties)
    for name in ("/a/b", "/x", "/c/b"):
        paho5.publish(topic + name)
    client.round_trip(topic)
    got = [one for one in got if one[1] != "/mark"]
    assert sorted(got) == sorted(
        [(1, "/a/b"), (200, "/a/b"), (30000, "/a/b"), (1, "/x"), (1, "/c/b"), (200, "/c/b")]
    )


def test_a_shared_subscription_takes_turns(add_client, paho5, topic):
    members = [add_client(), add_client()]
    for member in members:
        member.subscribe("$share/group/%s/+" % topic, None, 1)
    for number in range(10):
        paho5.publish("%s/%d" % (topic, number), b"%d" % number)
    for member in members:
        member.until(lambda member=member: len(member.messages) == 5)
    came = sorted(int(one.payload) for member in members for one in member.messages)
    assert came == list(range(10))


def test_a_will_waits_for_its_delay(add_client, paho5, topic):
    paho5.subscribe(topic)
    will = (topic, "gone", 1, False, {"will_delay_interval": 3, "content_type": "c"})
    options = {"client_id": topic.replace("/", "-"), "session_expiry_s": 60, "will": will}
    client = add_client(**options)
    client.cut()
    client.until(client.mqtt.is_online)  # back before that, also on a busy machine
    time.sleep(3.5)
    assert paho5.messages.empty()
    client.mqtt._socket.close()
    came = paho5.next()
    assert came.payload == b"gone" and came.properties.ContentType == "c"


def test_a_good_bye_with_the_will_has_it_published(add_client, paho5, topic):
    paho5.subscribe(topic)
    for arguments, count in (((), 0), ((0x04,), 1)):
        client = add_client(will=(topic, "gone", 1, False))
        client.mqtt.disconnect(*arguments)
        client.until(lambda client=client: client.mqtt.state_name == "DOWN")
        paho5.publish(topic, b"mark")
        came = [paho5.next().payload for _ in range(count + 1)]
        assert sorted(came) == sorted([b"gone"] * count + [b"mark"])


def test_a_session_outlives_the_connection_as_long_as_it_was_asked_for(add_client, paho5, topic):
    name = topic.replace("/", "-")
    client = add_client(client_id=name, session_expiry_s=60)
    present = []
    client.mqtt.on_connect = lambda client, session_present: present.append(session_present)
    client.subscribe(topic + "/#", None, 1)
    client.cut()
    paho5.publish(topic + "/1", b"meanwhile")
    client.until(client.mqtt.is_online)
    assert present == [True] and client.next().payload == b"meanwhile"
    # Changed at the end: the session is over with the connection.
    client.mqtt.disconnect(properties={"session_expiry_interval": 0})
    client.until(lambda: client.mqtt.state_name == "DOWN")
    client = add_client(client_id=name, session_expiry_s=60, clean_session=False)
    assert client.round_trip(topic) == []
    client.mqtt.disconnect()
    client.until(lambda: client.mqtt.state_name == "DOWN")
    for is_clean, expected in ((False, True), (True, False)):
        again = mqttpipe.MQTTClient(
            client.mqtt._server and "mqtt://%s:%d" % tuple(client.mqtt._server[:2]),
            client_id=name,
            protocol=5,
            session_expiry_s=60,
            clean_session=is_clean,
        )
        found = []
        again.on_connect = lambda client, session_present, found=found: found.append(
            session_present
        )
        again.connect()
        assert again.wait_online(WAIT_S * 1000)
        again.disconnect()
        again.wait_offline(WAIT_S * 1000)
        assert found == [expected]


def test_a_request_is_answered_by_paho(client, paho5, topic):
    paho5.subscribe(topic)
    got = []
    for number in range(5):
        client.mqtt.request(
            topic, b"%d" % number, lambda client, message: got.append(message.payload), 5000, 1
        )
    client.until(lambda: paho5.messages.qsize() == 5)
    for question in [paho5.next() for _ in range(5)][::-1]:
        properties = question.properties
        paho5.publish(
            properties.ResponseTopic,
            b"answer " + question.payload,
            CorrelationData=properties.CorrelationData,
        )
    client.until(lambda: len(got) == 5)
    assert sorted(got) == [b"answer %d" % number for number in range(5)]


def test_a_refusal_says_why(add_broker, closing, topic):
    broker = add_broker("max_qos 1\nretain_available false")
    client = closing(Client(broker.uri), "mqttpipe", lambda: "")
    properties = client.mqtt.server_properties
    assert properties["maximum_qos"] == 1 and properties["retain_available"] == 0
    for arguments in (("t", "x", 2), ("t", "x", 0, True)):
        with pytest.raises(mqttpipe.LocalError):
            client.mqtt.publish(*arguments)
    client.publish(topic, "x", 1)
    refused = mqttpipe.MQTTClient(broker.uri, protocol=5, will=(topic, "x", 2, False))
    errors = []
    refused.on_offline = lambda client, error: errors.append(error)
    refused.connect()
    deadline = time.monotonic() + WAIT_S
    while not errors and time.monotonic() < deadline:
        refused.step(20)
    assert errors[0].reason_code == 0x9B and "QoS not supported" in str(errors[0])
    refused.disconnect()
    refused.step()


def test_a_name_from_the_server(add_client):
    client = add_client(client_id="")
    assert (
        client.mqtt.client_id
        == client.mqtt.server_properties["assigned_client_identifier"].encode()
    )


def test_qos_2_is_exactly_once_through_cuts(add_proxy, wide_broker, closing, topic):
    paho5 = closing(Other(wide_broker), "paho", lambda: "")
    paho5.subscribe(topic + "/out")
    proxy = add_proxy(random_cuts(17, 8, 3000), wide_broker)
    options = {"client_id": topic.replace("/", "-"), "session_expiry_s": 60, "pipe_slots": 100}
    client = closing(Client(proxy.uri, **options), "mqttpipe", lambda: "%r" % client.events)
    client.subscribe(topic + "/in", None, 2)
    for number in range(60):
        client.mqtt.publish(topic + "/out", b"%d" % number + b"." * 40, 2)
        paho5.publish(topic + "/in", b"%d" % number + b"." * 40, 2)
        client.mqtt.step()
    client.until(lambda: len(client.messages) >= 60)
    client.until(lambda: client.mqtt._pipe.head == client.mqtt._pipe.tail)
    for came in (client.messages, [paho5.next() for _ in range(60)]):
        assert [int(one.payload.strip(b".")) for one in came] == list(range(60))
    assert client.mqtt.stats["reconnections"] > 2, "it was cut"
