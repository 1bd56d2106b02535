"""The connection, continued: sleeping, coming back, several servers, and callers who are late."""

import board_heap  # noqa: F401
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
    raises,
)

import mqttpipe


def test_connect_again_after_disconnect_while_it_drains():
    bench = Bench().go_online()
    bench.client.disconnect()
    bench.client.publish("t", b"1", qos=1)
    bench.steps()
    bench.client.connect()
    bench.exchange(b"\x40\x02\x00\x01")
    bench.exchange(CONNACK)
    assert bench.client.is_online() and len(bench.network.connections) == 2


def test_every_io_call_may_fail_and_the_client_comes_back():
    """A reset at call n of a whole session, for every n: it recovers and delivers."""
    fail_at = 0
    while True:
        fail_at += 1
        bench = Bench(reconnect_min_ms=0)
        bench.network.fail_at_call = fail_at
        client = bench.client
        client.subscribe("t")
        token = client.publish("t", b"1", qos=1)
        client.connect()
        failures = 0
        for _ in range(60):
            client.step()
            bench.clock.advance(20)
            failures += sum(1 for event in bench.take_events() if event[0] == "offline")
            if not bench.network.connections or bench.server.is_closed:
                continue
            if bench.server.error:
                continue
            data = bench.server.received()
            if b"MQTT" in data:
                bench.server.send(CONNACK)
            if b"\x00\x01t\x00" in data and b"\x82" in data:
                at = data.index(b"\x82")
                bench.server.send(b"\x90\x03" + data[at + 2 : at + 4] + b"\x00")
            if b"\x32" in data or b"\x3a" in data:
                at = data.index(b"\x32" if b"\x32" in data else b"\x3a")
                bench.server.send(b"\x40\x02" + data[at + 5 : at + 7])
            if client.is_online() and client.is_done(token):
                break
        assert client.is_online() and client.is_done(token), fail_at
        open_count = sum(1 for connection in bench.network.connections if not connection.is_closed)
        assert open_count == 1, "a socket was leaked"
        if not failures:
            break
    assert fail_at > 5, fail_at


def test_ctrl_c_at_every_look_at_the_clock_is_found_back_from():
    """Wherever the client itself was: the next step() ends that connection and begins another."""
    look = 0
    while interrupt_at(look + 1):
        look += 1
    assert look > 10, look


# Ctrl-C at this look at the clock of a short session. False: there was none.
def interrupt_at(number):
    bench = Bench(reconnect_min_ms=0, clean_session=False)
    client = bench.client
    looks = [0]

    def ticks_ms():
        looks[0] += 1
        if looks[0] == number and turn < 60:  # then there is time to come back
            raise KeyboardInterrupt
        return bench.clock.now_ms

    mqttpipe.ticks_ms = ticks_ms
    turn = interrupted_looks = 0
    client.connect()
    token = client.publish("t", b"1", 1)
    interrupted = 0
    accepted = 0
    for turn in range(120):
        if turn == 60:
            interrupted_looks = looks[0]
        try:
            client.step()
        except KeyboardInterrupt:
            interrupted += 1
        bench.clock.advance(50)
        if not bench.network.connections or bench.server.is_closed:
            continue
        data = bench.server.received()
        if b"MQTT" in data:
            bench.server.send(CONNACK_SESSION if accepted else CONNACK)
            accepted += 1
        if b"\x00\x01t\x00\x011" in data:
            bench.server.send(b"\x40\x02\x00\x01")
    assert client.is_online() and client.is_done(token), (number, client.state_name)
    open_count = sum(1 for connection in bench.network.connections if not connection.is_closed)
    assert open_count == 1 and interrupted == (number <= interrupted_looks), number
    return interrupted


def test_step_inside_a_callback_is_refused():
    bench = Bench()
    seen = []
    bench.client.on_connect = lambda client, present: seen.append(
        raises(mqttpipe.LocalError, client.step)
    )
    bench.client.connect()
    bench.steps()
    bench.exchange(CONNACK)
    assert len(seen) == 1 and "callback" in seen[0] and bench.client.is_online()


def test_wait_online_sleeps_in_poll_until_its_deadline():
    bench = Bench()
    bench.network.is_silent = True
    bench.client.connect()
    start = bench.clock.now_ms
    assert bench.client.wait_online(2500) is False
    assert bench.clock.now_ms - start == 2500
    assert sum(bench.select.slept) == 2500 and len(bench.select.slept) <= 3


def test_a_sleep_ends_at_the_next_deadline():
    bench = Bench(keep_alive_s=10).go_online()
    bench.client.step(60_000)
    assert bench.select.slept[-1] == 10_000
    assert bench.server.received() == PINGREQ


def test_the_preferred_server_is_returned_to():
    needs("failover")
    bench = Bench(uri=["mqtt://192.0.2.1", "mqtt://192.0.2.2"], reconnect_min_ms=1000)
    bench.network.connect_error = ECONNREFUSED
    bench.client.connect()
    bench.client.step()
    bench.network.connect_error = 0
    bench.steps()
    assert bench.server.address == ("192.0.2.2", 1883), "the second follows at once"
    bench.exchange(CONNACK)
    assert bench.client.is_online()
    bench.server.is_ended = True
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    assert bench.server.address == ("192.0.2.1", 1883)


def test_being_thrown_out_again_and_again_names_the_likely_reason():
    """[MQTT-3.1.4-2]"""
    needs("hints")
    bench = Bench(client_id="twin", reconnect_min_ms=0)
    bench.client.connect()
    texts = []
    for _ in range(4):
        bench.steps()
        bench.exchange(CONNACK)
        bench.clock.advance(500)
        bench.server.is_ended = True
        bench.client.step()
        texts += [str(event[1]) for event in bench.take_events() if event[0] == "offline"]
    assert "client_id" not in texts[1]
    assert "client_id b'twin'" in texts[2] and "3 times" in texts[2], texts
    bench.steps()
    bench.exchange(CONNACK)
    bench.clock.advance(20_000)
    bench.server.is_ended = True
    bench.client.step()
    assert "client_id" not in str(bench.take_events()[-1][1]), "a long connection clears it"


def test_a_link_that_raises_is_down_and_the_reason_is_told():
    class Link:
        def is_up(self):
            raise ValueError("no interface")

    bench = Bench(link=Link())
    bench.client.connect()
    bench.steps()
    ((name, error),) = bench.take_events()
    assert name == "error" and type(error) is ValueError
    assert bench.client.state_name == "WAITING" and not bench.network.connections


def test_without_room_to_answer_the_poll_does_not_ask_for_more_to_read():
    bench = Bench(packet_bytes_max=64).go_online()
    bench.server.write_credit = 0
    for _ in range(40):
        bench.server.send(b"\x32\x06\x00\x01t\x00\x01x")
    bench.steps()
    bench.client.step(100)
    assert bench.select.watched[id(bench.server)] == bench.select.POLLOUT
    bench.server.write_credit = 1 << 20
    bench.steps()
    bench.client.step(100)
    assert bench.select.watched[id(bench.server)] == bench.select.POLLIN


def test_want_of_memory_lengthens_no_pause():
    """It is no server's fault: the client is back soon after there is memory."""
    bench = Bench(reconnect_min_ms=20, reconnect_max_ms=60_000)
    bench.random = 0xFFFF  # the longest

    def no_memory(*arguments):
        raise MemoryError

    make = bench.network.socket
    bench.network.socket = no_memory
    bench.client.connect()
    for _ in range(20):
        bench.steps()
        assert bench.client.next_deadline_ms() <= 50
        bench.clock.advance(50)
    bench.network.socket = make
    bench.go_online()


def test_without_a_least_pause_the_back_off_grows_all_the_same():
    bench = Bench(reconnect_min_ms=0, reconnect_max_ms=60_000)
    bench.random = 0xFFFF
    bench.network.connect_error = ECONNREFUSED
    bench.client.connect()
    for _ in range(10):
        bench.steps()
        bench.clock.advance(60_000)
    attempts = len(bench.network.connections)
    bench.steps()
    bench.clock.advance(40_000)
    bench.steps()
    assert len(bench.network.connections) - attempts == 1, "one more, not thousands"


def test_disconnect_while_waiting_tells_nothing_new():
    bench = Bench()
    bench.network.connect_error = ECONNREFUSED
    bench.client.connect()
    bench.steps()
    assert len(bench.take_events()) == 1
    bench.client.disconnect()
    bench.steps()
    assert bench.client.state_name == "DOWN" and bench.take_events() == []


def test_ctrl_c_in_a_callback_leaves_the_stream_in_step():
    bench = Bench().go_online()

    def on_message(client, message):
        bench.client.on_message = bench.on_message
        raise KeyboardInterrupt

    bench.client.on_message = on_message
    bench.server.send(b"\x30\x05\x00\x01tab\xd0\x00\x30\x05\x00\x01tcd")
    try:
        bench.steps()
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("Ctrl-C was swallowed")
    assert bench.exchange(b"\x30\x05\x00\x01tef") == b""
    assert bench.take_events() == [("message", "t", b"cd", 0), ("message", "t", b"ef", 0)]


def test_the_session_of_one_server_is_not_resumed_at_another():
    needs("failover")
    bench = Bench(
        uri=["mqtt://192.0.2.1", "mqtt://192.0.2.2"], clean_session=False, reconnect_min_ms=0
    ).go_online()
    bench.client.publish("t", b"1", qos=1)
    bench.steps()
    bench.server.is_ended = True
    bench.steps()
    assert bench.server.address == ("192.0.2.2", 1883), "the first did not last"
    bench.server.received()
    # It has a session for this client_id, from another time: this message is new to it.
    assert bench.exchange(CONNACK_SESSION) == b"\x32\x06\x00\x01t\x00\x011"


def test_stats_count_what_happened():
    needs("qos2", "stats")
    bench = Bench(keep_alive_s=10, reconnect_min_ms=0, clean_session=False).go_online()
    client = bench.client
    client.publish("t", b"0")
    client.publish("t", b"1", qos=1)
    bench.steps()
    bench.server.error = ECONNRESET
    bench.steps()
    bench.exchange(CONNACK_SESSION)
    bench.exchange(b"\x40\x02\x00\x02", b"\x3c\x06\x00\x01t\x00\x07x" * 2)
    bench.exchange(b"\x40\x02\x00\x02", b"\xb0\x02\xff\x01")  # nothing waits for them
    bench.clock.advance(10_000)
    bench.steps()
    bench.clock.advance(25)
    bench.exchange(PINGRESP)
    stats = client.stats
    expected = dict(
        attempts=2,
        connections=2,
        reconnections=1,
        queued=2,
        sent=2,
        retransmitted=1,
        acknowledged=1,
        dropped=0,
        expired=0,
        received=1,
        too_large=0,
        duplicates_received=2,
        duplicates_suppressed=1,
        ignored=2,
        ping_ms=25,
        packets_sent=8,  # CONNECT, 2 PUBLISH; CONNECT, PUBLISH, 2 PUBREC, PINGREQ
        packets_received=8,
        bytes_sent=15 + 6 + 8 + 15 + 8 + 8 + 2,
        bytes_received=4 + 4 + 4 + 16 + 4 + 4 + 2,
    )
    for name, value in stats.items():
        assert expected[name] == value, (name, value)
    assert len(stats) == len(expected)


def test_a_server_that_accepts_and_closes_is_left_for_the_next():
    needs("failover")
    bench = Bench(uri=["mqtt://192.0.2.1", "mqtt://192.0.2.2"], reconnect_min_ms=0).go_online()
    addresses = []
    for _ in range(3):
        addresses.append(bench.server.address[0])
        bench.server.is_ended = True
        bench.steps()
        bench.exchange(CONNACK)
    assert addresses == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]


def test_a_stream_without_a_pause_does_not_look_like_half_a_packet():
    bench = Bench(keep_alive_s=0).go_online()
    for _ in range(400):
        while len(bench.server.to_client) < 1000:
            bench.server.send(b"\x30\x05\x00\x01a12")
        bench.clock.advance(50)
        bench.client.step()
        bench.events.clear()
    assert bench.client.is_online()


def test_an_answer_that_is_there_counts_however_late_step_is_called():
    """A long callback or a slow sensor: the caller was away for longer than the deadline."""
    bench = Bench(connect_timeout_ms=5000, keep_alive_s=4)
    bench.client.connect()
    bench.client.step()
    bench.server.send(CONNACK)
    bench.clock.advance(11_000)
    bench.steps()
    assert bench.client.is_online()
    token = bench.client.publish("t", b"", qos=1)
    bench.client.step()
    bench.server.send(b"\x40\x02\x00\x01")
    bench.clock.advance(11_000)
    bench.steps()
    assert bench.client.is_done(token) and bench.client.is_online()
    assert bench.server.received().endswith(PINGREQ)
    bench.server.send(PINGRESP)
    bench.clock.advance(11_000)
    bench.steps()
    assert bench.client.is_online()


def test_disconnect_waits_for_room_for_its_packet():
    bench = Bench().go_online()
    bench.server.write_credit = 1
    bench.client.disconnect()
    bench.steps()
    assert bench.client.state_name == "CLOSING" and not bench.server.is_closed
    bench.client.publish("t", b"late")
    bench.server.send(b"\x32\x05\x00\x01t\x00\x01")
    bench.server.write_credit = 100
    bench.steps()
    assert bench.server.received() == DISCONNECT, "and nothing after it [MQTT-3.14.4-2]"
    assert bench.client.state_name == "DOWN" and bench.server.is_closed


def test_what_we_send_ourselves_does_not_put_off_the_judgement_of_a_silent_server():
    """A message in every step: the server reads them all and answers nothing."""
    for qos, stage in ((1, "ACK"), (0, "PINGRESP")):
        # (The slots behind the message that is not acknowledged are not free again.)
        bench = Bench(connect_timeout_ms=5000, keep_alive_s=1, pipe_slots=100).go_online()
        bench.client.publish("t", b"", qos=qos)
        for i in range(300):
            bench.clock.advance(100)
            if i > 15:  # silent for longer than the keep alive before
                bench.client.publish("t", b"")
            bench.client.step()
            bench.server.received()
            if bench.client.state_name != "ONLINE":
                break
        errors = [event[1] for event in bench.take_events() if event[0] == "offline"]
        assert errors and errors[0].stage == stage, (qos, errors)
        assert i < 80, i


def test_a_caller_who_is_always_late_gets_connected_all_the_same():
    bench = Bench(connect_timeout_ms=5000)
    bench.network.is_silent = True
    bench.client.connect()
    bench.client.step()
    bench.network.is_silent = False  # the connection stands while the caller is away
    for packet in (b"", CONNACK):
        bench.clock.advance(11_000)
        bench.server.send(packet)
        bench.client.step()
    bench.steps()
    assert bench.client.is_online() and len(bench.network.connections) == 1
