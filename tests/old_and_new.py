"""Drive the client of release 0.1 and the present one through the same life, and compare.

    python3 tests/old_and_new.py                     1,000 lives
    python3 tests/old_and_new.py --runs 100000 --jobs 2
    python3 tests/old_and_new.py --seed 4711         one life, told action by action
    python3 tests/old_and_new.py --new ROOT          the client of another checkout

A life is a list of actions, made from its seed: calls of the application, packets and silences
of the server, cuts at a byte, time that passes. Both clients get each of them, on a clock, a
network and a server of their own (tests/portable/fakes.py, and `Broker` below). Then both ends go
on until nothing moves any more, and these must be equal:

- the state, and the tokens that are not done;
- what the application was told, in order, for each kind of event;
- what the server was told, in order: messages with PUBREL, acknowledgements, filters, the rest.

How packets share a write is not compared, nor which of two kinds was first. Texts of errors and
packet identifiers are the client's own business, too. A difference that is meant is named in one
of the tables ALLOWED..., and counted. Some end the comparison of single actions; what a life must
come to holds all the same: every message is there, in order, QoS 2 once, every token ends, and
the filters in force are the same.

Release 0.1 is kept beside this file, release_0_1.zip, with its fakes and its shim: so a shallow
clone has it, too, and neither has to fit the present one.
"""

import argparse
import collections
import concurrent.futures
import importlib
import pathlib
import random
import sys

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
OLD = TESTS / "release_0_1.zip"
PARTS = ("micropython", "cpython_shim", "tests/portable")  # of a checkout
PREFIXES = ("mqttpipe", "fakes", "shim_")  # modules that each client has of its own

SLOTS = 8
IN_FLIGHT_MAX = 3
PACKET_BYTES_MAX = 100
TIMEOUT_MS = 1000
ROUNDS_MAX = 3000  # of one action; more is one without end
SLICE_MS = 250
CALM_MS = 600_000  # in which a life has to come to its end

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(0x10, 0x80, 0x10)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(0x80, 0xF0, 0x10)
ANSWERS = (CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP)

TOPICS = ("a", "a/b", "a/c", "long/" + "x" * 40)
FILTERS = ("a", "a/+", "a/#", "#", "long/#", "b")

# What a server may not send, or what a client need not mind: name -> bytes.
ODD = {
    "PUBACK that nothing waits for": b"\x40\x02\x7f\xff",
    "PUBREC that nothing waits for": b"\x50\x02\x7f\xff",
    "PUBCOMP that nothing waits for": b"\x70\x02\x7f\xff",
    "SUBACK that nothing waits for": b"\x90\x03\x7f\xff\x00",
    "UNSUBACK that nothing waits for": b"\xb0\x02\x7f\xff",
    "PINGRESP that nothing waits for": b"\xd0\x00",
    "PUBREL that nothing waits for": b"\x62\x02\x7f\xff",
    "DUP at QoS 0": b"\x38\x05\x00\x01aod",
    "wildcard in a topic name": b"\x30\x05\x00\x01+od",
    "topic name that is no UTF-8": b"\x30\x05\x00\x01\xffod",
    "empty topic name": b"\x30\x04\x00\x00od",
    "QoS 3": b"\x36\x05\x00\x01aod",
    "packet identifier 0": b"\x32\x05\x00\x01a\x00\x00",
    "a second CONNACK": b"\x20\x02\x00\x00",
    "reserved flags": b"\x41\x02\x00\x01",
    "reserved type": b"\xf0\x00",
    "a packet of the client": b"\xc0\x00",
    "remaining length of five bytes": b"\x30\xff\xff\xff\xff\x01",
}


class Difference(Exception):
    """The clients differ in what they must not; the message says where."""


# ---------------------------------------------------------------------------
# Differences that are meant
# ---------------------------------------------------------------------------
# Odd packet -> why release 0.1 ends the connection and the present client does not.
ALLOWED_ODD = {
    "PUBACK that nothing waits for": "an acknowledgement that nothing waits for is ignored",
    "PUBREC that nothing waits for": "an acknowledgement that nothing waits for is ignored",
    "PUBCOMP that nothing waits for": "an acknowledgement that nothing waits for is ignored",
    "SUBACK that nothing waits for": "an acknowledgement that nothing waits for is ignored",
    "UNSUBACK that nothing waits for": "an acknowledgement that nothing waits for is ignored",
    "DUP at QoS 0": "DUP at QoS 0 is ignored: [MQTT-3.3.1-2] binds the sender",
    "wildcard in a topic name": "a wildcard in a topic name: the message is dropped and told",
    "topic name that is no UTF-8": "a topic name that is no UTF-8 is dropped and told",
    "a second CONNACK": "a second CONNACK with a return code says why",
}


# What else may differ: a function makes two views equal in that respect. They are tried in this
# order, each on top of those before.


def allow_streams(world, view):
    """order: of PUBREL, QoS 0 and the rest among each other: section 4.6 says nothing of it"""
    view = dict(view)
    sent = view.get("sent message", [])
    view["sent message"] = sorted(
        sent, key=lambda one: (one[0], one[0] == "PUBLISH" and one[3] > 0)
    )
    view["told published"] = sorted(view.get("told published", []))
    return view


def allow_replaced_filters(world, view):
    """filters: a command that has not left is replaced by the next for the same filter"""
    view = dict(view)
    sent = view.get("sent filter", [])
    words = world.words_before()
    last = {one[1]: one for one in sent}
    kept = []
    for one in sent:
        name = one[1]
        is_doubled = name in world.doubled
        # The present client does not ask for what was taken back, but for what has no answer yet.
        is_asked = last[name][0] == "UNSUBSCRIBE" and not (world.is_old or is_doubled)
        # Release 0.1 may send both, the second when the first has its answer.
        is_again = is_doubled and words.get(name) == one
        if is_asked or one is last[name] and not is_again:
            kept.append(one)
    view["sent filter"] = kept
    told = view.get("told subscribed", [])
    view["told subscribed"] = [one for one in told if one[0] not in world.replaced_in_both]
    view["undone"] = [one for one in view["undone"] if one not in world.replaced]
    return view


def allow_filter_order(world, view):
    """filters: in the order of the table, not of the calls"""
    view = dict(view)
    for name in ("sent filter", "told subscribed"):
        view[name] = sorted(view.get(name, []), key=repr)
    return view


def allow_unsubscribed(world, view):
    """filters: no UNSUBSCRIBE to a server without a session, which has forgotten the filter"""
    connects = [one[1] for one in view.get("told life", []) if one[0] == "connect"]
    has_session = all(connects or [world.broker.has_resumed])
    return view if has_session else without_unsubscribed(world, view)


def without_unsubscribed(world, view):
    """Leave out each unsubscribe() that was called before this connection was accepted."""
    view = dict(view)
    late = world.unsubscribed_late
    view["sent filter"] = [
        one for one in view["sent filter"] if one[0] != "UNSUBSCRIBE" or one[1] in late
    ]
    view["undone"] = [one for one in view["undone"] if one not in world.unsubscribed_before]
    return view


def allow_unsubscribed_elsewhere(world, view):
    """failover: UNSUBSCRIBE to a server with an older session, too, which has the filter yet"""
    return without_unsubscribed(world, view) if world.has_failover else view


def allow_callback_order(world, view):
    """filters: their callbacks are called in the order of the last subscribe() of each"""
    told = view.get("told message", [])
    places = {}
    for one in told:
        places.setdefault(one[-5:-3] if len(one) > 3 else one[:2], len(places))
    key = [(places[one[-5:-3] if len(one) > 3 else one[:2]], repr(one)) for one in told]
    return dict(view, **{"told message": [one for _, one in sorted(zip(key, told))]})


def allow_stage(world, view):
    """of two deadlines that have come, which one is told"""
    return dict(view, **{"told life": [untimed(one) for one in view.get("told life", [])]})


def untimed(event):
    is_late = event[0] == "offline" and event[1] and event[1][0] == "TimedOut"
    return ("offline", "TimedOut") if is_late else event


def allow_pings(world, view):
    """pings: one more or one fewer, on as many connections"""
    if not world.has_another_ping:
        return view
    others = [one for one in view.get("sent other", []) if one[0] != "PINGREQ"]
    return dict(view, **{"sent other": others})


ALLOWED = (
    allow_streams,
    allow_replaced_filters,
    allow_filter_order,
    allow_unsubscribed,
    allow_unsubscribed_elsewhere,
    allow_callback_order,
    allow_stage,
    allow_pings,
)

# After these the two go on at different times, so that single actions are no longer compared. Each
# is for views that differ in the key beside it.


def allow_attempts(world, view):
    """attempts to connect and deadlines: how many there were, and what became of them"""
    if world.has_timed_out:
        view = {key: what for key, what in view.items() if key not in ("state", "server")}
    life = [one for one in view.get("told life", []) if one[0] != "offline"]
    connects = view.get("sent other", [])
    return dict(
        view,
        **{
            "told life": life[-2:],
            "sent other": sorted(set(connects), key=repr),
        },
    )


def allow_late_step(world, view):
    """deadlines: a step() that is late reads once more, and the answer may be there"""
    others = view.get("sent other", [])
    if world.has_timed_out:
        others = [one for one in others if one[0] != "CONNECT"]
    return dict(view, **{"sent other": others})


def allow_late_message(world, view):
    """deadlines: a step() that is late reads what came behind the answer, too"""
    return dict(view, **{"told error": [], "sent ack": []}) if world.was_late else view


def allow_late_filters(world, view):
    """deadlines: a step() that is late reads CONNACK, and knows what session there is"""
    if not world.was_late:
        return view
    return dict(view, **{"sent filter": [], "told subscribed": []})


def allow_filters_at_once(world, view):
    """filters: one SUBSCRIBE for each, all at once: the next does not wait for SUBACK"""
    waits = world.had_to_wait or world.has_to_wait()
    return dict(view, **{"sent filter": [], "told subscribed": []}) if waits else view


def allow_filters_first(world, view):
    """filters: they are in force before messages are sent again"""
    waits = world.broker.withheld & {SUBACK, UNSUBACK}
    waits = waits or ("offline", ("TransportError", "SUBACK")) in view.get("told life", [])
    return {"told message": view.get("told message", [])} if waits else view


def allow_early_callbacks(world, view):
    """filters: a callback takes messages from its subscribe() on, not from SUBSCRIBE on"""
    if not world.has_waiting_filter:
        return view
    told = [one[1:4] if len(one) > 3 else one for one in view.get("told message", [])]
    kept = {"state": view.get("state"), "told life": view.get("told life", [])}
    return dict(kept, **{"told message": sorted(set(told))})


def allow_cut_short(world, view):
    """a write cut short: what of several packets has left, and so what is sent with DUP"""
    if not world.is_cut_short:
        return view
    return {"state": view.get("state"), "told message": view.get("told message", [])}


def allow_filters_through(world, view):
    """a write cut short: filters go before messages, and still get through"""
    connection = world.broker.connection
    is_short = connection and connection.write_credit < PACKET_BYTES_MAX
    return {"told message": view.get("told message", [])} if is_short else view


def allow_unread(world, view):
    """a cut: what had come before it was read, or not"""
    return {} if world.is_just_cut else view


def allow_while_closing(world, view):
    """closing: what comes until the end is still delivered"""
    return {"state": view.get("state")} if view.get("state") in ("CLOSING", "DOWN") else view


def allow_acks_while_closing(world, view):
    """closing: what comes in the last moment is still acknowledged, or not"""
    return dict(view, **{"sent ack": []}) if view.get("state") in ("CLOSING", "DOWN") else view


def allow_pause(world, view):
    """closing: a failure in it is followed by a pause, or the next server, also after connect()"""
    return {} if world.was_closing else view


def allow_next_server(world, view):
    """closing: after a failure in it the next server, also after connect()"""
    is_other = world.has_other_server
    return {key: what for key, what in view.items() if key != "server"} if is_other else view


def allow_held(world, view):
    """a write cut short: what needs an answer is held until there is room for it"""
    return {"state": view.get("state")} if world.is_cut_short else view


def allow_room(world, view):
    """slots: filters take none, so the pipe is full later"""
    return {"told message": view.get("told message", [])} if world.has_less_room else view


def allow_span(world, view):
    """slots: those behind a message under way are taken until its end"""
    return {"told message": view.get("told message", [])} if world.has_long_span else view


def allow_no_unsubscribe(world, view):
    """filters: nothing to wait for if there is no UNSUBSCRIBE"""
    if world.broker.has_resumed or not world.unsubscribed:
        return view
    state = view.get("state")
    life = [one for one in view.get("told life", []) if one != ("online",)]
    return dict(view, state="ONLINE" if state == "SUBSCRIBING" else state, **{"told life": life})


def allow_expiry(world, view):
    """expiry: a message is dropped when its time comes, not when it is looked at next"""
    return dict(view, **{"told dropped": [], "undone": []})


def allow_expiry_of_sent(world, view):
    """expiry: ends also what was sent and not acknowledged, at the next connection"""
    return {"state": view.get("state")} if world.has_expiry else view


def allow_deadlines(world, view):
    """deadlines: each counts from when its packet left, none is put off by traffic"""
    return {} if world.has_timed_out else view


def allow_more_deadlines(world, view):
    """deadlines: more of them, or fewer, so what was sent is sent again as often"""
    has_more = world.was_early or world.was_late
    return dict(view, **{"sent message": []}) if has_more else view


def allow_filters_past(world, view):
    """filters: they do not wait behind messages that wait for others in flight"""
    if len(view["undone"]) < IN_FLIGHT_MAX:
        return view
    undone = [one for one in view["undone"] if one not in world.filter_calls]
    return dict(view, undone=undone, **{"sent filter": [], "told subscribed": []})


def allow_unread_first(world, view):
    """a cut: the present client reads first, and does not write any more"""
    if not world.is_just_cut or not world.has_written_less:
        return view
    return {"state": view.get("state")}


def allow_latest_anew(world, view):
    """latest: what a new session begins anew is replaced, too"""
    return {"state": view.get("state")} if world.has_latest else view


def allow_early_disconnect(world, view):
    """disconnect() before CONNACK: DISCONNECT is sent, so that no will is published"""
    others = [one for one in view.get("sent other", []) if one != ("early DISCONNECT",)]
    return dict(view, **{"sent other": others})


def allow_disconnect(world, view):
    """closing: an answer that is overdue ends the draining, and DISCONNECT is sent all the same"""
    if not world.has_timed_out:
        return view
    others = [one for one in view.get("sent other", []) if one != ("DISCONNECT",)]
    return dict(view, **{"sent other": others})


def allow_one_at_a_time(world, view):
    """closed again and again: messages and filters go one at a time, until a connection lasts"""
    return {"told message": view.get("told message", [])} if world.is_one_at_a_time else view


ALLOWED_LAST = (
    ("sent message", allow_unread_first),
    ("told answer", allow_room),
    ("told dropped", allow_room),
    ("told answer", allow_span),
    ("told dropped", allow_span),
    ("told life", allow_no_unsubscribe),
    ("state", allow_no_unsubscribe),
    ("told life", allow_unread),
    ("sent filter", allow_unread),
    ("sent ack", allow_unread),
    ("told life", allow_attempts),
    ("state", allow_attempts),
    ("told life", allow_cut_short),
    ("sent other", allow_late_step),
    ("sent filter", allow_filters_at_once),
    ("sent message", allow_filters_first),
    ("state", allow_filters_first),
    ("undone", allow_filters_first),
    ("told message", allow_early_callbacks),
    ("sent message", allow_cut_short),
    ("sent filter", allow_cut_short),
    ("undone", allow_cut_short),
    ("told subscribed", allow_cut_short),
    ("state", allow_filters_through),
    ("told message", allow_while_closing),
    ("told error", allow_while_closing),
    ("told error", allow_late_message),
    ("sent ack", allow_late_message),
    ("sent filter", allow_late_filters),
    ("sent ack", allow_acks_while_closing),
    ("told dropped", allow_expiry),
    ("sent message", allow_expiry_of_sent),
    ("sent other", allow_cut_short),
    ("sent ack", allow_cut_short),
    ("told message", allow_held),
    ("told error", allow_held),
    ("state", allow_pause),
    ("sent other", allow_pause),
    ("server", allow_next_server),
    ("server", allow_pause),
    ("told life", allow_deadlines),
    ("told message", allow_deadlines),
    ("sent message", allow_more_deadlines),
    ("sent message", allow_latest_anew),
    ("sent filter", allow_filters_past),
    ("told subscribed", allow_filters_past),
    ("sent other", allow_early_disconnect),
    ("sent other", allow_disconnect),
    ("sent message", allow_one_at_a_time),
    ("sent filter", allow_one_at_a_time),
    ("told life", allow_one_at_a_time),
    ("state", allow_one_at_a_time),
    ("undone", allow_one_at_a_time),
)


# ---------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------


def packet(first_byte, body):
    length = bytearray()
    left = len(body)
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    length.append(left)
    return bytes((first_byte,)) + bytes(length) + body


def field(text):
    return len(text).to_bytes(2, "big") + text


class Broker:
    """A server with a session: it speaks with the newest connection of a bench.

    Attributes:
        filters: filter -> QoS, what is in force.
        accepted: (qos, payload) of each message that it took.
        told: kind -> list, what it was told since the last look: "message", "ack", "filter",
            "other".
        withheld: the types of packets that it does not send; they wait.
        refusal: return code of the next CONNACKs.
        words: filter -> the last command for it on this connection.
    """

    def __init__(self, bench):
        self.network = bench.network
        self.filters = {}
        self.accepted = []
        self.told = collections.defaultdict(list)
        self.withheld = set()
        self.refusal = 0
        self.has_session = False
        self.names = {}  # packet identifier of the client's -> payload
        self.unreleased = {}  # the same, of QoS 2, until PUBREL
        self.held = []  # [id, qos, topic, payload, type that must come, retain]
        self.has_resumed = False  # the last CONNACK said that there was a session
        self.address = None  # where the client is
        self.sessions = {}  # what the servers at other addresses know
        self.losses = 0  # of a session that had begun
        self.last_id = 0
        self._begin(None)

    def _begin(self, connection):
        self.connection = connection
        self.buf = b""
        self.queue = []
        self.is_accepted = False
        self.words = {}

    def look(self):
        """Read what has come; queue the answers. True if anything came."""
        connections = self.network.connections
        if connections and connections[-1] is not self.connection:
            last = self.connection
            if last is not None and not last.is_ended and not last.error:
                self._read()  # its DISCONNECT
            self._begin(connections[-1])
        return self._read()

    def _read(self):
        if self.connection is None or not self.connection.from_client:
            return False
        self.buf += self.connection.received()
        while len(self.buf) > 1:
            at, shift, length = 1, 0, 0
            while True:
                length |= (self.buf[at] & 0x7F) << shift
                shift += 7
                at += 1
                if self.buf[at - 1] < 0x80:
                    break
                if at == len(self.buf):
                    return True
            if len(self.buf) < at + length:
                break
            first_byte, body = self.buf[0], self.buf[at : at + length]
            self.buf = self.buf[at + length :]
            self._on_packet(first_byte, body)
        return True

    def send(self):
        """Send what is not withheld. True if anything went."""
        connection = self.connection
        if connection is None or connection.is_closed or connection.error:
            return False
        kept = []
        moved = False
        for one in self.queue:
            # Nothing passes CONNACK.
            if one[0] & 0xF0 in self.withheld or kept and kept[0][0] == CONNACK:
                kept.append(one)
            else:
                connection.send(self.wire(one))
                moved = True
        self.queue = kept
        return moved

    def wire(self, packet):
        """As it is sent."""
        return packet

    def publish(self, topic, qos, payload, retain, dup=False):
        if qos:
            self.last_id = self.last_id % 65535 + 1
            awaited = PUBACK if qos == 1 else PUBREC
            self.held.append([self.last_id, qos, topic, payload, awaited, retain])
        if self.is_accepted:
            self.queue.append(self._publish(self.last_id, qos, topic, payload, dup, retain))

    def _publish(self, packet_id, qos, topic, payload, dup, retain):
        body = field(topic.encode()) + (packet_id.to_bytes(2, "big") if qos else b"") + payload
        return packet(PUBLISH | dup << 3 | qos << 1 | retain, body)

    def _on_packet(self, first_byte, body):
        kind = first_byte & 0xF0
        number = body[:2]
        if kind == CONNECT:
            self._on_connect(body)
        elif kind == PUBLISH:
            self._on_publish(first_byte, body)
        elif kind == PUBREL:
            self.told["message"].append(("PUBREL", self.names.get(number)))
            self.unreleased.pop(number, None)
            self.queue.append(packet(PUBCOMP, number))
        elif kind in (PUBACK, PUBREC, PUBCOMP):
            self._on_ack(kind, int.from_bytes(number, "big"))
        elif kind in (SUBSCRIBE, UNSUBSCRIBE):
            self._on_filters(kind, number, body)
        elif kind == PINGREQ:
            self.told["other"].append(("PINGREQ",))
            self.queue.append(packet(PINGRESP, b""))
        else:
            waiting = [bytes(self.connection.to_client), *self.queue]
            is_early = any(one[:2] == b"\x20\x02" for one in waiting)
            self.told["other"].append(("early DISCONNECT" if is_early else "DISCONNECT",))
            self.connection.is_ended = True

    # Each address is a server of its own, with its own sessions.
    def _move_to(self, address):
        if address != self.address:
            self.sessions[self.address] = (
                self.has_session,
                self.filters,
                self.unreleased,
                self.held,
            )
            found = self.sessions.get(address, (False, {}, {}, []))
            self.has_session, self.filters, self.unreleased, self.held = found
            self.address = address

    def _on_connect(self, body):
        self._move_to(self.connection.address)
        self.told["other"].append(("CONNECT", body))
        is_clean = body[7] & 0x02
        if self.refusal:
            self.queue.append(packet(CONNACK, bytes((0, self.refusal))))
            return
        if is_clean or not self.has_session:
            self.lose_session()
        self.has_resumed = self.has_session and not is_clean
        self.queue.append(packet(CONNACK, bytes((self.has_resumed, 0))))
        self.is_accepted = True
        self.has_session = not is_clean
        for packet_id, qos, topic, payload, awaited, retain in self.held:
            if awaited == PUBCOMP:
                self.queue.append(packet(PUBREL | 2, packet_id.to_bytes(2, "big")))
            else:
                self.queue.append(self._publish(packet_id, qos, topic, payload, True, retain))

    def lose_session(self):
        self.losses += self.has_session
        self.has_session = False
        self.filters = {}
        self.unreleased = {}
        self.held = []

    def _on_publish(self, first_byte, body):
        qos = first_byte >> 1 & 3
        end = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:end]
        number = b""
        if qos:
            number, end = body[end : end + 2], end + 2
            self.names[number] = body[end:]
        dup, retain = first_byte >> 3 & 1, first_byte & 1
        self.told["message"].append(("PUBLISH", topic, body[end:], qos, retain, dup))
        if qos == 2:
            # (Back at a server that was left it may come as a new one.)
            if self.unreleased.get(number, body[end:]) != body[end:]:
                raise Difference("%r: the identifier of a QoS 2 message under way" % body[end:])
            if number not in self.unreleased:
                self.unreleased[number] = body[end:]
                self.accepted.append((qos, body[end:]))
            self.queue.append(packet(PUBREC, number))
            return
        self.accepted.append((qos, body[end:]))
        if qos:
            self.queue.append(packet(PUBACK, number))

    def _on_ack(self, kind, number):
        self.told["ack"].append((kind, number))
        for message in self.held:
            if message[0] == number and message[4] == kind:
                if kind == PUBREC:
                    message[4] = PUBCOMP
                else:
                    self.held.remove(message)
                break
        if kind == PUBREC:
            self.queue.append(packet(PUBREL | 2, number.to_bytes(2, "big")))

    def _on_filters(self, kind, number, body):
        at = 2
        granted = b""
        while at < len(body):
            end = at + 2 + int.from_bytes(body[at : at + 2], "big")
            name = body[at + 2 : end].decode()
            at = end
            if kind == SUBSCRIBE:
                qos = body[at]
                at += 1
                if name == "b":  # which this server refuses
                    granted += b"\x80"
                else:
                    granted += bytes((qos,))
                    self.filters[name] = qos
                word = ("SUBSCRIBE", name, qos)
            else:
                self.filters.pop(name, None)
                word = ("UNSUBSCRIBE", name)
            self.words[name] = word
            self.told["filter"].append(word)
        self.queue.append(packet(SUBACK if kind == SUBSCRIBE else UNSUBACK, number + granted))


# ---------------------------------------------------------------------------
# A client and its world
# ---------------------------------------------------------------------------


class NoCollector:
    """CPython is not short of memory, and gc.collect() would take longer than all the rest."""

    collect = staticmethod(lambda: None)


class Client:
    """A client's module, with fakes of its own.

    Args:
        folders: where its modules are; a zip file will do.
    """

    def __init__(self, folders):
        kept = self._take_modules()
        sys.path[:0] = folders
        importlib.invalidate_caches()
        try:
            self.fakes = importlib.import_module("fakes")
            self.module = importlib.import_module("mqttpipe")
        finally:
            del sys.path[: len(folders)]
            self._take_modules()
            sys.modules.update(kept)
        self.fakes.gc = NoCollector
        self.module.gc = NoCollector

    def _take_modules(self):
        names = [name for name in sys.modules if name.startswith(PREFIXES)]
        return {name: sys.modules.pop(name) for name in names}


class Link:
    is_there = True

    def is_up(self):
        return self.is_there


class World:
    """One client, its server, and what both were told."""

    def __init__(self, client, options, is_old=False):
        options = dict(options)
        self.is_old = is_old
        self.module = client.module
        self.link = options["link"] = Link()
        self.will_raise = options.pop("will_raise")
        self.has_failover = "uri" in options
        self.bench = client.fakes.Bench(**options)
        self.client = self.bench.client
        self.clock = self.bench.clock
        self.network = self.bench.network
        self.broker = Broker(self.bench)
        self.client.on_dropped = lambda c, token: self.bench.events.append(("dropped", token))
        self.client.on_connect = self.on_connect
        self.tokens = {}  # token -> number of its call
        self.calls = 0
        self.taken = []  # numbers of calls of publish() that were
        self.messages = []  # (who was called, qos, payload): what reached the application
        self.published = {}  # number of a call -> payload, of QoS 1 and 2
        self.dropped = set()  # numbers of calls
        self.is_just_cut = False  # since the last comparison, and something was perhaps not read
        self.has_timed_out = False  # one of the two, since then or since both were online
        self.had_to_wait = False  # one of the two, for SUBACK, at the last comparison
        self.timeouts = 0  # since then
        self.was_late = False  # release 0.1 had more of them
        self.was_early = False  # it had fewer
        self.was_closing = False  # one of the two, at the last comparison, or has failed in it
        self.has_failed_closing = False  # since then
        self.has_other_server = False  # since then or since such a failure, until CONNACK
        self.has_less_room = False  # release 0.1 refused or dropped more, since then
        self.has_long_span = False  # the present client did, as the oldest message goes on
        self.has_expiry = False  # some message
        self.expiring = set()  # numbers of calls
        self.unsubscribed_names = set()
        self.refused_names = set()  # of filters: there was no room
        self.has_waiting_filter = False  # in one of the worlds, since then
        self.is_cut_short = False  # a write has not taken all of it
        self.newest = {}  # filter -> number of the last call for it
        self.filter_calls = []  # numbers of calls of subscribe() and unsubscribe()
        self.filter_count = 0  # of them, at the last comparison
        self.unsubscribed = set()  # numbers of calls
        self.unsubscribed_before = set()  # the same, before the last CONNACK
        self.unsubscribed_late = set()  # filters, since then
        self.replaced = set()  # numbers of calls: not done at the next one, or that is subscribe()
        self.doubled = set()  # filters of whose calls the last but one was not done at the last
        self.words = (None, {})  # at the last comparison: the connection, and Broker.words
        self.texts = []  # of errors, for whoever reads along
        self.told = collections.defaultdict(list)  # kind -> events since the last look

    def call(self, function, *arguments, **options):
        """Call the client; returns the name of the answer's type, or of what it raised."""
        self.calls += 1
        try:
            answer = function(*arguments, **options)
        except self.module.MQTTError as error:
            answer = type(error).__name__
        told = answer if isinstance(answer, str) else type(answer).__name__
        self.told["answer"].append(told)
        if isinstance(answer, int) and not isinstance(answer, bool):
            self.tokens[answer] = self.calls
            if function == self.client.publish:
                self.taken.append(self.calls)
            if function == self.client.publish and arguments[2]:
                self.published[self.calls] = arguments[1]
        return told

    def on_filter(self, name):
        """Return a callback for a filter."""

        def callback(client, message):
            self.note_message(name, message)
            if message.payload[:1] == b"p":  # one that asks for an answer
                text = b"answer %d to %s" % (self.calls, message.payload)
                self.call(client.publish, "a/c", text, message.qos)
            elif message.payload[:1] == b"r" and self.will_raise:
                raise ValueError("by the test")

        return callback

    def note_message(self, name, message):
        told = (name, message.topic_name, message.payload, message.qos, message.retain)
        self.told["message"].append(told + (message.dup,))
        self.messages.append((name, message.qos, message.payload))

    def settle(self):
        """Go on until nothing moves."""
        for _ in range(ROUNDS_MAX):
            moved = self.client.step()
            if self.broker.look():
                moved = True
            if self.broker.send():
                moved = True
            if not moved:
                return
        raise Difference("it finds work without end, in " + self.client.state_name)

    def advance(self, ms):
        while ms > 0:
            self.clock.advance(min(ms, SLICE_MS))
            ms -= SLICE_MS
            self.settle()

    def apply(self, action):
        getattr(self, "do_" + action[0])(*action[1:])

    def replace(self, name, is_subscribe):
        """The next call is the newest for this filter."""
        self.doubled.discard(name)
        is_undone = self.newest.get(name) in self.undone()
        if is_undone:
            self.doubled.add(name)
        # Release 0.1 asks for what was refused until it takes the unsubscribe() from its pipe.
        if is_undone or is_subscribe or self.is_old:
            self.replaced.add(self.newest.get(name))
        self.newest[name] = self.calls + 1
        self.filter_calls.append(self.calls + 1)

    def words_before(self):
        """What this connection's last words were at the last comparison: filter -> command."""
        connection, words = self.words
        return words if connection is self.broker.connection else {}

    def on_connect(self, client, session_present):
        self.bench.events.append(("connect", session_present))
        self.unsubscribed_before = set(self.unsubscribed)
        self.unsubscribed_late.clear()

    # -- actions
    def do_publish(self, topic, payload, qos, options):
        if "expiry_s" in options:
            self.has_expiry = True
            self.expiring.add(self.calls + 1)
        self.call(self.client.publish, topic, payload, qos, **options)

    def do_subscribe(self, name, qos, has_callback):
        self.replace(name, True)
        callback = self.on_filter(name) if has_callback else None
        if self.call(self.client.subscribe, name, callback, qos) == "QueueFull":
            self.refused_names.add(name)

    def do_unsubscribe(self, name):
        self.replace(name, False)
        self.unsubscribed.add(self.calls + 1)
        self.unsubscribed_late.add(name)
        self.unsubscribed_names.add(name)
        if self.call(self.client.unsubscribe, name) == "QueueFull":
            self.refused_names.add(name)

    def do_connect(self):
        self.call(self.client.connect)

    def do_disconnect(self):
        self.call(self.client.disconnect)

    def do_serve(self, topic, payload, qos, retain, dup):
        self.broker.publish(topic, qos, payload, retain, dup and qos > 0)

    def do_withhold(self, kinds):
        self.broker.withheld = set(kinds)

    def do_refuse(self, code):
        self.broker.refusal = code

    def do_lose_session(self):
        if not self.broker.is_accepted:  # a server that is restarted
            self.broker.lose_session()

    def do_cut(self, how, credit, tail):
        """The connection ends, after `credit` more bytes to the server, and `tail` from it."""
        connection = self.broker.connection
        if connection is None or connection.is_closed:
            return
        if credit is not None:
            connection.write_credit = credit
            self.is_cut_short = True
        self.settle()
        if connection is not self.broker.connection:
            return  # it has ended by itself
        rest = b"".join(self.broker.queue)[:tail]
        if rest and not connection.is_closed:
            self.is_just_cut = True
            connection.send(rest)
            # Release 0.1 does not look for more behind a short read.
            for _ in range(2 + len(rest) // connection.read_max):
                self.client.step()
        self.broker.look()
        self.broker.queue = []
        self.broker.is_accepted = False
        if connection.to_client or connection.is_connecting:
            self.is_just_cut = True
        if how == "reset":
            connection.error = 104
        else:
            connection.is_ended = True

    def do_narrow(self, read_max, write_max):
        if self.network.connections:
            self.network.connections[-1].read_max = read_max
            self.network.connections[-1].write_max = write_max

    def do_credit(self, count):
        if self.network.connections:
            self.network.connections[-1].write_credit = count
            self.is_cut_short |= count < 1 << 20

    def do_silent(self, is_silent):
        self.network.is_silent = is_silent

    def do_closed_port(self, is_closed):
        self.network.connect_error = 111 if is_closed else 0

    def do_link(self, is_there):
        self.link.is_there = is_there

    def do_odd(self, name):
        waiting = self.broker.queue[:1]
        if waiting and waiting[0][0] == CONNACK:
            return  # else a second CONNACK would be the first
        if self.broker.is_accepted:
            # Release 0.1 would write between two short reads.
            if self.broker.connection.read_max < len(ODD[name]):
                self.settle()
            self.broker.connection.send(ODD[name])

    def do_steps(self, count):
        for _ in range(count):
            self.client.step()

    def do_advance(self, ms):
        self.advance(ms)

    # -- what has come of it
    def collect(self):
        """Take what was told since the last time: kind -> list."""
        for event in self.bench.take_events():
            name = event[0]
            if name == "message":
                self.told["message"].append(event[1:])
                self.messages.append((None, event[3], event[2]))
            elif name in ("offline", "error"):
                error = event[1]
                what = error and (type(error).__name__, getattr(error, "stage", None))
                self.told["life" if name == "offline" else "error"].append((name, what))
                self.texts.append("%s: %s" % (name, error))
                if name == "offline" and what and what[0] == "TimedOut":
                    self.has_timed_out = True
                    self.timeouts += 1
                if name == "offline" and what and what[1] == "DISCONNECT":
                    self.has_failed_closing = True
            elif name in ("connect", "online"):
                self.told["life"].append(event)
            else:
                number = self.tokens.get(event[1])
                if name == "dropped":
                    self.dropped.add(number)
                self.told[name].append((number,) + event[2:])
        found = {}
        for prefix, told in (("told ", self.told), ("sent ", self.broker.told)):
            found.update({prefix + kind: list(what) for kind, what in told.items() if what})
            told.clear()
        return found

    def count_refused(self, told):
        """How many messages and filters found no room, or lost it to others?"""
        dropped = [one for one in told.get("told dropped", []) if one[0] not in self.expiring]
        return told.get("told answer", []).count("QueueFull") + len(dropped)

    def span(self):
        """How many messages were taken from the oldest that is not done on?"""
        undone = set(self.undone())
        at = 0
        while at < len(self.taken) and self.taken[at] not in undone:
            at += 1
        return len(self.taken) - at

    def undone(self):
        return sorted(self.tokens[one] for one in self.tokens if not self.client.is_done(one))

    def is_filter_undone(self):
        return not set(self.filter_calls).isdisjoint(self.undone())

    def is_cut_unseen(self):
        connection = self.broker.connection or (self.network.connections or [None])[-1]
        if connection is None or connection.is_closed:
            return False
        is_cut = connection.is_ended or connection.error
        return bool(is_cut and (connection.to_client or connection.is_connecting))

    def has_to_wait(self):
        """For SUBACK or UNSUBACK?"""
        is_withheld = self.broker.withheld & {SUBACK, UNSUBACK}
        return bool(is_withheld) or self.client.state_name == "SUBSCRIBING"

    def is_cut_short_yet(self):
        """May a write that was cut short still make a difference?"""
        connection = self.broker.connection
        is_open = connection and not connection.is_closed
        return self.undone() or is_open and connection.write_credit < 1 << 20

    def is_quiet(self):
        return not self.undone() and not self.broker.held

    def is_free(self):
        """True if a slot is free in any case."""
        return len(self.undone()) < SLOTS - 1

    def calm(self):
        """The server, the network and the link are well from now on."""
        self.do_withhold(())
        self.do_refuse(0)
        self.do_silent(False)
        self.do_closed_port(False)
        self.do_link(True)
        self.do_credit(1 << 30)
        self.do_narrow(1 << 20, 1 << 20)


# ---------------------------------------------------------------------------
# A life
# ---------------------------------------------------------------------------


def make_options(draw):
    options = {
        "clean_session": draw.random() < 0.4,
        "keep_alive_s": draw.choice((0, 2, 5, 60)),
        "packet_bytes_max": PACKET_BYTES_MAX,
        "pipe_slots": SLOTS,
        "in_flight_max": IN_FLIGHT_MAX,
        "connect_timeout_ms": TIMEOUT_MS,
        "reconnect_min_ms": draw.choice((100, 1000)),
        "now_ms": draw.choice((1000, 0x3FFFFFFF - 2000)),
        "will_raise": draw.random() < 0.3,
    }
    if draw.random() < 0.2:
        options.update(user="u", password=draw.choice((None, "secret", b"")))
    if draw.random() < 0.2:
        options["will"] = ("a/will", b"gone", draw.randrange(3), draw.random() < 0.5)
    if draw.random() < 0.2:
        options["uri"] = ["mqtt://192.0.2.1", "mqtt://192.0.2.2:1884"]
    options["offline"] = draw.choice(("refuse", "refuse", "drop_oldest", "latest"))
    return options


def make_actions(draw):
    """Return the actions of a life; each message has a payload of its own."""
    actions = []
    count = draw.randrange(10, 50)
    for number in range(count):
        kind = draw.choices(*zip(*WEIGHTS))[0]
        actions.append(make_action(draw, kind, number))
        if draw.random() < 0.7:
            actions.append(("settle",))
    if draw.random() < 0.8:
        actions.insert(0, ("connect",))
    return actions


WEIGHTS = (
    ("publish", 20),
    ("serve", 14),
    ("subscribe", 6),
    ("unsubscribe", 3),
    ("connect", 4),
    ("disconnect", 2),
    ("withhold", 8),
    ("release", 8),
    ("refuse", 1),
    ("lose_session", 2),
    ("cut", 8),
    ("narrow", 2),
    ("credit", 3),
    ("silent", 1),
    ("closed_port", 1),
    ("link", 1),
    ("odd", 2),
    ("steps", 2),
    ("advance", 14),
)


def make_action(draw, kind, number):
    payload = b"%s%d" % (draw.choice((b"m", b"m", b"p", b"r")), number)
    qos = draw.randrange(3)
    retain = draw.random() < 0.2
    if kind == "publish":
        payload += b"." * draw.choice((0, 0, 0, 10, 40, 200))
        options = {}
        if draw.random() < 0.1:
            options["offline"] = draw.choice(("refuse", "drop_oldest", "latest"))
        if draw.random() < 0.1:
            options["expiry_s"] = draw.choice((1, 5))
        if retain:
            options["retain"] = True
        return (kind, draw.choice(TOPICS + ("a/+",)), payload, qos, options)
    if kind == "serve":
        payload += b"." * draw.choice((0, 0, 0, 10, 40, 200))
        return (kind, draw.choice(TOPICS), payload, qos, retain, draw.random() < 0.1)
    if kind == "subscribe":
        return (kind, draw.choice(FILTERS), qos, draw.random() < 0.7)
    if kind == "unsubscribe":
        return (kind, draw.choice(FILTERS))
    if kind == "withhold":
        return (kind, draw.sample(ANSWERS, draw.randrange(1, 4)))
    if kind == "release":
        return ("withhold", [])
    if kind == "refuse":
        return (kind, draw.randrange(6))
    if kind == "cut":
        credit = draw.choice((None, None, draw.randrange(60)))
        tail = draw.choice((0, 0, draw.randrange(9)))
        return (kind, draw.choice(("reset", "end")), credit, tail)
    if kind == "narrow":
        return (kind, draw.choice((1, 2, 7, 1 << 20)), draw.choice((1, 3, 50, 1 << 20)))
    if kind == "credit":
        return (kind, draw.choice((0, 1, 10, 1 << 30)))
    if kind in ("silent", "closed_port", "link"):
        return (kind, draw.random() < 0.5)
    if kind == "odd":
        return (kind, draw.choice(list(ODD)))
    if kind == "steps":
        return (kind, draw.randrange(1, 4))
    if kind == "advance":
        return (kind, draw.choice((10, 100, 500, 1001, 2000, 5000, 61_000)))
    return (kind,)


class Life:
    """Both clients, from the first action to the last.

    Attributes: allowed: why -> how often; is_exact: single actions are compared.
    """

    def __init__(self, old, new, seed, say=None):
        self.draw = random.Random(seed)
        self.options = make_options(self.draw)
        self.actions = make_actions(self.draw)
        policies = [self.options["offline"]]
        policies += [one[4].get("offline") for one in self.actions if one[0] == "publish"]
        self.has_latest = "latest" in policies
        self.old = World(old, self.options, True)
        self.new = World(new, self.options)
        self.worlds = (self.old, self.new)
        self.allowed = collections.Counter()
        self.is_exact = True
        self.was_waiting = False  # some filter, at the last comparison
        self.compared = 0
        self.say = say or (lambda *what: None)

    def run(self):
        self.say("options", self.options)
        for action in self.actions:
            if self.is_legal(action):
                self.take(action)
        self.finish()
        return self

    def is_legal(self, action):
        """Can both be asked this without a difference that is known and said?

        In release 0.1 a message under way has left its slot, and a filter takes one: the present
        client keeps messages in their slots to the end, and has a table for filters. So slots are
        filled only while nothing is under way.
        """
        if action[0] in ("publish", "subscribe", "unsubscribe", "serve"):
            return all(world.is_free() for world in self.worlds)
        return True

    def take(self, action):
        self.say(*action)
        for world in self.worlds:
            world.settle() if action[0] == "settle" else world.apply(action)
        if action[0] == "odd":
            self.take_odd(action[1])
        if action[0] in ("settle", "advance", "odd"):
            self.compare(action)

    # An odd packet: what both made of it may differ if that is meant.
    def take_odd(self, name):
        for world in self.worlds:
            world.settle()
        ends = [[e for e in w.bench.events if e[0] == "offline" and e[1]] for w in self.worlds]
        if name in ALLOWED_ODD and len(ends[0]) > len(ends[1]):
            self.allow(ALLOWED_ODD[name], True)

    def allow(self, why, is_last):
        if self.is_exact:
            self.allowed[why] += 1
            self.say("-- allowed:", why)
        if is_last:
            self.is_exact = False

    def compare(self, action):
        told = [world.collect() for world in self.worlds]
        for name, world in (("0.1", self.old), ("now", self.new)):
            for text in world.texts:
                self.say("   ", name, text)
            world.texts.clear()
        refused = [world.count_refused(one) for world, one in zip(self.worlds, told)]
        waiting = any([world.is_filter_undone() for world in self.worlds])
        for world in self.worlds:
            was_called = world.filter_count < len(world.filter_calls)
            world.has_waiting_filter = waiting or self.was_waiting or was_called
            world.filter_count = len(world.filter_calls)
            world.has_timed_out = any([world.has_timed_out for world in self.worlds])
            world.is_just_cut = any([world.is_just_cut for world in self.worlds])
            world.was_late = self.old.timeouts > self.new.timeouts
            world.was_early = self.old.timeouts < self.new.timeouts
            world.was_closing |= any([world.has_failed_closing for world in self.worlds])
            world.has_other_server |= world.was_closing and self.has_failed(told)
            world.has_less_room = refused[0] > refused[1]
            others = [[each[0] for each in one.get("sent other", [])] for one in told]
            pings, connects = [[one.count(w) for one in others] for w in ("PINGREQ", "CONNECT")]
            world.has_another_ping = abs(pings[0] - pings[1]) == 1 and connects[0] == connects[1]
            sent = [len(one.get("sent message", [])) for one in told]
            world.has_written_less = sent[1] < sent[0]
            world.has_latest = self.has_latest
            client = self.new.client
            world.is_one_at_a_time = client._kicks > 1 and not client._is_stable
            world.replaced_in_both = self.old.replaced & self.new.replaced
            world.has_long_span = refused[0] < refused[1] and self.new.span() >= SLOTS - 1
        self.was_waiting = waiting
        if self.is_exact:
            self.compare_views(action, told)
        for world in self.worlds:
            world.is_just_cut = world.is_cut_unseen()
            world.has_failed_closing = False
            world.timeouts = 0
            world.words = (world.broker.connection, dict(world.broker.words))
            world.has_other_server &= not self.has_connected(told)
            world.had_to_wait = any([one.has_to_wait() for one in self.worlds])
            states = [one.client.state_name for one in self.worlds]
            world.was_closing = "CLOSING" in states
            world.has_timed_out &= states != ["ONLINE", "ONLINE"]

    def has_failed(self, told):
        life = [event for one in told for event in one.get("told life", [])]
        return any([event[0] == "offline" and bool(event[1]) for event in life])

    def has_connected(self, told):
        return any([event[0] == "connect" for one in told for event in one.get("told life", [])])

    def compare_views(self, action, told):
        views = [self.view(world, what) for world, what in zip(self.worlds, told)]
        if views[0] == views[1]:
            self.compared += 1
            if not any([world.is_cut_short_yet() for world in self.worlds]):
                for world in self.worlds:
                    world.is_cut_short = False
            return
        raw = views
        for key, make_equal in [("", one) for one in ALLOWED] + list(ALLOWED_LAST):
            if key and views[0].get(key) == views[1].get(key):
                continue
            views = [make_equal(world, view) for world, view in zip(self.worlds, views)]
            if views[0] == views[1]:
                self.compared += 1
                self.allow(make_equal.__doc__, bool(key))
                return
        lines = ["after %r:" % (action,)]
        for key in sorted(set(views[0]) | set(views[1])):
            old, new = (view.get(key) or None for view in views)
            if old != new or key == "state":
                old, new = (view.get(key) for view in raw)
                lines.append("  %s\n    0.1: %r\n    now: %r" % (key, old, new))
        raise Difference("\n".join(lines))

    def view(self, world, told):
        view = told
        view["state"] = world.client.state_name
        view["undone"] = world.undone()
        if world.network.connections:
            view["server"] = getattr(world.network.connections[-1], "address", None)
        return view

    def finish(self):
        """What a life has to come to."""
        for world in self.worlds:
            world.calm()
            world.call(world.client.connect)
            for _ in range(CALM_MS // 1000):
                world.advance(1000)
                if world.client.is_online() and world.is_quiet():
                    break
            else:
                raise Difference(
                    "it does not come to an end: %s, not done: %r, held by the server: %r"
                    % (world.client.state_name, world.undone(), world.broker.held)
                )
        self.compare(("finish",))
        old, new = (dict(world.broker.filters) for world in self.worlds)
        if "uri" in self.options:  # release 0.1 leaves there what was unsubscribed elsewhere
            for name in self.new.unsubscribed_names.difference(new):
                old.pop(name, None)
            for name in self.old.unsubscribed_names.difference(old):  # as the present one does
                new.pop(name, None)
        if self.old.broker.address != self.new.broker.address:  # UNSUBACK came elsewhere
            for name in self.old.unsubscribed_names.difference(old):
                new.pop(name, None)
        for name in self.old.refused_names - self.new.refused_names:
            old.pop(name, None)
            new.pop(name, None)
        if old != new:
            raise Difference("filters in force at the end: 0.1: %r, now: %r" % (old, new))
        for world in self.worlds:
            self.check_deliveries(world)

    def check_deliveries(self, world):
        """QoS 1 and 2 arrive, in order, QoS 2 once."""
        broker = world.broker
        arrived = [payload for qos, payload in broker.accepted if qos]
        kept = [world.published[one] for one in world.published if one not in world.dropped]
        first = list(dict.fromkeys(arrived))
        # What was dropped may have been sent before. "latest" puts a message where another was.
        first = [one for one in first if one in set(kept)]
        if self.has_latest:
            first.sort()
            kept.sort()
        if first != kept:
            raise Difference("the server got %r instead of %r" % (first, kept))
        if self.options["clean_session"] or broker.losses or "uri" in self.options:
            return  # a message under way may be sent as a new one
        for once in (
            [payload for qos, payload in broker.accepted if qos == 2],
            [(name, payload) for name, qos, payload in world.messages if qos == 2],
        ):
            if len(once) != len(set(once)):
                raise Difference("a message at QoS 2 came twice: %r" % once)


# ---------------------------------------------------------------------------
# Many lives
# ---------------------------------------------------------------------------


def load(new=ROOT, old=OLD):
    """Return the two Clients: release 0.1, and the one of a checkout."""
    return Client([str(old)]), Client([str(pathlib.Path(new) / part) for part in PARTS])


def run_many(first, count, new=ROOT, failures_max=100):
    """Run some lives, fewer if so many fail.

    Returns (failures: seed -> text, allowed, comparisons, lives compared to the end).
    """
    clients = load(new)
    failures = {}
    allowed = collections.Counter()
    compared = exact = 0
    for seed in range(first, first + count):
        life = Life(*clients, seed)
        try:
            life.run()
        except Exception as error:
            failures[seed] = "%s: %s" % (type(error).__name__, error)
        allowed.update(life.allowed)
        compared += life.compared
        exact += life.is_exact
        if len(failures) == failures_max:
            break
    return failures, allowed, compared, exact


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one alone, told action by action")
    parser.add_argument("--new", type=pathlib.Path, default=ROOT, metavar="ROOT")
    options = parser.parse_args(arguments)
    if min(options.runs, options.jobs) < 1:
        parser.error("--runs and --jobs must be 1 or more")
    if not all((options.new / part).is_dir() for part in PARTS):
        parser.error("--new: %s is no checkout" % options.new)
    if options.seed is not None:
        Life(*load(options.new), options.seed, say=print).run()
        print("no difference")
        return 0
    chunk = max(1, min(500, options.runs // options.jobs))
    starts = range(options.first, options.first + options.runs, chunk)
    failures, allowed, compared, exact = {}, collections.Counter(), 0, 0
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        end = options.first + options.runs
        jobs = [pool.submit(run_many, at, min(chunk, end - at), options.new) for at in starts]
        for job in concurrent.futures.as_completed(jobs):
            found = job.result()
            failures.update(found[0])
            allowed.update(found[1])
            compared += found[2]
            exact += found[3]
    for seed in sorted(failures)[:20]:
        print("seed %d: %s" % (seed, failures[seed]))
    print(
        "%d lives, %d of them equal action by action, %d comparisons; %d with a difference"
        % (options.runs, exact, compared, len(failures))
    )
    for why, count in allowed.most_common():
        print("  allowed, %d times: %s" % (count, why))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
