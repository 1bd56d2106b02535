"""A poll for MicroPython's unix port, which lets the processor sleep. mqttpipe takes it, if there.

No board needs this file, and mqttpipe works without it.

The port's poll asks an object without a descriptor (the client's Pipe, a TLS stream) every
millisecond whether it is ready (extmod/modselect.c: MICROPY_PY_SELECT_IOCTL_CALL_PERIOD_MS).
On a PC these wake-ups alone take about 2 % of a processor, whatever the object answers. Here they
become rarer when nothing has happened for a while: then a call of another thread, or a message
over TLS, may wait for NAP_MS.

And who waits for another thread sleeps for a moment, in place of keeping a processor from it.
"""

import select as _select
from select import POLLIN, POLLOUT
from time import sleep_us, ticks_add, ticks_diff, ticks_ms

from micropython import const

_BRISK_MS = const(20)  # for so long it is as ever: most answers come within that
_NAP_MS = const(8)


class poll:
    """As select.poll(); what has a descriptor wakes it at once, the rest is asked now and then."""

    def __init__(self):
        self._all = _select.poll()
        self._files = _select.poll()
        self._asked = _select.poll()

    def _of(self, thing):
        return self._files if hasattr(thing, "fileno") else self._asked

    def register(self, thing, events=POLLIN | POLLOUT):
        self._all.register(thing, events)
        self._of(thing).register(thing, events)

    def modify(self, thing, events):
        self._all.modify(thing, events)
        self._of(thing).modify(thing, events)

    def unregister(self, thing):
        self._all.unregister(thing)
        self._of(thing).unregister(thing)

    def poll(self, timeout_ms=-1):
        return self._all.poll(timeout_ms)

    def ipoll(self, timeout_ms=-1):
        """Allocates: nothing."""
        if 0 <= timeout_ms <= _BRISK_MS:
            return self._all.ipoll(timeout_ms)
        end_ms = ticks_add(ticks_ms(), timeout_ms)
        for _ in self._all.ipoll(_BRISK_MS):
            return self._all.ipoll(0)
        while True:
            left_ms = ticks_diff(end_ms, ticks_ms())
            if 0 <= timeout_ms and left_ms <= 0:
                return self._all.ipoll(0)
            for _ in self._files.ipoll(_NAP_MS if timeout_ms < 0 else min(left_ms, _NAP_MS)):
                return self._all.ipoll(0)
            for _ in self._asked.ipoll(0):
                return self._all.ipoll(0)


def pass_on():
    """Let the thread go on that we wait for: here the system may have stopped it for a while."""
    sleep_us(50)


def wait_ready(client, pipe):
    """Under asyncio: sleep until there is something to do for the client."""
    from asyncio import sleep_ms

    begin_ms = ticks_ms()
    while not (pipe.is_signalled or client._is_ready()):
        is_brisk = ticks_diff(ticks_ms(), begin_ms) < _BRISK_MS
        yield from sleep_ms(1 if is_brisk else _NAP_MS)


def wait_no_more(pipe):
    """No wait_ready() follows."""
