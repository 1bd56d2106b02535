"""What the client relies on of a board's modules: the same answers on every interpreter.

On MicroPython this tests the port, on CPython the shim. Who finds a port that answers otherwise
adds the case here first, then teaches the shim. Loopback only, nothing sleeps for long, every
loop has a deadline.
"""

import _thread
import errno
import gc

from fakes import SkipTest

try:
    import io
    import select
    import socket
    from time import sleep_ms, ticks_add, ticks_diff, ticks_ms, ticks_us

    import micropython
except ImportError:  # CPython
    import shim_io as io
    import shim_micropython as micropython
    import shim_select as select
    import shim_socket as socket
    from shim_time import sleep_ms, ticks_add, ticks_diff, ticks_ms, ticks_us

_IN = 1
_OUT = 4
_HUP = 16
_NVAL = 32
_GIVE_UP_MS = 5000


def is_esp32():
    """Whether this is the ESP32's socket module, or the shim's: newlib's numbers tell."""
    return errno.EINPROGRESS == 119


def error_of(function, *args):
    """Return the errno of the OSError that function(*args) raises; None if it raises none."""
    try:
        function(*args)
    except OSError as exc:
        return exc.errno
    return None


def raises(kind, function, *args):
    """Return whether function(*args) raises `kind`."""
    try:
        function(*args)
    except kind:
        return True
    return False


def poll_one(obj, mask, timeout_ms=_GIVE_UP_MS):
    """Return the events that come for obj, 0 if none come in time."""
    poller = select.poll()
    poller.register(obj, mask)
    for _, events in poller.poll(timeout_ms):
        return events
    return 0


def listen():
    """Return (listener, address). The ports cannot tell the number of a free one: try some."""
    for attempt in range(200):
        address = socket.getaddrinfo("127.0.0.1", 20000 + (ticks_us() + attempt) % 10000)[0][-1]
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(1)
            return listener, address
        except OSError:
            listener.close()
    raise OSError("no free port")


def make_pair():
    """Return two connected sockets that do not block."""
    listener, address = listen()
    near = socket.socket()
    near.setblocking(False)
    assert error_of(near.connect, address) == errno.EINPROGRESS
    assert poll_one(listener, _IN) == _IN
    far, _ = listener.accept()
    listener.close()
    far.setblocking(False)
    assert poll_one(near, _OUT) == _OUT
    return near, far


def receive(sock, length):
    """Return `length` bytes from sock, or fewer if no more come."""
    got = b""
    while len(got) < length and poll_one(sock, _IN):
        piece = sock.read(length - len(got))
        if not piece:
            break
        got += piece
    return got


class Flag(io.IOBase):
    """A pollable object that is ready for `ready`."""

    def __init__(self):
        self.asked = []
        self.ready = 0

    def ioctl(self, request, arg):
        self.asked.append((request, arg))
        return self.ready if request == 3 else -22


# ---------------------------------------------------------------------------
# Sockets
# ---------------------------------------------------------------------------


def test_nothing_to_read_answers_none_and_recv_raises():
    near, far = make_pair()
    buf = bytearray(8)
    assert near.readinto(buf) is None
    assert near.readinto(buf, 4) is None
    assert near.read(4) is None
    assert near.read() is None
    assert error_of(near.recv, 4) == errno.EAGAIN
    assert poll_one(near, _IN, 0) == 0
    near.close()
    far.close()


def test_reading_no_bytes_answers_no_bytes_and_not_none():
    near, far = make_pair()
    assert near.readinto(bytearray(8), 0) == 0
    assert near.read(0) == b""
    near.close()
    far.close()


def test_write_takes_a_length_or_an_offset_and_a_length():
    near, far = make_pair()
    data = b"abcdef"
    # (arguments after the buffer, what arrives)
    for part, expected in (
        ((), b"abcdef"),
        ((2,), b"ab"),
        ((2, 3), b"cde"),
        ((1, 99), b"bcdef"),
        ((99,), b"abcdef"),
        ((9, 3), b""),
        ((-1,), b"abcdef"),
        ((-2, 1), b""),
        ((4, -1), b"ef"),
        ((0,), b""),
    ):
        assert near.write(data, *part) == len(expected), part
        assert receive(far, len(expected)) == expected, part
    for buf in (bytearray(data), memoryview(data)[0:6]):
        assert near.write(buf, 1, 2) == 2
        assert receive(far, 2) == b"bc"
    assert near.write("h\u00e9") == 3
    assert receive(far, 3) == b"h\xc3\xa9"
    near.close()
    far.close()


def test_readinto_stops_at_the_length_and_at_the_end_of_the_buffer():
    near, far = make_pair()
    buf = bytearray(4)
    near.write(b"0123456789")
    assert poll_one(far, _IN) == _IN
    assert far.readinto(buf, 2) == 2 and buf == b"01\0\0"
    assert far.readinto(buf, 99) == 4 and buf == b"2345"
    assert far.readinto(memoryview(buf)[2:4]) == 2 and buf == b"2367"
    assert far.readinto(buf) == 2 and buf == b"8967"
    assert far.readinto(buf) is None
    near.close()
    far.close()


def test_write_answers_a_part_when_the_buffer_is_full_then_none_and_loses_nothing():
    near, far = make_pair()
    chunk = b"0123456789abcdef" * 256
    written = 0
    start_ms = ticks_ms()
    while True:
        count = near.write(chunk)
        if count is None:
            break
        written += count
        if count < len(chunk):
            assert near.write(chunk, count, len(chunk)) is None
            break
        assert ticks_diff(ticks_ms(), start_ms) < _GIVE_UP_MS
    assert poll_one(near, _OUT, 0) == 0
    buf = bytearray(4096)
    seen = 0
    while seen < written:
        assert poll_one(far, _IN) == _IN, (seen, written)
        count = far.readinto(buf)
        for i in (0, count // 2, count - 1):
            assert buf[i] == chunk[(seen + i) % 16], (seen, i)
        seen += count
    assert seen == written and far.readinto(buf) is None
    assert poll_one(near, _OUT) == _OUT
    near.close()
    far.close()


def test_a_closed_peer_is_readable_and_reads_zero_behind_its_last_bytes():
    near, far = make_pair()
    far.write(b"tail")
    far.close()
    assert receive(near, 4) == b"tail"
    assert poll_one(near, _IN) & _IN
    buf = bytearray(8)
    assert near.readinto(buf) == 0
    assert near.read(4) == b""
    assert near.read() == b""
    near.close()


def test_a_reset_raises_and_takes_the_bytes_before_it_along():
    near, far = make_pair()
    near.write(b"never read")
    assert poll_one(far, _IN) == _IN
    far.write(b"abc")
    assert poll_one(near, _IN) == _IN
    far.close()  # with unread bytes: the peer gets a reset
    start_ms = ticks_ms()
    while not poll_one(near, _IN | _HUP) & ~_IN:  # ESP32 tells it only if asked
        assert ticks_diff(ticks_ms(), start_ms) < _GIVE_UP_MS
    assert error_of(near.readinto, bytearray(8)) == errno.ECONNRESET
    near.close()


def test_a_refused_connection_is_ready_and_writing_raises():
    listener, address = listen()
    listener.close()
    near = socket.socket()
    near.setblocking(False)
    assert error_of(near.connect, address) == errno.EINPROGRESS
    assert poll_one(near, _IN | _OUT) != 0
    number = error_of(near.write, b"x")
    assert number == errno.ECONNRESET if is_esp32() else number is not None
    near.close()


def test_reading_and_writing_while_connecting_answer_none_or_do_it():
    listener, address = listen()
    near = socket.socket()
    near.setblocking(False)
    assert error_of(near.connect, address) == errno.EINPROGRESS
    assert near.readinto(bytearray(1)) is None
    assert near.write(b"x") in (None, 1)  # it may stand by now
    near.close()
    listener.close()


def test_an_ipv6_literal_has_an_address_but_on_an_esp32_where_the_pair_serves():
    found = socket.getaddrinfo("::1", 1883, 0, socket.SOCK_STREAM)[0]
    assert found[0] == socket.AF_INET6
    if not is_esp32():
        assert found[-1] is not None
        return
    assert found[-1] is None
    try:
        near = socket.socket(socket.AF_INET6)
    except OSError:
        raise SkipTest("no IPv6 on this machine")
    near.setblocking(False)
    assert error_of(near.connect, ("::1", 1)) == errno.EINPROGRESS
    near.close()


def test_a_closed_socket_raises_and_polls_as_invalid():
    near, far = make_pair()
    poller = select.poll()
    poller.register(near, _IN)
    poller.register(far, _IN)
    near.close()
    events = dict([(id(obj), events) for obj, events in poller.poll(_GIVE_UP_MS)])
    assert events[id(near)] == _NVAL
    for call, argument in (
        (near.write, b"x"),
        (near.readinto, bytearray(1)),
        (near.read, 1),
        (near.recv, 1),
    ):
        assert error_of(call, argument) == errno.EBADF, call
    if is_esp32():
        near.setblocking(False)  # says nothing
    else:
        assert error_of(near.setblocking, False) == errno.EBADF
    far.close()


def test_accept_with_nobody_there_raises_eagain():
    listener, _ = listen()
    listener.setblocking(False)
    assert error_of(listener.accept) == errno.EAGAIN
    listener.close()


def test_a_timeout_raises_etimedout():
    near, far = make_pair()
    near.settimeout(0.1)  # ESP32 counts in these; less is "would block" after as long
    assert error_of(near.readinto, bytearray(1)) == errno.ETIMEDOUT
    near.settimeout(0)
    assert near.readinto(bytearray(1)) is None
    near.close()
    far.close()


def test_an_unknown_host_raises_oserror():
    assert raises(OSError, socket.getaddrinfo, "no such host", 1883)


# ---------------------------------------------------------------------------
# poll
# ---------------------------------------------------------------------------


def test_poll_answers_the_object_and_keeps_to_its_mask():
    near, far = make_pair()
    poller = select.poll()
    poller.register(near)  # reading and writing
    ready = poller.poll(_GIVE_UP_MS)
    assert len(ready) == 1 and ready[0][0] is near and ready[0][1] == _OUT
    poller.modify(near, _IN)
    assert poller.poll(0) == []
    far.write(b"x")
    assert poll_one(near, _IN) == _IN
    assert [events for _, events in poller.poll(0)] == [_IN]
    poller.register(near, _OUT)  # again: replaces the mask
    assert [events for _, events in poller.poll(0)] == [_OUT]
    poller.modify(near, 0)
    assert poller.poll(0) == []
    poller.unregister(near)
    near.close()
    far.close()


def test_unregister_of_a_stranger_is_silent_and_modify_of_one_raises_enoent():
    poller = select.poll()
    flag = Flag()
    poller.unregister(flag)
    assert error_of(poller.modify, flag, _IN) == errno.ENOENT
    poller.register(flag, _IN)
    poller.unregister(flag)
    poller.unregister(flag)
    assert error_of(poller.modify, flag, _IN) == errno.ENOENT


def test_register_refuses_what_is_no_stream():
    for stranger in (object(), "text", None):
        assert raises(OSError, select.poll().register, stranger, _IN), stranger


def test_poll_with_a_timeout_waits_that_long_and_answers_an_empty_list():
    poller = select.poll()
    poller.register(Flag(), _IN)
    start_ms = ticks_ms()
    assert poller.poll(30) == []
    assert 28 <= ticks_diff(ticks_ms(), start_ms) < _GIVE_UP_MS


def test_ipoll_answers_as_poll_does_and_can_be_one_shot():
    near, far = make_pair()
    poller = select.poll()
    poller.register(near, _OUT)
    count = 0
    for obj, events in poller.ipoll(_GIVE_UP_MS):
        assert obj is near and events == _OUT
        count += 1
    assert count == 1
    for _ in poller.ipoll(0, 1):
        count += 1
    for _ in poller.ipoll(0):
        count += 1
    assert count == 2, "the one-shot object was watched on"
    near.close()
    far.close()


# ---------------------------------------------------------------------------
# Pollable Python objects
# ---------------------------------------------------------------------------


def test_ioctl_is_asked_with_the_mask_and_its_answer_is_handed_on_as_it_is():
    flag = Flag()
    poller = select.poll()
    poller.register(flag, _IN)
    for ready in (0, _IN, _OUT, _IN | _OUT, 16, 0):
        flag.ready = ready
        flag.asked.clear()
        assert [events for _, events in poller.poll(0)] == ([ready] if ready else [])
        assert flag.asked[-1] == (3, _IN)
    poller.modify(flag, _OUT)
    poller.poll(0)
    assert flag.asked[-1] == (3, _OUT)


def test_a_negative_ioctl_raises_its_errno_from_poll():
    flag = Flag()
    poller = select.poll()
    poller.register(flag, _IN)
    flag.ready = -errno.EIO
    assert error_of(poller.poll, 0) == errno.EIO
    assert error_of(poller.poll, 1000) == errno.EIO


def test_one_poll_watches_a_socket_and_an_object_together():
    near, far = make_pair()
    flag = Flag()
    poller = select.poll()
    poller.register(near, _IN)
    poller.register(flag, _IN)
    assert poller.poll(0) == []
    flag.ready = _IN
    assert [obj for obj, _ in poller.poll(_GIVE_UP_MS)] == [flag]
    far.write(b"x")
    assert poll_one(near, _IN) == _IN
    assert len(poller.poll(0)) == 2
    flag.ready = 0
    assert [obj for obj, _ in poller.poll(0)] == [near]
    near.close()
    far.close()


def test_an_assignment_in_another_thread_wakes_a_sleeping_poll():
    flag = Flag()
    poller = select.poll()
    poller.register(flag, _IN)

    def assign(_):
        sleep_ms(30)
        flag.ready = _IN

    start_ms = ticks_ms()
    _thread.start_new_thread(assign, (0,))
    assert [events for _, events in poller.poll(_GIVE_UP_MS)] == [_IN]
    assert ticks_diff(ticks_ms(), start_ms) < _GIVE_UP_MS // 2
    gc.collect()


# ---------------------------------------------------------------------------
# schedule, heap_lock
# ---------------------------------------------------------------------------


def test_a_scheduled_function_makes_a_poll_answer():
    flag = Flag()
    poller = select.poll()
    poller.register(flag, _IN)

    def assign(ready):
        flag.ready = ready

    micropython.schedule(assign, _IN)
    assert [events for _, events in poller.poll(_GIVE_UP_MS)] == [_IN]


def test_scheduled_functions_run_in_order_never_nested_and_a_full_queue_raises():
    ran = []

    def note(number):
        ran.append(number)

    def fill(_):
        for number in range(100):
            try:
                micropython.schedule(note, number)
            except RuntimeError as exc:
                ran.append(str(exc))
                ran.append(number)
                return

    micropython.schedule(fill, None)
    start_ms = ticks_ms()
    while not ran or ran[-1] != ran[1] - 1:
        sleep_ms(1)
        assert ticks_diff(ticks_ms(), start_ms) < _GIVE_UP_MS, ran
    depth = ran[1]  # 4 on the unix port, 8 on ESP32, rp2 and in the shim
    assert depth in (4, 8)
    assert ran == ["schedule queue full", depth] + list(range(depth))


def test_heap_unlock_answers_how_many_locks_are_left():
    assert micropython.heap_lock() is None
    micropython.heap_lock()
    left = micropython.heap_unlock(), micropython.heap_unlock()
    assert left == (1, 0)


# ---------------------------------------------------------------------------
# Ticks
# ---------------------------------------------------------------------------


def test_ticks_arithmetic_is_right_on_both_sides_of_the_wrap():
    period = ticks_add(0, -1) + 1
    half = period // 2
    assert period in (1 << 30, 1 << 62)
    for start in (0, 1, half - 1, half, period - 1):
        for delta in (0, 1, -1, 1000, -1000, half - 1, 1 - half):
            end = ticks_add(start, delta)
            assert 0 <= end < period
            assert ticks_diff(end, start) == delta, (start, delta)
            assert ticks_diff(start, end) == -delta, (start, delta)
    assert ticks_diff(0, half) == ticks_diff(half, 0) == -half


def test_ticks_add_refuses_what_ticks_diff_cannot_give_back():
    half = (ticks_add(0, -1) + 1) // 2
    assert raises(OverflowError, ticks_add, 0, half)
    assert raises(OverflowError, ticks_add, 0, -half)


def test_ticks_run_forward_in_milliseconds_and_microseconds():
    start_ms, start_us = ticks_ms(), ticks_us()
    sleep_ms(20)
    passed_ms, passed_us = ticks_diff(ticks_ms(), start_ms), ticks_diff(ticks_us(), start_us)
    assert 19 <= passed_ms < _GIVE_UP_MS
    assert 19000 <= passed_us < _GIVE_UP_MS * 1000
