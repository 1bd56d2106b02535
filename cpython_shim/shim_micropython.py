"""The board's `micropython` module, and `sys.print_exception`, on CPython.

What differs, and how it is bridged
-----------------------------------
- `const(x)` is x. A board's compiler folds it and drops `_NAMES` from the module; CPython keeps
  them all, so a test must not reach for one through the module.
- `heap_lock()` and `heap_unlock()` only count (and answer as the board's: None, and how many
  locks are left). CPython allocates for every integer, so nothing
  can be forbidden: that a function allocates nothing is shown on the real VM only.
- `schedule(function, arg)` is the board's: at most 8 wait, the 9th raises RuntimeError, the
  function runs soon in the main thread between two bytecodes, never nested in another one, and
  an exception in it is printed.

  The main thread is reached by CPython's own means for this, `Py_AddPendingCall`, through
  ctypes. It is made to be called from any thread, and works in every loop and at every call,
  even in one that never calls this shim. (A signal would need a handler installed, in the main
  thread and for good, and a signal that the application uses for nothing. A check in poll()
  and sleep_ms() alone would leave a computing loop without its interrupts.) What it does not
  do is to wake a main thread that sleeps in the kernel. So poll() and sleep_ms() of this shim
  have a wake-up descriptor in their sleep, and schedule() writes to it. A main thread that
  sleeps elsewhere (`time.sleep`, `input`, a blocking read) runs what is scheduled when it
  comes back.

  On a board the function can run inside any loop or call, an interrupt's also. Here it runs in
  the main thread only, and another thread may be anywhere.

  With a trace function (a debugger, coverage.py) all this holds as well. On CPython 3.11 the next
  function then runs a few milliseconds after the one before it: `_ask()` says why.
- `print_exception` is `sys.print_exception` on the board and prints to stdout by default, as
  there. It is here because CPython's `sys` cannot be extended politely.
"""

import _thread
import os
import select
import sys
import threading
import time
import traceback
from collections import deque

_MAIN_THREAD_IDENT = threading.main_thread().ident

# Depth of the board's queue on ESP32 and rp2. (4 on the unix port 1.25: seen on the real VM.)
_SCHEDULE_DEPTH = 8


def const(value):
    """Return `value`: the marker that MicroPython's compiler folds."""
    return value


# ---------------------------------------------------------------------------
# Heap lock: a counter, as deep as the calls are
# ---------------------------------------------------------------------------

_heap_lock_depth = 0


def heap_lock():
    """Count one lock more. Forbids nothing here; returns None, as on the board."""
    global _heap_lock_depth
    _heap_lock_depth += 1


def heap_unlock():
    """Count one lock less and return how many are left."""
    global _heap_lock_depth
    _heap_lock_depth -= 1
    return _heap_lock_depth


def heap_locked():
    """Return how many locks are held. Not in every firmware: the unix port 1.25 lacks it."""
    return _heap_lock_depth


# ---------------------------------------------------------------------------
# Exceptions
# ---------------------------------------------------------------------------


def print_exception(exc, file=None):
    """Print `exc` with its traceback to `file`, by default to sys.stdout."""
    traceback.print_exception(type(exc), exc, exc.__traceback__, file=file or sys.stdout)


# ---------------------------------------------------------------------------
# Doorbell: what wakes a thread that sleeps in the kernel
# ---------------------------------------------------------------------------


class Doorbell:
    """A descriptor that is readable from `ring()` until `hush()`.

    A pipe with at most one byte in it: `rung` knows whether it is there, so ringing twice costs
    nothing and can never fill the pipe. Not locked: the owner sees to it that ring() and hush()
    do not overlap.
    """

    def __init__(self):
        self._reader = self._writer = -1  # without a free descriptor __del__() still finds these
        self._reader, self._writer = os.pipe()  # not inherited by programs that we start
        self.rung = False

    def fileno(self):
        """Return the descriptor to watch for POLLIN; -1 once closed."""
        return self._reader

    def ring(self):
        """Make the descriptor readable."""
        if not self.rung and self._writer >= 0:
            self.rung = True
            os.write(self._writer, b"\0")

    def hush(self):
        """Make the descriptor unreadable."""
        if self.rung and self._reader >= 0:
            os.read(self._reader, 1)
            self.rung = False

    def close(self):
        """Close both ends. Once is enough, twice does no harm."""
        reader, writer, self._reader, self._writer = self._reader, self._writer, -1, -1
        if reader >= 0:
            os.close(reader)
            os.close(writer)

    __del__ = close


# ---------------------------------------------------------------------------
# schedule
# ---------------------------------------------------------------------------

# (function, arg), oldest first. schedule() appends, the main thread takes from the left. The
# deque's own operations are atomic, and no lock is held around them: a scheduled function may
# interrupt schedule() itself, in the main thread, and would wait for that lock for ever.
_queue = deque()

_run_next_callback = None  # ctypes' callable
_add_pending_call = None  # ctypes.pythonapi.Py_AddPendingCall
_loading = set()  # threads that are about to set these two
_loading_lock = threading.Lock()
_is_running = False  # a scheduled function is running: on a board the scheduler is locked then

_ASK_AGAIN_S = 0.001
_ASKS_ONE_BY_ONE = sys.version_info[:2] == (3, 11)
_may_ask = deque((True,), maxlen=1)  # there: empty from one _ask() until its function has ended


def schedule(function, arg):
    """Have `function(arg)` called soon in the main thread, between two of its bytecodes.

    Callable from any thread, from a signal handler and from a scheduled function.

    Raises:
        RuntimeError: 8 functions wait already.
    """
    if len(_queue) >= _SCHEDULE_DEPTH:
        raise RuntimeError("schedule queue full")
    if _add_pending_call is None and not _load_pending_calls():
        _queue.append((function, arg))
        return  # the call that we interrupt asks for it
    _queue.append((function, arg))
    _ask()
    if _sleeps:
        _wake_main_thread()


# Have the interpreter call _run_next(). Its queue (32 places) can be full of other people's calls:
# then ours runs with the next one, or at the next poll or sleep.
#
# CPython 3.11 repeats the first bytecode of a function for ever if the function is traced, called
# from a pending call, and another pending call has been asked for since that one began. So there
# we ask for one at a time.
def _ask():
    if not _ASKS_ONE_BY_ONE:
        _add_pending_call(_run_next_callback, None)
        return
    try:
        _may_ask.pop()
    except IndexError:
        return  # the one that has been asked for asks for the next
    if _add_pending_call(_run_next_callback, None) != 0:
        _may_ask.append(True)


# A thread of its own: _run_next() can not tell when the interpreter is done with it.
def _ask_again():
    while _is_running_next():
        time.sleep(_ASK_AGAIN_S)
    _may_ask.append(True)
    if _queue:
        _ask()


# Whether the main thread is in _run_next(), or in a trace function that looks at it.
def _is_running_next():
    frame = sys._current_frames().get(_MAIN_THREAD_IDENT)
    while frame and frame.f_code is not _run_next.__code__:
        frame = frame.f_back
    return frame is not None


def _load_pending_calls():
    # Not at import: ctypes takes longer to import than this whole shim, and most never schedule.
    # So long, that an interrupt of this thread may well come meanwhile, and find ctypes half
    # imported. False: this is such a one.
    ident = threading.get_ident()
    if ident in _loading:
        return False
    _loading.add(ident)  # before the lock: it must not be waited for by who holds it
    try:
        with _loading_lock:
            if _add_pending_call is None:  # else another thread was faster, and has asked already
                _import_ctypes()
    finally:
        _loading.discard(ident)
    return True


def _import_ctypes():
    global _run_next_callback, _add_pending_call
    import ctypes

    callback_type = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    # Its own prototype, not `ctypes.pythonapi.Py_AddPendingCall`: that object is shared with
    # every user of ctypes in the process, and setting its argtypes would change theirs.
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int, callback_type, ctypes.c_void_p)
    _run_next_callback = callback_type(_run_next)
    # Never freed: the interpreter's queue has no reference of its own, and may call it when this
    # module has been taken out of sys.modules.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_run_next_callback))
    _add_pending_call = prototype(("Py_AddPendingCall", ctypes.pythonapi))


def _run_next(_=None):
    # The interpreter calls this in the main thread. One function a call, as a board runs one
    # and looks at its other business before the next. It must not raise: ctypes has nowhere to
    # put an exception, and 0 says "none". (A Ctrl-C in the few bytecodes outside the `try` does
    # raise, and shows as SystemError where KeyboardInterrupt was meant. Accepted.)
    global _is_running
    if _is_running:
        return 0  # never nested; the running one asks for the next when it ends
    _is_running = True
    try:
        if _queue:
            function, arg = _queue.popleft()
            function(arg)
    except BaseException as exc:  # KeyboardInterrupt too: a board prints it and goes on
        print_exception(exc)
    finally:
        _is_running = False
    if _ASKS_ONE_BY_ONE and not _may_ask:
        if sys.gettrace() is not None:
            try:
                _thread.start_new_thread(_ask_again, ())
                return 0
            except RuntimeError:
                pass  # no thread can be had
        _may_ask.append(True)
    if _queue and _add_pending_call is not None:
        _ask()  # once too often does no harm, see above
    return 0


def run_scheduled():
    """Run what waits, if this is the main thread: for places that have just slept."""
    if _queue and threading.get_ident() == _MAIN_THREAD_IDENT:
        for _ in range(_SCHEDULE_DEPTH):  # a function that schedules itself must not hold us
            _run_next()


# ---------------------------------------------------------------------------
# Sleep of the main thread, which schedule() ends
# ---------------------------------------------------------------------------

_sleeps = 0  # the main thread is in, or about to enter, a sleep that _bell can end
_bell = None  # Doorbell; made at the first such sleep
_bell_lock = threading.RLock()  # re-entrant: a scheduled function may come while it is held


def enter_sleep():
    """Say that this thread is about to sleep; return the Doorbell to watch, or None.

    None: not the main thread, so scheduled functions are not its business. Else `exit_sleep()`
    must follow. After this, and before the kernel is asked, `is_scheduled()` must be looked at:
    schedule() stores first and looks for sleepers then, we do it the other way round, so one of
    the two always sees the other.
    """
    global _sleeps, _bell
    if threading.get_ident() != _MAIN_THREAD_IDENT:
        return None
    if _bell is None:
        _bell = Doorbell()
    _sleeps += 1
    return _bell


def exit_sleep():
    """End what `enter_sleep()` began, and run what is scheduled."""
    global _sleeps
    _sleeps -= 1
    hush_bell()
    run_scheduled()


def is_scheduled():
    """Return whether a function waits to be run (and none is running)."""
    return bool(_queue) and not _is_running


def hush_bell():
    """Make the bell silent again; what is scheduled must be looked at after this."""
    with _bell_lock:
        _bell.hush()


def _wake_main_thread():
    with _bell_lock:
        if _bell is not None:
            _bell.ring()


def wait_ns(delay_ns):
    """Sleep `delay_ns`; in the main thread, scheduled functions run meanwhile."""
    end_ns = time.monotonic_ns() + delay_ns
    bell = enter_sleep()
    if bell is None:
        time.sleep(delay_ns / 1_000_000_000)
        return
    try:
        poller = select.poll()
        poller.register(bell, select.POLLIN)
        while True:
            run_scheduled()
            left_ns = end_ns - time.monotonic_ns()
            if left_ns <= 0:
                return
            if is_scheduled():
                continue
            # poll() counts in whole milliseconds. Its sleep ends early here and time.sleep()
            # does the rest, which is too short to matter for a function that waits meanwhile.
            if left_ns < 2_000_000:
                time.sleep(left_ns / 1_000_000_000)
            elif poller.poll(left_ns // 1_000_000 - 1):
                hush_bell()
    finally:
        exit_sleep()


def _forget_in_child():
    # After os.fork() both processes hold the same pipe: a ring here would wake the parent.
    global _bell, _sleeps, _bell_lock, _is_running, _loading_lock, _MAIN_THREAD_IDENT
    if _bell is not None:
        _bell.close()
    _bell, _sleeps, _bell_lock, _is_running = None, 0, threading.RLock(), False
    _MAIN_THREAD_IDENT = threading.get_ident()  # the only thread that a child has
    _queue.clear()
    _may_ask.append(True)
    _loading.clear()
    _loading_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_in_child)
