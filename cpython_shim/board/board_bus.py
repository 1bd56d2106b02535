"""The way from a board's simulated modules to its hardware, when both are in this process.

network.py, machine.py and ntptime.py import these names. In the virtual board a file of the same
name stands in for this one (tests/board/vm/board_bus.py), which reaches the hardware in another
process.

    call(name, *arguments)       do something; raises what the hardware says
    PORT, MACHINE, FIRMWARE      which board this is
    does_traffic_flow()          the link is up and packets pass
    is_connected()               WLAN.isconnected()
    generation()                 changes when the interface takes its sockets down with it
    feed()                       the watchdog
    clock_changed(offset_s)      machine.RTC or ntptime has set the clock
    start_timer(...), stop_timer(timer)
    reset() soft_reset()         end the program

`simulated_board.py` says which Hardware this is.
"""

import builtins
import threading

from board_simulation import BoardError

from shim_micropython import schedule

PORT = None
MACHINE = None
FIRMWARE = None

_hardware = None
_reset_cause = None  # the chip's reset line was pulled: the program ends when it next calls


class BoardReset(BaseException):
    """The program called machine.reset() or machine.soft_reset(), or was not fed in time.

    Not an Exception: no handler of the program's shall stop it, as none stops a reset.
    """


def attach(hardware):
    """Let this process be the board with that Hardware; None: none any more."""
    global _hardware, _reset_cause, PORT, MACHINE, FIRMWARE
    for timer in list(_timers):
        stop_timer(timer)
    _hardware = hardware
    _reset_cause = None
    PORT = hardware and hardware.port
    MACHINE = hardware and hardware.machine
    FIRMWARE = hardware and hardware.firmware


def on_reset(cause):
    """From Hardware, in any thread: the program shall end."""
    global _reset_cause
    _reset_cause = cause


def take_reset():
    """Return the cause of the reset that has ended the program, or None, and forget it."""
    global _reset_cause
    cause, _reset_cause = _reset_cause, None
    return cause


def _check():
    if _reset_cause is not None:
        raise BoardReset("reset, cause %d" % _reset_cause)


def call(name, *arguments):
    """Have the hardware do something, and return what it answers."""
    _check()
    try:
        return _hardware.call(name, *arguments)
    except BoardError as error:
        raise getattr(builtins, error.name)(*error.arguments)


def does_traffic_flow():
    """Return whether packets pass."""
    _check()
    return _hardware.does_traffic_flow()


def is_connected():
    """Return what WLAN.isconnected() says."""
    _check()
    return _hardware.is_connected()


def generation():
    """Return a number that changes when all sockets are gone."""
    return _hardware.radio.generation


def feed():
    """Feed the watchdog."""
    _hardware.tick()  # too late is too late
    _check()
    _hardware.feed()


def clock_changed(offset_s):
    """The clock was set: it is `offset_s` ahead of this machine's now."""


def reset():
    """End the program, as the chip does."""
    call("reset")
    _check()


def soft_reset():
    """End the program, as the interpreter does."""
    raise BoardReset("machine.soft_reset()")


# ---------------------------------------------------------------------------
# Timers: a thread each, the callback through schedule(), as on a board
# ---------------------------------------------------------------------------

_timers = []


class _Timer:
    def __init__(self, period_ms, is_periodic, callback, argument):
        self.is_running = True
        self._end = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(period_ms, is_periodic, callback, argument), daemon=True
        )
        self._thread.start()

    def _run(self, period_ms, is_periodic, callback, argument):
        def fire(_):
            if self.is_running:
                callback(argument)

        while not self._end.wait(period_ms / 1000):
            try:
                schedule(fire, None)
            except RuntimeError:
                pass  # the queue is full: this one is missed, as on a board
            if not is_periodic:
                return

    def stop(self):
        self.is_running = False
        self._end.set()


def start_timer(period_ms, is_periodic, callback, argument):
    """Have `callback(argument)` called soon after each period; return what stop_timer() takes."""
    timer = _Timer(period_ms, is_periodic, callback, argument)
    _timers.append(timer)
    return timer


def stop_timer(timer):
    """Stop it. Twice does no harm."""
    timer.stop()
    if timer in _timers:
        _timers.remove(timer)
