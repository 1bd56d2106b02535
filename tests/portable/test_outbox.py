"""The outbox: bytes leave in order, once, whatever the socket takes at a time."""

from fakes import raises

import mqttpipe


class Sink:
    """A stream that takes `each` bytes a call and at most `credit` in all."""

    def __init__(self, each=1000, credit=1000000):
        self.data = b""
        self.each = each
        self.credit = credit

    def write(self, buf, offset, count):
        count = min(count, self.each, self.credit)
        self.credit -= count
        self.data += bytes(buf[offset : offset + count])
        return count or None


def put(outbox, first_byte, topic, payload, packet_id):
    """As step() does it. False: not now."""
    message = first_byte, topic, payload, len(topic) + len(payload), packet_id
    return outbox.put_publish(*message) or outbox.put_publish(*message)


def test_small_packets_leave_in_one_write():
    outbox = mqttpipe.Outbox(64)
    assert put(outbox, 0x30, b"a/b", b"hi", 0)
    outbox.put_ack(0x40, 0x1234)
    outbox.put_packet(b"\xc0\x00")
    sink = Sink()
    assert outbox.flush(sink.write) == 15
    assert sink.data == b"\x30\x07\x00\x03a/bhi\x40\x02\x12\x34\xc0\x00"
    assert not outbox.pending and outbox.room == 64


def test_a_publish_that_does_not_fit_now_waits_and_changes_nothing():
    outbox = mqttpipe.Outbox(32)
    assert put(outbox, 0x30, b"t", b"x" * 10, 0)
    assert not put(outbox, 0x32, b"t", b"y" * 15, 7)
    assert outbox.pending == 15
    outbox.flush(Sink().write)
    assert put(outbox, 0x32, b"t", b"y" * 15, 7)


def test_a_large_payload_is_written_from_where_it_lies():
    outbox = mqttpipe.Outbox(32)
    payload = b"0123456789" * 10
    outbox.put_ack(0x40, 1)
    assert put(outbox, 0x32, b"t", payload, 0x0102)
    assert outbox.tail is payload
    assert outbox.room == 0, "a packet put now would leave before the payload"
    assert not put(outbox, 0x30, b"t", payload, 0)
    sink = Sink(each=7)
    while outbox.pending:
        outbox.flush(sink.write)
    assert sink.data == b"\x40\x02\x00\x01\x32\x69\x00\x01t\x01\x02" + payload


def test_while_a_large_payload_leaves_acknowledgements_queue_behind_it():
    outbox = mqttpipe.Outbox(32)
    payload = b"0123456789" * 10
    assert put(outbox, 0x30, b"t", payload, 0)
    sink = Sink(credit=20)
    outbox.flush(sink.write)
    assert outbox.room == 32
    outbox.put_ack(0x40, 1)
    sink.credit = 1000
    outbox.flush(sink.write)
    assert sink.data == b"\x30\x67\x00\x01t" + payload + b"\x40\x02\x00\x01"
    assert not outbox.pending


def test_a_topic_name_longer_than_the_buffer_leaves_whole():
    outbox = mqttpipe.Outbox(16)
    outbox.put_packet(b"\xc0\x00")
    topic = b"t" * 40
    assert put(outbox, 0x30, topic, b"p", 0)
    sink = Sink(each=3)
    while outbox.pending:
        outbox.flush(sink.write)
    assert sink.data == b"\xc0\x00\x30\x2b\x00\x28" + topic + b"p"


def test_every_split_of_a_write_gives_the_same_bytes():
    expected = b"\x30\x05\x00\x01tab\x32\x69\x00\x01t\x00\x09" + b"z" * 100 + b"\x62\x02\x00\x05"
    for each in range(1, 60):
        outbox = mqttpipe.Outbox(32)
        put(outbox, 0x30, b"t", b"ab", 0)
        put(outbox, 0x32, b"t", b"z" * 100, 9)
        sink = Sink(each=each)
        is_acked = False
        while outbox.pending:
            outbox.flush(sink.write)
            if not is_acked and outbox.room >= 4:
                outbox.put_ack(0x62, 5)
                is_acked = True
        assert sink.data == expected, each


def test_every_write_may_fail_and_what_has_left_is_known():
    class Failing(Sink):
        def write(self, buf, offset, count):
            self.left -= 1
            if not self.left:
                raise OSError(104)
            return Sink.write(self, buf, offset, count)

    fail_at = 0
    while True:
        fail_at += 1
        outbox = mqttpipe.Outbox(32)
        put(outbox, 0x30, b"t", b"ab", 0)
        end = outbox.pending
        put(outbox, 0x30, b"t", b"z" * 40, 0)
        sink = Failing(each=12)  # the buffer's 12 bytes at once, then the payload
        sink.left = fail_at
        try:
            while outbox.pending:
                outbox.flush(sink.write)
        except OSError:
            assert outbox.sent_count == len(sink.data), fail_at
            assert (outbox.sent_count >= end) == (len(sink.data) >= 7)
        else:
            break
    assert fail_at == 6, fail_at


def test_the_error_of_the_stream_reaches_the_caller():
    class Broken:
        def write(self, buf, offset, count):
            raise OSError(104)

    outbox = mqttpipe.Outbox(16)
    outbox.put_packet(b"\xc0\x00")
    raises(OSError, outbox.flush, Broken().write)


def spelled(payload, packet_id):
    """A PUBLISH to "t" of up to 16,383 bytes, from section 3.3."""
    body = b"\x00\x01t" + (bytes((packet_id >> 8, packet_id & 0xFF)) if packet_id else b"")
    size = len(body) + len(payload)
    head = bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))
    return (b"\x32" if packet_id else b"\x30") + head + body + payload


def test_a_publish_of_every_size_in_every_room_leaves_as_it_is_spelled():
    """One that fits to the byte is taken; one that will fit waits; one that never will is cut."""
    for capacity in (32, 150):
        for used in (0, 1, 4, 7, 9, 16):
            for size in range(2 * capacity):
                for packet_id in (0, 0x1234):
                    put_in_room(capacity, b"u" * used, b"z" * size, packet_id)


def put_in_room(capacity, before, payload, packet_id):
    case = (capacity, len(before), len(payload), packet_id)
    outbox = mqttpipe.Outbox(capacity)
    outbox.put_packet(before)
    wire = spelled(payload, packet_id)
    is_taken = put(outbox, wire[0], b"t", payload, packet_id)
    fits = len(wire) <= capacity - len(before)
    head_fits = len(wire) - len(payload) <= capacity - len(before)
    assert is_taken == (fits or len(wire) > capacity and head_fits), case
    sink = Sink()
    if not is_taken:
        assert outbox.pending == len(before), case
        outbox.flush(sink.write)
        assert put(outbox, wire[0], b"t", payload, packet_id), case
    outbox.flush(sink.write)
    assert sink.data == before + wire and outbox.sent_count == len(sink.data), case
    assert not outbox.pending and outbox.room == capacity, case


class Choosy(Sink):
    """Takes `each` bytes a call, of each second call nothing; notes what it has refused.

    As a TLS library, which has encrypted what it was offered, it must be offered the same again.
    """

    refused = None
    is_full = False

    def write(self, buf, offset, count):
        if self.refused is not None:
            offered = bytes(buf[offset : offset + count])
            assert offered == self.refused, (offered, self.refused)
            self.refused = None
        self.is_full = not self.is_full
        taken = 0 if self.is_full else min(count, self.each)
        self.data += bytes(buf[offset : offset + taken])
        if taken < count:
            self.refused = bytes(buf[offset + taken : offset + count])
        return taken or None


def test_what_was_refused_is_offered_again_to_just_the_same_end():
    for each in range(1, 20):
        outbox = mqttpipe.Outbox(32)
        sink = Choosy(each)
        expected = b""
        for number in range(40):
            wire = bytes((0x40, 2, 0, number))
            if outbox.room >= 4:
                outbox.put_ack(0x40, number)
                expected += wire
            outbox.flush(sink.write)
        while outbox.pending:
            outbox.flush(sink.write)
        assert sink.data == expected and len(expected) >= 32, each
