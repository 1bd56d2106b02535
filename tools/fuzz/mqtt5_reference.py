"""A reference for the fuzz targets: MQTT 5.0 as a client may receive it.

Written from the specification (OASIS standard, 7 March 2019), as mqtt_reference.py is from that of
3.1.1, which has the parts that are the same.

    for packet in read_packets(stream): ...     up to the first offence, or to the end
"""

import struct

from mqtt_reference import Broken, CutOff, Reader, read_remaining_length, topic_name_clauses

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
    14: "DISCONNECT",
    15: "AUTH",
}
FLAGS = {"PUBREL": 0b0010}
ACKS = ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP")
# The remaining length of these is at least that of their packet identifier.
WITH_ID = (*ACKS, "SUBACK", "UNSUBACK")
ALL = " ".join(NAMES.values())

# Table 2-4: identifier: name, type, the packets in which a server may send it.
PROPERTIES = {
    1: ("Payload Format Indicator", "bit", "PUBLISH"),
    2: ("Message Expiry Interval", "four", "PUBLISH"),
    3: ("Content Type", "text", "PUBLISH"),
    8: ("Response Topic", "text", "PUBLISH"),
    9: ("Correlation Data", "data", "PUBLISH"),
    11: ("Subscription Identifier", "variable, not 0", "PUBLISH"),
    17: ("Session Expiry Interval", "four", "CONNACK"),
    18: ("Assigned Client Identifier", "text", "CONNACK"),
    19: ("Server Keep Alive", "two", "CONNACK"),
    21: ("Authentication Method", "text", "CONNACK AUTH"),
    22: ("Authentication Data", "data", "CONNACK AUTH"),
    23: ("Request Problem Information", "bit", ""),
    24: ("Will Delay Interval", "four", ""),
    25: ("Request Response Information", "bit", ""),
    26: ("Response Information", "text", "CONNACK"),
    28: ("Server Reference", "text", "CONNACK DISCONNECT"),
    31: ("Reason String", "text", ALL.replace("PUBLISH", "")),
    33: ("Receive Maximum", "two, not 0", "CONNACK"),
    34: ("Topic Alias Maximum", "two", "CONNACK"),
    35: ("Topic Alias", "two, not 0", "PUBLISH"),
    36: ("Maximum QoS", "bit", "CONNACK"),
    37: ("Retain Available", "bit", "CONNACK"),
    38: ("User Property", "pair", ALL),
    39: ("Maximum Packet Size", "four, not 0", "CONNACK"),
    40: ("Wildcard Subscription Available", "bit", "CONNACK"),
    41: ("Subscription Identifier Available", "bit", "CONNACK"),
    42: ("Shared Subscription Available", "bit", "CONNACK"),
}
SEVERAL = (11, 38)  # may be there more than once


class Offence(Exception):
    """The message is the clause."""


def read_number(fields):
    """Section 1.5.5; it is as short as can be."""
    before = len(fields.data)
    try:
        value = read_remaining_length(fields)
    except Broken:
        raise Offence("1.5.5") from None
    count = before - len(fields.data)
    if count > 1 and value < 128 ** (count - 1):
        raise Offence("MQTT5-1.5.5-1")
    return value


def read_text(fields):
    data = fields.take_text()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Offence("MQTT5-1.5.4-1") from None
    if "\0" in text:
        raise Offence("MQTT5-1.5.4-2")
    return text


def read_value(fields, kind):
    kind, _, is_not_0 = kind.partition(", ")
    if kind == "text":
        return read_text(fields)
    if kind == "data":
        return fields.take_text()
    if kind == "pair":
        return read_text(fields), read_text(fields)
    if kind == "bit":
        (value,) = fields.take(1)
        if value > 1:
            raise Offence("2.2.2: %d" % value)
    elif kind == "two":
        value = fields.take_number()
    elif kind == "four":
        (value,) = struct.unpack(">I", fields.take(4))
    else:
        value = read_number(fields)
    if is_not_0 and not value:
        raise Offence("2.2.2: 0")
    return value


def read_properties(fields, packet_name):
    """Take them from the front of a Reader: a dict, by identifier. Raises Offence, or CutOff."""
    inner = Reader(fields.take(read_number(fields)))
    found = {}
    while inner.data:
        identifier = read_number(inner)
        if identifier not in PROPERTIES:
            raise Offence("2.2.2.2: %d" % identifier)
        _, kind, packets = PROPERTIES[identifier]
        value = read_value(inner, kind)
        if packet_name not in packets.split():
            raise Offence("2.2.2.2: %d in %s" % (identifier, packet_name))
        if identifier in SEVERAL:
            found.setdefault(identifier, []).append(value)
        elif identifier in found:
            raise Offence("2.2.2.2: %d twice" % identifier)
        else:
            found[identifier] = value
    return found


def named(properties):
    """As the client gives them to its application: by the specification's names in snake_case."""
    return {
        PROPERTIES[identifier][0].lower().replace(" ", "_"): properties[identifier]
        for identifier in properties
    }


class Packet:
    """A packet whose fixed header is right.

    Attributes: as mqtt_reference.Packet; properties: by identifier; code: the reason code, of
    SUBACK and UNSUBACK the codes.
    """

    def __init__(self, name, flags, size, body):
        self.name = name
        self.flags = flags
        self.size = size
        self.body = body
        self.is_whole = len(body) == size
        self.clauses = []
        self.packet_id = None
        self.properties = {}
        self.code = 0
        if name == "PUBLISH":
            self.dup = bool(flags & 8)
            self.qos = flags >> 1 & 3
            self.retain = bool(flags & 1)
        if self.is_whole:
            fields = Reader(body)
            try:
                self._read(fields)
            except CutOff:
                self.clauses.append("malformed: a field goes beyond its end")
            except Offence as offence:
                self.clauses.append(str(offence))

    def _read(self, fields):
        name = self.name
        if name == "PUBLISH":
            self.topic_name = fields.take_text()
            if self.qos:
                self._read_id(fields)
            self.properties = read_properties(fields, name)
            self.payload = fields.data
            if self.topic_name or 35 not in self.properties:
                self.clauses += topic_name_clauses(self.topic_name)
            return
        if name == "CONNACK":
            self.connack_flags, self.code = fields.take(2)
            self.properties = read_properties(fields, name)
            if fields.data:
                raise Offence("3.2")
            if self.connack_flags > 1:
                self.clauses.append("MQTT5-3.2.2-1")
            return
        if name in WITH_ID:
            self._read_id(fields)
        if name in ("SUBACK", "UNSUBACK"):
            self.properties = read_properties(fields, name)
            self.code = fields.data
            if len(self.code) != 1:  # one filter was in each packet
                raise Offence("MQTT5-3.8.4-6")
        elif name != "PINGRESP" and fields.data:
            (self.code,) = fields.take(1)
            if fields.data:
                self.properties = read_properties(fields, name)
            if fields.data:
                raise Offence("too long")

    def _read_id(self, fields):
        self.packet_id = fields.take_number()
        if not self.packet_id:
            self.clauses.append("MQTT5-2.2.1-3")


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
            clause = "2.1.2"  # reserved, or a packet of a client
        elif name == "PUBLISH":
            if flags >> 1 & 3 == 3:
                clause = "MQTT5-3.3.1-4"
        elif flags != FLAGS.get(name, 0):
            clause = "MQTT5-2.1.3-1"
        try:
            size = read_remaining_length(stream)
        except CutOff:
            if clause:
                raise Broken(clause, is_whole=False) from None
            raise
        if clause:
            raise Broken(clause)
        if name == "PINGRESP" and size or name in (*WITH_ID, "CONNACK") and size < 2:
            raise Broken("malformed")
        body = stream.data[:size]
        stream.data = stream.data[size:]
        yield Packet(name, flags, size, body)
