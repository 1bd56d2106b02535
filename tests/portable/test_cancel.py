"""cancel(): a message is taken back, before it was sent and after."""

from fakes import CONNACK, CONNACK_SESSION, Bench, needs, raises, reconnect
from wire import answers, kinds, publishes, serve

import mqttpipe


def bench_of(**options):
    options.setdefault("clean_session", False)
    options.setdefault("reconnect_min_ms", 0)
    bench = Bench(**options)
    bench.client.on_dropped = lambda client, token: bench.events.append(("dropped", token))
    return bench


def topics(wire):
    return [topic for _, topic, _, _ in publishes(wire)]


def test_a_message_that_waits_is_not_sent():
    needs("offline")
    bench = bench_of()
    tokens = [bench.client.publish("t/%d" % qos, "x", qos) for qos in (0, 1, 0)]
    assert bench.client.cancel(tokens[1]) is True
    assert bench.client.is_done(tokens[1]) and not bench.client.is_done(tokens[0])
    bench.client.step()
    assert bench.take_events() == [("dropped", tokens[1])]
    bench.client.connect()
    bench.steps()
    bench.server.received()
    wire = bench.exchange(CONNACK)
    assert [event for event in bench.take_events() if event[0] == "published"] == [
        ("published", tokens[0]),
        ("published", tokens[2]),
    ]
    assert topics(wire) == [b"t/0", b"t/0"]


def test_a_message_that_was_sent_is_not_sent_again():
    needs("offline")
    bench = bench_of().go_online()
    bad = bench.client.publish("forbidden", "x", 1)
    good = bench.client.publish("allowed", "y", 1)
    assert topics(bench.exchange()) == [b"forbidden", b"allowed"]
    assert bench.client.cancel(bad) is True
    wire = reconnect(bench, CONNACK_SESSION)
    assert topics(wire) == [b"allowed"]
    bench.exchange(answers(wire))
    told = [event for event in bench.take_events() if event[0] in ("dropped", "published")]
    assert told == [("dropped", bad), ("published", good)]
    assert bench.client.cancel(bad) is False and bench.client.cancel(good) is False


def test_the_identifier_of_a_sent_message_rests_until_the_answer_has_come():
    """[MQTT-2.3.1-2] A late PUBACK must not end another message's exchange."""
    needs("offline")
    bench = bench_of(in_flight_max=2).go_online()
    bad = bench.client.publish("a", "x", 1)
    ((_, _, packet_id, _),) = publishes(bench.exchange())
    assert bench.client.cancel(bad) is True
    tokens = []
    for n in range(6):
        tokens.append(bench.client.publish("b", b"%d" % n, 1))
        ((_, _, other_id, _),) = publishes(bench.exchange())
        assert other_id != packet_id, n
        if n == 5:
            break
        bench.exchange(b"\x40\x02" + other_id)
        assert bench.client.is_done(tokens[-1])
    bench.exchange(b"\x40\x02" + packet_id)
    assert not bench.client.is_done(tokens[-1]) and bench.client.is_online()
    assert ("published", bad) not in bench.take_events()


def test_a_qos_2_message_is_taken_back_before_pubrec_only():
    """[MQTT-4.3.3-1]"""
    needs("offline", "qos2")
    bench = bench_of().go_online()
    early = bench.client.publish("early", "x", 2)
    late = bench.client.publish("late", "y", 2)
    packets = publishes(bench.exchange())
    wire = bench.exchange(b"\x50\x02" + packets[1][2])
    assert kinds(wire) == [0x60], "PUBREL"
    assert bench.client.cancel(early) is True
    assert bench.client.cancel(late) is False, "the server has it: the exchange is finished"
    wire = reconnect(bench, CONNACK_SESSION)
    # PUBREL for the first one is no harm, and ends what the server may have of it.
    assert set(kinds(wire)) == {0x60} and packets[1][2] in wire
    bench.exchange(answers(wire))
    told = [event for event in bench.take_events() if event[0] in ("dropped", "published")]
    assert told == [("dropped", early), ("published", late)]


def test_a_qos_2_message_taken_back_is_not_left_half_way_at_the_server():
    """Its PUBREC comes late: without PUBREL the server would keep the message for ever."""
    needs("offline", "qos2")
    bench = bench_of().go_online()
    token = bench.client.publish("t", "x", 2)
    ((_, _, packet_id, _),) = publishes(bench.exchange())
    assert bench.client.cancel(token) is True
    assert bench.exchange(b"\x50\x02" + packet_id) == b"\x62\x02" + packet_id
    bench.exchange(b"\x70\x02" + packet_id)
    assert bench.client.is_online() and ("published", token) not in bench.take_events()


def test_cancel_inside_a_callback_lets_the_others_pass():
    needs("offline")
    bench = bench_of().go_online()
    tokens = [bench.client.publish("t", b"%d" % n, 1) for n in range(3)]
    bench.client.on_published = lambda client, token: client.cancel(tokens[1])
    wire = bench.exchange()
    first = publishes(wire)[0][2]
    bench.exchange(b"\x40\x02" + first)
    serve(bench, answers(reconnect(bench, CONNACK_SESSION)))
    assert ("dropped", tokens[1]) in bench.take_events()
    assert all(bench.client.is_done(token) for token in tokens)


def test_what_is_no_message_is_not_taken_back():
    needs("offline")
    bench = bench_of().go_online()
    sent = bench.client.publish("t", "x", 0)
    filter_token = bench.client.subscribe("a")
    bench.steps()
    assert bench.client.cancel(sent) is False, "it has left"
    assert bench.client.cancel(filter_token) is False
    assert bench.client.cancel(999) is False
    raises(mqttpipe.LocalError, bench.client.cancel, "1")
