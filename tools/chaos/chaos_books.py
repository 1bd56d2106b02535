"""What was accepted, what came, and who has lost the difference."""

import json

from traffic import Ledger, Witness

from proxy import DOWN, UP


class Book(Ledger):
    """A Ledger of messages whose number is not known before.

    gone: numbers that the broker has lost when it was killed. anew: those whose exchange at QoS 2
    was under way for the client when the broker lost the session: they may come twice.
    """

    def __init__(self):
        super().__init__(0)
        self.gone = set()
        self.anew = set()

    def grow(self, sent):
        """Messages up to this number are on their way."""
        if sent > self.sent:
            self.times += [0] * (sent - self.sent)
            self.sent = sent

    @property
    def lost(self):
        return len(self.lost_numbers())

    def lost_numbers(self):
        return [number for number in self.missing() if number not in self.gone]

    @property
    def lost_by_broker(self):
        return len(self.missing()) - self.lost

    @property
    def unexcused(self):
        return sum(
            max(0, times - 1 - self.repeated.get(number, 0))
            for number, times in enumerate(self.times)
            if number not in self.anew
        )

    def charge_broker(self, numbers):
        """The broker has forgotten these: those that have not come by now are its loss."""
        numbers = list(numbers)
        self.grow(max(numbers, default=0))
        self.gone.update(number for number in numbers if not self.times[number])

    def as_dict(self):
        return {
            "accepted": self.sent,
            "delivered": self.different,
            "lost": self.lost,
            "lost_by_broker": self.lost_by_broker,
            "duplicated": self.duplicated,
            "duplicated_not_by_broker": self.unexcused,
            "late": self.late,
        }

    def __repr__(self):
        return "%s, lost: %r, broken: %r" % (
            json.dumps(self.as_dict()),
            self.lost_numbers()[:10],
            self.broken[:5],
        )


class Reader(Witness):
    """A Witness that knows, too, what the broker has acknowledged, and which filters it has.

    acknowledged: for QoS 1 and 2, the numbers of what needs nothing more. filters: those it has
    granted. by_alias: how many messages of each direction came without their topic name. taken:
    for each QoS, the numbers of what the client has acknowledged: it is behind its callback.

    Args: topic: of the client. protocol: 4 or 5.
    """

    def __init__(self, topic, protocol=4):
        super().__init__()
        self._is_5 = protocol == 5
        self._aliases = {}  # (connection, direction, alias) -> topic name as on the wire
        self.by_alias = {UP: 0, DOWN: 0}
        self._out, self._in = ((topic + way).encode() for way in ("/out/", "/in/"))
        self.taken = [set(), set(), set()]  # the broker's memory has nothing to do with that
        self._forget()

    def _forget(self):
        self.acknowledged = {1: set(), 2: set()}
        self.filters = set()
        self._published = {}  # packet identifier -> (QoS, number)
        self._delivered = {}  # the same, to the client
        self._asked = {}  # packet identifier -> filter

    def start_anew(self):
        """The broker has lost its memory."""
        with self._lock:
            self._forget()

    # MQTT 5.0: without properties and reason codes, and with the topic name of an alias.
    def _as_4(self, connection, direction, first_byte, body):
        kind = first_byte & 0xF0
        if not self._is_5:
            return first_byte, body
        if kind in (0x80, 0x90, 0xA0, 0xB0):
            _, end = take_properties(body, 2)
            body = body[:2] + body[end:]
        elif 0x40 <= kind <= 0x70:
            body = body[:2]
        elif kind == 0x30:
            end = 2 + int.from_bytes(body[:2], "big")
            topic = body[:end]
            number = body[end : end + 2] if first_byte & 6 else b""
            alias, payload_at = take_properties(body, end + len(number))
            if alias and end == 2:
                topic = self._aliases[connection, direction, alias]
                self.by_alias[direction] += 1
            elif alias:
                self._aliases[connection, direction, alias] = topic
            body = topic + number + body[payload_at:]
        return first_byte, body

    def _on_packet(self, direction, first_byte, body):
        super()._on_packet(direction, first_byte, body)
        kind = first_byte & 0xF0
        if kind == 0x30 and first_byte & 6:
            at = 2 + int.from_bytes(body[:2], "big")
            prefix, found = self._out, self._published
            if direction == DOWN:
                prefix, found = self._in, self._delivered
            found.pop(body[at : at + 2], None)
            if body[2:at].startswith(prefix):
                number = int(body[at + 2 :].partition(b" ")[0])
                found[body[at : at + 2]] = first_byte >> 1 & 3, number
        elif direction == UP and kind in (0x40, 0x50) and body in self._delivered:
            qos, number = self._delivered.pop(body)
            self.taken[qos].add(number)
        elif direction == UP and kind == 0x80:
            self._asked[body[:2]] = body[4:-1].decode()
        elif direction == DOWN and kind in (0x40, 0x70) and body in self._published:
            qos, number = self._published.pop(body)
            self.acknowledged[qos].add(number)
        elif direction == DOWN and kind == 0x90 and body[:2] in self._asked:
            self.filters.add(self._asked.pop(body[:2]))


# How many bytes the properties have that these programs send; of the others, texts.
SIZES = {0x01: 1, 0x02: 4, 0x23: 2}


def take_properties(body, at):
    """Return (topic alias or None, where the properties end) of those that begin at `at`."""
    end = at + 1 + body[at]
    assert body[at] < 128, body
    at += 1
    alias = None
    while at < end:
        kind = body[at]
        at += 1
        if kind == 0x23:
            alias = int.from_bytes(body[at : at + 2], "big")
        if kind in SIZES:
            at += SIZES[kind]
        else:
            for _ in range(2 if kind == 0x26 else 1):
                at += 2 + int.from_bytes(body[at : at + 2], "big")
    return alias, end
