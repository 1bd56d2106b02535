"""run() and the poll of a board's asyncio, which is everybody's.

A register() that finds no memory leaves a poll that crashes the VM (docs/ports.md), and asyncio
registers at each wait. So the client's pipe is registered once, in a new poll; what others wait
for goes with it. The pipe stays there as it also seems to be waited for to write.
"""

import sys

import board_heap  # noqa: F401
from fakes import SkipTest, needs

import mqttpipe

ROUNDS = 5
TURNS = 5  # of asyncio's loop
IOCTL_POLL = 3


def board_asyncio():
    """Return asyncio with a new loop, if run() waits in its poll."""
    needs("asyncio")
    import asyncio

    if not hasattr(asyncio, "core") or "mqttpipe_unix" in sys.modules:
        raise SkipTest("run() does not wait in asyncio's poll here")
    asyncio.new_event_loop()
    return asyncio


class FullPoll:
    """A poll where nothing that needs memory works."""

    def __init__(self, poll):
        self.modify = poll.modify
        self.unregister = poll.unregister
        self.ipoll = poll.ipoll

    def register(self, *arguments):
        raise MemoryError


class Select:
    """Makes one poll without memory for a register()."""

    def __init__(self, real):
        self.real = real
        self.POLLIN = real.POLLIN
        self.POLLOUT = real.POLLOUT
        self.is_full = True

    def poll(self):
        poll = self.real.poll()
        if self.is_full:
            self.is_full = False
            poll = FullPoll(poll)
        return poll


class Waiter:
    """What run() does: one wait after the other, until the client is ready."""

    def __init__(self, asyncio):
        self.asyncio = asyncio
        self.queue = asyncio.core._io_queue
        self.pipe = mqttpipe.Pipe(2, 64)
        self.is_ready = False
        self.count = 0

    def _is_ready(self):
        return self.is_ready

    async def wait(self, count=1):
        for _ in range(count):
            await mqttpipe.wait_ready(self, self.pipe)
            self.is_ready = False
            self.count += 1

    def begin(self, count=1):
        return self.asyncio.create_task(self.wait(count))

    async def turns(self):
        for _ in range(TURNS):
            await self.asyncio.sleep_ms(0)

    async def wake(self):
        self.is_ready = True
        await self.turns()


class Sink(mqttpipe.IOBase):
    is_ready = False

    def ioctl(self, request, value):
        if request == IOCTL_POLL:
            return value & mqttpipe.select.POLLOUT if self.is_ready else 0
        return -1


def wait_to_write(asyncio, sink):
    yield asyncio.core._io_queue.queue_write(sink)


def test_the_pipe_is_never_ready_to_be_written_to():
    """asyncio would call whoever waits for that."""
    pipe = mqttpipe.Pipe(2, 64)
    both = mqttpipe.select.POLLIN | mqttpipe.select.POLLOUT
    pipe.is_signalled = True
    assert pipe.ioctl(IOCTL_POLL, both) == mqttpipe.select.POLLIN
    assert pipe.ioctl(IOCTL_POLL, mqttpipe.select.POLLOUT) == 0


def test_only_the_first_wait_registers():
    asyncio = board_asyncio()

    async def main():
        waiter = Waiter(asyncio)
        task = waiter.begin(ROUNDS)
        await waiter.wake()
        assert waiter.count == 1
        poll = waiter.queue.poller
        waiter.queue.poller = FullPoll(poll)
        for count in range(2, ROUNDS + 1):
            await waiter.turns()
            assert waiter.count == count - 1, "it did not wait"
            await waiter.wake()
            assert waiter.count == count
        assert task.done()
        mqttpipe.wait_no_more(waiter.pipe)
        assert not waiter.queue.map
        waiter.queue.poller = poll

    asyncio.run(main())


def test_a_wait_that_is_cancelled_leaves_nothing():
    asyncio = board_asyncio()

    async def main():
        waiter = Waiter(asyncio)
        for _ in range(2):
            task = waiter.begin(ROUNDS)
            await waiter.wake()
            assert waiter.queue.map
            task.cancel()
            await waiter.turns()
            assert task.done() and not waiter.queue.map and waiter.pipe.is_ready is None
            mqttpipe.wait_no_more(waiter.pipe)
        assert waiter.count == 2

    asyncio.run(main())


def test_what_others_wait_for_goes_with_it():
    asyncio = board_asyncio()

    async def main():
        flag = asyncio.ThreadSafeFlag()
        reading = asyncio.create_task(flag.wait())
        sink = Sink()
        writing = asyncio.create_task(wait_to_write(asyncio, sink))
        first = Waiter(asyncio)
        first.begin()
        await first.turns()
        second = Waiter(asyncio)
        second.begin()
        await second.turns()
        assert not reading.done() and not writing.done()
        sink.is_ready = True
        await first.turns()
        assert not reading.done() and writing.done()
        flag.set()
        await first.turns()
        assert reading.done()
        await first.wake()
        assert first.count == 1 and second.count == 0
        await second.wake()
        assert second.count == 1
        mqttpipe.wait_no_more(first.pipe)
        mqttpipe.wait_no_more(second.pipe)
        assert not first.queue.map

    asyncio.run(main())


def test_without_memory_for_a_poll_asyncio_keeps_its_own():
    asyncio = board_asyncio()
    core = asyncio.core

    async def main():
        waiter = Waiter(asyncio)
        before = waiter.queue.poller
        core.select = Select(core.select)
        await check_no_memory(waiter)
        assert waiter.queue.poller is before and not waiter.queue.map
        waiter.begin()
        await waiter.wake()
        assert waiter.count == 1 and waiter.queue.poller is not before

    real = core.select
    try:
        asyncio.run(main())
    finally:
        core.select = real


async def check_no_memory(waiter):
    try:
        await waiter.wait()
        raise AssertionError("it has memory")
    except MemoryError:
        pass


def test_a_wait_that_is_half_begun_is_taken_back():
    """Else the next one ends with an AssertionError of asyncio's."""
    asyncio = board_asyncio()

    async def main():
        waiter = Waiter(asyncio)
        waiter.begin()
        await waiter.wake()
        poll = waiter.queue.poller
        waiter.queue.poller = FullPoll(poll)
        waiter.queue.poller.modify = poll_without_memory
        await check_no_memory(waiter)
        waiter.queue.poller = poll
        waiter.begin()
        await waiter.turns()
        assert waiter.count == 1
        await waiter.wake()
        assert waiter.count == 2

    asyncio.run(main())


def poll_without_memory(*arguments):
    raise MemoryError
