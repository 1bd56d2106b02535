"""One client that connects again and again, in vain or not, and says what it has left behind.

    leaks.py HOW OPTIONS DNS_PORT WARM_UP COUNT DEADLINE_S SPILL

HOW: "fail": it is asked to connect once, and each end of a connection counts; "work": it connects,
publishes at QoS 1 and disconnects, and that counts. OPTIONS: of MQTTClient, JSON. DNS_PORT: of a
DNS server on loopback, or "-". SPILL: what each connection shall leave behind, to see that it is
found: "object", a number of bytes of malloc(), or "-".

Event: ["left", rounds, last, limits, error]: for each round of COUNT connections, after WARM_UP
ones, by how much each figure has grown: open files; the heap (MicroPython: bytes; CPython:
objects); bytes that malloc() has given out; KB of the process. What they were at the end; by how
much each may grow in a round; and the text of the last error.

What leaks does so in every round. Else the last connection leaves now a little more, now less, as
its error's text is; a stale pointer on the stack may keep something alive by chance; and
allocators keep some pages. So there are more rounds, up to ROUNDS_MAX, until for each figure there
was one in which it grew by no more than its limit.
"""

import gc
import struct
import sys

from control import error_text, hostnet, open_files, read_argument, say

import mqttpipe

ROUNDS_MAX = 5

IS_BOARD = sys.implementation.name == "micropython"

# What a round may leave: some pages of the process; of what malloc() gives out what the tables of
# libraries grow by for a while, and for each connection less than the smallest piece, which is 16
# bytes (32, with words of 64 bits).
PROCESS_KB = 200
MALLOC_BYTES = 4_000 if IS_BOARD else 15_000
MALLOC_BYTES_EACH = 8


class Link:
    def __init__(self, port):
        self.port = port

    def is_up(self):
        return True

    def dns_servers(self):
        return [("127.0.0.1", self.port)]


# Bytes of MicroPython's heap; on CPython objects that the collector knows.
def heap():
    gc.collect()
    gc.collect()  # what the first one has freed may have held more
    return gc.mem_alloc() if IS_BOARD else len(gc.get_objects())


# Fills INFO with glibc's struct mallinfo2.
def ask_malloc():
    pass


INFO = bytearray(10 * struct.calcsize("P"))
try:
    if IS_BOARD:
        import ffi

        libc = ffi.open("libc.so.6")
        malloc = libc.func("p", "malloc", "i")
        # A struct of this size is returned where a hidden first argument says.
        _mallinfo2 = libc.func("p", "mallinfo2", "p")

        def ask_malloc():
            _mallinfo2(INFO)

    else:
        import ctypes

        class Info(ctypes.Structure):
            _fields_ = [("fields", ctypes.c_size_t * 10)]

        malloc = ctypes.CDLL(None).malloc
        _mallinfo2 = ctypes.CDLL(None).mallinfo2
        _mallinfo2.restype = Info

        def ask_malloc():
            INFO[:] = bytes(_mallinfo2())
except (AttributeError, ImportError, OSError):
    pass  # no glibc, or one before 2.33


# What C has of malloc(), in bytes: mbedTLS of the unix port, OpenSSL, lwIP. That would know of a
# connection which we have closed for two minutes more.
def malloc_bytes():
    if hostnet:
        hostnet.forget()
    ask_malloc()
    fields = struct.unpack("10P", INFO)
    return fields[4] + fields[7]  # hblkhd, mapped one by one; and uordblks


# VmRSS, in KB: whatever else there may be.
def process_kb():
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


# MicroPython's heap becomes memory of the process page by page, as it is used for the first time,
# and the 64-bit one has 2 MB.
def touch_heap():
    pages = []
    try:
        while IS_BOARD:
            pages.append(bytearray(1000))
    except MemoryError:
        pass


# Into a list that is there already: what was measured before must not count the next time.
def measure(into):
    into[0] = len(open_files())
    into[1] = heap()  # first: what it collects holds memory of C
    into[2] = malloc_bytes()
    into[3] = process_kb()
    into[1] = heap()


class Loop:
    def __init__(self, client, deadline_s, spill):
        self.spill = spill
        self.spilt = None
        self.client = client
        self.deadline_ms = int(deadline_s) * 1000
        self.begin_ms = mqttpipe.ticks_ms()
        self.ends = self.token = 0
        self.error = self.failure = None
        client.on_offline = self.on_offline
        client.on_error = self.on_error

    def on_offline(self, client, error):
        self.ends += 1
        if self.spill == "object":
            self.spilt = [self.spilt]
        elif self.spill != "-":
            malloc(int(self.spill))
        if error is not None:
            self.error = error

    # A heap that a leak has filled grows no more: that must not pass for good.
    def on_error(self, client, error):
        self.failure = error

    def step_until(self, condition):
        while not condition():
            self.client.step(20)
            if self.failure:
                raise self.failure
            if mqttpipe.ticks_diff(mqttpipe.ticks_ms(), self.begin_ms) > self.deadline_ms:
                raise RuntimeError("late, in " + self.client.state_name)

    def fail(self, count):
        ends = self.ends + count
        self.client.connect()
        self.step_until(lambda: self.ends >= ends)

    def work(self, count):
        client = self.client
        for _ in range(count):
            client.connect()
            self.token = client.publish("mqttpipe/leaks", b"x" * 100, 1)
            self.step_until(lambda: client.is_done(self.token))
            client.disconnect()
            self.step_until(lambda: client.state_name == "DOWN")


def main(how, options, port, warm_up, count, deadline_s, spill):
    link = None if port == "-" else Link(int(port))
    client = mqttpipe.MQTTClient(link=link, **read_argument(options))
    loop = Loop(client, deadline_s, spill)
    connect = loop.fail if how == "fail" else loop.work
    count = int(count)
    limits = [0, 0, MALLOC_BYTES + MALLOC_BYTES_EACH * count, PROCESS_KB]
    least = [1 << 29] * len(limits)
    before, after = [0] * len(limits), [0] * len(limits)
    rounds = [[0] * len(limits) for _ in range(ROUNDS_MAX)]
    touch_heap()
    client.step(1)  # the first sleep opens what stays open, on CPython
    connect(int(warm_up))
    measure(after)
    for number in range(ROUNDS_MAX):
        before[:] = after
        connect(count)
        measure(after)
        for at in range(len(limits)):
            rounds[number][at] = after[at] - before[at]
            least[at] = min(least[at], rounds[number][at])
        if all(least[at] <= limits[at] for at in range(len(limits))):
            break
    say("left", rounds[: number + 1], after, limits, error_text(loop.error))


main(*sys.argv[1:])
