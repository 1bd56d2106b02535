"""Slow callbacks, continued: those that tell what became of messages and subscriptions."""

import board_heap  # noqa: F401
from fakes import CONNACK, PINGREQ, PINGRESP, Bench
from wire import answers, kinds, publish, publishes, serve

COUNT = 12
KEEP_ALIVE_S = 4


def slow(bench, seen):
    """A callback that takes 1 s; notes when it began, and what the server had got by then."""

    def callback(*arguments):
        seen.append((bench.clock.now_ms, bytes(bench.server.from_client)))
        bench.clock.advance(1000)

    return callback


def assert_never_silent(bench, seen, count=COUNT):
    """[MQTT-3.1.2-24] Seen from the server, which closes after 1.5 times the keep alive."""
    assert len(seen) == count and bench.client.is_online(), (len(seen), bench.take_events())
    had = len(seen[0][1])
    since = seen[0][0]
    for now_ms, wire in seen:
        if len(wire) > had:
            had, since = len(wire), now_ms
        assert now_ms - since < 1500 * KEEP_ALIVE_S, "silent for %d ms" % (now_ms - since)


def test_pings_leave_between_two_calls_of_on_published():
    for qos in (0, 1):
        seen = []
        bench = Bench(keep_alive_s=KEEP_ALIVE_S, in_flight_max=COUNT).go_online()
        bench.client.on_published = slow(bench, seen)
        for n in range(COUNT):
            bench.client.publish("t", b"%d" % n, qos)
        if qos:
            bench.server.to_client += answers(bench.exchange())
        bench.steps()
        assert_never_silent(bench, seen)
        bench.exchange(PINGRESP)
        assert bench.client.is_online()


def told_and_sent(write_max):
    """QoS 0, and on_published publishes more; returns the tokens told, all tokens, the wire."""
    seen = []
    bench = Bench(keep_alive_s=KEEP_ALIVE_S).go_online()

    def told(client, token):
        seen.append(token)
        bench.clock.advance(1000)
        if bench.server.from_client[-2:] == PINGREQ:
            bench.server.send(PINGRESP)
        if len(seen) < 8:
            tokens.append(client.publish("t", b"again", 0))

    bench.client.on_published = told
    tokens = [bench.client.publish("t", b"%d" % n, 0) for n in range(COUNT)]
    bench.server.write_max = write_max
    bench.steps()
    wire = bench.server.received()
    token = bench.client.publish("t", b"behind", 1)
    bench.exchange(answers(bench.exchange()))
    assert bench.client.is_done(token) and seen.pop() == token and bench.client.is_online()
    return seen, tokens, wire


def test_each_qos_0_message_is_told_once_and_sent_once_meanwhile():
    for write_max in (1000, 7, 1):
        seen, tokens, wire = told_and_sent(write_max)
        assert seen == tokens and len(publishes(wire)) == len(tokens), (write_max, seen, tokens)
        assert write_max < 1000 or 0xC0 in kinds(wire)


def test_pings_leave_between_two_calls_of_on_subscribed():
    seen = []
    bench = Bench(keep_alive_s=KEEP_ALIVE_S)
    bench.client.on_subscribed = slow(bench, seen)
    for n in range(COUNT):
        bench.client.subscribe("filter/%d" % n)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    wire = bench.exchange(CONNACK)
    bench.server.to_client += answers(wire)
    bench.steps()
    assert_never_silent(bench, seen)


def test_pings_leave_between_two_calls_of_on_error():
    seen = []
    bench = Bench(keep_alive_s=KEEP_ALIVE_S, packet_bytes_max=64).go_online()
    bench.client.on_error = slow(bench, seen)
    bench.server.to_client += publish(b"t", b"x" * 100) * COUNT
    bench.steps()
    assert_never_silent(bench, seen)


def test_pings_go_on_while_their_answers_wait_behind_many_messages():
    """Thirty messages of QoS 0: nothing else leaves, and PINGRESP stands behind them all."""
    seen = []
    bench = Bench(keep_alive_s=KEEP_ALIVE_S)
    bench.client.subscribe("work", slow(bench, seen))
    bench.client.connect()
    bench.steps()
    bench.server.received()
    serve(bench, CONNACK)
    bench.server.to_client += publish(b"work", b"x") * 30
    bench.steps()
    assert_never_silent(bench, seen, 30)
    pings = bench.server.received().count(PINGREQ)
    bench.exchange(PINGRESP * pings)
    for _ in range(30):
        bench.clock.advance(1000)
        serve(bench, answers(bench.server.received()))
    assert bench.client.is_online(), bench.take_events()


def test_a_server_that_is_silent_is_asked_once_and_left():
    bench = Bench(keep_alive_s=1, connect_timeout_ms=5000).go_online()
    server = bench.server
    begin_ms = bench.clock.now_ms
    while bench.client.is_online() and bench.clock.now_ms - begin_ms < 20_000:
        bench.clock.advance(100)
        bench.steps()
    assert bench.error().stage == "PINGRESP"
    assert bench.clock.now_ms - begin_ms < 7000 and server.received() == PINGREQ
