"""MQTT 5.0: Ctrl-C at a moment that leaves something behind; it does no harm to what follows."""

from fakes import ECONNRESET, needs, raises
from mqtt5 import CONNACK, CONNACK_SESSION, online

import mqttpipe

PROPERTIES = {"content_type": "secret"}
LARGE = b"y" * 200  # does not take the short way
LARGE_WIRE = b"\x30\xcc\x01\x00\x01b\x00" + LARGE


class Interrupted:
    """The properties of a Pipe: Ctrl-C comes when they are given up the first time."""

    def __init__(self, things):
        self.things = things
        self.is_over = False

    def __len__(self):
        return len(self.things)

    def __getitem__(self, at):
        return self.things[at]

    def __setitem__(self, at, value):
        if value is None and not self.is_over:
            self.is_over = True
            raise KeyboardInterrupt
        self.things[at] = value


class Received:
    """The identifiers of QoS 2 messages: Ctrl-C comes when the second one is noted."""

    def __init__(self, things):
        self.things = things
        self.is_over = False

    def __len__(self):
        return len(self.things)

    def __contains__(self, packet_id):
        return packet_id in self.things

    def append(self, packet_id):
        self.things.append(packet_id)
        if packet_id == 2 and not self.is_over:
            self.is_over = True
            raise KeyboardInterrupt

    def index(self, packet_id):
        return self.things.index(packet_id)

    def remove(self, packet_id):
        self.things.remove(packet_id)


def interrupted(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except KeyboardInterrupt:
        return
    raise AssertionError("not interrupted")


def with_a_message_left_half_way(**options):
    """Ctrl-C has ended publish() when the properties were in the slot."""
    bench = online(**options)
    pipe = bench.client._pipe
    place = pipe.place

    def interrupt(*arguments):
        raise KeyboardInterrupt

    pipe.place = interrupt
    interrupted(bench.client.publish, "a", "x", properties=PROPERTIES)
    pipe.place = place
    raises(mqttpipe.QueueFull, bench.client.publish, "a", "x")
    for _ in range(4):  # step() gives the lock back
        bench.clock.advance(600)
        bench.client.step()
    return bench


def test_a_message_that_never_came_into_the_pipe_leaves_none_to_the_next():
    bench = with_a_message_left_half_way()
    bench.client.publish("b", LARGE)
    bench.steps()
    assert bench.server.received() == LARGE_WIRE


def test_nor_do_they_count_among_the_bytes_of_the_next():
    needs("offline")
    bench = with_a_message_left_half_way(pipe_bytes_max=10)
    bench.client.publish("b", "y" * 9, expiry_s=1)
    bench.steps()
    assert bench.server.received() == b"\x30\x12\x00\x01b\x05\x02\x00\x00\x00\x01" + b"y" * 9


def test_a_message_that_has_left_leaves_none_to_the_next_in_its_slot():
    needs("mqtt5")
    bench = online(pipe_slots=1, reconnect_max_ms=1000)
    bench.server.error = ECONNRESET
    bench.steps()
    pipe = bench.client._pipe
    pipe.properties = Interrupted(pipe.properties)
    bench.client.publish("a", LARGE, properties=PROPERTIES)
    bench.clock.advance(1000)
    bench.steps()
    bench.server.send(CONNACK)
    interrupted(bench.steps)
    assert bench.server.received().endswith(b"\x09\x03\x00\x06secret" + LARGE)
    bench.steps()
    bench.clock.advance(1000)
    bench.steps()
    bench.server.received()
    bench.exchange(CONNACK)
    for _ in range(2):  # slots: one is always empty
        bench.client.publish("b", LARGE)
        bench.steps()
        assert bench.server.received() == LARGE_WIRE


def test_the_receive_maximum_of_the_next_connection_counts_from_0():
    needs("qos2")
    bench = online(
        clean_session=False,
        session_expiry_s=60,
        reconnect_max_ms=1000,
        properties={"receive_maximum": 2},
    )
    bench.client._received = Received(bench.client._received)
    one, two, three = [b"\x34\x06\x00\x01t\x00%c\x00" % n for n in (1, 2, 3)]
    bench.exchange(one)
    bench.server.send(two)
    interrupted(bench.steps)
    bench.steps()
    bench.clock.advance(1000)
    bench.steps()
    bench.server.received()
    bench.exchange(CONNACK_SESSION)
    assert bench.exchange(two, three) == b"\x50\x02\x00\x02\x50\x02\x00\x03"
    assert bench.client.is_online()


def test_ctrl_c_while_a_refused_unsuback_is_handled_leaves_its_filter_to_the_next():
    """The next connection asked with an empty filter, for which the server closes: for ever."""
    bench = online(clean_session=False, session_expiry_s=60, reconnect_max_ms=1000)
    bench.client.subscribe("a")
    bench.exchange()
    bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    bench.client.unsubscribe("a")
    bench.exchange()
    filters = bench.client._filters
    on_answer = filters.on_answer

    def interrupt(*arguments):
        filters.on_answer = on_answer
        raise KeyboardInterrupt

    filters.on_answer = interrupt
    interrupted(bench.exchange, b"\xb0\x04\xff\x02\x00\x83")
    bench.steps()
    bench.clock.advance(1000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK_SESSION) == b"\xa2\x06\xff\x03\x00\x00\x01a"
    bench.exchange(b"\xb0\x04\xff\x03\x00\x83")
    assert bench.client.is_online()
