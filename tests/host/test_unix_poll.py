"""The poll for MicroPython's unix port: brisk at first, then with naps that only descriptors end.

Here it is on CPython, with a clock and a select.poll() of the test's own. What it is good for is
shown by tests/broker/test_idle.py.
"""

import importlib
import sys
import time

import pytest

BRISK_MS = 20
NAP_MS = 8
NEVER_MS = 1 << 29


class Stream:
    """Like a socket of the unix port: it has a descriptor."""

    def fileno(self):
        return 7


class Asked:
    """Like the Pipe, or a TLS stream: it has none."""


class Bench:
    """A poll with a Stream and an Asked. `slept`: on how many things, and for how long at most."""

    def __init__(self):
        self.now_ms = 1000
        self.slept = []
        self.naps = []  # microseconds
        self.ready_at_ms = {}  # thing: when it is ready
        self.stream = Stream()
        self.asked = Asked()

    def poll(self):  # select.poll
        return FakePoll(self)

    def watch(self, tested):
        self.tested = tested
        tested.register(self.stream, 1)
        tested.register(self.asked, 1)
        return self

    def sleep(self, timeout_ms):
        """Return what ipoll() finds, and for how long it slept."""
        begin_ms = self.now_ms
        self.slept = []
        found = [thing for thing, _ in self.tested.ipoll(timeout_ms)]
        return found, self.now_ms - begin_ms


class FakePoll:
    def __init__(self, bench):
        self.bench = bench
        self.things = []

    def register(self, thing, events):
        self.things.append(thing)

    def ipoll(self, timeout_ms):
        bench = self.bench
        dues = [max(bench.now_ms, bench.ready_at_ms.get(thing, NEVER_MS)) for thing in self.things]
        bench.now_ms = min([bench.now_ms + timeout_ms, *dues])
        if timeout_ms:
            bench.slept.append((len(self.things), timeout_ms))
        ready = [t for t in self.things if bench.ready_at_ms.get(t, NEVER_MS) <= bench.now_ms]
        return [(thing, 1) for thing in ready]


@pytest.fixture
def bench(monkeypatch):
    bench = Bench()
    monkeypatch.setattr(time, "ticks_ms", lambda: bench.now_ms, raising=False)
    monkeypatch.setattr(time, "ticks_add", lambda ticks, delta: ticks + delta, raising=False)
    monkeypatch.setattr(time, "ticks_diff", lambda one, another: one - another, raising=False)
    monkeypatch.setattr(time, "sleep_us", bench.naps.append, raising=False)
    module = importlib.import_module("mqttpipe_unix")
    monkeypatch.setattr(module, "_select", bench)
    yield bench.watch(module.poll())
    del sys.modules["mqttpipe_unix"]  # it has taken this clock


def test_who_waits_for_another_thread_lets_the_processor_go(bench):
    sys.modules["mqttpipe_unix"].pass_on()
    assert len(bench.naps) == 1 and 0 < bench.naps[0] <= 100


def test_a_short_sleep_is_one_poll_of_all(bench):
    assert bench.sleep(BRISK_MS) == ([], BRISK_MS)
    assert bench.slept == [(2, BRISK_MS)]


def test_a_long_sleep_has_its_length_and_naps_on_what_has_a_descriptor(bench):
    assert bench.sleep(102) == ([], 102)
    assert bench.slept == [(2, BRISK_MS)] + [(1, NAP_MS)] * 10 + [(1, 2)]


@pytest.mark.parametrize("at_ms", (0, 3, 19, 20, 21, 50))
def test_a_descriptor_wakes_it_at_once(at_ms, bench):
    bench.ready_at_ms[bench.stream] = bench.now_ms + at_ms
    assert bench.sleep(1000) == ([bench.stream], at_ms)


@pytest.mark.parametrize("at_ms, seen_ms", ((0, 0), (19, 19), (21, 28), (28, 28), (43, 44)))
def test_what_is_asked_wakes_it_after_a_nap_at_the_latest(at_ms, seen_ms, bench):
    bench.ready_at_ms[bench.asked] = bench.now_ms + at_ms
    assert bench.sleep(1000) == ([bench.asked], seen_ms)


def test_without_an_end_it_goes_on_until_something_is_ready(bench):
    bench.ready_at_ms[bench.asked] = bench.now_ms + 10_005
    assert bench.sleep(-1) == ([bench.asked], 10_012)
