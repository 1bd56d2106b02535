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
