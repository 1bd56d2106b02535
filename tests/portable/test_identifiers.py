"""Packet identifiers of messages: they follow from the tokens, and none is two messages'."""

from fakes import CONNACK, CONNACK_SESSION, ECONNRESET, Bench, Counted, needs, reconnect

import mqttpipe


def test_identifiers_follow_from_the_tokens_and_leave_256_to_filters():
    """[MQTT-2.3.1-1, -2]: 1..65279, never 0."""
    bench = Bench(in_flight_max=3).go_online()
    bench.client._pipe.last_token = 65277
    for _ in range(3):
        bench.client.publish("t", b"", qos=1)
    bench.steps()
    assert bench.server.received() == (
        b"\x32\x05\x00\x01t\xfe\xfe\x32\x05\x00\x01t\xfe\xff\x32\x05\x00\x01t\x00\x01"
    )


def test_an_identifier_in_use_is_not_used_again():
    """[MQTT-2.3.1-1, -2]: 65,279 tokens after the one that is stuck its identifier comes round."""
    needs("qos2")
    for before, qos, acknowledgement in (
        (0, 1, b"\x40\x02\x00\x01"),
        (0, 2, b"\x70\x02\x00\x01"),
        (8224 * 65279, 1, b"\x40\x02\x00\x01"),
    ):
        bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
        bench.client._pipe.last_token = before
        stuck = bench.client.publish("t", b"s", qos=qos)
        bench.steps()
        if qos == 2:
            bench.exchange(b"\x50\x02\x00\x01")
        bench.server.received()
        bench.client._pipe.last_token = before + 65278
        for payload in (b"1", b"2", b"3"):
            bench.client.publish("t", payload, qos=1)
        bench.steps()
        assert bench.server.received() == b"\x32\x06\x00\x01t\xfe\xff1", "65,279"
        bench.client.publish("t", b"0")
        assert bench.exchange(b"\x40\x02\xfe\xff") == b"", "in order, it waits as well"
        # Nor does a connection that broke change this.
        again = reconnect(bench, CONNACK_SESSION)
        assert again == (b"\x3a\x06\x00\x01t\x00\x01s" if qos == 1 else b"\x62\x02\x00\x01")
        assert bench.exchange(acknowledgement) == (
            b"\x32\x06\x00\x01t\x00\x012\x32\x06\x00\x01t\x00\x023\x30\x04\x00\x01t0"
        )
        assert bench.client.is_done(stuck)


def test_identifiers_stay_apart_where_tokens_begin_anew():
    """[MQTT-2.3.1-1]: after 2**30-1 comes 1."""
    bench = Bench().go_online()
    bench.client._pipe.last_token = 0x3FFFFFFE
    assert bench.client.publish("t", b"", qos=1) == 0x3FFFFFFF
    assert bench.client.publish("t", b"", qos=1) == 1
    bench.steps()
    # 2**30 - 2 is 16,448 * 65,279 + 32,830.
    assert bench.server.received() == b"\x32\x05\x00\x01t\x80\x3f\x32\x05\x00\x01t\x00\x01"


def test_an_identifier_in_use_is_not_used_again_where_tokens_begin_anew():
    """[MQTT-2.3.1-2]: there it comes round earlier, by half."""
    bench = Bench(clean_session=False).go_online()
    bench.client._pipe.last_token = 0x3FFFFFFF - 100
    bench.client.publish("t", b"s", qos=1)  # 2**30 - 100 has the identifier 32,732
    bench.steps()
    assert bench.server.received() == b"\x32\x06\x00\x01t\x7f\xdcs"
    bench.client._pipe.last_token = 32730
    for payload in (b"1", b"2"):
        bench.client.publish("t", payload, qos=1)
    bench.steps()
    assert bench.server.received() == b"\x32\x06\x00\x01t\x7f\xdb1"
    assert bench.exchange(b"\x40\x02\x7f\xdc") == b"\x32\x06\x00\x01t\x7f\xdc2"


def test_identifiers_go_on_counting_through_connections():
    """[MQTT-2.3.1-2]"""
    bench = Bench(reconnect_min_ms=0).go_online()
    bench.client.publish("t", b"", qos=1)
    bench.steps()
    bench.exchange(b"\x40\x02\x00\x01")
    bench.server.error = ECONNRESET
    bench.steps()
    bench.go_online()
    bench.client.publish("t", b"", qos=1)
    bench.steps()
    assert bench.server.received() == b"\x32\x05\x00\x01t\x00\x02"


def test_a_message_after_a_reset_is_no_repetition_of_one_before_it():
    """The server may keep the identifier of a QoS 2 message whose exchange a reset has cut off."""
    needs("qos2")
    seen = set()
    for drawn in (b"\x00\x00", b"\x31\x07", b"\xff\xff"):
        bench = Bench(
            clean_session=False, prepare=lambda d=drawn: setattr(mqttpipe, "urandom", lambda n: d)
        )
        bench.go_online(CONNACK_SESSION)
        token = bench.client.publish("t", b"x", qos=2)
        bench.steps()
        sent = bench.server.received()
        assert sent[:5] == b"\x34\x06\x00\x01t" and token < 1 << 30
        assert sent[5:7] != b"\x00\x00" and sent[5] != 0xFF, "those are the filters'"
        seen.add(sent[5:7])
        stats = getattr(bench.client, "stats", {"queued": 1})
        assert stats["queued"] == 1
        bench.exchange(b"\x50\x02" + sent[5:7], b"\x70\x02" + sent[5:7])
        assert bench.client.is_done(token)
    assert len(seen) == 3


def test_without_a_session_of_an_earlier_life_tokens_begin_with_one():
    bench = Bench(prepare=lambda: setattr(mqttpipe, "urandom", lambda n: b"\x31\x07"))
    assert bench.client.publish("t", b"x", qos=1) == 1


def test_they_begin_elsewhere_as_well_where_only_the_first_connect_is_clean():
    """MQTT 5.0: the next may reach another server of that name, with a session from before."""
    needs("mqtt5", "qos2")
    bench = Bench(
        protocol=5,
        session_expiry_s=3600,
        prepare=lambda: setattr(mqttpipe, "urandom", lambda n: b"\x31\x07"),
    )
    bench.go_online(b"\x20\x03\x00\x00\x00")
    bench.client.publish("t", b"x", qos=2)
    bench.steps()
    assert bench.server.received() == b"\x34\x07\x00\x01t\x31\x08\x00x"


def test_an_identifier_stays_one_message_s_where_the_latest_takes_an_older_one_s_place():
    """[MQTT-2.3.1-2]: tokens do not rise along the ring then."""
    needs("qos2", "offline")
    bench = Bench(clean_session=False, reconnect_min_ms=0, offline="latest")
    client = bench.client
    client.publish("a", b"old", 2)
    client.publish("b", b"", 2)  # token 2
    client._pipe.last_token = 1501
    client.publish("a", b"", 2)  # 1502, at the place of 1
    bench.go_online()
    bench.server.received()
    bench.server.error = ECONNRESET
    bench.steps()
    client._pipe.last_token = 65280
    client.publish("c", b"", 2)  # 65281: the identifier would be 2, too
    again = reconnect(bench, CONNACK_SESSION)
    assert again == b"\x3c\x05\x00\x01a\x05\xde\x3c\x05\x00\x01b\x00\x02", again
    bench.exchange(b"\x50\x02\x00\x02")
    assert bench.exchange(b"\x70\x02\x00\x02") == b"\x34\x05\x00\x01c\x00\x02"


def test_the_latest_takes_no_place_before_a_message_that_has_its_identifier():
    """[MQTT-2.3.1-2]: it would wait for that one, which waits behind it."""
    needs("offline")
    bench = Bench(clean_session=False, reconnect_min_ms=0, offline="latest").go_online()
    client = bench.client
    bench.server.write_credit = 3
    client.publish("a", b"old")  # leaves in part, and waits again
    client.publish("b", b"", 1)  # token 2, in the same write
    bench.steps()

    def publish_while_offline(client, error):
        client._pipe.last_token = 65280
        client.publish("a", b"", 1)  # 65281: the identifier would be 2, too

    client.on_offline = publish_while_offline
    assert reconnect(bench, CONNACK_SESSION) == b"\x3a\x05\x00\x01b\x00\x02"
    assert bench.exchange(b"\x40\x02\x00\x02") == b"\x32\x05\x00\x01a\x00\x02"
    bench.exchange(b"\x40\x02\x00\x02")
    assert client._pipe.head == client._pipe.tail


def test_to_find_identifiers_free_costs_no_look_at_what_follows():
    """With 990 messages and 200 in flight a step took 22 ms, once "latest" had moved one."""
    needs("offline")
    bench = Bench(pipe_slots=100, in_flight_max=20, offline="latest")
    for n in range(90):
        bench.client.publish("%d" % n, b"", qos=1)
    bench.client.publish("50", b"", qos=1)  # from here on tokens are not in order
    pipe = bench.client._pipe
    assert pipe.is_mixed

    looks = [0]
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.server.send(CONNACK)
    pipe.tokens = Counted(pipe.tokens, looks)
    bench.steps()
    assert bench.client._flying == 20
    assert looks[0] < 500, looks
