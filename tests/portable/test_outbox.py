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


def test_small_packets_leave_in_one_write():
    outbox = mqttpipe.Outbox(64)
    assert outbox.put_publish(0x30, b"a/b", b"hi", 5, 0)
    outbox.put_ack(0x40, 0x1234)
    outbox.put_packet(b"\xc0\x00")
    sink = Sink()
    assert outbox.flush(sink) == 15
    assert sink.data == b"\x30\x07\x00\x03a/bhi\x40\x02\x12\x34\xc0\x00"
    assert not outbox.pending and outbox.room == 64


def test_a_publish_that_does_not_fit_now_waits_and_changes_nothing():
    outbox = mqttpipe.Outbox(32)
    assert outbox.put_publish(0x30, b"t", b"x" * 10, len(b"t") + len(b"x" * 10), 0)
    assert not outbox.put_publish(0x32, b"t", b"y" * 15, len(b"t") + len(b"y" * 15), 7)
    assert outbox.pending == 15
    outbox.flush(Sink())
    assert outbox.put_publish(0x32, b"t", b"y" * 15, len(b"t") + len(b"y" * 15), 7)


def test_a_large_payload_is_written_from_where_it_lies():
    outbox = mqttpipe.Outbox(32)
    payload = b"0123456789" * 10
    outbox.put_ack(0x40, 1)
    assert outbox.put_publish(0x32, b"t", payload, len(b"t") + len(payload), 0x0102)
    assert outbox.tail is payload
    assert outbox.room == 0, "a packet put now would leave before the payload"
    assert not outbox.put_publish(0x30, b"t", payload, len(b"t") + len(payload), 0)
    sink = Sink(each=7)
    while outbox.pending:
        outbox.flush(sink)
    assert sink.data == b"\x40\x02\x00\x01\x32\x69\x00\x01t\x01\x02" + payload


def test_while_a_large_payload_leaves_acknowledgements_queue_behind_it():
    outbox = mqttpipe.Outbox(32)
    payload = b"0123456789" * 10
    assert outbox.put_publish(0x30, b"t", payload, len(b"t") + len(payload), 0)
    sink = Sink(credit=20)
    outbox.flush(sink)
    assert outbox.room == 32
    outbox.put_ack(0x40, 1)
    sink.credit = 1000
    outbox.flush(sink)
    assert sink.data == b"\x30\x67\x00\x01t" + payload + b"\x40\x02\x00\x01"
    assert not outbox.pending


def test_a_topic_name_longer_than_the_buffer_leaves_whole():
    outbox = mqttpipe.Outbox(16)
    outbox.put_packet(b"\xc0\x00")
    topic = b"t" * 40
    assert outbox.put_publish(0x30, topic, b"p", len(topic) + len(b"p"), 0)
    sink = Sink(each=3)
    while outbox.pending:
        outbox.flush(sink)
    assert sink.data == b"\xc0\x00\x30\x2b\x00\x28" + topic + b"p"


def test_every_split_of_a_write_gives_the_same_bytes():
    expected = b"\x30\x05\x00\x01tab\x32\x69\x00\x01t\x00\x09" + b"z" * 100 + b"\x62\x02\x00\x05"
    for each in range(1, 60):
        outbox = mqttpipe.Outbox(32)
        outbox.put_publish(0x30, b"t", b"ab", 3, 0)
        outbox.put_publish(0x32, b"t", b"z" * 100, len(b"t") + len(b"z" * 100), 9)
        sink = Sink(each=each)
        is_acked = False
        while outbox.pending:
            outbox.flush(sink)
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
        outbox.put_publish(0x30, b"t", b"ab", 3, 0)
        end = outbox.pending
        outbox.put_publish(0x30, b"t", b"z" * 40, len(b"t") + len(b"z" * 40), 0)
        sink = Failing(each=12)  # the buffer's 12 bytes at once, then the payload
        sink.left = fail_at
        try:
            while outbox.pending:
                outbox.flush(sink)
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
    raises(OSError, outbox.flush, Broken())
