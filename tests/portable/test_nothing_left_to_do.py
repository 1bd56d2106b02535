"""When step() has found nothing to do, nothing waits until a packet or a deadline wakes it.

Random lives, as those of test_random_lives.py, in which callbacks connect, disconnect, publish and
subscribe. Now and then step() is called until it returns False. Then it is made to look again at
everything: it must find nothing.
"""

import board_heap  # noqa: F401
import test_random_lives as random_lives
from fakes import CONNACK, DISCONNECT, Bench, needs

LIVES = 26
TURNS = 40


class Busy(random_lives.Life):
    def __init__(self, number):
        random_lives.Life.__init__(self, number)
        client = self.client
        on_published, on_message = client.on_published, client.on_message

        def on_end(client, token):
            on_published(client, token)
            self.act()

        def on_more(client, message):
            on_message(client, message)
            self.act()

        client.on_published = on_end
        client.on_message = on_more
        client.on_subscribed = lambda *arguments: self.act()
        client.on_online = lambda client: self.act()

    def on_connect(self, client, session_present):
        self.act()

    def act(self):
        if self.is_calm:
            return
        what = self.dice.below(6)
        if what == 0:
            self.client.disconnect()
        elif what == 1:
            self.client.connect()
        elif what < 4:
            self.publish()
        elif what == 4:
            self.client.subscribe("x%d" % self.dice.below(2))
        elif what == 5:
            self.client.unsubscribe("x%d" % self.dice.below(2))

    # The poll would wake it as well for what can be written.
    def is_writable(self):
        client, network = self.client, self.bench.network
        if not client._write or not client._outbox.pending or not self.bench.server.write_credit:
            return False
        return not (self.bench.server.is_connecting and network.is_silent)

    def rest(self):
        for _ in range(1000):
            if not self.client.step() and not self.is_writable():
                break
        else:
            raise AssertionError("step() finds work without end")
        connections = self.bench.network.connections
        return self.client.state_name, [len(one.from_client) for one in connections]

    def look_again(self, case):
        is_calm, self.is_calm = self.is_calm, True
        before = self.rest()
        self.client._pipe.has_chores = self.client._pipe.is_signalled = True
        after = self.rest()
        assert before == after, (case, before, after)
        self.is_calm = is_calm


def run_life(number):
    life = Busy(number)
    for turn in range(TURNS):
        life.turn()
        if turn % 2:
            life.look_again((number, turn))


def test_it_finds_nothing_when_it_looks_again():
    needs("qos2", "offline")
    for number in range(LIVES):
        run_life(number)


def test_disconnect_before_online_sends_what_is_queued_at_once():
    """Nothing came that would have waked step(), and then the time for draining was up."""
    for is_in_callback in (True, False):
        bench = Bench()
        client = bench.client
        if is_in_callback:
            client.on_subscribed = lambda client, token, granted: client.disconnect()
        client.subscribe("a")
        client.publish("t", b"last words", 1)
        client.connect()
        bench.steps()
        bench.server.received()
        assert bench.exchange(CONNACK) == b"\x82\x06\xff\x01\x00\x01a\x00"
        if not is_in_callback:
            client.disconnect()
            bench.steps()
        else:
            bench.server.send(b"\x90\x03\xff\x01\x00")
            bench.steps()
        assert bench.server.received() == b"\x32\x0f\x00\x01t\x00\x02last words"
        if not is_in_callback:
            bench.server.send(b"\x90\x03\xff\x01\x00")
        assert bench.exchange(b"\x40\x02\x00\x02") == DISCONNECT
        assert client.state_name == "DOWN"
