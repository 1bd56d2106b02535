"""Another thread asks for something while step() looks: the step does not sleep over it.

step() is stopped at each of its bytecodes in turn, and all of the other runs just there.
"""

import fakes
import preemption
import pytest

import mqttpipe

fast = preemption.fast

LONG_MS = 5000  # a step that may sleep does so for as long


class Poll(fakes.Poll):
    """Does not sleep while the pipe is ready, as a real one."""

    def ipoll(self, timeout_ms):
        for thing in self.things:
            if isinstance(thing, mqttpipe.Pipe) and thing.is_signalled:
                timeout_ms = 0
        return super().ipoll(timeout_ms)


class Link:
    state = True

    def is_up(self):
        return self.state


class Life:
    """A client in one state, with nothing to do there but to wait."""

    def __init__(self, state):
        link = Link()
        self.bench = bench = fakes.Bench(
            link=link, keep_alive_s=0, reconnect_min_ms=30_000, connect_timeout_ms=30_000
        )
        preemption.let_time_pass(bench)
        bench.select.poll = lambda: Poll(bench.select)
        self.client = client = bench.client
        link.state = state != "WAITING, the link is down"
        if state != "DOWN":
            client.connect()
        bench.steps()
        if state == "WAITING":
            bench.server.error = fakes.ECONNRESET
            bench.steps()
        elif state == "ONLINE":
            bench.go_online()
        assert client.state_name == state.split(",")[0]


def sleeps_over(make, wanted):
    """Where a step sleeps over what make() -> (life, other) does meanwhile, until `wanted`."""
    target = 0
    found = []
    while True:
        target += 1
        life, other = make()
        slept = life.bench.select.slept

        def then(slept=slept, other=other):
            slept.clear()  # before that it may
            other()

        def step(client=life.client):
            client.step(LONG_MS)

        if not preemption.Switch(target, then).run(step):
            assert target > 50, "the client was not stopped at all"
            return found
        for _ in range(20):
            if life.client.state_name == wanted:
                break
            step()
        if slept:
            found.append("bytecode %d: for %d ms" % (target, sum(slept)))


@pytest.mark.parametrize(
    "state", ["WAITING", "WAITING, the link is down", "AWAITING_CONNACK", "ONLINE"]
)
def test_no_step_sleeps_over_a_disconnect_of_another_thread(state):
    """It did, until the end of the pause or of the attempt."""

    def make():
        life = Life(state)
        return life, life.client.disconnect

    assert sleeps_over(make, "DOWN") == []


def test_no_step_sleeps_over_a_connect_of_another_thread():
    def make():
        life = Life("DOWN")
        return life, life.client.connect

    assert sleeps_over(make, "AWAITING_CONNACK") == []


def test_a_connection_goes_on_behind_a_publish_that_found_no_room():
    """CONNACK is taken under the pipe's lock, which another thread has just then."""

    def make():
        life = Life("AWAITING_CONNACK")
        life.bench.server.send(fakes.CONNACK)
        pipe = life.client._pipe
        assert pipe._acquire(False)
        return life, lambda: pipe.release_lock(False)

    assert sleeps_over(make, "ONLINE") == []
