"""Where a write without memory blocks (lwIP), few leave without a proof that they have come."""

import board_heap  # noqa: F401
from fakes import Bench, SkipTest, has_memory

import mqttpipe

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
PUBLISH = b"\x30\x04\x00\x01tx"
AT_ONCE = 12  # writes before there is a PINGREQ
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
def test_a_ping_goes_ahead_of_the_thirteenth_write(bench):
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
    publish_each_step(bench.client, AT_ONCE + 4)
    assert bench.server.received().count(PINGREQ) == 1
    bench.server.send(PINGRESP)
    publish_each_step(bench.client, AT_ONCE - 3)
    assert PINGREQ not in bench.server.received()
    publish_each_step(bench.client, 1)
    assert bench.server.received() == PINGREQ + PUBLISH


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

    Stands for the server's write(). What has come is acknowledged before a PINGRESP is sent.
    """

    BYTES = 8_000
    SEND_BYTES = 6_400  # a connection may have on its way
    SEGMENT_BYTES = 800
    SEGMENT_MORE_BYTES = 80  # than what is in it
    SEGMENTS = 32

    def __init__(self, server):
        self._write = server.write
        server.write = self.write
        self._writes = []
        self.most_bytes = self.most_segments = 0

    def write(self, data, at, size):
        size = min(size, self.SEND_BYTES - sum(self._writes))
        if not size:
            return None
        self._writes.append(size)
        segments = sum([-(-size // self.SEGMENT_BYTES) for size in self._writes])
        self.most_segments = max(self.most_segments, segments)
        taken = sum(self._writes) + segments * self.SEGMENT_MORE_BYTES
        self.most_bytes = max(self.most_bytes, taken)
        return self._write(data, at, size)

    def is_full(self):
        return sum(self._writes) == self.SEND_BYTES

    def acknowledge(self, count=100):
        del self._writes[:count]


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


def test_no_write_finds_the_memory_full_whatever_is_sent():
    if not has_memory(300_000):
        raise SkipTest("needs more than a board's memory")
    most_bytes = []
    most_segments = []
    for seed in range(9):

        def test(bench, seed=seed):
            client, server = bench.client, bench.server
            memory = Memory(server)
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
                    except mqttpipe.QueueFull:
                        pass
                if pick % 5 == 0:
                    server.send(b"\x32\x05\x00\x01m\x00\x07")
                client.step()
                arrivals.add(server.received())
                if arrivals.pings and (pick % 13 == 0 or turn > 500):
                    memory.acknowledge()
                    arrivals.pings -= 1
                    server.send(PINGRESP)
                elif pick % 6 == 0 and (seed % 2 or memory.is_full()):
                    memory.acknowledge(1)
            assert arrivals.sizes == sizes and len(sizes) > 40, (len(sizes), len(arrivals.sizes))
            assert client.is_online()
            assert memory.most_bytes <= memory.BYTES, (seed, memory.most_bytes)
            assert memory.most_segments <= memory.SEGMENTS, (seed, memory.most_segments)
            most_bytes.append(memory.most_bytes)
            most_segments.append(memory.most_segments)

        on_lwip(test, pipe_slots=8, packet_bytes_max=9_100)()
    assert max(most_bytes) > 7_000 and max(most_segments) > 12, (most_bytes, most_segments)
