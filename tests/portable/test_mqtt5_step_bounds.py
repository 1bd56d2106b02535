"""With MQTT 5.0, as test_step_bounds.py: one step(0) comes back after so many calls, no more."""

from fakes import needs
from mqtt5 import connack, online
from test_step_bounds import READS_MAX, WRITES_MAX, calls_of_a_step

OPTIONS = {"packet_bytes_max": 256, "connect_timeout_ms": 500, "keep_alive_s": 2}
# A server that takes eight aliases.
ALIASES = b"\x22\x00\x08"


def body(packet):
    assert len(packet) < 128
    return bytes((len(packet),)) + packet


# What a server may send without end: each is dealt with in as many calls as in MQTT 3.1.1.
FLOODS = (
    b"\x32" + body(b"\x00\x01t\x00\x01\x00x"),
    b"\x30" + body(b"\x00\x01t\x03\x23\x00\x01x"),
    # Each a topic alias anew, with properties that are made into a dict.
    b"\x32" + body(b"\x00\x01t\x00\x01\x0c\x23\x00\x01\x26\x00\x01a\x00\x03bcdx"),
    b"\x40" + body(b"\x00\x09\x10\x04\x1f\x00\x01r"),
    b"\x50" + body(b"\x00\x09\x97"),
    b"\x50" + body(b"\x00\x09"),  # answered with PUBREL and 0x92
    b"\x62" + body(b"\x00\x09\x92"),
    b"\x62" + body(b"\x00\x09"),  # with PUBCOMP and 0x92
    b"\x90" + body(b"\xff\x09\x00\x87"),
)


def test_a_flood_of_each_packet_does_not_keep_one_step_going():
    for packet in FLOODS:
        for read_max in (1, 3, 1000):
            bench = online(ALIASES, **OPTIONS)
            bench.server.read_max = read_max
            bench.server.send(packet * 48)
            for _ in range(2000):
                if not bench.server.to_client:
                    break
                calls = calls_of_a_step(bench)
                assert 0 < calls <= READS_MAX + WRITES_MAX, (packet, read_max, calls)
            assert not bench.server.to_client, packet
            bench.events.clear()
            bench.steps()
            assert bench.client.is_online(), packet


def per_step(bench, packet):
    """How many of these packets a step deals with."""
    counts = []
    bench.server.send(packet * 64)
    for _ in range(4):
        counts.append(bench.client.stats["packets_received"])
        bench.client.step()
    assert bench.client.is_online(), packet
    assert counts[3] - counts[2] == counts[2] - counts[1] == counts[1] - counts[0], counts
    return counts[1] - counts[0]


def test_long_properties_end_the_step():
    """Each becomes an object, and each text is looked at byte by byte."""
    needs("stats")
    for size, count in ((64, 16), (65, 1)):
        pairs = b"\x26\x00\x01k\x00\x01v" * 7
        pairs += b"\x26\x00\x01k\x00" + bytes((size - 55,)) + b"v" * (size - 55)
        message = b"\x00\x01t" + bytes((size,)) + pairs + b"a payload"
        assert per_step(online(**OPTIONS), b"\x30" + body(message)) == count
    for size, count in ((60, 16), (61, 1)):
        answer = b"\x00\x09\x10" + bytes((size,)) + b"\x1f\x00" + bytes((size - 3,))
        packet = b"\x40" + body(answer + b"r" * (size - 3))
        assert per_step(online(**OPTIONS), packet) == count


def test_many_filters_that_each_message_is_compared_with_end_the_step():
    """Where it has an identifier: else it is known what matches its topic name."""
    needs("stats")
    for filters, count in ((17, 1), (16, 16)):
        bench = online(**OPTIONS)
        properties = {"subscription_identifier": 7}
        bench.client.subscribe("#", lambda client, message: None, properties=properties)
        for number in range(1, filters):
            bench.client.subscribe("t/%d" % number)
        bench.steps()
        while bench.server.received():
            bench.steps()
        for number in range(1, filters + 1):
            bench.exchange(b"\x90" + body(b"\xff" + bytes((number,)) + b"\x00\x00"))
        assert per_step(bench, b"\x30" + body(b"\x00\x01t\x02\x0b\x07x")) == count


def test_a_flood_to_a_client_that_can_not_answer_is_left_where_it_is():
    for packet in (FLOODS[5], FLOODS[7]):
        bench = online(**OPTIONS)
        bench.server.write_credit = 0
        bench.server.send(packet * 300)
        for _ in range(60):
            assert calls_of_a_step(bench) <= READS_MAX + WRITES_MAX
        assert len(bench.server.to_client) > 700, "read, although no answer can leave"


def test_a_server_that_refuses_all_does_not_keep_one_step_going():
    """Each refusal is told, and the application publishes the next message."""
    bench = online(**dict(OPTIONS, pipe_slots=4))
    client = bench.client
    client.on_dropped = lambda c, token: c.publish("t", b"more", 1)
    client.publish("t", b"first", 1)
    for _ in range(50):
        assert calls_of_a_step(bench) <= READS_MAX + WRITES_MAX
        wire = bench.server.received()
        while wire:
            end = 2 + wire[1]
            if wire[0] == 0x32:
                bench.server.send(b"\x40\x03" + wire[5:7] + b"\x97")
            wire = wire[end:]
    told = [event for event in bench.events if event[0] == "error"]
    assert len(told) > 20 and client.is_online(), len(told)


def test_what_a_new_server_does_not_take_does_not_keep_one_step_going():
    """Its Maximum Packet Size is too small for all that waits."""
    bench = online(**dict(OPTIONS, pipe_slots=40, reconnect_min_ms=20))
    dropped = []
    bench.client.on_dropped = lambda c, token: dropped.append(token)
    bench.server.is_ended = True
    bench.steps()
    for number in range(39):
        bench.client.publish("t", bytes(40), number % 3)
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.send(connack(b"\x27\x00\x00\x00\x20"))
    for _ in range(60):
        assert calls_of_a_step(bench) <= READS_MAX + WRITES_MAX
    assert len(dropped) == 39 and bench.client.is_online(), len(dropped)
