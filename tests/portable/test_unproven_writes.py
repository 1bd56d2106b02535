"""Where a write without memory blocks (lwIP), few leave without a proof that they have come."""

import board_heap  # noqa: F401
from fakes import Bench, SkipTest, has_memory

import mqttpipe

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
PUBLISH = b"\x30\x04\x00\x01tx"
PAYLOAD = bytes(794)
LARGE = b"\x30\x9d\x06\x00\x01t" + PAYLOAD  # 800 bytes
AT_ONCE = 4  # of these, before there is a PINGREQ


def publish_each_step(client, count, payload=b"x"):
    for _ in range(count):
        client.publish(b"t", payload)
        client.step()


# A PINGREQ is due: it goes with the next message.
def fill(bench, count=AT_ONCE):
    for _ in range(count):
        publish_each_step(bench.client, 1, PAYLOAD)
        assert bench.server.received() == LARGE


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
def test_a_ping_goes_ahead_of_the_fifth_of_800_bytes(bench):
    fill(bench)
    publish_each_step(bench.client, 1, PAYLOAD)
    assert bench.server.received() == PINGREQ + LARGE


@on_lwip
def test_many_small_ones_need_a_ping_when_there_are_as_many_bytes(bench):
    publish_each_step(bench.client, 2_400 // len(PUBLISH) + 2)
    assert PINGREQ not in bench.server.received()
    publish_each_step(bench.client, 1)
    assert bench.server.received() == PINGREQ + PUBLISH


def test_a_ping_and_the_messages_behind_it_leave_whole_wherever_the_stack_divides_them():
    for taken in range(3 * len(PUBLISH) + len(PINGREQ) + 1):

        @on_lwip
        def test(bench, taken=taken):
            client, server = bench.client, bench.server
            fill(bench)
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
            fill(bench, AT_ONCE - 1)

        test()


@on_lwip
def test_a_server_that_does_not_answer_gets_no_more_and_then_all_at_once(bench):
    fill(bench)
    publish_each_step(bench.client, 100)
    assert bench.server.received() == PINGREQ + PUBLISH
    bench.server.send(PINGRESP)
    bench.steps()
    assert bench.server.received().count(PUBLISH) == 99
    assert bench.client.is_online() and not bench.client.next_deadline_ms() == 0


@on_lwip
def test_while_it_waits_for_the_answer_it_does_not_ask_when_it_may_write(bench):
    fill(bench)
    publish_each_step(bench.client, 2)
    assert bench.client.pollables()[1][1] == mqttpipe.select.POLLIN
    bench.server.write_credit = 0
    bench.server.send(PINGRESP)
    bench.steps()
    assert bench.client.pollables()[1][1] == mqttpipe.select.POLLIN | mqttpipe.select.POLLOUT


@on_lwip
def test_a_server_that_answers_gets_all(bench):
    count = 0
    for _ in range(60):
        publish_each_step(bench.client, 1, PAYLOAD)
        received = bench.server.received()
        count += received.count(LARGE)
        if PINGREQ in received:
            bench.server.send(PINGRESP)
    bench.steps()
    assert count + bench.server.received().count(LARGE) == 60


@on_lwip
def test_one_that_never_answers_is_left_in_time(bench):
    fill(bench)
    publish_each_step(bench.client, 50)
    bench.clock.advance(bench.client.connect_timeout_ms)
    bench.steps()
    bench.steps()
    (error,) = [event[1] for event in bench.events if event[0] == "offline"]
    assert error.stage == "PINGRESP"


@on_lwip
def test_the_next_connection_begins_anew(bench):
    fill(bench)
    publish_each_step(bench.client, 50)
    bench.server.error = 104
    bench.steps()
    bench.clock.advance(60_000)
    bench.go_online()
    publish_each_step(bench.client, 2)
    assert PINGREQ not in bench.server.received()


def test_elsewhere_no_write_waits_for_a_proof():
    bench = Bench(pipe_slots=100).go_online()
    fill(bench, 20)


def test_what_leaves_behind_a_slow_callback_is_one_write_more():
    for count, pings in (
        (AT_ONCE - 2, [0, 0, 0]),
        (AT_ONCE - 1, [0, 0, 1]),
        (AT_ONCE, [1, 0, 0]),
    ):

        @on_lwip
        def test(bench, count=count, pings=pings):
            bench.client.on_message = lambda client, message: bench.clock.advance(60)
            fill(bench, count)
            told = [bench.exchange(b"\x32\x05\x00\x01m\x00\x07").count(PINGREQ)]
            for _ in range(2):
                publish_each_step(bench.client, 1)
                told.append(bench.server.received().count(PINGREQ))
            assert told == pings, (count, told)

        test()


class Memory:
    """lwIP's, of which the writes take as much as they can.

    Stands for the server's write(). What has come is acknowledged before a PINGRESP is sent. With
    four segments on their way one is lost, and each write takes segments of its own from then on.
    """

    BYTES = 8_000
    SEGMENT_BYTES = 800
    TAKES_BYTES = 880
    SEND_BYTES = 6_400  # a connection may have on its way

    def __init__(self, server):
        self._write = server.write
        server.write = self.write
        self._writes = []
        self.most_bytes = 0

    def write(self, data, at, size):
        size = min(size, self.SEND_BYTES - sum(self._writes))
        if not size:
            return None
        self._writes.append(size)
        together = segments = 0
        for one in self._writes:
            if together <= 3 * self.SEGMENT_BYTES:
                together += one
            else:
                segments += -(-one // self.SEGMENT_BYTES)
        segments += -(-together // self.SEGMENT_BYTES)
        taken = segments * self.TAKES_BYTES
        self.most_bytes = max(self.most_bytes, taken)
        return self._write(data, at, size)

    def acknowledge(self, count=100):
        del self._writes[:count]


SIZES = (1, 30, 700, 795, 1_000, 1_300, 1_452, 1_500, 5_500, 9_000)


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
    for seed in range(8):

        def test(bench, seed=seed):
            client, server = bench.client, bench.server
            memory = Memory(server)
            arrivals = Arrivals()
            sizes = []
            draw = seed
            for turn in range(700):
                draw = (draw * 1_103_515 + 12_345) & 0xFFFFFF
                pick = draw >> 8
                if turn < 500 and pick % 3:
                    size = SIZES[pick % 1_000 % (10 if seed % 2 else 5)]
                    try:
                        client.publish(b"t", bytes(size))
                        sizes.append(size)
                    except mqttpipe.QueueFull:
                        pass
                if pick % 5 == 0:
                    server.send(b"\x32\x05\x00\x01m\x00\x07")
                client.step()
                arrivals.add(server.received())
                if arrivals.pings and (pick % 4 == 0 or turn > 500):
                    memory.acknowledge()
                    arrivals.pings -= 1
                    server.send(PINGRESP)
                elif pick % 6 == 0:
                    memory.acknowledge(1)
            assert arrivals.sizes == sizes and len(sizes) > 100, (sizes, arrivals.sizes)
            assert client.is_online()
            assert 5_000 < memory.most_bytes <= memory.BYTES, (seed, memory.most_bytes)

        on_lwip(test, pipe_slots=8, packet_bytes_max=9_100)()
