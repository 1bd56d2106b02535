"""messages(): when its queue is full, reading stops until there is room; nothing is dropped."""

from fakes import CONNACK, PINGREQ, Bench, needs
from wire import kinds, publish, serve

QUEUE_MAX = 2


def full(qos, count=5, **options):
    """A client with messages() of two places, to which the server sends five messages."""
    needs("asyncio")
    if qos == 2:
        needs("qos2")
    bench = Bench(**options).go_online()
    messages = bench.client.messages("a", qos=qos, queue_max=QUEUE_MAX)
    serve(bench)
    bench.server.to_client += b"".join(
        publish(b"a", b"%d" % n, qos, bytes((0, n + 1))) for n in range(count)
    )
    bench.steps()
    return bench, messages


def take(messages):
    """The next message, which must be there."""
    import asyncio

    async def first():
        async for message in messages:
            return message.payload

    return asyncio.run(asyncio.wait_for(first(), 1))


def test_nothing_that_found_no_place_is_acknowledged():
    for qos, kind in ((1, 0x40), (2, 0x50)):
        bench, _ = full(qos)
        acknowledged = kinds(bench.server.received()).count(kind)
        assert acknowledged <= QUEUE_MAX, (qos, acknowledged)
        assert bench.client.is_online()
        assert not [event for event in bench.take_events() if event[0] != "subscribed"]


def test_all_come_in_order_when_they_are_taken():
    for qos in (1, 2):
        bench, messages = full(qos)
        taken = []
        for _ in range(5):
            taken.append(take(messages))
            serve(bench)
        assert taken == [b"0", b"1", b"2", b"3", b"4"], (qos, taken)
        assert not [event for event in bench.take_events() if event[0] == "error"]


def test_pings_go_on_meanwhile_and_their_answers_are_not_missed():
    """[MQTT-3.1.2-23]"""
    bench, messages = full(1, keep_alive_s=4, connect_timeout_ms=2000)
    bench.server.received()
    for _ in range(5):
        for _ in range(45):
            bench.clock.advance(100)
            bench.steps()
        wire = bench.server.received()
        assert PINGREQ in wire and bench.client.is_online(), bench.take_events()
        bench.server.send(b"\xd0\x00" * kinds(wire).count(0xC0))
    for _ in range(5):
        take(messages)
        serve(bench)
    assert bench.client.is_online(), bench.take_events()


def test_another_filters_messages_come_when_there_is_room_again():
    bench, messages = full(1)
    seen = []
    bench.client.subscribe("b", lambda client, message: seen.append(message.payload))
    bench.server.to_client += publish(b"b", b"x")
    serve(bench)
    for _ in range(5):
        take(messages)
        serve(bench)
    assert seen == [b"x"]


def test_a_queue_that_nobody_empties_is_told_once():
    """A task was cancelled, or left its loop without close(): else all is quiet."""
    bench, messages = full(1, keep_alive_s=4, connect_timeout_ms=2000)
    bench.take_events()
    for _ in range(2):
        for _ in range(200):
            bench.clock.advance(100)
            bench.steps()
        ((name, error),) = bench.take_events()
        assert name == "error" and "'a' is full" in str(error), error
        take(messages)  # it is emptied, and full again at once
        serve(bench)
    for _ in range(2):
        take(messages)
        serve(bench)
        bench.clock.advance(100)
    assert bench.take_events() == [] and bench.client.is_online()


def test_a_queue_that_is_emptied_slowly_is_not_told():
    """docs/api.md: only if nothing was taken for a whole keep alive. It was, after a moment."""
    bench, messages = full(0, count=20, keep_alive_s=4, connect_timeout_ms=2000)
    bench.take_events()
    for n in range(100):
        bench.clock.advance(100)
        if n == 1:
            bench.client.publish("b", b"x")  # so a keep alive later the next ping is soon due
        if n % 9 == 8:
            take(messages)
        serve(bench)
    assert not [event for event in bench.take_events() if event[0] == "error"]


def test_close_lets_what_waits_behind_go_on():
    """UNSUBACK comes behind more messages of that filter: these find no taker any more."""
    for qos, kind in ((1, 0x40), (2, 0x50)):
        bench, messages = full(qos)
        seen = []
        bench.client.subscribe(
            "b", lambda client, message, seen=seen: seen.append(message.payload)
        )
        bench.server.to_client += publish(b"b", b"x")
        messages.close()
        wire = bench.server.received() + serve(bench)
        assert kinds(wire).count(kind) == 5 and seen == [b"x"], (qos, wire, seen)
        assert 0xA0 in kinds(wire) and bench.client.is_online()


def test_close_of_one_whose_filter_is_anothers_by_now_leaves_that_alone():
    needs("asyncio")
    bench = Bench().go_online()
    first = bench.client.messages("a")
    second = bench.client.messages("a")
    serve(bench)
    bench.server.received()
    first.close()
    bench.steps()
    assert bench.server.received() == b""
    bench.exchange(publish(b"a", b"x"))
    assert take(second) == b"x"
    second.close()
    bench.steps()
    assert kinds(bench.server.received()) == [0xA0]


def test_close_ends_the_subscription_of_a_filter_that_nobody_else_has():
    needs("asyncio")
    for is_online in (True, False):
        bench = Bench(reconnect_min_ms=0)
        messages = bench.client.messages("a")
        if not is_online:
            messages.close()
        bench.client.connect()
        bench.steps()
        bench.server.received()
        bench.server.send(CONNACK)
        serve(bench)
        messages.close()
        serve(bench)
        assert bench.client.is_online()
        bench.exchange(publish(b"a", b"late"))
        assert bench.take_events()[-1] == ("message", "a", b"late", 0), "nobody's"


def test_close_wakes_a_client_that_sleeps_also_if_the_filter_is_anothers_by_now():
    """Else it would not read on before something else wakes it, such as the next ping."""
    for is_anothers in (False, True):
        bench, messages = full(1)
        if is_anothers:
            bench.client.subscribe("a")
        serve(bench)
        assert bench.client.next_deadline_ms() != 0
        messages.close()
        assert bench.client.next_deadline_ms() == 0, is_anothers
