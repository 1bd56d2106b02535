"""Connections end and come back: by cuts, by silence, by a broker that dies and returns."""

import pytest

from proxy import DOWN, FIN, RST, UP, VANISH, Cut

MESSAGES = 1000
CUTS = 10


def test_1000_messages_at_qos_1_survive_10_cuts(exchange, wide_broker):
    # A message has some 60 bytes: the cuts lie between the 80th and the 900th.
    cuts = [Cut(UP, 4900 + at) for at in range(CUTS)]
    books = exchange(wide_broker, counts_out=(0, MESSAGES, 0), cuts=cuts)
    books.check(is_session_kept=False)
    assert books.cuts == CUTS
    assert books.stats["connections"] == CUTS + 1


@pytest.mark.parametrize("how", (RST, FIN, VANISH))
def test_nothing_is_lost_when_cut_while_receiving(exchange, wide_broker, how):
    """[MQTT-4.4.0-1] With its session kept. VANISH: the server believes in the old connection."""
    cuts = [Cut(DOWN, 1700 + at, how) for at in range(CUTS)]
    books = exchange(wide_broker, counts_in=(0, 250, 250), cuts=cuts, clean_session=False)
    books.check(is_session_kept=True)
    assert books.cuts == CUTS


@pytest.mark.parametrize("direction", (UP, DOWN))
def test_a_cut_after_every_byte_of_the_first_150(exchange, wide_broker, direction):
    """Of CONNECT, the resent messages and new ones; of CONNACK and what comes behind it."""
    books = exchange(
        wide_broker,
        counts_out=(0, 120, 120),
        counts_in=(0, 120, 120),
        cuts=[Cut(direction, position) for position in range(150)],
        clean_session=False,
    )
    books.check(is_session_kept=True)
    assert books.cuts == 150


def check_that_it_is_in_service(client, peer, topic):
    """paho publishes, the client receives; the client publishes, paho receives."""
    peer.subscribe(topic + "/out")
    peer.publish(topic + "/in", b"there?")
    assert client.next("message")[:2] == [topic + "/in", b"there?".hex()]
    client.tell("publish", topic + "/out", b"here".hex(), 1, False)
    assert peer.next_message().payload == b"here"


def test_the_client_comes_back_to_a_restarted_broker_and_resubscribes(
    remote, add_peer, add_broker, topic
):
    own_broker = add_broker()
    client = remote(uri=own_broker.uri)
    client.tell("subscribe", topic + "/in", 1)
    client.next("subscribed")
    for _ in range(2):
        own_broker.stop()
        client.next("offline")  # the connection that was
        client.next("offline")  # and an attempt, refused
        own_broker.start()
        client.next("online")
        check_that_it_is_in_service(client, add_peer(own_broker.uri), topic)
    client.finish()


def test_a_publish_while_the_broker_is_away_arrives_when_it_is_back(
    remote, add_peer, add_broker, topic
):
    own_broker = add_broker()
    client = remote(uri=own_broker.uri)
    own_broker.stop()
    client.next("offline")
    # The receiver's filter has to be there before the messages: it is the client itself.
    client.tell("subscribe", topic, 2)
    for qos in range(3):
        client.tell("publish", topic, (b"%d" % qos).hex(), qos, False)
    own_broker.start()
    client.next("online")
    for qos in range(3):
        assert client.next("message") == [topic, (b"%d" % qos).hex(), qos, False, False]
    client.finish()


def test_an_idle_connection_is_kept_alive_and_a_silent_one_given_up(
    remote, add_proxy, peer, topic
):
    """[MQTT-3.1.2-23] PINGREQ when nothing else was sent; [3.1.2.10] and PINGRESP is waited for.

    The broker ends connections after one and a half keep alives without a packet.
    """
    proxy = add_proxy()
    client = remote(uri=proxy.uri, keep_alive_s=1, connect_timeout_ms=1000)
    client.tell("subscribe", topic + "/in", 1)
    client.next("subscribed")
    before = proxy.passed(DOWN)
    two_pingresps = before + 4
    client.wait_until(lambda: proxy.passed(DOWN) >= two_pingresps, "no PINGRESP")
    assert not client.count("offline")

    proxy.stall()
    error, _ = client.next("offline")
    assert error.startswith("TimedOut: PINGRESP"), error
    error, _ = client.next("offline")  # the next attempt gets no CONNACK
    assert error.startswith("TimedOut: CONNACK"), error
    proxy.resume()
    client.next("online")
    check_that_it_is_in_service(client, peer, topic)
    client.finish()


def test_the_client_goes_on_trying_while_connections_are_reset(remote, add_proxy, peer, topic):
    proxy = add_proxy()
    client = remote(uri=proxy.uri)
    client.tell("subscribe", topic + "/in", 1)
    client.next("subscribed")
    proxy.refuse()
    assert proxy.cut() == 1
    for _ in range(5):
        client.next("offline")
    proxy.resume()
    client.next("online")
    check_that_it_is_in_service(client, peer, topic)
    client.finish()


def test_more_than_128_qos_2_messages_at_once_arrive_exactly_once(
    remote, wide_broker, add_peer, topic
):
    """A broker without a window sends all that it kept, and only then looks for PUBRECs."""
    client = remote(uri=wide_broker.uri, client_id=topic.replace("/", "-"), clean_session=False)
    client.tell("subscribe", topic, 2)
    client.next("subscribed")
    client.tell("disconnect")
    client.next("offline")
    expected = [b"%d" % number for number in range(300)]
    add_peer(wide_broker.uri).publish_all([(topic, payload, 2) for payload in expected])
    client.tell("connect")
    came = [client.next("message")[1] for _ in expected]
    assert came == [payload.hex() for payload in expected]
    assert not client.count("message")
    client.finish()
