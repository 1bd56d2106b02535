"""The watchdog over every scenario: a step() that blocks fails the test, and nothing else does."""

import contextlib
import os
import subprocess
import sys
import time

import ends
import pytest


# The watchdog is Python of the scenario's own; what differs is the interpreter.
@pytest.fixture(params=["CPython", "MicroPython 64-bit", ends.BOARD])
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


def test_a_step_that_blocks_fails_the_test(start):
    scenario = start("slow_link.py", "blocks")
    # One is enough. The second is for a busy machine, which close() may find to have stood still
    # in one of them.
    scenario.wait_until(lambda: len(scenario.slow_steps()) > 1, "the watchdog slept")
    with pytest.raises(AssertionError, match="step\\(\\) blocked: .* ms in "):
        scenario.close()


@pytest.mark.parametrize("how", ["says", "sleeps"])
def test_a_step_that_sleeps_or_waits_for_us_does_not(start, how):
    scenario = start("slow_link.py", how)
    scenario.next("over")
    assert not scenario.slow_steps()


def test_a_machine_that_stood_still_is_not_held_against_a_step():
    heartbeat = ends.Heartbeat()
    heartbeat.note(10.0, 10.012)  # a thread of our own was in the way
    assert heartbeat.still_ms(9, 11) == 0
    heartbeat.note(10.1, 10.2)
    heartbeat.note(10.3, 10.5)
    for since, until, expected_ms in (
        (9, 11, 300),
        (10.15, 10.4, 150),
        (10.21, 10.29, 0),
        (10.35, 10.45, 100),
        (11, 12, 0),
    ):
        assert heartbeat.still_ms(since, until) == pytest.approx(expected_ms), (since, until)


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="only Linux counts it")
def test_a_process_that_had_no_processor_is_not_held_to_have_blocked():
    """The heartbeat may have had one, where there are two."""
    command = [sys.executable, "-c", "while True: pass"]
    with ends.Heartbeat() as heartbeat, contextlib.ExitStack() as stack:
        spinning = [stack.enter_context(subprocess.Popen(command)) for _ in range(2)]
        for process in spinning:
            stack.callback(process.kill)
            os.sched_setaffinity(process.pid, [min(os.sched_getaffinity(0))])
        napping = stack.enter_context(subprocess.Popen(["sleep", "100"]))
        stack.callback(napping.kill)
        for process in (*spinning, napping):
            heartbeat.watch(process.pid)
        since = time.monotonic()
        time.sleep(2)
        until = time.monotonic()
        waited_ms = heartbeat.waited_ms(spinning[0].pid, since, until)
        assert 200 < waited_ms and heartbeat.waited_ms(napping.pid, since, until) < waited_ms / 2
        assert heartbeat.waited_ms(0, since, until) == 0, "it was never watched"


def test_the_heartbeat_bears_a_process_that_ends_while_it_looks(monkeypatch):
    def glob(path, pattern):
        raise FileNotFoundError(path)

    monkeypatch.setattr(ends.pathlib.Path, "glob", glob)
    heartbeat = ends.Heartbeat()
    heartbeat.watch(os.getpid())
    assert heartbeat.waited_ms(os.getpid(), 0, time.monotonic()) == 0


def test_the_heartbeat_beats_while_it_is_needed():
    heartbeat = ends.Heartbeat()
    with heartbeat:
        with heartbeat:
            thread = heartbeat._thread
        assert thread.is_alive()
    thread.join(ends.WAIT_S)
    assert not thread.is_alive()
