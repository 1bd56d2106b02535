"""The C module, and what programs for a Pico W find in it beside: a LED, a clock, a watchdog."""

from time import gmtime, mktime, time

from umachine import *  # noqa: F403
from umachine import mem32, set_time

_WATCHDOG = 0x40008000  # cmsdk-apb-watchdog of the machine mps2-an385
_CLOCKS_PER_MS = 25000


class Pin:
    IN = 0
    OUT = 1

    def __init__(self, name, mode=-1, pull=-1, value=0):
        self._value = value

    def value(self, value=None):
        if value is None:
            return self._value
        self._value = value


class RTC:
    def datetime(self, to=None):
        if to is None:
            year, month, day, hour, minute, second, weekday, _ = gmtime(time())
            return year, month, day, weekday, hour, minute, second, 0
        year, month, day, _, hour, minute, second = to[:7]
        set_time(mktime((year, month, day, hour, minute, second, 0, 0)))


class WDT:
    def __init__(self, id=0, timeout=5000):
        mem32[_WATCHDOG] = timeout * _CLOCKS_PER_MS
        mem32[_WATCHDOG + 8] = 1  # its interrupt is the NMI, which resets the board

    def feed(self):
        mem32[_WATCHDOG + 12] = 1
