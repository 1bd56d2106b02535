"""A server for the fakes that keeps a session, and a full session to be played with it.

`Server` is the other end of fakes.Connection: small, and written from the specification, not from
the client. It counts what it was given, keeps what the client has not acknowledged, and knows what
it owes, and since when: a test asks it by which time a client has to lose patience.

`Play` is an application that uses all that there is (two filters, messages at every QoS both ways,
a ping, unsubscribe, disconnect), and the loop around it. Its turns:

    the application's next call -> step(0) -> the server reads -> it sends one packet -> step(0)

The clock stands still within a turn and goes on by TURN_MS after it, so each packet has a time of
its own. Both ends go on with it when a connection has ended: what has to arrive is looked at last.
"""

import gc

import fake_tls  # noqa: F401  it puts itself into fakes
from fakes import Bench, needs, use_real_parts

import mqttpipe

TURN_MS = 10
TIMEOUT_MS = 500
KEEP_ALIVE_S = 2

# Calls on sockets in a step() of a play, where the server sends one packet between two of them:
# two reads (head, body), one that finds nothing, and a write of all that came of it. When a
# deadline comes it looks a second time, but then the first look has found nothing.
CALLS_MAX = 4

TURNS_MAX = 2000  # a play takes some 60; more is one without end

# What answers the packets of a client: by type, the type that must come.
_ANSWERS = {0x10: 0x20, 0x50: 0x60, 0x60: 0x70, 0x80: 0x90, 0xA0: 0xB0, 0xC0: 0xD0}
CONNACK = 0x20
PUBACK = 0x40
PUBREC = 0x50
PUBCOMP = 0x70
SUBACK = 0x90
UNSUBACK = 0xB0
PINGRESP = 0xD0


class Server:
    """Serves the newest connection that has sent anything.

    Attributes:
        accepted: (qos, payload) of each message that it took.
        held: [packet_id, qos, payload, type that must come] of those that the client still owes
            an acknowledgement for.
        owed: (type, packet identifier) -> since when (ms) this client waits for such a packet.
        limit: after so many bytes it sends no more; None: never.
        mute: packet types that it does not send.
    """

    def __init__(self, bench):
        self.network = bench.network
        self.clock = bench.clock
        self.has_session = False
        self.accepted = []
        self.held = []
        self.limit = None
        self.mute = ()
        self.pongs = 0  # PINGRESPs that have left
        self._last_id = 0
        self._unreleased = []  # identifiers of QoS 2 messages whose PUBREL has not come
        self._begin(None)

    def _begin(self, connection):
        self.connection = connection
        self.buf = b""
        self.queue = []
        self.owed = {}
        self.is_partial = False  # the last packet was sent in part
        self.heard_ms = self.sent_ms = self.clock.now_ms  # last packet from, last byte to it
        self.sent_count = 0

    def look(self):
        """Read what has come, and think of the answers."""
        connections = self.network.connections
        if connections and connections[-1].from_client:
            if connections[-1] is not self.connection:
                self._begin(connections[-1])
            self.buf += self.connection.received()
        while len(self.buf) > 1 and len(self.buf) >= self.buf[1] + 2:
            end = self.buf[1] + 2  # no packet of the play is longer than 127 bytes
            packet, self.buf = self.buf[:end], self.buf[end:]
            self.heard_ms = self.clock.now_ms
            self._on_packet(packet[0] & 0xF0, packet)

    def send(self):
        """Send the next packet, or of it what the limit allows."""
        if not self.queue or self.limit == 0:
            return
        packet = self.queue.pop(0)
        kind = packet[0] & 0xF0
        if kind in self.mute:
            return
        size = len(packet)
        if self.limit is not None:
            size = min(size, self.limit)
            self.limit -= size
        self.connection.send(packet[:size])
        self.sent_count += size
        self.sent_ms = self.clock.now_ms
        self.is_partial = size < len(packet)
        if not self.is_partial:
            self.owed.pop(self._key(kind, packet), None)
            self.pongs += kind == PINGRESP

    def publish(self, qos, payload):
        packet_id = 0
        if qos:
            packet_id = self._last_id = self._last_id + 1
            self.held.append([packet_id, qos, payload, PUBACK if qos == 1 else PUBREC])
        if self.connection:
            self.queue.append(self._publish(packet_id, qos, payload, 0))

    def _publish(self, packet_id, qos, payload, dup):
        body = b"\x00\x02in" + (bytes((packet_id >> 8, packet_id & 0xFF)) if qos else b"")
        return bytes((0x30 | dup | qos << 1, len(body) + len(payload))) + body + payload

    def _key(self, kind, packet):
        if len(packet) < 4 or kind == CONNACK:
            return kind, 0
        return kind, packet[2] << 8 | packet[3]

    def _on_packet(self, kind, packet):
        if kind == 0x30:
            self._on_publish(packet)
            return
        _, packet_id = self._key(kind, packet)
        if kind in (PUBACK, PUBREC, PUBCOMP):
            self._on_ack(kind, packet_id)
        if kind == 0x10:
            self._on_connect(packet[9] & 0x02)
        elif kind == 0x60 and packet_id in self._unreleased:
            self._unreleased.remove(packet_id)
        elif kind == 0xC0:
            self._owe(PINGRESP, b"")
        if kind in (0x60, 0xA0):
            self._owe(_ANSWERS[kind], packet[2:4])
        elif kind == 0x80:
            self._owe(SUBACK, packet[2:4], b"\x02" * self._count_filters(packet))

    def _count_filters(self, packet):
        at = 4
        count = 0
        while at < len(packet):
            at += packet[at + 1] + 3
            count += 1
        return count

    # An answer goes out in turn; the client may wait for it from now on.
    def _owe(self, kind, packet_id, rest=b""):
        body = packet_id + rest
        packet = bytes((kind, len(body))) + body
        self.queue.append(packet)
        self.owed[self._key(kind, packet)] = self.clock.now_ms

    def _on_connect(self, is_clean):
        if is_clean or not self.has_session:
            self.held = []
            self._unreleased = []
        self.queue.append(bytes((CONNACK, 2, self.has_session and not is_clean, 0)))
        self.has_session = not is_clean
        for packet_id, qos, payload, awaited in self.held:  # [MQTT-4.4.0-1]
            if awaited == PUBCOMP:
                self.queue.append(bytes((0x62, 2, packet_id >> 8, packet_id & 0xFF)))
            else:
                self.queue.append(self._publish(packet_id, qos, payload, 0x08))

    def _on_publish(self, packet):
        qos = packet[0] >> 1 & 3
        at = 4 + packet[3]
        if not qos:
            self.accepted.append((0, packet[at:]))
            return
        packet_id = packet[at : at + 2]
        if qos == 1:
            self.accepted.append((1, packet[at + 2 :]))
            self._owe(PUBACK, packet_id)
            return
        number = packet_id[0] << 8 | packet_id[1]
        assert packet[0] & 0x08 or number not in self._unreleased, "again, and without DUP"
        if number not in self._unreleased:  # [MQTT-4.3.3-2], method B
            self._unreleased.append(number)
            self.accepted.append((2, packet[at + 2 :]))
        self._owe(PUBREC, packet_id)

    def _on_ack(self, kind, packet_id):
        for message in self.held:
            if message[0] == packet_id and message[3] == kind:
                if kind == PUBREC:
                    message[3] = PUBCOMP
                else:
                    self.held.remove(message)
                break
        if kind == PUBREC:
            self.queue.append(bytes((0x62, 2, packet_id >> 8, packet_id & 0xFF)))


class NoCollector:
    """For CPython, where nothing is short of memory."""

    def collect():
        pass


class Play:
    """The application, its client on a Bench, and the server.

    Args:
        is_tls: bool. make_server: Server, or one like it. options: of MQTTClient, and of Bench.

    It asserts that no step() makes more than `calls_max` calls on sockets. A board's heap has no
    room for two: let go of one before the next is made, which is best done by a function for each.
    """

    def __init__(self, is_tls=False, make_server=Server, **options):
        needs("qos2")
        if is_tls:
            needs("tls")
        use_real_parts()  # mqttpipe knows those of the last play
        if hasattr(gc, "mem_free"):
            gc.collect()
        else:
            mqttpipe.gc = NoCollector  # which would take longer than all the rest of a play
        options.setdefault("uri", "mqtts://192.0.2.1" if is_tls else "mqtt://192.0.2.1")
        options.setdefault("reconnect_min_ms", 20)
        options.setdefault("packet_bytes_max", 64)
        options.setdefault("pipe_slots", 3)
        options.setdefault("in_flight_max", 2)
        if is_tls:
            options.setdefault("ca", b"\x30\x82der")
        self.is_tls = is_tls
        self.calls_max = CALLS_MAX
        self.bench = Bench(
            clean_session=False,
            keep_alive_s=KEEP_ALIVE_S,
            connect_timeout_ms=TIMEOUT_MS,
            **options,
        )
        self.clock = self.bench.clock
        self.client = self.bench.client
        self.server = make_server(self.bench)
        self.begin_ms = self.clock.now_ms
        self.errors = []  # of on_offline, in order
        self.received = []  # (qos, payload)
        self.noise_count = 0  # messages b"noise": a test's own, not of the play
        self.timeout_ms = 0  # of each step()
        self.is_over = False
        self.on_sent = None  # called when the server has sent, before the client looks
        self._call = None  # the next one of the application
        self.client.on_offline = lambda client, error: self.errors.append(error)
        self.client.on_message = self._on_message

    def _on_message(self, client, message):
        if message.payload == b"noise":
            self.noise_count += 1
        else:
            self.received.append((message.qos, message.payload))

    # What the application does; at each `yield` a turn passes.
    def _script(self):
        client = self.client
        client.subscribe("in", None, 2)
        client.subscribe("x")
        client.connect()
        while not client.is_online():
            yield
        for qos in range(3):
            self.server.publish(qos, b"in %d" % qos)
            for _ in range(2):
                yield
        while self.server.held:
            yield
        for qos in range(3):
            token = client.publish("out", b"out %d" % qos, qos)
            while not client.is_done(token):
                yield
        while not self.server.pongs:
            if client.is_online() and not self.server.owed:
                self.clock.advance(KEEP_ALIVE_S * 1000)
            yield
        token = client.unsubscribe("x")
        while not client.is_done(token) or not client.is_online():
            yield
        client.disconnect()
        while client.state_name != "DOWN":
            yield
        self.is_over = True
        yield

    def steps(self):
        """step() until nothing happens: the clock stands still, or sleeps."""
        network = self.bench.network
        for _ in range(100):
            before = network.calls
            happened = self.client.step(self.timeout_ms)
            calls = network.calls - before
            assert calls <= self.calls_max, "%d calls in one step()" % calls
            if not happened:
                return
        raise AssertionError("step() finds work without end")

    def turn(self):
        """One turn. Returns False when the play is over."""
        if self._call is None:
            self._call = self._script()
        next(self._call)
        self.steps()
        self.bench.events.clear()  # nobody reads them
        if self.timeout_ms:
            self.bench.select.slept.clear()
        self.server.look()
        self.server.send()
        if self.on_sent:
            self.on_sent()
        self.steps()
        self.server.look()
        return not self.is_over

    def go_to(self, at_ms, case):
        """Let time pass until then; the connection must live that long."""
        for ms in (at_ms - self.clock.now_ms - 1, 1):
            if ms > 0:
                self.clock.advance(ms)
                self.steps()
                self.server.look()
                assert not self.errors, (case, self.errors, at_ms - self.clock.now_ms, "ms early")

    def run(self, on_turn=None):
        """Turn after turn to the end; on_turn() is called after each one."""
        for _ in range(TURNS_MAX):
            is_going_on = self.turn()
            if on_turn:
                on_turn()
            if not is_going_on:
                return self
            self.clock.advance(TURN_MS)
        raise AssertionError("it does not end, in " + self.client.state_name)

    def check(self, case):
        """All has arrived as promised, and nothing is left behind."""
        for name, arrived in (("out", self.server.accepted), ("in", self.received)):
            times = [arrived.count((qos, b"%s %d" % (name.encode(), qos))) for qos in range(3)]
            assert len(arrived) == sum(times), (case, arrived)
            assert times[0] <= 1 and times[1] >= 1 and times[2] == 1, (case, name, times)
        bench = self.bench
        assert all(connection.is_closed for connection in bench.network.connections), case
        assert all(lookup.is_closed for lookup in bench.network.lookups), case
        # A poll goes with its socket: one that is there watches the pipe alone.
        client = self.client
        assert client._socket is None, case
        assert client._poll is None or len(client._poll.watched) == 1, case
        if self.is_tls:
            assert client._probe is None and client._raw is None, case
        assert self.timeout_ms or not bench.select.slept, (case, "step(0) has slept")
