"""A callback takes long (a display, a motor, a file): the connection stands it."""

from fakes import CONNACK, CONNACK_SESSION, ECONNRESET, PINGREQ, PINGRESP, Bench
from wire import answers, kinds, publish, publishes, serve

COUNT = 10


def slow(bench, ms, seen):
    """A callback that takes `ms`; notes what the server had got when it began, and when."""

    def callback(client, message):
        seen.append((bench.clock.now_ms, bytes(bench.server.from_client)))
        bench.clock.advance(ms)

    return callback


def subscribed(ms, seen, **options):
    options.setdefault("keep_alive_s", 4)
    bench = Bench(**options)
    bench.client.subscribe("work", slow(bench, ms, seen), qos=1)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    serve(bench, CONNACK)
    bench.events.clear()
    return bench


def messages(qos):
    return b"".join(
        publish(b"work", b"%d" % n, qos, bytes((0, n + 1)), flags=0) for n in range(COUNT)
    )


def test_acknowledgements_leave_between_two_callbacks():
    seen = []
    bench = subscribed(1000, seen)
    bench.server.to_client += messages(1)
    bench.steps()
    assert len(seen) == COUNT and bench.client.is_online()
    for n, (_, wire) in enumerate(seen):
        assert kinds(wire).count(0x40) == n, "callback %d: %r" % (n, wire)


def test_pings_leave_between_two_callbacks_and_none_is_missed():
    """[MQTT-3.1.2-24] At QoS 0 nothing else would leave; a server waits 1.5 times as long."""
    seen = []
    bench = subscribed(1000, seen)
    begin_ms = bench.clock.now_ms
    bench.server.to_client += messages(0)
    bench.steps()
    assert len(seen) == COUNT and bench.client.is_online(), bench.take_events()
    silent_since = begin_ms
    had = 0
    for now_ms, wire in seen:
        pings = kinds(wire).count(0xC0)
        if pings > had:
            had, silent_since = pings, now_ms
        assert now_ms - silent_since < 6000, "silent for %d ms" % (now_ms - silent_since)
    assert had, "a ping was due"


def test_a_ping_answered_while_a_callback_runs_was_answered_in_time():
    seen = []
    bench = subscribed(5000, seen, connect_timeout_ms=2000)
    bench.clock.advance(4000)
    bench.steps()
    assert bench.server.received() == PINGREQ
    bench.server.to_client += publish(b"work", b"x") + PINGRESP
    bench.steps()
    assert len(seen) == 1 and bench.client.is_online(), bench.take_events()


def test_what_a_slow_callback_publishes_has_its_full_time():
    seen = []
    bench = subscribed(0, seen, connect_timeout_ms=2000)
    tokens = []

    def callback(client, message):
        bench.clock.advance(2300)
        tokens.append(client.publish("valve/state", "open", qos=1))

    bench.client.subscribe("valve", callback)
    serve(bench)
    wire = bench.exchange(publish(b"valve", b"1"))
    assert len(publishes(wire)) == 1
    bench.clock.advance(300)
    bench.steps()
    bench.exchange(answers(wire))
    assert bench.client.is_done(tokens[0]) and bench.client.is_online(), bench.take_events()


def test_a_slow_callback_between_connack_and_subscribe_costs_suback_no_time():
    bench = Bench(clean_session=False, connect_timeout_ms=2000, keep_alive_s=0)
    bench.client.on_message = lambda client, message: bench.clock.advance(2300)
    bench.client.subscribe("valve/set")
    bench.client.connect()
    bench.steps()
    bench.server.received()
    wire = bench.exchange(CONNACK_SESSION + publish(b"other", b"open"))
    bench.clock.advance(300)
    bench.steps()
    bench.exchange(answers(wire))
    assert bench.client.is_online(), bench.take_events()


def test_suback_behind_many_messages_with_slow_callbacks_is_waited_for():
    """The server has answered at once; what stands before its answer takes 12 s here."""
    for packet_kind in ("SUBACK", "PUBACK"):
        seen = []
        bench = Bench(clean_session=False, connect_timeout_ms=10_000, keep_alive_s=4)
        callback = slow(bench, 1000, seen)
        bench.client.on_message = callback
        if packet_kind == "SUBACK":
            bench.client.subscribe("work", callback, qos=1)
        else:
            bench.client.publish("valve/state", "1", qos=1)
        bench.client.connect()
        bench.steps()
        bench.server.received()
        wire = bench.exchange(CONNACK_SESSION)
        bench.server.to_client += b"".join(
            publish(b"work", b"%d" % n, 1, bytes((0, n + 1))) for n in range(12)
        ) + answers(wire)
        bench.steps()
        assert len(seen) == 12 and bench.client.is_online(), bench.take_events()


def test_a_program_that_was_away_finds_its_answers_and_not_a_timeout():
    bench = Bench(connect_timeout_ms=2000, keep_alive_s=0).go_online()
    first = bench.client.publish("valve/state", "1", qos=1)
    wire = bench.exchange()
    bench.server.send(answers(wire))  # it comes while the program is away
    bench.clock.advance(2300)
    second = bench.client.publish("valve/state", "2", qos=1)
    bench.steps()
    wire = bench.server.received()
    assert bench.client.is_done(first) and len(publishes(wire)) == 1
    bench.clock.advance(300)
    bench.steps()
    bench.exchange(answers(wire))
    assert bench.client.is_done(second) and bench.client.is_online(), bench.take_events()


def test_a_server_that_answers_nothing_is_still_given_up():
    bench = Bench(connect_timeout_ms=2000, keep_alive_s=4).go_online()
    for _ in range(200):
        bench.clock.advance(100)
        bench.steps()
        if not bench.client.is_online():
            break
    assert not bench.client.is_online(), "a PINGRESP that never comes"


def test_a_write_that_fails_for_a_moment_between_two_callbacks_ends_the_connection():
    """lwIP has no memory for a moment, say: nobody knows what of it has left."""
    bench = Bench()
    seen = []

    def slow(client, message):
        seen.append(message.payload)
        if message.payload == b"3":
            bench.server.write_credit = 1000
            bench.network.fail_at_call = bench.network.calls + 2
            bench.clock.advance(100)

    def publishes(client, message):
        seen.append(message.payload)
        bench.server.error = None
        if message.payload == b"3":
            client.publish("t", b"4")
        bench.clock.advance(100)

    bench.client.subscribe("#", slow, qos=1)
    bench.client.subscribe("work", publishes, qos=1)
    bench.client.subscribe("+", lambda client, message: seen.append(b"end"), qos=1)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    serve(bench, CONNACK)
    bench.take_events()
    bench.server.write_credit = 0
    token = bench.client.publish("t", b"0")  # is refused, and the answers wait behind it
    bench.steps()
    for number in b"12":
        assert bench.exchange(publish(b"work", bytes((number,)), 1, bytes((0, number)))) == b""
    assert bench.exchange(publish(b"work", b"3", 1, b"\x003")) == b"\x30\x04\x00\x01t0"
    (published, (name, error)) = bench.take_events()
    assert published == ("published", token), "it has left as a whole, and does not go again"
    assert name == "offline" and error.errno == ECONNRESET and bench.server.is_closed
    assert seen == [b"1", b"1", b"end", b"2", b"2", b"end", b"3", b"3", b"end"]
