"""start() and stop() where a timer drives the client, as on the rp2: on a timer of the test's own.

`machine.Timer` calls back in the main program's own thread, between two of its bytecodes, at any
place: so the same thread is inside step() and inside a call of the application at once. Here a
tick comes where the test says, above all in sleep_ms(), which on a board lets callbacks run.
"""

from fakes import CONNACK, DISCONNECT, Bench, needs, raises, use_real_parts

import mqttpipe
from mqttpipe import LocalError


class FakeTimer:
    """machine.Timer, a soft one; `one` is the timer that runs."""

    PERIODIC = 1
    one = None

    def __init__(self, period, mode, callback):
        assert FakeTimer.one is None, "two timers at once"
        assert mode == FakeTimer.PERIODIC
        self.period = period
        self.callback = callback
        FakeTimer.one = self

    def deinit(self):
        FakeTimer.one = None


class TimerBench(Bench):
    """A Bench whose client is driven by a FakeTimer; time goes on in sleep_ms() alone."""

    def __init__(self, **options):
        needs("background")
        super().__init__(**options)
        self.real = mqttpipe.Timer, mqttpipe.sleep_ms
        FakeTimer.one = None
        mqttpipe.Timer = FakeTimer
        mqttpipe.sleep_ms = self.sleep_ms
        self.is_in_tick = False

    def sleep_ms(self, ms):
        self.clock.advance(max(1, ms))
        self.tick()

    def tick(self, times=1):
        for _ in range(times):
            # Scheduled functions are never nested (py/scheduler.c).
            if FakeTimer.one is not None and not self.is_in_tick:
                self.is_in_tick = True
                try:
                    FakeTimer.one.callback(FakeTimer.one)
                finally:
                    self.is_in_tick = False

    def go_online_by_timer(self):
        self.client.start()
        self.tick(3)
        self.server.received()
        self.server.send(CONNACK)
        self.tick(3)
        assert self.client.is_online(), self.client.state_name
        self.events.clear()
        return self

    def close(self):
        mqttpipe.Timer, mqttpipe.sleep_ms = self.real
        use_real_parts()


def with_bench(test, **options):
    bench = TimerBench(**options)
    try:
        test(bench)
    finally:
        bench.close()


def test_start_makes_a_timer_of_10_ms_and_its_ticks_are_steps():
    def test(bench):
        bench.client.start()
        assert FakeTimer.one.period == 10
        assert bench.client.state_name == "DOWN", "start() itself does nothing"
        bench.tick()
        assert bench.client.state_name != "DOWN"
        raises(LocalError, bench.client.step)
        raises(LocalError, bench.client.start)

    with_bench(test)


def test_stop_waits_for_the_ticks_and_ends_the_timer():
    def test(bench):
        bench.go_online_by_timer()
        bench.client.publish("t", "last")
        assert bench.client.stop() is True
        assert FakeTimer.one is None and bench.client.state_name == "DOWN"
        assert bench.server.received() == b"\x30\x07\x00\x01tlast" + DISCONNECT
        assert bench.client.stop() is True
        bench.go_online_by_timer()  # again
        assert bench.client.stop() is True and FakeTimer.one is None

    with_bench(test)


def test_stop_that_is_too_short_leaves_the_timer_to_end_it():
    def test(bench):
        bench.go_online_by_timer()
        bench.client.publish("t", "x", 1)  # its PUBACK does not come
        assert bench.client.stop(30) is False
        assert FakeTimer.one is not None and bench.client.state_name == "CLOSING"
        raises(LocalError, bench.client.start)
        bench.server.send(b"\x40\x02\x00\x01")
        bench.tick(3)
        assert FakeTimer.one is None and bench.client.state_name == "DOWN"

    with_bench(test)


def test_the_waits_of_the_main_program_let_the_ticks_work():
    def test(bench):
        bench.client.start()
        assert bench.client.wait_online(50) is False  # the server says nothing
        bench.server.send(CONNACK)
        assert bench.client.wait_online(50) is True
        token = bench.client.publish("t", "x", 1)
        assert bench.client.wait_for(token, 50) is False
        bench.server.send(b"\x40\x02\x00\x01")
        assert bench.client.wait_for(token, 50) is True
        assert bench.client.stop()

    with_bench(test)


def test_stop_in_a_callback_is_refused_and_changes_nothing():
    def test(bench):
        refused = []

        def on_message(client, message):
            before = bench.clock.now_ms
            refused.append(raises(LocalError, client.stop))
            refused.append(raises(LocalError, client.wait_online, 1000))
            refused.append(raises(LocalError, client.wait_for, 1, 1000))
            refused.append(bench.clock.now_ms - before)

        bench.go_online_by_timer()
        bench.client.on_message = on_message
        bench.server.send(b"\x30\x04\x00\x01tx")
        bench.tick(3)
        assert len(refused) == 4 and refused[3] == 0, (refused, bench.events[:3])
        assert bench.client.is_online() and FakeTimer.one is not None
        assert bench.client.stop()

    with_bench(test)


def test_a_callback_that_raises_is_reported_and_the_ticks_go_on():
    def test(bench):
        def on_message(client, message):
            raise ValueError("by the test")

        bench.go_online_by_timer()
        bench.client.on_message = on_message
        for _ in range(3):
            bench.server.send(b"\x30\x04\x00\x01tx")
            bench.tick(2)
        assert [name for name, error in bench.take_events()] == ["error"] * 3
        assert bench.client.is_online() and bench.client.stop()

    with_bench(test)


def test_a_tick_inside_publish_leaves_all_to_the_next_one():
    """The main program is in put() and holds its lock: no callback could publish now."""

    def test(bench):
        client = bench.go_online_by_timer().client
        client.on_message = lambda c, message: c.publish("inner", "x")
        bench.server.send(b"\x30\x04\x00\x01tx")
        # The clock must go on, or a wait for the lock would have no end.
        now_ms = bench.clock.ticks_ms

        def ticks_ms():
            bench.clock.advance(1)
            return now_ms()

        mqttpipe.ticks_ms = ticks_ms
        payloads = client._pipe.payloads
        client._pipe.payloads = InterruptedList(payloads, bench)
        client.publish("outer", "y")
        client._pipe.payloads = payloads
        mqttpipe.ticks_ms = now_ms
        assert bench.server.received() == b"" and not bench.events
        bench.tick(3)
        sent = bench.server.received()
        assert b"outery" in sent and b"innerx" in sent
        assert [event[0] for event in bench.events] == ["published"] * 2, bench.events[:3]
        assert client.is_online() and client.stop()

    with_bench(test)


def test_the_ticks_give_back_what_a_publish_that_ctrl_c_has_ended_still_holds():
    def test(bench):
        client = bench.go_online_by_timer().client
        pipe = client._pipe
        topics = pipe.topics
        pipe.topics = None  # assigning to it raises, as Ctrl-C may there
        try:
            client.publish("t", "x")
        except TypeError:
            pass
        pipe.topics = topics
        assert pipe._lock.locked()
        for _ in range(110):
            bench.sleep_ms(10)
        client.publish("t", "y")
        bench.tick(3)
        assert bench.server.received() == b"\x30\x04\x00\x01ty"
        assert client.stop()

    with_bench(test)


class InterruptedList:
    """The payloads of the Pipe's ring; a tick comes in the middle of the first put()."""

    def __init__(self, payloads, bench):
        self.payloads = payloads
        self.bench = bench
        self.is_first = True

    def __getitem__(self, at):
        return self.payloads[at]

    def __setitem__(self, at, value):
        self.payloads[at] = value
        if self.is_first:
            self.is_first = False
            self.bench.tick()


def test_a_timer_that_can_not_be_had_leaves_the_client_as_it_was():
    def test(bench):
        mqttpipe.Timer = NoTimer
        raises(OSError, bench.client.start)
        mqttpipe.Timer = FakeTimer
        bench.client.start()
        assert bench.client.stop()

    with_bench(test)


class NoTimer:
    PERIODIC = 1

    def __init__(self, **options):
        raise OSError(12)
