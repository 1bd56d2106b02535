"""A whole client against the reference: what it delivers, answers and tells, and why it closes.

Case: options; how the stream is divided; bytes for each read; the stream of the server. Bit 7 of
the options: from before CONNACK on. Else the client is online, with messages of QoS 1 and 2 and
filters under way, so that acknowledgements are for something.
"""

import fakes
import fuzz_streams
import wire
from mqtt_reference import Broken, CutOff, matches, read_packets

import mqttpipe

SIZES = (64, 65, 130, 300)
READS = (1, 3, 64, 1000)
ALLOCATED_MAX = 200_000

# What breaks the specification and is passed over all the same (tests/portable/
# test_passed_over.py): DUP at QoS 0, and a topic name with a wildcard, whose message is dropped.
PASSED_OVER = ("MQTT-3.3.1-2", "MQTT-3.3.2-2", "MQTT-3.9.3-2")

FILTERS = (("a/#", "tree"), ("+", "one"), ("gone/+", "gone"), ("$share/g/s/#", "share"))


class NoCollector:
    """CPython is not short of memory, and gc.collect() would take longer than all the rest."""

    collect = staticmethod(lambda: None)


fakes.gc = NoCollector


def make(draw):
    return draw.randbytes(3) + fuzz_streams.make_stream(draw)


class World:
    """A client on fakes, and what it told.

    What is in capitals is another with MQTT 5.0 (fuzz_client_5.py).
    """

    OPTIONS = {}
    CONNACK = fakes.CONNACK

    def __init__(self, options, read_max):
        self.size = SIZES[options % 4]
        self.is_new = options > 127
        self.clean_session = bool(options & 4)
        self.bench = bench = fakes.Bench(
            clean_session=self.clean_session,
            packet_bytes_max=self.size,
            keep_alive_s=0,
            in_flight_max=20,
            **self.OPTIONS,
        )
        self.client = client = bench.client
        self.messages = []
        self.errors = []
        client.on_message = self.on("default")
        client.on_error = lambda c, error: self.errors.append(error)
        # Of the session: identifier -> what is waited for, and the token.
        self.awaited = {}
        self.asked = {}
        self.filters = []
        if self.is_new:
            client.connect()
            bench.steps()
        else:
            self.begin()
        bench.server.received()
        bench.server.read_max = read_max
        bench.events.clear()

    def on(self, name):
        def callback(client, message):
            head = (name, message.topic_name, message.payload, message.qos)
            self.messages.append(head + (message.retain, message.dup))

        return callback

    def begin(self):
        bench, client = self.bench, self.client
        for topic_filter, name in FILTERS:
            client.subscribe(topic_filter, self.on(name), 2)
            self.filters.append((topic_filter, name))
        client.connect()
        bench.steps()
        bench.server.received()
        self.serve(self.CONNACK)
        for qos in (1, 1, 2, 2):
            self.publish(qos)
        token = client.publish("o", b"x", 2)  # past PUBREC
        sent = bench.exchange()
        (packet_id,) = (one[2] for one in wire.publishes(sent))
        bench.exchange(b"\x50\x02" + packet_id)
        self.awaited[packet_id] = ["PUBCOMP", token]
        self.ask("SUBACK", client.subscribe("late", self.on("late"), 1), "late")
        self.filters.append(("late", "late"))
        self.ask("UNSUBACK", client.unsubscribe("gone/+"), "gone")

    def serve(self, packet):
        wire.serve(self.bench, packet)

    def publish(self, qos):
        token = self.client.publish("o", b"x", qos)
        ((_, _, packet_id, _),) = wire.publishes(self.bench.exchange())
        self.awaited[packet_id] = ["PUBACK" if qos == 1 else "PUBREC", token]

    def check_that_it_goes_on(self, expected):
        token = self.client.publish("z", b"still here")
        self.bench.steps()
        assert self.bench.server.received() == b"\x30\x0d\x00\x01zstill here"
        assert self.client.is_done(token)

    def ask(self, answer, token, name):
        ((_, body),) = wire.split(self.bench.exchange())
        self.asked[body[:2]] = (answer, token, name)


class Expected:
    """What a client does with a stream, by the reference.

    Attributes: messages, answers (bytes), told (events), dropped (tokens); end: None,
    "ServerError" or "Refused".
    """

    read_packets = staticmethod(read_packets)

    def __init__(self, world, stream):
        self.size = world.size
        self.awaited = {key: list(value) for key, value in world.awaited.items()}
        self.asked = dict(world.asked)
        self.filters = list(world.filters)
        self.clean_session = world.clean_session
        self.is_connected = not world.is_new
        self.received = set()
        self.messages = []
        self.answers = b""
        self.told = []
        self.dropped = []
        self.end = None
        self.is_in_doubt = False
        try:
            for packet in self.read_packets(stream):
                if not self.take(packet):
                    break
        except CutOff:
            pass
        except Broken as broken:
            if broken.is_whole:
                self.end = "ServerError"
            else:
                self.is_in_doubt = True

    def answer(self, first_byte, packet_id):
        self.answers += bytes((first_byte, 2)) + packet_id.to_bytes(2, "big")

    # MQTT 3.1.1 has no DISCONNECT of a client that complains.
    def without_good_bye(self, answers):
        return answers

    # False: nothing that follows is looked at.
    def take(self, packet):
        is_large = packet.size > self.size - 2
        if len(packet.body) < min(packet.size, self.size - 2):
            return False
        if not self.is_connected and packet.name != "CONNACK":
            self.end = "ServerError"
        elif is_large:
            self.take_large(packet)
        else:
            clauses = [clause for clause in packet.clauses if clause not in PASSED_OVER]
            if packet.name == "SUBACK" and self.asked_for(packet) != "SUBACK":
                clauses = [clause for clause in clauses if not clause.startswith("MQTT-3.9.3")]
            if packet.name == "CONNACK":
                self.take_connack(packet)
            elif clauses:
                self.end = "ServerError"
            else:
                getattr(self, "take_" + packet.name.lower())(packet)
        return self.end is None and packet.is_whole

    def asked_for(self, packet):
        key = (packet.packet_id or 0).to_bytes(2, "big")
        return self.asked.get(key, (None,))[0]

    def take_connack(self, packet):
        if packet.return_code:
            self.end = "Refused"
        elif self.is_connected or packet.clauses:
            self.end = "ServerError"
        # A session that was not asked for is forgotten.
        self.is_connected = True

    # Only its begin is kept. Its message is dropped, and acknowledged at its end.
    def take_large(self, packet):
        if packet.name == "PUBLISH":
            topic_end = 2 + int.from_bytes(packet.body[:2], "big")
            fields_end = topic_end + (2 if packet.qos else 0)
            if topic_end < 3 or fields_end > packet.size:
                self.end = "ServerError"
            elif packet.is_whole and packet.qos:
                packet_id = int.from_bytes(packet.body[topic_end:fields_end], "big")
                if packet_id:
                    self.answer(0x40 if packet.qos == 1 else 0x50, packet_id)
                    if packet.qos == 2:  # in use until PUBREL
                        self.received.add(packet_id)
                else:
                    self.end = "ServerError"
            return
        packet.packet_id = int.from_bytes(packet.body[:2], "big")
        # A SUBACK with so many codes.
        if not packet.packet_id or self.asked_for(packet) == "SUBACK":
            self.end = "ServerError"

    def take_publish(self, packet):
        if packet.qos == 1:
            self.answer(0x40, packet.packet_id)
        elif packet.qos == 2:
            self.answer(0x50, packet.packet_id)
            if packet.packet_id in self.received:
                return
            self.received.add(packet.packet_id)
        if "MQTT-3.3.2-2" in packet.clauses:
            return
        name = packet.topic_name.decode()
        takers = [taker for one, taker in self.filters if matches(one, name)] or ["default"]
        is_dup = packet.dup and packet.qos > 0
        for taker in takers:
            self.messages.append((taker, name, packet.payload, packet.qos, packet.retain, is_dup))

    def take_puback(self, packet):
        # For QoS 2, too, before PUBREC: RabbitMQ 3 answers so.
        self.end_exchange(packet, ("PUBACK", "PUBREC"))

    def take_pubcomp(self, packet):
        self.end_exchange(packet, ("PUBCOMP",))

    def end_exchange(self, packet, kinds):
        key = packet.packet_id.to_bytes(2, "big")
        if key in self.awaited and self.awaited[key][0] in kinds:
            self.told.append(("published", self.awaited.pop(key)[1]))

    def take_pubrec(self, packet):
        self.answer(0x62, packet.packet_id)
        message = self.awaited.get(packet.packet_id.to_bytes(2, "big"))
        if message and message[0] == "PUBREC":
            message[0] = "PUBCOMP"

    def take_pubrel(self, packet):
        self.received.discard(packet.packet_id)
        self.answer(0x70, packet.packet_id)

    def take_suback(self, packet):
        if self.asked_for(packet) == "SUBACK":
            _, token, _ = self.asked.pop(packet.packet_id.to_bytes(2, "big"))
            if len(packet.codes) != 1:
                self.end = "ServerError"
            else:
                self.told.append(("subscribed", token, packet.codes))

    def take_unsuback(self, packet):
        if self.asked_for(packet) == "UNSUBACK":
            _, _, name = self.asked.pop(packet.packet_id.to_bytes(2, "big"))
            self.filters = [one for one in self.filters if one[1] != name]

    def take_pingresp(self, packet):
        pass


def check(case):
    check_as(case, World, Expected)


def check_as(case, make_world, expect):
    case = case.ljust(3, b"\0")
    world = make_world(case[0], READS[case[2] % 4])
    stream = case[3:]
    expected = expect(world, stream)
    bench = world.bench
    connection = bench.server
    for piece in fuzz_streams.pieces(case[1], stream):
        if connection.is_closed:
            break
        connection.send(piece)
        bench.steps()
    bench.steps()
    answers = bytes(connection.from_client)
    told = [event for event in bench.events if event[0] in ("published", "subscribed")]
    dropped = [event[1] for event in bench.events if event[0] == "dropped"]
    ends = [event[1] for event in bench.events if event[0] == "offline"]
    assert world.messages == expected.messages, (world.messages, expected.messages)
    assert told == expected.told, (told, expected.told)
    assert dropped == expected.dropped, (dropped, expected.dropped)
    assert all(isinstance(error, mqttpipe.MQTTError) for error in world.errors), world.errors
    assert len(bench.client._decoder.buf) == world.size, "the buffer has grown"
    if expected.end or expected.is_in_doubt and ends:
        kind = expected.end or "ServerError"
        assert [type(error).__name__ for error in ends] == [kind], (ends, kind)
        assert connection.is_closed and bench.client.state_name == "WAITING"
        if kind == "ServerError":
            answers = expected.without_good_bye(answers)
        assert expected.answers.startswith(answers), (answers, expected.answers)
        return
    assert not ends and not connection.is_closed, ends
    assert answers == expected.answers, (answers, expected.answers)
    if expected.is_connected:
        connection.received()
        world.check_that_it_goes_on(expected)
    if case[2] & 4:
        connection.is_ended = True
        bench.steps()
        assert type(bench.events[-1][1]) is mqttpipe.TransportError, bench.events[-1]
