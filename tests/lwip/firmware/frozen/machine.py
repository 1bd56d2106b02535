"""The C module, and what programs for a Pico W find beside it: pins, clock, watchdog, sleep.

Nothing is wired to the pins: an input reads what pulls it, and no interrupt comes.
"""

from time import gmtime, mktime, sleep_ms, time

from umachine import *  # noqa: F403
from umachine import mem32, set_time

_WATCHDOG = 0x40008000  # cmsdk-apb-watchdog of the machine mps2-an385
_CLOCKS_PER_MS = 25000


def lightsleep(ms):
    sleep_ms(ms)


def deepsleep(ms):
    sleep_ms(ms)
    reset()  # noqa: F405  of the C module


class Pin:
    IN = 0
    OUT = 1
    PULL_UP = 1
    PULL_DOWN = 2
    IRQ_FALLING = 4
    IRQ_RISING = 8

    def __init__(self, name, mode=-1, pull=-1, value=None):
        self._value = int(pull == Pin.PULL_UP) if value is None else value

    def value(self, value=None):
        if value is None:
            return self._value
        self._value = value

    def on(self):
        self._value = 1

    def off(self):
        self._value = 0

    def toggle(self):
        self._value = 1 - self._value

    def irq(self, handler=None, trigger=IRQ_FALLING | IRQ_RISING, hard=False):
        pass


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
