"""model_server.Server for a client that speaks MQTT 5.0: each packet is put into the other form.

It takes topic aliases, up to ALIASES of them, and sends messages in turn without properties, with
an alias, and with a property.
"""

from model_server import CONNACK, SUBACK, UNSUBACK, Server

ALIASES = 2


class Server5(Server):
    """As Server. `by_alias`: how many messages came, and were sent, without a topic name."""

    def __init__(self, bench):
        self.by_alias = [0, 0]
        self._turn = 0
        Server.__init__(self, bench)

    def _begin(self, connection):
        self._topics = {}  # alias -> topic name, of this connection
        self._has_alias = False  # and the client knows ours
        Server._begin(self, connection)

    def send(self):
        if self.queue:
            self.queue[0] = self._to_5(self.queue[0])
        Server.send(self)

    def _to_5(self, packet):
        kind = packet[0] & 0xF0
        if kind == CONNACK:
            self._has_alias = False
            return b"\x20\x06" + packet[2:4] + b"\x03\x22\x00" + bytes((ALIASES,))
        if kind == SUBACK or kind == UNSUBACK:
            body = packet[2:4] + b"\x00" + (packet[4:] or b"\x00")
            return bytes((packet[0], len(body))) + body
        if kind != 0x30:
            return packet
        end = 8 if packet[0] & 6 else 6  # of the topic name "in", and the identifier
        head, payload = packet[2:end], packet[end:]
        self._turn += 1
        properties = (b"", b"\x23\x00\x05", b"\x03\x00\x01c")[self._turn % 3]
        if self._turn % 3 == 1:
            if self._has_alias:
                head = b"\x00\x00" + head[4:]
                self.by_alias[1] += 1
            self._has_alias = True
        body = head + bytes((len(properties),)) + properties + payload
        return bytes((packet[0], len(body))) + body

    def _on_packet(self, kind, packet):
        assert kind != 0xE0 or packet == b"\xe0\x00", ("the client complains", packet)
        if kind == 0x80 or kind == 0xA0:
            assert packet[4] == 0, packet
            packet = packet[:4] + packet[5:]
        elif kind == 0x30:
            packet = self._to_4(packet)
        Server._on_packet(self, kind, packet)

    def _to_4(self, packet):
        end = 4 + (packet[2] << 8 | packet[3])
        topic_name = packet[4:end]
        packet_id = packet[end : end + 2] if packet[0] & 6 else b""
        end += len(packet_id)
        properties = packet[end + 1 : end + 1 + packet[end]]
        payload = packet[end + 1 + packet[end] :]
        while properties:
            if properties[0] == 0x23:
                alias = properties[1] << 8 | properties[2]
                assert 0 < alias <= ALIASES, packet
                if topic_name:
                    self._topics[alias] = topic_name
                else:
                    topic_name = self._topics[alias]  # else it was never given
                    self.by_alias[0] += 1
                properties = properties[3:]
            else:
                assert properties[0] == 0x02, packet  # what is left of an expiry
                properties = properties[5:]
        assert topic_name, packet
        body = bytes((0, len(topic_name))) + topic_name + packet_id + payload
        return bytes((packet[0], len(body))) + body
