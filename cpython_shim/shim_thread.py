"""What drives a client's step() on CPython: a thread, or asyncio's own loop.

What differs, and how it is bridged
-----------------------------------
- `_thread.start_new_thread` makes a thread that CPython does not wait for at its exit, as a
  board would not: a program that forgets stop() ends all the same.
- A board's asyncio polls Python objects through their `ioctl`. CPython's watches descriptors,
  and its timers are its own: so the socket, the pipe and the next deadline are given to it.
"""

import select
import time
from _thread import get_ident, start_new_thread

__all__ = [
    "get_ident",
    "get_loop",
    "is_left",
    "pass_on",
    "start_thread",
    "wait_no_more",
    "wait_ready",
]


def pass_on():
    """Let other threads run.

    Without this a loop that waits for one of them keeps all from the interpreter, for 5 ms each.
    """
    time.sleep(0)


def start_thread(function):
    """Call `function()` in a new thread."""
    start_new_thread(function, ())


async def wait_ready(client, pipe):
    """Sleep until there is something to do for `client.step()`.

    Args:
        client: has pollables() and next_deadline_ms(). pipe: one of the pollables.
    """
    import asyncio  # by those who use it: it takes 15 ms

    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake():
        if not woken.done():
            woken.set_result(None)

    watched = []
    timer = None
    delay_ms = client.next_deadline_ms()
    if delay_ms is not None:
        timer = loop.call_later(delay_ms / 1000, wake)
    try:
        for pollable, events in client.pollables():
            if hasattr(pollable, "pending") and pollable.pending():
                wake()  # a TLS stream: what is decrypted already
            descriptor = pollable.fileno()
            if events & select.POLLIN:
                watched.append((loop.remove_reader, descriptor))
                loop.add_reader(descriptor, wake)
            if events & select.POLLOUT:
                watched.append((loop.remove_writer, descriptor))
                loop.add_writer(descriptor, wake)
        await woken
    finally:
        for remove, descriptor in watched:
            remove(descriptor)
        if timer is not None:
            timer.cancel()


def get_loop():
    """Return the event loop that runs in this thread, or None."""
    import asyncio  # see wait_ready()

    return asyncio._get_running_loop()


def is_left(loop):
    """Tell whether an event loop is over, or another one runs in its place."""
    return loop.is_closed() or get_loop() not in (None, loop)


def wait_no_more(pipe):
    """No wait_ready() follows. Here each has cleared up after itself."""
