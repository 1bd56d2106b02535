"""Faults of network and server on the emulated board: no step blocks, nothing is lost.

Time counts instructions there, so that the length of a step does not depend on this machine. 20
messages of 100 bytes a second are sent at QoS 1 and 2, and come back.
"""

import ast
import random
import time

import pytest
from test_lwip_traffic import STEP_US_MAX, uri_of

from emulated_board import DEAF_PORT, HOST, NOBODY

OPTIONS = {
    "keep_alive_s": 2,
    "connect_timeout_ms": 2_000,
    "reconnect_min_ms": 200,
    "reconnect_max_ms": 1_000,
    "clean_session": False,
}
COUNT = 160
RUN_S = 100


def start_echo(start_client, uri, topic, watches_cable=True, fault="", **options):
    """Start a board that is online and sends its messages from now on.

    It says so as soon as it has told of `fault` (a part of the error) twice, when it has tried in
    vain to come back: see wait_until_told().
    """
    board = start_client(uri, **{**OPTIONS, **options})
    board.run("lan.config(watch_phy=%r)" % watches_cable)
    board.run("echo = Echo(client, %r, %d, (1, 2), (100,), every_ms=50)" % (topic, COUNT))
    board.run("client.connect()\nwatch.run(10_000, client.is_online)")
    assert board.evaluate("client.is_online()"), board.evaluate("watch.story()")
    board.start(
        "echo.due_ms = ticks_ms()\n"
        "is_told = lambda: sum([%r in ' '.join(event[1:]) for event in watch.events]) > 1\n"
        "if %r and watch.run(%d, is_told, echo.work): print('told')\n"
        "print(watch.run(%d, echo.is_complete, echo.work), watch.story(), echo.story(), sep=',')"
        % (fault, fault, RUN_S * 1000, RUN_S * 1000)
    )
    time.sleep(1)
    return board


def wait_until_told(board):
    """Let the fault of start_echo() last until the board has told of it twice.

    Seconds of ours would not do: on a busy machine fewer of the board's pass in them.
    """
    board.read_until(b"told\r\n", RUN_S)


def finish_echo(board):
    """Wait until all messages have come back; return the errors that were told."""
    is_complete, (events, longest), story = ast.literal_eval(
        board.finish(RUN_S + 10).splitlines()[-1]
    )
    print("longest step: %d us in %s -> %s" % longest)
    sent, missing, twice, wrong = story
    assert is_complete and not twice and not wrong, (events, story)
    assert events[0] == events[-1] == ("online",)
    assert longest[0] <= STEP_US_MAX, longest
    return [event for event in events if event != ("online",)]


def kinds_of(errors):
    return {kind for _, kind, _, _ in errors}


def test_a_cable_that_is_out_for_a_moment_is_not_noticed(start_client, broker, topic):
    """Unless the board watches the cable, which lwIP tells the next write: see below."""
    patience = {"keep_alive_s": 60, "connect_timeout_ms": 30_000}  # of a busy machine's broker
    board = start_echo(start_client, uri_of(broker), topic, watches_cable=False, **patience)
    board.pull_cable()
    time.sleep(2)
    board.plug_cable()
    assert finish_echo(board) == []


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "unseen"])
def test_a_cable_that_is_out_for_long_loses_nothing(start_client, broker, topic, is_seen):
    fault = "EHOSTUNREACH" if is_seen else "TimedOut"
    board = start_echo(start_client, uri_of(broker), topic, watches_cable=is_seen, fault=fault)
    board.pull_cable()
    wait_until_told(board)
    board.plug_cable()
    # (TimedOut, too, if it is seen: a busy machine's broker may be slower than the board's time.)
    kinds = kinds_of(finish_echo(board))
    assert ("TransportError" if is_seen else "TimedOut") in kinds, kinds


def test_a_broker_that_stands_still_is_noticed_and_found_again(start_client, own_broker, topic):
    board = start_echo(start_client, uri_of(own_broker), topic, fault="TimedOut")
    own_broker.pause()
    wait_until_told(board)
    own_broker.go_on()
    errors = finish_echo(board)
    assert kinds_of(errors) == {"TimedOut"}, errors


def test_a_broker_that_is_killed_is_noticed_at_once_and_found_again(
    start_client, own_broker, topic
):
    """What it had taken and not sent on is gone with it: only what comes later is looked at."""
    board = start_client(uri_of(own_broker), **OPTIONS)
    board.run("echo = Echo(client, %r, 60, (1, 2), every_ms=50)\nclient.connect()" % topic)
    board.run("watch.run(10_000, client.is_online)")
    board.start("watch.run(5_000, work=echo.work)")
    time.sleep(1)
    own_broker.kill()
    time.sleep(1)
    own_broker.start()
    board.finish()
    board.run("second = Echo(client, %r, 60, (1, 2))" % (topic + "/second"))
    is_complete, (events, longest), story = board.evaluate(
        "watch.run(60_000, second.is_complete, second.work), watch.story(), second.story()"
    )
    print("longest step: %d us in %s -> %s" % longest)
    assert is_complete and not story[2], (events, story)
    errors = [event for event in events if event != ("online",)]
    assert "TransportError" in kinds_of(errors) and events[-1] == ("online",), events
    assert longest[0] <= STEP_US_MAX, longest


# As many small messages as it can, which the server does not answer.
FLOOD = """\
def flood(ms, size):
    payload = bytes(size)
    end_ms = ticks_add(ticks_ms(), ms)
    while ticks_diff(end_ms, ticks_ms()) > 0:
        try:
            client.publish("flood", payload)
        except QueueFull:
            pass
        watch.step()
client.connect()
watch.run(10_000, client.is_online)
"""


@pytest.mark.parametrize("is_lossy", [True, False], ids=["lossy", "unseen cut"])
@pytest.mark.parametrize("size", [20, 150, 450, 900])
def test_a_flood_blocks_no_step(start_client, broker, size, is_lossy):
    """For want of lwIP's memory: see _SEGMENTS_MAX."""
    board = start_client(uri_of(broker), **{**OPTIONS, "connect_timeout_ms": 8_000})
    board.run("lan.config(watch_phy=False)\n" + FLOOD)
    board.start("flood(15_000, %d)\nprint(watch.story())" % size)
    time.sleep(0.5)
    draw = random.Random(size)
    for _ in range(120 if is_lossy else 1):
        board.pull_cable()
        time.sleep(draw.uniform(0, 0.03) if is_lossy else 3)
        board.plug_cable()
        time.sleep(draw.uniform(0, 0.12))
    events, longest = ast.literal_eval(board.finish(60).splitlines()[-1])
    print("longest step: %d us in %s -> %s" % longest)
    assert events[0] == ("online",)
    assert longest[0] <= STEP_US_MAX, longest


def test_a_connection_behind_disconnect_and_connect_blocks_no_step(start_client, broker):
    """lwIP holds what the dead one has not got rid of, whoever has ended it."""
    board = start_client(uri_of(broker), **OPTIONS)
    board.run("lan.config(watch_phy=False)\n" + FLOOD.replace("watch.step()", "watch.run(2)"))
    for _ in range(2):
        board.run("flood(500, 900)\nlan.config(lose=100)\nflood(300, 900)\nclient.disconnect()")
        board.run("watch.run(10_000, lambda: client.state_name == 'DOWN')\nlan.config(lose=0)")
        board.run("client.connect()\nwatch.run(20_000, client.is_online)")
        assert board.evaluate("client.is_online()"), board.evaluate("watch.story()")
    longest = board.evaluate("watch.longest")
    print("longest step: %d us in %s -> %s" % longest)
    assert longest[0] <= STEP_US_MAX, longest


def test_a_connection_behind_one_that_the_server_closed_blocks_no_step(start_client, own_broker):
    """lwIP holds what is lost on the way to the server until it has sent it again."""
    board = start_client(uri_of(own_broker), **{**OPTIONS, "connect_timeout_ms": 8_000})
    board.run("lan.config(watch_phy=False)\n" + FLOOD)
    for _ in range(3):
        board.run("flood(500, 150)\nlan.config(lose=40)\nflood(1_500, 150)")
        own_broker.kill()
        own_broker.start()
        board.run("flood(6_000, 150)\nlan.config(lose=20)\nwatch.run(20_000, client.is_online)")
        board.run("flood(4_000, 150)\nlan.config(lose=0)\nwatch.run(20_000, client.is_online)")
    events, longest = board.evaluate("watch.story()")
    print(events, "longest step: %d us in %s -> %s" % longest)
    assert events.count(("online",)) > 3, events
    assert longest[0] <= STEP_US_MAX, longest


# ---------------------------------------------------------------------------
# No connection in the first place
# ---------------------------------------------------------------------------


def try_to_connect(board, ms):
    """Let it try; return what it tells. It must not come online."""
    board.run("client.connect()")
    (events, longest) = board.evaluate("watch.run(%d), watch.story()" % ms)[1]
    print("longest step: %d us in %s -> %s" % longest)
    assert longest[0] <= STEP_US_MAX, longest
    assert ("online",) not in events
    return events


def test_a_port_where_nobody_listens_is_told_at_once(start_client):
    board = start_client("mqtt://%s:%d" % (HOST, DEAF_PORT), **OPTIONS)
    events = try_to_connect(board, 2_000)
    assert len(events) >= 2 and kinds_of(events) == {"TransportError"}, events
    assert {stage for _, _, stage, _ in events} == {"TCP"}


def test_an_address_where_nobody_answers_ends_at_the_deadline(start_client):
    board = start_client("mqtt://%s:1883" % NOBODY, clock="jump", **OPTIONS)
    events = try_to_connect(board, 12_000)
    assert 3 <= len(events) <= 6 and {stage for _, _, stage, _ in events} == {"TCP"}, events
    assert kinds_of(events) == {"TimedOut"}, events


def test_a_network_that_is_off_is_told_and_one_that_comes_back_is_used(start_client, broker):
    board = start_client(uri_of(broker), **OPTIONS)
    board.run("lan.active(False)")
    events = try_to_connect(board, 3_000)
    assert len(events) >= 1 and kinds_of(events) <= {"TransportError", "TimedOut"}, events
    board.run("lan.active(True)")
    assert board.evaluate("watch.run(20_000, client.is_online)") is True
    events, longest = board.evaluate("watch.story()")
    assert events[-1] == ("online",) and longest[0] <= STEP_US_MAX, longest


def test_a_network_that_goes_off_and_on_in_service_is_survived(start_client, broker, topic):
    board = start_client(uri_of(broker), **OPTIONS)
    board.run("echo = Echo(client, %r, 100, (1, 2), every_ms=50)\nclient.connect()" % topic)
    board.run("watch.run(10_000, client.is_online)\nwatch.run(1_000, work=echo.work)")
    board.run("lan.active(False)\nwatch.run(5_000, work=echo.work)\nlan.active(True)")
    is_complete, (events, longest), story = board.evaluate(
        "watch.run(60_000, echo.is_complete, echo.work), watch.story(), echo.story()"
    )
    print("longest step: %d us in %s -> %s" % longest)
    assert is_complete, (events, story)
    assert events[0] == events[-1] == ("online",) and len(events) >= 3
    assert longest[0] <= STEP_US_MAX, longest
