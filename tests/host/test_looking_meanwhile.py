"""publish() or is_done() in one thread, step() or publish() in another, who frees or moves slots.

One of the two is stopped at each of its bytecodes in turn, and all of the other runs just there.
"""

import fakes
import preemption
import pytest

import mqttpipe

fast = preemption.fast


class Moving:
    """The pipe is full, with a gap: whoever publishes drops a message, and moves what waits."""

    def __init__(self):
        self.bench = bench = fakes.offline(pipe_slots=4, offline="drop_oldest", keep_alive_s=0)
        preemption.let_time_pass(bench)
        self.client = client = bench.client
        self.tokens = [client.publish("t", b"%d" % n, 1) for n in range(4)]
        client.cancel(self.tokens[1])
        self.waiting = self.tokens[2:]

    def other(self):
        for n in range(2):
            self.client.publish("t", b"new %d" % n, 1)


class Turning:
    """The ring turns once while somebody looks: what he asks for is behind his back then."""

    def __init__(self):
        self.bench = bench = fakes.offline(pipe_slots=4, keep_alive_s=0).go_online()
        preemption.let_time_pass(bench)
        self.client = client = bench.client
        self.tokens = [client.publish("t", b"%d" % n) for n in range(3)]
        self.waiting = [client.publish("t", b"last", 1)]  # its PUBACK does not come

    def other(self):
        for n in range(4):
            self.client.step()
            self.client.publish("t", b"new %d" % n)


@pytest.mark.parametrize("kind", [Moving, Turning])
@pytest.mark.parametrize("is_look_first", [True, False])
def test_what_waits_is_not_done_whatever_others_do_meanwhile(kind, is_look_first):
    target = 0
    failures = []
    while True:
        target += 1
        life = kind()
        answers = []

        def look(life=life, answers=answers):
            for token in life.waiting:
                answers.append(life.client.is_done(token))

        def other(life=life):
            try:
                life.other()
            except mqttpipe.QueueFull:
                pass

        first, second = (look, other) if is_look_first else (other, look)
        has_switched = preemption.Switch(target, second).run(first)
        if True in answers:
            failures.append("bytecode %d: %r" % (target, answers))
        if not has_switched:
            break
    assert target > 50, "the client was not stopped at all"
    assert failures == []


def test_who_counts_bytes_bears_that_step_frees_a_slot_just_then():
    """MQTT 5.0: publish() asked for the properties twice, and the second time there were none."""
    target = 0
    failures = []
    while True:
        target += 1
        bench = fakes.offline(
            pipe_slots=4, pipe_bytes_max=200, offline="drop_oldest", protocol=5, keep_alive_s=0
        )
        preemption.let_time_pass(bench)
        client = bench.client
        bench.go_online(b"\x20\x03\x00\x00\x00")
        for _ in range(2):
            client.publish("t", b"x" * 20, 1, properties={"content_type": "text"})
        bench.steps()
        client._pipe.bytes_left = 0  # has them counted
        bench.server.send(b"\x40\x02\x00\x01\x40\x02\x00\x02")
        published = []

        def publish(client=client, published=published):
            published.append(client.publish("t", b"y" * 20, 1))

        try:
            has_switched = preemption.Switch(target, client.step).run(publish)
        except Exception as error:
            failures.append("bytecode %d: %r" % (target, error))
            continue
        if not has_switched:
            break
    assert target > 100 and published, "the client was not stopped at all"
    assert failures == []
