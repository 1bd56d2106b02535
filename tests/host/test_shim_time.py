"""The shim's clock: the 30-bit wrap, and the means by which tests move it."""

import time

import pytest

import shim_time
from shim_time import ticks_add, ticks_diff, ticks_ms, ticks_us

PERIOD = 1 << 30


@pytest.fixture(autouse=True)
def unshifted_clock():
    yield
    shim_time.reset()


def test_the_clock_runs_on_through_the_wrap():
    shim_time.set_ticks_ms(PERIOD - 5)
    start = ticks_ms()
    assert PERIOD - 5 <= start < PERIOD
    time.sleep(0.02)
    end = ticks_ms()
    assert end < start, "wrapped"
    assert 20 <= ticks_diff(end, start) < 5000


def test_set_ticks_ms_also_moves_the_microseconds():
    shim_time.set_ticks_ms(0)
    assert ticks_us() < 5_000_000
    shim_time.set_ticks_ms(1_000_000)
    assert 0 <= ticks_diff(ticks_us(), 1_000_000_000) < 5_000_000


def test_advance_ms_moves_the_clock_without_waiting():
    start = ticks_ms()
    shim_time.advance_ms(60_000)
    assert 60_000 <= ticks_diff(ticks_ms(), start) < 65_000


def test_reset_gives_the_machine_s_own_clock_back():
    before = ticks_ms()
    shim_time.set_ticks_ms(PERIOD // 3)
    shim_time.advance_ms(77)
    shim_time.reset()
    assert 0 <= ticks_diff(ticks_ms(), before) < 5000


@pytest.mark.parametrize("start", [0, 1, PERIOD // 2, PERIOD - 1])
@pytest.mark.parametrize("delta", [0, 1, -1, PERIOD // 2 - 1, 1 - PERIOD // 2])
def test_ticks_diff_gives_back_what_ticks_add_added(start, delta):
    end = ticks_add(start, delta)
    assert 0 <= end < PERIOD
    assert ticks_diff(end, start) == delta
    assert ticks_diff(start, end) == -delta


@pytest.mark.parametrize("delta", [PERIOD // 2, -PERIOD // 2, PERIOD, 1 << 62])
def test_ticks_add_refuses_half_a_period_and_more(delta):
    with pytest.raises(OverflowError):
        ticks_add(0, delta)


def test_half_a_period_apart_is_negative_as_on_the_board():
    assert ticks_diff(0, PERIOD // 2) == ticks_diff(PERIOD // 2, 0) == -PERIOD // 2


def test_gmtime_is_a_board_s_tuple_of_eight():
    assert shim_time.gmtime(1_000_000_000) == (2001, 9, 9, 1, 46, 40, 6, 252)
    assert type(shim_time.gmtime()) is tuple
    before, now, after = time.gmtime()[:6], shim_time.gmtime()[:6], time.gmtime()[:6]
    assert before <= now <= after


def test_sleeping_for_nothing_or_less_returns():
    for nothing in (0, -1):
        shim_time.sleep_ms(nothing)
        shim_time.sleep_us(nothing)
