"""One client that connects again and again, in vain or not, and says what it has left behind.

    leaks.py HOW OPTIONS DNS_PORT WARM_UP COUNT DEADLINE_S

HOW: "fail": it is asked to connect once, and each end of a connection counts; "work": it connects,
publishes at QoS 1 and disconnects, and that counts. OPTIONS: of MQTTClient, JSON. DNS_PORT: of a
DNS server on loopback, or "-".

Event: ["left", before, after, error]: what there was after WARM_UP connections, and after COUNT
more, each a list [open files, bytes of the heap (CPython: objects), KB of the process]; and the
text of the last error. If there is more of the heap it is measured again, after COUNT more: of the
heap the last two are told.
"""

import gc
import sys

from control import error_text, open_files, read_argument, say

import mqttpipe

# What the last connection leaves differs a little, as its error's text does, and a stale pointer
# on the stack may keep something alive by chance. What leaks does so in every round.
ROUNDS = 5


class Link:
    def __init__(self, port):
        self.port = port

    def is_up(self):
        return True

    def dns_servers(self):
        return [("127.0.0.1", self.port)]


def heap():
    gc.collect()
    gc.collect()  # what the first one has freed may have held more
    if hasattr(gc, "mem_alloc"):
        return gc.mem_alloc()
    return len(gc.get_objects())


# VmRSS, in KB: mbedTLS of the unix port and OpenSSL allocate outside the heap.
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
        while hasattr(gc, "mem_alloc"):
            pages.append(bytearray(1000))
    except MemoryError:
        pass


# Into a list that is there already: what was measured before must not count the next time.
def measure(into):
    into[0] = len(open_files())
    into[2] = process_kb()
    into[1] = heap()


class Loop:
    def __init__(self, client, deadline_s):
        self.client = client
        self.deadline_ms = int(deadline_s) * 1000
        self.begin_ms = mqttpipe.ticks_ms()
        self.ends = self.token = 0
        self.error = None
        client.on_offline = self.on_offline

    def on_offline(self, client, error):
        self.ends += 1
        if error is not None:
            self.error = error

    def step_until(self, condition):
        while not condition():
            self.client.step(20)
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


def main(how, options, port, warm_up, count, deadline_s):
    link = None if port == "-" else Link(int(port))
    client = mqttpipe.MQTTClient(link=link, **read_argument(options))
    loop = Loop(client, deadline_s)
    connect = loop.fail if how == "fail" else loop.work
    before, after = [0, 0, 0], [0, 0, 0]
    touch_heap()
    client.step(1)  # the first sleep opens what stays open, on CPython
    connect(int(warm_up))
    measure(before)
    for left in range(ROUNDS - 1, -1, -1):
        connect(int(count))
        measure(after)
        if after[1] <= before[1] or not left:
            break
        before[1] = after[1]
    say("left", before, after, error_text(loop.error))


main(*sys.argv[1:])
