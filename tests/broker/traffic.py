"""Many messages both ways between our client and paho, and the books about them.

`run()` starts scenarios/exchange.py and a paho client, has each publish numbered messages to the
other, and returns Books: for each direction and QoS a Ledger that says what was lost, what came
twice, and what came too late.

Brokers make mistakes as well. When mosquitto 2.0.11 is restarted, with its persistence, it forgets
at times that it has sent PUBREL, and sends the PUBLISH once more, to paho as to us, against
[MQTT-4.3.3-1]. Its receiver has forgotten the packet identifier by then, as it must, and takes the
message for a new one. So a Witness reads along on both links: a message at QoS 2 may come twice
only if the broker was seen to send it so, marked as DUP. Over TLS it can't read, and mosquitto
does it there without a restart (seen in its log, with log_type all): once the connection to our
client was cut, repetitions in that direction are let pass.
"""

import collections
import functools
import threading
import time

from proxy import DOWN, UP

OUT = "out"  # from our client to paho
IN = "in"

BATCH = 20  # messages of each QoS that paho publishes in one go
AHEAD_MAX = 100  # messages that may wait in the broker, so that cuts fall on all of them
QUIET_S = 0.25  # without a session: nothing more of a batch seems to come

FILLING = b"abcdefghijklmnopqrstuvwxyz" * 3


def payload_of(number):
    """The payload of a message; the same as in scenarios/exchange.py."""
    return b"%d " % number + FILLING[: number % 61]


class Witness:
    """Reads along on a link: which QoS 2 messages are published again after their PUBREL?

    repeated[direction][number]: how often.
    """

    def __init__(self):
        self.repeated = {UP: collections.Counter(), DOWN: collections.Counter()}
        self._bufs = {}
        self._numbers = {UP: {}, DOWN: {}}  # by packet identifier, the latest message's
        self._released = {UP: set(), DOWN: set()}
        self._lock = threading.Lock()

    def on_bytes(self, connection, direction, data):
        """For Proxy: take bytes that were passed on."""
        with self._lock:
            buf = self._bufs.setdefault((connection, direction), bytearray())
            buf += data
            while True:
                packet = take_packet(buf)
                if not packet:
                    return
                self._on_packet(direction, *self._as_4(connection, direction, *packet))

    # A packet as MQTT 3.1.1 has it.
    def _as_4(self, connection, direction, first_byte, body):
        return first_byte, body

    def _on_packet(self, direction, first_byte, body):
        if first_byte & 0xF6 == 0x34:  # PUBLISH, QoS 2
            at = 2 + int.from_bytes(body[:2], "big")
            packet_id = body[at : at + 2]
            number = int(body[at + 2 :].partition(b" ")[0] or 0)
            self._numbers[direction][packet_id] = number
            # A copy without DUP is another message: who published it has published it twice.
            if number in self._released[direction] and (direction == UP or first_byte & 0x08):
                self.repeated[direction][number] += 1
        elif first_byte == 0x62:  # PUBREL
            number = self._numbers[direction].get(body)
            self._released[direction].add(number)


def take_packet(buf):
    """Take a whole packet off the start of a bytearray: (first byte, body), or None."""
    length = 0
    for at in range(1, min(len(buf), 5)):
        length |= (buf[at] & 0x7F) << 7 * (at - 1)
        if buf[at] < 0x80:
            end = at + 1 + length
            if len(buf) < end:
                return None
            packet = buf[0], bytes(buf[at + 1 : end])
            del buf[:end]
            return packet
    return None


class Ledger:
    """Which of the messages 1 to `sent` arrived, how often, and in which order."""

    def __init__(self, sent):
        self.sent = sent
        self.times = [0] * (sent + 1)
        self.received = 0  # repetitions included
        self.different = 0
        self.late = 0  # first arrivals that came after a higher number
        self.broken = []
        self.repeated = {}  # number -> how often the broker has repeated it without need
        self._highest = 0

    def enter(self, number):
        if not 1 <= number <= self.sent:
            self.broken.append(number)
            return
        self.received += 1
        self.times[number] += 1
        if self.times[number] == 1:
            self.different += 1
            if number < self._highest:
                self.late += 1
            self._highest = max(self._highest, number)

    @property
    def lost(self):
        return self.sent - self.different

    @property
    def duplicated(self):
        return self.received - self.different

    @property
    def unexcused(self):
        """Repetitions that the broker has not made."""
        return sum(
            max(0, times - 1 - self.repeated.get(number, 0))
            for number, times in enumerate(self.times)
        )

    def missing(self):
        return [number for number in range(1, self.sent + 1) if not self.times[number]]

    def __repr__(self):
        text = "sent %d received %d lost %d duplicated %d (%d not by the broker) late %d"
        return (text + " broken %r missing %r") % (
            self.sent,
            self.received,
            self.lost,
            self.duplicated,
            self.unexcused,
            self.late,
            self.broken[:5],
            self.missing()[:10],
        )


class Books:
    """The Ledgers of a run, by (direction, QoS), and what was survived.

    again: messages that paho published once more because a client without a session had missed
    them. stats: the client's own.
    """

    HEADING = "way QoS   sent  received   lost  duplicated  by broker   cuts"

    def __init__(self, counts_out, counts_in):
        self.ledgers = {}
        for direction, counts in ((OUT, counts_out), (IN, counts_in)):
            for qos, count in enumerate(counts):
                if count:
                    self.ledgers[direction, qos] = Ledger(count)
        self.again = self.cuts = 0
        self.stats = {}
        self.is_encrypted = False  # nobody can read along
        self.ours = Witness()  # on our client's link
        self.pahos = Witness()

    def rows(self):
        """Return a line for each Ledger, as HEADING says."""
        for (direction, qos), ledger in self.ledgers.items():
            counts = ledger.sent, ledger.received, ledger.lost, ledger.duplicated
            excused = ledger.duplicated - ledger.unexcused
            text = "%-3s  %d  %6d  %8d  %5d  %10d  %9d  %5d"
            yield text % (direction, qos, *counts, excused, self.cuts)

    def hear_witnesses(self):
        """Charge to the broker what it has repeated. Only with a session: without, it may."""
        for direction, witness in ((OUT, self.pahos), (IN, self.ours)):
            if (direction, 2) in self.ledgers:
                self.ledgers[direction, 2].repeated = witness.repeated[DOWN]

    def check(self, is_session_kept):
        """Assert what MQTT promises, and nothing more."""
        for (direction, qos), ledger in self.ledgers.items():
            case = "%s, QoS %d: %r" % (direction, qos, ledger)
            assert not ledger.broken, case
            if qos == 0:
                assert not ledger.duplicated, case  # at most once
            else:
                assert not ledger.lost, case
            # Messages published again by the test come late, of course.
            if is_session_kept or direction == OUT:
                assert not ledger.late, case
            is_excused = self.is_encrypted and self.cuts and direction == IN
            if qos == 2 and is_session_kept and not is_excused:
                assert not ledger.unexcused, case
        if is_session_kept:
            # [MQTT-4.3.3-1] for our own client: no PUBLISH once it has sent PUBREL.
            assert not self.ours.repeated[UP], self.ours.repeated[UP]


class _Run:
    def __init__(self, start, add_peer, uri, peer_uri, topic, books, options, timeout_s):
        self.topic = topic
        self.books = books
        self.deadline = time.monotonic() + timeout_s
        self.is_ended = False
        self.connections = 0
        self.is_session_kept = not options.get("clean_session", True)
        # With a session, so that what comes while it is away is kept for it.
        client_id = topic.replace("/", "-")
        self.peer = add_peer(peer_uri, client_id=client_id + "-paho", on_message=self.on_message)
        self.peer.subscribe(topic + "/out/#", topic + "/end")
        counts = {key: ledger.sent for key, ledger in books.ledgers.items()}
        self.client = start(
            "exchange.py",
            dict(
                uri=uri,
                client_id=client_id,
                reconnect_min_ms=2,
                reconnect_max_ms=10,
                **options,
            ),
            topic,
            ",".join(str(counts.get((OUT, qos), 0)) for qos in range(3)),
            "".join(str(qos) for qos in range(3) if (IN, qos) in counts) or "-",
            str(int(timeout_s) + 5),
            on_event=self.on_event,
        )

    # -- what arrives ----------------------------------------------------------

    def on_message(self, message):
        if message.topic_name == self.topic + "/end":
            self.is_ended = True
            return
        qos = int(message.topic_name[-1])
        ledger = self.books.ledgers[OUT, qos]
        number = message.payload.partition(b" ")[0]
        is_whole = number.isdigit() and message.payload == payload_of(int(number))
        if is_whole and message.qos == qos:
            ledger.enter(int(number))
        else:
            ledger.broken.append(message)

    # True: dealt with here, not to be kept.
    def on_event(self, event):
        if event[0] == "online":
            self.connections = event[1]
        elif event[0] == "in":
            self.books.ledgers[IN, event[1]].enter(event[2])
        elif event[0] == "broken":
            self.books.ledgers[IN, event[1]].broken.append(event[2])
        else:
            return False
        return event[0] == "in"

    # -- what we do --------------------------------------------------------------

    def left_s(self):
        return self.deadline - time.monotonic()

    def wait(self, waiting, condition, what):
        waiting.wait_until(condition, "%s; %r" % (what, self.books.ledgers), self.left_s())

    def ledgers_in(self):
        return {qos: book for (way, qos), book in self.books.ledgers.items() if way == IN}

    def publish(self, batch):
        messages = [
            ("%s/in/%d" % (self.topic, qos), payload_of(number), qos) for qos, number in batch
        ]
        self.peer.publish_all(messages, self.left_s())

    def publish_all(self):
        """Publish what the client shall receive, in batches."""
        counts = {qos: ledger.sent for qos, ledger in self.ledgers_in().items()}
        most = max(counts.values(), default=0)
        for first in range(1, most + 1, BATCH):
            numbers = range(first, first + BATCH)
            batch = [(q, n) for n in numbers for q in counts if n <= counts[q]]
            connections = self.connections
            self.publish(batch)
            if self.is_session_kept:
                is_near = functools.partial(self.is_near, batch)
                self.wait(self.client, is_near, "the client is behind")
            else:
                self.wait_for_batch(batch, connections)

    def is_near(self, batch):
        """With a session all will come: false while too much is on its way."""
        last = {qos: number for qos, number in batch if qos}
        books = self.ledgers_in()
        return all(books[qos].different >= number - AHEAD_MAX for qos, number in last.items())

    def wait_for_batch(self, batch, connections):
        """Without a session, what comes while the client is away is gone: wait no longer then."""
        books = self.ledgers_in()

        def is_over():
            is_there = all(books[qos].times[number] for qos, number in batch if qos)
            return is_there or self.connections != connections

        self.wait_while_it_moves(is_over)

    # Until the condition is true, or nothing has come for a moment.
    def wait_while_it_moves(self, condition):
        received = -1
        while received != self.received_in() and not condition():
            received = self.received_in()
            try:
                self.client.wait_until(condition, "", QUIET_S)
            except AssertionError:
                assert not self.client.is_over() and self.left_s() > 0, self.client.story()

    def received_in(self):
        return sum(book.received for book in self.ledgers_in().values())

    def publish_what_is_missing(self):
        """Publish once more what a client without a session has missed, until it has all."""
        books = {qos: book for qos, book in self.ledgers_in().items() if qos}
        while True:
            missing = [(qos, n) for qos, book in books.items() for n in book.missing()]
            if not missing:
                return
            batch = missing[: 3 * BATCH]
            self.books.again += len(batch)
            connections = self.connections
            self.publish(batch)
            self.wait_for_batch(batch, connections)

    def finish(self):
        ledgers = self.books.ledgers
        for (way, qos), book in ledgers.items():
            if qos and way == IN:
                self.wait(self.client, lambda book=book: not book.lost, "messages are missing")
        if any(way == OUT for way, _ in ledgers):
            self.client.next("sent", self.left_s())
        for (way, qos), book in ledgers.items():
            if qos and way == OUT:
                self.wait(self.peer, lambda book=book: not book.lost, "messages are missing")
        self.books.stats = self.client.finish()
        # What the broker still had for paho comes before this.
        self.peer.publish(self.topic + "/end", b"", 2)
        self.wait(self.peer, lambda: self.is_ended, "the last message is missing")


def run(
    start,
    add_peer,
    add_proxy,
    broker,
    topic,
    counts_out=(),
    counts_in=(),
    cuts=(),
    timeout_s=30,
    **options,
):
    """Exchange messages through a proxy until all that must arrive has arrived.

    Args:
        start, add_peer, add_proxy, topic: fixtures of conftest.py.
        counts_out, counts_in: how many messages of QoS 0, 1 and 2.
        cuts: of our client's connections.
        options: of MQTTClient.

    Returns:
        The Books.
    """
    books = Books(counts_out, counts_in)
    books.is_encrypted = broker.uri.startswith("mqtts:")
    ours = pahos = None
    if not books.is_encrypted:
        ours, pahos = books.ours.on_bytes, books.pahos.on_bytes
    proxy = add_proxy(cuts, broker, on_bytes=ours)
    peers_proxy = add_proxy((), broker, on_bytes=pahos)
    uris = proxy.uri, peers_proxy.uri
    work = _Run(start, add_peer, *uris, topic, books, options, timeout_s)
    work.wait(work.client, lambda: work.connections, "never online")
    work.publish_all()
    if not work.is_session_kept:
        work.publish_what_is_missing()
    work.finish()
    books.cuts = proxy.cuts
    if work.is_session_kept:
        books.hear_witnesses()
    print(books.HEADING)
    for row in books.rows():
        print(row)
    print("published again by the test: %d; client: %r" % (books.again, books.stats))
    return books
