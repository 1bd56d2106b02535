"""Pollable Python objects on CPython: the sleeping poll, and who wakes it."""

import asyncio
import errno
import gc
import os
import random
import select
import sys
import threading
import time

import pytest

import shim_io
import shim_micropython
import shim_select

POLLIN = 1
POLLOUT = 4

# A sleep that something has to end: a busy machine does not take half as long to do that.
LONG_MS = 20_000


class Counter(shim_io.IOBase):
    """A pipe of one thing, counted: readable while `put_count` is ahead of `got_count`."""

    def __init__(self):
        self.put_count = 0
        self.got_count = 0
        self.asked = 0

    def ioctl(self, request, arg):
        object.__setattr__(self, "asked", self.asked + 1)  # behind the shim's back
        if request == 3:
            return arg & POLLIN if self.put_count != self.got_count else 0
        return -errno.EINVAL


def descriptors():
    return set(os.listdir("/dev/fd"))


def readable(fd):
    poller = select.poll()
    poller.register(fd, POLLIN)
    return bool(poller.poll(0))


def poller_of(*objects):
    poller = shim_select.poll()
    for obj in objects:
        poller.register(obj, POLLIN)
    return poller


# ---------------------------------------------------------------------------
# Waking
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["main thread", "other thread"])
def test_a_sleeping_poll_is_woken_by_an_assignment_in_another_thread(where):
    counter = Counter()
    poller = poller_of(counter)
    answers = []

    def sleeper():
        before = time.monotonic()
        events = poller.poll(LONG_MS)
        answers.append((events, time.monotonic() - before))

    def putter():
        time.sleep(0.05)
        counter.put_count += 1

    first, second = (sleeper, putter) if where == "main thread" else (putter, sleeper)
    thread = threading.Thread(target=second)
    thread.start()
    first()
    thread.join()
    ((events, took_s),) = answers
    assert events == [(counter, POLLIN)]
    assert took_s < LONG_MS / 2000, "it slept on, or asked again and again"


def test_a_sleeping_poll_does_not_ask_again_and_again():
    counter = Counter()
    poller = poller_of(counter)
    before = counter.asked
    assert poller.poll(300) == []
    # At most: a look before, the mirror's, one after; twice that for an early wake-up.
    assert counter.asked - before <= 6, "the unix port would have asked 300 times"


def test_a_change_in_a_list_is_seen_by_the_next_poll_and_wakes_none():
    class Listed(shim_io.IOBase):
        def __init__(self):
            self.items = []

        def ioctl(self, request, arg):
            return (POLLIN if self.items else 0) if request == 3 else -1

    listed = Listed()
    poller = poller_of(listed)
    fd = listed.fileno()
    listed.items.append(1)
    assert not readable(fd), "the rule of shim_io.py has become better than it says"
    assert poller.poll(0) == [(listed, POLLIN)]
    assert poller.poll(5000) == [(listed, POLLIN)]
    listed.anything = None  # the assignment
    assert readable(fd)


def test_a_put_by_a_scheduled_function_ends_the_sleep():
    counter = Counter()
    poller = poller_of(counter)

    def put(_):
        counter.put_count += 1

    def later():
        time.sleep(0.05)
        shim_micropython.schedule(put, None)

    thread = threading.Thread(target=later)
    thread.start()
    before = time.monotonic()
    assert poller.poll(LONG_MS) == [(counter, POLLIN)]
    assert time.monotonic() - before < LONG_MS / 2000, "it slept to the end"
    thread.join()


def test_writability_wakes_who_watches_for_it():
    class Writable(shim_io.IOBase):
        room = 0

        def ioctl(self, request, arg):
            return arg & (POLLOUT if self.room else 0) if request == 3 else -1

    obj = Writable()
    poller = shim_select.poll()
    poller.register(obj, POLLIN | POLLOUT)

    def later():
        time.sleep(0.05)
        obj.room = 1

    thread = threading.Thread(target=later)
    thread.start()
    before = time.monotonic()
    assert poller.poll(LONG_MS) == [(obj, POLLOUT)]
    assert time.monotonic() - before < LONG_MS / 2000, "it slept to the end"
    thread.join()


def test_an_ioctl_error_wakes_the_sleeper_and_raises_there():
    class Failing(shim_io.IOBase):
        answer = 0

        def ioctl(self, request, arg):
            return self.answer if request == 3 else -1

    obj = Failing()
    poller = poller_of(obj)

    def later():
        time.sleep(0.05)
        obj.answer = -errno.EIO

    thread = threading.Thread(target=later)
    thread.start()
    before = time.monotonic()
    with pytest.raises(OSError) as caught:
        poller.poll(LONG_MS)
    assert caught.value.errno == errno.EIO
    assert time.monotonic() - before < LONG_MS / 2000, "it slept to the end"
    thread.join()


@pytest.fixture
def nervous_interpreter():
    """Switch threads as often as the interpreter can, so that every race has its chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_no_wake_up_is_lost_among_many_puts(nervous_interpreter):
    """Ping-pong: each side sleeps until the other has put. One lost wake-up is a poll that ends
    empty after its whole timeout."""
    rounds = 3000
    there, back = Counter(), Counter()
    lost = []

    def echo():
        poller = poller_of(there)
        for _ in range(rounds):
            if not poller.poll(5000):
                lost.append("there")
                return
            there.got_count += 1
            back.put_count += 1

    thread = threading.Thread(target=echo)
    thread.start()
    poller = poller_of(back)
    for number in range(rounds):
        there.put_count += 1
        if not poller.poll(5000):
            lost.append(number)
            break
        back.got_count += 1
    thread.join()
    assert lost == []
    assert there.got_count == back.got_count == rounds


def test_no_wake_up_is_lost_with_many_putters_and_drains(nervous_interpreter):
    """As the client's Pipe: several threads put under a lock, one drains all there is."""
    producers, puts = 4, 1500
    counter = Counter()
    lock = threading.Lock()

    def producer(seed):
        pause = random.Random(seed)
        for _ in range(puts):
            with lock:
                counter.put_count += 1
            if pause.random() < 0.05:
                time.sleep(pause.random() / 1000)  # let the consumer fall asleep

    threads = [threading.Thread(target=producer, args=(seed,)) for seed in range(producers)]
    poller = poller_of(counter)
    for thread in threads:
        thread.start()
    wake_ups = 0
    while counter.got_count < producers * puts:
        events = poller.poll(5000)
        assert events == [(counter, POLLIN)], "lost after %d" % counter.got_count
        wake_ups += 1
        with lock:
            counter.got_count = counter.put_count
    for thread in threads:
        thread.join()
    assert poller.poll(0) == []
    assert 1 < wake_ups <= producers * puts


def test_an_assignment_during_which_a_watcher_comes_is_seen_by_one_of_the_two():
    """The worst moment of another thread, made certain: it begins to watch, and finds nothing,
    when the assignment has begun and has not stored yet."""

    class Late(shim_io.IOBase):
        stored = 0

        @property
        def value(self):
            return self.stored

        @value.setter
        def value(self, value):
            assert not readable(self.fileno())
            self.__dict__["stored"] = value

        def ioctl(self, request, arg):
            return self.stored if request == 3 else -1

    late = Late()
    late.value = POLLIN
    assert readable(late.fileno())


def test_two_polls_may_sleep_on_one_object():
    counter = Counter()
    answers = []

    def sleeper():
        answers.append(poller_of(counter).poll(5000))

    threads = [threading.Thread(target=sleeper) for _ in range(2)]
    for thread in threads:
        thread.start()
    while counter._shim_watchers < 2:
        time.sleep(0.001)
    counter.put_count += 1
    for thread in threads:
        thread.join()
    assert answers == [[(counter, POLLIN)]] * 2
    assert counter._shim_watchers == 0


# ---------------------------------------------------------------------------
# The descriptor
# ---------------------------------------------------------------------------


def test_the_descriptor_of_fileno_mirrors_what_ioctl_answers():
    counter = Counter()
    counter.put_count = 1
    fd = counter.fileno()
    assert counter.fileno() == fd
    assert readable(fd), "ready before the descriptor was made"
    counter.got_count = 1
    assert not readable(fd)
    for _ in range(100_000 // 500):
        counter.put_count += 500  # far more than one byte each would let a pipe hold
        assert readable(fd)
    counter.got_count = counter.put_count
    assert not readable(fd)
    counter.close()


def test_an_asyncio_loop_can_watch_the_descriptor():
    counter = Counter()

    async def main():
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        loop.add_reader(counter.fileno(), arrived.set)

        def put():
            counter.put_count += 1

        loop.run_in_executor(None, put)
        await asyncio.wait_for(arrived.wait(), 5)
        loop.remove_reader(counter.fileno())

    asyncio.run(main())
    counter.close()


def test_no_descriptor_is_made_before_somebody_sleeps():
    shim_select.poll().poll(1)  # makes the bell of schedule(), once a process
    before = descriptors()
    counter = Counter()
    poller = poller_of(counter)
    counter.put_count = 1
    assert poller.poll(0) == poller.poll(1000) == [(counter, POLLIN)]
    assert descriptors() == before
    counter.got_count = 1
    assert poller.poll(1) == []
    assert len(descriptors()) == len(before) + 2


def test_a_dropped_object_gives_its_descriptors_back():
    shim_select.poll().poll(1)
    before = descriptors()
    gc.disable()
    try:
        for _ in range(10):
            counter = Counter()
            poller_of(counter).poll(1)
            counter.fileno()
        del counter
        assert descriptors() == before, "a cycle waits for the garbage collector"
    finally:
        gc.enable()


def test_close_gives_the_descriptors_back_and_the_object_works_on():
    shim_select.poll().poll(1)
    before = descriptors()
    counter = Counter()
    poller = poller_of(counter)
    counter.close()
    counter.fileno()
    counter.close()
    counter.close()
    assert descriptors() == before
    counter.put_count += 1
    assert poller.poll(0) == [(counter, POLLIN)]
    counter.got_count += 1
    assert poller.poll(1) == []


def test_close_while_a_poll_sleeps_leaves_it_asleep_and_wakeable():
    counter = Counter()
    poller = poller_of(counter)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(poller.poll(5000)))
    thread.start()
    while not counter._shim_watchers:
        time.sleep(0.001)
    counter.close()
    time.sleep(0.05)
    assert thread.is_alive()
    counter.put_count += 1
    thread.join(2)
    assert answers == [[(counter, POLLIN)]]
    assert counter._shim_watchers == 0


# ---------------------------------------------------------------------------
# Rules that subclasses break
# ---------------------------------------------------------------------------


def test_an_ioctl_that_assigns_does_not_hang():
    class Busy(shim_io.IOBase):
        count = 0

        def ioctl(self, request, arg):
            self.count += 1
            return 0 if request == 3 else -1

    busy = Busy()
    assert poller_of(busy).poll(5) == []
    busy.fileno()
    busy.anything = 1
    assert busy.count < 100


def test_an_assignment_that_interrupts_the_mirror_s_question_is_not_lost():
    """What a scheduled function or a signal handler does in the main thread, at the worst moment:
    after ioctl has looked and before the descriptor follows."""

    class Interrupted(Counter):
        interrupt = None

        def ioctl(self, request, arg):
            answer = super().ioctl(request, arg)
            interrupt, self.__dict__["interrupt"] = self.interrupt, None
            if interrupt:
                interrupt()
            return answer

    obj = Interrupted()
    fd = obj.fileno()

    def put():
        obj.put_count += 1

    obj.__dict__["interrupt"] = put
    obj.got_count = 0  # asks; "not ready" is the answer, and then the put comes between
    assert obj.put_count == 1 and readable(fd)


def test_an_ioctl_that_answers_0_to_everything_is_descriptor_0_as_on_the_unix_port():
    class Careless(shim_io.IOBase):
        asked_poll = 0

        def ioctl(self, request, arg):
            object.__setattr__(self, "asked_poll", self.asked_poll + (request == 3))
            return 0

    careless = Careless()
    poller_of(careless).poll(0)
    assert careless.asked_poll == 0
