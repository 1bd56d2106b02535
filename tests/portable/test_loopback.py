"""The client on this machine's own sockets, poll and clock, against a server in the same loop.

The server here is the smallest that can be: it accepts one connection and its packets
are sent by hand, so that every step of both ends is seen.
"""

from fakes import CONNACK, DISCONNECT, ECONNREFUSED, ECONNRESET, needs, use_real_parts

import mqttpipe

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"
TRIES = 2000  # of at most 5 ms each: a deadline, not a delay


class Server:
    """A listening socket on loopback; next_port makes a bind to a port in use no failure."""

    next_port = 34567

    def __init__(self):
        socket = mqttpipe.socket
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for _ in range(200):
            Server.next_port += 1
            try:
                self.listener.bind(socket.getaddrinfo("127.0.0.1", Server.next_port)[0][-1])
                break
            except OSError:
                pass
        else:
            raise OSError("no free port in 200")
        self.port = Server.next_port
        self.listener.listen(1)
        self.buf = bytearray(256)
        self.peer = None

    def accept(self):
        # Blocks only until the kernel's own handshake, which connect() has begun.
        self.peer, _ = self.listener.accept()
        self.peer.setblocking(False)

    def receive(self, client, expected):
        """Drive the client until it has sent just `expected`."""
        data = b""
        for _ in range(TRIES):
            client.step(1)
            count = self.peer.readinto(self.buf)
            if count:
                data += bytes(self.buf[:count])
            if len(data) >= len(expected):
                break
        assert data == expected, data

    def close(self):
        if self.peer is not None:
            self.peer.close()
        self.listener.close()


def until(client, condition):
    for _ in range(TRIES):
        if condition():
            return
        client.step(5)
    raise AssertionError(client.state_name)


def test_a_whole_life_over_real_sockets():
    """[MQTT-7.1.2-1]"""
    use_real_parts()
    server = Server()
    client = mqttpipe.MQTTClient("mqtt://127.0.0.1:%d" % server.port, client_id="c")
    seen = []
    client.on_message = lambda client, message: seen.append(message.payload)
    client.on_offline = lambda client, error: seen.append(error)
    client.connect()
    client.step()
    server.accept()
    server.receive(client, CONNECT)
    server.peer.send(CONNACK)
    until(client, client.is_online)
    token = client.publish("a/b", b"hi", qos=1)
    server.receive(client, b"\x32\x09\x00\x03a/b\x00\x01hi")
    server.peer.send(b"\x40\x02")
    client.step()
    assert not client.is_done(token)
    server.peer.send(b"\x00\x01\x30\x05\x00\x01t")
    until(client, lambda: client.is_done(token))
    server.peer.send(b"yo")
    until(client, lambda: seen)
    assert seen == [b"yo"]
    client.disconnect()
    server.receive(client, DISCONNECT)
    until(client, lambda: client.state_name == "DOWN")
    assert seen == [b"yo", None]
    server.close()


def test_a_large_message_each_way_over_real_sockets():
    use_real_parts()
    server = Server()
    client = mqttpipe.MQTTClient(
        "mqtt://127.0.0.1:%d" % server.port, client_id="c", packet_bytes_max=4000
    )
    client.connect()
    client.step()
    server.accept()
    server.receive(client, CONNECT)
    server.peer.send(CONNACK)
    until(client, client.is_online)
    seen = []
    client.on_message = lambda client, message: seen.append(message.payload)
    payload = bytes(range(250)) * 12
    client.publish("t", payload)
    server.receive(client, b"\x30\xbb\x17\x00\x01t" + payload)
    for part in (b"\x30\xbb\x17\x00\x01t", payload[:2000], payload[2000:]):
        server.peer.send(part)
        client.step()
    until(client, lambda: seen)
    assert seen == [payload]
    client.disconnect()
    server.receive(client, DISCONNECT)
    server.close()


def test_nobody_listening_is_an_error_with_its_stage():
    use_real_parts()
    server = Server()
    server.close()
    errors = []
    client = mqttpipe.MQTTClient("mqtt://127.0.0.1:%d" % server.port, reconnect_min_ms=60_000)
    client.on_offline = lambda client, error: errors.append(error)
    client.connect()
    until(client, lambda: errors)
    assert type(errors[0]) is mqttpipe.TransportError
    # Both numbers are the same on all ports; lwIP, on the boards, calls a refusal a reset.
    assert errors[0].stage == "TCP", errors
    assert errors[0].errno in (ECONNREFUSED, ECONNRESET), errors
    assert client.state_name == "WAITING"


def test_the_server_closing_is_an_error_and_a_new_attempt_follows():
    needs("stats")
    use_real_parts()
    server = Server()
    errors = []
    client = mqttpipe.MQTTClient(
        "mqtt://127.0.0.1:%d" % server.port, client_id="c", reconnect_min_ms=0
    )
    client.on_offline = lambda client, error: errors.append(error)
    client.connect()
    client.step()
    server.accept()
    server.receive(client, CONNECT)
    server.peer.close()
    until(client, lambda: errors)
    assert errors[0].stage == "CONNACK", errors
    until(client, lambda: client.state_name == "TCP_CONNECTING" or client.stats["attempts"] == 2)
    server.accept()
    server.receive(client, CONNECT)
    server.peer.send(CONNACK)
    until(client, client.is_online)
    client.disconnect()
    server.receive(client, DISCONNECT)
    server.close()
