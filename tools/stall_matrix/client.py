"""The client of tools/stall_matrix.py: measures each step(0) while a server stalls. On any Python.

This same file runs on CPython and inside MicroPython. Orders come on standard input, events go to
standard output: JSON, one a line. One order "start" begins a cell with a new MQTTClient; "end"
ends it and is answered by "result". By hand:

    $ MICROPYPATH=micropython micropython tools/stall_matrix/client.py
    {"do": "start", "uri": "mqtt://127.0.0.1", "options": {}, "dns_port": null, "ca": null}
    {"do": "publish"}
    {"do": "end"}

What is measured is the wall time of each call of step(0): all that the client does in it,
callbacks (those here only append to a list) and garbage collection included. Orders, output and
sleep lie between the calls. A step that begins or ends in TLS_HANDSHAKE, or has gone through it,
is counted apart: that is cryptography, in which nobody waits for the network, but which takes its
time.

It ends with its standard input, so it can't outlive who started it.
"""

import gc
import json
import select
import sys

from mqttpipe import STATE_NAMES, MQTTClient, QueueFull

try:
    from time import ticks_diff, ticks_us
except ImportError:
    from shim_time import ticks_diff, ticks_us

SLEEP_MS = 1  # between two steps

DOWN = STATE_NAMES.index("DOWN")
TLS_HANDSHAKE = STATE_NAMES.index("TLS_HANDSHAKE")
WAITING = STATE_NAMES.index("WAITING")

# What must come to the server, whatever happens: (payload, QoS).
MESSAGES = ((b"one", 1), (b"two", 2))
TOPIC_NAME = b"stall/out"

# A flood is of QoS 0 and leaves room in the pipe for those messages. As much as no kernel's
# buffer takes, and a payload that is written from where it lies, not copied first.
FLOOD_PAYLOAD = bytes(900)
FLOOD_WAITING_MAX = 14
FLOOD_BYTES_MAX = 32_000_000
FULL_AFTER_MS = 30  # nothing of it was taken for so long: all buffers on the way are full


def tell(event, **details):
    details["event"] = event
    print(json.dumps(details))


class Link:
    """A link that is up and knows one DNS server."""

    def __init__(self, dns_port):
        self._server = ("127.0.0.1", dns_port)

    def is_up(self):
        return True

    def dns_servers(self):
        return [self._server]


class Cell:
    """One client, which connects, and what is known of its steps."""

    def __init__(self, order):
        options = order["options"]
        if order["ca"]:
            options["ca"] = order["ca"].encode()
        if order["dns_port"]:
            options["link"] = Link(order["dns_port"])
        client = self.client = MQTTClient(order["uri"], **options)
        client.on_online = self._on_online
        client.on_offline = self._on_offline
        client.on_message = self._on_message
        client.on_published = self._on_published
        client.on_error = self._on_error
        client.subscribe("stall/in", qos=2)
        self._happened = []  # what callbacks have seen and tell() has not told yet
        self._to_publish = []
        self._tokens = {}  # token -> payload
        self._is_flooding = False
        self._flood_waiting = self._flood_bytes = 0
        self._flood_moved_us = 0  # ticks_us() when the socket took one last
        self._is_ending = False
        self.step_count = 0
        self._is_tls = order["ca"] is not None
        self._has_failed_in_tls = False  # in this step
        self._worst_us = self._worst_tls_us = 0
        self._worst_at = (DOWN, DOWN)  # state before and after
        self._begin_us = ticks_us()
        client.connect()

    def obey(self, order):
        what = order["do"]
        if what == "publish":
            self._to_publish = list(MESSAGES)
        elif what == "flood":
            self._is_flooding = True
        elif what == "unsubscribe":
            self.client.unsubscribe("stall/in")
        elif what == "connect":
            self.client.connect()
        elif what == "disconnect":
            self.client.disconnect()
        elif what == "end":
            self._is_flooding = False
            self._is_ending = True
            self.client.disconnect()

    def work(self):
        """One step, and what belongs around it. False when the cell is over."""
        client = self.client
        before = client.state
        begin_us = ticks_us()
        client.step(0)
        step_us = ticks_diff(ticks_us(), begin_us)
        after = client.state
        self.step_count += 1
        if self._is_tls and self._was_handshake(before, after):
            self._has_failed_in_tls = False
            if step_us > self._worst_tls_us:
                self._worst_tls_us = step_us
        elif step_us > self._worst_us:
            self._worst_us = step_us
            self._worst_at = (before, after)
        while self._happened:
            event, details = self._happened.pop(0)
            tell(event, **details)
        if self._to_publish or self._is_flooding:
            self._publish()
        return not self._is_ending or after != DOWN

    # Has a step from one state to another to do with the handshake? On a fast network the whole
    # of it can be in one.
    def _was_handshake(self, before, after):
        if TLS_HANDSHAKE in (before, after) or self._has_failed_in_tls:
            return True
        is_before = before == WAITING or before < TLS_HANDSHAKE
        return is_before and TLS_HANDSHAKE < after < WAITING

    def result(self):
        before, after = self._worst_at
        tell(
            "result",
            steps=self.step_count,
            worst_us=self._worst_us,
            worst_at=STATE_NAMES[before] + (">" + STATE_NAMES[after] if after != before else ""),
            worst_tls_us=self._worst_tls_us,
        )

    def _publish(self):
        client = self.client
        try:
            while self._to_publish:
                payload, qos = self._to_publish[0]
                self._tokens[client.publish(TOPIC_NAME, payload, qos)] = payload
                self._to_publish.pop(0)
                if not self._to_publish:
                    tell("queued")
        except QueueFull:
            return  # step() makes room, sooner or later
        if self._is_flooding:
            if self._flood_waiting < FLOOD_WAITING_MAX:
                self._flood()
            elif ticks_diff(ticks_us(), self._flood_moved_us) > 1000 * FULL_AFTER_MS:
                self._is_flooding = False
                tell("full")

    def _flood(self):
        self._flood_moved_us = ticks_us()
        while self._flood_waiting < FLOOD_WAITING_MAX:
            self.client.publish(TOPIC_NAME, FLOOD_PAYLOAD)
            self._flood_waiting += 1
            self._flood_bytes += len(FLOOD_PAYLOAD)
        if self._flood_bytes >= FLOOD_BYTES_MAX:
            self._is_flooding = False
            tell("drained")  # the server takes it all

    # -- callbacks: told after the step ----------------------------------------

    def _on_online(self, client):
        self._happened.append(("online", {}))

    def _on_offline(self, client, error):
        self._is_flooding = False
        details = {
            "kind": type(error).__name__ if error else "none",
            "stage": getattr(error, "stage", None),
            "errno": getattr(error, "errno", None),
            "return_code": getattr(error, "return_code", None),
            "text": str(error),
            # By our own clock: whoever reads this may be late by many milliseconds.
            "attempt_ms": ticks_diff(ticks_us(), self._begin_us) / 1000,
        }
        if details["stage"] == "TLS":
            self._has_failed_in_tls = True
        if not self._is_ending:
            self._happened.append(("offline", details))

    def _on_message(self, client, message):
        if message.qos == 2:  # not that of a flood
            self._happened.append(("message", {"size": len(message.view), "qos": message.qos}))

    def _on_published(self, client, token):
        payload = self._tokens.get(token)
        if payload is None:
            self._flood_waiting -= 1
        else:
            self._happened.append(("published", {"payload": payload.decode()}))

    def _on_error(self, client, error):
        self._happened.append(("complaint", {"text": "%s: %s" % (type(error).__name__, error)}))


def main():
    # Unbuffered: a poll does not see what lies in a buffer.
    orders = open(0, "rb", 0)
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    look = getattr(poll, "ipoll", poll.poll)  # MicroPython's allocates nothing
    cell = None
    tell("ready", python=sys.implementation.name)
    while True:
        is_ordered = False
        for _ in look(SLEEP_MS if cell else -1):
            is_ordered = True
        if is_ordered:
            line = orders.readline()
            if not line:
                return
            order = json.loads(line)
            if order["do"] == "start":
                # The garbage of the cell before is not this one's.
                cell = None
                gc.collect()
                cell = Cell(order)
                tell("started")
            elif cell:
                cell.obey(order)
        if cell and not cell.work():
            cell.result()
            cell = None


main()
