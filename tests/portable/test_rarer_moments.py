"""What rarely comes together, continued: drops that were not told."""

import board_heap  # noqa: F401
from fakes import CONNACK, ECONNRESET, PINGRESP, Bench, needs, offline, reconnect
from wire import answers, publish, publishes, serve

import mqttpipe


class Pause:
    def __await__(self):
        yield

    __iter__ = __await__


class Changed:
    """In the place of asyncio's Event: who waits goes on when the test says so."""

    async def wait(self):
        await Pause()


def test_publish_wait_knows_of_a_drop_that_was_not_told_yet():
    needs("offline", "asyncio")
    bench = offline(pipe_bytes_max=100, offline="drop_oldest")
    bench.client.on_dropped = lambda client, token: bench.clock.advance(60)
    bench.client._is_running = True
    bench.client._changed = Changed()
    tasks = [bench.client.publish_wait("t", b"%06d" % n) for n in range(3)]
    for task in tasks:
        task.send(None)
    bench.client.publish("t", b"L" * 98)
    for task in tasks:
        try:
            task.send(None)
            raise AssertionError("it is done")
        except StopIteration as end:
            assert end.value is False


def test_a_long_queue_that_is_emptied_is_not_told():
    """While a task is in publish_wait() it gets longer than its limit; then nothing is read."""
    needs("asyncio")
    bench = Bench(keep_alive_s=1).go_online()
    messages = bench.client.messages("a", queue_max=1)
    serve(bench)
    bench.client._waiting.append(None)
    for n in range(30):
        bench.exchange(publish(b"a", b"%d" % n, 0, b"", 0))
    bench.client._waiting.clear()
    bench.exchange(publish(b"a", b"this waits", 0, b"", 0))
    bench.take_events()
    for _ in range(20):
        bench.clock.advance(500)
        serve(bench)
        try:
            messages.__anext__().send(None)
        except StopIteration:
            pass
    assert bench.take_events() == [] and bench.client.is_online()


def test_messages_go_on_while_pings_leave_between_two_callbacks():
    """What was in the outbox when a ping left with it is told as ever, once."""
    needs("qos2")
    bench = Bench(keep_alive_s=1)
    published = []
    bench.client.on_published = lambda client, token: published.append(token)

    def slow(client, message):
        bench.clock.advance(1100)

    for n in range(3):
        bench.client.subscribe(("t/" + "+/" * n + "#"), slow)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    serve(bench, CONNACK)
    bench.server.write_credit = 5
    tokens = [bench.client.publish("a", b"%d" % n) for n in range(4)]
    bench.steps()
    assert published == []
    part = bench.server.received()

    def free(client, message):
        bench.server.write_credit = 1 << 20

    bench.client._filters.rows[0][1] = free  # the socket has room again in the first of them
    bench.client._filters.is_changed = True
    bench.server.send(publish(b"t/a/a/a", b"x", 1, b"\x00\x07", 0))
    bench.steps()
    wire = part + bench.server.received()
    assert [body[3] for body in publishes(wire)] == [b"0", b"1", b"2", b"3"]
    assert published == tokens
    assert bench.client._pipe.head == bench.client._pipe.tail, "each slot is free again"
    bench.exchange(PINGRESP)
    for _ in range(30):
        bench.clock.advance(1000)
        serve(bench, answers(bench.server.received()))
    assert bench.client.is_online(), bench.take_events()


def test_messages_beside_a_ping_take_the_short_way():
    """On lwIP every fifteenth write has a ping; the long way costs twice the instructions."""
    message = b"\x30\x04\x00\x01tx"
    before = mqttpipe._linger_ms
    mqttpipe._linger_ms = 10_500
    try:
        bench = Bench(pipe_slots=100).go_online()
        client = bench.client
        for _ in range(14):
            client.publish(b"t", b"x")
            client.step()
        assert bench.server.received() == 14 * message
        put, the_long_way = client._outbox.put_publish, []
        client._outbox.put_publish = lambda *all: the_long_way.append(all) or put(*all)
        for answer, sent in ((b"", b"\xc0\x00" + 5 * message), (b"\xd0\x00", 5 * message)):
            bench.server.send(answer)  # the step that reads PINGRESP sends as well
            for _ in range(5):
                client.publish(b"t", b"x")
            bench.steps()
            assert bench.server.received() == sent
        assert the_long_way == []
    finally:
        mqttpipe._linger_ms = before


def test_a_poll_or_a_socket_that_raises_a_valueerror_is_treated_as_with_any_other():
    """CPython's polls do, of a file number that is none."""

    def fail(*arguments):
        raise ValueError("by the test")

    bench = Bench().go_online()
    bench.client.step(10)
    bench.select.polls[-1].ipoll = fail
    bench.client.step(10)
    bench.steps()
    bench = Bench().go_online()
    bench.server.close = fail
    bench.server.error = ECONNRESET
    bench.steps()
    assert bench.client.state_name == "WAITING" and bench.error().errno == ECONNRESET


def test_a_poll_that_failed_is_not_asked_again_with_a_closed_socket():
    """On MicroPython that may crash the VM. Else it is asked once, by the next step()."""
    for error in (None, ECONNRESET):
        bench = Bench().go_online()
        bench.client.step(10)  # it sleeps: in a poll that is made for it
        asked = []

        def fail(timeout_ms, asked=asked, server=bench.server):
            asked.append(server.is_closed)
            raise OSError(12, "by the test")

        bench.select.polls[-1].ipoll = fail
        bench.client.step(10)
        assert asked == [False] and bench.client.is_online()
        bench.server.error = error  # the next read fails before the poll is asked
        bench.client.step()
        assert bench.server.is_closed and not bench.client.is_online()
        asked_before = len(asked)
        assert asked_before == (1 if error else 2)
        bench.clock.advance(60_000)
        bench.steps()
        bench.server.send(CONNACK)
        bench.steps()
        assert bench.client.is_online() and len(asked) == asked_before


def test_pubrel_that_is_sent_again_has_its_own_deadline():
    """Its time was overwritten with a position in the outbox: bytes, read as ticks_ms().

    Where these were ahead of the clock, a server that owed PUBCOMP was left days later, or never.
    """
    needs("qos2")
    for now_ms in (1000, 0x3FFFFFFF - 60_000):
        bench = Bench(
            clean_session=False,
            keep_alive_s=0,
            connect_timeout_ms=1000,
            reconnect_min_ms=0,
            now_ms=now_ms,
        )
        bench.go_online()
        bench.client._outbox.sent_count = 50_000  # it has been online for a while
        bench.client.publish("t", b"x", 2)
        bench.steps()
        bench.exchange(b"\x50\x02\x00\x01")
        assert reconnect(bench, b"\x20\x02\x01\x00") == b"\x62\x02\x00\x01"
        bench.take_events()
        bench.clock.advance(999)
        bench.steps()
        assert bench.client.is_online()
        bench.clock.advance(1)
        bench.steps()
        error = bench.error()
        assert type(error) is mqttpipe.TimedOut and error.stage == "ACK", (now_ms, error)


def test_one_ping_waits_for_a_socket_that_takes_nothing():
    bench = Bench(keep_alive_s=1).go_online()
    bench.server.write_credit = 0
    for _ in range(3):
        bench.clock.advance(1000)
        bench.steps()
    bench.server.write_credit = 1 << 20
    bench.steps()
    assert bench.server.received() == b"\xc0\x00"


def test_a_ping_needs_two_bytes_of_room():
    """Without it the socket is stuck, and that has a deadline of its own."""
    for room in (1, 2):
        bench = Bench(keep_alive_s=1).go_online()
        bench.server.write_credit = 0
        outbox = bench.client._outbox
        outbox.put_packet(bytes(outbox.room - room))
        bench.clock.advance(1000)
        bench.steps()
        bench.server.write_credit = 1 << 20
        bench.steps()
        assert bench.server.received()[-2:] == (b"\xc0\x00" if room == 2 else b"\x00\x00")


def test_what_leaves_between_two_callbacks_is_told_and_keeps_no_deadline():
    bench = Bench(keep_alive_s=0, connect_timeout_ms=10_000).go_online()
    bench.server.write_credit = 3
    token = bench.client.publish("t", b"x")
    bench.steps()

    def slow(client, message):
        bench.server.write_credit = 1 << 20
        bench.clock.advance(60)

    bench.client.on_message = slow
    assert bench.exchange(b"\x30\x03\x00\x01m") == b"\x30\x04\x00\x01tx"
    assert bench.take_events() == [("published", token)]
    for _ in range(3):
        bench.clock.advance(5000)
        bench.steps()
    assert bench.client.is_online(), bench.take_events()


def test_a_reset_behind_a_slow_callback_is_told_after_it():
    bench = Bench(keep_alive_s=0).go_online()
    bench.server.write_credit = 3
    bench.client.publish("t", b"x", 1)
    bench.steps()

    def slow(client, message):
        bench.clock.advance(60)
        bench.server.error = ECONNRESET

    bench.client.on_message = slow
    bench.exchange(b"\x30\x03\x00\x01m")
    error = bench.error()
    assert type(error) is mqttpipe.TransportError and error.errno == ECONNRESET


def test_topic_names_that_take_long_to_look_at_arrive_like_all_others():
    """Long, not ASCII, and compared with many filters: known or not."""
    bench = Bench().go_online()
    for n in range(20):
        bench.client.subscribe("f/%d" % n)
    serve(bench)
    bench.take_events()
    names = ["a" * 90, "a" * 200, "\u00fc" * 40, "f/19"]
    wire = b""
    for name in 2 * names:
        data = name.encode()
        size = 2 + len(data)
        wire += b"\x30" + (
            bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))
        )
        wire += bytes((0, len(data))) + data
    bench.exchange(wire)
    assert [event[1] for event in bench.take_events()] == 2 * names


def test_a_message_that_is_too_large_and_has_no_topic_name_ends_the_connection():
    for topic_bytes in (0, 199):  # of 200 in all, two of them its length
        bench = Bench(packet_bytes_max=64).go_online()
        bench.exchange(b"\x30\xc8\x01\x00" + bytes((topic_bytes,)) + b"t" * 198)
        error = bench.error()
        assert type(error) is mqttpipe.ServerError and "too short" in str(error)
