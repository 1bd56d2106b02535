"""publish_isr() at 1 kHz, from signal handlers and scheduled functions, beside step().

What an interrupt was told is true: each message that got True arrives once, in order, and each
that got False does not. (That publish_isr() allocates nothing is in tests/portable/test_isr.py.)
"""

import pathlib
import struct
import subprocess
import time

import ends
import pytest

from proxy import random_cuts

COUNT = 800
ATTEMPTS = 3
INTERPRETERS = ["CPython", "MicroPython 64-bit", ends.BOARD, ends.ESP32_SOCKETS]


@pytest.fixture(params=INTERPRETERS)
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


@pytest.mark.parametrize("cuts", (0, 8), ids=("a good connection", "cut 8 times"))
@pytest.mark.parametrize("how", ("signal", "schedule"))
def test_interrupts_publish_1000_times_a_second(
    how, cuts, start, add_peer, add_proxy, wide_broker, topic
):
    peer = add_peer(wide_broker.uri)
    peer.subscribe(topic + "/#", qos=1)
    proxy = add_proxy(random_cuts(30, cuts, 8000), wide_broker)
    options = {"uri": proxy.uri, "client_id": topic.replace("/", "-"), "clean_session": False}
    options.update(reconnect_min_ms=2, reconnect_max_ms=10)
    for attempt in range(1, ATTEMPTS + 1):
        name = "%s/%d" % (topic, attempt)
        # More heap than a board has: all the payloads are made before the first interrupt.
        client = start("interrupts.py", options, name, how, str(COUNT), "30", heap="256k")
        try:
            fired, refused, dropped, unscheduled, published = client.next("fired", 40)
            break
        except AssertionError:
            if attempt == ATTEMPTS or not is_in_own_mutex(client.pid):
                raise
            print("MicroPython's signal handler waits for its own thread: once more")
            client.kill()
    (stats,) = client.next("bye", 15)
    print("%d refused, %d not scheduled" % (refused, unscheduled))
    assert not client.count("error") and not client.count("late"), client.story()
    assert fired == COUNT and refused == dropped
    assert stats["acknowledged"] == COUNT - refused + published
    seen = {"isr": [], "main": []}
    for message in peer.make_round_trip(topic + "/end"):
        if message.topic_name.startswith(name):
            seen[message.topic_name.rpartition("/")[2]].append(int(message.payload))
    # QoS 1: after a cut a message may come again; the first arrivals are in order.
    first = {name: list(dict.fromkeys(numbers)) for name, numbers in seen.items()}
    assert first["main"] == list(range(1, published + 1))
    assert first["isr"] == sorted(first["isr"]) and len(first["isr"]) == COUNT - refused
    if not cuts:
        assert first == seen, "without a cut nothing comes twice"


# ---------------------------------------------------------------------------
# A fault of MicroPython's unix port, which no board has
# ---------------------------------------------------------------------------

FUTEX = {202, 240, 422}  # futex of x86-64, of i386, futex_time64
RECURSIVE = 1  # PTHREAD_MUTEX_RECURSIVE_NP
SIGALRM_BIT = 1 << 13


def is_in_own_mutex(pid):
    """True if the handler of SIGALRM waits for a mutex that the thread below it is taking.

    What a board does with its interrupts off, schedule() and the begin and end of an interrupt,
    MicroPython's unix port does in a mutex that one thread may take twice. pthread's are not for
    signal handlers: one that comes when the mutex is taken, and does not know yet by whom, waits
    for ever. The locks of a Python program, the client's among them, are of another kind.
    """
    process = pathlib.Path("/proc/%d" % pid)
    try:
        status = (process / "status").read_text()
        call, address = (process / "syscall").read_text().split()[:2]
        with open(process / "mem", "rb") as memory:
            memory.seek(int(address, 16))
            words = struct.unpack("5i", memory.read(20))
        with open(process / "exe", "rb") as program:
            is_64_bit = program.read(5)[4] == 2
    except (OSError, ValueError):  # it runs
        return False
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    kind = words[4] if is_64_bit else words[3]
    return bool(blocked & SIGALRM_BIT) and int(call) in FUTEX and kind == RECURSIVE


# A handler that takes a lock which is taken, whoever has it.
WAIT_IN_HANDLER = """\
import _thread, ffi, struct
libc = ffi.open("libc.so.6")
setitimer = libc.func("i", "setitimer", "iPp")
take = libc.func("i", "pthread_mutex_lock", "p")
mutex = bytearray(64)
wide = struct.calcsize("P") == 8
struct.pack_into("iiiii", mutex, 0, 1, 0, 0, 0 if wide else 1, 1 if wide else 0)
lock = _thread.allocate_lock()
lock.acquire()
handler = ffi.callback("v", lambda number: %s, "i", lock=True)
libc.func("p", "signal", "iP")(14, handler)
setitimer(0, struct.pack("llll", 0, 0, 0, 1000), None)
while True:
    pass
"""


@pytest.mark.parametrize(
    ("taken", "is_excused"), [("take(mutex)", True), ("lock.acquire()", False)]
)
def test_only_a_handler_in_the_mutex_of_micropython_is_excused(micropython, taken, is_excused):
    command = [*micropython.command, "-c", WAIT_IN_HANDLER % taken]
    with subprocess.Popen(command) as program:
        try:
            deadline = time.monotonic() + ends.WAIT_S
            syscall = pathlib.Path("/proc/%d/syscall" % program.pid)
            while int(syscall.read_text().replace("running", "-1").split()[0]) not in FUTEX:
                assert time.monotonic() < deadline, "it does not wait"
                time.sleep(0.01)
            assert is_in_own_mutex(program.pid) == is_excused
        finally:
            program.kill()
