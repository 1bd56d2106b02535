"""The link and the clock: TLS needs the date, but for want of it no board stays offline."""

import wifi_core
from board_fakes import WifiBench
from test_clock import REAL_GMTIME, Rtc, answer
from test_clock import Network as Sockets


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
