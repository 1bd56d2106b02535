"""model_server.Server for a client that speaks MQTT 5.0: each packet is put into the other form.

Translation does that, for one connection; tests/broker_5.py has it as well. It takes topic
aliases, up to ALIASES of them, and sends messages in turn without properties, with an alias, and
with a property, and acknowledgements in each of their four forms.
"""

from model_server import CONNACK, SUBACK, UNSUBACK, Server

ALIASES = 2
CONNACK_PROPERTIES = b"\x22\x00" + bytes((ALIASES,))
CLIENT_ALIASES = 8  # of ours towards the client
MORE_BYTES = 5  # at most, of a message's properties
# Properties of a message that are one text, or two: response topic, correlation data, user's.
TEXTS = {0x08: 1, 0x09: 1, 0x26: 2}
# Behind the packet identifier of PUBACK, PUBREC, PUBREL and PUBCOMP: success.
ACK_ENDS = (b"", b"\x00", b"\x00\x00", b"\x00\x04\x1f\x00\x01r")


def packet_of(first_byte, body):
    size = len(body)
    head = bytes((first_byte, size)) if size < 128 else None
    return (head or bytes((first_byte, size & 0x7F | 0x80, size >> 7))) + body


def body_of(packet):
    at = 1
    while packet[at] & 0x80:
        at += 1
    return packet[at + 1 :]


class Translation:
    """Between MQTT 3.1.1 and 5.0, in both directions.

    Attributes: by_alias: how many messages came, and were sent, without a topic name; found: of
        the last message that came, its other properties: identifier -> bytes behind it.
    """

    def __init__(self, connack=CONNACK_PROPERTIES, by_alias=None):
        self.connack = connack
        self.by_alias = by_alias or [0, 0]
        self._turn = 0
        self._acks = 0
        self._topics = {}  # alias -> topic name, of the client
        self._given = {}  # topic name -> alias, of ours
        self.found = {}

    def to_5(self, packet):
        """A packet of a server of MQTT 3.1.1, for one of 5.0."""
        kind = packet[0] & 0xF0
        if kind == 0x30:
            return self._message_to_5(packet)
        body = body_of(packet)
        if kind == CONNACK:
            code = b"\x88" if body[1] else b"\x00"  # Server unavailable
            body = body[:1] + code + bytes((len(self.connack),)) + self.connack
        elif kind == SUBACK or kind == UNSUBACK:
            body = body[:2] + b"\x00" + (body[2:] or b"\x00")
        elif 0x40 <= kind <= 0x70 and len(body) == 2:
            self._acks += 1
            body += ACK_ENDS[self._acks % 4]
        return packet_of(packet[0], body)

    def _message_to_5(self, packet):
        body = body_of(packet)
        end = 2 + (body[0] << 8 | body[1])
        topic_name = body[2:end]
        packet_id_end = end + 2 if packet[0] & 6 else end
        head = body[:packet_id_end]
        self._turn += 1
        properties = b""
        if self._turn % 3 == 1:
            alias = self._given.get(topic_name)
            if alias:
                head = b"\x00\x00" + body[end:packet_id_end]
                self.by_alias[1] += 1
            else:
                alias = self._turn // 3 % CLIENT_ALIASES + 1
                for other in list(self._given):
                    if self._given[other] == alias:
                        del self._given[other]
                self._given[topic_name] = alias
            properties = b"\x23\x00" + bytes((alias,))
        elif self._turn % 3 == 2:
            properties = b"\x03\x00\x01c"
        head += bytes((len(properties),)) + properties
        return packet_of(packet[0], head + body[packet_id_end:])

    def to_4(self, packet):
        """A packet of a client of MQTT 5.0, as one of 3.1.1 would have sent it; CONNECT as is."""
        kind = packet[0] & 0xF0
        if kind == 0xE0:
            assert packet[1] == 0 or packet[2] < 0x80, ("the client complains", packet)
        if kind == 0x30:
            return self._message_to_4(packet)
        if kind == 0x80 or kind == 0xA0:
            body = body_of(packet)
            assert body[2] == 0, packet
            return packet_of(packet[0], body[:2] + body[3:])
        return packet

    def _message_to_4(self, packet):
        body = body_of(packet)
        end = 2 + (body[0] << 8 | body[1])
        topic_name = body[2:end]
        packet_id = body[end : end + 2] if packet[0] & 6 else b""
        end += len(packet_id)
        properties = body[end + 1 : end + 1 + body[end]]
        payload = body[end + 1 + body[end] :]
        self.found = {}
        while properties:
            kind = properties[0]
            end = 1
            if kind == 0x23:
                end = 3
                alias = properties[1] << 8 | properties[2]
                assert 0 < alias <= ALIASES and self.connack.find(CONNACK_PROPERTIES) >= 0, packet
                if topic_name:
                    self._topics[alias] = topic_name
                else:
                    topic_name = self._topics[alias]  # else it was never given
                    self.by_alias[0] += 1
            elif kind == 0x02:  # what is left of an expiry
                end = 5
            else:
                assert kind in TEXTS, packet
                for _ in range(TEXTS[kind]):
                    end += 2 + (properties[end] << 8 | properties[end + 1])
            self.found[kind] = properties[1:end]
            properties = properties[end:]
        assert topic_name, packet
        head = bytes((len(topic_name) >> 8, len(topic_name) & 0xFF)) + topic_name
        return packet_of(packet[0], head + packet_id + payload)


class Server5(Server):
    """As Server.

    Attributes: by_alias: as Translation's, of all connections; refusals: so many of the next
    messages at QoS 1 and 2 are refused; refused: their payloads.
    """

    def __init__(self, bench):
        self.by_alias = [0, 0]
        self.refusals = 0
        self.refused = []
        Server.__init__(self, bench)

    def _begin(self, connection):
        self._translation = Translation(by_alias=self.by_alias)
        Server._begin(self, connection)

    def send(self):
        if self.queue and self.limit != 0:
            self.queue[0] = self._translation.to_5(self.queue[0])
        Server.send(self)

    def _on_packet(self, kind, packet):
        packet = self._translation.to_4(packet)
        assert kind != 0x10 or packet[8] == 5, packet
        if kind != 0x30 or not self.refusals or not self._refuse(packet):
            Server._on_packet(self, kind, packet)

    # What it has taken before, it can't refuse.
    def _refuse(self, packet):
        at = 4 + packet[3]
        if not packet[0] & 6 or (packet[at] << 8 | packet[at + 1]) in self._unreleased:
            return False
        self.refusals -= 1
        self.refused.append(packet[at + 2 :])
        kind = 0x40 if packet[0] & 2 else 0x50
        self.queue.append(bytes((kind, 3)) + packet[at : at + 2] + b"\x97")  # Quota exceeded
        return True
