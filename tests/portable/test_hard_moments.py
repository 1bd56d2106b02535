"""Two things at once: a full outbox and an answer, a new session and no memory, Ctrl-C."""

import board_heap  # noqa: F401
from fakes import CONNACK, CONNACK_SESSION, Bench, lose, needs

import mqttpipe

PUBACK_1 = b"\x40\x02\x00\x01"


def held(bench, packet):
    """Have `packet` come while there is no room for an answer; return what waits to be sent."""
    bench.server.write_credit = 0
    bench.client.publish("t", bytes(1500))  # its header and it: no room between them
    bench.client.step()
    bench.server.send(packet)
    bench.client.step()
    return bench.client._outbox.pending


def test_a_packet_that_was_held_is_something_that_happened():
    """Else who waits for it, or sleeps in a poll of his own, would sleep on."""
    bench = Bench(packet_bytes_max=2048, keep_alive_s=0).go_online()
    token = bench.client.publish("t", b"one", 1)
    bench.steps()
    held(bench, PUBACK_1)
    bench.server.write_credit = 1 << 20
    for _ in range(5):
        told = bench.take_events()
        happened = bench.client.step()
        if ("published", token) in bench.events:
            break
    assert ("published", token) in bench.events and happened, told


def test_nothing_is_answered_behind_disconnect():
    """[MQTT-3.14.4-2]"""
    bench = Bench(packet_bytes_max=2048, keep_alive_s=0).go_online()
    pending = held(bench, b"\x32\x07\x00\x01t\x00\x05hi")
    bench.client.disconnect()
    bench.server.write_credit = pending  # all but DISCONNECT
    bench.client.step()
    bench.client.step()
    bench.server.write_credit = 1
    bench.client.step()
    bench.server.write_credit = 100
    bench.steps()
    assert bench.server.received()[-2:] == b"\xe0\x00" and bench.client.state_name == "DOWN"


def test_a_packet_that_found_no_memory_is_made_anew():
    """Half of it is that of no message."""
    bench = Bench(packet_bytes_max=2048, clean_session=False, keep_alive_s=0).go_online()
    bench.client.publish(b"plant/a", b"12345", 1)
    bench.steps()
    bench.server.received()
    append = mqttpipe.append_remaining_length

    def no_memory(buf, value):
        mqttpipe.append_remaining_length = append
        raise MemoryError

    mqttpipe.append_remaining_length = no_memory
    bench.client.publish(b"plant/bb", b"6" * 1600, 1)  # larger than the outbox
    bench.steps()
    assert mqttpipe.append_remaining_length is append, "it was not asked for"
    assert type(bench.error()) is mqttpipe.TransportError
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK_SESSION) == (
        b"\x3a\x10\x00\x07plant/a\x00\x0112345"
        + b"\x32\xcc\x0c\x00\x08plant/bb\x00\x02"
        + b"6" * 1600
    )


def with_session(**options):
    """A client with a subscription in a session that the server has kept."""
    bench = Bench(clean_session=False, keep_alive_s=0, **options)
    bench.client.subscribe("cmd/#", None, 1)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.exchange(CONNACK)
    bench.exchange(b"\x90\x03\x00\x01\x01")
    return bench


def test_a_session_that_found_no_memory_to_begin_anew_is_not_believed_in():
    """The server has made one for the CONNACK at which that was, and says so the next time."""
    needs("qos2")
    bench = with_session()
    bench.client.publish("t", b"2", 2)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x02")
    lose(bench)

    pipe = bench.client._pipe
    resume = pipe.resume

    def no_memory(session_present):
        pipe.resume = resume
        raise MemoryError

    pipe.resume = no_memory
    bench.server.send(CONNACK)
    bench.steps()
    assert type(bench.error()) is mqttpipe.TransportError
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK_SESSION) == b"\x82\x0a\xff\x02\x00\x05cmd/#\x01"
    # Not PUBREL, nor with DUP: to this session the message is new.
    assert bench.exchange(b"\x90\x03\xff\x02\x01") == b"\x34\x06\x00\x01t\x00\x022"


def test_after_a_lost_connack_all_is_subscribed_again():
    """The server had lost the session and has made a new one: it says so at the next CONNECT."""
    bench = with_session()
    lose(bench)  # it has come back without the session
    lose(bench)  # and its CONNACK did not arrive
    assert b"\x00\x05cmd/#\x01" in bench.exchange(CONNACK_SESSION)
    assert not bench.client.is_online()
    lose(bench)
    bench.exchange(CONNACK_SESSION)


def test_a_decoder_that_was_interrupted_ends_the_connection():
    """Ctrl-C in the middle of it: where the next packet begins is not known any more."""
    bench = Bench(keep_alive_s=0).go_online()
    bench.server.send(b"\x30\x04\x00\x01th")
    called = bench.server._called
    calls = []

    def interrupted():  # the second read, after the fixed header
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        called()

    bench.server._called = interrupted
    try:
        bench.client.step()
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("Ctrl-C was swallowed")
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TransportError and "interrupted" in str(error), error
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_ctrl_c_in_the_link_does_not_end_all_attempts():
    class Link:
        asked = 0

        def is_up(self):
            self.asked += 1
            if self.asked == 3:
                raise KeyboardInterrupt
            return self.asked > 3

    bench = Bench(link=Link())
    bench.client.connect()
    for _ in range(20):
        try:
            bench.steps()
        except KeyboardInterrupt:
            pass
        bench.clock.advance(300)
    assert len(bench.network.connections) == 1, bench.client.state_name


def test_a_pubrec_from_before_a_reset_is_answered_while_a_subscribe_waits():
    """Even one with the identifier of that: an earlier version gave such to messages."""
    needs("qos2")
    bench = Bench(clean_session=False).go_online(CONNACK_SESSION)
    bench.client.subscribe("x")
    bench.steps()
    assert bench.server.received() == b"\x82\x06\xff\x01\x00\x01x\x00"
    for packet_id in (b"\x00\x01", b"\xff\x01"):
        assert bench.exchange(b"\x50\x02" + packet_id) == b"\x62\x02" + packet_id
        assert bench.exchange(b"\x70\x02" + packet_id) == b""
    assert bench.exchange(b"\x90\x03\xff\x01\x00") == b""
    assert bench.client.is_online() and bench.take_events() == [("subscribed", 1, b"\x00")]


def test_what_on_connect_subscribes_is_in_service_when_on_online_is_told():
    bench = Bench()
    bench.client.on_connect = lambda client, session_present: client.subscribe("x")
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == b"\x82\x06\xff\x01\x00\x01x\x00"
    assert bench.client.state_name == "SUBSCRIBING"
    bench.exchange(b"\x90\x03\xff\x01\x00")
    assert bench.client.is_online()


def test_a_message_cancelled_before_it_is_sent_again_does_not_keep_the_client_away():
    """QoS 2: its PUBRECs and PUBRELs are finished in silence, and have an order, too."""
    needs("qos2", "offline", "hints")
    bench = Bench(packet_bytes_max=64, clean_session=False, keep_alive_s=0).go_online()
    bench.client.publish("t", b"1" * 40, 2)
    token = bench.client.publish("t", b"2" * 40, 2)
    bench.steps()
    lose(bench)
    connection = bench.server
    connection.write_credit = 0
    connection.send(CONNACK_SESSION)
    bench.steps()  # there is room for the first only
    assert bench.client.cancel(token) is True
    connection.write_credit = 1 << 20
    bench.steps()
    first = b"\x3c\x2d\x00\x01t\x00\x01" + b"1" * 40
    assert connection.received() == first + b"\x62\x02\x00\x02"
    lose(bench)
    # (After two short connections one at a time.)
    assert bench.exchange(CONNACK_SESSION) == b"\x62\x02\x00\x02"
    assert bench.exchange(b"\x70\x02\x00\x02") == first
    assert bench.client.is_online()
    assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x02\x00\x01"
    bench.exchange(b"\x70\x02\x00\x01")
    assert bench.client._pipe.head == bench.client._pipe.tail


def test_the_turns_of_pubrecs_begin_anew_without_disorder():
    """[MQTT-4.6.0-4]"""
    needs("qos2")
    bench = Bench(clean_session=False, keep_alive_s=0).go_online()
    pipe = bench.client._pipe
    pipe.last_turn = 0x7FFE
    for _ in range(3):
        bench.client.publish("t", b"", 2)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x02", b"\x50\x02\x00\x01", b"\x50\x02\x00\x03")
    assert pipe.last_turn == 2 and max(pipe.firsts) < 1 << 30, "a small integer of a board"
    lose(bench)
    again = b"\x62\x02\x00\x02\x62\x02\x00\x01\x62\x02\x00\x03"
    assert bench.exchange(CONNACK_SESSION) == again


def test_what_on_connect_publishes_does_not_shift_the_pubrels_that_are_owed():
    needs("qos2", "offline")
    bench = Bench(pipe_slots=4, clean_session=False, keep_alive_s=0).go_online()
    client = bench.client
    for payload, qos in ((b"1", 1), (b"2", 1), (b"3", 2), (b"4", 2)):
        client.publish("t", payload, qos)
    bench.steps()
    # The second is done: a gap. Of the third PUBREC came.
    bench.exchange(b"\x40\x02\x00\x02", b"\x50\x02\x00\x03")
    lose(bench)
    client.on_connect = lambda client, session_present: client.publish("u", b"5", 1)
    assert bench.exchange(CONNACK_SESSION) == (
        b"\x62\x02\x00\x03\x3a\x06\x00\x01t\x00\x011"
        b"\x3c\x06\x00\x01t\x00\x044\x32\x06\x00\x01u\x00\x055"
    )


def test_what_has_left_when_the_time_for_draining_is_up_is_not_sent_again():
    bench = Bench(connect_timeout_ms=500, keep_alive_s=0).go_online()
    bench.server.write_credit = 0
    for payload in (b"one", b"two"):
        bench.client.publish("t", payload)
    bench.client.disconnect()
    bench.steps()
    bench.clock.advance(500)
    bench.server.write_credit = 10  # the first, and a part of the second
    bench.steps()
    bench.clock.advance(500)
    bench.steps()
    assert bench.client.state_name == "DOWN"
    assert bench.server.received() == b"\x30\x06\x00\x01tone\x30\x06"
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == b"\x30\x06\x00\x01ttwo"
