"""subscribe() and unsubscribe() in one thread, step() in another: no filter is forgotten.

Each of the two is stopped at each of its bytecodes in turn, and all of the other runs just there.
"""

import fakes
import preemption
import pytest
from wire import answers, filters

import mqttpipe

fast = preemption.fast


class Life:
    """Filters are on their way, or their answers, when another thread wants one more, or less."""

    def __init__(self, moment, verb, name):
        self.bench = bench = fakes.Bench(clean_session=False, keep_alive_s=0).go_online()
        preemption.let_time_pass(bench)
        self.client = client = bench.client
        self.wire = b""
        self.tokens = [client.subscribe(one) for one in ("a", "b", "s")]
        self.wanted = {b"a", b"b", b"s"}
        if moment != "unsent":
            bench.steps()
            self.answer()
        if moment == "unsuback":
            bench.steps()
            self.tokens += [client.unsubscribe(one) for one in ("a", "s")]
            self.wanted -= {b"a", b"s"}
            bench.steps()
            self.answer()
        self.verb = getattr(client, verb)
        self.name = name
        if verb == "subscribe":
            self.wanted.add(name)
        else:
            self.wanted.discard(name)
        self.is_asked = False

    def answer(self):
        wire = self.bench.server.received()
        self.wire += wire
        self.bench.server.send(answers(wire))
        return wire

    def step(self):
        self.client.step()

    def ask(self):
        try:
            self.tokens.append(self.verb(self.name))
            self.is_asked = True
        except mqttpipe.QueueFull:
            pass  # asked again at the end

    def finish(self):
        if not self.is_asked:
            self.bench.steps()
            self.ask()
        self.bench.steps()
        while self.answer():
            self.bench.steps()
        assert self.client.is_online()
        assert all(map(self.client.is_done, self.tokens)), "never sent, or forgotten"
        assert {row[0] for row in self.client._filters.rows} == self.wanted
        sent = [name for _, names in filters(self.wire) for name in names]
        assert self.wanted <= set(sent), sent


@pytest.mark.parametrize("moment", ["unsent", "suback", "unsuback"])
@pytest.mark.parametrize(
    "verb, name", [("subscribe", b"new"), ("subscribe", b"s"), ("unsubscribe", b"s")]
)
@pytest.mark.parametrize("is_step_first", [True, False])
def test_no_filter_is_forgotten_whoever_comes_first(moment, verb, name, is_step_first):
    target = 0
    failures = []
    while True:
        target += 1
        life = Life(moment, verb, name)
        first, second = (life.step, life.ask) if is_step_first else (life.ask, life.step)
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


@pytest.mark.parametrize("is_step_first", [True, False])
def test_a_message_goes_to_one_callback_of_its_filter_while_that_is_replaced(is_step_first):
    """It went to on_message, to nobody, or to both."""
    target = 0
    failures = []
    while True:
        target += 1
        bench = fakes.Bench(keep_alive_s=0).go_online()
        preemption.let_time_pass(bench)
        client = bench.client
        taken = []
        client.on_message = lambda client, message, taken=taken: taken.append("on_message")
        client.subscribe("t/#", lambda client, message, taken=taken: taken.append("old"))
        bench.steps()
        bench.exchange(answers(bench.server.received()))
        bench.server.send(b"\x30\x06\x00\x03t/nx\x30\x06\x00\x03t/mx")

        def replace(client=client, taken=taken):
            try:
                client.subscribe("t/#", lambda client, message: taken.append("new"))
            except mqttpipe.QueueFull:
                pass

        first, second = (client.step, replace) if is_step_first else (replace, client.step)
        has_switched = preemption.Switch(target, second).run(first)
        bench.steps()
        if "on_message" in taken or len(taken) != 2:
            failures.append("bytecode %d: %r" % (target, taken))
        if not has_switched:
            break
    assert target > 100, "the client was not stopped at all"
    assert failures == []
