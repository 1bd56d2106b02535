"""What mqttpipe.py takes from a board, on CPython: all its names in one place.

The client says `from mqttpipe_host import *` where a board has modules of its own, because each
name of a module that is written there is in the memory of every board; that package passes these
on. What differs from CPython's own is said in each of the files named below.
"""

from _thread import allocate_lock
from os import urandom

import shim_select as select
import shim_socket as socket
import shim_tls as tls
from shim_errno import EAGAIN, EINPROGRESS
from shim_io import IOBase
from shim_machine import unique_id
from shim_micropython import const, print_exception
from shim_thread import (
    get_ident,
    get_loop,
    is_left,
    pass_on,
    start_thread,
    wait_no_more,
    wait_ready,
)
from shim_time import gmtime, sleep_ms, ticks_add, ticks_diff, ticks_ms
from shim_tls import wrap_tls

try:  # a simulated board has an interface
    from network import STA_IF, WLAN
except ImportError:
    WLAN = STA_IF = None  # the system's files know the DNS servers

Timer = None  # what drives step() in the background is a thread
_linger_ms = 0  # a closed connection holds no memory that the next one needs


def set_nodelay(sock):
    """Send small writes at once: they would else meet Nagle's algorithm and wait for 40 ms."""
    try:
        sock.setsockopt(6, 1, 1)
    except OSError:
        pass


__all__ = [
    "EAGAIN",
    "EINPROGRESS",
    "IOBase",
    "_linger_ms",
    "STA_IF",
    "Timer",
    "WLAN",
    "allocate_lock",
    "const",
    "get_ident",
    "get_loop",
    "gmtime",
    "is_left",
    "pass_on",
    "print_exception",
    "select",
    "set_nodelay",
    "sleep_ms",
    "socket",
    "start_thread",
    "ticks_add",
    "ticks_diff",
    "ticks_ms",
    "tls",
    "unique_id",
    "urandom",
    "wait_no_more",
    "wait_ready",
    "wrap_tls",
]
