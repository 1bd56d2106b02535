"""Messages on the emulated board, with a real broker: nothing is lost, doubled or changed."""

import pytest

from emulated_board import HOST

STEP_US_MAX = 50_000


def uri_of(broker):
    return "mqtt://%s:%d" % (HOST, broker.port)


def run_echo(board, ms, timeout_s=100):
    """Let the echo run to its end; return (events, longest step, what was sent)."""
    is_complete, (events, longest), (sent, missing, twice, wrong) = board.evaluate(
        "(watch.run(%d, echo.is_complete, echo.work), watch.story(), echo.story())" % ms, timeout_s
    )
    print("longest step: %d us in %s -> %s" % longest)
    assert is_complete, (events, sent, missing)
    assert not missing and not twice and not wrong, (missing, twice, wrong)
    return events, longest, sent


def test_the_option_that_switches_nagle_s_algorithm_off_is_known(start_client, broker):
    """It has another number there than elsewhere; of one that it does not know lwIP warns."""
    board = start_client(uri_of(broker))
    board.run("client.connect()\nassert watch.run(10_000, client.is_online)")
    assert "Warning" not in board.output()


@pytest.mark.parametrize("profile", ["tiny", "standard", "full"])
def test_messages_go_both_ways_at_each_qos_that_a_profile_has(
    start_client, broker, topic, profile
):
    board = start_client(uri_of(broker), profile=profile)
    qos = (0, 1) if profile == "tiny" else (0, 1, 2)
    board.run("echo = Echo(client, %r, 90, %r)\nclient.connect()" % (topic, qos))
    events, longest, _ = run_echo(board, 60_000)
    assert events == [("online",)]
    assert longest[0] <= STEP_US_MAX


def test_two_thousand_messages_of_mixed_sizes_and_one_of_20_kb(start_client, broker, topic):
    board = start_client(uri_of(broker), clock="real", packet_bytes_max=21_000)
    sizes = (6, 20, 64, 200, 700, 1500)
    board.run("echo = Echo(client, %r, 2000, sizes=%r)" % (topic, sizes))
    board.run("echo.send_one_big(1000, 20_000)\nclient.connect()")
    events, _, _ = run_echo(board, 110_000, timeout_s=115)
    assert events == [("online",)]


def test_nothing_is_lost_on_a_link_that_loses_a_tenth_of_its_frames(start_client, broker, topic):
    board = start_client(uri_of(broker))
    board.run("echo = Echo(client, %r, 60, (1, 2))\nclient.connect()" % topic)
    board.run("lan.config(lose=10)")
    events, longest, _ = run_echo(board, 90_000)
    assert events == [("online",)] and longest[0] <= STEP_US_MAX
    assert board.evaluate("lan.config('frames')[2]") > 0


def test_nothing_is_lost_on_a_slow_link(start_client, broker, topic):
    board = start_client(uri_of(broker))
    board.run("echo = Echo(client, %r, 60, (0, 1, 2))\nclient.connect()" % topic)
    board.delay_frames(100)
    events, longest, _ = run_echo(board, 90_000)
    assert events == [("online",)] and longest[0] <= STEP_US_MAX


REST = """
import gc
def rest(ms):
    gc.collect()
    before = gc.mem_alloc()
    begin_ms = ticks_ms()
    watch.rest(ms)
    passed_ms = ticks_diff(ticks_ms(), begin_ms)
    gc.collect()
    return passed_ms, gc.mem_alloc() - before
"""


def test_an_idle_client_stays_online_through_five_keep_alives_and_allocates_nothing(
    start_client, broker
):
    # No clock that jumps: the broker of a busy machine would be too slow for it.
    board = start_client(uri_of(broker), clock="steady", keep_alive_s=4)
    board.run("client.connect()\nwatch.run(20_000, client.is_online)\nwatch.rest(4_000)")
    board.run(REST)
    (passed_ms, grown), (events, longest) = board.evaluate("rest(20_000), watch.story()")
    assert passed_ms >= 20_000 and events == [("online",)]
    assert longest[0] <= STEP_US_MAX
    assert grown == 0
