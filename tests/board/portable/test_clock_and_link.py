"""The link and the clock: TLS needs the date, but for want of it no board stays offline."""

import wifi_core
from board_fakes import WifiBench
from clock_fakes import REAL_GMTIME, Rtc, answer
from clock_fakes import Network as Sockets


def bench_with_clock(year):
    wifi_core.urandom = bytes
    wifi_core.RTC = Rtc
    sockets = wifi_core.socket = Sockets()
    bench = WifiBench(ntp=("192.0.2.1",))
    bench.year = year
    real = wifi_core.gmtime
    # The clock of the board; an answer is read with the calendar of the machine.
    wifi_core.gmtime = lambda *seconds: REAL_GMTIME(*seconds) if seconds else real()
    return bench, sockets


def test_an_unset_clock_is_set_before_the_link_counts_as_up():
    bench, sockets = bench_with_clock(2000)
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.until("CLOCK", 300)
    assert not bench.wifi.is_up()
    sockets.sockets[-1].answers.append(answer(sockets.sockets[-1].sent))
    bench.run(250)
    bench.year = 2026  # as RTC().datetime() makes it
    bench.until("UP", 500)
    assert Rtc.set_to[0] == 2026


def test_no_answer_keeps_the_link_down_for_10_s_and_no_longer():
    bench, sockets = bench_with_clock(2000)
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.until("CLOCK", 300)
    took_ms = bench.until("UP")
    assert 10_000 <= took_ms <= 10_250, took_ms
    asked = len(sockets.sockets)
    bench.run(60_000)
    assert len(sockets.sockets) > asked, "it goes on asking"


def test_a_clock_that_was_set_before_a_reset_is_not_waited_for():
    bench, sockets = bench_with_clock(2026)
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.until("UP", 300)
    bench.run(250)
    assert sockets.sockets, "but asked for all the same"


def test_without_memory_for_the_date_the_link_waits_and_is_not_left():
    bench, sockets = bench_with_clock(2000)
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.until("CLOCK", 300)
    bench.driver.take_calls()
    real = wifi_core.gmtime

    def gmtime(*seconds):
        raise MemoryError("by the test")

    wifi_core.gmtime = gmtime
    bench.run(20_000)
    assert bench.wifi.state_name == "CLOCK" and bench.driver.calls == []
    wifi_core.gmtime = real
    bench.until("UP", 300)
    assert bench.take_events() == ["up"]


def test_a_link_that_breaks_meanwhile_gives_the_socket_back():
    bench, sockets = bench_with_clock(2000)
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.until("CLOCK", 300)
    bench.driver.is_linked = False
    bench.until("LOST", 300)
    assert all(one.is_closed for one in sockets.sockets)
    assert bench.take_events() == [], "what was never up does not go down"


def bench_without_answers():
    """UP, the clock not set, and two hours without an answer: the pauses are long by now."""
    bench, sockets = bench_with_clock(2000)
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.until("UP")
    bench.run(2 * 3_600_000, 250)
    return bench, sockets


def drop_and_return(bench):
    bench.driver.is_linked = False
    bench.until("LOST", 300)
    bench.run(1_000)
    bench.driver.is_linked = True


def test_a_link_that_comes_back_is_soon_asked_for_the_time():
    """Another network may have what the one before had not."""
    bench, sockets = bench_without_answers()
    asked = len(sockets.sockets)
    drop_and_return(bench)
    bench.run(15_000)
    assert len(sockets.sockets) == asked + 1
    sockets.sockets[-1].answers.append(answer(sockets.sockets[-1].sent))
    Rtc.set_to = None
    bench.run(250)
    assert Rtc.set_to[0] == 2026


def test_so_is_one_after_stop_and_start():
    bench, sockets = bench_without_answers()
    asked = len(sockets.sockets)
    bench.wifi.stop()
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.run(15_500)
    assert len(sockets.sockets) == asked + 1


def test_a_link_that_breaks_again_and_again_asks_once_in_15_s():
    bench, sockets = bench_without_answers()
    asked = len(sockets.sockets)
    bench.run(60_000)
    assert len(sockets.sockets) == asked, "the pause is long"
    count = 0
    before_ms = least_ms = None
    for _ in range(100):
        drop_and_return(bench)
        for _ in range(16):
            sockets.sockets = sockets.sockets[-1:]  # a board's heap has no room for all of them
            last = sockets.sockets[-1]
            bench.run(250, 250)
            if sockets.sockets[-1] is not last:
                count += 1
                if before_ms is not None:
                    pause_ms = bench.clock.now_ms - before_ms
                    least_ms = pause_ms if least_ms is None else min(least_ms, pause_ms)
                before_ms = bench.clock.now_ms
    assert count > 20 and least_ms >= 15_000, (count, least_ms)
