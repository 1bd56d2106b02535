"""Random lives: calls, cuts, a slow network and a server that keeps its session; nothing is lost.

An application publishes at every QoS, with and without a policy, expiry and cancel(); the server
(model_server.Server) publishes back; connections break, stall and come again, in pieces of any
size. Then the network is good, all comes to an end, and it is asserted that

- what was not dropped arrived: QoS 0 at most once, QoS 1 at least once, QoS 2 exactly once, each
  in order, and its end was told once; what was dropped was told so, and not as published;
- the pipe is empty, and one socket is open.

The number of a life that fails is in the message: run_life(number) is that life again.
"""

import board_heap  # noqa: F401
from fakes import ECONNRESET, Bench, needs
from model_server import Server

import mqttpipe

LIVES = 30
TURNS = 60
TURNS_MAX = 2000  # until all has come to its end, some 60


class Dice:
    """The same numbers on every interpreter."""

    def __init__(self, seed):
        self.state = seed * 7919 + 1 & 0xFFFF

    def below(self, count):
        self.state = self.state * 25173 + 13849 & 0xFFFF
        return (self.state >> 4) % count

    def one_of(self, values):
        return values[self.below(len(values))]


class Life:
    def __init__(self, number, make_server=Server, **options):
        self.dice = dice = Dice(number)
        self.bench = bench = Bench(
            clean_session=False,
            keep_alive_s=2,
            connect_timeout_ms=500,
            reconnect_min_ms=20,
            reconnect_max_ms=200,
            packet_bytes_max=dice.one_of((64, 80, 200)),
            pipe_slots=dice.one_of((1, 2, 4, 8)),
            in_flight_max=dice.one_of((1, 2, 8)),
            pipe_bytes_max=dice.one_of((None, 60, 200)),
            now_ms=dice.one_of((1000, 0x3FFFFFFF - 1000)),
            **options,
        )
        self.client = client = bench.client
        client._pipe.last_token = dice.one_of((0, 65270, 0x3FFFFFF8))
        self.server = make_server(bench)
        self.is_calm = False
        self.published = []  # (qos, payload, token)
        self.ended = []  # tokens
        self.dropped = []
        self.sent_in = []  # (qos, payload)
        self.received = []
        client.on_message = lambda c, message: self.received.append((message.qos, message.payload))
        client.on_published = lambda c, token: self.ended.append(token)
        client.on_dropped = lambda c, token: self.dropped.append(token)
        client.on_connect = self.on_connect
        client.on_offline = self.on_offline
        client.on_online = client.on_subscribed = None  # a board's heap has no room for all that
        self.error = None  # the last one
        self.make_socket = bench.network.socket
        bench.network.socket = self.socket
        client.subscribe("in", None, 2)
        client.connect()

    def socket(self, *arguments):
        connection = self.make_socket(*arguments)
        if not self.is_calm:
            connection.read_max = self.dice.one_of((1, 2, 7, 1000))
            connection.write_max = self.dice.one_of((1, 5, 11, 1000))
        return connection

    def on_connect(self, client, session_present):
        if not self.is_calm and not self.dice.below(3):
            self.publish()

    def on_offline(self, client, error):
        self.error = error

    def publish(self):
        dice = self.dice
        qos = dice.below(3)
        payload = b"%d." % len(self.published) + bytes(dice.one_of((0, 3, 40)))
        policy = "drop_oldest" if not dice.below(6) else None
        expiry_s = 1 if not dice.below(8) else None
        try:
            token = self.client.publish("t", payload, qos, False, policy, expiry_s)
        except mqttpipe.QueueFull:
            return
        self.published.append((qos, payload, token))

    def disturb(self):
        dice, client, server, bench = self.dice, self.client, self.server, self.bench
        for _ in range(dice.below(3)):
            self.publish()
        if self.published and not dice.below(15):
            client.cancel(dice.one_of(self.published)[2])
        is_served = client.state_name in ("SUBSCRIBING", "ONLINE", "CLOSING")
        if is_served and server.connection is bench.server and len(server.held) < 9:
            qos = dice.below(3)
            self.sent_in.append((qos, b"%d" % len(self.sent_in)))
            server.publish(qos, self.sent_in[-1][1])
        if bench.network.connections and not bench.server.is_closed:
            what = dice.below(30)
            if what == 0:
                bench.server.error = ECONNRESET
            elif what == 1:
                bench.server.is_ended = True
            elif what == 2:
                bench.server.write_credit = dice.below(30)
            elif what == 3:
                bench.server.write_credit = 1 << 20
            elif what == 4:
                bench.clock.advance(dice.one_of((499, 500, 2000)))
        bench.network.is_silent = not dice.below(20)
        if not dice.below(40):
            client.disconnect()
        elif not dice.below(4):
            client.connect()

    def turn(self):
        if self.is_calm:
            self.client.connect()
            self.bench.network.is_silent = False
            for connection in self.bench.network.connections:
                connection.write_credit = 1 << 20
                connection.write_max = 1000
        else:
            self.disturb()
        self.client.step()
        self.server.look()
        for _ in range(self.dice.below(3)):
            self.server.send()
        self.bench.clock.advance(self.dice.one_of((0, 1, 10, 30)))

    def is_over(self):
        server = self.server
        if not self.client.is_online() or not (self.client._pipe.head == self.client._pipe.tail):
            return False
        return not server.held and not server.queue and not self.client._filters.asked_count

    def check(self, case):
        for qos in range(3):
            wanted = [payload for q, payload, token in self.published if q == qos]
            arrived = [payload for q, payload in self.server.accepted if q == qos]
            check_order(wanted, arrived, (case, "out", qos))
            for q, payload, token in self.published:
                if q != qos:
                    continue
                times = arrived.count(payload)
                told = self.ended.count(token), self.dropped.count(token)
                assert told in ((1, 0), (0, 1)), (case, qos, payload, told)
                assert qos == 1 or times <= 1, (case, qos, payload, times)
                assert qos == 0 or times or told == (0, 1), (case, qos, payload, "lost")
            wanted = [payload for q, payload in self.sent_in if q == qos]
            arrived = [payload for q, payload in self.received if q == qos]
            check_order(wanted, arrived, (case, "in", qos))
            for payload in wanted:
                times = arrived.count(payload)
                assert qos == 1 or times <= 1, (case, qos, payload, times)
                assert qos == 0 or times, (case, qos, payload, "lost")
        connections = self.bench.network.connections
        is_open = [connection for connection in connections if not connection.is_closed]
        assert is_open == [self.bench.server], case


# The first arrival of each, in the order in which they were published.
def check_order(wanted, arrived, case):
    first = []
    for payload in arrived:
        if payload not in first:
            first.append(payload)
    assert first == [payload for payload in wanted if payload in first], (case, first)


def run_life(number):
    life = Life(number)
    live(life, number)
    return len(life.server.accepted), len(life.received), len(life.bench.network.connections)


def live(life, number):
    """From the first turn to the last, and a look at what has become of it all."""
    for _ in range(TURNS):
        life.turn()
    life.is_calm = True
    for turn in range(TURNS_MAX):
        life.turn()
        if turn > 20 and life.is_over():
            break
    else:
        raise AssertionError((number, "it does not end", life.client.state_name, life.error))
    assert not life.bench.events, (number, life.bench.events[0])  # on_error
    life.check(number)


def test_nothing_is_lost_in_random_lives():
    needs("qos2", "offline")
    totals = [0, 0, 0]
    for number in range(LIVES):
        totals = [a + b for a, b in zip(totals, run_life(number))]
    accepted, received, connections = totals
    # So much has happened that it means something.
    assert accepted > 5 * LIVES and received > 10 * LIVES and connections > 2 * LIVES, totals
