"""The same as full_heap.py over this machine's own sockets and poll.

A poll in which a registration has failed for want of memory may crash MicroPython at the next
call (extmod/modselect.c), which no fake shows.
"""

from fakes import use_real_parts
from full_heap import Life, fill_and_step

import mqttpipe

ROUNDS = 2000  # of at most 1 ms: a deadline, not a delay
NAP_MS = 2  # the clock is the true one, and memory is short for less than the fakes' second


class Connection:
    """The server's end of a connection, as model_server wants it."""

    def __init__(self, peer):
        self.peer = peer
        self.from_client = bytearray()
        self.buf = bytearray(128)
        peer.setblocking(False)

    def read(self):
        try:
            count = self.peer.readinto(self.buf)
        except OSError:
            count = 0
        if count:
            self.from_client += self.buf[:count]

    def received(self):
        data, self.from_client = bytes(self.from_client), bytearray()
        return data

    def send(self, packet):
        try:
            self.peer.send(packet)
        except OSError:
            pass


class Network:
    """A listening socket on loopback."""

    next_port = 35567
    lookups = ()

    def __init__(self):
        socket = mqttpipe.socket
        self.connections = []
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for _ in range(200):
            Network.next_port += 1
            try:
                address = socket.getaddrinfo("127.0.0.1", Network.next_port)[0][-1]
                self.listener.bind(address)
                break
            except OSError:
                pass
        else:
            raise OSError("no free port in 200")
        self.port = Network.next_port
        self.listener.listen(5)
        self.listener.setblocking(False)

    def look(self):
        try:
            peer, _ = self.listener.accept()
            self.connections.append(Connection(peer))
        except OSError:
            pass
        for one in self.connections:
            one.read()

    def close(self):
        for one in self.connections:
            one.peer.close()
        self.listener.close()


class Clock:
    now_ms = 0

    def advance(self, ms):
        mqttpipe.sleep_ms(min(ms, NAP_MS))


class Bench:
    pass


class RealLife(Life):
    def __init__(self):
        use_real_parts()
        bench = Bench()
        bench.network = Network()
        bench.clock = Clock()
        bench.client = mqttpipe.MQTTClient(
            "mqtt://127.0.0.1:%d" % bench.network.port,
            client_id="c",
            clean_session=False,
            keep_alive_s=0,
            connect_timeout_ms=1000,
            reconnect_min_ms=1,
            reconnect_max_ms=10,
            packet_bytes_max=64,
            pipe_slots=4,
            in_flight_max=2,
        )
        self.use(bench)

    def turn(self):
        self.client.step(1)
        self.bench.network.look()
        self.server.look()
        self.server.send()

    def until(self, condition):
        for _ in range(ROUNDS):
            if condition():
                return True
            self.turn()
        return False

    def begin_and_wait(self):
        self.begin()
        assert self.until(self.client.is_online), self.client.state_name
        return self

    def back(self):
        client, server = self.client, self.server
        assert self.until(client.is_online), client.state_name
        client.publish("out", b"after", 1)
        assert self.until(lambda: (1, b"after") in server.accepted), "not sent"
        assert (1, b"before") in server.accepted, "lost"

    def close(self):
        self.client.disconnect()
        self.until(lambda: self.client.state_name == "DOWN")
        self.bench.network.close()


def connecting():
    life = RealLife()
    life.begin()
    return life


def serving():
    return RealLife().begin_and_wait()


def cut():
    life = serving()
    life.bench.network.connections[-1].peer.close()
    life.bench.network.connections.pop()
    return life


MOMENTS = (connecting, serving, cut)


def once(moment, free_bytes, is_in_pieces=False):
    life = moment()
    try:
        fill_and_step(life, free_bytes, is_in_pieces)
        life.back()
    finally:
        life.close()
