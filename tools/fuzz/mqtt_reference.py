"""A reference for the fuzz targets: MQTT 3.1.1 as a client may receive it.

Written from the specification (OASIS standard, 29 October 2014), not from the client, and in
another manner: it has all bytes at once and reads them like a file, packet after packet. Nothing
here is fast or small.

    for packet in read_packets(stream): ...     up to the first offence, or to the end

It is strict. What a client may pass over all the same is said by who uses it, by the clause.
"""

import struct

NAMES = {
    2: "CONNACK",
    3: "PUBLISH",
    4: "PUBACK",
    5: "PUBREC",
    6: "PUBREL",
    7: "PUBCOMP",
    9: "SUBACK",
    11: "UNSUBACK",
    13: "PINGRESP",
}
# Table 2.2: the flags of all but PUBLISH.
FLAGS = {"PUBREL": 0b0010}
# The remaining length of what has always the same.
LENGTHS = {"CONNACK": 2, "PUBACK": 2, "PUBREC": 2, "PUBREL": 2, "PUBCOMP": 2, "UNSUBACK": 2}
LENGTHS["PINGRESP"] = 0
WITH_ID = ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK")


class Broken(Exception):
    """The stream breaks the specification, and from here on it is no stream of packets.

    The message is the clause. Attribute: is_whole: the fixed header is there to its end.
    """

    def __init__(self, clause, is_whole=True):
        super().__init__(clause)
        self.is_whole = is_whole


class CutOff(Exception):
    """The stream ends within a packet."""


class Reader:
    """The bytes of a stream, taken from its front."""

    def __init__(self, data):
        self.data = data

    def take(self, count):
        if count > len(self.data):
            raise CutOff
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def take_number(self):
        return struct.unpack(">H", self.take(2))[0]

    def take_text(self):
        return self.take(self.take_number())


class Packet:
    """A packet whose fixed header is right.

    Attributes: name; flags; size: the remaining length; body: bytes, fewer than `size` if the
    stream ends before (is_whole is False then); clauses: what its fields break, one after the
    other; of a PUBLISH: dup, qos, retain, topic_name (bytes), packet_id (None at QoS 0), payload;
    of CONNACK: connack_flags, return_code; of the others packet_id; of SUBACK: codes.
    """

    def __init__(self, name, flags, size, body):
        self.name = name
        self.flags = flags
        self.size = size
        self.body = body
        self.is_whole = len(body) == size
        self.clauses = []
        self.packet_id = None
        if name == "PUBLISH":
            self.dup = bool(flags & 8)
            self.qos = flags >> 1 & 3
            self.retain = bool(flags & 1)
            if self.dup and not self.qos:
                self.clauses.append("MQTT-3.3.1-2")
        if self.is_whole:
            fields = Reader(body)
            try:
                getattr(self, "_read_" + name.lower(), self._read_id)(fields)
            except CutOff:
                self.clauses.append("MQTT-4.8.0-1")  # malformed: a field goes beyond its end

    def _read_publish(self, fields):
        self.topic_name = fields.take_text()
        self.clauses += topic_name_clauses(self.topic_name)
        if self.qos:
            self._read_id(fields)
        self.payload = fields.data

    def _read_connack(self, fields):
        self.connack_flags, self.return_code = fields.take(2)
        if self.connack_flags > 1:
            self.clauses.append("3.2.2.1")

    def _read_suback(self, fields):
        self._read_id(fields)
        self.codes = fields.data
        if not self.codes:
            self.clauses.append("MQTT-3.9.3-1")
        for code in self.codes:
            if code not in (0, 1, 2, 0x80):
                self.clauses.append("MQTT-3.9.3-2")

    def _read_id(self, fields):
        if self.name == "PINGRESP":
            return
        self.packet_id = fields.take_number()
        if not self.packet_id:
            self.clauses.append("MQTT-2.3.1-1")


def topic_name_clauses(name):
    """The clauses that a topic name breaks, on the wire."""
    clauses = []
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        clauses.append("MQTT-1.5.3-1")
        text = ""
    if "\0" in text:
        clauses.append("MQTT-1.5.3-2")
    if b"+" in name or b"#" in name:
        clauses.append("MQTT-3.3.2-2")
    if not name:
        clauses.append("MQTT-4.7.3-1")
    return clauses


def read_remaining_length(stream):
    """Section 2.2.3, as its algorithm is written there."""
    multiplier = 1
    value = 0
    while True:
        byte = stream.take(1)[0]
        value += (byte & 127) * multiplier
        if not byte & 128:
            return value
        multiplier *= 128
        if multiplier > 128 * 128 * 128:
            raise Broken("2.2.3")


def read_packets(data):
    """Yield each packet a server sends in `data`; the last one may not be whole.

    Raises Broken at a fixed header that no server may send, CutOff if one is not whole.
    """
    stream = Reader(bytes(data))
    while stream.data:
        first = stream.take(1)[0]
        name = NAMES.get(first >> 4)
        flags = first & 15
        clause = None
        if name is None:
            clause = "2.2.1"  # reserved, or a packet of a client
        elif name == "PUBLISH":
            if flags >> 1 & 3 == 3:
                clause = "MQTT-3.3.1-4"
        elif flags != FLAGS.get(name, 0):
            clause = "MQTT-2.2.2-2"
        try:
            size = read_remaining_length(stream)
        except CutOff:
            if clause:
                raise Broken(clause, is_whole=False)
            raise
        if clause:
            raise Broken(clause)
        if size != LENGTHS.get(name, size) or name == "SUBACK" and size < 2:
            raise Broken("MQTT-4.8.0-1")
        body = stream.data[:size]
        stream.data = stream.data[size:]
        yield Packet(name, flags, size, body)


def matches(topic_filter, topic_name):
    """Section 4.7, level by level. Both are str; the filter is legal."""
    if topic_filter.startswith("$share/") and topic_filter.count("/") > 1:
        topic_filter = topic_filter.split("/", 2)[2]
    filters, names = topic_filter.split("/"), topic_name.split("/")
    if topic_name[0] == "$" and filters[0] in ("+", "#"):  # [MQTT-4.7.2-1]
        return False
    if filters[-1] == "#":
        filters.pop()
        if len(names) < len(filters):
            return False
        names = names[: len(filters)]
    return len(names) == len(filters) and all(
        level in ("+", name) for level, name in zip(filters, names)
    )


def is_legal_topic(text, is_filter):
    """Sections 1.5.3, 4.7.1 and 4.7.3, of a str."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:  # a surrogate
        return False
    if not 0 < len(data) <= 65535 or "\0" in text:
        return False
    levels = text.split("/")
    if not is_filter:
        return "+" not in text and "#" not in text
    for number, level in enumerate(levels):
        if "#" in level and (level != "#" or number + 1 < len(levels)):
            return False
        if "+" in level and level != "+":
            return False
    return True
