"""MQTT 5.0: the properties of a message are its own, as its expiry is, and go where it goes."""

from fakes import ECONNRESET, needs, raises
from mqtt5 import CONNACK, CONNACK_SESSION, online

import mqttpipe

PROPERTIES = {"content_type": "a"}
RECONNECT_MS = 1000


def again(bench, connack=CONNACK_SESSION):
    """What the next connection sends first."""
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(RECONNECT_MS)
    bench.steps()
    bench.server.received()
    return bench.exchange(connack)


def persistent(**options):
    options.setdefault("reconnect_max_ms", RECONNECT_MS)
    return online(clean_session=False, keep_alive_s=0, **options)


def test_a_message_that_was_acknowledged_leaves_no_properties_behind():
    bench = persistent(pipe_slots=1)
    for packet_id, properties in ((1, PROPERTIES), (2, None), (3, None)):  # of two slots
        bench.client.publish("t", "x", 1, properties=properties)
        bench.steps()
        sent = again(bench)  # with DUP, not by the short way
        more = b"\x04\x03\x00\x01a" if properties else b"\x00"
        assert sent[2:] == b"\x00\x01t\x00" + bytes((packet_id,)) + more + b"x", packet_id
        bench.exchange(b"\x40\x02\x00" + bytes((packet_id,)))


def test_a_message_that_was_refused_leaves_no_properties_behind():
    needs("offline")
    bench = persistent(pipe_bytes_max=10, in_flight_max=1)
    tokens = [bench.client.publish("t", payload, 1) for payload in (b"1", b"12345")]
    raises(mqttpipe.QueueFull, bench.client.publish, "t", b"3", 1, properties=PROPERTIES)
    assert bench.client.cancel(tokens[1])
    bench.client.publish("t", b"4", 1)  # in the slot of the one that was refused
    bench.steps()
    bench.exchange(b"\x40\x02\x00\x01")
    assert again(bench) == b"\x3a\x07\x00\x01t\x00\x03\x004"


def test_a_message_that_moves_takes_its_properties_with_it():
    needs("offline")
    bench = persistent(pipe_slots=3, reconnect_min_ms=RECONNECT_MS)
    bench.server.error = ECONNRESET
    bench.steps()
    tokens = [bench.client.publish("t", b"%d" % n) for n in range(3)]
    bench.client.cancel(tokens[1])
    bench.client.publish("t", b"m", properties=PROPERTIES)  # to where there is room
    assert again(bench).endswith(b"\x30\x09\x00\x01t\x04\x03\x00\x01am")


def test_of_what_was_sent_only_qos_2_does_not_expire():
    """[MQTT5-4.3.3-7]; retained or not; and before it was sent it does, at each QoS."""
    needs("offline", "qos2")
    for qos in (1, 2):
        for retain in (False, True):
            for is_sent in (False, True):
                bench = persistent(reconnect_min_ms=9000, reconnect_max_ms=9000, in_flight_max=1)
                told = []
                bench.client.on_dropped = lambda client, token, told=told: told.append(token)
                if not is_sent:
                    bench.client.publish("t", b"before it", 1)
                    bench.steps()
                token = bench.client.publish("t", b"x", qos, retain, expiry_s=1)
                bench.steps()
                bench.server.error = ECONNRESET
                bench.steps()
                bench.clock.advance(2000)
                bench.steps()
                assert told == ([] if is_sent and qos == 2 else [token]), (qos, retain, is_sent)


def test_a_clean_start_leaves_the_properties_with_their_message():
    bench = persistent()
    bench.client.publish("t", "x", 1, properties=PROPERTIES)
    bench.steps()
    assert again(bench, CONNACK) == b"\x32\x0b\x00\x01t\x00\x01\x04\x03\x00\x01ax"
