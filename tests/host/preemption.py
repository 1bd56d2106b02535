"""Two threads without threads: one is stopped at a bytecode, and the other does all of its work.

    fast = preemption.fast              a fixture: nothing but the client costs time
    Switch(number, other).run(one)      False: `one` has ended before, and `other` was not called

The client's bytecodes are counted, from 1 on. A writer that finds the other at a place where it
has to wait gives up, with QueueFull, as nobody goes on meanwhile.
"""

import sys

import fakes
import pytest

import mqttpipe

CLIENT = mqttpipe.__file__


class NoCollector:
    """CPython is not short of memory, and gc.collect() would take longer than all the rest."""

    collect = staticmethod(lambda: None)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(fakes, "gc", NoCollector)
    monkeypatch.setattr(mqttpipe, "pass_on", None)
    yield
    fakes.use_real_parts()


def let_time_pass(bench):
    """Who waits for the other thread waits in vain, and not for ever."""
    mqttpipe.pass_on = lambda: bench.clock.advance(1)


class Switch:
    def __init__(self, target, other):
        self.target = target
        self.other = other
        self.count = 0
        self.error = None  # the other's: step() would take it for one of the connection

    def on_call(self, frame, event, value):
        if frame.f_code.co_filename != CLIENT:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.on_opcode

    def on_opcode(self, frame, event, value):
        if event == "opcode":
            self.count += 1
            if self.count == self.target:
                try:
                    self.other()
                except BaseException as error:
                    self.error = error
        return self.on_opcode

    def run(self, function):
        before = sys.gettrace()
        sys.settrace(self.on_call)
        try:
            function()
        finally:
            sys.settrace(before)
        if self.error:
            raise self.error
        return self.target <= self.count
