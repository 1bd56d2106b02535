"""The board's clock: what MicroPython's `time` has and CPython's has not.

What differs, and how it is bridged
-----------------------------------
- CPython has no `ticks_*`. Here they are made from `time.monotonic_ns()`.
- A board's ticks wrap. Ports with 32-bit pointers (every Wi-Fi board) wrap after 2**30, which
  is 12.4 days in milliseconds. CPython's integers would never wrap, and code that compares
  ticks with `<` would pass every test and fail on the thirteenth day. So the wrap is made
  here, and `set_ticks_ms(2**30 - 5)` puts the clock 5 ms before it. (The unix port with 64-bit
  pointers wraps after 2**62: there only the arithmetic can be tested.)
- `ticks_add` refuses a delta that `ticks_diff` could not give back, with OverflowError.
- `gmtime` answers a plain tuple of 8, without the summer time that CPython's has at its end.
  Without an argument only is it the same everywhere: the seconds of an ESP32 and an rp2 may
  count from 2000.
- `sleep_ms` on a board lets scheduled functions run. CPython's main thread runs them only
  between bytecodes, so here it sleeps where `schedule()` can wake it (shim_micropython.py).

`time.sleep`, `time.time` and the rest are the same on both, and are not repeated here.
"""

import time
from time import monotonic_ns as _monotonic_ns

import shim_micropython

_PERIOD = 1 << 30
_MASK = _PERIOD - 1
_HALF = _PERIOD >> 1

_origin_ns = 0  # added to the monotonic clock before it is cut to 30 bits; see set_ticks_ms()


def ticks_ms():
    """Return the millisecond counter, 0..2**30-1."""
    return (_monotonic_ns() + _origin_ns) // 1_000_000 & _MASK


def ticks_us():
    """Return the microsecond counter, 0..2**30-1 (it wraps every 18 minutes)."""
    return (_monotonic_ns() + _origin_ns) // 1_000 & _MASK


def ticks_add(ticks, delta):
    """Return `ticks` moved by `delta`, which may be negative.

    Raises:
        OverflowError: delta is not within -2**29+1..2**29-1, the range in which
            ticks_diff(ticks_add(t, delta), t) == delta, and the same with both swapped.
    """
    if not -_HALF < delta < _HALF:
        raise OverflowError("ticks interval overflow")
    return (ticks + delta) & _MASK


def ticks_diff(end, start):
    """Return end - start on the circle, -2**29..2**29-1. Right while they are < 6.2 days apart."""
    return ((end - start + _HALF) & _MASK) - _HALF


def gmtime(secs=None):
    """Return (year, month, mday, hour, minute, second, weekday, yearday), now or at `secs`."""
    return tuple(time.gmtime(secs)[:8])


def sleep_ms(delay_ms):
    """Sleep; functions given to `schedule()` run meanwhile. 0 or less returns at once."""
    if delay_ms > 0:
        shim_micropython.wait_ns(delay_ms * 1_000_000)


def sleep_us(delay_us):
    """Sleep `delay_us` microseconds; 0 or less returns at once."""
    if delay_us > 0:
        time.sleep(delay_us / 1_000_000)


# ---------------------------------------------------------------------------
# For tests: no board has these
# ---------------------------------------------------------------------------


def set_ticks_ms(value):
    """Shift the clock so that `ticks_ms()` is `value` now; it runs on from there.

    `ticks_us()` shifts with it. Only this module's clock moves: a sleep or a poll under way
    takes as long as it would have.
    """
    global _origin_ns
    _origin_ns = value * 1_000_000 - _monotonic_ns()


def advance_ms(delta_ms):
    """Shift the clock forward, as if `delta_ms` had passed: for tests that would else sleep."""
    global _origin_ns
    _origin_ns += delta_ms * 1_000_000


def reset():
    """Undo every shift: the clock is the machine's own again."""
    global _origin_ns
    _origin_ns = 0
