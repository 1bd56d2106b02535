"""Slow callbacks, continued: where one step or one call has many of them to tell.

Each takes seconds, and the keep alive is short: between two of them a ping that is due leaves.
"""

import board_heap  # noqa: F401
from fakes import CONNACK, CONNACK_SESSION, ECONNRESET, Bench, needs, offline
from wire import answers, publish, serve

COUNT = 12
KEEP_ALIVE_S = 4


class Slow:
    """Callbacks that take so long; notes when each began, and what the server had got by then."""

    def __init__(self, bench, ms=1000):
        self.bench = bench
        self.ms = ms
        self.seen = []
        self.told = []

    def __call__(self, *arguments):
        self.seen.append((self.bench.clock.now_ms, bytes(self.bench.server.from_client)))
        self.told.append(arguments[-1])
        self.bench.clock.advance(self.ms)

    def check(self, count=COUNT):
        """[MQTT-3.1.2-24] Seen from the server, which closes after 1.5 times the keep alive."""
        bench = self.bench
        assert len(self.seen) == count, (len(self.seen), bench.take_events())
        assert bench.client.is_online(), bench.take_events()
        had = len(self.seen[0][1])
        since = self.seen[0][0]
        for now_ms, wire in self.seen:
            if len(wire) > had:
                had, since = len(wire), now_ms
            silent_ms = now_ms + self.ms - since  # till its end
            assert silent_ms <= 1500 * KEEP_ALIVE_S, "silent for %d ms" % silent_ms
        serve(bench, answers(bench.server.received()))
        for _ in range(20):
            bench.clock.advance(1000)
            serve(bench, answers(bench.server.received()))
        assert bench.client.is_online(), bench.take_events()


def expiring(**options):
    """Twelve messages that wait and expire together."""
    bench = offline(keep_alive_s=KEEP_ALIVE_S, in_flight_max=1, **options)
    bench.go_online()
    bench.client.publish("t", b"stays", 1)
    for n in range(COUNT):
        bench.client.publish("t", b"%d" % n, 1, expiry_s=3)
    bench.steps()
    assert bench.client.next_deadline_ms() <= 3000
    return bench


def test_pings_leave_between_two_messages_that_expire_together():
    for ms in (1000, 3000):
        bench = expiring()
        slow = bench.client.on_dropped = Slow(bench, ms)
        bench.clock.advance(3000)
        bench.steps()
        assert slow.told == list(range(2, 2 + COUNT))
        slow.check()


def test_what_expires_together_is_told_in_one_step_if_that_is_quick():
    bench = expiring()
    bench.clock.advance(3000)
    bench.client.step()  # the deadline has come
    assert bench.take_events() == []
    bench.client.step()
    assert bench.take_events() == [("dropped", token) for token in range(2, 2 + COUNT)]


def test_pings_leave_between_two_messages_that_expire_while_there_is_no_connection():
    needs("offline")
    bench = offline(keep_alive_s=KEEP_ALIVE_S, clean_session=False)
    for n in range(COUNT):
        bench.client.publish("t", b"%d" % n, 1, expiry_s=3)
    slow = bench.client.on_dropped = Slow(bench)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.server.send(CONNACK)
    bench.clock.advance(3000)
    bench.steps()
    slow.check()


def test_pings_leave_between_two_messages_that_a_callback_drops():
    """A large message takes the place of many small ones, in a callback."""
    needs("offline")
    bench = offline(
        keep_alive_s=KEEP_ALIVE_S, in_flight_max=1, pipe_bytes_max=100, offline="drop_oldest"
    )
    bench.client.subscribe("now", lambda client, message: client.publish("t", b"L" * 90))
    bench.client.connect()
    bench.steps()
    bench.server.received()
    serve(bench, CONNACK)
    bench.client.publish("t", b"stays", 1)
    for n in range(COUNT):
        bench.client.publish("t", b"%06d" % n, 1)
    bench.steps()
    slow = bench.client.on_dropped = Slow(bench)
    bench.server.send(publish(b"now", b""))
    bench.steps()
    slow.check()


def test_pings_leave_between_two_messages_that_interrupts_drop():
    needs("offline", "isr")
    bench = offline(
        keep_alive_s=KEEP_ALIVE_S, in_flight_max=1, pipe_slots=15, offline="drop_oldest"
    ).go_online()
    bench.client.publish("t", b"stays", 1)
    for n in range(14):
        bench.client.publish("t", b"%d" % n, 1)
    bench.steps()
    slow = bench.client.on_dropped = Slow(bench)
    for n in range(COUNT):
        assert bench.client.publish_isr(b"t", b"isr %d" % n, 1)
    bench.steps()
    slow.check()


def test_pings_leave_between_two_errors_of_messages_of_interrupts():
    needs("isr")
    bench = Bench(keep_alive_s=KEEP_ALIVE_S).go_online()
    slow = bench.client.on_error = Slow(bench)
    for _ in range(COUNT):
        assert bench.client.publish_isr(b"a/#", b"no topic name")
    bench.steps()
    slow.check()


def test_pings_leave_between_two_callbacks_of_one_message():
    for qos in range(3):
        if qos == 2:
            needs("qos2")
        for ms in (1000, 2900):
            bench = Bench(keep_alive_s=KEEP_ALIVE_S)
            slow = Slow(bench, ms)
            for n in range(COUNT):
                bench.client.subscribe(("t/" + "+/" * n + "#"), slow)
            bench.client.connect()
            bench.steps()
            bench.server.received()
            serve(bench, CONNACK)
            bench.server.send(publish(b"t" + b"/a" * COUNT, b"x", qos, b"\x00\x07", 0))
            bench.steps()
            slow.check()


def test_a_ping_leaves_between_on_online_and_the_next_callback():
    """[MQTT-3.1.2-24] Each takes less than the keep alive, all of them more than is allowed."""
    bench = Bench(keep_alive_s=KEEP_ALIVE_S, clean_session=False)
    slow = Slow(bench, 2900)
    bench.client.on_connect = bench.client.on_message = slow

    def on_online(client):
        slow(client)
        bench.server.send(publish(b"t", b"x"))

    bench.client.on_online = on_online
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.server.send(CONNACK_SESSION + publish(b"t", b"x") * 3)
    bench.steps()
    slow.check(6)


def test_a_drop_that_is_told_late_is_told_once_and_before_the_end():
    """The connection ends while some are not told yet: they are told all the same."""
    bench = expiring()
    slow = bench.client.on_dropped = Slow(bench, 100)
    bench.clock.advance(3000)
    bench.client.step()
    bench.client.step()
    assert len(slow.told) == 1
    bench.server.error = ECONNRESET
    for _ in range(30):
        bench.client.step()
    assert slow.told == list(range(2, 2 + COUNT))
    assert bench.client.is_done(2) and not bench.client.is_done(1)


def test_step_sleeps_no_longer_than_until_the_next_drop_is_told():
    bench = expiring()
    slow = bench.client.on_dropped = Slow(bench, 100)
    bench.clock.advance(3000)
    bench.client.step()
    bench.client.step()
    assert len(slow.told) == 1 and bench.client.next_deadline_ms() == 0
    bench.client.disconnect()
    for _ in range(30):
        bench.client.step()
    assert len(slow.told) == COUNT


def test_drops_of_a_publish_outside_of_step_are_told_by_it_and_by_step():
    needs("offline")
    bench = offline(pipe_bytes_max=100, offline="drop_oldest")
    for n in range(COUNT):
        bench.client.publish("t", b"%06d" % n)
    told = []

    def on_dropped(client, token):
        told.append(token)
        bench.clock.advance(60)

    bench.client.on_dropped = on_dropped
    bench.client.publish("t", b"L" * 90)
    assert told == [1], "the first at once"
    for _ in range(COUNT):
        bench.client.step()
    assert told == list(range(1, COUNT)), "as many as are in the way"
