"""The client against a model of a server, by a stateful machine of hypothesis.

    .venv/bin/python tests/model_check.py                            200 lives
    .venv/bin/python tests/model_check.py --runs 100000 --jobs 2
    .venv/bin/python tests/model_check.py --runs 1000 --seed 4711    the same lives again
    .venv/bin/python tests/model_check.py --protocol 5               lives with MQTT 5.0

A life begins with a filter and some messages under way. Then come steps that hypothesis draws:
what the application calls, what the server sends, keeps back or loses, cuts at any byte (also
where the server has not read all that was written), time that passes or jumps, also across the
wrap of ticks_ms(). A life that fails is shrunk by hypothesis to the fewest steps, and printed as a
program. At the end of each the network is good, and all must come to its end.

What must hold (docs/principle.md, docs/user-guide.md):

- step() raises nothing, and comes to rest; no error of Python's own hides in a lost connection.
- Each token of publish() has one end, on_published or on_dropped, told once; on_published not
  before the server has sent PUBACK or PUBCOMP for it, and at QoS 0 not before it is written.
- A callback has a message of QoS 1 no more often than the server has sent it.
- QoS 1 arrives at least once, QoS 2 once (once more for each session that the server loses
  meanwhile), QoS 0 at most once, unless it was dropped; first arrivals are in order.
- What cancel() has taken back is not sent on another connection.
- No packet identifier stands for two things at once; a message that is sent again has DUP.
- A callback is that of the last subscribe(), its filter matches, and it is not called any more
  when unsubscribe() is done.
- Deadlines: whatever the server owes, step() knows until when it may sleep, and the server is left
  when that has passed; disconnect() ends; what waits and expires is dropped.
- At the end the filters in force at the server are those asked for, and one socket is open.

With MQTT 5.0 the server also gives and takes topic aliases, has a Receive Maximum and a Maximum
Packet Size, refuses messages, and says why it closes. Then also

- no more messages of QoS 1 and 2 than its Receive Maximum, and nothing larger than its maximum;
- what it refuses has its end then, and is not sent again;
- each message comes with its own properties, and with no more time than it had.

tests/portable/test_random_lives.py does less of this in every interpreter, and old_and_new.py
compares with release 0.1. Here lives are shrunk, and more of them are looked at.
"""

import argparse
import collections
import concurrent.futures
import pathlib
import random
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("tools/fuzz", "tests/portable", "tests", "micropython", "cpython_shim")
for part in PARTS:
    if str(ROOT / part) not in sys.path:
        sys.path.insert(0, str(ROOT / part))

import fakes  # noqa: E402
from hypothesis import HealthCheck, Phase, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.stateful import (  # noqa: E402
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from model_server_5 import MORE_BYTES, body_of, packet_of  # noqa: E402
from mqtt_reference import matches  # noqa: E402

import mqttpipe  # noqa: E402
from broker_5 import Ready, Speaks5  # noqa: E402
from old_and_new import (  # noqa: E402
    ANSWERS,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    Broker,
    NoCollector,
)

TIMEOUT_MS = 1000
SLICE_MS = 250
# From the packet that asks for it to the end of a connection without the answer: another deadline
# may have been moved by half a packet, and each is put off by a step.
OWED_MAX_MS = 2 * TIMEOUT_MS + 2 * SLICE_MS
ROUNDS_MAX = 3000
CALM_MS = 600_000
WRAP_MS = 0x40000000
STEPS = 20  # of a life
CHUNK = 1000  # lives of one seed
TOPICS = ("a", "a/b", "long/" + "x" * 40)
FILTERS = ("a/#", "+", "b")  # "b" is refused
# What the server does not send, until it is told otherwise.
WITHHELD = [(kind,) for kind in ANSWERS] + [(), (), (), (PUBACK, PUBREC), (SUBACK, PUBCOMP)]
ASKED_WITH = {CONNECT: CONNACK, PUBREL: PUBCOMP, SUBSCRIBE: SUBACK, UNSUBSCRIBE: UNSUBACK}
ASKED_WITH[PINGREQ] = PINGRESP
SENT = 0x100  # of the flags of a slot


class Server(Broker):
    """The broker of old_and_new.py, which also looks at identifiers, and at what it owes.

    Attributes: owed: (type, identifier) -> since when; in_use: identifier -> what it stands for;
    rest: what is missing of a packet that was sent in part: nothing follows until it is; hears:
    so many more bytes of this connection arrive, what is written after them is lost; written: all
    that has come of it, and what was lost.
    """

    def __init__(self, life):
        self.life = life
        self.clock = life.bench.clock
        self.in_use = {}
        super().__init__(life.bench)

    def _begin(self, connection):
        super()._begin(connection)
        self.owed = {}
        self.rest = b""
        self.hears = 1 << 30
        self.written = b""
        self.has_connect = self.has_ended = False
        self.in_use = {number: what for number, what in self.in_use.items() if what[0] == "m"}

    def _read(self):
        if self.connection is not None:
            self.written += self.connection.from_client
            del self.connection.from_client[self.hears :]
            self.hears -= len(self.connection.from_client)
        return super()._read()

    def lose_session(self):
        self.life.on_session_lost()
        super().lose_session()
        self.in_use = {}

    def _on_packet(self, first_byte, body):
        kind = first_byte & 0xF0
        assert (kind == CONNECT) != self.has_connect, "CONNECT first, and once [MQTT-3.1.0-1, -2]"
        assert not self.has_ended, "something behind DISCONNECT [MQTT-3.14.4-2]"
        self.has_connect = True
        self.has_ended = kind == DISCONNECT
        number = b""
        if kind == PUBLISH:
            qos = first_byte >> 1 & 3
            end = 2 + int.from_bytes(body[:2], "big")
            number = body[end : end + 2] if qos else b""
            payload = body[end + 2 :] if qos else body[end:]
            if qos:
                self.use(number, ("m", payload), first_byte & 8)
                self.owe(PUBACK if qos == 1 else PUBREC, number)
            is_taken = not self.is_to_be_refused(first_byte, number)
            self.life.on_arrival(payload, body[2:end].decode(), qos, first_byte & 1, is_taken)
        else:
            wanted = 2 if kind in (PUBREL, SUBSCRIBE, UNSUBSCRIBE) else 0
            assert first_byte & 15 == wanted, "flags of 0x%02x [MQTT-2.2.2-1]" % first_byte
            if kind in (SUBSCRIBE, UNSUBSCRIBE, PUBREL):
                number = body[:2]
            if kind in (SUBSCRIBE, UNSUBSCRIBE):
                self.use(number, ("f", body[2:]), False)
            if kind in ASKED_WITH:
                self.owe(ASKED_WITH[kind], number)
        super()._on_packet(first_byte, body)

    def is_to_be_refused(self, first_byte, number):
        return False

    def use(self, number, what, is_dup):
        before = self.in_use.setdefault(number, what)
        assert before == what, "identifier %r of %r used for %r" % (number, before, what)
        if before is not what:
            assert is_dup, "%r again, without DUP [MQTT-3.3.1-1]" % (what,)

    def owe(self, kind, number):
        self.owed.setdefault((kind, number), self.clock.now_ms)

    def send(self):
        connection = self.connection
        if connection is None or connection.is_closed or connection.error or self.rest:
            return False
        kept = []
        for packet in self.queue:
            if packet[0] & 0xF0 in self.withheld or kept and kept[0][0] == CONNACK:
                kept.append(packet)
            else:
                connection.send(self.wire(packet))
                self.on_left(packet)
        moved = len(kept) < len(self.queue)
        self.queue = kept
        return moved

    def on_left(self, packet):
        self.tell(packet)
        kind = packet[0] & 0xF0
        number = packet[2:4] if kind not in (CONNACK, PINGRESP) else b""
        if kind != PUBLISH:
            self.owed.pop((kind, number), None)
        if kind in (PUBACK, PUBCOMP, SUBACK, UNSUBACK):
            self.in_use.pop(number, None)

    # The client may know it from now on.
    def tell(self, packet):
        kind = packet[0] & 0xF0
        if kind == PUBLISH:
            body = body_of(packet)
            end = 2 + int.from_bytes(body[:2], "big") + (2 if packet[0] & 6 else 0)
            self.life.times_sent[body[end:]] += 1
        elif kind in (PUBACK, PUBCOMP) and not isinstance(packet, Ready):
            what, payload = self.in_use.get(packet[2:4], (None, None))
            if what == "m":
                self.life.by_payload[payload].is_acknowledged = True

    def send_part(self, count):
        connection = self.connection
        if self.queue and not self.rest and connection and not connection.is_closed:
            self.started = self.queue.pop(0)
            packet = self.wire(self.started)
            count = min(count, len(packet) - 1)
            connection.send(packet[:count])
            self.rest = packet[count:]

    def send_tail(self, count):
        """The last bytes of a connection: a whole packet, perhaps."""
        packets = [(self.rest, self.started)] if self.rest else []
        packets += [(self.wire(packet), packet) for packet in self.queue]
        for data, packet in packets:
            if count > 0:
                self.connection.send(data[:count])
                count -= len(data)
                if count >= 0:
                    self.tell(packet)
        return bool(packets)

    def send_rest(self):
        if self.rest and not self.connection.is_closed:
            self.connection.send(self.rest)
            self.rest = b""
            self.on_left(self.started)


class Server5(Speaks5, Server):
    """With MQTT 5.0.

    Attributes: packet_bytes_max, receive_maximum: its own; flying: identifiers that count for it;
    refused: payloads whose refusal has left, on this connection.
    """

    packet_bytes_max = receive_maximum = 1 << 30

    def _begin(self, connection):
        self.flying = set()
        self.refused = []
        super()._begin(connection)

    def _on_packet(self, first_byte, body):
        size = len(packet_of(first_byte, body))
        assert first_byte == CONNECT or size <= self.packet_bytes_max, "%d bytes [5]" % size
        super()._on_packet(first_byte, body)

    def use(self, number, what, is_dup):
        super().use(number, what, is_dup)
        if what[0] == "m":
            self.flying.add(number)
            assert len(self.flying) <= self.receive_maximum, "%d at once" % len(self.flying)

    def send_tail(self, count):
        self.flying = set()
        return super().send_tail(count)

    def on_left(self, packet):
        kind, number = packet[0] & 0xF0, packet[2:4]
        if isinstance(packet, Ready):
            _, payload = self.in_use.pop(number, (None, None))
            self.refused += [payload] if payload else []
        super().on_left(packet)
        if kind in (PUBACK, PUBCOMP) or isinstance(packet, Ready):
            self.flying.discard(number)


class Message:
    """One that the application has published."""

    def __init__(self, number, topic, payload, qos, retain):
        self.number = number
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.token = None
        self.end = None  # "published" or "dropped"
        self.times = 0  # how often it has arrived
        self.times_max = 1 if qos != 1 else 1 << 30
        self.dropped_on = None  # the connection on which it may still arrive
        self.expires_ms = self.expiry_s = None
        self.is_acknowledged = False  # PUBACK or PUBCOMP has left
        self.is_refused = False  # the server has said so, perhaps to nobody, or is going to


class Link:
    is_there = True

    def is_up(self):
        return self.is_there


BEGIN = dict(
    clean_session=st.sampled_from((False, False, True)),
    keep_alive_s=st.sampled_from((0, 2, 60)),
    packet_bytes_max=st.sampled_from((64, 100, 300)),
    pipe_slots=st.sampled_from((1, 3, 8, 8)),
    in_flight_max=st.sampled_from((1, 3, 8)),
    pipe_bytes_max=st.sampled_from((None, None, 120)),
    offline=st.sampled_from(("refuse", "refuse", "drop_oldest", "latest")),
    before_wrap_ms=st.sampled_from((WRAP_MS - 1000, 0, 700, 3000, 100_000)),
    last_token=st.sampled_from((0, 65270, 0x3FFFFFF8)),
    is_wanted=st.sampled_from((True, True, False)),
)


class Life(RuleBasedStateMachine):
    """The application, the network and the clock: its rules are the steps of a life."""

    bench = None

    @initialize(**BEGIN)
    def begin(self, **drawn):
        self.start(Server, **drawn)

    def start(self, make_server, before_wrap_ms, last_token, is_wanted, **options):
        fakes.gc = mqttpipe.gc = NoCollector
        self.link = Link()
        self.bench = fakes.Bench(
            connect_timeout_ms=TIMEOUT_MS,
            reconnect_min_ms=50,
            reconnect_max_ms=2000,
            now_ms=(WRAP_MS - 1 - before_wrap_ms) % WRAP_MS,
            link=self.link,
            **options,
        )
        self.options = options
        self.client = client = self.bench.client
        client._pipe.last_token = last_token
        self.clock = self.bench.clock
        self.network = self.bench.network
        self.messages = []
        self.by_payload = {}
        self.by_token = {}
        self.first_arrivals = []  # numbers of messages
        self.has_latest = options["offline"] == "latest"
        self.served = {}  # payload -> (topic, qos, is it too large?), in order
        self.received = collections.defaultdict(list)  # who was called -> payloads
        self.times_sent = collections.Counter()  # payload -> how often it has left the server
        self.arrived = set()  # payloads in any of them
        self.again = set()  # (who, payload): it came again, and was another's the first time
        self.lost = set()  # payloads that the server has forgotten
        self.commands = {}  # filter -> (token, QoS or None), the last one
        self.generations = collections.Counter()
        self.unwanted_ms = self.clock.now_ms  # since when; None: it is wanted
        self.server = make_server(self)
        client.on_message = lambda c, message: self.on_message("default", message)
        client.on_published = lambda c, token: self.on_end("published", token)
        client.on_dropped = lambda c, token: self.on_end("dropped", token)
        self.subscribe("a/#", 2, "callback")
        if is_wanted:
            self.want(True)
            self.settle()
            for qos in range(3):
                self.serve("a/b", qos, b"s", 0, 1)
        for qos in (1, 2, 0, 2):
            self.publish("a", qos, 0, None, None, False)

    # -- what the client tells

    def on_end(self, what, token):
        message = self.by_token[token]
        assert message.end is None, "%s, and %s before" % (what, message.end)
        message.end = what
        if what == "dropped":
            self.note_connection(message)
        if what == "published" and message.qos:
            assert message.is_acknowledged, "%r is told without its end" % message.payload
        elif what == "published" and not message.times:
            connection = self.network.connections[-1]
            is_known = connection is self.server.connection
            written = (self.server.written if is_known else b"") + connection.from_client
            assert message.payload in written, "%r is told and not written" % message.payload

    def on_arrival(self, payload, topic, qos, retain, is_taken):
        message = self.by_payload[payload]
        wanted = (message.topic, message.qos, message.retain)
        assert (topic, qos, bool(retain)) == wanted, (topic, qos, retain, wanted)
        connection = self.server.connection
        assert message.dropped_on in (None, connection), "sent after it was dropped: %r" % payload
        # At QoS 2 the server counts what comes again only where it has forgotten the first.
        if not is_taken or qos == 2 and self.is_held_by_server(payload):
            return
        message.times += 1
        assert message.times <= message.times_max, "%r has come twice" % payload
        if message.times == 1:
            self.first_arrivals.append(message.number)

    def note_connection(self, message):
        connections = self.network.connections
        message.dropped_on = connections[-1] if connections else False

    def is_held_by_server(self, payload):
        return payload in self.server.unreleased.values()

    def on_session_lost(self):
        for message in self.messages:
            if message.qos == 2 and message.end is None or message.dropped_on is not None:
                message.times_max += 1
        self.lost.update(one[3] for one in self.server.held)

    def on_message(self, name, message):
        payload = message.payload
        topic, qos, is_large = self.served[payload]
        assert not is_large and (message.topic_name, message.qos) == (topic, qos), payload
        if message.dup and payload in self.arrived and payload not in self.received[name]:
            self.again.add((name, payload))
        self.arrived.add(payload)
        self.received[name].append(payload)
        times_max = self.times_sent[payload] if qos == 1 else 1
        assert self.received[name].count(payload) <= times_max, "%r once more" % payload
        what = payload[:1]
        if what == b"p":
            self.publish(TOPICS[0], qos, 0, None, None, False)
        elif what == b"c" and self.messages:
            self.cancel(0)
        elif what == b"r":
            raise ValueError("by the test")

    def on_filter(self, name, generation):
        def callback(client, message):
            assert matches(name, message.topic_name), (name, message.topic_name)
            assert generation == self.generations[name], "a callback that was replaced"
            token, qos = self.commands[name]
            assert qos is not None or not client.is_done(token), "a callback after UNSUBACK"
            self.on_message((name, generation), message)

        return callback

    # -- going on

    def settle(self):
        """Until nothing moves."""
        for _ in range(ROUNDS_MAX):
            moved = self.client.step()
            moved = self.server.look() or moved
            if not self.server.send() and not moved:
                return
        raise AssertionError("it finds work without end, in " + self.client.state_name)

    def age_ms(self, since_ms):
        return self.clock.ticks_diff(self.clock.now_ms, since_ms)

    def check_time(self):
        """What must have come to an end by now, if step() was called often enough."""
        connection = self.server.connection
        if connection is not None and not connection.is_closed and self.network.connections:
            if connection is self.network.connections[-1]:
                for what, since_ms in self.server.owed.items():
                    assert self.age_ms(since_ms) <= OWED_MAX_MS, (what, self.age_ms(since_ms))
        if self.unwanted_ms is not None and self.age_ms(self.unwanted_ms) > OWED_MAX_MS:
            assert self.client.state_name == "DOWN", self.client.state_name
        for message in self.messages:
            if message.expires_ms is not None and message.end is None:
                pipe = self.client._pipe
                at = pipe.find(message.token)
                waits = (at - pipe.sent) % pipe.size < (pipe.tail - pipe.sent) % pipe.size
                # Not what is on its way: that is not taken back while its connection stands.
                if at >= 0 and waits and not pipe.firsts[at] & SENT:
                    late_ms = self.age_ms(message.expires_ms)
                    assert late_ms < SLICE_MS, "%d ms beyond its expiry" % late_ms

    @invariant()
    def nothing_of_python_is_hidden(self):
        if self.bench is None:
            return
        for event in self.bench.take_events():
            error = event[1] if event[0] in ("offline", "error") else None
            if error is None or isinstance(error, ValueError) and str(error) == "by the test":
                continue
            assert isinstance(error, mqttpipe.MQTTError), repr(error)
            assert "Error " not in str(error), error

    # -- rules: the application

    @rule(
        topic=st.sampled_from(TOPICS),
        qos=st.sampled_from((0, 1, 1, 2, 2)),
        size=st.sampled_from((0, 0, 0, 3, 30, 200)),
        offline=st.sampled_from((None, None, None, None, "refuse", "drop_oldest", "latest")),
        expiry_s=st.sampled_from((None, None, None, None, 1, 5)),
        retain=st.booleans(),
    )
    def publish(self, topic, qos, size, offline, expiry_s, retain):
        number = len(self.messages)
        payload = b"m%d" % number + b"." * size
        message = Message(number, topic, payload, qos, retain)
        if offline == "latest":
            self.has_latest = True
        properties = self.properties_of(message)
        byte_count = len(topic) + len(payload) + self.own_bytes_of(properties)
        packet_bytes = byte_count + 2 + (2 if qos else 0) + self.more_bytes_of(expiry_s)
        packet_bytes += 2 + (packet_bytes > 127)
        bytes_max = self.options["pipe_bytes_max"] or 16 * self.options["packet_bytes_max"]
        fits = packet_bytes <= self.options["packet_bytes_max"] and byte_count <= bytes_max
        self.by_payload[payload] = message
        try:
            token = self.client.publish(
                topic, payload, qos, retain, offline, expiry_s, **properties
            )
        except mqttpipe.QueueFull:
            del self.by_payload[payload]
            return
        except mqttpipe.LocalError:
            assert not fits or self.is_large_for_server(packet_bytes), (packet_bytes, byte_count)
            del self.by_payload[payload]
            return
        assert fits and token not in self.by_token, (packet_bytes, byte_count, token)
        message.token = token
        if expiry_s is not None:
            message.expiry_s = expiry_s
            message.expires_ms = self.clock.ticks_add(self.clock.now_ms, expiry_s * 1000)
        self.messages.append(message)
        self.by_token[token] = message

    # Of MQTT 3.1.1, which has none.
    def properties_of(self, message):
        return {}

    def own_bytes_of(self, properties):
        return 0

    def more_bytes_of(self, expiry_s):
        return 0

    def is_large_for_server(self, packet_bytes):
        return False

    @rule(count=st.integers(2, 9), offline=st.sampled_from((None, None, "drop_oldest", "latest")))
    def publish_many(self, count, offline):
        for number in range(count):
            self.publish(TOPICS[number % 2], (count + number) % 3, 0, offline, None, False)

    @rule(back=st.integers(0, 5))
    def cancel(self, back):
        if back >= len(self.messages):
            return
        message = self.messages[-1 - back]
        try:
            is_taken_back = self.client.cancel(message.token)
        except mqttpipe.QueueFull:
            raise AssertionError("nobody holds the pipe")
        if is_taken_back:
            self.note_connection(message)
        assert self.client.is_done(message.token) or not is_taken_back

    @rule(
        name=st.sampled_from(FILTERS),
        qos=st.integers(0, 2),
        how=st.sampled_from(("callback", "callback", "no callback", "gone", "gone")),
    )
    def subscribe(self, name, qos, how):
        if how == "gone":
            self.commands[name] = self.client.unsubscribe(name), None
            return
        self.generations[name] += 1
        callback = self.on_filter(name, self.generations[name]) if how == "callback" else None
        self.commands[name] = self.client.subscribe(name, callback, qos), qos

    @rule(is_wanted=st.booleans())
    def want(self, is_wanted):
        if is_wanted:
            self.client.connect()
            self.unwanted_ms = None
        else:
            self.client.disconnect()
            if self.unwanted_ms is None:
                self.unwanted_ms = self.clock.now_ms

    # -- rules: time

    @rule(count=st.integers(0, 2))
    def step(self, count):
        for _ in range(count):
            self.client.step()
        if not count:
            self.let_all_move()

    def let_all_move(self):
        self.settle()
        for message in self.messages:
            is_done = self.client.is_done(message.token)
            told = message.payload, is_done, message.end
            assert is_done == (message.end is not None), "%r is done: %s, told as: %s" % told
        owed = self.server.owed and self.server.connection is self.network.connections[-1]
        if owed and not self.server.connection.is_closed:
            deadline_ms = self.client.next_deadline_ms()
            assert deadline_ms is not None and deadline_ms <= OWED_MAX_MS, deadline_ms

    @rule(ms=st.sampled_from((10, 250, 1000, 1001, 3000, 6000, 61_000)))
    def advance(self, ms):
        while ms > 0:
            self.clock.advance(min(ms, SLICE_MS))
            ms -= SLICE_MS
            self.settle()
        self.check_time()

    @rule(ms=st.sampled_from((1, 999, 1001, 60_000, 3_600_000, 200_000_000)), sleeps=st.booleans())
    def jump(self, ms, sleeps):
        """Nobody calls step() for so long, or it sleeps."""
        if sleeps:
            self.client.step(ms)
        else:
            self.clock.advance(ms)
            # The next step() finds what has come meanwhile: all counts from there.
            self.server.owed = dict.fromkeys(self.server.owed, self.clock.now_ms)
        if self.unwanted_ms is not None:
            self.unwanted_ms = self.clock.now_ms
        self.settle()

    # -- rules: the server

    @rule(
        topic=st.sampled_from(TOPICS),
        qos=st.integers(0, 2),
        what=st.sampled_from((b"s", b"s", b"s", b"p", b"r", b"c")),
        size=st.sampled_from((0, 0, 20, 310)),
        count=st.sampled_from((1, 1, 2, 4)),
    )
    def serve(self, topic, qos, what, size, count):
        for _ in range(count):
            self.serve_one(topic, qos, what, size)

    def serve_one(self, topic, qos, what, size):
        payload = b"%s%d" % (what, len(self.served)) + b"." * size
        length = 2 + len(topic) + len(payload) + (2 if qos else 0)
        is_large = self.is_large(length)
        self.served[payload] = topic, qos, is_large
        if is_large and self.is_not_sent_large:
            return
        if len(self.server.held) < 20 and self.server.address is not None:
            self.server.publish(topic, qos, payload, False)
        else:
            self.lost.add(payload)  # nobody was there yet

    is_not_sent_large = False

    def is_large(self, length):
        return length > self.options["packet_bytes_max"] - 2

    @rule(kinds=st.sampled_from(WITHHELD))
    def withhold(self, kinds):
        self.server.withheld = set(kinds)
        self.server.send_rest()

    @rule(count=st.integers(1, 9))
    def send_part(self, count):
        self.server.look()
        self.server.send_part(count)

    # -- rules: the network

    @rule(
        how=st.sampled_from(("reset", "end")),
        credit=st.sampled_from((None, None, 0, 1, 2, 5, 13, 29)),
        hears=st.sampled_from((1 << 30, 1 << 30, 0, 3, 20)),
        tail=st.sampled_from((0, 0, 1, 3, 4, 7)),
        is_lost=st.sampled_from((False, False, False, True)),
    )
    def cut(self, how, credit, hears, tail, is_lost):
        """After `credit` more bytes that the client writes, and `tail` from the server.

        The server reads `hears` of them, the rest is lost. is_lost: the session is.
        """
        connection = self.server.connection
        if connection is None or connection.is_closed:
            return
        if credit is not None:
            connection.write_credit = credit
        self.server.hears = min(hears, self.server.hears)  # no gap: this is TCP
        self.settle()
        if connection is not self.server.connection:
            return
        if tail and not connection.is_closed and self.server.send_tail(tail):
            self.client.step()
        self.server.look()
        self.server.queue = []
        self.server.rest = b""
        self.server.is_accepted = False
        if how == "reset":
            connection.error = fakes.ECONNRESET
        else:
            connection.is_ended = True
        if is_lost:
            self.server.lose_session()

    @rule(
        read_max=st.sampled_from((1, 2, 7, 1 << 20)),
        write_max=st.sampled_from((1, 3, 50, 1 << 20)),
        credit=st.sampled_from((0, 1, 10, 1 << 30, 1 << 30)),
    )
    def narrow(self, read_max, write_max, credit):
        if self.network.connections:
            self.network.connections[-1].read_max = read_max
            self.network.connections[-1].write_max = write_max
            self.network.connections[-1].write_credit = credit

    @rule(what=st.sampled_from(("nothing", "silent", "closed port", "no link", "refused")))
    def disturb(self, what):
        self.server.refusal = 3 if what == "refused" else 0
        self.network.is_silent = what == "silent"
        self.network.connect_error = 111 if what == "closed port" else 0
        self.link.is_there = what != "no link"

    # -- the end

    def teardown(self):
        try:
            if self.bench is not None and sys.exc_info()[0] is None:
                self.finish()
        finally:
            fakes.use_real_parts()

    def finish(self):
        self.withhold(())
        self.disturb("nothing")
        self.narrow(1 << 20, 1 << 20, 1 << 30)
        self.want(True)
        for _ in range(CALM_MS // 1000):
            self.advance(1000)
            if self.client.is_online() and self.is_quiet():
                break
        else:
            undone = [one.payload for one in self.messages if one.end is None]
            raise AssertionError("no end: %s, %r" % (self.client.state_name, undone))
        self.nothing_of_python_is_hidden()
        self.check_arrivals()
        self.check_received()
        wanted = {name: qos for name, (_, qos) in self.commands.items() if qos is not None}
        wanted.pop("b", None)  # which this server refuses
        assert self.server.filters == wanted, "filters: %r, wanted: %r" % (
            self.server.filters,
            wanted,
        )
        pipe = self.client._pipe
        assert pipe.head == pipe.tail and not any(pipe.firsts), pipe.firsts
        is_open = [one for one in self.network.connections if not one.is_closed]
        assert is_open == [self.bench.server], "%d connections are open" % len(is_open)

    def is_quiet(self):
        return (
            all(message.end for message in self.messages)
            and all(self.client.is_done(token) for token, _ in self.commands.values())
            and not self.server.held
        )

    def check_arrivals(self):
        for message in self.messages:
            if message.end == "published" and message.qos:
                assert message.times, "%r was lost" % message.payload
        for key in {self.key_of(message) for message in self.messages}:
            # (What was refused once is behind those that came meanwhile.)
            numbers = [
                one
                for one in self.first_arrivals
                if self.key_of(self.messages[one]) == key and not self.messages[one].is_refused
            ]
            assert numbers == sorted(numbers), "not in order: %r" % numbers

    # What is in order among each other: QoS 1 and 2. "latest" puts a message in another's place.
    def key_of(self, message):
        return message.qos > 0, message.topic if self.has_latest else None

    def check_received(self):
        order = {payload: number for number, payload in enumerate(self.served)}
        for name, payloads in self.received.items():
            firsts = [one for one in dict.fromkeys(payloads) if (name, one) not in self.again]
            for qos in range(3):
                first = [one for one in firsts if self.served[one][1] == qos]
                assert first == sorted(first, key=order.get), "came in disorder: %r" % first
        for payload, (_, qos, is_large) in self.served.items():
            if qos and not is_large and payload not in self.lost:
                assert payload in self.arrived, "%r was lost on its way to us" % payload


BEGIN_5 = dict(
    BEGIN,
    aliases=st.sampled_from((0, 2, 2)),
    receive_maximum=st.sampled_from((None, 1, 2, 5)),
    server_bytes_max=st.sampled_from((None, None, 60)),
    session_expiry_s=st.sampled_from((0, 3600, 0xFFFFFFFF)),
)


class Life5(Life):
    """With MQTT 5.0."""

    is_not_sent_large = True  # it knows our Maximum Packet Size

    @initialize(**BEGIN_5)
    def begin(self, aliases, receive_maximum, server_bytes_max, session_expiry_s, **drawn):
        def make_server(life):
            server = Server5(life)
            server.connack = b""
            if aliases:
                server.connack += b"\x22\x00" + bytes((aliases,))
            if receive_maximum:
                server.receive_maximum = receive_maximum
                server.connack += b"\x21\x00" + bytes((receive_maximum,))
            if server_bytes_max:
                server.packet_bytes_max = server_bytes_max
                server.connack += b"\x27" + server_bytes_max.to_bytes(4, "big")
            return server

        self.start(make_server, protocol=5, session_expiry_s=session_expiry_s, **drawn)

    # One message in three has some.
    def properties_of(self, message):
        if message.number % 3:
            return {}
        return {"properties": {"user_property": [("n", str(message.number))]}}

    def own_bytes_of(self, properties):
        return 6 + len(properties["properties"]["user_property"][0][1]) if properties else 0

    def more_bytes_of(self, expiry_s):
        return 1 if expiry_s is None else 6

    def is_large_for_server(self, packet_bytes):
        return packet_bytes > self.server.packet_bytes_max

    def is_large(self, length):
        length += 1 + MORE_BYTES
        return length + 2 + (length > 127) > self.options["packet_bytes_max"]

    def on_arrival(self, payload, topic, qos, retain, is_taken):
        message = self.by_payload[payload]
        found = self.server.translation.found
        number = b"" if message.number % 3 else b"%d" % message.number
        pair = b"\x00\x01n\x00" + bytes((len(number),)) + number
        assert found.get(0x26, b"") == (pair if number else b""), (payload, found)
        left_s = int.from_bytes(found[0x02], "big") if 0x02 in found else None
        if message.expiry_s is None:
            assert left_s is None, (payload, found)
        else:
            assert left_s and left_s <= message.expiry_s, (payload, found)
        assert not (message.is_refused and message.end), "%r after it was refused" % payload
        message.is_refused = message.is_refused or not is_taken
        super().on_arrival(payload, topic, qos, retain, is_taken)

    def settle(self):
        super().settle()
        server = self.server
        if server.refused and not server.connection.is_closed:
            if not server.connection.to_client and not server.rest and not self.client._is_held:
                for payload in server.refused:
                    assert self.by_payload[payload].end, "%r was refused" % payload

    @rule(count=st.integers(0, 3))
    def refuse(self, count):
        self.server.refusals = count

    @rule(reason_code=st.sampled_from((0x00, 0x81, 0x89, 0x8B, 0x97, 0x9C)))
    def say_goodbye(self, reason_code):
        """The server closes, and says why: 0x9C without the name of another."""
        connection = self.server.connection
        has_greeted = not any(packet[0] == CONNACK for packet in self.server.queue)
        is_there = self.server.is_accepted and has_greeted and not self.server.rest
        if is_there and not connection.is_closed:
            self.server.queue = []
            self.server.is_accepted = False
            connection.send(b"\xe0\x01" + bytes((reason_code,)))
            connection.is_ended = True

    def finish(self):
        self.refuse(0)
        super().finish()


LIVES = {4: Life, 5: Life5}

# ---------------------------------------------------------------------------
# Many lives
# ---------------------------------------------------------------------------


def run_lives(first, count, steps=STEPS, shrinks=True, protocol=4):
    """Run so many lives, drawn from a seed; raises what the first that fails raises."""
    how = settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
        print_blob=False,
        report_multiple_bugs=False,
    )
    machine = seed(first)(type("Life", (LIVES[protocol],), {}))
    run_state_machine_as_test(machine, settings=how)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200, help="lives")
    parser.add_argument("--seed", type=int, help="of the first 1,000 lives; the next has the next")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--protocol", type=int, default=4, choices=LIVES)
    parser.add_argument("--steps", type=int, default=STEPS, help="of a life, at most")
    options = parser.parse_args(arguments)
    if min(options.runs, options.jobs, options.steps) < 1:
        parser.error("--runs, --jobs and --steps must be 1 or more")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    began_s = time.monotonic()
    print("seed %d" % options.seed, flush=True)
    jobs = {}
    failed = 0
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        for number in range((options.runs + CHUNK - 1) // CHUNK):
            count = min(CHUNK, options.runs - CHUNK * number)
            first = options.seed + number
            jobs[pool.submit(run_lives, first, count, options.steps, True, options.protocol)] = (
                first
            )
        for job in concurrent.futures.as_completed(jobs):
            error = job.exception()
            if error:
                failed += 1
                # hypothesis has put the steps behind the message.
                print("seed %d: %s" % (jobs[job], error.__cause__ or error), flush=True)
    took_s = time.monotonic() - began_s
    told = "%d seeds FAILED" % failed if failed else "ok"
    print("%d lives in %.0f s: %s" % (options.runs, took_s, told))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
