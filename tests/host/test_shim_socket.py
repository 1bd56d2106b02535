"""Sockets on CPython: what tests/portable/test_board_semantics.py cannot ask on every port."""

import errno
import gc
import socket
import time
import warnings

import pytest

import shim_socket


@pytest.fixture
def pair():
    listener = shim_socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    near = shim_socket.socket()
    near.connect(listener._sock.getsockname())
    far, _ = listener.accept()
    listener.close()
    near.setblocking(False)
    far.setblocking(False)
    yield near, far
    near.close()
    far.close()


class FakeKernel:
    """Stands for CPython's socket: answers what it was told, in order."""

    family = socket.AF_INET

    def __init__(self, *answers, so_error=0):
        self.answers = list(answers)
        self.so_error = so_error

    def _next(self):
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def send(self, buf):
        return self._next()

    def recv_into(self, buf, length=0):
        data = self._next()
        buf = memoryview(buf)
        buf[: len(data)] = data
        return len(data)

    def connect(self, address):
        self._next()

    def getsockopt(self, level, option):
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        code, self.so_error = self.so_error, 0
        return code

    def close(self):
        pass


def shim_over(kernel):
    sock = shim_socket.socket.__new__(shim_socket.socket)
    sock._wrap(kernel)
    return sock


# ---------------------------------------------------------------------------
# The stream contract, against a scripted kernel
# ---------------------------------------------------------------------------


def test_write_goes_on_after_a_short_send_until_the_kernel_is_full():
    assert shim_over(FakeKernel(3, 2, BlockingIOError())).write(b"0123456789") == 5
    assert shim_over(FakeKernel(3, 7)).write(b"0123456789") == 10
    assert shim_over(FakeKernel(2, 1)).write(b"0123456789", 4, 3) == 3
    assert shim_over(FakeKernel(BlockingIOError())).write(b"0123456789") is None


def test_write_raises_an_error_behind_a_short_send_as_a_board_does():
    with pytest.raises(ConnectionResetError):
        shim_over(FakeKernel(3, ConnectionResetError(errno.ECONNRESET, "x"))).write(b"012345")


def test_readinto_goes_on_until_the_buffer_is_full_or_nothing_is_left():
    buf = bytearray(6)
    assert shim_over(FakeKernel(b"ab", b"cd", BlockingIOError())).readinto(buf) == 4
    assert buf == b"abcd\0\0"
    assert shim_over(FakeKernel(b"xy", b"")).readinto(buf) == 2
    assert shim_over(FakeKernel(b"012", b"345")).readinto(buf) == 6
    assert buf == b"012345"
    assert shim_over(FakeKernel(b"AB", b"C")).readinto(buf, 3) == 3
    assert buf == b"ABC345"


def test_readinto_loses_what_came_before_an_error_as_a_board_does():
    with pytest.raises(ConnectionResetError):
        shim_over(FakeKernel(b"ab", ConnectionResetError(errno.ECONNRESET, ""))).readinto(
            bytearray(8)
        )


def test_write_and_readinto_during_a_connect_answer_none_where_the_kernel_says_enotconn():
    """macOS; Linux says EAGAIN, and boards do."""
    not_connected = OSError(errno.ENOTCONN, "Socket is not connected")
    in_progress = BlockingIOError(errno.EINPROGRESS, "")
    sock = shim_over(FakeKernel(in_progress, not_connected, not_connected, 3, not_connected))
    with pytest.raises(OSError) as caught:
        sock.connect(("127.0.0.1", 1883))
    assert caught.value.errno == errno.EINPROGRESS
    assert sock.write(b"abc") is None
    assert sock.readinto(bytearray(3)) is None
    assert sock.write(b"abc") == 3
    with pytest.raises(OSError):
        sock.readinto(bytearray(3))  # was connected: now it is an error


def test_a_failed_connect_that_shows_as_enotconn_raises_the_reason():
    not_connected = OSError(errno.ENOTCONN, "Socket is not connected")
    in_progress = BlockingIOError(errno.EINPROGRESS, "")
    kernel = FakeKernel(in_progress, not_connected, so_error=errno.ECONNREFUSED)
    sock = shim_over(kernel)
    with pytest.raises(OSError):
        sock.connect(("127.0.0.1", 1883))
    with pytest.raises(OSError) as caught:
        sock.write(b"abc")
    assert caught.value.errno == errno.ECONNREFUSED


# ---------------------------------------------------------------------------
# The board's methods
# ---------------------------------------------------------------------------


def test_there_is_nothing_on_a_socket_that_a_board_has_not(pair):
    names = {name for name in dir(pair[0]) if not name.startswith("_")}
    assert names == {
        *("accept", "bind", "close", "connect", "fileno", "listen", "read", "readinto", "recv"),
        *("recvfrom", "send", "sendto", "setblocking", "setsockopt", "settimeout", "write"),
    }


def test_a_large_buffer_goes_through_whole_and_in_order(pair):
    near, far = pair
    data = bytes(range(256)) * 4096
    sent, got = 0, bytearray()
    while len(got) < len(data):
        sent += near.write(data, sent, len(data) - sent) or 0
        got += far.read(65536) or b""
    assert got == data and far.read(1) is None


def test_read_without_a_length_takes_all_that_is_there(pair):
    near, far = pair
    near.write(bytes(1000))
    time.sleep(0.02)
    assert far.read() == bytes(1000)
    assert far.read() is None
    near.close()
    time.sleep(0.02)
    assert far.read() == b""


def test_a_blocking_readinto_waits_until_the_buffer_is_full(pair):
    near, far = pair
    far.setblocking(True)
    near.write(b"abc")
    near.write(b"def")
    buf = bytearray(6)
    assert far.readinto(buf) == 6 and buf == b"abcdef"


@pytest.mark.parametrize("call", ["readinto", "read", "recv", "accept"])
def test_a_timeout_is_an_oserror_with_etimedout(call, pair):
    sock = pair[0]
    if call == "accept":
        sock = shim_socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
    sock.settimeout(0.01)
    arguments = {"readinto": (bytearray(4),), "accept": ()}.get(call, (4,))
    with pytest.raises(OSError) as caught:
        getattr(sock, call)(*arguments)
    assert caught.value.errno == errno.ETIMEDOUT
    sock.close()


def test_an_accepted_socket_blocks_whatever_the_listener_does():
    listener = shim_socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    near = shim_socket.socket()
    near.connect(listener._sock.getsockname())
    listener.setblocking(False)
    far, _ = listener.accept()
    assert far._sock.gettimeout() is None
    for sock in (listener, near, far):
        sock.close()


@pytest.mark.parametrize("host", ["localhost", "broker.example", ""])
def test_connect_refuses_a_host_name(host):
    sock = shim_socket.socket()
    with pytest.raises(ValueError, match="getaddrinfo"):
        sock.connect((host, 1883))
    sock.close()


def test_connect_takes_what_getaddrinfo_gave_ipv4_and_ipv6():
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        listener = shim_socket.socket(family)
        try:
            listener.bind((host, 0))
        except OSError:
            listener.close()
            continue  # a machine without IPv6
        listener.listen()
        port = listener._sock.getsockname()[1]
        found = shim_socket.getaddrinfo(host, port, 0, shim_socket.SOCK_STREAM)
        sock = shim_socket.socket(found[0][0], found[0][1], found[0][2])
        sock.connect(found[0][-1])
        sock.setsockopt(shim_socket.IPPROTO_TCP, shim_socket.TCP_NODELAY, 1)
        sock.close()
        listener.close()


@pytest.mark.parametrize("host", ["no such host", "a..b", "x" * 64 + ".example", "nul\0"])
def test_what_is_no_host_is_an_oserror_with_a_negative_number(host):
    with pytest.raises(OSError) as caught:
        shim_socket.getaddrinfo(host, 1883)
    assert caught.value.args[0] < 0


def test_datagrams_go_and_come():
    near = shim_socket.socket(shim_socket.AF_INET, shim_socket.SOCK_DGRAM)
    far = shim_socket.socket(shim_socket.AF_INET, shim_socket.SOCK_DGRAM)
    far.bind(("127.0.0.1", 0))
    far.settimeout(5)
    assert near.sendto(b"query", far._sock.getsockname()) == 5
    data, address = far.recvfrom(100)
    assert data == b"query"
    far.sendto(b"answer", address)
    near.settimeout(5)
    assert near.recvfrom(100)[0] == b"answer"
    near.close()
    far.close()


def test_close_twice_does_no_harm_and_the_descriptor_is_gone(pair):
    near, _ = pair
    near.close()
    near.close()
    assert near.fileno() == -1


def test_a_socket_is_found_by_identity(pair):
    near, far = pair
    assert {near: 1, far: 2}[near] == 1
    assert near != far


def test_a_forgotten_socket_says_resource_warning():
    gc.collect()  # not those that other tests have forgotten
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shim_socket.socket()
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]


def test_an_error_of_write_leaves_no_view_of_the_buffer_behind():
    near = shim_socket.socket()
    buf = bytearray(b"abcdef")
    with pytest.raises(OSError) as caught:
        near.write(buf, 1, 3)  # not connected
    buf.clear()  # would raise BufferError while a view lives in the traceback
    assert caught.value.errno
    near.close()
