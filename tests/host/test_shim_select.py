"""poll() on CPython: what tests/portable/test_board_semantics.py cannot ask on every port."""

import errno
import gc
import os
import socket
import subprocess
import sys
import threading
import time
import weakref

import pytest

import shim_io
import shim_select
import shim_socket
import shim_tls

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

POLLIN = 1
POLLOUT = 4
POLLNVAL = 32

# A sleep that something has to end: a busy machine does not take half as long to do that.
LONG_MS = 20_000


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


def shim_pair():
    listener = shim_socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    near = shim_socket.socket()
    near.connect(listener._sock.getsockname())
    far, _ = listener.accept()
    listener.close()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


def test_a_system_without_poll_is_told_at_the_import():
    code = "import select, sys; del select.poll; sys.path[:0] = %r; import mqttpipe" % (
        [os.path.join(ROOT, "micropython"), os.path.dirname(shim_select.__file__)],
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=60, text=True
    )
    assert ran.returncode == 1
    error = ran.stderr.strip().splitlines()[-1]
    assert error.startswith("ImportError: mqttpipe needs select.poll(), which ")
    assert error.endswith(" not on Windows: use WSL or a container there")


def test_cpython_s_own_sockets_and_descriptors_can_be_watched(pair):
    near, far = pair
    poller = shim_select.poll()
    poller.register(near, POLLIN)
    poller.register(far.fileno(), POLLIN)
    assert poller.poll(0) == []
    far.send(b"x")
    assert poller.poll(1000) == [(near, POLLIN)]
    near.recv(1)
    near.send(b"x")
    assert poller.poll(1000) == [(far.fileno(), POLLIN)]
    poller.unregister(far.fileno())
    assert poller.poll(0) == []


def test_a_descriptor_is_its_number_whichever_object_says_it(pair):
    near, far = pair
    number = 1000
    os.dup2(far.fileno(), number)
    try:
        poller = shim_select.poll()
        poller.register(int("1000"), POLLIN)
        near.send(b"x")
        assert poller.poll(1000) == [(number, POLLIN)]
        poller.unregister(int("1000"))
        assert poller.poll(0) == []
    finally:
        os.close(number)


def test_the_module_has_the_board_s_names_and_numbers():
    assert (shim_select.POLLIN, shim_select.POLLOUT) == (1, 4)
    assert (shim_select.POLLERR, shim_select.POLLHUP) == (8, 16)
    assert not hasattr(shim_select, "POLLNVAL"), "no board exports it"


def test_objects_are_told_apart_by_identity():
    class Equal(shim_io.IOBase):
        ready = 0

        def __eq__(self, other):
            return True

        __hash__ = None

        def ioctl(self, request, arg):
            return self.ready if request == 3 else -1

    first, second = Equal(), Equal()
    poller = shim_select.poll()
    poller.register(first, POLLIN)
    poller.register(second, POLLIN)
    second.ready = POLLIN
    ((obj, _),) = poller.poll(0)
    assert obj is second


def test_a_registered_object_is_kept_alive_until_it_is_unregistered():
    class Plain(shim_io.IOBase):
        def ioctl(self, request, arg):
            return -1 if request != 3 else 0

    obj = Plain()
    reference = weakref.ref(obj)
    poller = shim_select.poll()
    poller.register(obj, POLLIN)
    del obj
    gc.collect()
    assert reference() is not None
    poller.unregister(reference())
    poller.poll(0)
    gc.collect()
    assert reference() is None


def test_data_that_arrives_wakes_a_sleeping_poll():
    near, far = shim_pair()
    poller = shim_select.poll()
    poller.register(near, POLLIN)

    def later():
        time.sleep(0.05)
        far.write(b"x")

    thread = threading.Thread(target=later)
    thread.start()
    before = time.monotonic()
    assert poller.poll(LONG_MS) == [(near, POLLIN)]
    assert time.monotonic() - before < LONG_MS / 2000, "it slept to the end"
    thread.join()
    near.close()
    far.close()


def test_no_timeout_is_for_ever_whichever_way_it_is_said(pair):
    near, far = pair
    poller = shim_select.poll()
    poller.register(near, POLLIN)
    for arguments in ((), (-1,), (None,)):
        timer = threading.Timer(0.02, far.send, (b"x",))
        timer.start()
        assert poller.poll(*arguments) == [(near, POLLIN)]
        near.recv(1)
        timer.join()


def test_modify_counts_for_a_sleep_as_well_as_for_a_look(pair):
    near, _ = pair
    poller = shim_select.poll()
    poller.register(near, POLLIN)
    assert poller.poll(0) == poller.poll(5) == []
    poller.modify(near, POLLIN | POLLOUT)
    assert poller.poll(0) == poller.poll(5) == [(near, POLLOUT)]
    poller.modify(near, POLLIN)
    assert poller.poll(0) == poller.poll(5) == []


def test_a_closed_shim_socket_stays_invalid_when_its_number_is_taken_by_another():
    near, far = shim_pair()
    poller = shim_select.poll()
    poller.register(near, POLLIN)
    assert poller.poll(0) == []
    number = near.fileno()
    near.close()
    other_near, other_far = shim_pair()
    taken_by = [sock for sock in (other_near, other_far) if sock.fileno() == number]
    assert poller.poll(0) == poller.poll(50) == [(near, POLLNVAL)]
    for sock in taken_by:
        poller.register(sock, POLLOUT)
        assert sorted(events for _, events in poller.poll(0)) == [POLLOUT, POLLNVAL]
        poller.modify(near, POLLOUT)  # must not reach the new owner of the number
        poller.unregister(near)
        assert poller.poll(0) == [(sock, POLLOUT)]
    assert taken_by, "the system gave other numbers; nothing was tested"
    for sock in (far, other_near, other_far):
        sock.close()


def test_a_closed_cpython_socket_is_invalid_even_when_its_number_was_registered_again():
    first = socket.socket()
    poller = shim_select.poll()
    poller.register(first, POLLIN)
    number = first.fileno()
    first.close()
    assert poller.poll(0) == [(first, POLLNVAL)]
    second = socket.socket()
    assert second.fileno() == number
    poller.register(second, 0)
    assert (first, POLLNVAL) in poller.poll(0)
    assert (second, POLLNVAL) not in poller.poll(0)
    second.close()


def test_a_socket_registered_after_its_close_is_invalid():
    sock = shim_socket.socket()
    sock.close()
    poller = shim_select.poll()
    poller.register(sock, POLLIN)
    assert poller.poll(0) == poller.poll(1000) == [(sock, POLLNVAL)]


def test_an_object_with_pending_bytes_is_readable_at_once(pair):
    """As a TLS socket that has decrypted more than was asked for: the kernel knows nothing."""

    class Buffered:
        def __init__(self, sock):
            self.fileno = sock.fileno
            self.waiting = 0

        def pending(self):
            return self.waiting

    near, far = pair
    buffered = Buffered(near)
    poller = shim_select.poll()
    poller.register(buffered, POLLIN)
    assert poller.poll(0) == poller.poll(5) == []
    buffered.waiting = 3
    before = time.monotonic()
    assert poller.poll(LONG_MS) == [(buffered, POLLIN)]
    assert time.monotonic() - before < LONG_MS / 2000, "it slept to the end"
    poller.modify(buffered, POLLOUT)
    assert poller.poll(0) == [(buffered, POLLOUT)], "nobody asked for reading"
    poller.modify(buffered, POLLIN)
    buffered.waiting = 0
    far.send(b"x")
    assert poller.poll(1000) == [(buffered, POLLIN)]


class Handshaking:
    """As a TLS stream whose library waits for a direction of its own."""

    def __init__(self, sock, wanted=0):
        self.fileno = sock.fileno
        self.direction = wanted
        self.questions = 0

    def wanted(self):
        self.questions += 1
        return self.direction


def test_the_direction_that_the_library_waits_for_is_watched_instead(pair):
    near, far = pair
    stream = Handshaking(near, wanted=POLLIN)
    poller = shim_select.poll()
    poller.register(stream, POLLOUT)
    before = time.monotonic()
    assert poller.poll(0) == poller.poll(50) == [], "writable, but that is of no use now"
    assert time.monotonic() - before >= 0.05
    assert stream.questions < 10, "it slept, it did not spin"
    threading.Timer(0.02, far.send, (b"x",)).start()
    assert poller.poll(5000) == [(stream, POLLIN | POLLOUT)], "the caller must try again"
    poller.modify(stream, POLLIN | POLLOUT)
    assert poller.poll(0) == [(stream, POLLIN | POLLOUT)]
    near.recv(1)
    assert poller.poll(0) == []
    stream.direction = 0
    assert poller.poll(0) == poller.poll(5) == [(stream, POLLOUT)]

    stream.direction = POLLOUT
    poller.modify(stream, POLLIN)
    assert poller.poll(0) == poller.poll(5) == [(stream, POLLIN | POLLOUT)]
    poller.modify(stream, 0)
    assert poller.poll(0) == poller.poll(5) == [], "asked for nothing"


def test_another_object_of_the_descriptor_is_not_watched_for_the_wanted_direction(pair):
    near, far = pair
    stream = Handshaking(near, wanted=POLLIN)
    poller = shim_select.poll()
    poller.register(near, POLLOUT)
    poller.register(stream, POLLOUT)
    assert poller.poll(0) == poller.poll(5) == [(near, POLLOUT)]


def test_a_tls_stream_waits_for_the_server_whatever_is_asked():
    near, far = shim_pair()
    context = shim_tls.SSLContext(shim_tls.PROTOCOL_TLS_CLIENT)
    stream = shim_tls.wrap_tls(context, near, "localhost")
    poller = shim_select.poll()
    poller.register(stream, POLLOUT)
    assert poller.poll(1000) == [(stream, POLLOUT)], "there is nothing that it waits for yet"
    assert stream.write(b"x") is None, "the first bytes of the handshake have left"
    assert poller.poll(0) == poller.poll(20) == []
    assert stream.readinto(bytearray(1)) is None
    assert poller.poll(0) == [(stream, POLLOUT)], "who reads waits for reading by himself"
    assert stream.write(b"x") is None
    far.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
    assert poller.poll(1000) == [(stream, POLLIN | POLLOUT)]
    with pytest.raises(OSError):
        stream.write(b"x")
    assert poller.poll(0) == poller.poll(1000) == [(stream, POLLNVAL)]
    stream.close()
    near.close()
    far.close()


def test_a_closed_tls_stream_stays_invalid_when_its_number_is_taken_by_another():
    near, far = shim_pair()
    stream = shim_tls.wrap_tls(shim_tls.SSLContext(shim_tls.PROTOCOL_TLS_CLIENT), near, "x")
    poller = shim_select.poll()
    poller.register(stream, POLLOUT)
    assert poller.poll(1000) == [(stream, POLLOUT)]
    number = near.fileno()
    stream.close()
    other_near, other_far = shim_pair()
    numbers = (other_near.fileno(), other_far.fileno())
    assert number in numbers, "the system gave other numbers; nothing was tested"
    assert poller.poll(0) == poller.poll(50) == [(stream, POLLNVAL)]
    for sock in (far, other_near, other_far):
        sock.close()


def test_two_objects_with_one_descriptor_both_answer(pair):
    """A socket and the TLS object around it."""

    class Around:
        def __init__(self, sock):
            self.fileno = sock.fileno

    near, far = pair
    around = Around(near)
    poller = shim_select.poll()
    poller.register(near, POLLIN)
    poller.register(around, POLLOUT)
    assert poller.poll(0) == [(around, POLLOUT)]
    far.send(b"x")
    poller.modify(around, 0)
    assert poller.poll(1000) == [(near, POLLIN)]
    poller.unregister(near)
    poller.modify(around, POLLIN)
    assert poller.poll(0) == [(around, POLLIN)]


def test_errors_are_the_board_s(pair):
    poller = shim_select.poll()
    with pytest.raises(OSError) as caught:
        poller.modify(pair[0], POLLIN)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="stream operation not supported"):
        poller.register(object(), POLLIN)
    assert poller.poll(0) == [], "a failed register leaves nothing behind"


def test_a_poll_with_nothing_in_it_just_waits():
    before = time.monotonic()
    assert shim_select.poll().poll(20) == []
    assert time.monotonic() - before >= 0.02


def test_a_dropped_poll_is_not_kept_by_the_sockets_it_watched():
    near, far = shim_pair()
    poller = shim_select.poll()
    poller.register(near, POLLIN)
    reference = weakref.ref(poller)
    del poller
    gc.collect()
    assert reference() is None
    near.close()
    far.close()
