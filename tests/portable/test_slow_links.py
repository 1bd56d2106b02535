"""A link that stalls and then is slow: what moves is never given up."""

import gc

import board_heap  # noqa: F401
from fakes import CONNACK, PINGREQ, PINGRESP, Bench, needs
from wire import answers, publish, publishes

SIZE = 3000
STEP_MS = 100
STEP_BYTES = 30  # the message takes 10 s


def sending(keep_alive_s=2, timeout_ms=4000):
    """A client whose large message has begun to leave, over a link that takes nothing more."""
    bench = Bench(
        keep_alive_s=keep_alive_s,
        connect_timeout_ms=timeout_ms,
        packet_bytes_max=SIZE + 100,
    ).go_online()
    bench.server.write_credit = 100
    token = bench.client.publish("picture", b"x" * SIZE, qos=1)
    bench.steps()
    return bench, token


def wait(bench, ms, bytes_each=0):
    for _ in range(ms // STEP_MS):
        bench.clock.advance(STEP_MS)
        bench.server.write_credit += bytes_each
        bench.steps()


def test_a_large_message_over_a_link_that_stalled_arrives():
    bench, token = sending()
    wait(bench, 3000)  # longer than the keep alive, shorter than the time for a write
    wait(bench, 10_500, STEP_BYTES)
    assert bench.client.is_online(), bench.take_events()
    wire = bench.server.received()
    assert wire.count(b"x") >= SIZE
    at = wire.index(b"x" * SIZE) + SIZE
    # What follows it is whole pings, each to be answered.
    behind = wire[at:]
    assert behind == PINGREQ * (len(behind) // 2)
    bench.server.write_credit = 1 << 20
    bench.exchange(b"\x40\x02" + wire[wire.index(b"picture") + 7 :][:2])
    bench.exchange(PINGRESP * (len(behind) // 2))
    assert bench.client.is_done(token) and bench.client.is_online(), bench.take_events()


def test_the_time_for_pingresp_runs_from_when_pingreq_has_left():
    bench, token = sending(timeout_ms=2000)
    wait(bench, 1500)
    wait(bench, 11_000, STEP_BYTES)  # a ping that was due waits behind the message for so long
    assert bench.client.is_online(), bench.take_events()
    wire = bench.server.received()
    assert wire.count(b"x") >= SIZE
    bench.exchange(b"\x40\x02" + wire[wire.index(b"picture") + 7 :][:2])
    bench.server.write_credit = 1 << 20
    pings = wire.count(PINGREQ)
    for _ in range(4):
        if not pings:
            wait(bench, 500)
            pings = bench.server.received().count(PINGREQ)
    wait(bench, 1000)
    bench.exchange(PINGRESP * pings)
    assert pings and bench.client.is_done(token)
    assert bench.client.is_online(), bench.take_events()


def test_a_server_that_answers_neither_message_nor_ping_is_given_up():
    bench, _ = sending()
    bench.server.write_credit = 1 << 20
    bench.steps()
    wait(bench, 12_000)
    assert not bench.client.is_online()


def test_a_link_that_moves_nothing_for_the_whole_time_is_given_up():
    bench, _ = sending()
    wait(bench, 12_000)
    assert not bench.client.is_online()


def test_answers_behind_a_large_message_that_moves_are_waited_for():
    """Towards us, too: on a slow link the server's answer stands behind what it sends."""
    for kind, packet_bytes_max in (
        ("ping", SIZE),
        ("publish", SIZE),
        ("subscribe", SIZE),
        ("", 64),
    ):
        bench = Bench(
            keep_alive_s=4, connect_timeout_ms=2000, packet_bytes_max=packet_bytes_max
        ).go_online()
        if kind == "publish":
            bench.client.publish("t", "x", 1)
        elif kind == "subscribe":
            bench.client.subscribe("t")
        wire = bench.exchange()
        for byte in publish(b"t", b"x" * 110):
            bench.server.send(bytes((byte,)))
            wait(bench, STEP_MS)
            wire += bench.server.received()
        assert wire and bench.client.is_online(), (kind, bench.take_events())
        bench.exchange(answers(wire))
        assert bench.client.is_online(), (kind, bench.take_events())


def test_a_large_message_towards_us_that_stops_is_given_up():
    bench = Bench(keep_alive_s=4, connect_timeout_ms=2000).go_online()
    bench.exchange(publish(b"t", b"x" * 110)[:50])
    wait(bench, 8000)
    assert not bench.client.is_online()


def test_a_server_that_sends_and_never_answers_is_given_up():
    bench = Bench(keep_alive_s=4, connect_timeout_ms=2000).go_online()
    for _ in range(100):
        bench.server.send(publish(b"t", b"x" * 110))
        wait(bench, STEP_MS)
        if not bench.client.is_online():
            break
    assert not bench.client.is_online()


def test_the_time_for_pubcomp_runs_from_when_pubrel_has_left():
    needs("qos2")
    bench = Bench(keep_alive_s=0, connect_timeout_ms=2000, packet_bytes_max=SIZE + 100).go_online()
    first = bench.client.publish("t", "x", 2)
    ((_, _, packet_id, _),) = publishes(bench.exchange())
    bench.server.write_credit = 100
    bench.client.publish("picture", b"x" * SIZE, 0)
    bench.steps()
    bench.exchange(b"\x50\x02" + packet_id)
    for _ in range(100):
        wait(bench, STEP_MS, STEP_BYTES)
    bench.server.write_credit = 1 << 20
    bench.steps()
    assert bench.client.is_online(), bench.take_events()
    assert bench.server.received().endswith(b"x\x62\x02" + packet_id)
    wait(bench, 1500)
    assert bench.client.is_online(), bench.take_events()
    bench.exchange(b"\x70\x02" + packet_id)
    assert bench.client.is_done(first) and bench.client.is_online()


def test_a_pubcomp_that_never_comes_ends_the_connection_all_the_same():
    needs("qos2")
    bench = Bench(keep_alive_s=0, connect_timeout_ms=2000, packet_bytes_max=SIZE + 100).go_online()
    bench.client.publish("t", "x", 2)
    ((_, _, packet_id, _),) = publishes(bench.exchange())
    bench.server.write_credit = 100
    bench.client.publish("picture", b"x" * SIZE, 0)
    bench.steps()
    bench.exchange(b"\x50\x02" + packet_id)
    bench.server.write_credit = 1 << 20
    wait(bench, 2500)
    assert not bench.client.is_online()


def test_an_answer_behind_what_we_have_not_read_yet_is_waited_for():
    """A step reads 16 packets: with a slow loop a backlog takes longer than any deadline."""
    bench = Bench(keep_alive_s=4, connect_timeout_ms=2000).go_online()
    bench.client.on_message = None
    token = bench.client.publish("t", "x", 1)
    ((_, _, packet_id, _),) = publishes(bench.exchange())
    for _ in range(60):
        bench.server.send(publish(b"t", b"x") * 16)
    bench.server.send(b"\x40\x02" + packet_id + b"\xd0\x00")
    for _ in range(80):
        bench.clock.advance(100)
        bench.client.step()
    assert bench.client.is_online(), bench.take_events()
    assert bench.client.is_done(token)


def test_a_server_that_floods_and_never_answers_is_given_up():
    """More than a step reads; a byte a step, so that some packet always moves; and halves."""
    message = publish(b"t", b"x")
    bytes_of_it = [message[i : i + 1] for i in range(len(message))]
    halves = [message[3:] + message[:3]]
    for begin, flood in ((b"", [message * 17]), (b"", bytes_of_it), (message[:3], halves)):
        bench = None  # a board's heap has no room for two
        bench = Bench(keep_alive_s=0, connect_timeout_ms=2000).go_online()
        bench.client.on_message = None
        bench.client.publish("t", "x", 1)
        bench.exchange()
        bench.server.send(begin)
        turns = 0
        while bench.client.is_online() and turns < 600:
            bench.server.send(flood[turns % len(flood)])
            gc.collect()  # else what the fakes have copied lies in pieces
            bench.clock.advance(100)
            bench.client.step()
            turns += 1
        # Ten times connect_timeout_ms at most.
        assert 20 <= turns <= 220 and not bench.client.is_online(), (flood, turns)
        name, error = bench.take_events()[0]
        assert name == "offline" and error.stage == "ACK", (flood, error)


def test_the_time_that_a_link_takes_to_say_that_it_is_up_is_not_taken_from_the_attempt():
    class Link:
        def is_up(self):
            bench.clock.advance(12_000)
            return True

    bench = Bench(link=Link(), connect_timeout_ms=10_000)
    bench.client.connect()
    bench.steps()
    bench.clock.advance(9_000)
    bench.exchange(CONNACK)
    assert bench.client.is_online(), bench.take_events()
