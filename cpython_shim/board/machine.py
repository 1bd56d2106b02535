"""The board's `machine`, simulated: pins, timers, watchdog, clock, resets.

The same file serves the virtual board (real MicroPython) and CPython. The constants, arguments and
errors are those of esp32/ and rp2/ (modmachine.c, machine_pin.c, machine_timer.c, machine_wdt.c,
machine_rtc.c, extmod/machine_timer.c), as far as programs for Wi-Fi use them.

Left out: what is soldered to pins (ADC, I2C, SPI, UART, PWM), hard callbacks of timers and pins,
memory access, sleep modes: lightsleep() sleeps and stops nothing, nothing but time wakes from
deepsleep().
"""

import board_bus
from board_bus import reset, soft_reset  # noqa: F401  the board has them here

try:
    from time import gmtime as _gmtime
    from time import sleep_ms as _sleep_ms
except ImportError:
    from shim_time import gmtime as _gmtime
    from shim_time import sleep_ms as _sleep_ms

_ESP32 = board_bus.PORT == "esp32"

PWRON_RESET = 1
WDT_RESET = 3
if _ESP32:
    HARD_RESET = 2
    DEEPSLEEP_RESET = 4
    SOFT_RESET = 5

_freq_hz = [
    160_000_000 if _ESP32 else 150_000_000 if "RP2350" in board_bus.MACHINE else 125_000_000
]


def unique_id():
    """Return the chip's number: 6 bytes on ESP32, 8 on rp2."""
    return board_bus.call("unique_id")


def reset_cause():
    """Return why the program began. rp2 says WDT_RESET after machine.reset() as well."""
    return board_bus.call("reset_cause")


def freq(*hertz):
    """Return or set the clock of the processor. Nothing becomes faster or slower."""
    if not hertz:
        return _freq_hz[0]
    if _ESP32 and hertz[0] // 1_000_000 not in (20, 40, 80, 160, 240):
        raise ValueError("frequency must be 20MHz, 40MHz, 80Mhz, 160MHz or 240MHz")
    _freq_hz[0] = hertz[0]
    return None


def idle():
    """Let others run."""
    _sleep_ms(1)


def lightsleep(time_ms=None):
    """Sleep `time_ms`. Without it a board waits for a pin, which is not simulated."""
    if time_ms is None:
        raise NotImplementedError("lightsleep() without a time is not simulated")
    _sleep_ms(time_ms)


def deepsleep(time_ms=None):
    """End the program and begin anew `time_ms` later, or sooner: see deepsleep_ms_max of World."""
    if time_ms is None:
        raise NotImplementedError("deepsleep() without a time is not simulated")
    board_bus.call("deepsleep", time_ms)
    while True:  # until the chip begins anew
        _sleep_ms(5)
        board_bus.does_traffic_flow()


def disable_irq():
    """Answer what enable_irq() takes. Nothing is held back here."""
    return 0


def enable_irq(state):
    """Nothing was held back."""


class Pin:
    """A pin: the test sets what an input reads, and finds in the log what an output did."""

    IN = 1 if _ESP32 else 0
    OUT = 3 if _ESP32 else 1
    OPEN_DRAIN = 7 if _ESP32 else 2
    PULL_DOWN = 1 if _ESP32 else 2
    PULL_UP = 2 if _ESP32 else 1
    IRQ_RISING = 1 if _ESP32 else 8
    IRQ_FALLING = 2 if _ESP32 else 4

    def __init__(self, name, mode=-1, pull=-1, *, value=None, **_):
        self._name = _pin_name(name)
        self._watch = None
        self.init(mode, pull, value=value)

    def init(self, mode=-1, pull=-1, *, value=None, **_):
        if mode == Pin.OUT and _ESP32 and self._name in range(34, 40):
            raise ValueError("pin can only be input")
        way = "in" if mode == Pin.IN else "out" if mode in (Pin.OUT, Pin.OPEN_DRAIN) else None
        pulled = "up" if pull == Pin.PULL_UP else "down" if pull == Pin.PULL_DOWN else None
        level = None if value is None else int(bool(value))
        board_bus.call("pin_init", self._name, way, pulled, level)

    def value(self, *level):
        if level:
            board_bus.call("pin_set", self._name, int(bool(level[0])))
            return None
        return board_bus.call("pin_get", self._name)

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    def toggle(self):
        self.value(not self.value())

    if not _ESP32:
        high = on
        low = off

    def irq(self, handler=None, trigger=IRQ_RISING | IRQ_FALLING, *, hard=False):
        """Call handler(pin) when the level changes so. A look each 10 ms stands for the wire."""
        if self._watch is not None:
            board_bus.stop_timer(self._watch)
            self._watch = None
        if handler is None:
            return
        level = self.value()

        def look(_):
            nonlocal level
            before, level = level, self.value()
            edge = Pin.IRQ_RISING if level > before else Pin.IRQ_FALLING
            if level != before and trigger & edge:
                handler(self)

        self._watch = board_bus.start_timer(10, True, look, None)

    def __repr__(self):
        return "Pin(%s)" % self._name


# Which pins there are: esp32/machine_pin.c (of the first ESP32), rp2/machine_pin.c.
def _pin_name(name):
    if isinstance(name, Pin):
        return name._name
    if _ESP32:
        if isinstance(name, int) and name in range(40) and name not in (20, 24, 28, 29, 30, 31):
            return name
    elif isinstance(name, int) and name in range(30):
        return name
    elif isinstance(name, str):
        if name == "LED" or name.startswith("WL_GPIO"):
            return name
        if name.startswith("GP") and name[2:].isdigit() and int(name[2:]) in range(30):
            return int(name[2:])
        raise ValueError("unknown named pin %s" % name)
    raise ValueError("invalid pin")


class Signal:
    """A pin that may be active low."""

    def __init__(self, pin, *mode, invert=False):
        self._pin = pin if isinstance(pin, Pin) else Pin(pin, *mode)
        self._is_inverted = invert

    def value(self, *level):
        if level:
            self._pin.value(bool(level[0]) != self._is_inverted)
            return None
        return int(bool(self._pin.value()) != self._is_inverted)

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)


class WDT:
    """The watchdog: not fed for `timeout` ms it resets the board. It cannot be stopped."""

    def __init__(self, id=0, timeout=5000):
        if id != 0:
            raise ValueError("WDT(%d) doesn't exist" % id)
        board_bus.call("wdt_start", timeout)

    def feed(self):
        board_bus.feed()


class Timer:
    """A timer with a soft callback: through the scheduler, so a full queue loses one.

    ESP32 (1.25): hardware timers 0 to 3, each one object, no virtual ones. rp2: virtual ones,
    any number, id -1.
    """

    ONE_SHOT = 0
    PERIODIC = 1

    if _ESP32:

        def __new__(cls, id, **settings):
            if id not in range(4):
                raise ValueError("invalid Timer number")
            if id not in _hardware_timers:
                _hardware_timers[id] = super().__new__(cls)
                _hardware_timers[id]._running = None
            return _hardware_timers[id]

        def __init__(self, id, **settings):
            if settings:
                self.init(**settings)
    else:

        def __init__(self, id=-1, **settings):
            if id != -1:
                raise ValueError("Timer doesn't exist")
            self._running = None
            if settings:
                self.init(**settings)

    def init(self, *, mode=1, callback=None, period=-1, tick_hz=1000, freq=None, hard=False):
        if hard and _ESP32:
            raise ValueError("hard Timers are not implemented")
        self.deinit()
        period_ms = int(1000 / freq) if freq else period * 1000 // tick_hz
        if period < 0 and not freq:
            period_ms = 1000
        if callback is not None:
            self._running = board_bus.start_timer(max(1, period_ms), mode == 1, callback, self)

    def deinit(self):
        if self._running is not None:
            board_bus.stop_timer(self._running)
        self._running = None


_hardware_timers = {}


class RTC:
    """The clock: `time.time()` follows it."""

    def datetime(self, *parts):
        if not parts:
            year, month, day, hour, minute, second, weekday = _gmtime()[:7]
            return year, month, day, weekday, hour, minute, second, 0
        if len(parts[0]) != 8:
            raise ValueError("requested length 8 but object has length %d" % len(parts[0]))
        year, month, day, _, hour, minute, second, _ = parts[0]
        _set_clock(year, month, day, hour, minute, second)
        return None

    if _ESP32:

        def init(self, parts):
            # Without a weekday in the middle (hour_index of machine_rtc_datetime_helper()).
            _set_clock(*parts[:6])

        def memory(self, *data):
            raise NotImplementedError("RTC.memory() is not simulated")


# Seconds since 1970: the days by the formula that is right for 1901 to 2099.
def _set_clock(year, month, day, hour, minute, second):
    before = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)[month - 1]
    leap = 1 if month > 2 and year % 4 == 0 else 0
    days = (year - 1970) * 365 + (year - 1969) // 4 + before + leap + day - 1
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    board_bus.clock_changed(board_bus.call("set_clock", seconds))
