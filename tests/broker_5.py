"""old_and_new.Broker for a client that speaks MQTT 5.0: put Speaks5 in front of such a class."""

from model_server_5 import CONNACK_PROPERTIES, Translation, body_of, packet_of

from old_and_new import Broker


class Ready(bytes):
    """A packet that is of MQTT 5.0 already."""


class Speaks5:
    """Attributes:

    connack: properties of CONNACK.
    refusals: so many of the next messages at QoS 1 and 2 are refused.
    translation: of this connection.

    A request is answered at once, and AUTH with success.
    """

    connack = CONNACK_PROPERTIES
    refusals = 0

    def _begin(self, connection):
        self.translation = Translation(self.connack)
        super()._begin(connection)

    def wire(self, packet):
        return packet if isinstance(packet, Ready) else self.translation.to_5(packet)

    def _on_packet(self, first_byte, body):
        if first_byte == 0xF0:
            assert body[0] == 0x19, body  # Re-authenticate
            self.queue.append(Ready(packet_of(0xF0, b"\x00" + body[1:])))
            return
        packet = self.translation.to_4(packet_of(first_byte, body))
        super()._on_packet(first_byte, body_of(packet))

    def _on_connect(self, body):
        assert body[6] == 5, body
        super()._on_connect(body)
        if self.is_accepted:
            # Its properties begin with the Session Expiry Interval, if that is not 0.
            self.has_session = body[10] > 4 and body[11] == 0x11

    # What it has taken before, it can't refuse.
    def is_to_be_refused(self, first_byte, number):
        return first_byte & 6 and self.refusals > 0 and number not in self.unreleased

    def _on_publish(self, first_byte, body):
        end = 2 + int.from_bytes(body[:2], "big")
        number = body[end : end + 2]
        if self.is_to_be_refused(first_byte, number):
            self.refusals -= 1
            kind = 0x40 if first_byte & 2 else 0x50
            self.queue.append(Ready(packet_of(kind, number + b"\x97")))  # Quota exceeded
            return
        super()._on_publish(first_byte, body)
        found = self.translation.found
        if 0x09 in found:
            properties = b"\x09" + found[0x09]
            body = found[0x08] + bytes((len(properties),)) + properties + b"answer"
            self.queue.append(Ready(packet_of(0x30, body)))


class Broker5(Speaks5, Broker):
    pass
