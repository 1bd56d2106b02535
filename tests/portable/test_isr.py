"""publish_isr(): a message from an interrupt, which may allocate nothing and wait for nothing."""

from fakes import ECONNRESET, Bench, needs

import micropython
from mqttpipe import LocalError

ROOM = 16
PUBLISH = b"\x30\x04\x00\x01tx"


def online(**options):
    needs("isr")
    return Bench(**options).go_online()


def test_it_is_published_by_the_next_step():
    bench = online()
    assert bench.client.publish_isr(b"t", b"x") is True
    assert bench.server.received() == b"", "not by the interrupt itself"
    bench.steps()
    assert bench.server.received() == PUBLISH


def test_it_allocates_nothing_and_says_true_or_false():
    bench = online()
    client, topic, payload = bench.client, b"t", b"x"
    publish_isr = client.publish_isr
    answers = [None] * (ROOM + 2)
    micropython.heap_lock()
    try:
        for at in range(ROOM + 2):
            answers[at] = publish_isr(topic, payload)
    finally:
        micropython.heap_unlock()
    assert answers == [True] * (ROOM - 1) + [False] * 3, answers
    assert client.isr_dropped == 3
    bench.steps()
    assert bench.server.received() == PUBLISH * (ROOM - 1)


def test_a_step_does_not_wait_for_a_call_that_was_interrupted():
    """publish() that Ctrl-C has ended holds the lock for a second; what comes of it then goes."""
    bench = online()
    client = bench.client
    assert client._pipe._acquire(False)
    waits = []
    client._pipe.wait_for_lock = lambda *arguments: waits.append(arguments)
    client.publish_isr(b"t", b"x")
    bench.steps()
    assert waits == [] and bench.server.received() == b""
    client._pipe._release()
    bench.steps()
    assert bench.server.received() == PUBLISH


def test_it_wakes_who_sleeps():
    bench = online()
    assert bench.client.next_deadline_ms() != 0
    bench.client.publish_isr(b"t", b"x")
    assert bench.client.next_deadline_ms() == 0


def test_the_order_is_kept_round_and_round():
    bench = online()
    payloads = [b"%d" % number for number in range(10)]
    for first in range(0, 200, 10):
        for payload in payloads:
            assert bench.client.publish_isr(b"t", payload), first
        bench.steps()
        sent = bench.server.received()
        assert sent == b"".join(b"\x30\x04\x00\x01t" + payload for payload in payloads), sent
    assert not bench.client.isr_dropped


def test_qos_1_and_2_are_kept_until_they_are_acknowledged():
    needs("qos2")
    bench = online()
    assert bench.client.publish_isr(b"t", b"x", 1) and bench.client.publish_isr(b"t", b"y", 2)
    bench.steps()
    assert bench.server.received() == b"\x32\x06\x00\x01t\x00\x01x\x34\x06\x00\x01t\x00\x02y"
    assert bench.exchange(b"\x40\x02\x00\x01", b"\x50\x02\x00\x02") == b"\x62\x02\x00\x02"
    bench.exchange(b"\x70\x02\x00\x02")
    assert len(bench.take_events()) == 2


def test_what_is_wrong_with_it_is_told_by_step():
    bench = online()
    for topic, payload, qos in (
        (b"a/#", b"x", 0),
        (b"", b"x", 0),
        (b"t", b"x" * 2000, 0),
        (b"t", b"x", 3),
    ):
        assert bench.client.publish_isr(topic, payload, qos)
    assert bench.client.publish_isr(b"t", b"x")
    bench.steps()
    *errors, published = bench.take_events()
    assert published[0] == "published"
    assert [name for name, _ in errors] == ["error"] * 4, errors
    assert all(type(error) is LocalError for _, error in errors), errors
    assert bench.server.received() == PUBLISH, "the good one is published"


def test_what_finds_the_pipe_full_stays_and_goes_later():
    bench = online(pipe_slots=3, in_flight_max=1)
    bench.client.publish("t", "0", 1)
    bench.steps()
    assert bench.client.publish("t", "1", 1) and bench.client.publish("t", "2", 1)
    for payload in (b"3", b"4"):
        assert bench.client.publish_isr(b"t", payload, 1)
    bench.server.received()
    for packet_id in range(1, 6):
        bench.server.send(bytes((0x40, 2, 0, packet_id)))
        bench.steps()
    sent = bench.server.received()
    assert [sent[at] for at in range(7, len(sent), 8)] == [0x31, 0x32, 0x33, 0x34], sent
    assert not bench.client.isr_dropped


def test_while_offline_it_waits_for_the_connection():
    needs("isr")
    bench = Bench()
    assert bench.client.publish_isr(b"t", b"x")
    bench.go_online()
    assert bench.server.received() == PUBLISH
    bench.server.error = ECONNRESET
    bench.steps()
    assert bench.client.publish_isr(b"t", b"x")
    bench.client.disconnect()


def test_an_interrupt_inside_an_interrupt_is_counted_and_breaks_nothing():
    bench = online()
    client = bench.client
    ring = client._isr_ring
    client._isr_ring = InterruptedRing(ring, client)
    assert client.publish_isr(b"t", b"x") is True
    assert client._isr_ring.answers == [False]
    client._isr_ring = ring
    assert client.isr_dropped == 1
    bench.steps()
    assert bench.server.received() == PUBLISH


class InterruptedRing:
    """The ring of the interrupts; another one comes in the middle of the first."""

    def __init__(self, ring, client):
        self.ring = ring
        self.client = client
        self.answers = []

    def __setitem__(self, at, value):
        if not self.answers:
            self.answers.append(None)
            self.answers[0] = self.client.publish_isr(b"t", b"inner")
        self.ring[at] = value


def test_what_finds_no_memory_stays_for_the_next_step():
    bench = online()
    publish, failed = bench.client.publish, []

    def fail_once(*message):
        if not failed:
            failed.append(message)
            raise MemoryError
        return publish(*message)

    bench.client.publish = fail_once
    bench.client.publish_isr(b"t", b"x")
    bench.client.step()
    bench.client.publish("u", b"y")
    bench.steps()
    sent = bench.server.received()
    assert failed and PUBLISH in sent and b"\x30\x04\x00\x01uy" in sent, sent


def test_a_step_makes_room_for_one_message_of_interrupts():
    """With 1000 slots each looks through all: fifteen took 190 ms."""
    needs("isr", "offline")
    bench = Bench(pipe_slots=20, offline="drop_oldest")
    dropped = []
    bench.client.on_dropped = lambda client, token: dropped.append(token)
    for _ in range(18):
        bench.client.publish("t", b"old")
    for n in range(5):
        assert bench.client.publish_isr(b"t", b"%d" % n)
    counts = []
    while bench.client.step():
        counts.append(len(dropped))
    assert counts == [1, 2, 3], counts
