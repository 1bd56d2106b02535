"""What the scenarios have in common: orders come as lines on stdin, events go as lines to stdout.

A scenario runs on CPython, with the shim, and on MicroPython: it uses what both have.
"""

import json
import sys

import mqttpipe


def say(*event):
    """Print an event: a line of JSON, a list."""
    print(json.dumps(event))


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
