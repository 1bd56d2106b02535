"""Our client and paho-mqtt talk to each other through a real broker, in each interpreter."""

import socket

import pytest
from ends import at_address

import servers

QOS = (0, 1, 2)

# Every byte value; a topic with two, three and four bytes a character.
PAYLOAD = bytes(range(256))
UTF8_LEVEL = "grüße/東京/🙂"


@pytest.mark.parametrize("qos", QOS)
def test_what_our_client_publishes_arrives_unchanged(remote, peer, topic, qos):
    peer.subscribe(topic + "/#")
    client = remote()
    for name, payload in (("a", PAYLOAD), ("empty", b""), (UTF8_LEVEL, b"utf-8")):
        client.tell("publish", "%s/%s" % (topic, name), payload.hex(), qos, False)
        assert client.next("published") == client.next("token")
        message = peer.next_message()
        assert message.topic_name == "%s/%s" % (topic, name)
        assert (message.payload, message.qos, message.retain) == (payload, qos, False)
    assert not peer.make_round_trip(topic + "/end")
    client.finish()


@pytest.mark.parametrize("qos", QOS)
def test_what_paho_publishes_arrives_unchanged(remote, peer, topic, qos):
    client = remote()
    client.tell("subscribe", topic + "/#", qos)
    (token,) = client.next("token")
    assert client.next("subscribed") == [token, [qos]]
    for name, payload in (("a", PAYLOAD), ("empty", b""), (UTF8_LEVEL, b"utf-8")):
        peer.publish("%s/%s" % (topic, name), payload, qos)
        expected = ["%s/%s" % (topic, name), payload.hex(), qos, False, False]
        assert client.next("message") == expected
    client.finish()


@pytest.mark.parametrize("qos", QOS)
def test_a_message_comes_with_the_lower_of_two_qos(remote, peer, topic, qos):
    client = remote()
    client.tell("subscribe", topic, 1)
    client.next("subscribed")
    peer.publish(topic, b"x", qos)
    assert client.next("message")[2] == min(qos, 1)
    client.finish()


def test_a_message_that_our_client_retains_is_kept_and_can_be_removed(remote, add_peer, topic):
    client = remote()
    client.tell("publish", topic, b"kept".hex(), 1, True)
    client.next("published")
    late = add_peer()
    late.subscribe(topic)
    message = late.next_message()
    assert (message.payload, message.retain) == (b"kept", True)

    client.tell("publish", topic, "", 1, True)  # an empty one takes it away
    client.next("published")
    assert late.next_message().payload == b""
    later = add_peer()
    later.subscribe(topic)
    assert not later.make_round_trip(topic)
    client.finish()


@pytest.mark.parametrize("qos", QOS)
def test_a_retained_message_arrives_on_subscribe(remote, peer, topic, qos):
    peer.publish(topic, b"kept", qos, retain=True)
    client = remote(connect=False)
    # With its subscription made before connect(): the message may come before the SUBACK.
    client.tell("subscribe", topic, 2)
    client.tell("connect")
    assert client.next("message") == [topic, b"kept".hex(), qos, True, False]
    client.next("online")
    peer.publish(topic, b"", retain=True)
    assert client.next("message") == [topic, "", 1, False, False]
    client.finish()


def test_wildcards_match_as_the_broker_does(remote, peer, topic):
    """Each filter alone, so that the broker decides what comes and we who gets it."""
    client = remote()
    names = ["", "/a", "/a/b", "/b", "/a/b/c", "//b"]
    for topic_filter, expected in (
        ("/#", names),
        ("/+", ["/a", "/b"]),
        ("/+/b", ["/a/b", "//b"]),
        ("/a/#", ["/a", "/a/b", "/a/b/c"]),
        ("/a/+", ["/a/b"]),
        ("//+", ["//b"]),
    ):
        client.tell("subscribe", topic + topic_filter, 1)
        client.next("subscribed")
        for name in names:
            peer.publish(topic + name, b"w")
        came = [client.next("message")[0] for _ in expected]
        assert came == [topic + name for name in expected], topic_filter
        client.tell("unsubscribe", topic + topic_filter)
        client.next("unsubscribed")
    assert not client.count("message")
    client.finish()


def test_after_unsubscribe_nothing_comes_any_more(remote, peer, topic):
    client = remote()
    for name in ("/one", "/two"):
        client.tell("subscribe", topic + name, 1)
        client.next("subscribed")
        client.next("token")
    client.tell("unsubscribe", topic + "/one")
    assert client.next("unsubscribed") == client.next("token")
    peer.publish(topic + "/one", b"no")
    peer.publish(topic + "/two", b"yes")
    assert client.next("message")[1] == b"yes".hex()
    client.finish()


# -- sessions -------------------------------------------------------------------


@pytest.mark.parametrize("qos", (1, 2))
def test_messages_wait_for_a_client_that_keeps_its_session(remote, peer, topic, qos):
    client = remote(client_id=topic.replace("/", "-"), clean_session=False)
    assert client.next("connect") == [False]
    client.tell("subscribe", topic, qos)
    client.next("subscribed")
    client.tell("disconnect")
    assert client.next("offline") == [None, None]
    for number in range(50):
        peer.publish(topic, b"%d" % number, qos)
    client.tell("connect")
    assert client.next("connect") == [True]
    for number in range(50):
        # DUP is the server's: it may have sent one before it saw that we had gone.
        assert client.next("message")[:4] == [topic, (b"%d" % number).hex(), qos, False]
    client.finish()


def test_the_server_may_assign_the_client_id(remote, peer, topic):
    client = remote(client_id="")
    client.tell("subscribe", topic, 0)
    client.next("subscribed")
    peer.publish(topic, b"x")
    assert client.next("message")[0] == topic
    client.finish()


# -- will -----------------------------------------------------------------------


@pytest.mark.parametrize("qos", QOS)
def test_the_will_is_published_when_the_process_is_killed(remote, peer, add_peer, topic, qos):
    peer.subscribe(topic)
    client = remote(will=[topic, "gone", qos, True])
    client.kill()
    message = peer.next_message()
    assert (message.payload, message.qos, message.retain) == (b"gone", qos, False)
    late = add_peer()
    late.subscribe(topic)
    message = late.next_message()
    assert (message.payload, message.qos, message.retain) == (b"gone", qos, True)
    late.publish(topic, b"", retain=True)


def test_the_will_is_not_published_after_disconnect(remote, peer, topic):
    peer.subscribe(topic + "/#")
    client = remote(will=[topic + "/will", "gone", 1, False])
    client.tell("publish", topic + "/last", b"bye".hex(), 1, False)
    client.tell("disconnect")
    assert client.next("offline") == [None, None]
    assert [message.payload for message in peer.make_round_trip(topic + "/end")] == [b"bye"]
    client.finish()


# -- user and password ------------------------------------------------------------


@pytest.fixture
def locked_broker(add_broker):
    return add_broker(
        "allow_anonymous false\npassword_file {folder}/users",
        {"users": servers.password_line("jo", "s@cret/ü")},
    )


def test_user_and_password_are_taken_from_the_uri_and_from_the_arguments(remote, locked_broker):
    uri = "mqtt://jo:s%%40cret%%2F%%c3%%bc@%s:%d" % (locked_broker.host, locked_broker.port)
    remote(uri=uri).finish()
    remote(uri=locked_broker.uri, user="jo", password="s@cret/ü").finish()


@pytest.mark.parametrize("password", ("wrong", "", None))
def test_a_wrong_password_is_refused_again_and_again(remote, locked_broker, password):
    client = remote(connect=False, uri=locked_broker.uri, user="jo", password=password)
    client.tell("connect")
    for _ in range(3):
        error, return_code = client.next("offline")
        assert error.startswith("Refused: ")
        assert return_code in (4, 5)  # bad user or password; not authorized: mosquitto says this
    client.finish()


# -- addresses --------------------------------------------------------------------


def test_an_ipv6_address_in_brackets(remote, add_proxy, peer, topic):
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        pytest.skip("this machine has no IPv6: %s" % error)
    proxy = add_proxy(listen_host="::1")
    assert "[::1]" in proxy.uri
    peer.subscribe(topic)
    client = remote(uri=proxy.uri)
    client.tell("publish", topic, b"six".hex(), 1, False)
    assert peer.next_message().payload == b"six"
    client.finish()


def test_a_host_name(remote, broker, peer, topic):
    if broker.host not in ("127.0.0.1", "localhost"):
        pytest.skip("the broker is not on this machine: it has no name that we know")
    peer.subscribe(topic)
    client = remote(uri=at_address(broker.uri, "localhost", broker.port))
    client.tell("publish", topic, b"name".hex(), 1, False)
    assert peer.next_message().payload == b"name"
    client.finish()
