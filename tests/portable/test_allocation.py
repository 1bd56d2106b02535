"""The steady state allocates nothing: proven under heap_lock() and by gc.mem_alloc().

CPython counts otherwise: there these tests only run the same paths.
"""

import gc

from fakes import Bench, needs

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


def online(**options):
    """A client in service whose socket is a Server that allocates nothing."""
    bench = Bench(**options).go_online()
    client = bench.client
    client.on_published = client.on_subscribed = client.on_message = client.on_error = None
    bench.select.ipoll = lambda timeout_ms: ()
    client._socket = Server()
    bench.select.watched[id(client._socket)] = 1
    return bench, client, client._socket


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
    if hasattr(gc, "mem_alloc"):
        assert allocated(lambda: bytearray(100)) >= 100
        try:
            locked(lambda: bytearray(100))
        except MemoryError:
            return
        raise AssertionError("heap_lock() did not hold")


def test_an_idle_step_allocates_nothing():
    bench, client, server = online()
    check(client.step)


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
    bench, client, server = online()
    one, two, payload = b"home/kitchen", b"home/cellar", b"21.5"

    def once():
        client.publish(one, payload)
        client.publish(two, payload, 0, True)
        client.step()

    check(once)


def test_publishing_qos_1_and_its_acknowledgement_allocate_nothing():
    bench, client, server = online()
    seen = [0]

    def on_published(client, token):
        seen[0] = token

    client.on_published = on_published
    puback = bytearray(b"\x40\x02\x00\x00")
    session = client._session

    def once():
        token = client.publish(TOPIC, PAYLOAD, 1)
        client.step()
        puback[2] = session.last_packet_id >> 8
        puback[3] = session.last_packet_id & 0xFF
        server.feed(puback)
        client.step()
        assert client.is_done(token) and seen[0] == token

    check(once)


def test_publishing_qos_2_and_its_acknowledgements_allocate_nothing():
    needs("qos2")
    bench, client, server = online()
    answer = bytearray(b"\x50\x02\x00\x00")
    session = client._session

    def once():
        token = client.publish(TOPIC, PAYLOAD, 2)
        client.step()
        answer[2] = session.last_packet_id >> 8
        answer[3] = session.last_packet_id & 0xFF
        for first_byte in b"\x50\x70":
            answer[0] = first_byte
            server.feed(answer)
            client.step()
        assert client.is_done(token)

    check(once)


def test_a_full_window_and_a_full_pipe_allocate_nothing():
    bench, client, server = online(in_flight_max=8, pipe_slots=32)
    puback = bytearray(b"\x40\x02\x00\x00")
    session = client._session

    def once():
        for _ in range(20):
            client.publish(TOPIC, PAYLOAD, 1)
        while not session.is_empty() or client._pipe.head != client._pipe.tail:
            client.step()
            for row in session.rows:
                packet_id = row[1]
                if packet_id:
                    puback[2] = packet_id >> 8
                    puback[3] = packet_id & 0xFF
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
    client._session.subscriptions[0][4] = client._session.subscriptions[1][4] = 3
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
