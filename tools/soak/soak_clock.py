"""What tools/soak.py puts in the place of `time`: the same, with a clock that can be put forward.

It lies as time.mpy before MicroPython's own on the path, so that the client imports it unchanged.
Time passes as ever, and advance() adds to it. No arithmetic leaves the small integers of 32 bits:
like the real one, this clock allocates nothing.
"""

import utime
from utime import *  # noqa: F403

from micropython import const

_MASK = const(0x3FFFFFFF)  # ticks_ms() of every port with 32-bit words wraps here

_ahead_ms = 0


def ticks_ms():
    return utime.ticks_ms() - _MASK - 1 + _ahead_ms & _MASK


def advance(ms):
    """Put the clock forward by 0 to 2**30-1 ms."""
    global _ahead_ms
    _ahead_ms = _ahead_ms - _MASK - 1 + ms & _MASK


def sleep_ms(ms):
    advance(max(0, ms))
