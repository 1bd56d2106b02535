"""Each filter has a SUBSCRIBE of its own: some servers close at more than 8 in one."""

from fakes import CONNACK, ECONNRESET, Bench
from wire import filters, publishes, serve, split

COUNT = 40


def subscribed(**options):
    options.setdefault("reconnect_min_ms", 0)
    bench = Bench(**options)
    tokens = [bench.client.subscribe("dt/area/%d" % n, qos=1) for n in range(COUNT)]
    bench.client.connect()
    bench.steps()
    bench.server.received()
    return bench, tokens


def check(wire):
    packets = filters(wire)
    assert [len(names) for _, names in packets] == [1] * COUNT
    names = set(names[0] for _, names in packets)
    assert names == set(b"dt/area/%d" % n for n in range(COUNT))
    assert len(set(packet_id for packet_id, _ in packets)) == COUNT, "an identifier each"


def test_forty_filters_are_forty_packets_and_all_are_in_service():
    bench, tokens = subscribed()
    check(serve(bench, CONNACK))
    assert bench.client.is_online()
    granted = [event for event in bench.take_events() if event[0] == "subscribed"]
    assert sorted(granted) == [("subscribed", token, b"\x01") for token in sorted(tokens)]


def test_they_are_subscribed_again_in_the_same_way():
    bench, _ = subscribed()
    serve(bench, CONNACK)
    bench.server.error = ECONNRESET
    bench.steps()
    bench.server.received()
    check(serve(bench, CONNACK))
    assert bench.client.is_online()


def test_more_of_them_than_leave_in_one_write_arrive_as_well():
    bench, _ = subscribed(packet_bytes_max=64)
    bench.server.write_max = 7
    check(serve(bench, CONNACK))
    assert bench.client.is_online()


def test_of_many_filters_a_step_sends_some_and_messages_wait_for_all():
    """Each is looked for in the table of all: 500 at once took 60 ms of one step()."""
    bench = Bench().go_online()
    names = [b"f/%d" % n for n in range(40)]
    for name in names:
        bench.client.subscribe(name)
    bench.client.publish("t", "x")
    sent = []
    steps = 0
    while bench.client.step():
        steps += 1
        wire = bench.server.received()
        assert len(split(wire)) <= 17, "a step"
        sent += [filters(wire)[n][1][0] for n in range(len(filters(wire)))]
        if publishes(wire):
            assert sent == names, "the message is behind them"
            break
    else:
        raise AssertionError("no message")
    assert steps > 2
