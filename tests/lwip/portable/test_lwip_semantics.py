"""test_board_semantics.py on lwIP: its tests, and in place of some of them what lwIP does instead.

Runs on the board, each test on one of its own: what closed connections keep (their places, and
lwIP's memory) changes what the next one meets. A test that has the name of one there takes its
place; all values are what modlwip of MicroPython 1.25 answers, also where they are no virtue.

Not here: a listener must not be closed while a connection waits in it. When that one ends,
modlwip's _lwip_tcp_err_unaccepted() looks into the listener, whose memory may be somebody else's
by then: seen as a HardFault.
"""

import errno
import socket
from time import sleep_ms

import test_board_semantics as common
from test_board_semantics import *  # noqa: F403
from test_board_semantics import (
    _GIVE_UP_MS,
    _IN,
    _NVAL,
    _OUT,
    Flag,
    error_of,
    listen,
    poll_one,
    raises,
)

from machine import Timer

_HUP = 16


# A connection within the board may be made before connect() looks for it the first time.
def make_pair():
    listener, address = listen()
    near = socket.socket()
    near.setblocking(False)
    assert error_of(near.connect, address) in (None, errno.EINPROGRESS)
    assert poll_one(listener, _IN) == _IN
    far, _ = listener.accept()
    listener.close()
    far.setblocking(False)
    assert poll_one(near, _OUT) == _OUT
    return near, far


common.make_pair = make_pair


def test_write_answers_a_part_when_the_buffer_is_full_then_none_and_loses_nothing():
    """lwIP has 8,000 bytes for all connections: writing raises ENOMEM before a buffer is full.

    What that write was given is on its way all the same. The socket is said to be writable.
    """
    near, far = make_pair()
    written = 0
    while True:
        chunk = bytes((written // 100 % 256,)) * 100
        written += 100
        if error_of(near.write, chunk) is not None:
            break
        assert written < 10_000
    assert error_of(near.write, b"x") == errno.ENOMEM
    assert poll_one(near, _OUT, 0) == _OUT
    buf = bytearray(100)
    for at in range(0, written, 100):
        assert poll_one(far, _IN) == _IN, (at, written)
        assert far.readinto(buf) == 100 and buf[0] == buf[99] == at // 100 % 256, at
    near.close()
    far.close()


def test_a_refused_connection_is_ready_and_writing_raises():
    """ECONNRESET tells it: connect() itself within the board, and every call after it."""
    listener, address = listen()
    listener.close()
    near = socket.socket()
    near.setblocking(False)
    assert error_of(near.connect, address) in (errno.ECONNRESET, errno.EINPROGRESS)
    assert poll_one(near, _IN | _OUT) & _HUP
    for _ in range(2):
        assert error_of(near.write, b"x") == errno.ECONNRESET
        assert error_of(near.read, 1) == errno.ECONNRESET
    near.close()


def test_reading_and_writing_while_connecting_answer_none_or_do_it():
    """To an address that nobody has: within the board there is no such while."""
    near = socket.socket()
    near.setblocking(False)
    assert error_of(near.connect, ("10.0.2.99", 1)) == errno.EINPROGRESS
    assert poll_one(near, _IN | _OUT, 10) == 0
    assert near.readinto(bytearray(1)) is None
    assert near.write(b"x") is None
    near.close()


def test_an_ipv6_literal_has_an_address_but_on_an_esp32_where_the_pair_serves():
    # This lwIP is built without IPv6, as that of most boards: the literal is no name, either.
    try:
        socket.getaddrinfo("::1", 1883, 0, socket.SOCK_STREAM)
    except OSError as error:
        assert error.errno == -2, error
    else:
        raise AssertionError("an address")


def test_a_closed_socket_raises_and_polls_as_invalid():
    """But for setblocking(), which says nothing."""
    near, far = make_pair()
    near.close()
    assert poll_one(near, _IN) == _NVAL
    for call, argument in (
        (near.write, b"x"),
        (near.readinto, bytearray(1)),
        (near.read, 1),
        (near.recv, 1),
    ):
        assert error_of(call, argument) == errno.EBADF, call
    assert error_of(near.setblocking, False) is None
    far.close()


def test_an_assignment_in_another_thread_wakes_a_sleeping_poll():
    """A timer's callback does; this board has one thread only."""
    flag = Flag()
    poller = common.select.poll()
    poller.register(flag, _IN)

    def assign(_):
        flag.ready = _IN

    timer = Timer(period=30, mode=Timer.ONE_SHOT, callback=assign)
    assert [events for _, events in poller.poll(_GIVE_UP_MS)] == [_IN]
    timer.deinit()


# ---------------------------------------------------------------------------
# What the others have no like of
# ---------------------------------------------------------------------------


def test_a_socket_that_was_never_connected_hangs_up_and_its_calls_raise():
    near = socket.socket()
    near.setblocking(False)
    assert poll_one(near, _IN | _OUT, 0) & _HUP
    near.close()


def test_there_are_five_sockets_of_tcp_and_the_next_one_raises_enomem():
    sockets = []
    for _ in range(5):
        sockets.append(socket.socket())
    assert error_of(socket.socket) == errno.ENOMEM
    sockets.pop().close()
    socket.socket().close()
    for sock in sockets:
        sock.close()


def test_datagrams_are_told_apart_by_the_socket_not_by_getaddrinfo():
    (found,) = socket.getaddrinfo("127.0.0.1", 53)
    assert found[1] == socket.SOCK_STREAM and found[4] == ("127.0.0.1", 53)
    assert raises(OSError, socket.getaddrinfo, "no such host", 53)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("0.0.0.0", 20053))
    sock.sendto(b"to myself", ("127.0.0.1", 20053))
    assert poll_one(sock, _IN) == _IN
    assert sock.recvfrom(16)[0] == b"to myself"
    sock.close()
    sleep_ms(1)
