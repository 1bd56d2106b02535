"""The pipe: a bounded ring of messages that a poll can watch, and that is the session."""

from fakes import Bench, needs, raises

import mqttpipe

QOS_0 = 0x30
QOS_1 = 0x32
QOS_2 = 0x34
# Above the first byte: was sent, is in flight, PUBREC came, its end is told to nobody.
SENT = 0x100
FLYING = 0x200
RELEASED = 0x400
MUTE = 0x800
TURN_SHIFT = 15  # above it: which PUBREC it was
DROP_OLDEST = 1


def make(slots):
    return mqttpipe.Pipe(slots, 1024)


def put(pipe, topic, payload, first_byte, policy=None):
    """As publish() does where it is not easy."""
    pipe.wait_for_lock()
    at = pipe.tail
    pipe.topics[at] = topic
    pipe.payloads[at] = payload
    pipe.firsts[at] = first_byte
    return pipe.place(policy) if policy else pipe.place()


def take(pipe):
    """As step() does: the next message that waits is sent. Returns its slot."""
    at = pipe.sent
    if pipe.firsts[at] & 0x06:
        pipe.firsts[at] |= SENT | FLYING
    pipe.sent = pipe.left = (at + 1) % pipe.size
    return at


def places(pipe):
    return pipe.head, pipe.left, pipe.sent, pipe.tail


def test_messages_come_out_in_order_with_their_tokens():
    pipe = make(3)
    tokens = [put(pipe, b"t%d" % i, b"p", QOS_0) for i in range(3)]
    assert tokens == [1, 2, 3]
    seen = []
    while pipe.sent != pipe.tail:
        at = take(pipe)
        seen.append((pipe.tokens[at], pipe.topics[at], pipe.payloads[at], pipe.firsts[at]))
        assert pipe.free(at) == len(seen)
    assert seen == [(i + 1, b"t%d" % i, b"p", QOS_0) for i in range(3)]
    assert pipe.head == pipe.tail


def test_a_full_pipe_refuses_and_keeps_what_it_has():
    pipe = make(2)
    put(pipe, b"a", b"1", QOS_0)
    put(pipe, b"b", b"2", QOS_0)
    message = raises(mqttpipe.QueueFull, put, pipe, b"c", b"3", QOS_0)
    assert "2" in message
    assert pipe.last_token == 2
    assert pipe.find(1) >= 0 and pipe.find(2) >= 0 and pipe.find(3) < 0
    assert pipe.topics.count(b"c") == pipe.payloads.count(b"3") == 0, "a refused message is held"


def test_the_ring_turns_many_times():
    pipe = make(3)
    for i in range(1, 50):
        assert put(pipe, b"t", b"%d" % i, QOS_0) == i
        at = take(pipe)
        assert pipe.payloads[at] == b"%d" % i
        assert pipe.free(at) == i
        assert pipe.head == pipe.tail
    assert pipe.topics.count(b"t") == 0, "a free slot holds no reference"
    assert pipe.payloads == [None] * 4


def test_a_slot_is_held_until_its_end_and_those_behind_it_too():
    """The ring is the session: what waits for PUBACK keeps its slot, whoever ends first."""
    pipe = make(3)
    for i in range(3):
        put(pipe, b"t", b"%d" % i, QOS_1)
        take(pipe)
    assert pipe.free(1) == 2 and pipe.free(2) == 3
    raises(mqttpipe.QueueFull, put, pipe, b"t", b"x", QOS_0)
    assert pipe.find(1) == 0 and pipe.find(2) < 0 and pipe.find(3) < 0
    assert pipe.free(0) == 1
    assert (pipe.head == pipe.tail) and put(pipe, b"t", b"x", QOS_0) == 4


def test_rewind_gives_again_what_was_not_ended():
    pipe = make(4)
    for first_byte in (QOS_1, QOS_0, QOS_2, QOS_1):
        put(pipe, b"t", b"%d" % first_byte, first_byte)
    for _ in range(3):
        at = take(pipe)
        if pipe.firsts[at] == QOS_0:
            pipe.free(at)  # it has left
    pipe.firsts[2] |= RELEASED
    pipe.rewind()
    assert places(pipe) == (0, 0, 0, 4)
    assert pipe.firsts[:4] == [QOS_1 | SENT, 0, QOS_2 | SENT | RELEASED, QOS_1]
    pipe.rewind()
    assert places(pipe) == (0, 0, 0, 4), "twice is as once"
    assert pipe.tokens[:4] == [1, 2, 3, 4]


def test_a_session_that_goes_on_sends_again_and_pubrels_in_the_order_of_the_pubrecs():
    """[MQTT-4.4.0-1] [MQTT-4.6.0-4]"""
    needs("qos2")
    pipe = make(4)
    for i in range(4):
        put(pipe, b"t", b"%d" % i, QOS_2)
        take(pipe)
    for turns in ((1, 2, 3), (0x7FFE, 0x7FFF, 1), (0x7FFF, 1, 2)):  # they begin anew
        for turn, at in zip(turns, (2, 0, 3)):
            pipe.firsts[at] = QOS_2 | SENT | RELEASED | turn << TURN_SHIFT
            pipe.last_turn = turn
        pipe.rewind()
        assert [one[1] for one in pipe.resume(True)] == [3, 1, 4], turns
        assert pipe.firsts[1] == QOS_2 | SENT, "this one goes again, with DUP"


def test_a_pubrel_in_vain_is_sent_by_four_connections_and_changes_no_order():
    """Of messages that were given up: one whose PUBREC may be lost, and one that had it first."""
    needs("qos2", "offline")
    pipe = make(4)
    for i in range(3):
        put(pipe, b"t", b"%d" % i, QOS_2)
        take(pipe)
    pipe.firsts[0] |= RELEASED | 2 << TURN_SHIFT
    pipe.give_up(1)
    pipe.firsts[1] |= RELEASED | 1 << TURN_SHIFT
    pipe.last_turn = 2
    pipe.give_up(2)
    for turn in range(6):
        pipe.rewind()
        again = [one[1] for one in pipe.resume(True)]
        assert again == ([2, 1, 3] if turn < 4 else [2, 1]), turn


def test_without_a_session_all_exchanges_begin_anew():
    needs("qos2")
    pipe = make(3)
    for first_byte in (QOS_1, QOS_2, QOS_2):
        put(pipe, b"t", b"%d" % first_byte, first_byte)
        take(pipe)
    pipe.firsts[1] |= RELEASED | 7 << TURN_SHIFT
    pipe.rewind()
    assert not pipe.resume(False)
    assert pipe.firsts[:3] == [QOS_1, QOS_2, QOS_2]
    assert pipe.tokens[:3] == [1, 2, 3]


def test_the_slot_of_an_acknowledgement_is_found_by_its_identifier():
    pipe = make(4)
    pipe.last_token = 65278
    for first_byte in (QOS_1, QOS_0, QOS_1, QOS_1):
        put(pipe, b"t", b"", first_byte)
    for _ in range(3):
        take(pipe)
    # Tokens 65279, 65280 (QoS 0), 65281, and one that was not sent yet: 65282.
    assert pipe.find_id(65279) == 0 and pipe.find_id(2) == 2
    assert pipe.find_id(1) < 0, "QoS 0 has no identifier"
    assert pipe.find_id(3) < 0 and pipe.find_id(4) < 0


def test_an_identifier_is_never_used_twice_at_once():
    """[MQTT-2.3.1-2]"""
    pipe = make(3)
    put(pipe, b"stuck", b"", QOS_1)
    take(pipe)
    pipe.last_token = 65279
    put(pipe, b"t", b"", QOS_1)  # token 65280: identifier 1, as the first has it
    put(pipe, b"t", b"", QOS_1)
    assert pipe.find_id(1, 1) == 0 and pipe.find_id(2, 2) < 0
    pipe.free(0)
    assert pipe.find_id(1, 1) < 0


def test_a_token_is_never_zero_when_the_count_wraps():
    pipe = make(3)
    pipe.last_token = 0x3FFFFFFE
    assert put(pipe, b"a", b"", QOS_0) == 0x3FFFFFFF
    assert put(pipe, b"a", b"", QOS_0) == 1


def test_what_was_given_up_is_found_by_nobody_and_rests_until_its_end():
    needs("offline")
    pipe = make(3)
    put(pipe, b"t", b"", QOS_1)
    take(pipe)
    assert pipe.cancel(1) is True and pipe.dropped == [1]
    assert pipe.find(1) < 0 and pipe.find_id(1) == 0 and pipe.firsts[0] & MUTE
    assert pipe.cancel(1) is False and pipe.dropped == [1], "told once"
    assert pipe.free(0) == 0, "nobody is to be told"
    assert pipe.head == pipe.tail


def test_ioctl_answers_a_poll_and_nothing_else():
    pipe = make(2)
    poll_in = mqttpipe.select.POLLIN
    poll_out = mqttpipe.select.POLLOUT
    assert pipe.ioctl(3, poll_in) == 0
    put(pipe, b"a", b"", QOS_0)
    assert pipe.ioctl(3, poll_in) == poll_in
    assert pipe.ioctl(3, poll_in | poll_out) == poll_in
    pipe.is_signalled = False
    assert pipe.ioctl(3, poll_in) == 0
    # A 0 for "which file descriptor?" would be taken for standard input.
    for request in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11):
        assert pipe.ioctl(request, 0) == -1, request  # what a stream answers that does not know


class Long:
    """Stands for so many bytes."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count


def test_the_largest_message_fills_packet_bytes_max_to_the_last_byte():
    """Section 2.2.3: how many bytes the length of the rest takes depends on it."""
    for first_byte, id_bytes in ((QOS_0, 0), (QOS_1, 2)):
        for body, head in ((127, 2), (128, 3), (16383, 3), (16384, 4), (2097151, 4), (2097152, 5)):
            payload = Long(body - 3 - id_bytes)
            assert put(mqttpipe.Pipe(1, head + body), b"t", payload, first_byte) == 1
            small = mqttpipe.Pipe(1, head + body - 1)
            message = raises(mqttpipe.LocalError, put, small, b"t", payload, first_byte)
            assert "%d bytes" % (head + body) in message, message
            assert small.head == small.tail and not small._lock.locked()


def length_bytes(count):
    return 1 + (count > 127) + (count > 16383) + (count > 2097151)


def test_the_size_of_a_packet_of_mqtt_5_is_told_to_the_byte():
    needs("mqtt5", "offline")
    bounds = [limit + n for limit in (127, 16383, 2097151) for n in (-1, 0, 1)]
    pipe = mqttpipe.Pipe(1, 1 << 24)
    pipe.properties = [None, None]
    for bound in bounds:
        for first_byte, id_bytes in ((QOS_0, 0), (QOS_1, 2)):
            for expiry_bytes in (0, 5):
                # The length of all that follows, or that of the properties, is such a bound.
                for more, rest in ((0, bound), (20, bound), (bound - expiry_bytes, bound + 20)):
                    size = 3 + id_bytes + length_bytes(more + expiry_bytes) + more + expiry_bytes
                    at = pipe.tail
                    flags = 0x4000 if more else 0  # has properties
                    pipe.firsts[at] = first_byte | flags | (0x2000 if expiry_bytes else 0)
                    pipe.topics[at] = b"t"
                    pipe.payloads[at] = Long(rest - size if rest > size else 0)
                    pipe.properties[at] = Long(more) if more else None
                    rest = max(rest, size)
                    size = 1 + length_bytes(rest) + rest
                    assert pipe.packet_bytes_of(at) == size
                    # And place() finds that it is just too large.
                    pipe.packet_bytes_max = pipe.our_bytes_max = size - 1
                    pipe.firsts[at] = first_byte | flags
                    message = raises(mqttpipe.LocalError, pipe.place, None, expiry_bytes or None)
                    assert "message of %d bytes" % size in message, message


def test_publish_waits_in_vain_for_a_lock_that_nobody_gives_back():
    pipe = make(2)
    pipe.wait_for_lock()
    raises(mqttpipe.QueueFull, put, pipe, b"t", b"", QOS_0)
    assert pipe.head == pipe.tail and pipe._lock.locked()
    assert pipe.is_signalled and pipe.has_chores, "step() looks who has it"
    assert not getattr(pipe, "is_dropping", False), "it goes on to send"
    pipe.release_lock()
    assert put(pipe, b"t", b"", QOS_0) == 1 and not pipe._lock.locked()


def test_who_waits_for_the_lock_gives_up_after_some_milliseconds():
    bench = Bench()
    asked = []

    def ticks_ms():
        asked.append(1)
        bench.clock.advance(1)
        return bench.clock.ticks_ms()

    pipe = bench.client._pipe
    pipe.wait_for_lock()
    mqttpipe.ticks_ms = ticks_ms
    raises(mqttpipe.QueueFull, pipe.wait_for_lock)
    assert 20 <= len(asked) <= 25


def test_a_lock_is_left_behind_only_if_it_was_taken_at_each_look():
    bench = Bench()
    pipe = bench.client._pipe
    pipe.wait_for_lock()
    pipe.mend()
    pipe.release_lock()
    bench.clock.advance(5000)
    pipe.mend()
    pipe.wait_for_lock()  # by another call, just now
    pipe.mend()
    bench.clock.advance(900)
    pipe.mend()
    assert pipe._lock.locked()
    bench.clock.advance(200)
    pipe.mend()
    assert not pipe._lock.locked()


def test_a_lock_that_was_left_behind_a_week_ago_is_given_back():
    """More than half a period of ticks_ms()."""
    for days in (1, 6.3, 7.5):
        bench = Bench()
        bench.client._pipe.wait_for_lock()  # as publish() does, and then Ctrl-C ends it
        bench.client.step()
        bench.clock.advance(int(days * 24 * 3600 * 1000))
        bench.client.step()
        bench.client.publish("t", "x")


def test_a_lock_that_one_call_after_the_other_takes_is_left_alone():
    """Found taken each time for a second, it was released while another thread wrote."""
    needs("offline")
    for policy in ("refuse", "drop_oldest"):
        bench = Bench(pipe_slots=1, offline=policy)
        client, pipe = bench.client, bench.client._pipe
        for _ in range(5):
            if policy == "refuse" and client._pipe.tail != client._pipe.head:
                raises(mqttpipe.QueueFull, client.publish, "t", "x")
            else:
                client.publish("t", "x")
            assert pipe._acquire(False)  # and the next one begins at once
            bench.clock.advance(600)
            pipe.mend()
            assert pipe._lock.locked()
            pipe._lock.release()


def test_cancel_takes_nothing_without_the_lock():
    needs("offline")
    pipe = make(2)
    token = put(pipe, b"t", b"", QOS_0)
    pipe.wait_for_lock()
    raises(mqttpipe.QueueFull, pipe.cancel, token)
    assert pipe.dropped == [] and pipe._lock.locked()
    pipe.release_lock()
    assert pipe.cancel(token) and pipe.dropped == [token]


def test_cancel_takes_nothing_that_has_ended_while_it_waited():
    needs("offline")
    pipe = make(2)
    token = put(pipe, b"t", b"", QOS_0)
    wait = pipe.wait_for_lock

    def wait_for_lock(is_dropping=False):
        wait(is_dropping)
        if is_dropping:  # step() was sending, in another thread
            pipe.free(take(pipe))

    pipe.wait_for_lock = wait_for_lock
    assert pipe.cancel(token) is False and pipe.dropped == []


def test_qos_0_on_its_way_is_not_taken_back_but_what_waits_behind_it_is():
    needs("offline")
    pipe = make(4)
    for turn in range(6):  # wherever the ring begins
        tokens = [put(pipe, b"t", b"", QOS_0) for _ in range(4)]
        ways = [take(pipe), take(pipe)]
        assert [pipe.cancel(token) for token in tokens] == [False, False, True, True], turn
        assert pipe.dropped == tokens[2:]
        pipe.dropped.clear()
        for at in ways:
            pipe.free(at)
        while pipe.sent != pipe.tail:
            take(pipe)
        pipe.move_head()
        assert pipe.head == pipe.tail


def test_rewind_ends_what_ctrl_c_has_left_half_free():
    pipe = make(2)
    put(pipe, b"t", b"", QOS_1)
    at = take(pipe)
    pipe.topics[at] = pipe.payloads[at] = None  # as free() begins
    pipe.rewind()
    assert pipe.firsts[at] == 0


def test_rewind_waits_for_a_writer_that_moves_messages():
    needs("offline")
    pipe = make(2)
    put(pipe, b"t", b"", QOS_1)
    take(pipe)
    pipe.wait_for_lock(True)
    seen = []
    before = mqttpipe.pass_on

    def pass_on():  # the other thread
        seen.append((pipe.is_looking, places(pipe)))
        if len(seen) == 3:
            pipe.release_lock()

    mqttpipe.pass_on = pass_on
    try:
        pipe.rewind()
    finally:
        mqttpipe.pass_on = before
    assert seen == [(True, (0, 1, 1, 1))] * 3, "it is looking, so nothing moves after that"
    assert places(pipe) == (0, 0, 0, 1) and not pipe.is_looking


def test_rewind_waits_no_longer_than_a_writer_would():
    """Ctrl-C has ended that one: step() does not block for longer, however slow a turn is."""
    needs("offline")
    bench = Bench()
    pipe = bench.client._pipe
    pipe.wait_for_lock(True)
    before = mqttpipe.pass_on
    mqttpipe.pass_on = lambda: bench.clock.advance(1)
    begin_ms = bench.clock.ticks_ms()
    try:
        pipe.rewind()
    finally:
        mqttpipe.pass_on = before
    assert 20 <= bench.clock.ticks_ms() - begin_ms <= 22 and not pipe.is_looking


def test_a_message_that_leaves_while_it_is_taken_back_has_one_end():
    needs("offline")
    bench = Bench().go_online()
    client, pipe = bench.client, bench.client._pipe
    bench.server.write_credit = 3
    token = client.publish("t", "x")
    bench.steps()
    bench.take_events()
    find = pipe.find
    found = []

    def find_and_leave(token):
        at = find(token)
        found.append(at)
        if len(found) == 2:
            bench.server.write_credit = 1 << 30
            client.step()  # as another thread does
        return at

    pipe.find = find_and_leave
    assert client.cancel(token) is False
    bench.steps()
    assert bench.take_events() == [("published", token)] and len(found) == 2


def test_who_drops_one_more_does_not_wait_for_the_end_of_a_connection():
    """Which waits for that drop: 20 ms, and then QueueFull behind a message that was dropped."""
    needs("offline")
    pipe = mqttpipe.Pipe(5, 1024, 30)
    for _ in range(3):
        put(pipe, b"t", b"23456789", QOS_1)
    give_up = pipe.give_up

    def give_up_meanwhile(at):
        give_up(at)
        pipe.is_looking = True  # another thread is in rewind()

    pipe.give_up = give_up_meanwhile
    token = put(pipe, b"t", b"23456789012345678", QOS_1, DROP_OLDEST)
    assert pipe.dropped == [1, 2] and token == 4 and not pipe.is_dropping
