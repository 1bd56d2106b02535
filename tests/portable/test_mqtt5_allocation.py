"""MQTT 5.0: with aliases that are known and without properties nothing is allocated."""

from fakes import needs
from test_allocation import PAYLOAD, TOPIC, allocated, online

CONNACK = b"\x20\x06\x00\x00\x03\x22\x00\x08"  # with topic aliases


def begin():
    needs("mqtt5")
    return online(CONNACK, protocol=5)


def published(client, payload):
    def turn():
        client.publish(TOPIC, payload)
        client.step()

    return turn


def test_a_message_by_its_alias_small_and_large():
    for payload in (b"", PAYLOAD, b"x" * 500):
        _, client, _ = begin()
        turn = published(client, payload)
        turn()
        before = client._outbox.sent_count
        turn()
        assert client._outbox.sent_count - before < len(payload) + 12, "by its alias"
        assert allocated(turn) == 0, len(payload)


def test_many_in_a_row():
    _, client, _ = begin()

    def turn():
        for _ in range(8):
            client.publish(TOPIC, PAYLOAD)
        client.step()

    assert allocated(turn) == 0


def test_qos_1_and_its_acknowledgement():
    _, client, server = begin()
    ack = bytearray(b"\x40\x02\x00\x00")

    def turn():
        token = client.publish(TOPIC, PAYLOAD, 1)
        client.step()
        ack[2] = token >> 8
        ack[3] = token & 0xFF
        server.feed(ack)
        client.step()
        assert client.is_done(token)

    assert allocated(turn) == 0


def received(client, server, packet):
    def turn():
        server.feed(packet)
        client.step()

    return turn


def view(client, message):
    return message.view


def test_messages_that_come_by_name_and_by_alias():
    _, client, server = begin()
    client.on_message = view
    for packet in (
        b"\x30\x07\x00\x03a/b\x00x",
        b"\x30\x0a\x00\x03a/b\x03\x23\x00\x01x",
        b"\x30\x07\x00\x00\x03\x23\x00\x01x",
        b"\x32\x09\x00\x00\x00\x09\x03\x23\x00\x01x",
    ):
        assert allocated(received(client, server, packet)) == 0, packet
        assert client.is_online()


def test_an_idle_step():
    _, client, _ = begin()
    assert allocated(client.step) == 0
