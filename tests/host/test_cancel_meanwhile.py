"""cancel() in one thread and step() in another: each message has one end, and it is told once.

Each of the two is stopped at each of its bytecodes in turn, and all of the other runs just there.
"""

import functools

import fakes
import preemption
import pytest
from wire import answers

import mqttpipe

fast = preemption.fast


class Life:
    """Three messages are in flight; the server answers, and the second one is taken back."""

    def __init__(self, qos, answer, is_resumed):
        self.bench = bench = fakes.offline(in_flight_max=4, clean_session=False, keep_alive_s=0)
        preemption.let_time_pass(bench)
        bench.go_online()
        self.tokens = [bench.client.publish("t", b"%d" % n, qos) for n in range(3)]
        bench.steps()
        bench.server.received()
        self.token = self.tokens[1]
        self.is_taken_back = None
        packet_id = bytes((0, self.token))
        if answer == b"\x70":
            bench.exchange(b"\x50\x02" + packet_id)
        if is_resumed:  # the answer comes before the message is sent again
            bench.client.in_flight_max = 1
            fakes.reconnect(bench, b"")
            bench.clock.advance(100_000)
            bench.steps()
            bench.server.received()
            bench.server.send(fakes.CONNACK_SESSION)
            bench.steps()
        if answer:
            bench.server.send(answer + b"\x02" + packet_id)
        else:
            bench.server.error = fakes.ECONNRESET

    def step(self):
        self.bench.client.step()

    def cancel(self):
        try:
            self.is_taken_back = self.bench.client.cancel(self.token)
        except mqttpipe.QueueFull:
            pass  # asked again at the end

    def finish(self):
        bench = self.bench
        bench.steps()
        if self.is_taken_back is None:
            self.cancel()
            bench.steps()
        if bench.server.is_closed:
            bench.clock.advance(100_000)
            bench.steps()
            bench.server.received()
            bench.server.send(fakes.CONNACK_SESSION)
            bench.steps()
        wire = bench.server.received()
        for _ in range(20):
            wire = bench.exchange(answers(wire))
        for token in self.tokens[::2]:
            bench.exchange(b"\x40\x02" + bytes((0, token)), b"\x50\x02" + bytes((0, token)))
            bench.exchange(b"\x70\x02" + bytes((0, token)))
        bench.exchange(b"\x70\x02" + bytes((0, self.token)))
        told = [event for event in bench.events if event[0] in ("published", "dropped")]
        ends = [name for name, token in told if token == self.token]
        assert ends == ["dropped" if self.is_taken_back else "published"], ends
        for token in self.tokens[::2]:
            assert told.count(("published", token)) == 1, told
        assert all(map(bench.client.is_done, self.tokens))
        pipe = bench.client._pipe
        assert pipe.head == pipe.tail and not any(pipe.firsts), "each slot is free again"
        assert bench.client._flying == 0 and not pipe.is_looking and not pipe.is_dropping


PUBACK, PUBREC, PUBCOMP, CUT = b"\x40", b"\x50", b"\x70", b""


@pytest.mark.parametrize(
    "qos, answer, is_resumed",
    [(1, PUBACK, False), (1, PUBACK, True), (2, PUBREC, False), (2, PUBREC, True)]
    + [(2, PUBCOMP, False), (2, PUBACK, False), (1, CUT, False), (2, CUT, False)],
)
@pytest.mark.parametrize("is_step_first", [True, False])
def test_one_end_is_told_whoever_comes_first(qos, answer, is_resumed, is_step_first):
    target = 0
    failures = []
    while True:
        target += 1
        life = Life(qos, answer, is_resumed)
        first, second = (life.step, life.cancel) if is_step_first else (life.cancel, life.step)
        has_switched = preemption.Switch(target, second).run(first)
        if not has_switched:
            second()
        try:
            life.finish()
        except AssertionError as error:
            failures.append("bytecode %d: %s" % (target, str(error).split("\n")[0]))
        if not has_switched:
            break
    assert target > 100, "the client was not stopped at all"
    assert failures == []


def test_what_two_threads_take_back_is_told_by_one_of_them_or_by_step():
    target = 0
    failures = []
    while True:
        target += 1
        bench = fakes.offline(in_flight_max=1, keep_alive_s=0).go_online()
        preemption.let_time_pass(bench)
        client = bench.client
        client.publish("t", b"before them", 1)
        tokens = [client.publish("t", b"%d" % n, 1) for n in range(2)]
        bench.steps()
        taken_back = []

        def take_back(token, client=client, taken_back=taken_back):
            try:
                assert client.cancel(token)
                taken_back.append(token)
            except mqttpipe.QueueFull:
                pass  # the lock is the other one's, who does not go on meanwhile

        first, second = [functools.partial(take_back, token) for token in tokens]
        has_switched = preemption.Switch(target, second).run(first)
        bench.steps()
        told = [token for _, token in bench.events]
        if sorted(told) != sorted(taken_back):
            failures.append("bytecode %d: %r" % (target, told))
        if not has_switched:
            break
    assert target > 100, "the client was not stopped at all"
    assert failures == []
