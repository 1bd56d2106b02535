"""What the scenarios have in common: orders come as lines on stdin, events go as lines to stdout.

A scenario runs on CPython, with the shim, and on MicroPython: it uses what both have.

Importing this sets a watchdog on step(): ["watchdog", ms, state_name] is said of each
step(timeout_ms) of any client that came back `ms`, more than SLOW_MS, after its timeout. What TLS
computes counts, and the garbage collector, and what callbacks do; but not say(), which may have
to wait for the reader of its lines, nor the time in which the system gave the processor to
others. ends.py looks whether the machine itself stood still, and else fails the test.
"""

import json
import os
import sys

import mqttpipe

try:
    import hostnet
except ImportError:
    hostnet = None

SLOW_MS = 50

_US_MASK = 0x3FFFFFFF  # small integers on 32 bits; 17 minutes
_WAITED_MAX_AGE_US = 20_000
_watch = [0, 0, 0]  # us: spent in say() since ever; waited_us(), and when that was read

if sys.implementation.name == "cpython":
    import time

    def now_us():
        return time.perf_counter_ns() // 1000 & _US_MASK

else:
    from time import ticks_us as now_us


def say(*event):
    """Print an event: a line of JSON, a list."""
    begin_us = now_us()
    print(json.dumps(event))
    _watch[0] = _watch[0] + now_us() - begin_us & _US_MASK


def waited_us():
    """For how long this process could have run, since ever, but others had the processor."""
    files = ["/proc/self/schedstat"]
    if hostnet:  # each call of a socket waits for lwIP's thread
        files = ["/proc/self/task/%s/schedstat" % task for task in os.listdir("/proc/self/task")]
    waited = 0
    for name in files:
        try:
            with open(name) as file:
                waited += int(file.read().split()[1]) // 1000
        except OSError:  # not Linux, or a thread that has ended
            pass
    return waited & _US_MASK


def open_files():
    """Return the numbers of what this process has open; of the ESP32's sockets: those of lwIP."""
    if hostnet:
        return hostnet.sockets()
    return sorted([int(name) for name in os.listdir("/proc/self/fd")])


_step = mqttpipe.MQTTClient.step


def _watched_step(client, timeout_ms=0):
    begin_us = now_us()
    if begin_us - _watch[2] & _US_MASK > _WAITED_MAX_AGE_US:  # it costs more than a step
        _watch[1] = waited_us()
        _watch[2] = begin_us = now_us()
    said_us = _watch[0]
    try:
        return _step(client, timeout_ms)
    finally:
        late_us = (now_us() - begin_us & _US_MASK) - (_watch[0] - said_us & _US_MASK)
        late_us -= timeout_ms * 1000
        if late_us > SLOW_MS * 1000:
            late_us -= waited_us() - _watch[1] & _US_MASK
            if late_us > SLOW_MS * 1000:
                say("watchdog", late_us // 1000, client.state_name)


mqttpipe.MQTTClient.step = _watched_step


def read_argument(text):
    """Return what a command-line argument says, in JSON; "@name" means the file of that name."""
    if text.startswith("@"):
        with open(text[1:], "r") as file:
            text = file.read()
    return json.loads(text)


class Control:
    """The orders, and the time when the scenario ends whatever happens.

    A line is a JSON list: the order's name and its arguments. At the end of stdin, and when the
    time is over, the order is ["quit"].
    """

    def __init__(self, deadline_ms):
        # The file below CPython's buffer: what has been read ahead would be invisible to poll.
        stdin = sys.stdin.buffer
        self.stdin = getattr(stdin, "raw", stdin)
        self.poll = mqttpipe.select.poll()
        self.poll.register(self.stdin, mqttpipe.select.POLLIN)
        self.begin_ms = mqttpipe.ticks_ms()
        self.deadline_ms = deadline_ms

    def next_order(self):
        """Return an order, or None if there is none now."""
        if mqttpipe.ticks_diff(mqttpipe.ticks_ms(), self.begin_ms) > self.deadline_ms:
            say("late")
            return ["quit"]
        for _ in self.poll.ipoll(0):
            line = self.stdin.readline()
            return json.loads(line) if line else ["quit"]
        return None


def error_text(error):
    return None if error is None else "%s: %s" % (type(error).__name__, error)


def leave(client, timeout_ms=5000):
    """Disconnect in good order, and say what the client counted."""
    client.disconnect()
    begin_ms = mqttpipe.ticks_ms()
    while client.state_name != "DOWN":
        client.step(5)
        if mqttpipe.ticks_diff(mqttpipe.ticks_ms(), begin_ms) > timeout_ms:
            say("stuck", client.state_name)
            return
    say("bye", client.stats)
