"""lwIP's memory for what is on its way: no write finds it full, no connection a dead one's."""

import board_heap  # noqa: F401
from fakes import ECONNRESET, Bench, SkipTest, has_memory, needs
from test_unproven_writes import PINGREQ, PINGRESP, on_lwip, publish_each_step

import mqttpipe

EHOSTUNREACH = 113


class Memory:
    """lwIP's: each write takes segments of its own, which Nagle's algorithm does not join.

    Stands for the write() of each connection. arrived: what the server has; it has acknowledged
    that, and nothing else.
    """

    BYTES = 8_000
    SEND_BYTES = 6_400  # a connection may have on its way
    SEGMENT_BYTES = 800
    SEGMENT_MORE_BYTES = 80  # than what is in it
    SEGMENTS = 32

    def __init__(self, network):
        self._connect = network.socket
        network.socket = self.socket
        self._segments = []
        self._data = self.arrived = b""
        self.most_bytes = self.most_segments = 0

    def socket(self, *arguments):
        connection = self._connect(*arguments)
        self._write = connection.write
        connection.write = self.write
        return connection

    def write(self, data, at, size):
        size = min(size, self.SEND_BYTES - sum(self._segments))
        if not size:
            return None
        self._data += data[at : at + size]
        for rest in range(size, 0, -self.SEGMENT_BYTES):
            self._segments.append(min(rest, self.SEGMENT_BYTES))
        segments = len(self._segments)
        self.most_segments = max(self.most_segments, segments)
        taken = sum(self._segments) + segments * self.SEGMENT_MORE_BYTES
        self.most_bytes = max(self.most_bytes, taken)
        return self._write(data, at, size)

    def is_full(self):
        return sum(self._segments) == self.SEND_BYTES

    def acknowledge(self, count=100):
        size = sum(self._segments[:count])
        del self._segments[:count]
        self.arrived += self._data[:size]
        self._data = self._data[size:]

    def take(self):
        """What has come since the last call."""
        arrived, self.arrived = self.arrived, b""
        return arrived


SIZES = (1, 30, 700, 795, 1_000, 1_300, 1_452, 1_500, 5_500, 9_000)
KINDS = (2, 5, 10)  # of them: small ones, those of one write, all


class Arrivals:
    """What has come, packet by packet: sizes of the payloads of topic "t", and PINGREQs."""

    def __init__(self):
        self.rest = b""
        self.sizes = []
        self.pings = 0

    def add(self, data):
        rest = self.rest + data
        while len(rest) >= 2:
            end, length, shift = 1, 0, 0
            while end < len(rest):
                length |= (rest[end] & 0x7F) << shift
                shift += 7
                end += 1
                if rest[end - 1] < 0x80:
                    break
            if rest[end - 1] >= 0x80 or len(rest) < end + length:
                break
            if rest[0] == 0x30:
                self.sizes.append(length - 3)
            elif rest[0] == PINGREQ[0]:
                self.pings += 1
            rest = rest[end + length :]
        self.rest = rest


def is_attempted_after(bench, wait_ms):
    """connect() again: is nothing tried before that time is over, and then at once?"""
    attempts = len(bench.network.connections)
    bench.client.connect()
    bench.steps()
    if wait_ms:
        bench.clock.advance(wait_ms - 1)
        bench.steps()
        assert bench.client.state_name == "WAITING" and bench.client.next_deadline_ms() == 1
        assert len(bench.network.connections) == attempts
        bench.clock.advance(1)
        bench.steps()
    return len(bench.network.connections) == attempts + 1


@on_lwip
def test_a_dead_connection_s_memory_is_waited_for_behind_disconnect_too(bench):
    """Else the next connection's writes block: lwIP holds it for 10 s."""
    client = bench.client
    client.publish(b"t", b"x", qos=1)
    bench.steps()
    bench.clock.advance(10_001)
    bench.steps()
    assert bench.error().stage == "ACK" and client.state_name == "WAITING"
    bench.clock.advance(400)
    client.disconnect()
    bench.steps()
    assert client.state_name == "DOWN"
    bench.clock.advance(100)
    assert is_attempted_after(bench, 10_000)


@on_lwip
def test_a_dead_connection_s_memory_is_waited_for_when_disconnect_has_found_no_end(bench):
    client = bench.client
    client.publish(b"t", b"x", qos=1)
    client.disconnect()
    bench.steps()
    bench.clock.advance(10_001)
    bench.steps()
    assert client.state_name == "DOWN"
    assert is_attempted_after(bench, 10_500)


def closed_by_the_server(bench):
    """Behind two writes that nothing has proven to have come."""
    publish_each_step(bench.client, 2)
    bench.server.received()
    bench.events.clear()
    bench.server.is_ended = True
    bench.steps()
    return bench.server


@on_lwip
def test_a_server_that_closes_is_asked_for_a_reset_which_frees_the_memory(bench):
    server = closed_by_the_server(bench)
    assert server.received() == PINGREQ and not server.is_closed
    assert str(bench.error()) == "ONLINE: closed by the server"
    server.error = ECONNRESET
    bench.clock.advance(999)
    bench.steps()
    assert bench.client.state_name == "WAITING"
    bench.clock.advance(1)
    assert is_attempted_after(bench, 0)
    assert server.is_closed


@on_lwip
def test_a_server_that_closes_and_sends_no_reset_leaves_its_memory_taken(bench):
    server = closed_by_the_server(bench)
    bench.clock.advance(1_000)
    assert is_attempted_after(bench, 10_500)
    assert server.is_closed


@on_lwip
def test_no_socket_is_left_behind_disconnect(bench):
    server = closed_by_the_server(bench)
    bench.client.disconnect()
    assert bench.client.wait_offline(1_000)
    assert server.is_closed


def test_a_server_of_mqtt_5_that_says_why_it_closes_is_asked_as_well():
    needs("mqtt5")

    def test(bench):
        publish_each_step(bench.client, 2)
        bench.server.received()
        bench.server.send(b"\xe0\x01\x8b")
        bench.steps()
        assert bench.server.received() == PINGREQ and not bench.server.is_closed
        bench.clock.advance(1_000)
        assert is_attempted_after(bench, 10_500)

    before = mqttpipe._linger_ms
    mqttpipe._linger_ms = 10_500
    try:
        test(Bench(protocol=5, pipe_slots=100).go_online(b"\x20\x03\x00\x00\x00"))
    finally:
        mqttpipe._linger_ms = before


@on_lwip
def test_the_next_of_several_servers_waits_for_the_reset(bench):
    needs("failover")
    bench = Bench(uri=["mqtt://192.0.2.1", "mqtt://192.0.2.2"], pipe_slots=100).go_online()
    closed_by_the_server(bench).error = ECONNRESET
    assert is_attempted_after(bench, 300)


@on_lwip
def test_a_network_that_is_gone_leaves_the_memory_taken_and_a_reset_frees_it(bench):
    for errno, wait_ms in ((EHOSTUNREACH, 10_500), (ECONNRESET, 0), (-ECONNRESET, 0)):
        publish_each_step(bench.client, 2)
        bench.server.error = errno
        bench.steps()
        bench.clock.advance(0 if wait_ms else 1_000)
        assert is_attempted_after(bench, wait_ms), errno
        bench.go_online()


@on_lwip
def test_where_all_is_proven_to_have_come_no_memory_is_waited_for(bench):
    bench.client.publish(b"t", b"x")
    bench.steps()
    bench.clock.advance(300_000)
    bench.steps()
    bench.exchange(PINGRESP)
    bench.server.is_ended = True
    bench.steps()
    assert bench.server.is_closed
    bench.clock.advance(1_000)
    assert is_attempted_after(bench, 0)


@on_lwip
def test_connect_waits_for_no_memory_that_is_free(bench):
    client = bench.client
    client.disconnect()
    bench.steps()
    assert client.state_name == "DOWN"
    assert is_attempted_after(bench, 0), "a connection that ended in good order"
    bench.go_online()
    client.publish(b"t", b"x", qos=1)
    client.disconnect()
    bench.steps()
    bench.clock.advance(10_001)
    bench.steps()
    bench.clock.advance(10_500)
    assert is_attempted_after(bench, 0), "one that died long ago"


def test_no_write_finds_the_memory_full_whatever_is_sent():
    if not has_memory(300_000):
        raise SkipTest("needs more than a board's memory")
    most_bytes = []
    most_segments = []
    before = mqttpipe._linger_ms
    mqttpipe._linger_ms = 10_500
    for seed in range(12):
        bench = Bench(
            pipe_slots=(8, 100)[seed % 2], packet_bytes_max=(9_100, 1_024)[seed % 4 // 3]
        )
        memory = Memory(bench.network)
        bench.client.connect()
        bench.steps()
        memory.acknowledge()
        memory.take()
        bench.go_online()
        client, server = bench.client, bench.server
        client.on_published = None
        arrivals = Arrivals()
        sizes = []
        draw = seed
        for turn in range(1_000):
            draw = (draw * 1_103_515 + 12_345) & 0xFFFFFF
            pick = draw >> 8
            if turn < 500 and pick % 3:
                size = SIZES[pick % 1_000 % KINDS[seed % 3]]
                try:
                    client.publish(b"t", bytes(size))
                    sizes.append(size)
                except (mqttpipe.LocalError, mqttpipe.QueueFull):
                    pass
            if pick % 5 == 0:
                server.send(b"\x32\x05\x00\x01m\x00\x07")
            client.step()
            if turn > 500 or pick % 29 == 0:
                memory.acknowledge()
            elif pick % 6 == 0 and (seed % 2 or memory.is_full()):
                memory.acknowledge(1)
            arrivals.add(memory.take())
            if arrivals.pings and (pick % 7 == 0 or turn > 500):
                arrivals.pings -= 1
                server.send(PINGRESP)
        assert arrivals.sizes == sizes and len(sizes) > 30, (len(sizes), len(arrivals.sizes))
        assert client.is_online()
        assert memory.most_bytes <= memory.BYTES, (seed, memory.most_bytes)
        assert memory.most_segments <= memory.SEGMENTS, (seed, memory.most_segments)
        most_bytes.append(memory.most_bytes)
        most_segments.append(memory.most_segments)
    mqttpipe._linger_ms = before
    assert max(most_bytes) > 7_000 and max(most_segments) > 12, (most_bytes, most_segments)
