"""The way from a board's simulated modules to its hardware, which is in another process.

The names are those of cpython_shim/board/board_bus.py. Two things connect the two processes:

- A socket for questions: `call()` sends one packet, `repr((number, name, arguments))`, and waits
  for the packet with the answer, `repr((number, error, value))`. A packet is a whole, whatever
  interrupts us. The kernel ends a wait after 50 ms (SO_RCVTIMEO, set by the other side), because
  a timer's callback may run between our look and our wait and find our answer with its own.
- A page of memory that both see, for what is looked at too often to ask for it. The places are
  below, and again in virtual_board.py.

Everything that the unix port has no function for is called in the C library, with `ffi`.
"""

import _thread
import struct
import sys
from time import ticks_add, ticks_diff, ticks_ms

import ffi
import uctypes

import micropython

# Places in the page. We write:
INTERRUPT = 0  # what the other side does with a Ctrl-C; the values follow
REPL_MODE = 1  # 1: raw; it outlives a soft reset
FED = 2  # 1: feed() was called; the other side makes it 0
# The other side writes:
FLOWS = 3  # does_traffic_flow()
CONNECTED = 4  # is_connected()
GENERATION = 5  # generation()

INTERRUPT_HOLD = 0  # no input now; keep what comes
INTERRUPT_IS_DATA = 1  # hand it on as a byte
INTERRUPT_IS_SIGNAL = 3  # interrupt us

CONFIG = eval(__import__("os").getenv("VIRTUAL_BOARD"))
PORT = CONFIG["port"]
MACHINE = CONFIG["machine"]
FIRMWARE = CONFIG["firmware"]

_SIGALRM = 14
_SIG_GC = 39  # SIGRTMIN + 5
_EXIT_SOFT_RESET = 75

_libc = ffi.open("libc.so.6")
_send = _libc.func("i", "send", "iPii")
_recv = _libc.func("i", "recv", "iPii")
_mmap = _libc.func("p", "mmap", "pliiil")
_setitimer = _libc.func("i", "setitimer", "iPp")
_siginterrupt = _libc.func("i", "siginterrupt", "ii")
_sigaction = _libc.func("i", "sigaction", "ipp")
_signal = _libc.func("p", "signal", "iP")
_ignore_signal = _libc.func("p", "signal", "ip")
_exit = _libc.func("v", "_exit", "i")
rename = _libc.func("i", "rename", "ss")  # of this machine's files, for board_flash.py
# Die with the thread that has started us: a test that is killed leaves no board behind.
_libc.func("i", "prctl", "iiiii")(1, 9, 0, 0, 0)

page = uctypes.bytearray_at(_mmap(None, 4096, 3, 1, CONFIG["page_fd"], 0), 16)

_CALL_FD = CONFIG["call_fd"]
_number = 0
_answers = {}  # number -> (error, value), of calls that somebody else's wait has found
_waiting = set()
ANSWER_BYTES_MAX = 2048
# A board's own driver needs no piece of the heap for a call: this one is there before the program,
# and is not in the way of what it keeps. A call within a call has one of its own.
_buffers = [bytearray(ANSWER_BYTES_MAX)]
# The unix port has no GIL: one thread at a time. But a timer's callback comes in the middle of a
# call of its own thread, and must not wait for it.
_lock = _thread.allocate_lock()
_owner = None


def call(name, *arguments):
    """Have the hardware do something, and return what it answers."""
    global _owner
    me = _thread.get_ident()
    is_nested = _owner == me
    if not is_nested:
        _lock.acquire()
    try:
        _owner = me
        return _call(name, arguments)
    finally:
        if not is_nested:
            _owner = None
            _lock.release()


def _call(name, arguments):
    global _number
    _number = number = (_number + 1) & 0xFFFFFF
    _waiting.add(number)
    buffer = _buffers.pop() if _buffers else bytearray(ANSWER_BYTES_MAX)
    try:
        packet = repr((number, name, arguments)).encode()
        while _send(_CALL_FD, packet, len(packet), 0) < 0:
            pass  # a signal came
        while number not in _answers:
            count = _recv(_CALL_FD, buffer, len(buffer), 0)
            if count == 0:
                _exit(1)  # the other side is gone
            if count > 0:
                found, error, value = eval(str(buffer[:count], "utf-8"))
                if found in _waiting:
                    _answers[found] = error, value
        error, value = _answers.pop(number)
    finally:
        # After a Ctrl-C the answer comes, and nobody waits for it.
        _waiting.discard(number)
        if not _buffers:
            _buffers.append(buffer)
    if error:
        raise _ERRORS[error](*value)
    return value


_ERRORS = {
    "OSError": OSError,
    "ValueError": ValueError,
    "TypeError": TypeError,
    "RuntimeError": RuntimeError,
}


def does_traffic_flow():
    """Return whether packets pass."""
    return page[FLOWS] == 1


def is_connected():
    """Return what WLAN.isconnected() says."""
    return page[CONNECTED] == 1


def generation():
    """Return a number that changes when all sockets are gone."""
    return page[GENERATION]


def feed():
    """Feed the watchdog."""
    page[FED] = 1


clock = [0.0]  # the board's time less this machine's, in seconds


def clock_changed(offset_s):
    """The clock was set: it is `offset_s` ahead of this machine's now."""
    clock[0] = offset_s


# ---------------------------------------------------------------------------
# The end of the program
# ---------------------------------------------------------------------------


def reset():
    """End the program, as the chip does."""
    call("reset")
    while True:
        _recv(_CALL_FD, bytearray(1), 1, 0)  # until we are killed


def soft_reset():
    """End the program, as the interpreter does."""
    raise SystemExit


def exit_for_soft_reset():
    """End this process; the other side starts the next one."""
    _exit(_EXIT_SOFT_RESET)


# ---------------------------------------------------------------------------
# Ctrl-C
# ---------------------------------------------------------------------------
# The other side sees it first, as a board's interrupt handler does, and sends SIGINT while
# INTERRUPT_IS_SIGNAL. The unix port's own handler makes a KeyboardInterrupt of that.

_SIGINT = 2
_SIG_IGN = 1
_native_kbd_intr = micropython.kbd_intr


def interrupts_on():
    """Let a Ctrl-C interrupt from now on."""
    _ignore_signal(_SIGINT, _SIG_IGN)  # one that came too late, and still waits, is gone with it
    _native_kbd_intr(3)
    page[INTERRUPT] = INTERRUPT_IS_SIGNAL


def interrupts_off(meaning=INTERRUPT_HOLD):
    """Let none interrupt from now on; but one that came just before does, within this call."""
    page[INTERRUPT] = meaning
    _ignore_signal(_SIGINT, _SIG_IGN)
    for _ in range(2):
        pass  # a jump backward: there the interpreter looks for what is pending


def kbd_intr(character):
    """micropython.kbd_intr(): 3 lets Ctrl-C interrupt, -1 makes it a byte as others are."""
    if character == 3:
        interrupts_on()
    else:
        interrupts_off(INTERRUPT_IS_DATA)


# ---------------------------------------------------------------------------
# Timers
# ---------------------------------------------------------------------------
# One timer of the kernel's for all. Its signal may come anywhere, even in the middle of an
# allocation, so the handler does what a hard interrupt may: it calls schedule(), nothing else
# (lock=True: it cannot allocate). Proven way: micropython-lib's unix-ffi/machine/timer.py.

_timers = []
_handler = None


class _Timer:
    def __init__(self, period_ms, is_periodic, callback, argument):
        self.due_ms = ticks_add(ticks_ms(), period_ms)
        self.period_ms = period_ms
        self.is_periodic = is_periodic
        self.callback = callback
        self.argument = argument


def start_timer(period_ms, is_periodic, callback, argument):
    """Have `callback(argument)` called soon after each period; return what stop_timer() takes."""
    global _handler
    if _handler is None:
        _handler = ffi.callback("v", _on_alarm, "i", lock=True)
        _signal(_SIGALRM, _handler)
        _interrupt_system_calls()
        # With threads, a collection of garbage stops the others by a signal, and holds a mutex
        # that schedule() wants until they have answered (unix/mpthreadport.c). So ours must not
        # come in the middle of that answer. struct sigaction: a pointer, then the mask.
        action = bytearray(160)
        _sigaction(_SIG_GC, None, action)
        pointer_bytes = struct.calcsize("P")
        action[pointer_bytes + (_SIGALRM - 1) // 8] |= 1 << (_SIGALRM - 1) % 8
        _sigaction(_SIG_GC, action, None)
    timer = _Timer(period_ms, is_periodic, callback, argument)
    _timers.append(timer)
    _arm()
    return timer


def stop_timer(timer):
    """Stop it. Twice does no harm."""
    if timer in _timers:
        _timers.remove(timer)
    timer.callback = None


_pthread_sigmask = _libc.func("i", "pthread_sigmask", "iPP")
_native_start_new_thread = _thread.start_new_thread
_has_threads = False  # there was one
_threads = 0


# What waits in the kernel shall come back when a timer is due, and run callbacks. But with threads
# a collection of garbage waits in the kernel for the others, and takes an early return for their
# answer (sem_wait() in unix/mpthreadport.c). Then only poll() and the like are interrupted.
def _interrupt_system_calls():
    _siginterrupt(_SIGALRM, 0 if _has_threads else 1)


def start_new_thread(function, arguments, named=None):
    """_thread.start_new_thread(): the timers' signal goes to the main thread only.

    A new thread has the mask of the one that starts it. So the signal is blocked here, not in the
    new thread: before that has a state of the interpreter's, the handler would crash.

    rp2 has a second core, and that is all (rp2/mpthreadport.c).
    """
    global _has_threads, _threads
    if PORT == "rp2" and _threads:
        raise OSError("core1 in use")
    _threads += 1

    def run():
        global _threads
        try:
            function(*arguments, **(named or {}))
        finally:
            _threads -= 1

    _has_threads = True
    if _handler is not None:
        _interrupt_system_calls()
    # SIG_BLOCK, then SIG_SETMASK; a set is a bit a signal, and 128 bytes long.
    mask = bytearray(128)
    _pthread_sigmask(0, struct.pack("<Q", 1 << (_SIGALRM - 1)) + bytes(120), mask)
    try:
        return _native_start_new_thread(run, ())
    finally:
        _pthread_sigmask(2, mask, None)


def _on_alarm(_):
    try:
        micropython.schedule(_run_timers, 0)
    except RuntimeError:
        pass  # the queue is full; the interval of _arm() brings us here again


def _arm():
    if not _timers:
        _setitimer(0, struct.pack("llll", 0, 0, 0, 0), None)
        return
    now_ms = ticks_ms()
    next_us = max(1, min(ticks_diff(timer.due_ms, now_ms) for timer in _timers)) * 1000
    again_us = 10_000
    first = next_us // 1_000_000, next_us % 1_000_000
    _setitimer(0, struct.pack("llll", 0, again_us, *first), None)


def _run_timers(_):
    now_ms = ticks_ms()
    for timer in list(_timers):
        if ticks_diff(timer.due_ms, now_ms) > 0 or timer.callback is None:
            continue
        if timer.is_periodic:
            # One that is late is not made up for: a soft timer's callbacks that find the queue
            # full are lost (shared/runtime/softtimer.c, py/scheduler.c).
            while ticks_diff(timer.due_ms, now_ms) <= 0:
                timer.due_ms = ticks_add(timer.due_ms, timer.period_ms)
        else:
            _timers.remove(timer)
        try:
            timer.callback(timer.argument)
        except Exception as error:
            sys.print_exception(error)
    _arm()
