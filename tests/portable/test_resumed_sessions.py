"""The first messages of a resumed session come with CONNACK, before the program has subscribed."""

from fakes import CONNACK_SESSION, ECONNRESET, Bench, needs, reconnect
from wire import kinds, publish, serve

import mqttpipe


def resumed(subscribe, *packets):
    bench = Bench(client_id="pump7", clean_session=False)
    seen = []

    def keep(client, message):
        seen.append(message.payload)

    bench.client.on_connect = lambda client, session_present: subscribe(client, keep)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.server.to_client += CONNACK_SESSION + b"".join(packets)  # one segment
    wire = serve(bench)
    return bench, seen, wire


def subscribe(client, keep):
    client.subscribe("pump7/command", keep, qos=1)


def test_a_callback_that_on_connect_subscribes_gets_them():
    bench, seen, wire = resumed(subscribe, publish(b"pump7/command", b"stop", 1))
    assert seen == [b"stop"] and bench.client.is_online()
    assert 0x40 in kinds(wire), "PUBACK"
    assert not [event for event in bench.events if event[0] == "message"]


def test_all_of_them_in_order():
    packets = [publish(b"pump7/command", b"%d" % n, 1, bytes((0, n + 1))) for n in range(5)]
    bench, seen, wire = resumed(subscribe, *packets)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert kinds(wire).count(0x40) == 5


def test_at_qos_2_as_well():
    needs("qos2")
    bench, seen, wire = resumed(
        lambda client, keep: client.subscribe("pump7/#", keep, qos=2),
        publish(b"pump7/command", b"stop", 2),
    )
    assert seen == [b"stop"] and 0x50 in kinds(wire) and bench.client.is_online()


def test_a_handler_for_all_that_on_connect_sets_gets_them():
    bench, seen, _ = resumed(
        lambda client, keep: setattr(client, "on_message", keep),
        publish(b"pump7/command", b"stop", 1),
    )
    assert seen == [b"stop"]


def test_they_are_heard_when_the_bytes_come_one_by_one():
    bench = Bench(clean_session=False)
    seen = []
    bench.client.on_connect = lambda client, present: client.subscribe(
        "a", lambda client, message: seen.append(message.payload), qos=1
    )
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.server.read_max = 1
    serve(bench, CONNACK_SESSION + publish(b"a", b"x", 1))
    assert seen == [b"x"]


def with_a_message_whose_pubrec_was_lost(is_connack_lost):
    """Message 1 came at QoS 2, and the connection broke; so may the next, before CONNACK."""
    bench = Bench(clean_session=False, reconnect_min_ms=0)
    bench.go_online()
    bench.exchange(publish(b"a", b"one", 2, b"\x00\x01"))
    for _ in range(1 + is_connack_lost):
        bench.server.error = ECONNRESET
        bench.steps()
        bench.server.received()
    bench.exchange(CONNACK_SESSION)
    assert bench.client.is_online()
    bench.take_events()
    return bench


def test_behind_a_lost_connack_a_message_without_dup_is_a_new_one():
    """[MQTT-3.3.1-1] The server has begun a new session, and may use the same identifier."""
    needs("qos2")
    bench = with_a_message_whose_pubrec_was_lost(True)
    assert bench.exchange(publish(b"a", b"two", 2, b"\x00\x01")) == b"\x50\x02\x00\x01"
    assert bench.take_events() == [("message", "a", b"two", 2)]
    assert bench.exchange(publish(b"a", b"two", 2, b"\x00\x01", 8)) == b"\x50\x02\x00\x01"
    assert bench.exchange(b"\x62\x02\x00\x01") == b"\x70\x02\x00\x01"
    assert bench.take_events() == [], "once"


def test_behind_a_lost_connack_a_message_with_dup_is_the_old_one():
    needs("qos2")
    bench = with_a_message_whose_pubrec_was_lost(True)
    assert bench.exchange(publish(b"a", b"one", 2, b"\x00\x01", 8)) == b"\x50\x02\x00\x01"
    assert bench.take_events() == []


def test_pubrels_that_a_server_forgets_stand_in_the_way_of_no_message():
    """rmqtt forgets with each connection that it owes one, and keeps the session."""
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0, reconnect_max_ms=0).go_online()
    for number in range(1, 300):
        packet_id = number.to_bytes(2, "big")
        assert bench.exchange(publish(b"a", b"x", 2, packet_id)) == b"\x50\x02" + packet_id
        assert bench.take_events() == [("message", "a", b"x", 2)], number
        if number == 299:
            break
        reconnect(bench, CONNACK_SESSION)
        bench.take_events()
        del bench.network.connections[:-1]  # a board's heap has no place for all
    # What comes again is known, however full it is.
    packet_id = (299).to_bytes(2, "big")
    assert bench.exchange(publish(b"a", b"x", 2, packet_id, 8)) == b"\x50\x02" + packet_id
    reconnect(bench, CONNACK_SESSION)
    bench.take_events()
    assert bench.exchange(publish(b"a", b"x", 2, packet_id, 8)) == b"\x50\x02" + packet_id
    assert bench.exchange(b"\x62\x02" + packet_id) == b"\x70\x02" + packet_id
    assert bench.take_events() == []


def test_one_that_came_again_on_this_connection_is_not_forgotten():
    """[MQTT-4.3.3-2] A server without a limit sends all again, and new ones behind them."""
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0, reconnect_max_ms=0).go_online()
    for number in range(1, 257):
        bench.exchange(publish(b"a", b"x", 2, number.to_bytes(2, "big")))
        bench.take_events()  # a board's heap has no place for all
    reconnect(bench, CONNACK_SESSION)
    for number in range(1, 257):
        bench.exchange(publish(b"a", b"x", 2, number.to_bytes(2, "big"), 8))
        bench.take_events()
    bench.exchange(publish(b"a", b"x", 2, b"\x01\x01"))
    assert [event[0] for event in bench.take_events()] == ["offline"]
    bench.steps()
    bench.server.received()
    bench.exchange(CONNACK_SESSION)
    bench.take_events()
    for number in range(1, 257):
        bench.exchange(publish(b"a", b"x", 2, number.to_bytes(2, "big"), 8))
        assert bench.take_events() == [], "each was received"


def test_one_that_comes_again_and_again_takes_no_other_s_place():
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0, reconnect_max_ms=0).go_online()
    for packet_id in (b"\x00\x01", b"\x00\x02"):
        bench.exchange(publish(b"a", b"x", 2, packet_id))
    reconnect(bench, CONNACK_SESSION)
    for _ in range(300):
        bench.exchange(publish(b"a", b"x", 2, b"\x00\x01", 8))
    for packet_id in (b"\x00\x03", b"\x00\x04"):
        bench.exchange(publish(b"a", b"x", 2, packet_id))
    bench.take_events()
    bench.exchange(publish(b"a", b"x", 2, b"\x00\x02", 8))
    assert bench.take_events() == [], "it is the same"


def test_where_no_connack_was_lost_dup_is_not_looked_at():
    """A server that forgets it still has each message received once."""
    needs("qos2")
    bench = Bench().go_online()
    bench.exchange(publish(b"a", b"one", 2), publish(b"a", b"one", 2))
    assert bench.take_events() == [("message", "a", b"one", 2)]
    for packet_id in (b"\x00\x01", b"\x00\x02"):
        bench = with_a_message_whose_pubrec_was_lost(False)
        bench.exchange(publish(b"a", b"one", 2, packet_id))
        expected = [("message", "a", b"one", 2)] if packet_id[1] == 2 else []
        assert bench.take_events() == expected
    bench = with_a_message_whose_pubrec_was_lost(True)
    bench.server.error = ECONNRESET  # the doubt is over: that CONNACK was seen
    bench.steps()
    bench.server.received()
    bench.exchange(CONNACK_SESSION)
    bench.take_events()
    bench.exchange(publish(b"a", b"one", 2, b"\x00\x01"))
    assert bench.take_events() == []


def test_a_pubrel_without_its_pubcomp_ends_the_connection_also_where_a_message_before_it_waits():
    """It was watched only behind that message, which waited for the PUBCOMP: for ever."""
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0, in_flight_max=2)
    bench.go_online()
    bench.client.publish("a", "1", 1)
    bench.client.publish("b", "2", 2)
    bench.exchange()
    bench.exchange(b"\x50\x02\x00\x02")  # PUBREC of the second; none of the first
    for _ in range(3):  # after two of them, one at a time
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        bench.server.received()
        wire = bench.exchange(CONNACK_SESSION)
    assert wire == b"\x62\x02\x00\x02", "PUBREL alone"
    bench.take_events()
    for _ in range(10):
        assert bench.client.state_name == "SUBSCRIBING"
        bench.clock.advance(1000)
        bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut, error
