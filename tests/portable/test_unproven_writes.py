"""Where the stack blocks a write behind many small ones (lwIP), few leave without a proof."""

import board_heap  # noqa: F401
from fakes import Bench

import mqttpipe

PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
PUBLISH = b"\x30\x04\x00\x01tx"
AT_ONCE = 12  # writes that may follow a PINGREQ; as many before there is one


def publish_each_step(client, count):
    for _ in range(count):
        client.publish(b"t", b"x")
        client.step()


def on_lwip(test):
    def run():
        before = mqttpipe._linger_ms
        mqttpipe._linger_ms = 10_500
        try:
            test(Bench(pipe_slots=100).go_online())
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
    assert 2 * AT_ONCE <= had <= 2 * AT_ONCE + 2
    bench.server.send(PINGRESP)
    bench.steps()
    assert bench.server.received().count(PUBLISH) == 100 - had
    assert bench.client.is_online() and not bench.client.next_deadline_ms() == 0


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
