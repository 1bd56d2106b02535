"""Messages that move in the ring while others wait for their answers."""

from fakes import CONNACK_SESSION, Bench, needs, offline, reconnect, sent_after_connect
from wire import publishes


def test_a_message_that_moves_while_its_pubrel_waits_keeps_its_identifier():
    """[MQTT-4.3.3-1]: a callback fills the gap of a message that was acknowledged."""
    needs("offline", "qos2")
    bench = offline(pipe_slots=3, clean_session=False, reconnect_min_ms=0).go_online()
    client = bench.client
    for topic, qos in (("a", 1), ("b", 1), ("c", 2)):
        client.publish(topic, b"", qos)
    bench.steps()
    bench.exchange(b"\x40\x02\x00\x02", b"\x50\x02\x00\x03")
    client.on_connect = lambda client, session_present: client.publish("n", b"", 1)
    assert reconnect(bench, CONNACK_SESSION) == (
        b"\x62\x02\x00\x03\x3a\x05\x00\x01a\x00\x01\x32\x05\x00\x01n\x00\x04"
    )
    bench.exchange(b"\x70\x02\x00\x03\x40\x02\x00\x01\x40\x02\x00\x04")
    published = [event[1] for event in bench.take_events() if event[0] == "published"]
    assert published == [2, 3, 1, 4] and (client._pipe.head == client._pipe.tail)


def test_a_message_that_moves_before_it_is_sent_again_keeps_its_identifier():
    """[MQTT-2.3.1-3] [MQTT-4.4.0-1]"""
    needs("offline")
    bench = offline(pipe_slots=3, clean_session=False, reconnect_min_ms=0).go_online()
    client = bench.client
    for topic in "abc":
        client.publish(topic, b"", 1)
    bench.steps()
    bench.exchange(b"\x40\x02\x00\x02")
    client.on_connect = lambda client, session_present: client.publish("n", b"", 1)
    assert reconnect(bench, CONNACK_SESSION) == (
        b"\x3a\x05\x00\x01a\x00\x01\x3a\x05\x00\x01c\x00\x03\x32\x05\x00\x01n\x00\x04"
    )
    bench.exchange(b"\x40\x02\x00\x03\x40\x02\x00\x01\x40\x02\x00\x04")
    assert client._pipe.head == client._pipe.tail


def test_a_pubcomp_that_comes_before_its_pubrel_is_sent_again_ends_the_message():
    """[MQTT-4.3.3-1]: the server owed it from the connection before; one read brings both."""
    needs("offline", "qos2")
    bench = offline(pipe_slots=3, clean_session=False, reconnect_min_ms=0).go_online()
    token = bench.client.publish("t", b"", 2)
    bench.steps()
    bench.server.received()
    assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x02\x00\x01"
    sent = reconnect(bench, CONNACK_SESSION + b"\x70\x02\x00\x01")
    assert sent in (b"", b"\x62\x02\x00\x01"), sent
    assert bench.client.is_done(token) and ("published", token) in bench.take_events()
    if sent:
        bench.exchange(b"\x70\x02\x00\x01")
    assert (bench.client._pipe.head == bench.client._pipe.tail) and bench.take_events() == []
    for n in range(3):  # all slots are free
        bench.client.publish("t", b"%d" % n, 1)


def test_a_pubrel_that_is_sent_again_counts_as_one_in_flight_and_as_sent_again():
    needs("qos2", "stats")
    bench = Bench(clean_session=False, reconnect_min_ms=0, in_flight_max=1).go_online()
    bench.client.publish("a", b"", 2)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x01")
    bench.client.publish("b", b"", 1)
    before = bench.client.stats
    assert reconnect(bench, CONNACK_SESSION) == b"\x62\x02\x00\x01"
    after = bench.client.stats
    assert after["retransmitted"] == before["retransmitted"] + 1
    assert after["packets_sent"] == before["packets_sent"] + 2, "CONNECT and PUBREL"
    assert bench.exchange(b"\x70\x02\x00\x01") == b"\x32\x05\x00\x01b\x00\x02"


def test_who_makes_room_moves_nothing_that_step_looks_at_meanwhile():
    """head, left and sent were moved one after the other: step() saw them in between, and took
    messages that waited for messages that had left."""
    needs("qos2")
    for policy in ("drop_oldest", "latest"):
        bench = offline(pipe_slots=4, offline=policy)
        client, pipe = bench.client, bench.client._pipe
        for n in range(12):
            client.publish("t" if n % 3 else "u", b"%d" % n, n % 3)
            assert (pipe.head, pipe.left, pipe.sent) == (0, 0, 0), (policy, n)
        waiting = [pipe.payloads[at] for at in range(pipe.tail)]
        if policy == "drop_oldest":
            assert waiting == [b"8", b"9", b"10", b"11"]
        else:
            assert waiting == [b"9", b"11"]


def test_ctrl_c_while_gaps_are_closed_leaves_no_message_twice():
    needs("qos2")
    for count in range(6, 12):  # Ctrl-C comes behind each field of the second message that moves
        bench = offline(pipe_slots=3, clean_session=False)
        client, pipe = bench.client, bench.client._pipe
        tokens = [client.publish("t", b"%d" % n, 2) for n in range(3)]
        client.cancel(tokens[0])  # a gap in front

        class Field:
            copies = 0
            copies_max = count

            def __init__(self, values):
                self.values = values

            def __getitem__(self, at):
                return self.values[at]

            def __setitem__(self, at, value):
                Field.copies += 1
                if Field.copies > Field.copies_max:
                    raise KeyboardInterrupt
                self.values[at] = value

        before = pipe.fields
        pipe.fields = tuple(Field(values) for values in before)
        try:
            client.publish("t", b"3", 2)
            raise AssertionError("Ctrl-C did not come")
        except KeyboardInterrupt:
            pass
        pipe.fields = before
        sent = publishes(sent_after_connect(bench))
        assert len(set(one[2] for one in sent)) == len(sent), (count, sent)
        assert [one[3] for one in sent].count(b"1") == 1, (count, sent)
