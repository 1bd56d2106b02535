"""schedule() on CPython: the main thread, one at a time, out of every kind of wait."""

import gc
import io
import os
import subprocess
import sys
import threading
import time

import pytest

import shim_micropython
import shim_select
import shim_time
from shim_micropython import schedule

GIVE_UP_S = 5.0


def wait_until(condition):
    """Compute, without calling anything that sleeps, until condition() or the time is up."""
    deadline = time.monotonic() + GIVE_UP_S
    while not condition() and time.monotonic() < deadline:
        pass
    return condition()


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


@pytest.fixture(autouse=True)
def empty_queue():
    yield
    assert wait_until(lambda: not shim_micropython._queue), "the test left something scheduled"


# A program of its own, as ctypes is imported once in a process. What runs in the middle of the
# import does so as a signal's handler would: in the same thread, with the import half done.
INTERRUPTED_IMPORT = """\
import sys
import shim_micropython, shim_time

ran = []

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "_ctypes" and not ran:
            ran.append("interrupted")
            for number in (1, 2):
                shim_micropython.schedule(ran.append, number)

assert "ctypes" not in sys.modules
sys.meta_path.insert(0, Interrupt())
shim_micropython.schedule(ran.append, 3)
while len(ran) < 4:
    pass
print(ran)
"""


def test_an_interrupt_may_schedule_in_the_middle_of_the_first_call():
    ran = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT],
        env=dict(os.environ, PYTHONPATH=os.path.dirname(shim_micropython.__file__)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=20,
    )
    assert (ran.returncode, ran.stdout) == (0, "['interrupted', 1, 2, 3]\n"), ran.stdout


def test_a_scheduled_function_gets_its_argument_in_the_main_thread():
    ran = []
    in_thread(lambda: schedule(lambda arg: ran.append((arg, threading.get_ident())), "a")).join()
    assert wait_until(lambda: ran)
    assert ran == [("a", threading.main_thread().ident)]


def test_a_computing_main_thread_is_interrupted():
    ran = []

    def later():
        time.sleep(0.02)
        schedule(ran.append, 1)

    thread = in_thread(later)
    assert wait_until(lambda: ran), "the loop never gave way"
    thread.join()


@pytest.mark.parametrize(
    "sleep",
    [
        pytest.param(lambda: shim_time.sleep_ms(2000), id="sleep_ms"),
        pytest.param(lambda: shim_select.poll().poll(2000), id="poll"),
    ],
)
def test_a_sleeping_main_thread_runs_it_at_once_and_sleeps_on(sleep):
    ran_s = []
    before = time.monotonic()

    def later():
        time.sleep(0.05)
        schedule(lambda _: ran_s.append(time.monotonic()), None)

    thread = in_thread(later)
    sleep()
    after = time.monotonic()
    thread.join()
    assert ran_s and after - ran_s[0] > 0.5, "it waited for the end of the sleep"
    assert after - before >= 1.995, "the sleep was cut short"


def test_a_sleep_in_a_scheduled_function_is_a_sleep():
    took_s = []

    def sleeper(_):
        before = time.monotonic()
        shim_time.sleep_ms(30)
        shim_select.poll().poll(30)
        took_s.append(time.monotonic() - before)

    schedule(sleeper, None)
    assert wait_until(lambda: took_s)
    assert took_s[0] >= 0.058


# A program of its own: CPython 3.11 did not come back.
TRACED = """\
import sys, threading, time
import shim_micropython as m, shim_time

def trace(frame, event, arg):
    return trace

threading.settrace(trace)
sys.settrace(trace)
end = time.monotonic() + 20

def wait_for(count):
    while len(ran) < count and time.monotonic() < end:
        pass

def fill(_):
    try:
        for number in range(9):
            m.schedule(ran.append, number)
    except RuntimeError as error:
        refused.append(str(error))

for wait in (lambda: wait_for(8), lambda: shim_time.sleep_ms(500)):
    ran, refused = [], []
    m.schedule(fill, None)
    wait()
    assert (ran, refused) == (list(range(8)), ["schedule queue full"]), (ran, refused)

def again(_):
    ran.append(1)
    if len(ran) < 20:
        m.schedule(again, None)

ran = []
m.schedule(again, None)
wait_for(20)
assert len(ran) == 20

def produce():
    for number in range(100):
        while True:
            try:
                m.schedule(note, number)
                break
            except RuntimeError:
                time.sleep(0.0005)

def note(number):
    ran.append(number)

ran = []
thread = threading.Thread(target=produce)
thread.start()
wait_for(100)
thread.join(20)
assert ran == list(range(100)), ran
"""


def test_what_is_scheduled_runs_while_a_trace_function_watches():
    ran = subprocess.run(
        [sys.executable, "-c", TRACED],
        env=dict(os.environ, PYTHONPATH=os.path.dirname(shim_micropython.__file__)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.fixture
def deaf_interpreter(monkeypatch):
    """The interpreter's own queue of pending calls is full, and refuses ours."""
    schedule(int, 0)
    assert wait_until(lambda: not shim_micropython._queue)
    monkeypatch.setattr(shim_micropython, "_add_pending_call", lambda callback, arg: -1)


@pytest.mark.parametrize("sleep", [shim_time.sleep_ms, shim_select.poll().poll])
def test_what_the_interpreter_has_no_room_for_runs_at_the_next_sleep(sleep, deaf_interpreter):
    ran_s = []
    schedule(lambda _: ran_s.append(time.monotonic()), None)
    sleep(2000)
    assert ran_s and time.monotonic() - ran_s[0] > 0.5, "it waited for the end of the sleep"


def test_one_that_a_sleep_has_started_is_not_interrupted_by_the_next(
    deaf_interpreter, monkeypatch
):
    events = []

    def outer(_):
        events.append("outer begins")
        monkeypatch.undo()  # room again: the interpreter would run the next one at once
        schedule(events.append, "inner")
        end = time.monotonic() + 0.02
        wait_until(lambda: time.monotonic() > end)
        events.append("outer ends")

    schedule(outer, None)
    shim_time.sleep_ms(30)
    assert wait_until(lambda: len(events) == 3)
    assert events == ["outer begins", "outer ends", "inner"]


def test_the_ninth_is_refused_and_the_eight_run_in_order():
    ran = []
    refused = []

    def fill(_):
        for number in range(8):
            schedule(ran.append, number)
        with pytest.raises(RuntimeError, match="schedule queue full"):
            schedule(ran.append, 8)
        refused.append(list(ran))

    schedule(fill, None)
    assert wait_until(lambda: len(ran) == 8)
    assert refused == [[]], "something ran inside the function that scheduled it"
    assert ran == list(range(8))


def test_an_exception_is_printed_and_the_next_one_runs(capsys):
    ran = []

    def fail(_):
        raise IndexError("in a scheduled function")

    def both(_):
        schedule(fail, None)
        schedule(ran.append, 1)

    schedule(both, None)
    assert wait_until(lambda: ran)
    out = capsys.readouterr().out
    assert "IndexError: in a scheduled function" in out and "Traceback" in out


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_even_an_exit_is_printed_and_the_main_program_goes_on(kind, capsys):
    ran = []

    def leave(_):
        ran.append(1)
        raise kind

    schedule(leave, None)
    assert wait_until(lambda: ran)
    assert kind.__name__ in capsys.readouterr().out


def test_one_that_schedules_itself_leaves_the_main_program_its_time():
    rounds = []

    def again(_):
        rounds.append(1)
        if len(rounds) < 1000:
            schedule(again, None)

    schedule(again, None)
    assert shim_select.poll().poll(20) == []
    assert wait_until(lambda: len(rounds) == 1000)


def test_many_threads_schedule_and_every_accepted_one_runs_once():
    ran = []
    accepted = []

    def producer(number):
        for i in range(300):
            while True:
                try:
                    schedule(ran.append, (number, i))
                    break
                except RuntimeError:
                    time.sleep(0.0002)
            accepted.append((number, i))

    threads = [threading.Thread(target=producer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        shim_time.sleep_ms(2)
        shim_select.poll().poll(1)
    assert wait_until(lambda: len(ran) == len(accepted) == 1200)
    assert sorted(ran) == sorted(accepted)
    for number in range(4):
        own = [i for who, i in ran if who == number]
        assert own == sorted(own), "out of order"


def test_a_forked_child_has_its_own_bell_and_queue():
    program = """
import os, shim_micropython as m, shim_time
shim_time.sleep_ms(5)
ran = []
pid = os.fork()
m.schedule(ran.append, 1)
shim_time.sleep_ms(5)
assert ran == [1], ran
if pid:
    assert os.waitpid(pid, 0)[1] == 0
"""
    environ = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=30)


def test_print_exception_prints_the_traceback_to_the_file_or_to_stdout(capsys):
    try:
        raise ValueError("shown")
    except ValueError as exc:
        caught = exc
    file = io.StringIO()
    shim_micropython.print_exception(caught, file)
    shim_micropython.print_exception(caught)
    assert file.getvalue() == capsys.readouterr().out
    assert "ValueError: shown" in file.getvalue() and "test_shim_micropython" in file.getvalue()


def test_heap_locks_are_counted():
    assert shim_micropython.heap_locked() == 0
    assert shim_micropython.heap_lock() is None
    assert shim_micropython.heap_lock() is None
    assert shim_micropython.heap_locked() == 2
    assert shim_micropython.heap_unlock() == 1
    assert shim_micropython.heap_unlock() == 0


def test_a_doorbell_that_finds_no_descriptor_raises_that_and_nothing_else(monkeypatch):
    def pipe():
        raise OSError(24, "EMFILE")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    monkeypatch.setattr(shim_micropython.os, "pipe", pipe)
    with pytest.raises(OSError, match="EMFILE"):
        shim_micropython.Doorbell()
    gc.collect()
    assert told == []
