"""A whole client of MQTT 5.0 against the reference, as fuzz_client.py does it with 3.1.1.

Beyond that: topic aliases, properties as they are given to the application, reason codes, and what
ends a message without it.
"""

import fakes
import fuzz_client
import fuzz_streams_5
import mqtt5_reference
from fuzz_client import ALLOCATED_MAX  # noqa: F401
from mqtt_reference import matches

import mqttpipe

ALIASES = 8  # that a server may use
STILL_HERE = b"\x30\x0e\x00\x01z\x00still here"


def make(draw):
    head = draw.randbytes(3)
    return head + fuzz_streams_5.make_stream(draw, head[0] > 127)


class World(fuzz_client.World):
    OPTIONS = {"protocol": 5}
    CONNACK = b"\x20\x03\x00\x00\x00"

    def on(self, name):
        def callback(client, message):
            head = (name, message.topic_name, message.payload, message.qos)
            self.messages.append((*head, message.retain, message.dup, dict(message.properties)))

        return callback

    def begin(self):
        self.client.on_dropped = lambda c, token: self.bench.events.append(("dropped", token))
        super().begin()

    # SUBACKs have properties: here none.
    def serve(self, packet):
        bench = self.bench
        answer = packet
        while answer:
            sent = bench.exchange(answer)
            answer = b""
            while sent:
                end = sent[1] + 2
                if sent[0] == 0x82:
                    answer += b"\x90\x04" + sent[2:4] + b"\x00\x02"
                sent = sent[end:]

    def check_that_it_goes_on(self, expected):
        try:
            self.client.publish("z", b"still here")
        except mqttpipe.LocalError:
            assert expected.bytes_max < len(STILL_HERE), expected.bytes_max
            return
        assert expected.bytes_max >= len(STILL_HERE), expected.bytes_max
        self.bench.steps()
        assert self.bench.server.received() == STILL_HERE


class Expected(fuzz_client.Expected):
    read_packets = staticmethod(mqtt5_reference.read_packets)

    def __init__(self, world, stream):
        self.aliases = {}
        self.bytes_max = 1 << 30
        super().__init__(world, stream)

    def without_good_bye(self, answers):
        if answers[-3:-1] == b"\xe0\x01" and answers[-1] in (0x81, 0x82, 0x93, 0x94, 0x95):
            return answers[:-3]
        return answers

    def answer_not_found(self, first_byte, packet_id):
        self.answers += bytes((first_byte, 3)) + packet_id.to_bytes(2, "big") + b"\x92"

    def take(self, packet):
        # A server that speaks 3.1.1 alone, and refuses.
        if packet.name == "CONNACK" and packet.size == 2 and packet.is_whole and packet.body[1]:
            self.end = "Refused"
            return False
        # DISCONNECT in place of CONNACK refuses as well.
        is_connected = self.is_connected
        self.is_connected = is_connected or packet.name == "DISCONNECT"
        goes_on = super().take(packet)
        if packet.name == "DISCONNECT" and not self.end:  # it is not whole
            self.is_connected = is_connected
        return goes_on

    def take_connack(self, packet):
        if packet.clauses and packet.clauses != ["MQTT5-3.2.2-1"] or self.is_connected:
            self.end = "ServerError"
        elif packet.code:
            self.end = "Refused"
        elif packet.clauses or 21 in packet.properties:  # nobody has asked for a method
            self.end = "ServerError"
        elif packet.connack_flags and self.clean_session:
            self.end = "ServerError"
        self.bytes_max = packet.properties.get(39, self.bytes_max)
        self.is_connected = True

    def take_large(self, packet):
        if packet.name != "PUBLISH":
            self.end = "ServerError"
            return
        topic_end = 2 + int.from_bytes(packet.body[:2], "big")
        fields_end = topic_end + (2 if packet.qos else 0)
        if topic_end > 2:
            self.forget_alias(packet.body[fields_end : self.size - 2])
        if fields_end > packet.size:
            self.end = "ServerError"
        elif packet.is_whole and packet.qos:
            packet_id = int.from_bytes(packet.body[topic_end:fields_end], "big")
            if packet_id:
                self.answer(0x40 if packet.qos == 1 else 0x50, packet_id)
                if packet.qos == 2:
                    self.received.add(packet_id)
            else:
                self.end = "ServerError"

    # It may have given one of them anew; which one, only the properties tell.
    def forget_alias(self, kept):
        try:
            properties = mqtt5_reference.read_properties(mqtt5_reference.Reader(kept), "PUBLISH")
        except (mqtt5_reference.Offence, mqtt5_reference.CutOff):
            self.aliases = {}
            return
        alias = properties.get(35)
        if alias is not None and not 0 <= alias <= ALIASES:
            self.aliases = {}
        self.aliases.pop(alias, None)

    def take_publish(self, packet):
        alias = packet.properties.get(35)
        if alias is not None and alias > ALIASES:
            self.end = "ServerError"
            return
        if alias and packet.topic_name:
            self.aliases[alias] = packet.topic_name
        topic_name = packet.topic_name or self.aliases.get(alias)
        if not topic_name:
            self.end = "ServerError"
            return
        if packet.qos == 1:
            self.answer(0x40, packet.packet_id)
        elif packet.qos == 2:
            self.answer(0x50, packet.packet_id)
            if packet.packet_id in self.received:
                return
            self.received.add(packet.packet_id)
        if b"+" in topic_name or b"#" in topic_name:
            return
        name = topic_name.decode()
        packet.properties.pop(35, None)  # its alias is no business of the application
        properties = mqtt5_reference.named(packet.properties)
        takers = [taker for one, taker in self.filters if matches(one, name)] or ["default"]
        is_dup = packet.dup and packet.qos > 0
        for taker in takers:
            head = (taker, name, packet.payload, packet.qos, packet.retain)
            self.messages.append((*head, is_dup, properties))

    def take_puback(self, packet):
        if packet.code < 0x80:
            super().take_puback(packet)
        else:
            self.fail(packet, "PUBACK")

    def fail(self, packet, kind):
        key = packet.packet_id.to_bytes(2, "big")
        if self.awaited.get(key, (None,))[0] == kind:
            self.dropped.append(self.awaited.pop(key)[1])

    def take_pubrec(self, packet):
        if packet.code >= 0x80:
            self.fail(packet, "PUBREC")
            return
        message = self.awaited.get(packet.packet_id.to_bytes(2, "big"))
        if message and message[0] != "PUBACK":
            message[0] = "PUBCOMP"
            self.answer(0x62, packet.packet_id)
        else:
            self.answer_not_found(0x62, packet.packet_id)

    def take_pubrel(self, packet):
        if packet.packet_id in self.received:
            self.received.discard(packet.packet_id)
            self.answer(0x70, packet.packet_id)
        else:
            self.answer_not_found(0x70, packet.packet_id)

    def take_suback(self, packet):
        if self.asked_for(packet) == "SUBACK":
            _, token, _ = self.asked.pop(packet.packet_id.to_bytes(2, "big"))
            if 2 < packet.code[0] < 0x80:
                self.end = "ServerError"
            else:
                self.told.append(("subscribed", token, packet.code))

    def take_unsuback(self, packet):
        if self.asked_for(packet) == "UNSUBACK":
            _, _, name = self.asked.pop(packet.packet_id.to_bytes(2, "big"))
            code = packet.code[0]
            if 2 < code < 0x80 and code != 0x11:
                self.end = "ServerError"
            elif code < 0x80:
                self.filters = [one for one in self.filters if one[1] != name]

    def take_disconnect(self, packet):
        self.end = "Refused"

    def take_auth(self, packet):
        self.end = "ServerError"  # nobody has asked for it


def check(case):
    fakes.gc = fuzz_client.NoCollector
    fuzz_client.check_as(case, World, Expected)
