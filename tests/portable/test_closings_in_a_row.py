"""Closings one after the other: who is named, and what never stands in the way for ever."""

import board_heap  # noqa: F401
from fakes import CONNACK, CONNACK_SESSION, Bench, needs
from wire import answers, filters, kinds, publishes

import mqttpipe

BAD_NAME = b"\x31\x06\x00\x02\xff\xfehi"


def bench_of(**options):
    return Bench(clean_session=False, reconnect_min_ms=0, reconnect_max_ms=0, **options)


def come_online(bench, connack=CONNACK):
    """The next connection, up to its CONNACK; returns what the client sends then."""
    bench.client.connect()
    bench.steps()
    while bench.client.state_name == "WAITING":
        bench.clock.advance(1)
        bench.steps()
    bench.server.received()
    return bench.exchange(connack)


def texts(bench):
    return [str(event[1]) for event in bench.take_events() if event[0] == "offline"]


def closed_after(bench, seconds):
    """The server closes a connection that has lasted so long; returns what is told."""
    come_online(bench)
    for _ in range(seconds):
        bench.clock.advance(1000)
        bench.exchange(answers(bench.server.received()))
    bench.server.is_ended = True
    bench.steps()
    (text,) = texts(bench)
    return text


def test_a_connection_that_lasted_ends_the_count_of_short_ones():
    needs("hints")
    bench = bench_of()
    told = [closed_after(bench, seconds) for seconds in (1, 1, 30, 1, 1, 1)]
    assert ["another client" in text for text in told] == [False] * 5 + [True], told


def test_a_bad_topic_name_is_named_however_long_the_connections_lasted():
    """[MQTT-1.5.3-1] A device that publishes one each quarter of a minute."""
    needs("hints")
    bench = bench_of()
    told = []
    for _ in range(3):
        come_online(bench)
        for _ in range(15):
            bench.clock.advance(1000)
            bench.steps()
        bench.exchange(BAD_NAME)
        told += texts(bench)
    assert ["retained" in text for text in told] == [False, False, True], told


def test_other_offences_are_put_down_to_no_topic_name():
    needs("hints")
    for offence in (b"\xf0\x00", b"\x20\x02\x00\x00", b"\x40\x02\x00\x00"):
        bench = bench_of()
        told = []
        for _ in range(4):
            come_online(bench)
            bench.exchange(offence)
            told += texts(bench)
        assert len(told) == 4 and told[0] == told[3], told


def test_other_offences_between_bad_topic_names_end_their_count():
    needs("hints")
    bench = bench_of()
    told = []
    for offence in (BAD_NAME, BAD_NAME, b"\xf0\x00", BAD_NAME, BAD_NAME, BAD_NAME):
        come_online(bench)
        bench.exchange(offence)
        told += texts(bench)
    assert ["retained" in text for text in told] == [False] * 5 + [True], told


def live(bench, is_closed_by, limit=40):
    """A server with the session that closes at a PUBREL; returns how often it has closed."""
    count = 0
    wire = come_online(bench, CONNACK_SESSION)
    for _ in range(limit):
        if not wire:
            break
        if is_closed_by in kinds(wire):
            count += 1
            bench.server.is_ended = True
            bench.steps()
            wire = come_online(bench, CONNACK_SESSION)
        else:
            wire = bench.exchange(answers(wire))
    return count


def in_flight_when_the_connection_broke():
    needs("offline", "qos2")
    bench = bench_of()
    come_online(bench)
    bad = [bench.client.publish("t", "x", 2, expiry_s=5) for _ in range(2)]
    good = bench.client.publish("g", "y", 1)
    assert len(publishes(bench.exchange())) == 3
    bench.server.error = 104
    bench.steps()
    return bench, bad, good


def test_a_qos_2_message_taken_back_blocks_nothing_where_pubrel_is_not_understood():
    """RabbitMQ 3 has no QoS 2, and closes at a PUBREL."""
    bench, bad, good = in_flight_when_the_connection_broke()
    assert all(bench.client.cancel(token) for token in bad)
    assert live(bench, 0x60) <= 3
    assert bench.client.is_online() and bench.client.is_done(good)


def test_neither_does_one_that_has_expired():
    bench, bad, good = in_flight_when_the_connection_broke()
    bench.clock.advance(6000)
    assert live(bench, 0x60) <= 3
    assert bench.client.is_online() and bench.client.is_done(good)
    assert all(bench.client.is_done(token) for token in bad)


def test_what_can_not_be_taken_back_is_no_suspect():
    """[MQTT-4.3.3-1] Past PUBREC cancel() answers False, so it is not advised."""
    needs("hints", "qos2")
    bench = bench_of()
    come_online(bench)
    bench.client.publish("t", "x", 2)
    bench.exchange(answers(bench.exchange()))
    for _ in range(4):
        bench.server.is_ended = True
        bench.steps()
        come_online(bench, CONNACK_SESSION)
    told = texts(bench)
    assert len(told) == 4 and not any("cancel()" in text for text in told), told


def closed_at(bench, refused):
    """A server that grants the filters up to this one, and closes there; returns what is told."""
    wire = come_online(bench)
    while wire:
        more = b""
        for packet_id, names in filters(wire):
            if names == [refused]:
                more = b""
                break
            more += bench.exchange(b"\x90\x03" + packet_id + b"\x01")
        wire = more
    bench.server.error = 104
    bench.steps()
    (text,) = texts(bench)
    return text


def test_the_filter_at_which_a_server_closes_is_named_though_answers_before_it_get_lost():
    """What a server has sent is lost if it closes with bytes that it has not read (TCP's RST)."""
    needs("hints")
    bench = bench_of()
    for name in ("a", "no", "b"):
        bench.client.subscribe(name, qos=1)
    told = [closed_at(bench, refused) for refused in (b"a", b"no", b"a", b"no", b"no")]
    assert ["the filter b'no'" in text for text in told] == [False] * 3 + [True] * 2, told


def test_a_filter_that_was_granted_before_is_named_where_no_other_waits():
    needs("hints")
    bench = bench_of()
    bench.client.subscribe("a", qos=1)
    told = [closed_at(bench, refused) for refused in (b"", b"a", b"a", b"a")]
    assert "the filter b'a'" in told[3], told


def test_silence_is_not_put_down_to_another_client():
    """Who is thrown out by another client finds the connection closed."""
    needs("hints")
    bench = bench_of(keep_alive_s=1, connect_timeout_ms=1000)
    told = []
    for _ in range(4):
        come_online(bench)
        for _ in range(10):
            bench.clock.advance(500)
            bench.steps()
            told += texts(bench)
            if told and not bench.client.is_online():
                break
    assert len(told) == 4 and all(text == told[0] for text in told), told
    assert told[0].startswith("PINGRESP"), told


def fail_for_want_of_memory():
    raise MemoryError


def test_neither_is_want_of_memory():
    needs("hints")
    bench = bench_of()
    told = []
    for _ in range(4):
        come_online(bench)
        bench.server._called = fail_for_want_of_memory
        bench.server.send(b"\xd0\x00")
        bench.steps()
        told += texts(bench)
    assert len(told) == 4 and all(text == told[0] for text in told), told
    assert "out of memory" in told[0], told


def test_neither_is_a_message_that_messages_can_not_keep_for_want_of_it():
    needs("hints", "asyncio")
    bench = bench_of()
    bench.client.messages("t", 1)
    copy = mqttpipe.Message.copy
    told = []
    try:
        mqttpipe.Message.copy = lambda message: fail_for_want_of_memory()
        for _ in range(4):
            bench.exchange(answers(come_online(bench)), b"\x32\x05\x00\x01t\x00\x07")
            told += texts(bench)
    finally:
        mqttpipe.Message.copy = copy
    assert len(told) == 4 and all(text == told[0] for text in told), told
    assert "out of memory" in told[0], told


def test_a_message_that_was_sent_before_is_not_blamed_for_a_filter_that_is_new():
    """SUBSCRIBE goes first: the server may not even have looked at the message behind it."""
    needs("hints")
    bench = bench_of()
    come_online(bench)
    good = bench.client.publish("good", "x", 1)
    bench.exchange()
    bench.client.subscribe("no")
    wire = bench.exchange()
    told = []
    for _ in range(4):
        assert filters(wire)
        bench.server.error = 104
        bench.steps()
        told += texts(bench)
        wire = come_online(bench, CONNACK_SESSION)
        assert publishes(wire), "sent again behind it"
    assert "the filter b'no'" in told[3] and "cancel()" not in "".join(told), told
    assert not bench.client.is_done(good)
    while wire:
        wire = bench.exchange(answers(wire))
    assert bench.client.is_done(good)


def told_behind_a_message(says, connack=CONNACK_SESSION, **options):
    """What four connections tell that the server ends by this packet, a message in flight."""
    bench = bench_of(**options)
    come_online(bench, connack)
    bench.client.publish("t", "x", 1)
    bench.exchange()
    told = []
    for _ in range(4):
        bench.exchange(says)
        told += texts(bench)
        come_online(bench, connack)
    assert len(told) == 4, told
    return told


def test_what_the_server_says_itself_is_put_down_to_no_message():
    """It would be thrown away for nothing."""
    needs("hints")
    for code in (3, 4):
        told = told_behind_a_message(b"\x20\x02\x00" + bytes((code,)))
        assert "return code %d" % code in told[3] and "cancel()" not in told[3], told
    told = told_behind_a_message(b"\x20\x02\x00\x05")
    assert "not authorized" in told[3] and "cancel()" in told[3], told


def test_neither_is_what_it_says_with_mqtt_5_0():
    """[5: 3.14.2.1] 0x8E: another client; 0x8B: it shuts down; 0x9C: use another server."""
    needs("hints", "mqtt5")
    connack = b"\x20\x03\x01\x00\x00"
    for code in (0x89, 0x8B, 0x8E, 0x98, 0x9C):
        told = told_behind_a_message(b"\xe0\x01" + bytes((code,)), connack, protocol=5)
        assert "(0x%02x)" % code in told[3] and "cancel()" not in told[3], told
    for code in (0x82, 0x87, 0x95, 0x9A):
        told = told_behind_a_message(b"\xe0\x01" + bytes((code,)), connack, protocol=5)
        assert "(0x%02x)" % code in told[3] and "cancel()" in told[3], told


def test_a_server_that_closes_at_pubrel_makes_no_message_before_it_a_suspect():
    """That one was not even sent; whoever took it back lost it for nothing."""
    needs("hints", "qos2")
    bench = bench_of()
    come_online(bench)
    bench.client.publish("innocent", "1", 1)
    bench.client.publish("guilty", "2", 2)
    bench.exchange()
    bench.exchange(b"\x50\x02\x00\x02")  # PUBREC
    told = []
    for _ in range(5):
        bench.server.is_ended = True
        bench.steps()
        told += texts(bench)
        come_online(bench, CONNACK_SESSION)
    assert ["PUBREL of message 2?" in text for text in told] == [False] * 2 + [True] * 3, told
    assert not any("innocent" in text for text in told), told


def test_a_pubrel_that_is_answered_is_no_suspect():
    """The server closes at the message behind it: that one is named, once PUBREL is answered."""
    needs("hints", "qos2")
    bench = bench_of()
    come_online(bench)
    bench.client.publish("guilty", "1", 1)
    bench.client.publish("innocent", "2", 2)
    bench.exchange()
    bench.exchange(b"\x50\x02\x00\x02")
    told = []
    for _ in range(5):
        bench.server.is_ended = True
        bench.steps()
        told += texts(bench)
        if come_online(bench, CONNACK_SESSION) == b"\x62\x02\x00\x02":  # one at a time
            bench.exchange(b"\x70\x02\x00\x02")
    assert "message 1 to" in told[2] and "message 1 to" in told[4], told


def test_a_pubrel_is_no_suspect_at_the_first_connection_that_has_one():
    """Two closings before it had nothing to do with it."""
    needs("hints", "qos2")
    bench = bench_of()
    for _ in range(2):
        come_online(bench)
        bench.server.is_ended = True
        bench.steps()
    come_online(bench, CONNACK_SESSION)
    bench.client.publish("t", "x", 2)
    bench.exchange()
    bench.exchange(b"\x50\x02\x00\x01")
    bench.server.is_ended = True
    bench.steps()
    assert not any("PUBREL" in text for text in texts(bench))


def test_a_server_that_closes_at_pubrel_makes_no_filter_a_suspect():
    needs("hints", "qos2")
    bench = bench_of()
    come_online(bench)
    bench.client.publish("guilty", "x", 2)
    bench.exchange()
    bench.exchange(b"\x50\x02\x00\x01")
    bench.client.subscribe("innocent")
    told = []
    for _ in range(5):
        bench.server.is_ended = True
        bench.steps()
        told += texts(bench)
        sent = come_online(bench, CONNACK_SESSION)
        assert sent[:4] == b"\x62\x02\x00\x01", sent
    assert sent == b"\x62\x02\x00\x01", "one at a time"
    assert all("PUBREL of message 1?" in text for text in told[3:]), told
