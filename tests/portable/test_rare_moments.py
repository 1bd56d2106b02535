"""What rarely comes together: a slow callback and a full socket, a writer and an answer, Ctrl-C.

After each of these moments all messages move on, no deadline ends a healthy connection, and
nothing is delivered twice.
"""

import board_heap  # noqa: F401
from fakes import (
    CONNACK_SESSION,
    ECONNREFUSED,
    ECONNRESET,
    PINGRESP,
    Bench,
    needs,
    offline,
)

import mqttpipe

PUBREL_7 = b"\x62\x02\x00\x07"
PUBCOMP_7 = b"\x70\x02\x00\x07"
DOWN = 60_000


class Few:
    """As much of a list as the client asks of one. (MicroPython's can't be derived from.)"""

    def __init__(self):
        self.things = []

    def __len__(self):
        return len(self.things)

    def append(self, thing):
        self.things.append(thing)

    def pop(self, *at):
        return self.things.pop(*at)


def ended(bench):
    return [event for event in bench.take_events() if event[0] == "offline"]


def on_lwip(test):
    def run():
        before = mqttpipe._linger_ms
        mqttpipe._linger_ms = 10_500
        try:
            test()
        finally:
            mqttpipe._linger_ms = before

    return run


def test_more_than_a_step_writes_leave_without_a_push():
    """32 writes are enough for a step; the next one goes on by itself."""
    needs("offline")
    for qos in (0, 1):
        for is_told in (False, True):
            bench = Bench(
                pipe_slots=45, packet_bytes_max=64, in_flight_max=100, pipe_bytes_max=4096
            ).go_online()
            if not is_told:
                bench.client.on_published = None
            for _ in range(45):
                bench.client.publish("t", b"x" * 50, qos)
            bench.steps()
            assert bench.server.received().count(b"x" * 50) == 45, (qos, is_told)


def test_a_full_queue_lets_no_answer_between_a_header_and_its_payload():
    needs("asyncio")
    needs("qos2")
    bench = Bench(packet_bytes_max=2048).go_online()
    bench.client._full.append(bench)
    bench.server.write_credit = 0
    bench.client.publish("big", b"P" * 1500)
    bench.steps()
    bench.server.send(PUBREL_7)
    bench.steps()
    bench.server.write_credit = 1 << 20
    bench.steps()
    data = bench.server.received()
    assert data == b"\x30\xe1\x0b\x00\x03big" + b"P" * 1500 + PUBCOMP_7
    bench.client._full.clear()


def test_what_a_slow_callback_has_flushed_waits_for_nothing():
    bench = Bench(keep_alive_s=0).go_online()

    def told(client, token):
        bench.clock.advance(60)
        bench.server.write_credit = 1 << 20

    bench.client.on_published = told
    bench.client.publish("t", "aaaa")
    bench.client.publish("t", "bbbb")
    bench.server.write_credit = 13
    bench.steps()
    bench.clock.advance(10_001)
    bench.steps()
    bench.steps()
    assert ended(bench) == []


def test_a_ping_that_left_with_messages_is_answered_once():
    bench = Bench(keep_alive_s=1).go_online()
    count = [0]

    def told(client, token):
        count[0] += 1
        if count[0] == 1:  # slow, and the socket is full for a moment
            bench.clock.advance(1100)
            bench.server.write_credit = 0
        if count[0] == 2:
            bench.server.write_credit = 1 << 20
            client.publish("t", "c")

    bench.client.on_published = told
    bench.client.publish("t", "a")
    bench.client.publish("t", "b")
    bench.steps()
    bench.exchange(PINGRESP)
    bench.clock.advance(500)
    bench.client.publish("t", "d")
    bench.steps()
    for _ in range(30):
        bench.clock.advance(500)
        bench.steps()
        for _ in range(bench.server.received().count(b"\xc0\x00")):
            bench.exchange(PINGRESP)
    assert ended(bench) == []


@on_lwip
def test_writes_that_are_held_back_have_no_deadline_of_their_own():
    bench = Bench(packet_bytes_max=2048, keep_alive_s=60).go_online()
    for _ in range(13):
        bench.client.publish("t", "m")
        bench.steps()
    bench.clock.advance(5000)
    bench.server.write_credit = 0
    bench.client.publish("t", "y" * 100)
    for _ in range(30):
        bench.client.step()
    bench.server.write_credit = 1 << 20
    bench.server.send(b"\x30\xe8\x07\x00\x01t")  # PINGRESP stands behind it
    for _ in range(12):
        bench.clock.advance(1000)
        bench.server.send(b"z" * 10)
        bench.steps()
    assert ended(bench) == []


@on_lwip
def test_disconnect_waits_for_no_proof():
    bench = Bench(pipe_slots=40).go_online()
    for _ in range(24):
        bench.client.publish("t", "m")
        bench.steps()
    bench.server.received()
    bench.client.disconnect()
    bench.steps()
    bench.server.send(PINGRESP)
    bench.steps()
    assert bench.client.state_name == "DOWN" and bench.server.received().endswith(b"\xe0\x00")


def test_ctrl_c_in_another_message_forgets_no_qos_2_message():
    """[MQTT-4.3.3-1] Only that one comes again which no callback has had."""
    needs("qos2")
    bench = Bench(clean_session=False)

    class Received(Few):
        is_interrupted = False

        def append(self, packet_id):
            self.things.append(packet_id)
            if self.is_interrupted:
                self.is_interrupted = False
                raise KeyboardInterrupt

        def __contains__(self, packet_id):
            return packet_id in self.things

        def remove(self, packet_id):
            self.things.remove(packet_id)

    received = bench.client._received = Received()
    bench.go_online(CONNACK_SESSION)
    bench.exchange(b"\x34\x06\x00\x01t\x00\x05Z")
    assert [event[2] for event in bench.take_events() if event[0] == "message"] == [b"Z"]
    received.is_interrupted = True
    bench.server.send(b"\x34\x06\x00\x01t\x00\x06Y")
    try:
        bench.steps()
        raise AssertionError("not interrupted")
    except KeyboardInterrupt:
        pass
    bench.steps()
    bench.clock.advance(DOWN)
    bench.steps()
    bench.server.received()
    bench.server.send(CONNACK_SESSION)
    bench.steps()
    bench.exchange(b"\x3c\x06\x00\x01t\x00\x05Z\x3c\x06\x00\x01t\x00\x06Y")
    assert [event[2] for event in bench.take_events() if event[0] == "message"] == [b"Y"]


def test_a_puback_beside_cancel_is_taken_behind_it():
    """So the message has one end, which is told once, and its slot is free."""
    needs("offline")
    bench = offline(pipe_slots=4)
    bench.go_online()
    for number in range(3):
        bench.client.publish("t", b"m%d" % number, 1)
    bench.steps()

    class Dropped(Few):
        def append(self, token):  # here another thread is in step()
            bench.server.send(b"\x40\x02\x00\x02")
            bench.client.step()
            bench.client.step()
            self.things.append(token)

    bench.client._pipe.dropped = Dropped()
    assert bench.client.cancel(2)
    bench.steps()
    assert [event for event in bench.take_events() if event[1] == 2] == [("dropped", 2)]
    bench.exchange(b"\x40\x02\x00\x01", b"\x40\x02\x00\x03")
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(DOWN)
    bench.take_events()
    bench.go_online()
    for number in range(8):  # all slots serve again
        bench.client.publish("t", b"n%d" % number)
        bench.steps()
    assert bench.client.is_online() and bench.server.received().count(b"tn") == 8


def test_a_message_of_an_interrupt_that_finds_no_room_lets_step_sleep():
    needs("isr")
    bench = Bench(pipe_slots=2)
    bench.network.connect_error = ECONNREFUSED
    bench.client.connect()
    for number in range(2):
        bench.client.publish("t", b"m%d" % number)
    bench.client.publish_isr(b"t", b"of an interrupt")
    for _ in range(20):
        bench.client.step(1000)
    begin_ms = bench.clock.now_ms
    for _ in range(20):
        bench.client.step(1000)
    assert bench.clock.now_ms - begin_ms >= 5000
    bench.network.connect_error = 0
    bench.clock.advance(DOWN)
    bench.client.step()
    bench.steps()
    bench.server.received()
    bench.server.send(b"\x20\x02\x00\x00")
    bench.steps()
    assert b"of an interrupt" in bench.server.received()


def test_step_sleeps_while_disconnect_is_stuck():
    bench = Bench().go_online()
    bench.server.write_credit = 0
    bench.client.disconnect()
    for _ in range(5):
        bench.client.step()
    bench.server.send(b"\x30\x04\x00\x01tq")  # nothing of it is read any more
    for _ in range(5):
        bench.client.step()
    assert not bench.client._watch() & bench.select.POLLIN
    bench.select.slept.clear()
    bench.client.step(1000)
    assert bench.select.slept == [1000]


@on_lwip
def test_what_is_held_back_does_not_hold_up_the_answer_that_frees_it():
    """PINGRESP stands behind a message that is held, for want of room to acknowledge it."""
    bench = Bench(packet_bytes_max=2048).go_online()
    for _ in range(17):  # as many writes as may leave before PINGRESP has come
        bench.client.publish("t", "m")
        bench.steps()
    assert bench.server.received().count(b"\xc0\x00") == 1
    token = bench.client.publish("t", "L" * 2000, 1)
    for _ in range(5):
        bench.client.step()
    bench.server.send(b"\x32\x06\x00\x01t\x00\x05x" + PINGRESP)
    for _ in range(20):
        bench.clock.advance(300)
        bench.client.step()
    assert bench.client.is_online(), bench.take_events()
    wire = bench.server.received()
    assert b"\x40\x02\x00\x05" in wire and b"L" * 2000 in wire and not bench.client._is_held
    bench.exchange(b"\x40\x02" + bytes((0, token)))
    assert bench.client.is_done(token)


@on_lwip
def test_connect_waits_for_no_memory_behind_a_run_that_was_cancelled():
    """Its disconnect() drains nothing, so nothing says that the connection is dead."""
    needs("asyncio")
    bench = Bench().go_online()
    client = bench.client
    client.publish(b"t", b"x", qos=1)
    bench.steps()
    client._quit()
    client._is_stopping = False  # as the next run() does
    assert client.state_name == "DOWN" and len(bench.network.connections) == 1
    client.connect()
    bench.steps()
    assert len(bench.network.connections) == 2
