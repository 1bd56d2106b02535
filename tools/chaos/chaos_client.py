"""The client of tools/chaos.py: publishes, receives and watches itself. On any Python.

    chaos_client.py '{"every_ms": 20, "clients": [{"uri": ..., "topic": ..., "options": {}}], ...}'

The same file runs on CPython and, compiled, in MicroPython's unix port and on the emulated board.
It has one or more clients in one loop, which calls step(0) again and again. Each
publishes numbered messages to TOPIC/out/QOS and subscribes to TOPIC/in/QOS; to TOPIC/toggle it
subscribes for a second, and not for the next. Beside that, TOPIC/spare gets messages that expire
soon, or are taken back at once: their tokens must end, too.

Orders come as lines of JSON, events go as such; the first argument of an event is the client's
number, from 0:

    ["link", false]   ["quiet"]: publish no more   ["go"]   ["held"]   ["why"]   ["finish"]

    ["online", 0, connections]   ["offline", 0, error]   ["in", 0, qos, [number, ...]]
    ["count", 0, [messages taken at QoS 0, 1, 2], [longest step in us, its states, longest of a
    TLS handshake], times toggled]
    ["off", 0]: UNSUBACK for the toggle has come   ["stray", 0, number]: a message for it, since
    ["held", 0, [numbers at QoS 2 whose exchange has not ended]]
    ["quiet", bytes of heap, open files]: all tokens have ended, all are online, and since then a
    message has come to each filter: the client knows all the topic names that it ever does
    ["why", 0, state, [up to 9 tokens that have not ended]]: why it is not quiet
    ["wrong", 0, text]: what must never be
    ["watchdog", ms, state]: a step that was grossly too long
    ["bye", [stats, ...]]

A step's time has the callbacks of this program in it, and the garbage collections that fall into
it; not those of memory(). The board's clock counts instructions, so nothing else that the machine
does counts, but while the board sleeps: for a millisecond in each connect(), or some more.

It ends with its standard input, so it can't outlive who started it.
"""

import gc
import json
import os
import select

from chaos_shared import FILLING, filling_of, payload_of, read_config, say, waited_us

from mqttpipe import STATE_NAMES, MQTTClient, QueueFull

try:
    from time import ticks_add, ticks_diff, ticks_ms, ticks_us
except ImportError:
    from shim_time import ticks_add, ticks_diff, ticks_ms, ticks_us

SLEEP_MS = 1  # between two steps
FLUSH_MS = 100
TOLD_AT_ONCE = 20
COUNT_MS = 1000
TOGGLE_MS = 1000
SLOW_MS = 250  # a step this long has waited for something: no machine is so slow
WAITED_MAX_AGE_MS = 20
SPARE_EVERY = 20  # messages: each such one goes to TOPIC/spare
SPARE = 3  # in the place of a QoS

TLS_HANDSHAKE = STATE_NAMES.index("TLS_HANDSHAKE")
WAITING = STATE_NAMES.index("WAITING")


def open_files():
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def memory():
    gc.collect()
    return gc.mem_alloc() if hasattr(gc, "mem_alloc") else 0


class Link:
    """The Wi-Fi, as the client sees it."""

    def __init__(self, server):
        self.is_there = True
        self._servers = [tuple(server)] if server else []

    def is_up(self):
        return self.is_there

    def dns_servers(self):
        return self._servers


class Traffic:
    """One client and all that is known of its messages."""

    def __init__(self, number, uri, topic, every_ms, options):
        self.number = number
        self.topic = topic
        self.every_ms = every_ms
        self.out_topics = [("%s/out/%d" % (topic, qos)).encode() for qos in range(3)]
        self.in_topics = ["%s/in/%d" % (topic, qos) for qos in range(3)]
        self.spare_topic = (topic + "/spare").encode()
        self.toggle_filter = topic + "/toggle"
        self.accepted = [0, 0, 0]
        self.tokens = {}  # of what has not ended: token -> 4 * its number + its QoS, or SPARE
        self.turn = self.spares = self.toggles = 0
        self.is_quiet = False
        self.happened = []  # events that are not told yet
        self.came = [[], [], []]  # the same, of messages: numbers by QoS
        self.fresh = set()  # the QoS of those that have come since it settled
        now_ms = ticks_ms()
        self.due_ms = self.flush_ms = self.count_ms = self.toggle_ms = now_ms
        self.toggle_token = 0
        self.is_wanted = self.is_off = False  # the toggle; is_off: UNSUBACK has come
        self.longest_us, self.longest_state = 0, ""
        self.longest_tls_us = 0
        self.is_tls = uri.startswith("mqtts:")
        self.has_failed_in_tls = False  # in this step
        self.waited_us, self.waited_ms = waited_us(), now_ms
        client = self.client = MQTTClient(uri, **options)
        client.on_online = self.on_online
        client.on_offline = self.on_offline
        client.on_published = self.on_published
        client.on_dropped = self.on_dropped
        client.on_message = self.on_stray
        client.on_error = self.on_error
        for qos, topic_filter in enumerate(self.in_topics):
            client.subscribe(topic_filter, self.on_in, qos)
        client.connect()

    def wrong(self, text):
        self.happened.append(("wrong", self.number, text))

    # -- callbacks -------------------------------------------------------------
    # What they tell is said after the step: who reads it may be slow.

    def on_online(self, client):
        self.happened.append(("online", self.number, client.stats["connections"]))

    def on_offline(self, client, error):
        self.has_failed_in_tls = getattr(error, "stage", None) == "TLS"
        text = error and "%s: %s" % (type(error).__name__, error)
        self.happened.append(("offline", self.number, text))
        if text and "Error " in text:  # of Python's: the client's own fault, not the network's
            self.wrong("it ended a connection: " + text)

    # No fault of the chaos is to be told there, and no callback of this program raises.
    def on_error(self, client, error):
        self.wrong("on_error: %s: %s" % (type(error).__name__, error))

    def on_published(self, client, token):
        if self.tokens.pop(token, None) is None:
            self.wrong("on_published for a token that had ended")

    def on_dropped(self, client, token):
        what = self.tokens.pop(token, None)
        if what is None:
            self.wrong("on_dropped for a token that had ended")
        elif what != SPARE:
            self.wrong("message %d of QoS %d was dropped" % (what // 4, what % 4))

    def on_in(self, client, message):
        qos = message.qos
        view = message.view
        head = bytes(view[:8]).split(b" ")[0]
        number = int(head) if head.isdigit() else 0
        is_whole = view[len(head) + 1 :] == memoryview(FILLING)[: filling_of(number)]
        if is_whole and number and message.topic_name == self.in_topics[qos]:
            self.came[qos].append(number)
            self.fresh.add(qos)
        else:
            self.wrong("broken: %s %r" % (message.topic_name, bytes(view[:20])))

    def on_toggle(self, client, message):
        if not self.is_wanted and client.is_done(self.toggle_token):
            self.wrong("a callback after UNSUBACK")

    # What was on its way when the toggle was unsubscribed comes here: who has numbered it knows.
    def on_stray(self, client, message):
        if message.topic_name != self.toggle_filter:
            self.wrong("no callback for " + message.topic_name)
        elif self.is_off:
            self.happened.append(("stray", self.number, int(message.payload)))

    # -- one turn --------------------------------------------------------------

    def work(self):
        """Do one turn; return whether anything happened."""
        now_ms = ticks_ms()
        has_moved = self.step(now_ms)
        if self.happened:
            self.tell(self.happened, ())
        if ticks_diff(now_ms, self.toggle_ms) >= 0:
            self.toggle(now_ms)
        if not self.is_quiet:
            self.publish(now_ms)
        if ticks_diff(now_ms, self.flush_ms) >= 0:
            self.flush(now_ms)
        return has_moved

    def step(self, now_ms):
        if ticks_diff(now_ms, self.waited_ms) > WAITED_MAX_AGE_MS:  # it costs more than a step
            self.waited_us, self.waited_ms = waited_us(), now_ms
        client = self.client
        before = client.state
        begin_us = ticks_us()
        has_moved = client.step(0)
        took_us = ticks_diff(ticks_us(), begin_us)
        is_handshake = self.is_tls and self.was_handshake(before, client.state)
        if took_us > (self.longest_tls_us if is_handshake else self.longest_us):
            took_us -= waited_us() - self.waited_us
            if is_handshake:
                self.longest_tls_us = max(took_us, self.longest_tls_us)
            elif took_us > self.longest_us:
                self.longest_us = took_us
                self.longest_state = "%s > %s" % (STATE_NAMES[before], client.state_name)
                if took_us > 1000 * SLOW_MS:
                    say("watchdog", took_us // 1000, self.longest_state)
        return has_moved

    # Has a step from one state to another to do with the handshake? That is cryptography, which
    # takes its time. On a fast network the whole of it can be in one step.
    def was_handshake(self, before, after):
        if TLS_HANDSHAKE in (before, after) or self.has_failed_in_tls:
            self.has_failed_in_tls = False
            return True
        return (before == WAITING or before < TLS_HANDSHAKE) and TLS_HANDSHAKE < after < WAITING

    def toggle(self, now_ms):
        if self.toggle_token and not self.client.is_done(self.toggle_token):
            return
        self.toggle_ms = ticks_add(now_ms, TOGGLE_MS)
        if self.is_wanted and self.toggle_token:
            self.is_wanted = False
            self.toggle_token = self.client.unsubscribe(self.toggle_filter)
        elif self.toggle_token and not self.is_off:
            self.is_off = True  # and so for a second
            self.happened.append(("off", self.number))
            self.toggles += 1
        elif not self.is_quiet:
            self.is_wanted, self.is_off = True, False
            self.toggle_token = self.client.subscribe(self.toggle_filter, self.on_toggle, 1)

    def publish(self, now_ms):
        if ticks_diff(now_ms, self.due_ms) < 0:
            return
        client = self.client
        qos = self.turn % 3
        number = self.accepted[qos] + 1
        try:
            if self.turn % SPARE_EVERY == SPARE_EVERY - 1 and self.spares <= self.turn:
                self.spares = self.turn + 1
                token = client.publish(self.spare_topic, b"0 ", 1, expiry_s=1)
                self.tokens[token] = SPARE
                is_cancelled = self.turn // SPARE_EVERY % 2
                if is_cancelled and client.cancel(token) and token in self.tokens:
                    self.wrong("cancel() has not told on_dropped")
            else:
                token = client.publish(self.out_topics[qos], payload_of(number), qos)
                self.tokens[token] = 4 * number + qos
                self.accepted[qos] = number
                self.turn += 1
                self.due_ms = ticks_add(now_ms, self.every_ms)
        except (QueueFull, MemoryError):
            self.due_ms = (
                now_ms  # what could not be published while it was full is not made up for
            )

    # Say what the list holds, or so much of it that a full heap has room for: the rest later.
    def tell(self, things, begin):
        try:
            while things:
                if begin:
                    say(*begin, things[:TOLD_AT_ONCE])
                    del things[:TOLD_AT_ONCE]
                else:
                    say(*things[0])
                    del things[0]
        except MemoryError:
            gc.collect()

    def flush(self, now_ms):
        self.flush_ms = ticks_add(now_ms, FLUSH_MS)
        for qos in range(3):
            self.tell(self.came[qos], ("in", self.number, qos))
        if ticks_diff(now_ms, self.count_ms) >= 0:
            self.count_ms = ticks_add(now_ms, COUNT_MS)
            self.count()

    def count(self):
        longest = [self.longest_us, self.longest_state, self.longest_tls_us]
        say("count", self.number, self.accepted, longest, self.toggles)

    def has_settled(self):
        client = self.client
        if self.tokens or not client.is_online() or not client.is_done(self.toggle_token):
            self.fresh.clear()
        return len(self.fresh) == len(self.in_topics)

    # Give back what lists and tables keep of the largest size that they ever had: it is this
    # program's, not the client's, and up to 4 KB on 64 bits.
    def forget_sizes(self):
        if not self.tokens and not self.happened and not any(self.came):
            self.tokens = {}
            self.happened = []
            self.came = [[], [], []]

    def endless(self):
        found = [] if self.client.is_done(self.toggle_token) else [self.toggle_token]
        return (found + sorted(self.tokens))[:9]


class Program:
    """All clients, and the orders."""

    def __init__(self, config, orders):
        self.orders = orders
        self.poll = select.poll()
        self.poll.register(orders, select.POLLIN)
        self.look = getattr(self.poll, "ipoll", self.poll.poll)  # MicroPython's allocates nothing
        self.link = Link(config["dns"])
        self.is_asked = False  # whether it is quiet
        self.clients = []
        for number, each in enumerate(config["clients"]):
            options = dict(each["options"], link=self.link)
            if config["ca"]:
                options["ca"] = config["ca"].encode()
            self.clients.append(
                Traffic(number, each["uri"], each["topic"], config["every_ms"], options)
            )

    def obey(self, order):
        """Return False at the end."""
        if order[0] == "link":
            self.link.is_there = order[1]
        elif order[0] in ("quiet", "go"):
            self.is_asked = order[0] == "quiet"
            for each in self.clients:
                each.is_quiet = self.is_asked
        elif order[0] == "held":
            for each in self.clients:
                held = [what // 4 for what in each.tokens.values() if what % 4 == 2]
                say("held", each.number, held)
        elif order[0] == "why":
            for each in self.clients:
                say("why", each.number, each.client.state_name, each.endless())
        return order[0] != "finish"

    def run(self):
        while True:
            has_moved = False
            for each in self.clients:
                has_moved |= each.work()
            if self.is_asked and all([each.has_settled() for each in self.clients]):
                self.is_asked = False
                for each in self.clients:
                    each.flush(ticks_ms())
                    each.forget_sizes()
                say("quiet", memory(), open_files())
            for _ in self.look(0 if has_moved else SLEEP_MS):
                line = self.orders.readline()
                if not line or not self.obey(json.loads(line)):
                    return self.leave()

    def leave(self):
        begin_ms = ticks_ms()
        for each in self.clients:
            each.is_quiet = True
            each.client.disconnect()
        while any([each.client.state_name != "DOWN" for each in self.clients]):
            for each in self.clients:
                each.work()
            if ticks_diff(ticks_ms(), begin_ms) > 20_000:
                say("wrong", 0, "no end of disconnect()")
                return
        for each in self.clients:
            each.flush(ticks_ms())
            each.count()
        say("bye", [each.client.stats for each in self.clients])


def main():
    """Run in a process; on the board, a Program is made by name."""
    # Unbuffered: a poll does not see what lies in a buffer.
    Program(read_config(), open(0, "rb", 0)).run()


if __name__ == "__main__":
    main()
