"""$share/group/filter: the callback is found by what stands behind the group."""

from fakes import CONNACK, Bench, needs
from wire import filters, publish, serve


def subscribed(*names):
    bench = Bench()
    seen = []
    for name in names:
        bench.client.subscribe(
            name, lambda client, message, name=name: seen.append((name, message.topic_name)), 1
        )
    bench.client.connect()
    bench.steps()
    bench.server.received()
    wire = serve(bench, CONNACK)
    bench.events.clear()
    return bench, seen, [name for _, names in filters(wire) for name in names]


def test_its_callback_is_called():
    name = "$share/workers/plant/+/temp"
    bench, seen, sent = subscribed(name)
    assert sent == [name.encode()], "the server is asked with the whole of it"
    bench.exchange(publish(b"plant/7/temp", b"21"), publish(b"plant/8/temp", b"22", 1))
    assert seen == [(name, "plant/7/temp"), (name, "plant/8/temp")]
    bench.exchange(publish(b"plant/7/8/temp", b"23"))
    assert bench.take_events() == [("message", "plant/7/8/temp", b"23", 0)] and len(seen) == 2


def test_wildcards_and_dollar_behind_the_group_mean_what_they_mean_elsewhere():
    """[MQTT-4.7.2-1]"""
    for name, topic, matches in (
        ("$share/g/#", b"a/b", True),
        ("$share/g/#", b"$SYS/x", False),
        ("$share/g/$SYS/#", b"$SYS/x", True),
        ("$share/g//a", b"/a", True),
        ("$share/g//a", b"a", False),
        ("$share/g/+/a", b"/a", True),
        ("$share/g/a", b"g/a", False),
        ("$shared/g/a", b"$shared/g/a", True),  # no shared subscription
        ("$shared/g/a", b"a", False),
    ):
        bench, seen, _ = subscribed(name)
        bench.exchange(publish(topic, b"x"))
        assert bool(seen) is matches, (name, topic)


def test_two_groups_and_a_filter_of_its_own_each_have_their_callback():
    needs("qos2")
    names = ("$share/one/a", "$share/two/b", "c")
    bench, seen, _ = subscribed(*names)
    for topic in (b"a", b"b", b"c"):
        bench.exchange(publish(topic, b"x"))
    assert seen == [(names[0], "a"), (names[1], "b"), (names[2], "c")]


def test_it_is_taken_back_by_the_name_it_was_given():
    bench, seen, _ = subscribed("$share/g/a")
    token = bench.client.unsubscribe("$share/g/a")
    wire = serve(bench)
    assert b"$share/g/a" in wire and bench.client.is_done(token)
    bench.exchange(publish(b"a", b"x"))
    assert not seen
