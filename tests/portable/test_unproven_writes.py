"""Where a write without memory blocks (lwIP), few leave without a proof that they have come."""

import board_heap  # noqa: F401
from fakes import Bench

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


def test_a_write_counts_once_more_for_each_400_bytes():
    for size, count in ((390, AT_ONCE), (450, AT_ONCE // 2), (900, 5)):

        @on_lwip
        def test(bench, size=size, count=count):
            publish_each_step(bench.client, count, bytes(size))
            assert PINGREQ not in bench.server.received(), size
            publish_each_step(bench.client, 1)
            assert bench.server.received() == PINGREQ + PUBLISH, size

        test()


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
