"""Publishing and receiving at each quality of service (sections 3.3-3.7, 4.3)."""

import board_heap  # noqa: F401
from fakes import CONNACK, CONNACK_SESSION, Bench, needs, raises, reconnect

import mqttpipe


def test_qos_0_is_published_when_the_socket_has_it():
    """[MQTT-2.3.1-5] [MQTT-3.3.2-1] [MQTT-4.3.1-1]"""
    bench = Bench().go_online()
    bench.server.write_credit = 8
    token = bench.client.publish("a/b", b"hi", retain=True)
    bench.steps()
    assert bench.take_events() == [] and not bench.client.is_done(token)
    bench.server.write_credit = 1
    bench.steps()
    assert bench.take_events() == [("published", token)] and bench.client.is_done(token)
    assert bench.server.received() == b"\x31\x07\x00\x03a/bhi"


def test_qos_1_is_published_when_puback_comes():
    """[MQTT-2.3.1-1] [MQTT-3.3.2-1] [MQTT-4.3.2-1]"""
    bench = Bench().go_online()
    token = bench.client.publish("a/b", "hi", qos=1)
    bench.steps()
    assert bench.server.received() == b"\x32\x09\x00\x03a/b\x00\x01hi"
    assert bench.take_events() == [] and not bench.client.is_done(token)
    bench.exchange(b"\x40\x02\x00\x01")
    assert bench.take_events() == [("published", token)] and bench.client.is_done(token)


def test_qos_2_takes_both_steps():
    """[MQTT-2.3.1-6] [MQTT-3.6.1-1] [MQTT-4.3.3-1]"""
    needs("qos2")
    bench = Bench().go_online()
    token = bench.client.publish("t", b"", qos=2)
    bench.steps()
    assert bench.server.received() == b"\x34\x05\x00\x01t\x00\x01"
    assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x02\x00\x01"
    assert bench.take_events() == [] and not bench.client.is_done(token)
    assert bench.exchange(b"\x70\x02\x00\x01") == b""
    assert bench.take_events() == [("published", token)] and bench.client.is_done(token)


def test_messages_published_together_leave_in_one_write_and_in_order():
    bench = Bench().go_online()
    for i in range(5):
        bench.client.publish("t", b"%d" % i, qos=i % 2)
    calls = bench.server.calls
    bench.client.step()
    assert bench.server.calls - calls <= 2, "one read, one write"
    assert bench.server.received() == (
        b"\x30\x04\x00\x01t0\x32\x06\x00\x01t\x00\x021"
        b"\x30\x04\x00\x01t2\x32\x06\x00\x01t\x00\x043\x30\x04\x00\x01t4"
    )


def test_no_more_than_in_flight_max_wait_for_their_acknowledgement():
    bench = Bench(in_flight_max=2).go_online()
    for i in range(4):
        bench.client.publish("t", b"%d" % i, qos=1)
    bench.client.publish("t", b"z")
    bench.steps()
    assert bench.server.received() == b"\x32\x06\x00\x01t\x00\x010\x32\x06\x00\x01t\x00\x021"
    assert bench.exchange(b"\x40\x02\x00\x02") == b"\x32\x06\x00\x01t\x00\x032"
    assert bench.exchange(b"\x40\x02\x00\x03\x40\x02\x00\x01") == (
        b"\x32\x06\x00\x01t\x00\x043\x30\x04\x00\x01tz"
    )


def test_a_full_pipe_raises_queue_full_and_keeps_what_it_has():
    bench = Bench(pipe_slots=3)
    for i in range(3):
        bench.client.publish("t", b"%d" % i)
    raises(mqttpipe.QueueFull, bench.client.publish, "t", b"3")
    bench.go_online()
    assert bench.client.publish("t", b"4") == 4


def test_what_was_published_offline_is_sent_in_order_when_online():
    bench = Bench()
    tokens = [bench.client.publish("t", b"%d" % i, qos=i % 2) for i in range(4)]
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == (
        b"\x30\x04\x00\x01t0\x32\x06\x00\x01t\x00\x021\x30\x04\x00\x01t2\x32\x06\x00\x01t\x00\x043"
    )
    bench.exchange(b"\x40\x02\x00\x02\x40\x02\x00\x04")
    assert all(bench.client.is_done(token) for token in tokens)


def test_with_a_session_unacknowledged_messages_are_sent_again_with_dup():
    """[MQTT-2.3.1-3] [MQTT-3.3.1-1] [MQTT-4.4.0-1] [MQTT-4.6.0-1]: same identifiers, in order."""
    needs("qos2")
    bench = Bench(clean_session=False, reconnect_min_ms=0).go_online()
    tokens = [bench.client.publish("t", b"%d" % i, qos=1 + i % 2) for i in range(4)]
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x02")  # PUBREC for the second
    assert reconnect(bench, CONNACK_SESSION) == (
        b"\x62\x02\x00\x02"
        b"\x3a\x06\x00\x01t\x00\x010"
        b"\x3a\x06\x00\x01t\x00\x032"
        b"\x3c\x06\x00\x01t\x00\x043"
    )
    bench.exchange(b"\x40\x02\x00\x01\x70\x02\x00\x02\x40\x02\x00\x03")
    bench.exchange(b"\x50\x02\x00\x04\x70\x02\x00\x04")
    assert all(bench.client.is_done(token) for token in tokens)


def test_without_a_session_they_begin_anew_with_the_same_identifiers():
    """[MQTT-3.1.2-6]: a new PUBLISH each, without DUP."""
    needs("qos2")
    for clean_session in (True, False):
        bench = Bench(clean_session=clean_session, reconnect_min_ms=0).go_online()
        bench.client.publish("t", b"0", qos=1)
        bench.client.publish("t", b"1", qos=2)
        bench.steps()
        bench.exchange(b"\x50\x02\x00\x02")
        assert reconnect(bench, CONNACK) == (
            b"\x32\x06\x00\x01t\x00\x010\x34\x06\x00\x01t\x00\x021"
        )
        assert bench.exchange(b"\x50\x02\x00\x02") == b"\x62\x02\x00\x02", "from the begin"


def test_without_a_session_subscriptions_come_before_what_is_sent_again():
    """[MQTT-3.1.2-6]"""
    bench = Bench(reconnect_min_ms=0).go_online()
    bench.client.subscribe("a")
    bench.client.publish("t", b"0", qos=1)
    bench.steps()
    bench.exchange(b"\x90\x03\xff\x01\x00")
    assert reconnect(bench, CONNACK) == b"\x82\x06\xff\x02\x00\x01a\x00"
    assert bench.exchange(b"\x90\x03\xff\x02\x00") == b"\x32\x06\x00\x01t\x00\x020"


def test_redelivery_comes_before_what_waits_in_the_pipe():
    """[MQTT-4.4.0-1] [MQTT-4.6.0-1]"""
    bench = Bench(clean_session=False, in_flight_max=2, reconnect_min_ms=0).go_online()
    for i in range(3):
        bench.client.publish("t", b"%d" % i, qos=1)
    bench.steps()
    assert reconnect(bench, CONNACK_SESSION) == (
        b"\x3a\x06\x00\x01t\x00\x010\x3a\x06\x00\x01t\x00\x021"
    )
    assert bench.exchange(b"\x40\x02\x00\x01") == b"\x32\x06\x00\x01t\x00\x032"


def test_redelivery_larger_than_the_outbox_goes_out_piece_by_piece():
    """[MQTT-4.4.0-1] [MQTT-4.6.0-1]"""
    bench = Bench(clean_session=False, packet_bytes_max=64, reconnect_min_ms=0).go_online()
    for i in range(8):
        bench.client.publish("t", b"%d" % i + b"x" * 45, qos=1)
    bench.steps()
    sent = bench.server.received()
    assert len(sent) == 8 * 53
    again = reconnect(bench, CONNACK_SESSION)
    assert again == sent.replace(b"\x32\x33", b"\x3a\x33")


def test_qos_0_cut_in_the_middle_is_sent_whole_once_more_and_what_left_is_not():
    """[MQTT-3.3.1-2]"""
    bench = Bench(reconnect_min_ms=0).go_online()
    bench.server.write_credit = 9  # the first of 6 bytes, half of the second
    tokens = [bench.client.publish("t", b"%d" % i) for i in range(3)]
    bench.steps()
    assert bench.take_events() == [("published", tokens[0])]
    assert reconnect(bench, CONNACK) == b"\x30\x04\x00\x01t1\x30\x04\x00\x01t2"
    published = [event[1] for event in bench.take_events() if event[0] == "published"]
    assert published == tokens[1:]


def test_an_acknowledgement_that_never_comes_ends_the_connection():
    bench = Bench(connect_timeout_ms=5000, keep_alive_s=0).go_online()
    bench.client.publish("t", b"", qos=1)
    bench.steps()
    bench.clock.advance(4999)
    bench.steps()
    assert bench.take_events() == []
    bench.clock.advance(1)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "ACK"


def test_one_forgotten_acknowledgement_among_many_ends_it_as_well():
    bench = Bench(connect_timeout_ms=5000, keep_alive_s=0).go_online()
    for i in range(1, 12):
        bench.client.publish("t", b"", qos=1)
        bench.steps()
        if i > 1:
            bench.exchange(bytes((0x40, 2, 0, i)))
        bench.clock.advance(500)
        if bench.client.state_name != "ONLINE":
            break
    error = [event for event in bench.take_events() if event[0] == "offline"][0][1]
    assert error.stage == "ACK" and i == 11, i


def test_a_socket_that_takes_nothing_ends_the_connection():
    bench = Bench(connect_timeout_ms=5000, keep_alive_s=0).go_online()
    bench.server.write_credit = 3
    bench.client.publish("t", b"")
    bench.steps()
    bench.clock.advance(5000)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "WRITE"


def test_a_callback_that_raises_is_reported_and_breaks_nothing():
    bench = Bench().go_online()

    def on_message(client, message):
        raise ValueError("mine")

    bench.client.on_message = on_message
    assert bench.exchange(b"\x32\x06\x00\x01t\x00\x01x") == b"\x40\x02\x00\x01"
    ((name, error),) = bench.take_events()
    assert name == "error" and type(error) is ValueError and bench.client.is_online()


def test_callbacks_may_publish_subscribe_and_disconnect():
    bench = Bench().go_online()

    def on_message(client, message):
        client.publish("answer", message.payload)
        client.subscribe("more")
        client.disconnect()

    bench.client.on_message = on_message
    assert bench.exchange(b"\x30\x04\x00\x01tx") == (
        b"\x82\x09\xff\x01\x00\x04more\x00\x30\x09\x00\x06answerx"
    ), "a filter goes before messages"
    assert bench.exchange(b"\x90\x03\xff\x01\x00") == b"\xe0\x00"
    assert bench.client.state_name == "DOWN"


def test_an_acknowledgement_of_nothing_is_ignored_and_counted():
    """[MQTT-4.3.3-1]: it may belong to a life of this device before its reset."""
    needs("qos2", "stats")
    bench = Bench().go_online()
    token = bench.client.publish("t", b"", qos=2)
    bench.steps()
    bench.server.received()
    for count, wire in enumerate(
        (
            b"\x40\x02\x00\x09",  # an identifier that is not in use
            b"\x70\x02\x00\x09",
            b"\x40\x02\xff\x01",  # of the range of filters
            b"\x70\x02\x00\x01",  # PUBCOMP where PUBREC is due
        )
    ):
        assert bench.exchange(wire) == b"" and bench.client.is_online(), wire
        assert bench.client.stats["ignored"] == count + 1, wire
    assert not bench.client.is_done(token)
    assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x02\x00\x01"
    bench.exchange(b"\x40\x02\x00\x01")  # PUBACK where PUBCOMP is due
    assert not bench.client.is_done(token) and bench.client.stats["ignored"] == 5
    bench.exchange(b"\x70\x02\x00\x01")
    assert bench.take_events() == [("published", token)] and bench.client.is_done(token)
    bench.client.publish("t", b"", qos=1)
    bench.steps()
    bench.exchange(b"\x70\x02\x00\x02")  # PUBCOMP for QoS 1
    assert bench.take_events() == [] and bench.client.stats["ignored"] == 6
    bench.exchange(b"\x40\x02\x00\x02\x40\x02\x00\x02")  # PUBACK, and once more
    assert bench.take_events() == [("published", 2)] and bench.client.stats["ignored"] == 7


def test_a_server_that_does_not_do_qos_2_ends_the_exchange_with_puback_and_is_told_once():
    needs("qos2")
    bench = Bench(in_flight_max=1).go_online()
    for _ in range(2):
        bench.client.publish("t", b"", qos=2)
    bench.steps()
    assert bench.server.received() == b"\x34\x05\x00\x01t\x00\x01"
    assert bench.exchange(b"\x40\x02\x00\x01") == b"\x34\x05\x00\x01t\x00\x02"
    bench.exchange(b"\x40\x02\x00\x02")
    (name, error), *published = bench.take_events()
    assert name == "error" and type(error) is mqttpipe.ServerError
    assert "the server does not do QoS 2" in str(error), error
    assert published == [("published", 1), ("published", 2)] and bench.client.is_online()
    assert bench.client._pipe.head == bench.client._pipe.tail


def test_a_pubrec_again_or_unknown_is_answered_and_its_pubcomp_let_pass():
    needs("qos2")
    bench = Bench().go_online()
    token = bench.client.publish("t", b"", qos=2)
    bench.steps()
    bench.server.received()
    for _ in range(2):
        assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x02\x00\x01"
    bench.exchange(b"\x70\x02\x00\x01\x70\x02\x00\x01")
    assert bench.client.is_done(token)
    assert bench.exchange(b"\x50\x02\x00\x09") == b"\x62\x02\x00\x09"
    bench.exchange(b"\x70\x02\x00\x09")
    assert bench.client.is_online()


def test_a_message_that_takes_long_to_send_is_waited_for_while_it_moves():
    bench = Bench(connect_timeout_ms=5000, packet_bytes_max=1700, keep_alive_s=0).go_online()
    token = bench.client.publish("t", b"x" * 1600, qos=1)
    for _ in range(21):
        bench.server.write_credit = 75
        bench.clock.advance(1000)
        bench.steps()
    assert bench.client.is_online()
    bench.server.write_credit = 1000
    bench.steps()
    bench.exchange(b"\x40\x02\x00\x01")
    assert bench.client.is_done(token)


def test_publishing_from_on_published_does_not_keep_one_step_going():
    needs("stats")
    bench = Bench().go_online()
    bench.client.on_published = lambda client, token: client.publish("t", b"")
    bench.client.publish("t", b"")
    bench.client.step()
    assert 1 < bench.client.stats["sent"] < 100


def test_a_message_sent_again_without_a_session_counts_as_sent_again():
    needs("stats")
    bench = Bench(reconnect_min_ms=0).go_online()
    bench.client.publish("t", b"", qos=1)
    bench.steps()
    for _ in range(3):
        reconnect(bench, CONNACK)
    stats = bench.client.stats
    assert (stats["sent"], stats["retransmitted"]) == (1, 3)


def test_each_message_is_one_packet_sent_however_long_its_topic_name():
    needs("stats")
    bench = Bench(packet_bytes_max=2100).go_online()
    before = bench.client.stats["packets_sent"]
    for length in (9, 1000, 2000):  # of the outbox's 1460 bytes
        bench.client.publish("t" * length, b"x", 1)
        bench.steps()
    assert bench.client.stats["packets_sent"] == before + 3
