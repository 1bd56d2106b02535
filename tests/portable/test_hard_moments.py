"""Two things at once: a full outbox and an answer, a new session and no memory, Ctrl-C."""

import board_heap  # noqa: F401
from fakes import CONNACK, CONNACK_SESSION, ECONNRESET, Bench, needs

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


def test_a_head_that_found_no_memory_is_made_anew():
    """Half of it is that of no message."""
    bench = Bench(clean_session=False, keep_alive_s=0).go_online()
    bench.client.publish(b"plant/a", b"12345", 1)
    bench.steps()
    bench.server.received()
    append = mqttpipe.append_remaining_length

    def no_memory(buf, value):
        mqttpipe.append_remaining_length = append
        raise MemoryError

    mqttpipe.append_remaining_length = no_memory
    bench.client.publish(b"plant/bb", b"67890", 1)
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK_SESSION) == (
        b"\x3a\x10\x00\x07plant/a\x00\x0112345\x32\x11\x00\x08plant/bb\x00\x0267890"
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


def lose(bench):
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    bench.take_events()


def test_a_session_that_found_no_memory_to_begin_anew_is_not_believed_in():
    """The server has made one for the CONNACK at which that was, and says so the next time."""
    needs("qos2")
    bench = with_session()
    bench.client.publish("t", b"2", 2)
    bench.steps()
    bench.exchange(b"\x50\x02\x00\x02")
    lose(bench)

    def no_memory(values):
        del mqttpipe.sorted
        raise MemoryError

    mqttpipe.sorted = no_memory
    bench.server.send(CONNACK)
    bench.steps()
    assert type(bench.error()) is mqttpipe.TransportError
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    sent = bench.exchange(CONNACK_SESSION)
    assert b"cmd/#" in sent and b"\x34\x06\x00\x01t" in sent, sent


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

    def broken():
        if bench:
            raise KeyboardInterrupt
        yield

    generator = broken()
    try:
        generator.send(None)
    except KeyboardInterrupt:
        pass
    bench.client._decoder.on_bytes = generator.send  # its end has come, as after that
    bench.server.send(b"\x30\x04\x00\x01th")
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


def test_a_pubrec_from_before_a_reset_may_have_the_identifier_of_a_subscribe():
    needs("qos2")
    bench = Bench(clean_session=False).go_online(CONNACK_SESSION)
    bench.client.subscribe("x")
    bench.steps()
    assert bench.server.received()[:4] == b"\x82\x06\x00\x01"
    assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x02\x00\x01"
    bench.exchange(b"\x70\x02\x00\x01", b"\x90\x03\x00\x01\x00")
    assert bench.client.is_online()


def test_what_on_connect_subscribes_is_in_service_when_on_online_is_told():
    bench = Bench()
    bench.client.on_connect = lambda client, session_present: client.subscribe("x")
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK)[:4] == b"\x82\x06\x00\x01"
    assert bench.client.state_name == "SUBSCRIBING"
    bench.exchange(b"\x90\x03\x00\x01\x00")
    assert bench.client.is_online()
