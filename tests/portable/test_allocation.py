"""The steady state allocates nothing: proven under heap_lock() and by gc.mem_alloc().

CPython counts otherwise: there these tests only run the same paths.
"""

import gc

from fakes import CONNACK, EINPROGRESS, Bench, SkipTest, needs, raises

import micropython
import mqttpipe

# MicroPython allocates for each call of a closure over more than five variables, so
# what the tests below have in common stands here.
TOPIC = b"home/kitchen/temperature"
PAYLOAD = b"x" * 64


class Server:
    """The socket and the poll of these tests: they must not allocate, so no bytes are kept.

    A write empties into nothing. A read gives `packet`, which is the same each time.
    """

    def __init__(self):
        self.packet = None
        self.at = 0

    def feed(self, packet):
        self.packet = packet
        self.at = 0

    def setblocking(self, flag):
        pass

    def setsockopt(self, level, name, value):
        pass

    def connect(self, address):
        raise OSError(EINPROGRESS, "by the test")

    def write(self, buf, offset, count):
        return count

    def readinto(self, buf, count):
        if self.packet is None:
            return None
        packet = self.packet
        at = self.at
        count = min(count, len(packet) - at)
        for i in range(count):
            buf[i] = packet[at + i]
        self.at = at + count
        if self.at == len(packet):
            self.packet = None
        return count

    def close(self):
        pass


class QuietPoll:
    def register(self, thing, mask=5):
        pass

    def modify(self, thing, mask):
        pass

    def ipoll(self, timeout_ms):
        return ()


def online(connack=CONNACK, **options):
    """A client in service whose socket is a Server that allocates nothing."""
    bench = Bench(**options)
    server = Server()
    bench.network.socket = lambda family, kind: server
    bench.select.poll = QuietPoll
    client = bench.client
    client.connect()
    client.step()
    server.feed(connack)
    bench.steps()
    assert client.is_online(), client.state_name
    client.on_published = client.on_subscribed = client.on_message = client.on_error = None
    return bench, client, server


def id_of(token):
    """The packet identifier of a message follows from its token."""
    return (token - 1) % 65279 + 1


def allocated(function):
    """Bytes that one call allocates, the first few aside. Not known on CPython: 0."""
    for _ in range(4):
        function()
    if not hasattr(gc, "mem_alloc"):
        return 0
    gc.collect()
    gc.disable()
    before = gc.mem_alloc()
    for _ in range(10):
        function()
    after = gc.mem_alloc()
    gc.enable()
    return (after - before) / 10


def locked(function):
    """Call it with the heap locked: whatever allocates raises MemoryError."""
    function()
    function()
    gc.collect()
    micropython.heap_lock()
    try:
        function()
        function()
    finally:
        micropython.heap_unlock()


def check(function):
    locked(function)
    count = allocated(function)
    assert count == 0, count


def test_the_meter_sees_an_allocation():
    if not hasattr(gc, "mem_alloc"):
        raise SkipTest("CPython has no such meter")
    assert allocated(lambda: bytearray(100)) >= 100
    raises(MemoryError, locked, lambda: bytearray(100))


def test_an_idle_step_allocates_nothing():
    bench, client, server = online()
    check(client.step)


def test_a_step_that_sleeps_allocates_nothing():
    bench, client, server = online()
    check(lambda: client.step(100))


def test_publishing_qos_0_allocates_nothing():
    bench, client, server = online()

    def once():
        client.publish(TOPIC, PAYLOAD)
        client.step()

    check(once)


def test_publishing_packets_of_nearly_the_largest_size_allocates_nothing():
    topic = b"home"
    for size in range(1006, 1016):  # with its header 1,014 to 1,024 bytes, the default's largest
        bench, client, server = online()
        payload = b"x" * size

        def once(client=client, payload=payload):
            client.publish(topic, payload)
            client.step()

        check(once)


def test_messages_of_alternating_topics_allocate_nothing():
    bench, client, server = online()
    client.subscribe("home/+/lamp", print)
    client.subscribe("cellar/#", lambda client, message: message.retain)
    client.step()
    packets = (b"\x30\x0e\x00\x0bhome/x/lamo1", b"\x31\x0b\x00\x08cellar/a2")

    def once():
        for packet in packets:
            server.feed(packet)
            client.step()

    check(once)


def test_publishing_under_changing_topics_allocates_nothing():
    """The last eight are known."""
    bench, client, server = online()
    topics, payload = [b"home/%d" % i for i in range(8)], b"21.5"

    def once():
        for topic in topics:
            client.publish(topic, payload)
            client.publish(topic, payload, 0, True)
        client.step()

    check(once)


def test_messages_of_eight_topics_in_turn_allocate_nothing():
    bench, client, server = online()
    packets = [b"\x30\x09\x00\x06home/%da" % i for i in range(8)]
    seen = [0]

    def on_message(client, message):
        seen[0] = message.view[0]

    client.on_message = on_message

    def once():
        for packet in packets:
            server.feed(packet)
            client.step()

    check(once)
    assert seen[0] == 0x61


def test_publishing_qos_1_and_its_acknowledgement_allocate_nothing():
    bench, client, server = online()
    seen = [0]

    def on_published(client, token):
        seen[0] = token

    client.on_published = on_published
    puback = bytearray(b"\x40\x02\x00\x00")

    def once():
        token = client.publish(TOPIC, PAYLOAD, 1)
        client.step()
        puback[2] = id_of(token) >> 8
        puback[3] = id_of(token) & 0xFF
        server.feed(puback)
        client.step()
        assert client.is_done(token) and seen[0] == token

    check(once)


def test_publishing_qos_2_and_its_acknowledgements_allocate_nothing():
    needs("qos2")
    bench, client, server = online()
    answer = bytearray(b"\x50\x02\x00\x00")

    def once():
        token = client.publish(TOPIC, PAYLOAD, 2)
        client.step()
        answer[2] = id_of(token) >> 8
        answer[3] = id_of(token) & 0xFF
        for first_byte in b"\x50\x70":
            answer[0] = first_byte
            server.feed(answer)
            client.step()
        assert client.is_done(token)

    check(once)


def test_a_full_window_and_a_full_pipe_allocate_nothing():
    bench, client, server = online(in_flight_max=8, pipe_slots=32)
    puback = bytearray(b"\x40\x02\x00\x00")
    pipe = client._pipe

    def once():
        for _ in range(20):
            client.publish(TOPIC, PAYLOAD, 1)
        while not (pipe.head == pipe.tail):
            client.step()
            for at in range(pipe.size):
                if pipe.firsts[at] & 0x200:  # in flight
                    puback[2] = id_of(pipe.tokens[at]) >> 8
                    puback[3] = id_of(pipe.tokens[at]) & 0xFF
                    server.feed(puback)
                    client.step()

    check(once)


def test_receiving_by_view_allocates_nothing():
    needs("qos2")
    bench, client, server = online()
    seen = [0]

    def on_lamp(client, message):
        view = message.view
        seen[0] = view[0] + len(view) + message.qos

    client.subscribe("home/+/lamp", on_lamp)
    client.subscribe("other/#", on_lamp)
    client.step()
    server.feed(b"\x90\x03\xff\x01\x02\x90\x03\xff\x02\x02")
    client.step()
    assert not client._filters.asked_count
    for packet, pubrel in (
        (b"\x30\x0f\x00\x0bhome/x/lampon", b""),
        (b"\x32\x11\x00\x0bhome/x/lamp\x00\x07on", b""),
        (b"\x34\x11\x00\x0bhome/x/lamp\x00\x08on", b"\x62\x02\x00\x08"),
    ):

        def once(packet=packet, pubrel=pubrel):
            server.feed(packet)
            client.step()
            if pubrel:
                server.feed(pubrel)
                client.step()

        check(once)
        assert seen[0] == 0x6F + 2 + (packet[0] >> 1 & 3), (packet, seen)


def test_keep_alive_allocates_nothing():
    bench, client, server = online(keep_alive_s=10)
    pingresp = b"\xd0\x00"

    def once():
        bench.clock.advance(10_000)
        client.step()
        server.feed(pingresp)
        client.step()

    check(once)
    assert client.is_online()


def test_matching_allocates_nothing():
    buf = bytearray(b"??home/kitchen/lamp/set")
    for topic_filter in (b"home/kitchen/lamp/set", b"home/+/lamp/#", b"#", b"other/#"):
        check(lambda name=topic_filter: mqttpipe.topic_matches(name, buf, 2, 23))
