"""Callbacks that raise, or drive the client: it goes on, and tells."""

from fakes import CONNACK, Bench, offline, raises

import mqttpipe

NAMES = "on_connect on_online on_published on_subscribed on_offline".split()


def run_life(bench):
    """Each of NAMES is called, on_published for each QoS but 2."""
    client = bench.client
    client.subscribe("a")
    client.connect()
    bench.steps()
    bench.exchange(CONNACK)
    bench.exchange(b"\x90\x03\xff\x01\x00")
    client.publish("t", b"0")
    bench.steps()
    client.publish("t", b"1", 1)
    bench.steps()
    bench.exchange(b"\x40\x02\x00\x03")
    assert client.is_online()
    client.disconnect()
    bench.steps()
    bench.steps()
    assert client.state_name == "DOWN"


def test_whatever_callback_raises_it_is_told_to_on_error_and_all_goes_on():
    bench = Bench()
    told = []

    def fail(client, *values):
        raise ValueError("mine")

    for name in NAMES:
        setattr(bench.client, name, fail)
    bench.client.on_error = lambda client, error: told.append(str(error))
    run_life(bench)
    assert told == ["mine"] * (len(NAMES) + 1)


def test_what_is_more_than_an_error_leaves_step_and_all_goes_on():
    """Ctrl-C, above all; once, where it has ended two callbacks of one step()."""

    class Stop(BaseException):
        pass

    bench = Bench()
    called = []

    def stop(client, *values):
        called.append(1)
        raise Stop

    for name in NAMES:
        setattr(bench.client, name, stop)
    step, caught = bench.client.step, []

    def step_on():
        before = len(called)
        try:
            return step()
        except Stop:
            assert len(called) > before
            caught.append(1)
            return True

    bench.client.step = step_on
    run_life(bench)
    assert len(called) == len(NAMES) + 1 and 3 < len(caught) <= len(called)


def test_what_is_more_than_an_error_leaves_a_step_in_which_nothing_else_happened():
    """Ctrl-C in on_error, which is told that the link can't be asked."""

    class Stop(BaseException):
        pass

    class Link:
        error = None

        def is_up(self):
            if self.error:
                raise self.error
            return False

    def stop(client, error):
        raise Stop

    link = Link()
    bench = Bench(link=link)
    bench.client.on_error = stop
    bench.client.connect()
    bench.steps()
    link.error = OSError(5)
    caught = 0
    for _ in range(5):
        bench.clock.advance(250)
        try:
            bench.client.step()
        except Stop:
            caught += 1
    assert caught == 1


def test_an_on_error_that_raises_is_no_end():
    bench = Bench().go_online()

    def fail(client, error):
        raise ValueError("by the test: on_error itself")

    bench.client.on_error = fail
    bench.client.on_message = fail
    bench.exchange(b"\x30\x03\x00\x01m")  # the error is printed
    assert bench.client.is_online()


def test_step_and_the_waits_are_refused_in_a_callback():
    bench = Bench().go_online()
    told = []

    def on_message(client, message):
        for call in (client.step, lambda: client.step(10), lambda: client.wait_online(10)):
            told.append("callback" in raises(mqttpipe.LocalError, call))

    bench.client.on_message = on_message
    bench.exchange(b"\x30\x03\x00\x01m")
    assert told == [True] * 3 and bench.client.is_online()


def test_what_is_no_attribute_raises_attributeerror():
    bench = Bench().go_online()
    bench.client.on_message = lambda client, message: raises(
        AttributeError, getattr, message, "no_such_thing"
    )
    bench.client.on_error = lambda client, error: bench.events.append(error)
    bench.exchange(b"\x30\x03\x00\x01m")
    assert bench.take_events() == []
    raises(AttributeError, getattr, bench.client, "no_such_thing")


def test_ctrl_c_in_on_dropped_of_a_publish_leaves_the_next_step():
    class Stop(BaseException):
        pass

    def stop(client, token):
        raise Stop

    bench = offline(pipe_slots=2, in_flight_max=1, offline="drop_oldest", keep_alive_s=0)
    bench.go_online()
    for payload in (b"1", b"2"):
        bench.client.publish("t", payload, 1)
    bench.steps()
    bench.client.on_dropped = stop
    bench.client.publish("t", b"3", 1)
    try:
        bench.client.step()
        raise AssertionError("it was swallowed")
    except Stop:
        pass
