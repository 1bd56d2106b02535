"""The program of tools/soak.py, on MicroPython: a device that lives for months, in minutes.

    main(uri, dns_port, rounds, wraps, first_ms, leak_bytes)

rounds, wraps: as many of both at least. first_ms: what ticks_ms() is at the begin. leak_bytes: so
many are kept in each round, to see that it is noticed.

A round lasts an hour, or longer. It has its pings, one or two faults, bursts of messages at every
QoS that the server sends back to us, and at its end a sample of the heap. Time passes as ever
while an answer may come, and is put forward while nothing can happen before the client's next
deadline: so the server may be a real one. The round before a wrap of ticks_ms() ends just before
it, and the wrap falls into one more fault.

Events, lines of JSON: ["sample", minutes, wraps, free bytes, connections], behind which
MicroPython's own mem_info() follows; ["wrap", number, what went on]; ["again", topic, number] for
a message that came once more; ["error", text, doing] of each end of a connection, doing: what it
may come of, None if that is nothing; ["failed", text];
["end", counts]. An order to the other side is ["ask", word, ...]: it answers with a line.
"""

import gc
import json
import sys
from time import advance, ticks_add, ticks_diff, ticks_ms

import utime

import micropython
import mqttpipe

# As docs/troubleshooting.md advises: without it a heap of this size is in pieces soon, and none of
# them may be large enough for a DNS answer.
gc.threshold(16384)

HOUR_MS = 3_600_000
KEEP_ALIVE_MS = 60_000  # the client's own
PERIOD_MS = 1 << 30  # of ticks_ms(): an object of the heap, used in no step

# A fault begins so long before a wrap. What is due in the last seconds before it is late: the
# program is busy elsewhere until the wrap is over. Else it comes back late by up to LATE_MS.
BEFORE_WRAP_MS = 12_000
NEAR_WRAP_MS = PERIOD_MS - 10_000
LATE_MS = 15

# Milliseconds of the real clock: for how long an answer of the server may take; the same while it
# is known to say nothing; for how long anything at all may take that has to come.
PATIENCE_MS = 5_000
SILENT_PATIENCE_MS = 20
SETTLED_MS = 5  # nothing more is under way
REAL_DEADLINE_MS = 60_000

BURST = 5  # messages of each QoS
QUEUED = 3  # that wait while there is no connection
PAYLOAD = b"0123456789abcdef" * 12
IN_FIRST = 50_000_001  # the other end's numbers begin here; see the Witness of tools/soak.py

AT_WRAP = ("stall", "silence", "refusal", "queue", "cut", "night", "names", "restart", "idle")


def say(*event):
    print(json.dumps(event))


def ask(*order):
    say("ask", *order)
    sys.stdin.readline()


class Failed(Exception):
    pass


class Link:
    """The network, which is always up; it knows the DNS server."""

    def __init__(self, port):
        self.servers = [("127.0.0.1", port)]

    def is_up(self):
        return True

    def dns_servers(self):
        return self.servers


class Book:
    """The messages of one topic name, numbered: they come in order, and none lacks."""

    def __init__(self, first=1, may_lack=False):
        self.last = first - 1
        self.may_lack = may_lack

    def enter(self, name, number):
        if number <= self.last:
            say("again", name, number)
        elif number > self.last + 1 and not self.may_lack:
            raise Failed("%s: %d came behind %d" % (name, number, self.last))
        else:
            self.last = number


class Device:
    def __init__(self, uri, dns_port):
        self.client = client = mqttpipe.MQTTClient(
            uri,
            client_id="soak",
            clean_session=False,
            link=Link(dns_port),
            pipe_slots=16,
        )
        self.sent = [0, 0, 0]  # the last number of each QoS
        self.sent_in = IN_FIRST - 1
        self.books = {"soak/in/1": Book(IN_FIRST), "soak/in/2": Book(IN_FIRST)}
        for qos in range(3):
            self.books["soak/out/%d" % qos] = Book(1, qos == 0)
        self.pending = []  # tokens
        self.dropped = 0  # tokens of on_dropped
        self.ends = 0  # of connections and of attempts
        self.extra = None  # the payload that came for the filter of the hour
        self.failure = None  # raised in a callback
        self.is_silent = self.is_awaited = False
        self.wraps = 0  # of ticks_ms(), and what it was the last time
        self.last_ms = ticks_ms()
        self.doing = None
        client.on_message = self.on_message
        client.on_published = self.on_published
        client.on_dropped = self.on_dropped
        client.on_offline = self.on_offline
        client.on_error = self.on_error
        client.subscribe("soak/out/+", None, 2)
        client.subscribe("soak/in/+", None, 2)
        client.connect()

    # -- callbacks -----------------------------------------------------------------

    def on_message(self, client, message):
        name = message.topic_name
        try:
            self.books[name].enter(name, int(bytes(message.view).split(b" ")[0]))
        except Failed as error:
            self.failure = error

    def on_extra(self, client, message):
        self.extra = message.payload

    def on_published(self, client, token):
        if token in self.pending:
            self.pending.remove(token)
        else:
            self.failure = Failed("token %d has ended and was not there" % token)

    def on_dropped(self, client, token):
        self.dropped += 1
        self.on_published(client, token)

    def on_offline(self, client, error):
        self.ends += 1
        text = "-" if error is None else "%s: %s" % (type(error).__name__, error)
        say("error", text, "disconnect()" if error is None else self.doing)

    def on_error(self, client, error):
        self.failure = Failed("on_error: %s: %s" % (type(error).__name__, error))

    # -- time ------------------------------------------------------------------------

    # For how long something may come of the server's now, in real time.
    def patience_ms(self):
        name = self.client.state_name
        if name in ("DOWN", "WAITING") or name == "ONLINE" and not self.is_awaited:
            return 0
        return SILENT_PATIENCE_MS if self.is_silent else PATIENCE_MS

    # One turn of a program's loop. If nothing happens the clock is put forward to the client's
    # next deadline, by left_ms at most.
    def turn(self, left_ms):
        client = self.client
        happened = client.step(self.patience_ms())
        if self.failure:
            raise self.failure
        if not happened:
            now_ms = ticks_ms()
            due_ms = client.next_deadline_ms()
            if due_ms is None or due_ms > left_ms:
                due_ms = left_ms
            if now_ms + due_ms >= NEAR_WRAP_MS:
                due_ms = PERIOD_MS - now_ms
            advance(due_ms + (now_ms & LATE_MS))
        if ticks_ms() < self.last_ms:
            self.wraps += 1
            say("wrap", self.wraps, self.doing)
        self.last_ms = ticks_ms()
        return happened

    def rest(self, ms):
        """Let time pass, with nothing under way but what the client does by itself."""
        end_ms = ticks_add(ticks_ms(), ms)
        client = self.client
        sent = client.stats["packets_sent"]
        received = heard = client.stats["packets_received"]
        ends = self.ends
        was_online = client.is_online()
        while True:
            left_ms = ticks_diff(end_ms, ticks_ms())
            if left_ms <= 0:
                break
            if not self.turn(left_ms):
                self.is_awaited = False
                continue
            before, before_heard = sent, heard
            sent = client.stats["packets_sent"]
            heard = client.stats["packets_received"]
            # A PINGREQ has left: its answer comes in a moment; perhaps behind something else, on
            # a busy machine.
            if sent != before:
                self.is_awaited = True
            elif heard != before_heard:
                self.is_awaited = False
        self.is_awaited = False
        if was_online and ends == self.ends:
            received = client.stats["packets_received"] - received
            if received < ms // KEEP_ALIVE_MS - 1:
                raise Failed("%d pings in %d ms, and the connection lives" % (received, ms))

    def until(self, condition, what):
        begin_ms = utime.ticks_ms()
        self.is_awaited = True
        while not condition():
            self.turn(HOUR_MS)
            if ticks_diff(utime.ticks_ms(), begin_ms) > REAL_DEADLINE_MS:
                raise Failed("%s: never; %s" % (what, self.client.state_name))
        self.is_awaited = False

    # -- what a device does ----------------------------------------------------------

    def publish(self, qos, expiry_s=None):
        number = self.sent[qos] + 1
        payload = b"%d " % number + PAYLOAD[: number % 190]
        if expiry_s is None:
            self.sent[qos] = number
        token = self.client.publish("soak/out/%d" % qos, payload, qos, expiry_s=expiry_s)
        self.pending.append(token)
        return token

    def is_settled(self):
        books = self.books
        return (
            not self.pending
            and self.client.is_online()
            and books["soak/out/1"].last == self.sent[1]
            and books["soak/out/2"].last == self.sent[2]
            and books["soak/in/1"].last == books["soak/in/2"].last == self.sent_in
        )

    def settle(self):
        self.until(self.is_settled, "not all messages are back")
        while self.client.step(SETTLED_MS):  # the last acknowledgements, and QoS 0
            pass

    def burst(self):
        for _ in range(BURST):
            for qos in range(3):
                self.publish(qos)
                self.turn(0)
        self.settle()

    def wait_for(self, token):
        self.until(lambda: self.client.is_done(token), "no answer for a filter")

    # A filter that never was before, and is taken back.
    def change_filters(self, number):
        client = self.client
        topic = "soak/extra/%d" % number
        self.extra = None
        self.wait_for(client.subscribe(topic + "/+", self.on_extra, number % 3))
        self.pending.append(client.publish(topic + "/x", b"there", 1))
        self.until(lambda: self.extra == b"there", "nothing for the new filter")
        self.wait_for(client.unsubscribe(topic + "/+"))
        self.pending.append(client.publish(topic + "/x", b"gone", 1))
        self.burst()
        if self.extra != b"there":
            raise Failed("a message after UNSUBACK: %r" % self.extra)

    # -- faults ------------------------------------------------------------------------

    def fault(self, what, number):
        client = self.client
        self.doing = what
        if what == "idle":
            self.rest(3 * KEEP_ALIVE_MS)
        elif what == "cut":  # now, and the next connection after some bytes, up or down
            ask("cut", ("RST", "FIN", "VANISH")[number % 3], number & 1, number * 397 % 1700)
            for _ in range(BURST):
                for qos in range(3):
                    self.publish(qos)
                    self.turn(0)
        elif what == "silence":  # the keep alive notices it
            self.is_silent = True
            ask("stall")
            self.rest(5 * KEEP_ALIVE_MS)
        elif what == "stall":  # the acknowledgements do
            self.is_silent = True
            ask("stall")
            for qos in range(3):
                self.publish(qos)
            ends = self.ends
            self.rest(KEEP_ALIVE_MS - 1)
            if ends == self.ends:
                raise Failed("no acknowledgement, and the connection lives")
        elif what == "refusal":  # attempts in vain, each after a longer pause
            ask("refuse")
            ask("cut", "RST")
            self.rest(20 * KEEP_ALIVE_MS)
        elif what == "queue":  # messages wait meanwhile; one expires, one is taken back
            ask("refuse")
            ask("cut", "FIN")
            self.until(lambda: not client.is_online(), "a cut is not noticed")
            for _ in range(QUEUED):
                for qos in range(1, 3):
                    self.publish(qos)
            dropped = self.dropped
            self.publish(1, 30)
            self.publish(2, 3600)
            self.rest(BEFORE_WRAP_MS)
            if not client.cancel(self.pending[-1]):
                raise Failed("a message that waits was not taken back")
            self.rest(10 * KEEP_ALIVE_MS)
            if self.dropped != dropped + 2:
                raise Failed("%d of 2 messages were dropped" % (self.dropped - dropped))
        elif what == "night":  # off, while messages come for us
            client.disconnect()
            self.until(lambda: client.state_name == "DOWN", "no end after disconnect()")
            ask("publish", self.sent_in + 1, self.sent_in + QUEUED)
            self.sent_in += QUEUED
            self.rest(6 * HOUR_MS)
            client.connect()
        elif what == "names":  # the DNS server says nothing of use
            ask("dns", ("failure", "junk", "no_such_name")[number % 3])
            self.is_silent = True
            ask("cut", "RST")
            self.rest(10 * KEEP_ALIVE_MS)
        elif what == "restart":
            ask("restart")
        ask("resume")
        self.is_silent = False
        self.settle()
        self.doing = None

    def round(self, number):
        begin_ms = ticks_ms()
        if number % 3 == 0:
            self.change_filters(number)
        for what, every, at in (
            ("cut", 2, 1),
            ("silence", 8, 2),
            ("refusal", 8, 4),
            ("stall", 8, 6),
            ("queue", 12, 5),
            ("names", 12, 8),
            ("restart", 24, 3),
            ("night", 24, 0),
        ):
            if number % every == at:
                self.fault(what, number)
        self.burst()
        self.rest(HOUR_MS - ticks_diff(ticks_ms(), begin_ms))
        wrap_ms = PERIOD_MS - ticks_ms()
        if BEFORE_WRAP_MS < wrap_ms < HOUR_MS:
            self.rest(wrap_ms - BEFORE_WRAP_MS)
            self.fault(AT_WRAP[self.wraps % len(AT_WRAP)], number)
            self.rest(BEFORE_WRAP_MS)


def deep(depth):
    return depth and deep(depth - 1)


def main(uri, dns_port, rounds, wraps, first_ms, leak_bytes):
    advance(ticks_diff(first_ms, ticks_ms()) & PERIOD_MS - 1)
    device = Device(uri, dns_port)
    leaked = []
    number = 0
    try:
        device.until(device.client.is_online, "not online")
        while number < rounds or device.wraps < wraps:
            number += 1
            device.round(number)
            if leak_bytes:
                leaked.append(bytearray(leak_bytes))
            # Behind two looks of the collector, and with a C stack that holds no address of what
            # is gone.
            deep(30)
            gc.collect()
            gc.collect()
            free = gc.mem_free()
            minutes = (device.wraps * PERIOD_MS + ticks_ms() - first_ms) // 60_000
            say("sample", minutes, device.wraps, free, device.client.stats["connections"])
            micropython.mem_info()
        device.client.disconnect()
        device.until(lambda: device.client.state_name == "DOWN", "no end after disconnect()")
        counts = device.client.stats
        counts.update({"out": device.sent, "last_in": device.sent_in, "rounds": number})
        say("end", counts)
    except Failed as error:
        say("failed", "round %d, %s: %s" % (number, device.doing or "in service", error))
        sys.exit(1)
