"""Publishing while offline: limits, policies, expiry; every drop is counted and reported."""

from fakes import (
    CONNACK,
    ECONNREFUSED,
    ECONNRESET,
    Bench,
    needs,
    offline,
    raises,
    sent_after_connect,
)

import mqttpipe


def test_refusing_is_the_rule():
    needs("stats")
    bench = offline(pipe_slots=2)
    bench.client.publish("t", b"1")
    bench.client.publish("t", b"2")
    assert "pipe_slots" in raises(mqttpipe.QueueFull, bench.client.publish, "t", b"3")
    assert sent_after_connect(bench) == b"\x30\x04\x00\x01t1\x30\x04\x00\x01t2"
    assert bench.client.stats["dropped"] == 0


def test_the_bytes_that_wait_are_limited():
    needs("qos2", "offline")
    bench = offline(pipe_bytes_max=20)
    bench.client.publish("t", b"x" * 9)
    bench.client.publish("t", b"y" * 9)
    message = raises(mqttpipe.QueueFull, bench.client.publish, "t", b"")
    assert "20 bytes wait" in message and "pipe_bytes_max" in message, message
    sent_after_connect(bench)
    assert bench.client.publish("t", b"z" * 19) == 3, "what has left makes room"
    bench.steps()
    for packet_id, qos in ((4, 1), (5, 2), (6, 1)):
        bench.client.publish("t", b"z" * 19, qos=qos)
        bench.steps()
        raises(mqttpipe.QueueFull, bench.client.publish, "t", b"")  # until it is acknowledged
        if qos == 2:
            bench.exchange(bytes((0x50, 2, 0, packet_id)))
            raises(mqttpipe.QueueFull, bench.client.publish, "t", b"")
        bench.exchange(bytes((0x70 if qos == 2 else 0x40, 2, 0, packet_id)))


def test_drop_oldest_keeps_the_newest_in_order():
    needs("stats", "offline")
    bench = offline(pipe_slots=3, offline="drop_oldest")
    for i in range(7):
        bench.client.publish("t", b"%d" % i)
    assert bench.take_events() == [("dropped", 1), ("dropped", 2), ("dropped", 3), ("dropped", 4)]
    assert bench.client.stats["dropped"] == 4
    assert bench.client.is_done(4) and not bench.client.is_done(5)
    assert sent_after_connect(bench) == (b"\x30\x04\x00\x01t4\x30\x04\x00\x01t5\x30\x04\x00\x01t6")


def test_drop_oldest_makes_room_for_bytes_as_well():
    needs("offline")
    bench = offline(pipe_bytes_max=20, offline="drop_oldest")
    for i in range(3):
        bench.client.publish("t", b"%d" % i * 9)
    assert bench.take_events() == [("dropped", 1)]
    bench.client.publish("t", b"3" * 19)
    assert bench.take_events() == [("dropped", 2), ("dropped", 3)]
    message = raises(mqttpipe.LocalError, bench.client.publish, "t", b"4" * 20)
    assert "21 bytes" in message and "20" in message, message
    assert bench.take_events() == [], "what would never fit drops nothing"


def test_drop_oldest_never_drops_a_subscription():
    needs("offline")
    bench = offline(pipe_slots=3, offline="drop_oldest")
    bench.network.connect_error = ECONNREFUSED
    bench.client.connect()
    bench.steps()
    bench.client.publish("t", b"1")
    bench.client.subscribe("f")
    for payload in (b"2", b"3", b"4", b"5"):
        bench.client.publish("t", payload)
    # The subscription has token 2, and takes no slot.
    assert [event for event in bench.take_events() if event[0] == "dropped"] == [
        ("dropped", 1),
        ("dropped", 3),
    ]
    bench.network.connect_error = 0
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == b"\x82\x06\xff\x01\x00\x01f\x00"
    assert bench.exchange(b"\x90\x03\xff\x01\x00") == (
        b"\x30\x04\x00\x01t3\x30\x04\x00\x01t4\x30\x04\x00\x01t5"
    )


def test_drop_oldest_turns_around_the_end_of_the_ring():
    needs("offline")
    bench = offline(pipe_slots=4, offline="drop_oldest").go_online()
    for turn in range(11):
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(60_000)
        bench.network.is_silent = True
        bench.steps()
        for i in range(6 + turn % 3):
            bench.client.publish("t", b"%d" % i)
        bench.network.is_silent = False
        bench.steps()
        bench.server.received()
        expected = b"".join(b"\x30\x04\x00\x01t%d" % (2 + turn % 3 + i) for i in range(4))
        assert bench.exchange(CONNACK) == expected, turn


def test_a_message_may_have_a_policy_of_its_own():
    needs("offline")
    bench = offline(pipe_slots=2)
    bench.client.publish("a", b"1")
    bench.client.publish("b", b"1")
    bench.client.publish("b", b"2", offline="latest")
    raises(mqttpipe.QueueFull, bench.client.publish, "c", b"1")
    bench.client.publish("c", b"1", offline="drop_oldest")
    assert sent_after_connect(bench) == b"\x30\x04\x00\x01b2\x30\x04\x00\x01c1"


def test_what_is_asked_of_offline_and_expiry_is_checked():
    needs("offline")
    bench = offline()
    publish = bench.client.publish
    assert "'drop'" in raises(mqttpipe.LocalError, publish, "t", b"", 0, False, "drop")
    for bad in (0, -1, 259_201, 1.5, "5"):
        message = raises(mqttpipe.LocalError, publish, "t", b"", 0, False, None, bad)
        assert "expiry_s" in message
    raises(mqttpipe.LocalError, Bench, offline="never")
    raises(mqttpipe.LocalError, Bench, pipe_bytes_max=0)


def test_a_newer_message_that_does_not_fit_leaves_the_older_one():
    needs("offline")
    bench = offline(pipe_bytes_max=20, offline="latest")
    bench.client.publish("a", b"1")
    bench.client.publish("b", b"x" * 15)
    raises(mqttpipe.QueueFull, bench.client.publish, "a", b"12345")
    assert bench.take_events() == []
    assert sent_after_connect(bench) == b"\x30\x04\x00\x01a1\x30\x12\x00\x01b" + b"x" * 15


def test_a_message_larger_than_the_limit_is_a_local_error_with_every_policy():
    needs("offline")
    for policy in ("refuse", "drop_oldest", "latest"):
        bench = offline(pipe_bytes_max=10, offline=policy)
        raises(mqttpipe.LocalError, bench.client.publish, "t", b"x" * 10)
        assert bench.client.publish("t", b"x" * 9) == 1


def test_messages_are_sent_again_in_the_order_in_which_they_were_first_sent():
    """[MQTT-4.6.0-1], when "latest" has put a newer message in an older one's place."""
    needs("offline")
    bench = offline(offline="latest", clean_session=False, reconnect_min_ms=0)
    for topic, payload in (("a", b"1"), ("b", b"2"), ("a", b"3")):
        bench.client.publish(topic, payload, qos=1)
    first = sent_after_connect(bench)
    bench.server.error = ECONNRESET
    bench.steps()
    bench.server.received()
    assert bench.exchange(b"\x20\x02\x01\x00") == first.replace(b"\x32\x06", b"\x3a\x06")


def test_a_topic_name_belongs_to_its_own_publish():
    """Another thread, or a scheduled function, may publish between any two steps of ours."""
    bench = offline().go_online()
    client = bench.client
    real = mqttpipe._to_topic
    inner = []

    def interrupted(value):
        checked = real(value)
        if not inner:
            inner.append(1)
            client.publish("other", b"2")
        return checked

    mqttpipe._to_topic = interrupted
    try:
        client.publish("mine", b"1")
    finally:
        mqttpipe._to_topic = real
    client.publish("mine", b"3")
    bench.steps()
    assert bench.server.received() == (
        b"\x30\x08\x00\x05other2\x30\x07\x00\x04mine1\x30\x07\x00\x04mine3"
    )
