"""The pipe: a bounded ring of commands that a poll can watch."""

from fakes import raises

import mqttpipe


def test_commands_come_out_in_order_with_their_tokens():
    pipe = mqttpipe.Pipe(3)
    tokens = [pipe.put(0x30, b"t%d" % i, b"p") for i in range(3)]
    assert tokens == [1, 2, 3]
    seen = []
    while pipe.taken != pipe.tail:
        seen.append((pipe.ring[pipe.taken + 1], pipe.ring[pipe.taken + 2]))
        pipe.ring[pipe.taken] = 0  # as if it had left
        pipe.taken = pipe.after(pipe.taken)
        assert pipe.release(0, False) == 0
    assert seen == [(1, b"t0"), (2, b"t1"), (3, b"t2")]


def test_a_full_pipe_refuses_and_keeps_what_it_has():
    pipe = mqttpipe.Pipe(2)
    pipe.put(0x30, b"a", b"1")
    pipe.put(0x30, b"b", b"2")
    message = raises(mqttpipe.QueueFull, pipe.put, 0x30, b"c", b"3")
    assert "2" in message
    assert pipe.last_token == 2
    assert pipe.has_token(1) and pipe.has_token(2) and not pipe.has_token(3)


def test_the_ring_turns_many_times():
    pipe = mqttpipe.Pipe(3)
    for i in range(1, 50):
        assert pipe.put(0x30, b"t", b"%d" % i) == i
        assert pipe.ring[pipe.taken + 3] == b"%d" % i
        pipe.ring[pipe.taken] = 0  # as if it had left
        pipe.taken = pipe.after(pipe.taken)
        assert pipe.release(0, False) == 0
    assert pipe.ring.count(b"t") == 0, "a released slot holds no reference"


def test_rewind_gives_again_what_was_taken():
    pipe = mqttpipe.Pipe(3)
    pipe.put(0x30, b"a", b"1")
    pipe.put(0x30, b"b", b"2")
    pipe.taken = pipe.after(pipe.taken)
    pipe.rewind()
    assert pipe.ring[pipe.taken + 2] == b"a"


def test_a_token_is_never_zero_when_the_count_wraps():
    pipe = mqttpipe.Pipe(3)
    pipe.last_token = 0x3FFFFFFE
    assert pipe.put(0x30, b"a", b"") == 0x3FFFFFFF
    assert pipe.put(0x30, b"a", b"") == 1


def test_ioctl_answers_a_poll_and_nothing_else():
    pipe = mqttpipe.Pipe(2)
    poll_in = mqttpipe.select.POLLIN
    poll_out = mqttpipe.select.POLLOUT
    assert pipe.ioctl(3, poll_in) == 0
    pipe.put(0x30, b"a", b"")
    assert pipe.ioctl(3, poll_in) == poll_in
    assert pipe.ioctl(3, poll_in | poll_out) == poll_in
    pipe.is_signalled = False
    assert pipe.ioctl(3, poll_in) == 0
    # A 0 for "which file descriptor?" would be taken for standard input.
    for request in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11):
        assert pipe.ioctl(request, 0) < 0, request
