"""What programs do that were written with another client in mind: it costs them nothing here."""

from fakes import CONNACK, CONNACK_SESSION, ECONNRESET, Bench, reconnect
from wire import answers, filters, kinds, serve


def subscribing_in_on_connect(**options):
    bench = Bench(reconnect_min_ms=0, **options)
    bench.client.on_connect = lambda client, session_present: client.subscribe("a/#", qos=1)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert kinds(serve(bench, CONNACK)) == [0x80] and bench.client.is_online()
    return bench


def test_a_filter_that_on_connect_subscribes_again_is_asked_for_once():
    """Else each retained message would come twice, at each reconnection."""
    bench = subscribing_in_on_connect()
    for _ in range(3):
        bench.take_events()
        sent = reconnect(bench, CONNACK)
        assert [names for _, names in filters(sent)] == [[b"a/#"]]
        bench.exchange(b"\x90\x03" + filters(sent)[0][0] + b"\x01")
        told = [event[0] for event in bench.take_events()]
        assert told == ["offline", "subscribed", "online"], told
        assert len(bench.client._filters.rows) == 1


def test_the_new_qos_and_callback_of_on_connect_count():
    bench = subscribing_in_on_connect()
    seen = []

    def on_connect(client, session_present):
        client.subscribe("a/#", lambda client, message: seen.append(message.payload))

    bench.client.on_connect = on_connect
    sent = reconnect(bench, CONNACK)
    assert sent[-1:] == b"\x00" and len(filters(sent)) == 1
    bench.exchange(b"\x90\x03" + filters(sent)[0][0] + b"\x00", b"\x30\x06\x00\x03a/bx")
    assert seen == [b"x"]


def test_a_session_that_was_kept_is_asked_for_what_on_connect_subscribes():
    bench = subscribing_in_on_connect(clean_session=False)
    sent = reconnect(bench, CONNACK_SESSION)
    assert [names for _, names in filters(sent)] == [[b"a/#"]]


def test_a_filter_whose_answer_is_still_owed_is_answered_to_both_tokens():
    bench = Bench(reconnect_min_ms=0).go_online()
    first = bench.client.subscribe("a")
    bench.steps()
    second = []
    bench.client.on_connect = lambda client, present: second.append(client.subscribe("a"))
    serve_all = reconnect(bench, CONNACK)
    for packet_id, _ in filters(serve_all):
        bench.exchange(b"\x90\x03" + packet_id + b"\x00")
    assert bench.client.is_done(first) and bench.client.is_done(second[0])
    assert bench.client.is_online()


def away(is_new):
    """A client without a connection: it had none yet, or one with a subscription to `a`."""
    bench = Bench(clean_session=False)
    if not is_new:
        bench.go_online()
        bench.client.subscribe("a")
        serve(bench)
        bench.server.error = ECONNRESET
        bench.network.connect_error = 111
        bench.steps()
    return bench


def test_asking_for_the_same_all_the_time_while_offline_takes_no_memory():
    for is_new in (True, False):
        bench = away(is_new)
        seen = []
        for n in range(200):
            qos = n // 9 % 2
            token = bench.client.subscribe("a", lambda c, m, n=n, s=seen: s.append(n), qos=qos)
            assert len(bench.client._filters.rows) <= 3
        bench.network.connect_error = 0
        bench.client.connect()
        bench.clock.advance(10_000)
        bench.steps()
        sent = serve(bench, CONNACK_SESSION)
        assert [names for _, names in filters(sent)] == [[b"a"]], sent
        assert bench.client.is_done(token) and bench.client.is_online()
        bench.exchange(b"\x30\x04\x00\x01ax")
        assert seen == [199]


def test_subscribing_and_unsubscribing_all_the_time_while_offline_takes_no_memory():
    """As `async with client.messages()` in a loop does. The last call of each kind goes."""
    for is_new in (True, False):
        bench = away(is_new)
        for _ in range(200):
            bench.client.subscribe("a")
            token = bench.client.unsubscribe("a")
            assert len(bench.client._filters.rows) <= 3
        assert not bench.client.is_done(token)
        bench.network.connect_error = 0
        bench.client.connect()
        bench.clock.advance(10_000)
        bench.steps()
        bench.server.received()
        bench.server.send(CONNACK_SESSION)
        bench.steps()
        sent = bench.server.received()
        assert kinds(sent) == [0x80, 0xA0], sent
        bench.exchange(answers(sent))
        assert bench.client.is_done(token) and bench.client.is_online()
        assert bench.client._filters.rows == []


def test_what_was_unsubscribed_and_subscribed_while_offline_goes_in_that_order():
    bench = Bench(clean_session=False).go_online()
    bench.client.subscribe("a")
    serve(bench)
    bench.network.connect_error = 111
    bench.server.error = ECONNRESET
    bench.steps()
    bench.client.unsubscribe("a")
    for _ in range(3):
        bench.client.subscribe("a")
    bench.network.connect_error = 0
    bench.clock.advance(10_000)
    bench.steps()
    bench.server.received()
    bench.server.send(CONNACK_SESSION)
    bench.steps()
    assert kinds(bench.server.received()) == [0xA0, 0x80]


class Full:
    """A table of filters for which there is no memory: it can be looked at, and no more."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)

    def __add__(self, rows):
        raise MemoryError


def test_a_subscribe_that_finds_no_memory_leaves_the_one_before_in_force():
    bench = Bench(reconnect_min_ms=0).go_online()
    seen = []
    bench.client.subscribe("a", lambda client, message: seen.append(message.payload))
    serve(bench)
    table = bench.client._filters
    rows = table.rows
    table.rows = Full(rows)
    try:
        bench.client.subscribe("a", lambda client, message: seen.append("the new one"))
        raise AssertionError("there was memory")
    except MemoryError:
        pass
    table.rows = rows
    bench.exchange(b"\x30\x04\x00\x01ax")
    assert seen == [b"x"]
    assert filters(reconnect(bench, CONNACK)), "and it is subscribed again"
