"""full_heap.py with MQTT 5.0: its moments, and those that 3.1.1 has not."""

import full_heap
from fakes import needs
from full_heap import once  # noqa: F401  tests/host/test_full_heap_levels.py asks for it
from model_server_5 import CONNACK_PROPERTIES, Server5

METHOD = b"\x15\x00\x01m"


class Life(full_heap.Life):
    make_server = Server5

    def __init__(self, **options):
        needs("mqtt5")
        options.setdefault("protocol", 5)
        options.setdefault("session_expiry_s", 3600)
        super().__init__(**options)


def accepted():
    """CONNACK is there."""
    life = Life()
    life.begin()
    life.client.step()
    life.server.look()
    life.server.send()
    return life


def publishing():
    life = Life().go_online()
    life.call = publish_with_properties(life)
    return life


def publish_with_properties(life):
    properties = {"user_property": [("a", "b")]}
    return lambda: life.client.publish("out", b"a message", 2, False, None, 60, properties)


def acknowledged():
    """In words, and one is refused."""
    life = Life().go_online()
    life.client.publish("long topic", b"more", 1)
    life.client.publish("out", b"more", 2)
    life.client.step()
    life.server.look()
    life.server.queue[0] = life.server.queue[0][:1] + b"\x03" + life.server.queue[0][2:] + b"\x97"
    life.server.send()
    life.server.send()
    return life


def receiving():
    """With an alias, and with a property."""
    life = Life().go_online()
    for qos in (0, 1, 2, 1, 2):
        life.server.publish(qos, b"in %d" % qos)
        life.server.send()
    return life


def cut():
    life = Life().go_online()
    life.client.publish("long topic", b"more", 1)
    life.client.step()
    life.bench.server.error = full_heap.ECONNRESET
    return life


def told_to_leave():
    life = Life().go_online()
    life.bench.server.send(b"\xe0\x0a\x89\x08\x1f\x00\x05later")
    life.bench.server.is_ended = True
    return life


def complaining():
    """The server breaks the protocol, and is told."""
    life = Life().go_online()
    life.bench.server.send(b"\x30\x07\x00\x00\x03\x23\x00\x07x")  # an alias never given
    return life


def closing():
    life = Life().go_online()
    life.client.publish("out", b"more", 1)
    life.client.disconnect(0, {"reason_string": "why"})
    return life


def subscribing():
    life = Life().go_online()
    life.call = lambda: life.client.subscribe("another", None, 1, no_local=True)
    return life


def asking():
    life = Life().go_online()
    life.call = lambda: life.client.request("out", b"?", nothing, 500)
    return life


class AskingServer(Server5):
    """It asks once before it accepts, and consents to reauthenticate()."""

    def _begin(self, connection):
        Server5._begin(self, connection)
        self._translation.connack = CONNACK_PROPERTIES + METHOD

    def _on_packet(self, kind, packet):
        if kind == 0x10:
            self._connect = packet
            self.queue.append(b"\xf0\x06\x18\x04" + METHOD)
        elif kind == 0xF0 and packet[2] == 0x18:
            Server5._on_packet(self, 0x10, self._connect)
        elif kind == 0xF0:
            self.queue.append(b"\xf0\x06\x00\x04" + METHOD)
        else:
            Server5._on_packet(self, kind, packet)


class AuthLife(Life):
    make_server = AskingServer

    def __init__(self):
        super().__init__(auth=("m", answer))


def answer(data):
    return b"an answer"


def authenticating():
    """The server has asked."""
    life = AuthLife()
    life.begin()
    life.client.step()
    life.server.look()
    life.server.send()
    return life


def authenticating_again():
    life = AuthLife().go_online()
    life.call = life.client.reauthenticate
    return life


def authenticated_again():
    """The server has consented."""
    life = authenticating_again()
    life.client.reauthenticate()
    life.client.step()
    life.server.look()
    life.server.send()
    return life


def nothing(client, message):
    pass


MOMENTS = (
    accepted,
    publishing,
    acknowledged,
    receiving,
    cut,
    told_to_leave,
    complaining,
    closing,
    subscribing,
    asking,
    authenticating,
    authenticating_again,
    authenticated_again,
)
