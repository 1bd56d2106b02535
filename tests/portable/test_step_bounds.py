"""One step(0) against a server that never stops: it comes back after so many calls, no more."""

import board_heap  # noqa: F401
from dns_records import A1, A2, answer, record
from fakes import CONNACK, ECONNREFUSED, Bench, SkipTest, has_memory, needs

import mqttpipe

TIMEOUT_MS = 500
KEEP_ALIVE_S = 2

# It deals with 16 packets of at most five reads (the head, three more bytes of length, the body),
# and one read may find nothing. It writes 32 times, each in up to three parts (what was refused,
# what has come behind it, a large payload).
READS_MAX = 16 * 5 + 1
WRITES_MAX = 32 * 3

# PUBLISH at QoS 1; more of it than the answers to it that fit the client.
FLOOD = b"\x32\x06\x00\x01t\x00\x01x" * 200


def online(**options):
    options.setdefault("packet_bytes_max", 256)
    bench = Bench(connect_timeout_ms=TIMEOUT_MS, keep_alive_s=KEEP_ALIVE_S, **options)
    bench.go_online()
    return bench


def calls_of_a_step(bench):
    before = bench.network.calls
    bench.client.step()
    return bench.network.calls - before


def test_a_flood_of_packets_that_come_byte_by_byte_does_not_keep_one_step_going():
    """As TLS records of one byte do: each read gives one, and the next is there."""
    for size in (1, 2, 20, 100):
        bench = online()
        bench.server.read_max = 1
        body = b"\x00\x01t" + b"x" * size
        bench.server.send((b"\x30" + bytes((len(body),)) + body) * 24)
        for _ in range(4000):
            before = bench.network.reads
            bench.client.step()
            assert 0 < bench.network.reads - before <= READS_MAX, (size, bench.network.reads)
            if len(bench.events) == 24:
                break
        assert len(bench.events) == 24, (size, len(bench.events))


def test_a_flood_of_packets_does_not_keep_one_step_going():
    publish = b"\x32\x06\x00\x01t\x00\x01x"
    long_way_of_writing_it = b"\x32\x86\x80\x80\x00\x00\x01t\x00\x01x"
    for packet in (publish, long_way_of_writing_it):
        for read_max in (1, 2, 3, 7, 1000):
            bench = online()
            bench.server.read_max = read_max
            bench.server.send(packet * 64)
            for _ in range(2000):
                calls = calls_of_a_step(bench)
                assert 0 < calls <= READS_MAX + WRITES_MAX, (packet, read_max, calls)
                if len(bench.events) == 64:
                    break
            assert len(bench.events) == 64, (packet, read_max, len(bench.events))
            assert not bench.select.slept


def test_connack_and_the_messages_behind_it_are_not_one_step():
    """On a board with TLS that step took 50 ms: CONNACK, what is sent again, and 16 messages."""
    bench = Bench()
    bench.client.subscribe("t", qos=1)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.server.send(CONNACK + b"\x32\x06\x00\x01t\x00\x01x" * 3)
    assert bench.client.step()
    assert bench.take_events() == [("connect", False)] and not bench.server.received()
    assert bench.client.next_deadline_ms() == 0, "who waits comes back at once"
    bench.steps()
    assert [event[0] for event in bench.take_events()] == ["message"] * 3


class Endless:
    """A connection's to_client that does not get empty."""

    def __len__(self):
        return 1 << 20

    def __getitem__(self, at):
        return b"x" * at.stop if at.start is None else self


def test_a_packet_without_end_does_not_keep_one_step_going():
    """256 MiB, of which something has always come already."""
    bench = online()
    bench.server.send(b"\x30\xff\xff\xff\x7f\x00\x01t")
    bench.steps()
    bench.server.to_client = Endless()
    network = bench.network
    network.fail_at_call = network.calls + 1000  # or the test would have no end itself
    for _ in range(3):
        calls = calls_of_a_step(bench)
        assert 0 < calls <= READS_MAX + WRITES_MAX, calls
    assert bench.client.is_online()


def test_a_flood_to_a_client_that_can_not_answer_is_left_where_it_is():
    bench = online()
    bench.server.write_credit = 0
    bench.server.send(FLOOD)
    for _ in range(60):
        assert calls_of_a_step(bench) <= READS_MAX + WRITES_MAX
    assert len(bench.server.to_client) > 700, "read, although no answer can leave"
    bench.events.clear()
    bench.clock.advance(TIMEOUT_MS - 1)
    bench.steps()
    assert not bench.events
    bench.clock.advance(1)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "WRITE", error


def sockets_of_each_step(bench):
    """Step until nothing happens; return how many sockets each step has made."""
    network = bench.network
    counts = []
    for _ in range(100):
        before = len(network.lookups) + len(network.connections)
        has_happened = bench.client.step()
        counts.append(len(network.lookups) + len(network.connections) - before)
        if not has_happened:
            return counts
    raise AssertionError("step() finds work without end")


def refuse_lookups(network):
    """As lwIP does while the cable is out: a query can't be sent, which is known at once."""
    make_socket = network.socket

    def make_socket_without_a_way(*arguments):
        sock = make_socket(*arguments)
        if sock in network.lookups:
            sock.write = refuse
        return sock

    def refuse(data):
        raise OSError(113, "EHOSTUNREACH")

    network.socket = make_socket_without_a_way


def test_each_try_to_resolve_a_name_without_a_network_is_a_step():
    """Nine in one step took 65 ms on the emulated board, and 95 with the heap of a full pipe."""
    needs("resolver")
    bench = Bench(uri="mqtt://mq.example", reconnect_min_ms=1000, reconnect_max_ms=1000)
    bench.client.connect()
    bench.steps()
    bench.network.lookups[0].answers.append(answer([A1]))  # for 60 s
    bench.steps()
    bench.exchange(CONNACK)
    bench.clock.advance(61_000)
    refuse_lookups(bench.network)
    bench.network.refused = "192.0.2.7"
    bench.server.is_ended = True
    bench.steps()
    assert bench.client.state_name == "WAITING"
    bench.clock.advance(1000)
    counts = sockets_of_each_step(bench)
    assert sum(counts) == 4 + 1 + 4, "A of two servers, the old address, AAAA: %r" % counts
    assert max(counts) <= 2, counts


def test_each_address_that_refuses_at_once_is_a_step():
    needs("resolver")
    bench = Bench(uri="mqtt://mq.example")
    bench.client.connect()
    bench.steps()
    bench.network.connect_error = ECONNREFUSED
    addresses = [A1, A2] + [record(bytes((192, 0, 2, 20 + n))) for n in range(6)]
    bench.network.lookups[0].answers.append(answer(addresses))
    counts = sockets_of_each_step(bench)
    assert sum(counts) == len(addresses) + 1, "each, and a query for the other family: %r" % counts
    assert max(counts) <= 2, counts


def test_a_slow_server_is_not_given_up_while_it_takes_a_little_now_and_then():
    """Half of a packet has been read, and the rest waits for room to answer: that is our doing."""
    bench = online()
    bench.server.write_credit = 0
    bench.server.send(FLOOD)
    bench.steps()
    bench.events.clear()
    for _ in range(10):
        bench.clock.advance(TIMEOUT_MS - 1)
        bench.server.write_credit = 10
        bench.steps()
        assert not bench.events, bench.events
    # And the deadline for the rest of that packet runs when there is room again.
    bench.server.to_client = bytearray()
    bench.server.write_credit = 1 << 20
    bench.steps()
    bench.events.clear()
    bench.clock.advance(TIMEOUT_MS - 1)
    bench.steps()
    assert not bench.events
    bench.clock.advance(1)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "PACKET", error


def test_messages_that_publish_messages_do_not_keep_one_step_going():
    bench = online(pipe_slots=4)
    bench.client.on_published = lambda client, token: client.publish("t", b"more")
    bench.client.publish("t", b"first")
    for _ in range(5):
        assert 0 < calls_of_a_step(bench) <= READS_MAX + WRITES_MAX
    assert len(bench.server.received()) > 5


def test_no_acknowledgement_comes_between_a_header_and_its_payload():
    """The last read that a step may make has completed a packet: its answer needs room, too."""
    if not has_memory(700_000):
        raise SkipTest("needs more than a board's memory")
    payload = b"y" * 4000
    for reads in range(54, 62):
        bench = online(packet_bytes_max=4096)
        size = 4094 * reads
        head = b"\x30" + bytes((size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14))
        bench.server.send(head + b"\x00\x01t" + bytes(size - 3))
        bench.server.send(b"\x32\x06\x00\x01t\x00\x07x" * 3)
        bench.client.publish("x", payload)  # it is written from where it lies
        bench.server.write_credit = 0
        for _ in range(6):
            bench.client.step()
        bench.server.write_credit = 1 << 20
        bench.steps()
        sent = bench.server.received()
        assert b"\x30\xa3\x1f\x00\x01x" + payload in sent, (reads, sent[:40])
        assert sent.count(b"\x40\x02\x00\x07") == 3
