"""Where a write without memory blocks (lwIP), few leave without a proof that they have come."""

import board_heap  # noqa: F401
from fakes import Bench, SkipTest, has_memory

import mqttpipe

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
PUBLISH = b"\x30\x04\x00\x01tx"
AT_ONCE = 14  # writes before there is a PINGREQ
UNPROVEN = 17  # without an answer


def publish_each_step(client, count, payload=b"x"):
    for _ in range(count):
        client.publish(b"t", payload)
        client.step()


def on_lwip(test, **options):
    def run():
        before = mqttpipe._linger_ms
        mqttpipe._linger_ms = 10_500
        try:
            test(Bench(**(options or {"pipe_slots": 100})).go_online())
        finally:
            mqttpipe._linger_ms = before

    return run


@on_lwip
def test_a_ping_goes_ahead_of_the_fifteenth_write(bench):
    publish_each_step(bench.client, AT_ONCE)
    assert bench.server.received() == AT_ONCE * PUBLISH
    publish_each_step(bench.client, 2)
    assert bench.server.received() == PINGREQ + PUBLISH + PUBLISH


def test_a_ping_and_the_messages_behind_it_leave_whole_wherever_the_stack_divides_them():
    for taken in range(3 * len(PUBLISH) + len(PINGREQ) + 1):

        @on_lwip
        def test(bench, taken=taken):
            client, server = bench.client, bench.server
            publish_each_step(client, AT_ONCE)
            server.received()
            tokens = [client.publish(b"t", b"x") for _ in range(3)]
            server.write_credit = taken
            client.step()
            left = max(0, taken - len(PINGREQ)) // len(PUBLISH)
            done = [client.is_done(token) for token in tokens]
            assert done == [True] * left + [False] * (3 - left), (taken, done)
            server.write_credit = 1 << 30
            bench.steps()
            server.send(PINGRESP)
            bench.steps()
            assert server.received() == PINGREQ + 3 * PUBLISH, taken
            assert all([client.is_done(token) for token in tokens])
            publish_each_step(client, AT_ONCE - 2)
            assert server.received() == (AT_ONCE - 2) * PUBLISH

        test()


@on_lwip
def test_a_server_that_does_not_answer_gets_no_more_and_then_all_at_once(bench):
    publish_each_step(bench.client, 100)
    had = bench.server.received().count(PUBLISH)
    assert had == UNPROVEN
    bench.server.send(PINGRESP)
    bench.steps()
    assert bench.server.received().count(PUBLISH) == 100 - had
    assert bench.client.is_online() and not bench.client.next_deadline_ms() == 0


@on_lwip
def test_one_of_two_segments_counts_twice(bench):
    for _ in range(AT_ONCE // 2):
        publish_each_step(bench.client, 1, bytes(1_000))
        assert PINGREQ not in bench.server.received()
    publish_each_step(bench.client, 1)
    assert bench.server.received() == PINGREQ + PUBLISH


@on_lwip
def test_what_was_written_behind_the_ping_is_not_proved_by_its_answer(bench):
    publish_each_step(bench.client, AT_ONCE + 3)
    assert bench.server.received().count(PINGREQ) == 1
    bench.server.send(PINGRESP)
    publish_each_step(bench.client, AT_ONCE - 2)
    assert PINGREQ not in bench.server.received()
    publish_each_step(bench.client, 1)
    assert bench.server.received() == PINGREQ + PUBLISH


def test_of_two_pings_on_their_way_the_last_answer_proves_what_was_before_the_first():
    def test(bench):
        client, server = bench.client, bench.server
        client.on_message = lambda client, message: bench.clock.advance(1_100)
        publish_each_step(client, AT_ONCE + 1)
        sent = server.received()
        server.send(b"\x30\x04\x00\x01mx")  # takes the callback longer than the keep alive
        bench.steps()
        assert (sent + server.received()).count(PINGREQ) == 2
        server.send(PINGRESP)
        publish_each_step(client, 2 * UNPROVEN)
        sent = server.received()
        assert sent.count(PUBLISH) == UNPROVEN - AT_ONCE - 2 and PINGREQ not in sent
        assert PUBLISH in bench.exchange(PINGRESP)
        publish_each_step(client, UNPROVEN)
        assert server.received().count(PINGREQ) == 1

    on_lwip(test, pipe_slots=100, keep_alive_s=1)()


def test_a_second_ping_that_can_not_leave_before_the_answer_to_the_first_needs_none():
    def test(bench):
        client, server = bench.client, bench.server
        client.on_message = lambda client, message: bench.clock.advance(1_100)
        publish_each_step(client, UNPROVEN + 5)
        server.received()
        assert bench.exchange(b"\x30\x04\x00\x01mx") == b""
        assert bench.exchange(PINGRESP) == PINGREQ + 5 * PUBLISH
        server.send(PINGRESP)
        publish_each_step(client, UNPROVEN)
        assert PINGREQ in server.received()

    on_lwip(test, pipe_slots=100, keep_alive_s=1)()


@on_lwip
def test_acknowledgements_wait_as_well(bench):
    publish_each_step(bench.client, UNPROVEN)
    bench.server.received()
    assert bench.exchange(b"\x32\x05\x00\x01m\x00\x07") == b""
    assert bench.exchange(PINGRESP) == b"\x40\x02\x00\x07"


def test_a_large_message_waits_until_few_segments_are_on_their_way():
    def test(bench):
        publish_each_step(bench.client, 7)
        bench.server.received()
        publish_each_step(bench.client, 1, bytes(2_000))
        assert bench.server.received() == PINGREQ
        assert len(bench.exchange(PINGRESP)) > 2_000

    on_lwip(test, packet_bytes_max=2_048)()


def test_so_does_a_packet_that_is_large_by_its_topic_or_filter():
    for publish in (True, False):

        def test(bench, publish=publish):
            publish_each_step(bench.client, 7)
            bench.server.received()
            if publish:
                bench.client.publish(b"t" * 1_500, b"x")
            else:
                bench.client.subscribe(b"t" * 1_500)
            bench.steps()
            assert bench.server.received() == PINGREQ
            assert len(bench.exchange(PINGRESP)) > 1_500

        on_lwip(test, packet_bytes_max=1_600)()


def test_a_large_message_in_the_same_write_as_a_ping_is_not_proved_by_its_answer():
    def test(bench):
        client, server = bench.client, bench.server
        diff = mqttpipe.ticks_diff
        payloads = [bytes(1_600)]

        def publish_meanwhile(end, start):  # as another thread may
            if payloads:
                client.publish(b"t", payloads.pop())
            return diff(end, start)

        bench.clock.advance(client.keep_alive_s * 1000)
        mqttpipe.ticks_diff = publish_meanwhile
        client.step()
        mqttpipe.ticks_diff = diff
        sent = server.received()
        assert sent.startswith(PINGREQ) and len(sent) > 1_600, (sent[:9], len(sent))
        sent = None
        server.send(PINGRESP)
        publish_each_step(client, 4)
        server.received()
        publish_each_step(client, 1, bytes(1_600))
        assert server.received() == PINGREQ

    on_lwip(test, packet_bytes_max=1_700)()


@on_lwip
def test_while_it_waits_for_the_answer_nothing_new_takes_the_room_of_acknowledgements(bench):
    client = bench.client
    client.on_message = lambda client, message: None
    publish_each_step(client, UNPROVEN)
    bench.server.received()
    for _ in range(5):
        client.publish(b"t", b"x")
    client.subscribe(b"f" * 900)
    acknowledged = 0
    for _ in range(20):  # more than fit before there is a PINGRESP
        answers = bench.exchange(16 * b"\x32\x05\x00\x01m\x00\x07")
        assert PUBLISH not in answers and b"ff" not in answers
        acknowledged += len(answers) // 4
    assert acknowledged > 200
    answers = bench.exchange(PINGRESP)
    assert answers.count(PUBLISH) == 5 and b"f" * 900 in answers


def test_messages_behind_a_full_outbox_wait_for_nothing_but_the_answer():
    def test(bench):
        client, server = bench.client, bench.server
        client.publish(b"t", bytes(1_500))
        server.write_credit = 100
        client.step()
        for _ in range(80):  # of 20 bytes: 73 fill the room behind it to the last byte
            client.publish(b"t", b"fifteen letters")
        for _ in range(UNPROVEN + 3):
            server.write_credit = 10
            bench.steps()
        server.write_credit = 1 << 30
        bench.steps()
        sent = server.received()
        assert sent.count(b"fifteen letters") == 73 and sent.endswith(PINGREQ)
        assert bench.exchange(PINGRESP).count(b"fifteen letters") == 7

    on_lwip(test, packet_bytes_max=1_600, pipe_slots=100)()


@on_lwip
def test_while_it_waits_for_the_answer_it_does_not_ask_when_it_may_write(bench):
    publish_each_step(bench.client, UNPROVEN + 1)
    assert bench.client.pollables()[1][1] == mqttpipe.select.POLLIN
    bench.server.write_credit = 0
    bench.server.send(PINGRESP)
    bench.steps()
    assert bench.client.pollables()[1][1] == mqttpipe.select.POLLIN | mqttpipe.select.POLLOUT


@on_lwip
def test_a_server_that_answers_gets_all(bench):
    count = 0
    for _ in range(200):
        publish_each_step(bench.client, 1)
        received = bench.server.received()
        count += received.count(PUBLISH)
        if PINGREQ in received:
            bench.server.send(PINGRESP)
    bench.steps()
    assert count + bench.server.received().count(PUBLISH) == 200


@on_lwip
def test_one_that_never_answers_is_left_in_time(bench):
    publish_each_step(bench.client, 50)
    bench.clock.advance(bench.client.connect_timeout_ms)
    bench.steps()
    bench.steps()
    (error,) = [event[1] for event in bench.events if event[0] == "offline"]
    assert error.stage == "PINGRESP"


@on_lwip
def test_the_next_connection_begins_anew(bench):
    publish_each_step(bench.client, 50)
    bench.server.error = 104
    bench.steps()
    bench.clock.advance(60_000)
    bench.go_online()
    publish_each_step(bench.client, 2)
    assert PINGREQ not in bench.server.received()


def test_elsewhere_no_write_waits_for_a_proof():
    bench = Bench(pipe_slots=100).go_online()
    publish_each_step(bench.client, 100)
    assert bench.server.received() == 100 * PUBLISH


def test_what_leaves_behind_a_slow_callback_is_one_write_more():
    for count, pings in (
        (AT_ONCE - 3, [0, 0, 0]),
        (AT_ONCE - 2, [0, 0, 1]),
        (AT_ONCE - 1, [1, 0, 0]),
    ):

        @on_lwip
        def test(bench, count=count, pings=pings):
            bench.client.on_message = lambda client, message: bench.clock.advance(60)
            publish_each_step(bench.client, count)
            assert bench.server.received() == count * PUBLISH
            told = [bench.exchange(b"\x32\x05\x00\x01m\x00\x07").count(PINGREQ)]
            for _ in range(2):
                publish_each_step(bench.client, 1)
                told.append(bench.server.received().count(PINGREQ))
            assert told == pings, (count, told)

        test()


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
