"""The connection: states, deadlines, keep alive, back-off, the end of it."""

from fakes import (
    CONNACK,
    CONNACK_SESSION,
    DISCONNECT,
    ECONNREFUSED,
    ECONNRESET,
    PINGREQ,
    PINGRESP,
    Bench,
    needs,
)

import mqttpipe


def test_connect_sends_connect_and_is_online_after_connack():
    """[MQTT-3.1.0-1] [MQTT-3.1.2-11, -13, -15, -18, -20] [MQTT-3.1.3-3]"""
    bench = Bench(keep_alive_s=60)
    client = bench.client
    client.connect()
    assert client.state_name == "DOWN", "connect() only asks"
    bench.steps()
    assert bench.server.address == ("192.0.2.1", 1883)
    assert client.state_name == "AWAITING_CONNACK"
    assert bench.server.received() == b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"
    assert bench.take_events() == []
    bench.exchange(CONNACK)
    assert client.is_online() and client.state_name == "ONLINE"
    assert bench.take_events() == [("connect", False), ("online",)]


def test_connect_carries_will_user_and_password_in_this_order():
    """[MQTT-3.1.2-9, -19, -21] [MQTT-3.1.3-1, -3]"""
    bench = Bench(
        client_id="id",
        user="me",
        password=b"\x00\xff",
        will=("w/t", "gone", 1, True),
        keep_alive_s=65535,
        clean_session=False,
    )
    bench.client.connect()
    bench.steps()
    assert bench.server.received() == (
        b"\x10\x21\x00\x04MQTT\x04\xec\xff\xff"
        b"\x00\x02id\x00\x03w/t\x00\x04gone\x00\x02me\x00\x02\x00\xff"
    )


def test_a_user_without_password_and_an_empty_one_differ():
    """[MQTT-3.1.2-19, -20, -21]"""
    for options, wire in (
        (dict(user="u"), b"\x10\x10\x00\x04MQTT\x04\x82\x00\x3c\x00\x01c\x00\x01u"),
        (
            dict(user="u", password=b""),
            b"\x10\x12\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01c\x00\x01u\x00\x00",
        ),
        (
            dict(uri="mqtt://u:p@192.0.2.1"),
            b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01c\x00\x01u\x00\x01p",
        ),
        (
            dict(uri="mqtt://u:p@192.0.2.1", user="x"),
            b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01c\x00\x01x\x00\x01p",
        ),
    ):
        bench = Bench(**options)
        bench.client.connect()
        bench.steps()
        assert bench.server.received() == wire, options


def test_small_writes_do_not_wait_for_each_other():
    bench = Bench()
    bench.client.connect()
    bench.steps()
    assert bench.server.options == [(6, 1, 1)], "IPPROTO_TCP, TCP_NODELAY: without Nagle"


def test_connack_byte_by_byte():
    bench = Bench()
    bench.client.connect()
    bench.steps()
    for i in range(4):
        assert not bench.client.is_online(), i
        bench.exchange(CONNACK[i : i + 1])
    assert bench.client.is_online()


def test_a_refusal_is_told_with_its_code_and_tried_again_later():
    """[MQTT-3.2.2-5]"""
    for code in (1, 2, 3, 4, 5, 6):
        bench = Bench()
        bench.client.connect()
        bench.steps()
        bench.exchange(bytes((0x20, 2, 0, code)))
        error = bench.error()
        assert type(error) is mqttpipe.Refused and error.return_code == code
        assert bench.server.is_closed and bench.client.state_name == "WAITING"


def test_connack_that_breaks_the_rules_closes_the_connection():
    """[MQTT-3.2.0-1] [MQTT-3.2.2-1] [MQTT-4.8.0-1]"""
    for wire, part in (
        (b"\x20\x02\x02\x00", "[MQTT-3.2.2-1]"),
        (b"\x20\x02\xff\x00", "[MQTT-3.2.2-1]"),
        (PINGRESP, "[MQTT-3.2.0-1]"),
        (b"\x30\x04\x00\x01tx", "[MQTT-3.2.0-1]"),
    ):
        bench = Bench()
        bench.client.connect()
        bench.steps()
        bench.exchange(wire)
        error = bench.error()
        assert type(error) is mqttpipe.ServerError and part in str(error), error
        assert bench.server.is_closed


def test_another_protocol_in_place_of_connack_is_named_as_what_it_is():
    needs("hints")
    for wire in (
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",  # an alert of TLS
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"AMQP\x00\x00\x09\x01",
    ):
        bench = Bench()
        bench.client.connect()
        bench.steps()
        bench.exchange(wire)
        error = bench.error()
        assert type(error) is mqttpipe.ServerError, wire
        assert str(error).endswith("is 192.0.2.1 port 1883 an MQTT server, without TLS?"), error
    bench = Bench().go_online()
    bench.exchange(b"HTTP/1.1 400 Bad Request")
    assert "without TLS" not in str(bench.error()), "that it is one is known"


def test_a_session_after_a_clean_one_was_asked_for_is_told_and_ignored():
    """[MQTT-3.2.2-1]"""
    bench = Bench()
    bench.client.subscribe("t")
    bench.client.connect()
    for packet_id in (b"\xff\x01", b"\xff\x02"):
        bench.steps()
        bench.server.received()
        asked = b"\x82\x06" + packet_id + b"\x00\x01t\x00"
        assert bench.exchange(CONNACK_SESSION) == asked, "for what a new session lacks"
        (name, error), *rest = bench.take_events()
        assert name == "error" and type(error) is mqttpipe.ServerError
        assert "[MQTT-3.2.2-1]" in str(error) and rest == [("connect", False)]
        bench.server.error = ECONNRESET
        bench.steps()
        bench.take_events()
        bench.clock.advance(60_000)
    bench.steps()
    bench.exchange(b"\x20\x02\x01\x05")  # a refusal is one
    assert type(bench.error()) is mqttpipe.Refused


def test_a_second_connack_closes_the_connection():
    """[MQTT-4.8.0-1]"""
    bench = Bench().go_online()
    bench.exchange(CONNACK)
    assert type(bench.error()) is mqttpipe.ServerError


def test_session_present_reaches_on_connect():
    """[MQTT-3.2.2-2]"""
    bench = Bench(clean_session=False)
    bench.client.connect()
    bench.steps()
    bench.exchange(CONNACK_SESSION)
    assert bench.take_events() == [("connect", True), ("online",)]


def test_each_stage_of_an_attempt_ends_by_one_deadline():
    for stage, is_silent in (("TCP", True), ("CONNACK", False)):
        bench = Bench(connect_timeout_ms=3000)
        bench.network.is_silent = is_silent
        bench.client.connect()
        bench.steps()
        bench.clock.advance(2999)
        bench.steps()
        assert bench.take_events() == []
        bench.clock.advance(1)
        bench.steps()
        error = bench.error()
        assert type(error) is mqttpipe.TimedOut and error.stage == stage, error
        assert bench.server.is_closed and bench.client.state_name == "WAITING"


def test_refused_reset_and_closed_each_name_their_stage():
    bench = Bench()
    bench.network.connect_error = ECONNREFUSED
    bench.client.connect()
    bench.steps()
    error = bench.error()
    assert (type(error), error.stage, error.errno) == (mqttpipe.TransportError, "TCP", 111)
    assert bench.server.is_closed

    bench = Bench()
    bench.client.connect()
    bench.steps()
    bench.server.error = ECONNRESET
    bench.steps()
    error = bench.error()
    assert (error.stage, error.errno) == ("CONNACK", ECONNRESET)

    bench = Bench().go_online()
    bench.server.is_ended = True
    bench.steps()
    error = bench.error()
    assert error.stage == "ONLINE" and "closed by the server" in str(error)


def test_ping_when_nothing_was_sent_for_the_keep_alive():
    """[MQTT-3.1.2-23]"""
    bench = Bench(keep_alive_s=10).go_online()
    bench.clock.advance(9999)
    bench.steps()
    assert bench.server.received() == b""
    bench.clock.advance(1)
    bench.steps()
    assert bench.server.received() == PINGREQ
    bench.exchange(PINGRESP)
    bench.clock.advance(10_000)
    bench.steps()
    assert bench.server.received() == PINGREQ


def test_the_keep_alive_counts_from_the_last_packet_sent():
    """[MQTT-3.1.2-23]"""
    bench = Bench(keep_alive_s=10).go_online()
    bench.clock.advance(6000)
    bench.client.publish("t", b"")
    bench.steps()
    assert bench.server.received() == b"\x30\x03\x00\x01t"
    bench.clock.advance(9999)
    bench.steps()
    assert bench.server.received() == b""
    bench.clock.advance(1)
    bench.steps()
    assert bench.server.received() == PINGREQ


def test_what_the_server_sends_does_not_put_off_the_ping():
    """[MQTT-3.1.2-23]"""
    bench = Bench(keep_alive_s=10).go_online()
    for _ in range(10):
        bench.clock.advance(1000)
        bench.server.send(b"\x30\x03\x00\x01t")
        bench.steps()
    assert bench.server.received() == PINGREQ


def test_a_server_that_says_nothing_is_pinged_though_messages_leave():
    """Into a dead connection one can write for many minutes: at QoS 0 only a PINGREQ shows it."""
    bench = Bench(keep_alive_s=10, connect_timeout_ms=4000).go_online()
    bench.client.on_published = None
    wire = b""
    begin_ms = bench.clock.now_ms
    while bench.client.is_online():
        bench.client.publish("t", b"")
        bench.steps()
        bench.clock.advance(1000)
        bench.steps()
        assert bench.clock.now_ms - begin_ms <= 24_000, wire
        wire += bench.server.received()
    assert wire.count(PINGREQ) == 1, wire
    assert bench.error().stage == "PINGRESP"


def test_a_server_that_says_nothing_is_pinged_however_slow_on_published_is():
    bench = Bench(keep_alive_s=10, connect_timeout_ms=4000).go_online()
    bench.client.on_published = lambda client, token: bench.clock.advance(60)
    begin_ms = bench.clock.now_ms
    while bench.client.is_online():
        bench.client.publish("t", b"")
        bench.steps()
        bench.clock.advance(1000)
        assert bench.clock.now_ms - begin_ms <= 28_000, "no PINGREQ"
    assert bench.error().stage == "PINGRESP"


def test_a_server_that_says_something_needs_no_ping_while_messages_leave():
    """[MQTT-3.1.2-23]"""
    bench = Bench(keep_alive_s=10).go_online()
    for _ in range(50):
        bench.client.publish("t", b"")
        bench.server.send(b"\x30\x03\x00\x01t")
        bench.clock.advance(1000)
        bench.steps()
    assert PINGREQ not in bench.server.received()


def test_a_missing_pingresp_ends_the_connection():
    """[MQTT-3.12.4-1]"""
    bench = Bench(keep_alive_s=10, connect_timeout_ms=4000).go_online()
    bench.clock.advance(10_000)
    bench.steps()
    bench.clock.advance(3999)
    bench.steps()
    assert bench.take_events() == []
    bench.clock.advance(1)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "PINGRESP"


def test_keep_alive_zero_never_pings():
    bench = Bench(keep_alive_s=0).go_online()
    bench.clock.advance(100_000_000)
    bench.steps()
    assert bench.server.received() == b"" and bench.client.is_online()


def test_keep_alive_is_right_across_the_wrap_of_the_clock():
    bench = Bench(keep_alive_s=10, now_ms=0x3FFFFFFF - 4999).go_online()
    bench.clock.advance(9999)
    bench.steps()
    assert bench.server.received() == b""
    bench.clock.advance(1)
    bench.steps()
    assert bench.clock.now_ms == 5000
    assert bench.server.received() == PINGREQ


def test_the_back_off_doubles_up_to_its_maximum_and_is_drawn_at_random():
    bench = Bench(reconnect_min_ms=1000, reconnect_max_ms=6000)
    bench.network.connect_error = ECONNREFUSED
    bench.client.connect()
    for random, wait_ms in (
        (0xFFFF, 2000),  # even the first pause is drawn: 1000 to 2000
        (0xFFFF, 4000),
        (0xFFFF, 6000),
        (0, 1000),
        (0xFFFF, 6000),
        (0x7FFF, 3499),
        (0xFFFF, 6000),
    ):
        bench.random = random
        bench.steps()
        assert len(bench.network.connections) == 1, wait_ms
        bench.network.connections.clear()
        bench.clock.advance(wait_ms - 1)
        bench.steps()
        assert not bench.network.connections, wait_ms
        bench.clock.advance(1)


def test_a_stable_connection_ends_the_back_off():
    bench = Bench(reconnect_min_ms=1000, reconnect_max_ms=60_000)
    bench.network.connect_error = ECONNREFUSED
    bench.client.connect()
    for _ in range(4):
        bench.steps()
        bench.clock.advance(60_000)
    bench.network.connect_error = 0
    bench.go_online()
    bench.clock.advance(10_000)
    bench.steps()
    bench.random = 0xFFFF
    bench.server.is_ended = True
    bench.steps()
    bench.clock.advance(1999)
    bench.steps()
    assert len(bench.network.connections) == 5
    bench.clock.advance(1)
    bench.steps()
    assert len(bench.network.connections) == 6


def test_several_servers_are_tried_in_turn():
    needs("failover")
    bench = Bench(uri=["mqtt://192.0.2.1", "mqtt://192.0.2.2:2"], reconnect_min_ms=0)
    bench.network.connect_error = ECONNREFUSED
    bench.client.connect()
    asked = []
    for _ in range(3):
        bench.client.step()
        asked.append(bench.server.address)
        bench.clock.advance(60_000)
    assert asked == [("192.0.2.1", 1883), ("192.0.2.2", 2), ("192.0.2.1", 1883)]


def test_no_attempt_while_the_link_is_down():
    class Link:
        is_there = False

        def is_up(self):
            return self.is_there

    link = Link()
    bench = Bench(link=link)
    bench.client.connect()
    for _ in range(10):
        bench.steps()
        bench.clock.advance(1000)
    assert not bench.network.connections and bench.client.state_name == "WAITING"
    link.is_there = True
    bench.steps()
    assert len(bench.network.connections) == 1


def test_disconnect_while_nothing_is_attempted_ends_that_in_silence():
    class Link:
        def is_up(self):
            return False

    for link in (None, Link()):
        bench = Bench(link=link)
        bench.network.connect_error = ECONNREFUSED
        bench.client.connect()
        bench.steps()
        if link is None:  # the pause after an attempt that has failed
            assert bench.error().errno == ECONNREFUSED
        assert bench.client.state_name == "WAITING"
        bench.client.disconnect()
        bench.steps()
        assert bench.client.state_name == "DOWN" and bench.take_events() == []


def test_a_link_that_raises_is_told_once_until_it_is_up():
    """It is asked four times a second: a report for each would fill a console, or a log."""

    class Link:
        is_broken = True

        def is_up(self):
            if self.is_broken:
                raise OSError(5, "by the test")
            return True

    link = Link()
    bench = Bench(link=link, reconnect_min_ms=0)
    bench.client.connect()
    for _ in range(2):
        for _ in range(100):
            bench.steps()
            bench.clock.advance(250)
        errors = [event for event in bench.take_events() if event[0] == "error"]
        assert len(errors) == 1, len(errors)
        link.is_broken = False
        bench.steps()
        bench.exchange(CONNACK)
        assert bench.client.is_online()
        bench.take_events()
        link.is_broken = True
        bench.server.error = ECONNRESET
        bench.steps()


def test_disconnect_drains_sends_disconnect_and_closes():
    """[MQTT-3.14.4-1, -2]"""
    bench = Bench().go_online()
    bench.client.publish("t", b"1", qos=1)
    bench.client.publish("t", b"2")
    bench.client.disconnect()
    bench.steps()
    assert bench.client.state_name == "CLOSING"
    assert bench.server.received() == b"\x32\x06\x00\x01t\x00\x011\x30\x04\x00\x01t2"
    assert bench.exchange(b"\x40\x02\x00\x01") == DISCONNECT
    assert bench.server.is_closed and bench.client.state_name == "DOWN"
    assert bench.take_events() == [("published", 2), ("published", 1), ("offline", None)]
    bench.clock.advance(1_000_000)
    bench.steps()
    assert len(bench.network.connections) == 1, "it stays away"


def test_a_reset_behind_disconnect_is_no_error():
    """The server has had DISCONNECT, and may close before we do."""
    said = 0
    for n in range(1, 9):
        bench = Bench().go_online()
        bench.network.fail_at_call = bench.network.calls + n
        bench.client.disconnect()
        bench.steps()
        assert bench.client.state_name == "DOWN" and bench.server.is_closed
        is_said = bench.server.received() == DISCONNECT
        assert (bench.error() is None) == is_said, n
        said += is_said
    assert 0 < said < 8


def test_disconnect_on_a_dead_link_ends_by_the_deadline():
    bench = Bench(connect_timeout_ms=5000).go_online()
    bench.server.write_credit = 0
    bench.client.publish("t", b"1", qos=1)
    bench.client.disconnect()
    bench.steps()
    bench.clock.advance(5000)
    bench.steps()
    assert bench.client.state_name == "DOWN" and bench.server.is_closed


def test_disconnect_at_every_stage_ends_in_down():
    def resolving(bench):
        pass

    def connecting(bench):
        bench.network.is_silent = True
        bench.steps()

    def awaiting(bench):
        bench.steps()

    def waiting(bench):
        bench.network.connect_error = ECONNREFUSED
        bench.steps()

    for stage in (resolving, connecting, awaiting, waiting):
        bench = Bench()
        bench.client.connect()
        stage(bench)
        bench.client.disconnect()
        bench.steps()
        assert bench.client.state_name == "DOWN", stage
        for connection in bench.network.connections:
            assert connection.is_closed
        bench.client.connect()
        bench.network.is_silent = bench.network.connect_error = 0
        bench.steps()
        bench.exchange(CONNACK)
        assert bench.client.is_online(), stage


def test_disconnect_says_so_although_an_acknowledgement_is_overdue():
    """[MQTT-3.1.2-8] Its deadline came first and ended the connection: the will was published."""
    for waited_ms in (0, 5000, 9999):
        bench = Bench(will=("w", "gone", 0, False)).go_online()
        bench.client.publish("t", "x", 1)
        bench.client.subscribe("a")
        bench.exchange()
        bench.clock.advance(waited_ms)
        bench.steps()
        bench.client.disconnect()
        bench.steps()
        for _ in range(10):
            assert bench.client.state_name == "CLOSING", waited_ms
            bench.clock.advance(1000)
            bench.steps()
        assert bench.client.state_name == "DOWN" and bench.server.received() == DISCONNECT
        assert bench.take_events() == [("offline", None)], waited_ms


def test_disconnect_before_connack_says_so_to_a_server_that_may_have_accepted():
    """[MQTT-3.1.2-8] It would publish the will of a board that has gone to sleep."""
    for is_whole in (True, False):
        bench = Bench(will=("w", "gone", 0, False))
        bench.network.is_silent = True
        bench.client.connect()
        bench.steps()
        bench.network.is_silent = False
        if not is_whole:
            bench.server.write_credit = 5
        bench.steps()
        assert len(bench.server.received()) == (24 if is_whole else 5)
        bench.server.write_credit = 100
        bench.client.disconnect()
        bench.steps()
        # Behind half a CONNECT it would be taken for its rest.
        assert bench.server.received() == (DISCONNECT if is_whole else b"")
        assert bench.server.is_closed and bench.client.state_name == "DOWN"


def test_disconnect_says_so_although_pingresp_is_overdue():
    bench = Bench(keep_alive_s=10, connect_timeout_ms=5000).go_online()
    bench.clock.advance(10_000)
    bench.steps()
    bench.server.received()  # PINGREQ
    bench.client.publish("t", "x", 1)
    bench.exchange()
    bench.clock.advance(4000)
    bench.client.disconnect()
    for _ in range(7):
        bench.steps()
        bench.clock.advance(1000)
    assert bench.server.received() == DISCONNECT
    assert bench.take_events() == [("offline", None)]
