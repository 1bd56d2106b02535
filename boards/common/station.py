"""What a board's main program stands on: its start, and each round of its loop.

    boot(main, button, 2)                 runs main(), unless somebody at the board objects

    station = Station(client, wifi, led=Pin(2, Pin.OUT), watchdog_s=8)
    while True:
        station.step(100)
        ...                   your own work, which must not wait either

A watchdog is fed in one place only, at the end of `step()`. So it resets the board if anything in
the loop hangs, the client and your own work included; no timer and no interrupt feeds it.

The LED tells what is missing: a quick blink, the link; a slow one, the server; steady, nothing.
"""

import gc
import sys

try:
    import select
    from sys import print_exception
    from time import sleep_ms, ticks_add, ticks_diff, ticks_ms

    from micropython import const
except ImportError:  # CPython
    import shim_select as select
    from shim_micropython import const, print_exception
    from shim_time import sleep_ms, ticks_add, ticks_diff, ticks_ms

try:
    import machine
except ImportError:  # MicroPython's unix port has one, but older ones have not
    machine = None

_QUICK_MS = const(150)  # half a period of the LED
_SLOW_MS = const(1_000)
_KEY_LOOK_MS = const(20)
_REST_S = const(5)  # between a program that failed and the reset: to read why; see its text

# The watchdog of this board, once it runs: it can not be stopped, so whoever stops the loop (a
# tool that copies files, say) must feed it.
watchdog = None

# The Station that was made last: tools/board_report.py asks it when the program was stopped.
latest = None


def feed() -> None:
    """Feed the watchdog, if one runs."""
    if watchdog is not None:
        watchdog.feed()


class Station:
    """Drives a client and its link, shows how they are, and feeds the watchdog.

    Args:
        client: MQTTClient, or anything with step(timeout_ms) and is_online().
        link: Wifi, or anything with is_up(), and step() if it has work to do; None: always up.
            Ethernet, PPP and the like need no more than is_up().
        led: machine.Pin or anything with value(0 or 1); None: there is none.
        led_on: the value at which it shines: 0 where it hangs on the supply.
        watchdog_s: 0: none; else the board is reset when the loop does not come round for so
            long. The most is 8 (Pico W; 16 on the Pico 2 W). Begins with the first step().
        reset_after_s: 0: never; else the board is reset when the link was down for so long: the
            last resort against a Wi-Fi driver that does not recover. A server that can't be
            reached never resets anything. What the client has queued is lost.

    Attributes to read, as seen once in a round:
        uptime_s: seconds since it was made.
        offline_s: those of them at whose end the client was not online.
        connections: how often the client came online.
        told: after leave() the client's state_name, its stats (None: it has none), and how many
            bytes of memory were free; before that None.

    Allocates: nothing in step(), the client's and the link's work aside.
    """

    def __init__(
        self,
        client,
        link=None,
        led=None,
        led_on: int = 1,
        watchdog_s: int = 0,
        reset_after_s: int = 0,
    ) -> None:
        if not 0 <= watchdog_s <= 16:
            raise ValueError("watchdog_s is %r, must be in 0..16" % watchdog_s)
        if not 0 <= reset_after_s <= 86_400:
            raise ValueError("reset_after_s is %r, must be in 0..86400" % reset_after_s)
        self._client = client
        self._link = link
        self._has_step = hasattr(link, "step")
        self._led = led
        self._led_on = led_on
        self._is_lit: bool | None = None  # nothing shown yet
        self._led_ms = 0  # ticks_ms() of the next change
        self._watchdog_s = watchdog_s
        self._reset_after_ms = reset_after_s * 1000
        self._down_ms = None  # ticks_ms() since which the link is down
        self._second_ms = ticks_ms()  # up to where uptime_s has counted
        self._was_online = False
        self.uptime_s = self.offline_s = self.connections = 0
        self.told: list | None = None
        global latest
        latest = self

    def step(self, timeout_ms: int = 100) -> None:
        """One round. Blocks: up to timeout_ms, and no longer than that."""
        global watchdog
        if self._watchdog_s and watchdog is None:
            watchdog = machine.WDT(timeout=self._watchdog_s * 1000)
        if self._has_step:
            self._link.step()
        self._client.step(timeout_ms)
        now_ms = ticks_ms()
        is_up = self._link is None or self._link.is_up()
        is_online = self._client.is_online()
        self._watch_client(is_online, now_ms)
        self._show(is_up, is_online, now_ms)
        self._watch(is_up, now_ms)
        feed()

    def leave(self) -> None:
        """Let client and link go, for good. What the client told is kept in `told`."""
        client = self._client
        self._client = self._link = None  # or its connection would stay open
        gc.collect()
        told = [getattr(client, name, None) for name in ("state_name", "stats")]
        self.told = told + [getattr(gc, "mem_free", int)()]  # CPython does not know it: 0

    def _watch_client(self, is_online, now_ms):
        passed_s = ticks_diff(now_ms, self._second_ms) // 1000
        if passed_s > 0:
            self._second_ms = ticks_add(self._second_ms, passed_s * 1000)
            self.uptime_s += passed_s
            if not is_online:
                self.offline_s += passed_s
        if is_online and not self._was_online:
            self.connections += 1
        self._was_online = is_online

    def _show(self, is_up, is_online, now_ms):
        if self._led is None:
            return
        if is_up and is_online:
            is_lit = True
            self._led_ms = now_ms  # one that lies days back would look like a time to come
        elif self._is_lit is not None and ticks_diff(now_ms, self._led_ms) < 0:
            return
        else:
            is_lit = not self._is_lit
            self._led_ms = ticks_add(now_ms, _SLOW_MS if is_up else _QUICK_MS)
        if is_lit != self._is_lit:  # on the Pico W each change goes through the Wi-Fi chip
            self._is_lit = is_lit
            self._led.value(self._led_on if is_lit else 1 - self._led_on)

    def _watch(self, is_up, now_ms):
        if is_up:
            self._down_ms = None
        elif self._down_ms is None:
            self._down_ms = now_ms
        elif self._reset_after_ms and ticks_diff(now_ms, self._down_ms) >= self._reset_after_ms:
            try:
                print("station: no link for %d s: reset" % (self._reset_after_ms // 1000))
            except MemoryError:
                pass
            machine.reset()


def is_wanted(button, time_s: int) -> bool:
    """Give a person at the board the chance to keep the program from starting.

    Args:
        button: function that returns True while the button is held; None: there is none.
        time_s: how long to wait for it, or for a key at the REPL.

    Returns:
        False: it shall not start. The key that was typed is taken from the REPL. What is no ASCII
        is no key, but noise on the line.

    Blocks: for time_s, or until the key or the button. Ctrl-C goes through, as everywhere.
    """
    print("station: starts in %d s; any key or the button: not at all" % time_s)
    keys = select.poll()
    keys.register(sys.stdin, select.POLLIN)
    deadline_ms = ticks_add(ticks_ms(), time_s * 1000)
    while True:
        if button is not None and button():
            return False
        # A byte: as text, read(1) waits for the rest of a letter, for ever. A glitch of the line,
        # which may come with the power, is none of ASCII: a few zeros before ones, or all zeros.
        if keys.poll(0) and b"\0" != sys.stdin.buffer.read(1) < b"\x80":
            return False
        if ticks_diff(deadline_ms, ticks_ms()) <= 0:
            return True
        sleep_ms(_KEY_LOOK_MS)


def boot(main, button=None, time_s: int = 2) -> None:
    """Run main() as the program of a board with nobody near it.

    Args:
        main: function; it does not return as long as all is well.
        button, time_s: see is_wanted().

    If it raises, the reason is printed, and after 5 s the board is reset: a program that ended
    would leave it at a REPL that nobody sees. That needs no memory. Ctrl-C ends it and resets
    nothing.
    """
    if not is_wanted(button, time_s):
        print("station: not started; Ctrl-D starts it")
        return
    try:
        main()
    except Exception as error:
        # The heap may be full, and stay so: nothing may raise before reset(). To print this takes
        # no memory; whatever raised MemoryError first would make this error its own.
        try:
            print_exception(error)
            print("station: the program has failed: reset in 5 s, Ctrl-C prevents it")
            gc.collect()
        except Exception:
            pass
        for _ in range(_REST_S):
            feed()
            sleep_ms(1_000)
        machine.reset()
    finally:
        if latest is not None:
            try:
                latest.leave()
            except Exception:
                pass
