"""The cells of the stall matrix: what goes wrong where, and what the client must make of it.

A cell is one fault at one byte. Cells of the same stage and fault make one row of the table. What
is expected is written here from docs/api.md, docs/user-guide.md ("Errors", "Time-outs") and the
section "Errors" of micropython/mqttpipe.py, never from what the client was seen to do:

    TransportError  stage as the state is                   the connection was closed, or never was
    TimedOut        stage as the state is, or PINGRESP,     a deadline passed
                    ACK, PACKET, WRITE
    Refused         stage CONNACK, with .return_code        the server said no
    ServerError     no stage                                the server broke the protocol
    none            on_offline(None)                        disconnect() was called

Where two answers stand, both are right: it depends on which of two events the client sees first,
and the comment says which.
"""

import dataclasses
import errno
import random

import stall_servers as servers
from stall_servers import (
    BYE,
    CORRUPT,
    DEAF,
    FIN,
    JUNK,
    LATE,
    RST,
    SILENCE,
    SKIP,
    TRICKLE,
    Fault,
)

TCP, TLS = "TCP", "TLS"

# Milliseconds. Short, to have it over soon; long enough for a TLS handshake on this machine.
CONNECT_TIMEOUT_MS = {TCP: 200, TLS: 300}
KEEP_ALIVE_S = 1
RECONNECT_MIN_MS, RECONNECT_MAX_MS = 20, 40
DNS_RETRY_MS = 1500  # the client's own, as the user guide says
# A deadline counts from the client's sending, which we see a little later.
EARLY_MS = {"attempt": 5, "struck": 20, "full": 50}

# When the cell's fault is brought about.
AT_ONCE = "at once"  # by itself, while the client connects
PUSH = "push"  # online; the server sends a message
STRIKE = "strike"  # online; nothing else happens
PUBLISH = "publish"  # online; the client publishes
UNSUBSCRIBE = "unsubscribe"
FLOOD = "flood"  # online; the client publishes as much as it can
DISCONNECT = "disconnect"  # online; the client disconnects
CLOSE = "close"  # online; the client publishes and disconnects
IDLE = "idle"  # online; wait for the ping

# From when the time until the error counts.
ATTEMPT = "attempt"  # the begin of the attempt to connect
STRUCK = "struck"  # the fault
FULL = "full"  # the client has seen that nothing is taken any more, for 30 ms


NOTHING = ("no error", None)  # beside the kind and stage of an error


@dataclasses.dataclass
class Cell:
    """One fault at one byte."""

    transport: str  # TCP or TLS; with the next two, the row
    stage: str
    fault: str
    # Pairs (kind, stage), NOTHING among them: there may be none. Empty: there must be none. A dict
    # of such sets if it depends on what the server was at when the fault struck.
    expected: object
    point: object = None  # which byte, or which variant
    make_fault: object = lambda: None  # () -> Fault or None
    make_names: object = lambda: None  # () -> NameServer or None
    gate: str = "open"  # as this and the next one are for the Server
    certificate: str = "good"
    trigger: str = AT_ONCE
    then: object = None  # how the connection ends when the client has filled it
    is_forgotten: bool = False  # when the fault ends, the server has lost the session
    is_unseen: bool = False  # nobody sees the fault strike: it is there from the beginning
    # When the error must come; the tool adds some patience to the latest time.
    clock: str = STRUCK
    earliest_ms: float = 0
    latest_ms: float = 0
    return_code: object = None  # the error must have this, or None: any
    errno: object = None
    has_complaint: bool = False  # on_error must be called
    calm_ms: float = 0  # if no error is expected: for how long there must be none
    options: dict = dataclasses.field(default_factory=dict)  # of the MQTTClient

    @property
    def row(self):
        return self.transport, self.stage, self.fault

    @property
    def name(self):
        text = "%s, %s, %s" % self.row
        return text if self.point is None else "%s, %s" % (text, self.point)


def sample(count, wanted):
    """Return about `wanted` of the numbers 0..count-1: the first, the last and some between."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(i * (count - 1) / (wanted - 1)) for i in range(wanted)})


class Maker:
    """Makes the cells of one transport."""

    def __init__(self, transport, points, timeout_ms=None):
        self.transport = transport
        self.points = points  # of a longer thing, at most so many; None: every byte
        self.timeout_ms = timeout_ms or CONNECT_TIMEOUT_MS[transport]
        self.cells = []

    def add(self, stage, fault, expected, **details):
        options = {
            "connect_timeout_ms": self.timeout_ms,
            "keep_alive_s": KEEP_ALIVE_S,
            "reconnect_min_ms": RECONNECT_MIN_MS,
            "reconnect_max_ms": RECONNECT_MAX_MS,
            "clean_session": False,
            "client_id": "stall",
        }
        options.update(details.pop("options", {}))
        cell = Cell(self.transport, stage, fault, expected, options=options, **details)
        self.cells.append(cell)
        return cell

    def take(self, numbers):
        numbers = list(numbers)
        if self.points is None:
            return numbers
        return [numbers[i] for i in sample(len(numbers), self.points)]

    def at_deadline(self, clock=STRUCK):
        """The error comes when the time allowed is over."""
        earliest_ms = self.timeout_ms - EARLY_MS[clock]
        return {"clock": clock, "earliest_ms": earliest_ms, "latest_ms": self.timeout_ms}

    def cut(self, stage, moment, numbers, silence, end, trigger=AT_ONCE, clock=STRUCK):
        """Silence, FIN and RST (over TLS close_notify, too) after so many bytes of a packet.

        Args:
            numbers: of bytes. silence, end: what is expected of the one and of the others.
        """
        ends = [FIN, RST] + ([BYE] if self.transport == TLS else [])
        taken = self.take(numbers)
        for how in [SILENCE, *ends]:
            for sent in taken:
                self.add(
                    stage,
                    how,
                    silence if how == SILENCE else end,
                    point=sent,
                    make_fault=lambda how=how, sent=sent: Fault(moment, how, sent),
                    trigger=trigger,
                    **(self.at_deadline(clock) if how == SILENCE else {}),
                )


# ---------------------------------------------------------------------------
# Before there is a connection
# ---------------------------------------------------------------------------


def add_tcp(maker):
    late = maker.at_deadline(ATTEMPT)
    maker.add(
        "TCP connect",
        "SYN unanswered",
        {("TimedOut", "TCP")},
        gate="full",
        is_unseen=True,
        **late,
    )
    maker.add(
        "TCP connect",
        "refused",
        {("TransportError", "TCP")},
        gate="refused",
        errno=errno.ECONNREFUSED,
        is_unseen=True,
    )
    stage = "TLS" if maker.transport == TLS else "CONNACK"
    # The server closes before the client's first byte, or after it.
    ends = {("TransportError", "TCP"), ("TransportError", stage)}
    for how in (SILENCE, FIN, RST):
        maker.add(
            "TCP accepted",
            how,
            {("TimedOut", stage)} if how == SILENCE else ends,
            make_fault=lambda how=how: Fault(servers.ACCEPT, how),
            **(late if how == SILENCE else {}),
        )


# ---------------------------------------------------------------------------
# DNS
# ---------------------------------------------------------------------------

NAME_ERROR, SERVER_FAILURE = 3, 2


def other_identifier(query):
    return bytes((query[0] ^ 0x55,)) + servers.good_answer(query)[1:]


def other_question(query):
    return servers.good_answer(query).replace(b"broker", b"bruker")


# Thirty records whose name is a pointer to itself, at offset 12 + the question's length.
def looping(query):
    at = len(query)
    return servers.make_answer(query, bytes((0xC0 | at >> 8, at & 0xFF)) * 60, 30)


def garbage(seed):
    draw = random.Random(seed)  # the same in each run
    return bytes(draw.randrange(256) for _ in range(draw.choice((1, 11, 12, 40, 300, 512))))


def add_dns(maker):
    timed_out, failed = {("TimedOut", "DNS")}, {("TransportError", "DNS")}
    late = maker.at_deadline(ATTEMPT)

    def add(fault, expected, script, point=None, **details):
        maker.add(
            "DNS",
            fault,
            expected,
            point=point,
            make_names=lambda: servers.NameServer(
                script, details.get("from_elsewhere", False), details.get("is_closed", False)
            ),
            **{k: v for k, v in details.items() if k not in ("from_elsewhere", "is_closed")},
        )

    def always(make, delay_s=0.0):
        return lambda query, number: [(delay_s, make(query))]

    timeout_s = maker.timeout_ms / 1000
    add("no answer", timed_out, lambda query, number: [], **late)
    add("answer too late", timed_out, always(servers.good_answer, 1.5 * timeout_s), **late)
    add("answer late", set(), always(servers.good_answer, 0.5 * timeout_s))
    add(
        "first question lost",
        set(),
        lambda query, number: [(0, servers.good_answer(query))] if number else [],
        options={"connect_timeout_ms": DNS_RETRY_MS + 1000},
    )
    # Four questions are asked, one after the other, and no time is lost between them; what the
    # last one was answered is told.
    add("port closed", failed, None, is_closed=True, is_unseen=True)
    add("SERVFAIL", failed, always(lambda q: servers.make_answer(q, code=SERVER_FAILURE)))
    add("NXDOMAIN", failed, always(lambda q: servers.make_answer(q, code=NAME_ERROR)))
    add("no address", failed, always(servers.make_answer))
    add("TC set", failed, always(lambda q: servers.make_answer(q, flags=0x82)))
    add("wrong id", timed_out, always(other_identifier), **late)
    add("other question", timed_out, always(other_question), **late)
    add("from another port", timed_out, always(servers.good_answer), from_elsewhere=True, **late)
    add("loop", failed, always(looping))
    for seed in range(8 if maker.points else 64):
        add("garbage", timed_out, lambda q, n, seed=seed: [(0, garbage(seed))], point=seed, **late)
    add("flood of garbage", timed_out, lambda q, n: [(0, garbage(i)) for i in range(200)], **late)
    # "broker.test", type and class: 17 bytes behind the header. What is cut before its end is no
    # answer to the question; what is cut in a record is one without an address.
    whole = 12 + 17 + 16
    for size in maker.take(range(whole)):
        cut = always(lambda q, size=size: servers.good_answer(q)[:size])
        if size < 12 + 17:
            add("cut off", timed_out, cut, point=size, **late)
        else:
            add("cut off", failed, cut, point=size)


# ---------------------------------------------------------------------------
# TLS
# ---------------------------------------------------------------------------

HTTP = b"HTTP/1.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
# handshake_failure, protocol_version, internal_error; level fatal (RFC 8446, section 6).
ALERTS = {"handshake_failure": 40, "protocol_version": 70, "internal_error": 80}


def add_tls(maker, handshake_bytes, connack_bytes):
    """Add the cells of the handshake.

    Args:
        handshake_bytes: that the server sends, least; connack_bytes: that CONNACK has in TLS.
    """
    late = maker.at_deadline(ATTEMPT)
    # The length of a signature varies by some bytes: the server says what it was at.
    numbers = range(handshake_bytes + connack_bytes - 8)
    points = None if maker.points is None else 2 * maker.points
    taken = [numbers[i] for i in sample(len(numbers), points or len(numbers))]
    for how in (SILENCE, FIN, RST):
        kind = "TimedOut" if how == SILENCE else "TransportError"
        for sent in taken:
            maker.add(
                "TLS handshake",
                how,
                {"TLS": {(kind, "TLS")}, "CONNACK": {(kind, "CONNACK")}},
                point=sent,
                make_fault=lambda how=how, sent=sent: Fault(servers.TLS_BYTES, how, sent),
                **(late if how == SILENCE else {}),
            )
    # A length that has become too long makes the client wait. Behind the handshake TLS still finds
    # the damage, though the client waits for CONNACK: either stage tells that. The version in the
    # header of a record is to be ignored (RFC 8446, section 5.1), but some look at it.
    either = {("TransportError", "TLS"), ("TimedOut", "TLS")}
    behind = {("TransportError", "TLS"), ("TransportError", "CONNACK"), ("TimedOut", "CONNACK")}
    expected = {"TLS": either, "CONNACK": behind, servers.RECORD_VERSION: behind | {NOTHING}}
    for sent in taken:
        maker.add(
            "TLS handshake",
            "bit flipped",
            expected,
            point=sent,
            make_fault=lambda sent=sent: Fault(servers.TLS_BYTES, CORRUPT, sent),
            latest_ms=maker.timeout_ms,
        )
    for name, junk in (("HTTP", HTTP), ("MQTT", servers.CONNACK_WIRE), ("zeros", bytes(64))):
        # Four bytes are no whole header of a TLS record, and could still become one.
        answer = {("TimedOut", "TLS")} if len(junk) < 5 else {("TransportError", "TLS")}
        maker.add(
            "TLS handshake",
            "answer in plain text",
            answer,
            point=name,
            make_fault=lambda junk=junk: Fault(servers.TLS_BYTES, SILENCE, junk=junk),
            latest_ms=maker.timeout_ms,
        )
        # Whoever speaks at once may be heard before the handshake begins.
        maker.add(
            "TLS handshake",
            "greeting in plain text",
            answer | {("TransportError", "TCP")},
            point=name,
            make_fault=lambda junk=junk: Fault(servers.ACCEPT, SILENCE, junk=junk),
            latest_ms=maker.timeout_ms,
        )
    for name, code in ALERTS.items():
        maker.add(
            "TLS handshake",
            "alert",
            {("TransportError", "TLS")},
            point=name,
            make_fault=lambda code=code: Fault(
                servers.TLS_BYTES, FIN, junk=b"\x15\x03\x03\x00\x02\x02" + bytes((code,))
            ),
        )
    for name in ("wrong host", "unknown CA", "expired", "not yet valid"):
        maker.add(
            "TLS handshake",
            "certificate",
            {("TransportError", "TLS")},
            point=name,
            certificate=name,
        )


# ---------------------------------------------------------------------------
# CONNACK, SUBACK
# ---------------------------------------------------------------------------


def add_connack(maker):
    timed_out, failed = {("TimedOut", "CONNACK")}, {("TransportError", "CONNACK")}
    maker.cut("CONNACK", "CONNACK", range(4), timed_out, failed, clock=ATTEMPT)
    for code in range(1, 6):
        maker.add(
            "CONNACK",
            "refused",
            {("Refused", "CONNACK")},
            point=code,
            return_code=code,
            make_fault=lambda code=code: Fault(
                "CONNACK", JUNK, junk=b"\x20\x02\x00" + bytes((code,))
            ),
        )
    broken = {("ServerError", None)}
    for point, junk in (
        ("type 0", b"\x00\x00"),
        ("type 15", b"\xf0\x00"),
        ("CONNECT", b"\x10\x02\x00\x00"),
        ("PUBLISH first", b"\x30\x05\x00\x01a!!"),
        ("PINGRESP first", servers.PINGRESP_WIRE),
        ("SUBACK first", b"\x90\x03\x00\x01\x00"),
        ("flags", b"\x20\x02\x02\x00"),
        ("3 bytes", b"\x20\x03\x00\x00\x00"),
        ("fixed flags", b"\x21\x02\x00\x00"),
        ("length of 5 bytes", b"\x20\xff\xff\xff\xff\x01"),
        ("HTTP", HTTP),
        ("TLS alert", b"\x15\x03\x01\x00\x02\x02\x46"),
    ):
        maker.add(
            "CONNACK",
            "garbage",
            broken,
            point=point,
            make_fault=lambda junk=junk: Fault("CONNACK", JUNK, junk=junk),
        )
    add_slow(maker, "CONNACK", "CONNACK", AT_ONCE, 4)


def add_slow(maker, stage, moment, trigger, size):
    """Add the cells of a server that is slow, but within the time: nothing may happen."""
    slow_s = 0.3 * maker.timeout_ms / 1000
    for fault, how, delay_s in (
        ("late, but in time", LATE, slow_s),
        ("byte by byte", TRICKLE, slow_s / size),
    ):
        maker.add(
            stage,
            fault,
            set(),
            make_fault=lambda how=how, delay_s=delay_s: Fault(moment, how, delay_s=delay_s),
            trigger=trigger,
            calm_ms=1000 * slow_s,
        )


def add_suback(maker):
    timed_out, failed = {("TimedOut", "SUBACK")}, {("TransportError", "SUBACK")}
    maker.cut("SUBACK", "SUBACK", range(5), timed_out, failed)
    broken = {("ServerError", None)}
    for point, junk, errors in (
        ("wrong id", b"\x90\x03\x77\x77\x02", timed_out),
        ("id 0", b"\x90\x03\x00\x00\x02", broken),
        ("code 3", b"\x90\x03\xff\x01\x03", broken),
        ("two codes", b"\x90\x04\xff\x01\x02\x02", broken),
        ("no code", b"\x90\x02\xff\x01", broken),
        ("CONNACK again", servers.CONNACK_WIRE, broken),
        ("UNSUBACK", b"\xb0\x02\xff\x01", timed_out),
    ):
        maker.add(
            "SUBACK",
            "garbage",
            errors,
            point=point,
            make_fault=lambda junk=junk: Fault("SUBACK", JUNK, junk=junk),
            **(maker.at_deadline() if errors is timed_out else {}),
        )
    add_slow(maker, "SUBACK", "SUBACK", AT_ONCE, 5)


# ---------------------------------------------------------------------------
# Online: the server sends
# ---------------------------------------------------------------------------


def add_publish(maker):
    # The client publishes soon after. On a busy machine it has read no byte of ours by then: both
    # times begin in one step.
    timed_out = {("TimedOut", "PACKET"), ("TimedOut", "ACK")}
    failed = {("TransportError", "ONLINE")}
    header = servers.PUSH_HEADER_BYTES
    topic = header + servers.PUSH_TOPIC_BYTES
    payload = topic + servers.PUSH_ID_BYTES
    for stage, numbers in (
        ("PUBLISH: fixed header", range(1, header)),
        ("PUBLISH: topic name", range(header, topic)),
        ("PUBLISH: packet id", range(topic, payload)),
        ("PUBLISH: payload", range(payload, len(servers.PUSH_WIRE))),
    ):
        maker.cut(stage, "PUBLISH", numbers, timed_out, failed, trigger=PUSH)
    add_slow(maker, "PUBLISH: all of it", "PUBLISH", PUSH, len(servers.PUSH_WIRE))
    maker.cut("PUBREL", "PUBREL", range(1, 4), timed_out, failed, trigger=PUSH)
    # A server that keeps its PUBREL back owes nothing that has a deadline.
    maker.add(
        "PUBREL",
        SKIP,
        set(),
        make_fault=lambda: Fault("PUBREL", SKIP),
        trigger=PUSH,
        calm_ms=2 * maker.timeout_ms,
    )


def add_garbage(maker):
    for point, junk in (
        ("type 0", b"\x00\x00"),
        ("type 15", b"\xf0\x00"),
        ("CONNECT", b"\x10\x00"),
        ("CONNACK", servers.CONNACK_WIRE),
        ("SUBSCRIBE", b"\x82\x06\x00\x01\x00\x01a\x00"),
        ("PINGREQ", b"\xc0\x00"),
        ("DISCONNECT", b"\xe0\x00"),
        ("PINGRESP of 1 byte", b"\xd0\x01\x00"),
        ("PUBACK of 3 bytes", b"\x40\x03\x00\x01\x00"),
        ("PUBACK of id 0", b"\x40\x02\x00\x00"),
        ("PUBREL with wrong flags", b"\x60\x02\x00\x01"),
        ("length of 5 bytes", b"\x30\xff\xff\xff\xff\x01"),
        ("QoS 3", b"\x36\x05\x00\x01a\x00\x01"),
        ("PUBLISH with id 0", b"\x32\x05\x00\x01a\x00\x00"),
        ("PUBLISH without topic", b"\x30\x02\x00\x00"),
        ("topic beyond the end", b"\x30\x03\x00\x09a"),
        ("topic not UTF-8", b"\x30\x04\x00\x02\xc3\x28"),
        ("topic with U+0000", b"\x30\x03\x00\x01\x00"),
        ("HTTP", HTTP),
        ("0xFF x 1000", b"\xff" * 1000),
    ):
        maker.add(
            "online",
            "garbage",
            {("ServerError", None)},
            point=point,
            make_fault=lambda junk=junk: Fault(servers.ORDERED, JUNK, junk=junk),
            trigger=STRIKE,
        )
    # What is passed over: the connection goes on.
    for point, junk in (
        ("PUBACK unasked", b"\x40\x02\x12\x34"),
        ("SUBACK unasked", b"\x90\x03\x12\x34\x00"),
        ("UNSUBACK unasked", b"\xb0\x02\x12\x34"),
        ("QoS 0 with DUP", b"\x38\x03\x00\x01a"),
        ("topic with wildcard", b"\x30\x03\x00\x01#"),
    ):
        maker.add(
            "online",
            "passed over",
            set(),
            point=point,
            make_fault=lambda junk=junk: Fault(servers.ORDERED, JUNK, junk=junk, is_alive=True),
            trigger=STRIKE,
            has_complaint="wildcard" in point,
        )
    # A packet that claims the most there can be, and comes no further.
    maker.add(
        "online",
        "huge packet, cut",
        {("TimedOut", "PACKET")},
        make_fault=lambda: Fault(
            servers.ORDERED, JUNK, junk=b"\x30\xff\xff\xff\x7f\x00\x01a" + bytes(5000)
        ),
        trigger=STRIKE,
        has_complaint=True,
        **maker.at_deadline(),
    )
    # Much that is legal: step(0) must not go on as long as there is something to read. Small
    # packets; and one that is larger than the client takes, as fast as the server can send.
    flood = (b"\x30\x0c\x00\x05other" + b"flood") * 10_000
    size = 16_000_000
    length = bytes(
        (size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21)
    )
    large = b"\x30" + length + b"\x00\x05other" + bytes(size - 7)
    for fault, junk in (("flood of packets", flood), ("flood: one huge packet", large)):
        maker.add(
            "online",
            fault,
            set(),
            make_fault=lambda junk=junk: Fault(servers.ORDERED, JUNK, junk=junk, is_alive=True),
            trigger=STRIKE,
            has_complaint=junk is large,
        )


# ---------------------------------------------------------------------------
# Online: the server owes an answer
# ---------------------------------------------------------------------------


def add_answers(maker):
    failed = {("TransportError", "ONLINE")}
    # Of one answer, bytes have come: the time for the answer and that for the rest of the packet
    # began within a millisecond of each other.
    answer = {("TimedOut", "ACK"), ("TimedOut", "PACKET")}
    for name in ("PUBACK", "PUBREC", "PUBCOMP"):
        maker.cut(name, name, range(4), answer, failed, trigger=PUBLISH)
        maker.add(
            name,
            SKIP,
            {("TimedOut", "ACK")},
            make_fault=lambda name=name: Fault(name, SKIP),
            trigger=PUBLISH,
            **maker.at_deadline(),
        )
        add_slow(maker, name, name, PUBLISH, 4)
    # Passed over as well, but what is owed does not come.
    for name, point, junk in (
        ("PUBACK", "wrong id", b"\x40\x02\x77\x77"),
        ("PUBACK", "PUBREC instead", b"\x50\x02\x00\x02"),
        ("PUBREC", "PUBCOMP instead", b"\x70\x02\x00\x03"),
        ("PUBCOMP", "PUBACK instead", b"\x40\x02\x00\x03"),
    ):
        maker.add(
            name,
            "garbage",
            {("TimedOut", "ACK")},
            point=point,
            make_fault=lambda name=name, junk=junk: Fault(name, JUNK, junk=junk),
            trigger=PUBLISH,
            **maker.at_deadline(),
        )
    # A server that does not do QoS 2: the exchange ends so, and that is told.
    maker.add(
        "PUBREC",
        "PUBACK instead",
        set(),
        make_fault=lambda: Fault("PUBREC", JUNK, junk=b"\x40\x02\x00\x03", is_alive=True),
        trigger=PUBLISH,
        has_complaint=True,
    )
    maker.cut("UNSUBACK", "UNSUBACK", range(4), answer, failed, trigger=UNSUBSCRIBE)
    maker.add(
        "online",
        "restart, session lost",
        failed,
        make_fault=lambda: Fault(servers.ORDERED, RST),
        trigger=STRIKE,
        is_forgotten=True,
    )
    # Online and silent: what is published finds no answer.
    maker.cut("online", servers.ORDERED, (0,), {("TimedOut", "ACK")}, failed, trigger=STRIKE)


def add_ping(maker):
    failed = {("TransportError", "ONLINE")}
    timed_out = {("TimedOut", "PINGRESP"), ("TimedOut", "PACKET")}
    maker.cut("PINGRESP", "PINGRESP", range(2), timed_out, failed, trigger=IDLE)
    maker.add(
        "PINGRESP",
        SKIP,
        {("TimedOut", "PINGRESP")},
        make_fault=lambda: Fault("PINGRESP", SKIP),
        trigger=IDLE,
        **maker.at_deadline(),
    )


def add_full_window(maker):
    def deaf():
        return Fault(servers.ORDERED, DEAF)

    # QoS 0 only is in flight when the window is full. If the system takes some more after all, so
    # goes the message of QoS 1 that comes then, or a PINGREQ: its deadline may end first.
    for then, expected, when in (
        (
            None,
            {("TimedOut", "WRITE"), ("TimedOut", "ACK"), ("TimedOut", "PINGRESP")},
            maker.at_deadline(FULL),
        ),
        (RST, {("TransportError", "ONLINE")}, {"clock": FULL}),
        # While the outbox is full nothing is read, either: FIN may stay unseen.
        (
            FIN,
            {("TransportError", "ONLINE"), ("TimedOut", "WRITE")},
            {"clock": FULL, "latest_ms": maker.timeout_ms},
        ),
    ):
        maker.add(
            "full window",
            then or "never reads",
            expected,
            make_fault=deaf,
            trigger=FLOOD,
            then=then,
            **when,
        )


# ---------------------------------------------------------------------------
# The end
# ---------------------------------------------------------------------------


def add_end(maker):
    wanted = {("none", None)}
    for how in (SILENCE, FIN, RST):
        maker.add(
            "after DISCONNECT",
            how,
            wanted,
            make_fault=lambda how=how: Fault("DISCONNECT", how),
            trigger=DISCONNECT,
        )
    # The message has left some milliseconds before disconnect(): both deadlines are the same long.
    maker.add(
        "draining",
        SILENCE,
        wanted | {("TimedOut", "ACK")},
        make_fault=lambda: Fault("PUBACK", SILENCE),
        trigger=CLOSE,
        **maker.at_deadline(),
    )
    for how in (FIN, RST):
        maker.add(
            "draining",
            how,
            {("TransportError", "DISCONNECT")},
            make_fault=lambda how=how: Fault("PUBACK", how),
            trigger=CLOSE,
        )


def healthy_cell(transport, timeout_ms=None):
    """Return a cell in which nothing goes wrong, to look at what a server sends."""
    maker = Maker(transport, None, timeout_ms)
    return maker.add("healthy", "none", set(), make_fault=lambda: Fault("SUBACK", LATE))


def make_cells(points=4, handshake=None, timeout_ms=None):
    """Return all cells.

    Args:
        points: of each longer packet at most so many bytes are taken; None: every byte.
        handshake: None: no TLS; else (bytes of a handshake, bytes of CONNACK) from the server.
        timeout_ms: connect_timeout_ms of the client; None: CONNECT_TIMEOUT_MS.
    """
    cells = []
    for transport in (TCP, TLS) if handshake else (TCP,):
        maker = Maker(transport, points, timeout_ms)
        add_tcp(maker)
        if transport == TCP:
            add_dns(maker)
        else:
            add_tls(maker, *handshake)
        for add in (
            add_connack,
            add_suback,
            add_publish,
            add_answers,
            add_ping,
            add_garbage,
            add_full_window,
            add_end,
        ):
            add(maker)
        cells += maker.cells
    return cells


# Of --short: the cell in the middle of each of these rows. What differs most from the others, and
# little that has to wait.
SHORT_ROWS = {
    (TCP, "TCP connect", "SYN unanswered"),
    (TCP, "TCP connect", "refused"),
    (TCP, "TCP accepted", RST),
    (TCP, "DNS", "no answer"),
    (TCP, "DNS", "answer late"),
    (TCP, "DNS", "port closed"),
    (TCP, "DNS", "NXDOMAIN"),
    (TCP, "DNS", "loop"),
    (TCP, "DNS", "flood of garbage"),
    (TCP, "CONNACK", SILENCE),
    (TCP, "CONNACK", FIN),
    (TCP, "CONNACK", RST),
    (TCP, "CONNACK", "refused"),
    (TCP, "CONNACK", "garbage"),
    (TCP, "SUBACK", SILENCE),
    (TCP, "SUBACK", RST),
    (TCP, "PUBLISH: fixed header", RST),
    (TCP, "PUBLISH: topic name", FIN),
    (TCP, "PUBLISH: payload", SILENCE),
    (TCP, "PUBLISH: all of it", "byte by byte"),
    (TCP, "PUBREL", RST),
    (TCP, "PUBACK", SKIP),
    (TCP, "PUBREC", FIN),
    (TCP, "PUBREC", "garbage"),
    (TCP, "PUBCOMP", SKIP),
    (TCP, "UNSUBACK", RST),
    (TCP, "online", SILENCE),
    (TCP, "online", RST),
    (TCP, "online", "restart, session lost"),
    (TCP, "online", "garbage"),
    (TCP, "online", "flood: one huge packet"),
    (TCP, "PINGRESP", SKIP),
    (TCP, "full window", "never reads"),
    (TCP, "full window", RST),
    (TCP, "after DISCONNECT", SILENCE),
    (TCP, "draining", SILENCE),
    (TCP, "draining", RST),
    (TLS, "TCP accepted", SILENCE),
    (TLS, "TLS handshake", SILENCE),
    (TLS, "TLS handshake", RST),
    (TLS, "TLS handshake", "bit flipped"),
    (TLS, "TLS handshake", "answer in plain text"),
    (TLS, "TLS handshake", "certificate"),
    (TLS, "CONNACK", RST),
    (TLS, "SUBACK", BYE),
    (TLS, "PUBLISH: payload", SILENCE),
    (TLS, "PUBLISH: payload", FIN),
    (TLS, "PUBACK", SKIP),
    (TLS, "PUBCOMP", RST),
    (TLS, "full window", RST),
    (TLS, "after DISCONNECT", SILENCE),
}


def choose_short(cells):
    """Return the cells of --short."""
    rows = {}
    for cell in cells:
        if cell.row in SHORT_ROWS:
            rows.setdefault(cell.row, []).append(cell)
    return [row[len(row) // 2] for row in rows.values()]
