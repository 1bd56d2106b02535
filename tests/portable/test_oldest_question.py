"""The oldest packet without acknowledgement has the deadline: connect_timeout_ms after it left."""

from fakes import Bench

import mqttpipe


def check_end(bench, left_ms):
    """The connection ends in so many milliseconds, not one earlier."""
    bench.clock.advance(left_ms - 1)
    bench.steps()
    assert bench.client.is_online(), bench.take_events()
    bench.take_events()
    bench.clock.advance(1)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "ACK"


def test_it_may_be_a_subscribe_or_a_message():
    for apart_ms in (1, 5000):
        for first in ("subscribe", "publish"):
            bench = Bench(keep_alive_s=0, connect_timeout_ms=10_000).go_online()
            calls = {
                "subscribe": lambda client: client.subscribe("a"),
                "publish": lambda client: client.publish("t", b"", 1),
            }
            calls.pop(first)(bench.client)
            bench.steps()
            bench.clock.advance(apart_ms)
            for call in calls.values():
                call(bench.client)
            bench.steps()
            check_end(bench, 10_000 - apart_ms)


def test_a_slow_callback_puts_off_that_of_each_message_in_flight():
    bench = Bench(keep_alive_s=0, connect_timeout_ms=10_000).go_online()
    bench.client.on_message = lambda client, message: bench.clock.advance(8000)
    for n in range(3):
        bench.client.publish("t", b"%d" % n, 1)
        bench.steps()
        bench.clock.advance(2000)
    bench.exchange(b"\x30\x03\x00\x01m")
    bench.exchange(b"\x40\x02\x00\x01")
    bench.take_events()
    check_end(bench, 6000)  # 10,000, and 8,000, of which 12,000 are over: that of the second one


def test_it_is_the_next_one_when_the_oldest_was_acknowledged():
    bench = Bench(keep_alive_s=0, connect_timeout_ms=10_000).go_online()
    bench.client.publish("t", b"1", 1)
    bench.steps()
    bench.clock.advance(1)
    bench.client.publish("t", b"2", 1)
    bench.steps()
    bench.exchange(b"\x40\x02\x00\x01")
    check_end(bench, 10_000)


def test_it_ends_the_connection_a_millisecond_before_a_ping_is_due():
    for keep_alive_s, timeout_ms in ((20, 19_999), (5, 1500)):
        bench = Bench(keep_alive_s=keep_alive_s, connect_timeout_ms=timeout_ms).go_online()
        bench.clock.advance(keep_alive_s * 1000 - 1 - timeout_ms)
        bench.steps()
        bench.client.publish("t", b"", 1)
        bench.steps()
        check_end(bench, timeout_ms)


def test_its_answer_may_stand_behind_what_one_step_can_read():
    """So its deadline is put off by one step in which the server was heard, not by silence."""
    message = b"\x30\x03\x00\x01m"
    for wire, steps in ((b"", 1), (20 * message + b"\x40\x02\x00\x01", 0), (10 * message, 2)):
        bench = Bench(keep_alive_s=0, connect_timeout_ms=12_000).go_online()
        bench.client.publish("t", b"", 1)
        bench.steps()
        bench.clock.advance(11_000)  # other deadlines have come before
        bench.steps()
        bench.clock.advance(1000)
        bench.server.send(wire)
        for step in range(4):
            assert bench.client.is_online() or steps and step >= steps, (steps, step)
            bench.client.step()
        assert bench.client.is_online() is (steps == 0)
        assert bench.events[-1][0] == ("published" if steps == 0 else "offline"), bench.events


def test_its_answer_may_stand_behind_more_than_one_step_can_read():
    """Then it gets half a deadline more; see test_slow_links.py for how often."""
    bench = Bench(keep_alive_s=0, connect_timeout_ms=12_000).go_online()
    bench.client.publish("t", b"", 1)
    bench.steps()
    bench.clock.advance(12_000)
    bench.server.send(60 * b"\x30\x03\x00\x01m")
    bench.steps()
    check_end(bench, 6000)


def test_its_answer_may_stand_behind_a_packet_that_comes_slowly():
    """It gets half a deadline more; but not for ever."""
    bench = Bench(keep_alive_s=0, connect_timeout_ms=10_000).go_online()
    bench.client.publish("t", b"", 1)
    bench.steps()
    bench.clock.advance(9900)
    bench.exchange(b"\x30\x03\x00\x01")
    bench.clock.advance(100)
    bench.steps()
    bench.exchange(b"m")
    check_end(bench, 5000)


def test_its_answer_is_not_owed_while_nothing_is_read():
    """The server's message must be answered, and there is no room for that."""
    bench = Bench(keep_alive_s=0, connect_timeout_ms=10_000, packet_bytes_max=4096).go_online()
    bench.client.publish("t", b"", 1)
    bench.steps()
    bench.server.write_credit = 0
    bench.client.publish("t", b"x" * 2000)
    bench.steps()
    bench.exchange(b"\x32\x05\x00\x01m\x00\x07")
    for _ in range(4):
        bench.clock.advance(3000)
        bench.server.write_credit = 1
        bench.steps()
        assert bench.client.is_online(), bench.take_events()
    bench.server.write_credit = 1 << 20
    bench.steps()
    assert bench.server.received()[-4:] == b"\x40\x02\x00\x07"
    check_end(bench, 10_000)


def flood(bench, until_ms, per_step=20):
    """The server has more to say than a step reads; until the connection ends. Returns when."""
    message = b"\x30\x03\x00\x01m"
    while bench.clock.now_ms < until_ms and bench.client.is_online():
        bench.clock.advance(500)
        bench.server.send(message * (per_step - len(bench.server.to_client) // len(message)))
        bench.client.step()
        bench.events.clear()
    return bench.clock.now_ms


def busy_bench():
    bench = Bench(keep_alive_s=0, connect_timeout_ms=10_000, now_ms=0).go_online()
    bench.client.publish("t", b"", 1)
    bench.steps()
    return bench


def test_its_answer_may_stand_behind_a_flood_but_not_for_ever():
    """18 times half a deadline more; and only behind as much as a step reads, 16 packets."""
    assert 100_000 <= flood(busy_bench(), 200_000) <= 101_000
    assert 10_000 <= flood(busy_bench(), 200_000, 15) <= 11_000


def test_the_next_one_has_as_long_again():
    """Whether it was asked when the one before was answered, or before that."""
    for asked_ms in (60_000, 48_000):
        bench = busy_bench()
        flood(bench, min(asked_ms, 50_000))
        for at_ms in sorted((50_000, 56_000, asked_ms)):  # 56,000: its deadline is over
            bench.clock.advance(at_ms - bench.clock.now_ms)
            if at_ms == 50_000:
                bench.exchange(b"\x40\x02\x00\x01")
            elif at_ms == asked_ms:
                bench.client.publish("t", b"", 1)
            bench.steps()
        end_ms = flood(bench, 300_000)
        assert asked_ms + 100_000 <= end_ms <= asked_ms + 101_000, (asked_ms, end_ms)


def test_its_answer_may_stand_behind_one_packet_as_long_as_that_moves():
    bench = busy_bench()
    bench.exchange(b"\x30\x03\x00\x01m")
    bench.clock.advance(6000)
    bench.exchange(b"\x30\x3e\x00\x01m")
    for _ in range(59):
        bench.clock.advance(2500)
        bench.exchange(b"x")
        assert bench.client.is_online(), bench.clock.now_ms
    bench.exchange(b"\x40\x02\x00\x01")
    bench.clock.advance(60_000)
    bench.steps()
    assert bench.client.is_online()
