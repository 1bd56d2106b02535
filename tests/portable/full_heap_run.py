"""The same as full_heap.py where asyncio drives the client: run() bears a full heap as well."""

import asyncio
import gc

from fakes import needs
from full_heap import BACK_MS, SHORT_MS, STEP_MS, Life, fill

TURNS = 5  # of asyncio's loop: each takes a millisecond


class Task:
    """A Life in a loop of asyncio. The clock is the fakes'; the loop itself never sleeps long."""

    def __init__(self, is_begun=True, is_online=False):
        needs("asyncio")
        self.is_to_begin = is_begun
        self.is_to_be_online = is_online
        self.life = Life()
        self.life.go = None  # nobody calls step()
        self.raised = None
        make_poll = self.life.bench.select.poll

        def poll():
            made = make_poll()
            made.ipoll = self.ipoll
            return made

        self.life.bench.select.poll = poll

    # What the poll says, which is asked by asyncio's.
    def ipoll(self, timeout_ms):
        connections = self.life.bench.network.connections
        is_ready = connections and not connections[-1].is_closed and connections[-1].events() & 1
        return READY if is_ready else ()

    async def turns(self):
        for _ in range(TURNS):
            await asyncio.sleep_ms(0)

    async def serve(self):
        for _ in range(4):
            self.life.server.look()
            self.life.server.send()
            await self.turns()

    async def drive(self):
        """What is told of run(): it may raise MemoryError when it begins, as any call."""
        is_over = False
        while not is_over:
            try:
                await self.life.client.run()
                is_over = True
            except MemoryError:
                await asyncio.sleep_ms(0)

    async def run(self, free_bytes, is_in_pieces):
        life = self.life
        client = life.client
        client.subscribe("in", None, 1)
        client.publish("out", b"before", 1)
        task = asyncio.create_task(client.run() if self.is_to_begin else self.drive())
        if self.is_to_begin:
            await asyncio.sleep_ms(0)
        if self.is_to_be_online:
            await self.turns()
            await self.serve()
            assert client.is_online(), client.state_name
        pieces = fill(free_bytes, is_in_pieces)
        try:
            for _ in range(SHORT_MS // STEP_MS):
                life.clock.advance(STEP_MS)
                for _ in range(TURNS):
                    await asyncio.sleep_ms(0)
        except MemoryError as error:
            self.raised = error
        pieces.clear()
        gc.collect()
        assert not task.done(), "run() has ended"
        for _ in range(BACK_MS // STEP_MS):
            life.clock.advance(STEP_MS)
            await self.turns()
            await self.serve()
            if client.is_online():
                break
        assert client.is_online(), client.state_name
        client.publish("out", b"after", 1)
        for _ in range(10):
            await self.serve()
            life.clock.advance(STEP_MS)
        accepted = life.server.accepted
        assert (1, b"before") in accepted and (1, b"after") in accepted, accepted
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass


READY = (1,)


def beginning():
    return Task(is_begun=False)


def connecting():
    return Task()


def serving():
    return Task(is_online=True)


MOMENTS = (beginning, connecting, serving)


def once(moment, free_bytes, is_in_pieces=False):
    asyncio.new_event_loop()  # its queues are empty: what a life before has left is none of ours
    task = moment()
    asyncio.run(task.run(free_bytes, is_in_pieces))
