"""Nobody calls step() for a week, more than half a period of ticks_ms(): deadlines have passed."""

from fakes import ECONNRESET, Bench, needs
from mqtt5 import online

DAY_MS = 24 * 3600 * 1000
ABSENCES_MS = [int(days * DAY_MS) for days in (1, 3.3, 4, 6.3, 7, 7.5)]


def pass_over(bench, ms):
    while ms:  # advance() takes no more than a period
        some_ms = min(ms, 3 * DAY_MS)
        bench.clock.advance(some_ms)
        ms -= some_ms


def test_a_server_that_fell_silent_is_noticed_at_once():
    for absence_ms in ABSENCES_MS:
        bench = Bench(keep_alive_s=60).go_online()
        pass_over(bench, absence_ms)
        assert bench.client.next_deadline_ms() == 0, absence_ms
        bench.steps()
        assert bench.server.received() == b"\xc0\x00", absence_ms  # PINGREQ
        bench.clock.advance(10_001)
        bench.steps()
        bench.steps()
        assert bench.events[-1][0] == "offline", (absence_ms, bench.events)


def test_a_server_that_answers_stays():
    for absence_ms in ABSENCES_MS:
        bench = Bench(keep_alive_s=60).go_online()
        pass_over(bench, absence_ms)
        bench.steps()
        assert bench.server.received() == b"\xc0\x00"
        bench.exchange(b"\xd0\x00")
        for _ in range(5):
            bench.clock.advance(59_000)
            bench.steps()
            if bench.server.received():
                bench.exchange(b"\xd0\x00")
        assert bench.client.is_online(), (absence_ms, bench.events)


def test_a_message_without_acknowledgement_ends_the_connection():
    for absence_ms in ABSENCES_MS:
        bench = Bench(keep_alive_s=0).go_online()
        bench.client.publish("t", "x", 1)
        bench.steps()
        pass_over(bench, absence_ms)
        bench.steps()
        bench.steps()
        assert bench.events[-1][0] == "offline", (absence_ms, bench.events)


def test_a_pause_between_two_attempts_is_over():
    for absence_ms in ABSENCES_MS:
        bench = Bench().go_online()
        bench.server.error = ECONNRESET
        bench.steps()
        assert bench.client.state_name == "WAITING"
        pass_over(bench, absence_ms)
        bench.steps()
        assert len(bench.network.connections) == 2, absence_ms


def test_an_attempt_has_ended():
    for absence_ms in ABSENCES_MS:
        bench = Bench()
        bench.client.connect()
        bench.steps()
        assert bench.client.state_name == "AWAITING_CONNACK"
        pass_over(bench, absence_ms)
        bench.steps()
        bench.steps()
        assert bench.events[-1][0] == "offline", (absence_ms, bench.events)


def test_a_message_has_expired():
    needs("offline")
    for absence_ms in ABSENCES_MS:
        bench = Bench()
        token = bench.client.publish("t", "x", 1, expiry_s=60)
        bench.steps()
        pass_over(bench, absence_ms)
        bench.steps()
        assert not bench.client.cancel(token) and bench.client.is_done(token), absence_ms


def test_a_new_message_with_an_expiry_hides_no_deadline():
    needs("offline")
    for absence_ms in ABSENCES_MS:
        bench = Bench(keep_alive_s=60).go_online()
        pass_over(bench, absence_ms)
        bench.client.publish("t", "x", expiry_s=259_200)
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        assert b"\xc0\x00" in bench.server.received(), absence_ms  # PINGREQ


def test_nor_does_it_hide_a_message_that_has_expired():
    needs("offline")
    for absence_ms in ABSENCES_MS:
        bench = Bench(keep_alive_s=0)
        old = bench.client.publish("t", "old", expiry_s=60)
        bench.steps()
        pass_over(bench, absence_ms)
        bench.client.publish("t", "new", expiry_s=259_200)
        bench.steps()
        assert bench.client.is_done(old), absence_ms
        bench.go_online()
        assert b"old" not in bench.server.received(), absence_ms


def test_a_message_without_acknowledgement_is_not_hidden_by_later_ones():
    for absence_ms in ABSENCES_MS:
        bench = Bench(keep_alive_s=0).go_online()
        bench.client.publish("t", "x", 1)
        bench.steps()
        bench.server.received()
        pass_over(bench, absence_ms)
        bench.client.publish("t", "y", 1)
        for _ in range(4):
            bench.client.step()
        bench.clock.advance(10_000)
        for _ in range(4):
            bench.client.step()
        assert bench.events[-1][0] == "offline", (absence_ms, bench.events)


def test_the_longest_request_is_awaited():
    needs("mqtt5", "offline")
    bench = online(keep_alive_s=0, in_flight_max=1)
    answers = []

    def on_dropped(client, token):
        bench.clock.advance(3)
        client.request("t", "x", lambda _, message: answers.append(message), 268_435_455)

    bench.client.on_dropped = on_dropped
    bench.client.publish("t", "first", 1)
    bench.client.publish("t", "expires", 1, expiry_s=1)
    bench.steps()
    bench.clock.advance(1001)
    bench.steps()
    assert answers == []


def test_a_request_has_timed_out():
    needs("mqtt5")
    for absence_ms in ABSENCES_MS:
        bench = online(keep_alive_s=0)
        answers = []
        bench.client.request("t", "x", lambda _, message, to=answers: to.append(message), 5000)
        bench.steps()
        pass_over(bench, absence_ms)
        bench.steps()
        assert answers == [None], absence_ms


class Far:
    """A link that takes its time to say that it is down."""

    def __init__(self, bench, ms):
        self.bench = bench
        self.ms = ms

    def is_up(self):
        pass_over(self.bench, self.ms)
        self.ms = 0
        return False


def test_a_wait_is_over():
    for absence_ms in ABSENCES_MS:
        bench = Bench()
        bench.client.link = Far(bench, absence_ms)
        bench.client.connect()
        assert not bench.client.wait_online(1000)
        assert max(bench.select.slept + [0]) <= 1000, absence_ms
