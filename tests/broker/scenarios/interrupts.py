"""Interrupts that publish, 1,000 a second, while the main program is in step() and publishes too.

    interrupts.py '{"uri": "mqtt://127.0.0.1:1883", ...}' TOPIC signal|schedule COUNT DEADLINE_S

`signal`: publish_isr() is called in a signal handler: on MicroPython anywhere, with the heap
locked, as in a board's hard interrupt; on CPython between two bytecodes. `schedule`: it is called
in a function of micropython.schedule(), between two bytecodes. Topics: TOPIC/isr has the numbers
of the interrupts, TOPIC/main those of the main program. Events: ["online"], ["offline", error],
["error", error], ["fired", interrupts, those that got False, isr_dropped, unscheduled, published
by the main program], ["bye", stats].
"""

import sys

from control import error_text, leave, read_argument, say

from micropython import schedule
from mqttpipe import MQTTClient, QueueFull, ticks_add, ticks_diff, ticks_ms

PERIOD_US = 1000
IS_CPYTHON = sys.implementation.name == "cpython"


class Interrupts:
    """What an interrupt does. All that it needs is made before."""

    def __init__(self, client, topic, count):
        self.publish_isr = client.publish_isr
        self.topic = topic
        self.payloads = [b"%d" % number for number in range(1, count + 1)]
        self.count = count
        self.fired = 0
        self.refused = 0
        self.unscheduled = 0  # the scheduler's own queue was full
        self.is_at_work = False

    def publish(self, _):
        # On a machine that is late CPython's handlers interrupt each other. A board's do not.
        if self.fired < self.count and not self.is_at_work:
            self.is_at_work = True
            payload = self.payloads[self.fired]
            self.fired += 1
            if not self.publish_isr(self.topic, payload, 1):
                self.refused += 1
            self.is_at_work = False

    def schedule(self, _):
        try:
            schedule(self.publish_bound, 0)
        except RuntimeError:
            self.unscheduled += 1


def every_millisecond(function):
    """Have function(0) called by a signal handler; return a function that ends it."""
    if IS_CPYTHON:
        import signal

        signal.signal(signal.SIGALRM, lambda number, frame: function(0))
        signal.setitimer(signal.ITIMER_REAL, PERIOD_US / 1e6, PERIOD_US / 1e6)
        return lambda: signal.setitimer(signal.ITIMER_REAL, 0)
    import struct

    import ffi

    libc = ffi.open("libc.so.6")
    setitimer = libc.func("i", "setitimer", "iPp")
    # lock=True: the heap is locked and nothing is scheduled meanwhile: a hard interrupt.
    handler = ffi.callback("v", function, "i", lock=True)
    libc.func("p", "signal", "iP")(14, handler)
    libc.func("i", "siginterrupt", "ii")(14, 1)  # what sleeps in the kernel comes back
    setitimer(0, struct.pack("llll", 0, PERIOD_US, 0, PERIOD_US), None)
    keep.append(handler)
    return lambda: setitimer(0, struct.pack("llll", 0, 0, 0, 0), None)


keep = []


def main(options, topic, how, count, deadline_s):
    client = MQTTClient(**read_argument(options))
    client.on_online = lambda c: say("online")
    client.on_offline = lambda c, error: say("offline", error_text(error))
    client.on_error = lambda c, error: say("error", error_text(error))
    client.connect()
    begin_ms = ticks_ms()
    limit_ms = int(deadline_s) * 1000
    while not client.is_online() and ticks_diff(ticks_ms(), begin_ms) < limit_ms:
        client.step(100)
    interrupts = Interrupts(client, (topic + "/isr").encode(), int(count))
    interrupts.publish_bound = interrupts.publish  # a bound method made in time
    function = interrupts.publish if how == "signal" else interrupts.schedule
    end = every_millisecond(function)
    published = 0
    name = (topic + "/main").encode()
    try:
        while interrupts.fired < interrupts.count:
            try:
                client.publish(name, b"%d" % (published + 1), 1)
                published += 1
            except QueueFull:
                pass
            client.step(published % 4)  # it sleeps and it does not
            if ticks_diff(ticks_ms(), begin_ms) > limit_ms:
                say("late")
                break
    finally:
        end()
    say(
        "fired",
        interrupts.fired,
        interrupts.refused,
        client.isr_dropped,
        interrupts.unscheduled,
        published,
    )
    # A cut may come now, and disconnect() drains nothing when it has.
    taken = interrupts.fired - interrupts.refused + published
    end_ms = ticks_add(ticks_ms(), 10_000)
    while client.stats["acknowledged"] < taken and ticks_diff(end_ms, ticks_ms()) > 0:
        client.step(10)
    leave(client, 10_000)


main(*sys.argv[1:])
