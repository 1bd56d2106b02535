"""The personalities, quirk by quirk, over this machine's loopback; the peer is CPython's socket.

Each test says a quirk that shim_personality.py imitates, with its numbers spelled out.
"""

import contextlib
import gc
import os
import pathlib
import random
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import pytest

import certificates
import shim_errno
import shim_io
import shim_micropython
import shim_personality
import shim_tls
from shim_personality import BoardError, Misuse, Personality

TOP = pathlib.Path(__file__).resolve().parents[2]

IN = 1
OUT = 4
ERR = 8
HUP = 16
NVAL = 32
ALL = IN | OUT | ERR | HUP

WAIT_S = 30
LOOKS = 2000  # 5 ms each: a deadline, not a delay
TCP_NAMES = [name for name in shim_personality.NAMES if name != "faulty"]  # those that connect

NEWLIB = {
    "EPERM": 1,
    "ENOENT": 2,
    "EIO": 5,
    "EBADF": 9,
    "EAGAIN": 11,
    "ENOMEM": 12,
    "EACCES": 13,
    "EEXIST": 17,
    "ENODEV": 19,
    "EISDIR": 21,
    "EINVAL": 22,
    "EOPNOTSUPP": 95,
    "ECONNRESET": 104,
    "ENOBUFS": 105,
    "ECONNREFUSED": 111,
    "EADDRINUSE": 112,
    "ECONNABORTED": 113,
    "ETIMEDOUT": 116,
    "EHOSTUNREACH": 118,
    "EINPROGRESS": 119,
    "EALREADY": 120,
    "ENOTCONN": 128,
}

# As the unix port 1.25 prints its own.
LINUX = dict(
    NEWLIB,
    EADDRINUSE=98,
    ECONNABORTED=103,
    ENOTCONN=107,
    ETIMEDOUT=110,
    EHOSTUNREACH=113,
    EALREADY=114,
    EINPROGRESS=115,
)


class Board:
    """A personality, and the sockets that a test makes of it and against it."""

    def __init__(self, name, stack, seed=1):
        self.personality = Personality(name, seed)
        self.stack = stack
        self.name = name

    def own(self, sock):
        """Close it at the end, if the test has not."""
        self.stack.callback(self._close, sock)
        return sock

    def _close(self, sock):
        with contextlib.suppress(Misuse):
            sock.close()

    def socket(self, *arguments):
        sock = self.own(self.personality.socket(*arguments))
        sock.setblocking(False)
        return sock

    def listen(self, receive_bytes=0):
        listener = self.own(socket.socket())
        if receive_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        return listener

    def address(self, listener):
        """Of the listener, as the personality's getaddrinfo() has it."""
        return self.personality.getaddrinfo(*listener.getsockname()[:2])[0][-1]

    def connecting(self, listener):
        near = self.socket()
        assert number_of(near.connect, self.address(listener)) in (115, 119)
        return near

    def connected(self, receive_bytes=0):
        """A socket of the board that stands, and CPython's at the other end."""
        listener = self.listen(receive_bytes)
        near = self.connecting(listener)
        assert self.wait(near, OUT) == OUT
        far = self.own(listener.accept()[0])
        far.settimeout(WAIT_S)
        return near, far

    def refused(self):
        """One whose connect() was refused, and that knows."""
        listener = self.listen()
        address = self.address(listener)
        listener.close()
        near = self.socket()
        assert number_of(near.connect, address) in (115, 119)
        assert self.wait(near, IN | OUT)
        return near

    def reset(self, data=b""):
        """One that the peer has sent data to, and then reset."""
        near, far = self.connected()
        far.sendall(data)
        if data:
            assert self.wait(near, IN) == IN
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        return near

    def events(self, sock, mask, timeout_ms=0):
        poller = self.personality.poll()
        poller.register(sock, mask)
        for _, events in poller.poll(timeout_ms):
            return events
        return 0

    def wait(self, sock, mask):
        return self.events(sock, mask, WAIT_S * 1000)

    def wait_for(self, sock, mask, events):
        """Look until these are its events."""
        for _ in range(LOOKS):
            if self.events(sock, mask) == events:
                return
            time.sleep(0.005)
        raise AssertionError("%d and never %d" % (self.events(sock, mask), events))


@pytest.fixture
def make_board():
    with contextlib.ExitStack() as stack:
        yield lambda name, seed=1: Board(name, stack, seed)


@pytest.fixture
def esp32(make_board):
    return make_board("esp32")


@pytest.fixture
def rp2(make_board):
    return make_board("rp2")


@pytest.fixture
def unix(make_board):
    return make_board("unix")


@pytest.fixture
def hostile(make_board):
    return make_board("hostile")


def number_of(call, *arguments):
    """Return the errno that the call raises; None if it raises none."""
    try:
        call(*arguments)
    except OSError as error:
        assert type(error) is BoardError, repr(error)
        return error.errno
    return None


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options
    )


def run_code(code):
    environment = dict(
        os.environ, PYTHONPATH="%s:%s" % (TOP / "cpython_shim", TOP / "micropython")
    )
    return run("-c", code, env=environment)


# ---------------------------------------------------------------------------
# Choosing one
# ---------------------------------------------------------------------------


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="esp8266.*esp32, rp2, unix, hostile, faulty"):
        Personality("esp8266")
    with pytest.raises(ValueError, match="no personality 'ESP32'"):
        shim_personality.use("ESP32")
    assert set(Personality._PARTS) == set(shim_personality.NAMES)


def test_use_puts_everything_where_the_client_looks_for_it():
    ran = run_code(
        "import shim_personality; shim_personality.use('esp32');"
        "import mqttpipe, shim_errno;"
        "print(mqttpipe.EAGAIN, mqttpipe.EINPROGRESS, shim_errno.ETIMEDOUT);"
        "print(mqttpipe.select.poll.__name__, mqttpipe.socket.socket.numbers['ENOTCONN'])"
    )
    assert ran.stdout == "11 119 116\n_TickingPoll 128\n", ran.stderr


def test_use_takes_names_away_that_the_unix_port_has_not():
    ran = run_code(
        "import shim_personality; shim_personality.use('unix');"
        "import mqttpipe; s = mqttpipe.socket; print(s.getaddrinfo('127.0.0.1', 1883)[0][3:],"
        "[n for n in ('TCP_NODELAY', 'IPPROTO_TCP', 'SOL_SOCKET') if hasattr(s, n)])"
    )
    expected = (None, bytearray(b"\x02\x00\x07[\x7f\x00\x00\x01\0\0\0\0\0\0\0\0"))
    assert ran.stdout == "%s ['SOL_SOCKET']\n" % (expected,), ran.stderr


def test_use_is_too_late_when_the_client_is_there():
    ran = run_code("import mqttpipe, shim_personality; shim_personality.use('rp2')")
    assert "RuntimeError: too late" in ran.stderr


def test_without_use_nothing_is_different():
    ran = run_code(
        "import shim_socket, shim_select, shim_errno; m = (shim_socket, shim_select, shim_errno);"
        "before = [dict(vars(x)) for x in m]; import shim_personality;"
        "print(before == [dict(vars(x)) for x in m])"
    )
    assert ran.stdout == "True\n", ran.stderr


def test_the_launcher_runs_a_script_with_its_arguments(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys, mqttpipe; print(sys.argv[1:], mqttpipe.EINPROGRESS, __name__)")
    launcher = str(TOP / "tests" / "personality_run.py")
    ran = run(launcher, "esp32", str(script), "a", "b c", cwd=tmp_path)
    assert ran.stdout == "['a', 'b c'] 119 __main__\n" and not ran.stderr
    ran = run(launcher, "hostile:42", str(script), cwd=tmp_path)
    assert ran.stdout == "[] 115 __main__\n" and ran.stderr == "personality hostile:42\n"
    ran = run(launcher, "faulty", str(script), cwd=tmp_path)
    assert ran.stderr.startswith("personality faulty:")
    ran = run(launcher, "esp8266", str(script), cwd=tmp_path)
    assert ran.returncode == 2 and "no personality" in ran.stderr
    script.write_text("import sys; sys.exit(3)")
    assert run(launcher, "rp2", str(script), cwd=tmp_path).returncode == 3
    assert run(launcher).returncode == 2


# ---------------------------------------------------------------------------
# Error numbers
# ---------------------------------------------------------------------------


def test_every_name_of_a_board_has_its_number_in_every_personality():
    assert sorted(shim_errno.__all__) == sorted(NEWLIB)
    for name in shim_personality.NAMES:
        expected = NEWLIB if name == "esp32" else LINUX
        numbers = Personality(name).numbers
        assert {name: numbers[name] for name in NEWLIB} == expected, name


@pytest.mark.parametrize("name", ["esp32", "rp2"])
def test_every_error_has_the_number_and_the_name_of_the_port(make_board, name):
    board = make_board(name)
    numbers = NEWLIB if name == "esp32" else LINUX
    listener = board.listen()

    def error_of(call, *arguments):
        with pytest.raises(OSError) as caught:
            call(*arguments)
        assert type(caught.value) is BoardError
        return caught.value.errno, str(caught.value)

    sock = board.socket()
    closed = board.socket()
    closed.close()
    late = board.socket(socket.AF_INET, socket.SOCK_DGRAM)
    late.settimeout(0.01)
    for expected, call, arguments in (
        ("EADDRINUSE", sock.bind, (listener.getsockname(),)),
        ("EINPROGRESS", sock.connect, (listener.getsockname(),)),
        ("EBADF", closed.write, (b"x",)),
        ("EBADF", closed.readinto, (bytearray(1),)),
        ("ETIMEDOUT", late.recv, (1,)),
        ("ETIMEDOUT", late.readinto, (bytearray(1),)),
    ):
        number = numbers[expected]
        text = "[Errno %d] %s" % (number, expected)
        assert error_of(call, *arguments) == (number, text), expected
    waiting = board.socket()
    waiting.bind(("127.0.0.1", 0))
    waiting.listen()
    assert error_of(waiting.accept) == (11, "[Errno 11] EAGAIN")


@pytest.mark.parametrize("name", TCP_NAMES)
def test_a_timeout_ends_a_call_and_not_the_connection(make_board, name):
    board = make_board(name)
    near, far = board.connected()
    near.settimeout(0.01)
    for _ in range(2):
        assert number_of(near.readinto, bytearray(1)) == (116 if name == "esp32" else 110)
    assert near.write(b"x") == 1
    far.sendall(b"y")
    near.settimeout(WAIT_S)
    assert near.read(1) == b"y"


@pytest.mark.parametrize("name", ["esp32", "rp2"])
def test_no_route_is_told_by_connect_itself(make_board, name):
    near = make_board(name).socket()
    # TCP to everybody: Linux has no route for that.
    assert number_of(near.connect, ("255.255.255.255", 9)) == (118 if name == "esp32" else 113)


@pytest.mark.parametrize("name", ["esp32", "rp2"])
def test_a_connect_that_blocks_ends_with_what_became_of_it(make_board, name):
    board = make_board(name)
    listener = board.listen()
    near = board.own(board.personality.socket())
    near.connect(listener.getsockname())
    assert near.write(b"x") == 1
    address = listener.getsockname()
    listener.close()
    near = board.own(board.personality.socket())
    assert number_of(near.connect, address) == 104


def test_an_unknown_name_is_a_negative_number(esp32):
    with pytest.raises(OSError) as caught:
        esp32.personality.getaddrinfo("no such host", 1883)
    assert caught.value.args[0] < 0


@pytest.mark.parametrize("name", TCP_NAMES)
def test_an_error_leaves_no_view_of_the_buffer_behind(make_board, name):
    board = make_board(name)
    near, far = board.connected()
    near.write(b"never read" * 10)
    far.recv(1)
    far.close()
    errors = []
    for _ in range(LOOKS):
        buf = bytearray(100)
        try:
            near.write(buf, 0, 50)
            near.readinto(buf)
        except OSError as error:
            errors.append(error)
        buf.clear()  # would raise BufferError while somebody has a view of it
        if errors:
            break
    assert errors


@pytest.mark.parametrize("name", TCP_NAMES)
def test_an_accepted_socket_has_the_personality_too(make_board, name):
    board = make_board(name)
    listener = board.socket()
    for number in range(20000, 30000):
        with contextlib.suppress(OSError):
            address = board.personality.getaddrinfo("127.0.0.1", number)[0][-1]
            listener.bind(address)
            break
    listener.listen()
    far = board.own(socket.create_connection(("127.0.0.1", number)))
    assert board.wait(listener, IN) == IN
    near, sender = listener.accept()
    board.own(near)
    assert type(sender) is (bytearray if name == "unix" else tuple)
    assert type(near) is board.personality.socket
    assert near._sock.gettimeout() is None, "it blocks, as on a board"
    near.setblocking(False)
    assert board.wait(near, IN | OUT) == OUT
    far.sendall(b"x")
    assert board.wait(near, IN) == IN


@pytest.mark.parametrize("name", TCP_NAMES)
def test_a_megabyte_goes_each_way_whole_and_in_order(make_board, name):
    board = make_board(name)
    near, far = board.connected()
    data = bytes(range(251)) * 4000

    def mirror():
        with contextlib.suppress(OSError):
            while True:
                piece = far.recv(10000)
                if not piece:
                    return
                far.sendall(piece)

    threading.Thread(target=mirror, daemon=True).start()
    sent = 0
    got = bytearray()
    buf = bytearray(3000)
    poller = board.personality.poll()
    poller.register(near)
    deadline_s = time.monotonic() + 60
    while len(got) < len(data):
        assert time.monotonic() < deadline_s, (sent, len(got))
        # A window of our own, or both ends would wait for each other with full buffers.
        wants = sent < len(data) and sent - len(got) < 50000
        poller.modify(near, IN | (OUT if wants else 0))
        for _, events in poller.poll(1000):
            assert not events & ~(IN | OUT)
        if wants:
            sent += near.write(data, sent, 4096) or 0
        count = near.readinto(buf)
        got += buf[: count or 0]
    assert got == data


# ---------------------------------------------------------------------------
# ESP32
# ---------------------------------------------------------------------------


def test_esp32_connecting_reads_and_writes_answer_none(esp32):
    listener = esp32.listen()
    near = esp32.connecting(listener)
    near._heard_at_s = time.monotonic() + WAIT_S  # a slow network
    assert near.write(b"x") is None
    assert near.readinto(bytearray(1)) is None
    assert near.read(1) is None
    assert number_of(near.recv, 1) == 11
    assert esp32.events(near, ALL) == 0
    near._heard_at_s = 0
    assert esp32.wait(near, OUT) == OUT
    assert near.write(b"x") == 1
    assert near.readinto(bytearray(1)) is None


def test_esp32_a_second_connect_raises_ealready_and_a_third_eisconn(esp32):
    listener = esp32.listen()
    near = esp32.connecting(listener)
    near._heard_at_s = time.monotonic() + WAIT_S
    assert number_of(near.connect, listener.getsockname()) == 120
    near._heard_at_s = 0
    assert esp32.wait(near, OUT) == OUT
    assert number_of(near.connect, listener.getsockname()) == 127


def test_esp32_a_fresh_socket_is_writable_and_hung_up_and_is_neither_read_nor_written(esp32):
    near = esp32.socket()
    assert esp32.events(near, IN | OUT) == OUT | HUP
    assert esp32.events(near, IN) == HUP
    assert number_of(near.readinto, bytearray(1)) == 128
    assert number_of(near.write, b"x") == 128


def test_esp32_a_refused_connection_looks_ready_and_hung_up_only_if_asked(esp32):
    near = esp32.refused()
    assert esp32.events(near, IN | OUT) == IN | OUT
    assert esp32.events(near, OUT) == OUT
    assert esp32.events(near, IN | OUT | ERR) == IN | OUT
    assert esp32.events(near, ALL) == IN | OUT | HUP
    assert esp32.events(near, 0) == 0
    assert number_of(near.connect, ("127.0.0.1", 9)) == 128


def test_esp32_an_error_is_told_once_by_the_mailbox_and_once_by_the_connection(esp32):
    near = esp32.refused()
    told = [number_of(near.write, b"x") for _ in range(2)]
    told += [number_of(near.readinto, bytearray(1)) for _ in range(2)]
    assert told == [104, 128, 104, 128]
    near = esp32.refused()
    told = [number_of(near.readinto, bytearray(1)) for _ in range(3)]
    assert told + [number_of(near.write, b"x")] == [104, 104, 128, 128]


def test_esp32_a_reset_looks_as_a_refusal_does_and_takes_bytes_along(esp32):
    near = esp32.reset(b"abc")
    esp32.wait_for(near, ALL, IN | OUT | HUP)
    assert number_of(near.readinto, bytearray(8)) == 104
    near = esp32.reset(b"abc")
    esp32.wait_for(near, ALL, IN | OUT | HUP)
    assert near.read(3) == b"abc", "what was asked for to the byte is had"
    assert number_of(near.read, 1) == 104


def test_esp32_a_closed_peer_is_something_to_read_for_ever(esp32):
    near, far = esp32.connected()
    far.close()
    esp32.wait_for(near, IN | HUP, IN)
    for _ in range(3):
        assert near.readinto(bytearray(4)) == 0
        assert esp32.events(near, IN | HUP) == IN


def test_esp32_a_closed_socket_has_nothing_to_say_of_its_settings(esp32):
    near = esp32.socket()
    near.close()
    assert near.setblocking(False) is None
    assert near.settimeout(1) is None


def test_esp32_an_ipv6_literal_has_no_address_but_the_pair_serves(esp32):
    assert esp32.personality.getaddrinfo("::1", 1883)[0][:2] == (10, 1)
    assert all(found[-1] is None for found in esp32.personality.getaddrinfo("::1", 1883))
    assert esp32.personality.getaddrinfo("127.0.0.1", 1883)[0][-1] == ("127.0.0.1", 1883)
    try:
        listener = esp32.own(socket.socket(socket.AF_INET6))
        listener.bind(("::1", 0))
    except OSError:
        pytest.skip("a machine without IPv6")
    listener.listen()
    near = esp32.socket(socket.AF_INET6)
    assert number_of(near.connect, ("::1", listener.getsockname()[1])) == 119
    assert esp32.wait(near, OUT) == OUT
    assert number_of(esp32.socket().connect, ("::1", 1)) == 22  # of AF_INET
    with pytest.raises(TypeError):
        esp32.socket().connect(None)


def test_esp32_a_closed_socket_is_invalid_and_closing_it_again_is_nothing(esp32):
    near, _ = esp32.connected()
    poller = esp32.personality.poll()
    poller.register(near, IN)
    near.close()
    assert poller.poll(0) == [(near, NVAL)]
    near.close()
    assert near.fileno() == -1
    assert number_of(near.readinto, bytearray(1)) == number_of(near.write, b"x") == 9


def test_esp32_what_arrives_does_not_wake_a_poll_but_is_seen_with_the_next_tick(
    esp32, monkeypatch
):
    near, far = esp32.connected()
    pauses = []

    def pause(left_ms):
        pauses.append(left_ms)
        if len(pauses) == 3:
            far.sendall(b"x")
            select.select([near.fileno()], [], [], WAIT_S)

    monkeypatch.setattr(shim_personality, "_sleep_until_schedule", pause)
    assert esp32.events(near, IN, 60_000) == IN
    assert len(pauses) == 3 and all(1 <= left_ms <= 10 for left_ms in pauses)


def test_esp32_an_assignment_in_a_thread_does_not_wake_a_poll_and_schedule_does(
    esp32, monkeypatch
):
    class Flag(shim_io.IOBase):
        ready = 0

        def ioctl(self, request, arg):
            return self.ready if request == 3 else -1

    flag = Flag()
    seen = []

    def later():
        while not shim_micropython._sleeps:
            time.sleep(0.001)
        flag.ready = IN
        seen.append(flag._shim_watchers)
        shim_micropython.schedule(seen.append, "scheduled")

    # The next tick is 90 s away: the test would end before.
    monkeypatch.setattr(shim_personality._TickingPoll, "TICK_MS", 1 << 40)
    monkeypatch.setattr(
        shim_personality.time, "monotonic_ns", lambda: 10**6 * ((1 << 40) - 90_000)
    )
    thread = threading.Thread(target=later)
    thread.start()
    assert esp32.events(flag, IN, 1 << 30) == IN
    thread.join()
    assert seen == [0, "scheduled"]


def test_esp32_has_few_sockets_and_then_enfile(esp32):
    sockets = [esp32.socket() for _ in range(6)]
    with pytest.raises(OSError) as caught:
        esp32.socket()
    assert caught.value.errno == 23
    sockets.pop().close()
    sockets.append(esp32.socket(socket.AF_INET, socket.SOCK_DGRAM))
    assert number_of(esp32.socket) == 23, "a datagram socket is one, too"


def test_esp32_forgotten_sockets_are_collected_before_it_gives_up(esp32):
    for _ in range(6):
        sock = esp32.personality.socket()
        sock.cycle = sock
        sock._sock.close()  # without the ResourceWarning; the board's count is the question
    del sock
    gc.disable()
    try:
        esp32.socket()
    finally:
        gc.enable()


def test_esp32_never_hears_that_nobody_wants_its_datagrams(esp32):
    check_that_refused_datagrams_are_not_told(esp32)


def check_that_refused_datagrams_are_not_told(board):
    nobody = board.own(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    nobody.bind(("127.0.0.1", 0))
    address = nobody.getsockname()
    nobody.close()
    near = board.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.connect(address)
    for _ in range(3):
        assert near.write(b"query") == 5
        select.select([near.fileno()], [], [], 0.2)  # the kernel has heard
        assert board.events(near, IN) == 0
        assert near.write(b"query") == 5
        select.select([near.fileno()], [], [], 0.2)
        assert near.write(b"query") == 5
        select.select([near.fileno()], [], [], 0.2)
        assert number_of(near.recv, 10) == 11
        assert near.write(b"query") == 5
        select.select([near.fileno()], [], [], 0.2)
        assert near.readinto(bytearray(10)) is None


# ---------------------------------------------------------------------------
# rp2
# ---------------------------------------------------------------------------


def test_rp2_connecting_neither_reads_nor_writes(rp2):
    listener = rp2.listen()
    near = rp2.connecting(listener)
    near._heard_at_s = time.monotonic() + WAIT_S  # a slow network
    assert near.write(b"x") is None
    assert near.readinto(bytearray(1)) is None
    assert near.read(1) is None
    assert rp2.events(near, ALL) == 0
    near._heard_at_s = 0
    assert rp2.wait(near, OUT) == OUT
    assert near.write(b"x") == 1


def test_rp2_a_second_connect_raises_ealready_and_a_third_eisconn(rp2):
    listener = rp2.listen()
    near = rp2.connecting(listener)
    near._heard_at_s = time.monotonic() + WAIT_S
    assert number_of(near.connect, listener.getsockname()) == 114
    near._heard_at_s = 0
    assert rp2.wait(near, OUT) == OUT
    assert number_of(near.connect, listener.getsockname()) == 106


def test_rp2_a_fresh_socket_is_hung_up(rp2):
    near = rp2.socket()
    assert rp2.events(near, IN) == HUP
    assert rp2.events(near, IN | OUT) == OUT | HUP
    assert near.readinto(bytearray(1)) is None
    assert number_of(near.write, b"x") == 107


def test_rp2_a_refused_connection_is_a_reset_with_err_and_hup(rp2):
    near = rp2.refused()
    assert rp2.events(near, IN | OUT) == IN | OUT | ERR | HUP
    assert rp2.events(near, 0) == ERR | HUP
    assert [number_of(near.write, b"x") for _ in range(3)] == [104] * 3
    assert number_of(near.connect, ("127.0.0.1", 9)) == 9, "the PCB is gone"


def test_rp2_the_code_of_a_reset_is_cleared_by_one_read_and_then_nothing_may_be_written(rp2):
    near = rp2.refused()
    assert number_of(near.readinto, bytearray(1)) == 104
    assert near.readinto(bytearray(1)) == 0
    assert rp2.events(near, IN | OUT) == IN | HUP
    with pytest.raises(Misuse):
        near.write(b"x")


def test_rp2_another_failure_is_err_alone_and_one_read_makes_the_socket_invalid(rp2):
    near = rp2.connecting(rp2.listen())
    near._fail(110)  # Linux's ETIMEDOUT: no loopback loses packets
    assert rp2.events(near, IN | OUT) == ERR
    assert [number_of(near.write, b"x") for _ in range(2)] == [103, 103]
    assert number_of(near.readinto, bytearray(1)) == 103
    assert number_of(near.readinto, bytearray(1)) == number_of(near.write, b"x") == 9
    assert rp2.events(near, IN | OUT) == NVAL


def test_rp2_what_came_before_another_failure_is_still_to_be_read(rp2):
    near, far = rp2.connected()
    far.sendall(b"abc")
    assert rp2.wait(near, IN) == IN
    near._fail(110)
    assert rp2.events(near, IN | OUT) == IN | ERR
    assert near.read(3) == b"abc"
    assert rp2.events(near, IN | OUT) == ERR
    assert number_of(near.read, 3) == 103


def test_rp2_a_reset_takes_bytes_along(rp2):
    near = rp2.reset(b"abc")
    rp2.wait_for(near, IN | OUT, IN | OUT | ERR | HUP)
    assert number_of(near.readinto, bytearray(8)) == 104
    near = rp2.reset(b"abc")
    rp2.wait_for(near, IN | OUT, IN | OUT | ERR | HUP)
    assert near.read(3) == b"abc"
    assert number_of(near.read, 1) == 104


def test_rp2_a_closed_peer_is_readable_and_writable(rp2):
    near, far = rp2.connected()
    near._in_flight, near._asked_at_s = 6400, time.monotonic() + 1000  # the buffer is full
    assert rp2.events(near, IN | OUT) == 0
    far.shutdown(socket.SHUT_WR)
    rp2.wait_for(near, IN | OUT, IN | OUT)
    assert near.readinto(bytearray(1)) == 0


def test_rp2_takes_6400_bytes_and_then_waits_for_a_round_trip(rp2):
    near, far = rp2.connected()
    data = bytes(20000)
    near._in_flight, near._asked_at_s = 1, time.monotonic() + WAIT_S  # no word of the peer yet
    assert near.write(data) == 6399
    assert near.write(data) is None
    assert rp2.events(near, OUT) == 0
    near._asked_at_s = 0
    assert rp2.wait(near, OUT) == OUT
    assert near.write(data, 6399, 20000) == 6400


def test_rp2_bytes_on_their_way_fill_segments_of_800(rp2, monkeypatch):
    near, _ = rp2.connected()
    cls = type(near)
    assert near.write(b"x") == 1
    for unacknowledged, room in ((1, 5600), (800, 5600), (801, 4800), (6399, 0), (0, 6400)):
        monkeypatch.setattr(cls, "_unacknowledged", lambda self, n=unacknowledged: n)
        near._in_flight, near._asked_at_s = 1, 0
        assert near._send_buffer_bytes() == room


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="TIOCOUTQ is Linux's")
def test_rp2_the_window_opens_again_only_as_the_peer_takes(rp2):
    near, far = rp2.connected(receive_bytes=2048)
    written = quiet = 0
    while quiet < 50:  # round trips in which nothing more was taken
        count = near.write(bytes(1000))
        written += count or 0
        quiet = 0 if count else quiet + 1
        time.sleep(shim_personality.ROUND_TRIP_S)
        assert written < 1_000_000
    assert near._unacknowledged() > 6400 - 800
    assert rp2.events(near, OUT) == 0
    receive(far, written)
    rp2.wait_for(near, OUT, OUT)
    assert near.write(bytes(10000)) == 6400


def test_rp2_close_twice_does_no_harm_and_a_closed_socket_is_invalid(rp2):
    near, _ = rp2.connected()
    poller = rp2.personality.poll()
    poller.register(near, IN)
    near.close()
    near.close()
    assert poller.poll(0) == [(near, NVAL)]


def test_rp2_is_woken_by_what_arrives(rp2):
    near, far = rp2.connected()
    threading.Timer(0.02, far.sendall, (b"x",)).start()
    assert rp2.wait(near, IN) == IN


def test_rp2_never_hears_that_nobody_wants_its_datagrams(rp2):
    check_that_refused_datagrams_are_not_told(rp2)


def test_rp2_a_sleep_does_not_spin_while_the_kernel_is_ready_and_the_socket_is_not(rp2):
    near = rp2.connecting(rp2.listen())
    near._heard_at_s = time.monotonic() + WAIT_S
    questions = []
    ask = near._shim_events

    class Counted:
        fileno = near.fileno

        def _shim_events(self, mask):
            questions.append(mask)
            return ask(mask)

    assert rp2.events(Counted(), OUT, 50) == 0
    assert len(questions) <= 2 * 50 + 3


# ---------------------------------------------------------------------------
# unix
# ---------------------------------------------------------------------------


def test_unix_addresses_are_bytearrays_as_the_real_vm_prints_them(unix):
    found = unix.personality.getaddrinfo("127.0.0.1", 1883, 0, socket.SOCK_STREAM)
    address = bytearray(b"\x02\x00\x07[\x7f\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00")
    assert found == [(2, 1, 6, None, address)]
    found = unix.personality.getaddrinfo("::1", 1883, 0, socket.SOCK_STREAM)
    address = bytearray(b"\n\x00\x07[" + bytes(19) + b"\x01" + bytes(4))
    assert found == [(10, 1, 6, None, address)]


def test_unix_a_tuple_is_no_address(unix):
    sock = unix.socket()
    for call in (sock.connect, sock.bind):
        with pytest.raises(TypeError, match="buffer protocol"):
            call(("127.0.0.1", 1883))
    datagrams = unix.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with pytest.raises(TypeError, match="buffer protocol"):
        datagrams.sendto(b"x", ("127.0.0.1", 1883))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_unix_such_addresses_go_and_come(unix, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    near = unix.socket(family, socket.SOCK_DGRAM)
    far = unix.socket(family, socket.SOCK_DGRAM)
    try:
        far.bind(unix.personality.getaddrinfo(host, 0)[0][-1])
    except OSError:
        pytest.skip("a machine without IPv6")
    port = far._sock.getsockname()[1]
    address = unix.personality.getaddrinfo(host, port)[0][-1]
    near.sendto(b"query", address)
    assert unix.wait(far, IN) == IN
    data, sender = far.recvfrom(100)
    assert data == b"query" and type(sender) is bytes
    far.sendto(b"answer", sender)
    assert unix.wait(near, IN) == IN
    assert near.recvfrom(100) == (b"answer", bytes(address))


def test_unix_an_unknown_name_has_a_text_where_others_have_a_number(unix):
    with pytest.raises(OSError) as caught:
        unix.personality.getaddrinfo("no such host", 1883)
    text = "[addrinfo error -2]"
    assert caught.value.args == (text,)
    assert caught.value.errno == text and str(caught.value) == text


def test_unix_closing_twice_is_caught(unix):
    near, _ = unix.connected()
    near.close()
    with pytest.raises(Misuse, match="somebody else's"):
        near.close()
    assert unix.events(near, IN) == NVAL


def test_unix_polls_as_the_real_vm_does(unix):
    assert unix.events(unix.socket(), IN | OUT) == OUT | HUP
    near = unix.refused()
    assert unix.events(near, IN | OUT) == IN | OUT | ERR | HUP
    assert number_of(near.write, b"x") == 111
    assert near.read(1) == b""


# ---------------------------------------------------------------------------
# Hostile, and TLS over all of them
# ---------------------------------------------------------------------------


def test_hostile_moves_few_bytes_of_every_count_or_none_although_it_is_ready(hostile):
    near, far = hostile.connected()
    data = bytes(range(200)) * 100
    wrote, got = [], []
    written = received = 0
    while written < len(data):
        assert hostile.wait(near, OUT) & OUT
        wrote.append(near.write(data, written, 300))
        written += wrote[-1] or 0
    assert receive(far, len(data)) == data
    far.sendall(data)
    buf = bytearray(300)
    back = bytearray()
    while received < len(data):
        assert hostile.wait(near, IN) & IN
        got.append(near.readinto(buf))
        back += buf[: got[-1] or 0]
        received += got[-1] or 0
    assert back == data
    for counts in (wrote, got):
        assert {None, 1, 2, 3, 4, 5, 6, 7, 8} <= set(counts)
        assert max(count or 0 for count in counts) > 200
        storms = "".join("n" if count is None else "." for count in counts).split(".")
        assert 3 < len(max(storms, key=len)) <= 3 * 20, "they last, and each has an end"


def receive(far, length):
    """Return so many bytes that have come to CPython's socket."""
    got = bytearray()
    while len(got) < length:
        piece = far.recv(length - len(got))
        assert piece
        got += piece
    return got


def test_hostile_does_the_same_again_with_the_same_seed(make_board):
    def run_once(seed):
        near, _ = make_board("hostile", seed).connected()
        return [near.write(bytes(50)) for _ in range(100)]

    assert run_once(7) == run_once(7) != run_once(8)


def test_hostile_leaves_alone_what_blocks_and_datagrams_and_send(hostile):
    near, far = hostile.connected()
    assert all(near.send(bytes(50)) == 50 for _ in range(50))
    near.setblocking(True)
    assert all(near.write(bytes(50)) == 50 for _ in range(50))
    far.sendall(bytes(50 * 50))
    buf = bytearray(50)
    assert all(near.readinto(buf) == 50 for _ in range(50))
    datagrams = hostile.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver = hostile.own(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("127.0.0.1", 0))
    datagrams.connect(receiver.getsockname())
    assert all(datagrams.write(bytes(50)) == 50 for _ in range(50))


def test_hostile_no_bytes_are_no_bytes_and_not_none(hostile):
    near, _ = hostile.connected()
    for _ in range(100):
        assert near.write(b"") == 0
        assert near.readinto(bytearray(4), 0) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("name", TCP_NAMES)
def test_tls_works_over_every_personality(make_board, made, name):
    board = make_board(name)
    near, far = board.connected()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server.cert_pem_file, made.server.key_pem_file)
    errors = []

    def echo():
        try:
            with context.wrap_socket(far, server_side=True) as server:
                while True:
                    piece = server.recv(10000)
                    if not piece:
                        return
                    server.sendall(piece)
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=echo)
    thread.start()
    client = shim_tls.SSLContext(shim_tls.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(made.ca.cert_pem)
    stream = shim_tls.wrap_tls(client, near, "localhost")
    poller = board.personality.poll()
    poller.register(stream)
    data = bytes(range(250)) * 40
    sent = 0
    back = bytearray()
    buf = bytearray(3000)
    while len(back) < len(data):
        poller.modify(stream, IN | (OUT if sent < len(data) else 0))
        assert poller.poll(WAIT_S * 1000), (sent, len(back), errors)
        if sent < len(data):
            sent += stream.write(data, sent, len(data) - sent) or 0
        count = stream.readinto(buf)
        back += buf[: count or 0]
    assert back == data
    stream.close()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_the_poll_of_a_tls_stream_says_what_the_socket_below_says(rp2, made):
    near = rp2.refused()
    context = shim_tls.SSLContext(shim_tls.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(made.ca.cert_pem)
    stream = shim_tls.wrap_tls(context, near, "localhost")
    assert rp2.events(stream, IN | OUT) == IN | OUT | ERR | HUP
    assert number_of_tls(stream.write, b"x") == 104
    assert rp2.events(stream, IN | OUT) == NVAL
    near.close()


def number_of_tls(call, *arguments):
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return caught.value.errno


# ---------------------------------------------------------------------------
# Faulty
# ---------------------------------------------------------------------------


def find_fate(make_board, is_wanted):
    """Connect again and again until it is a connection of the wanted kind."""
    board = make_board("faulty", random.randrange(1 << 30))
    listener = board.listen()
    for _ in range(1000):
        near = board.connecting(listener)
        if is_wanted(near):
            return board, listener, near
        near.close()
    raise AssertionError("not in 1000 connections")


def test_faulty_a_late_error_comes_with_the_first_use_and_nothing_reached_the_peer(make_board):
    board, _, near = find_fate(make_board, lambda near: near._is_late)
    assert board.wait(near, IN | OUT) == OUT, "it seems to stand"
    assert near._sock.getsockname()[1] == 0, "and the kernel knows nothing of it"
    assert number_of(near.write, b"x") == 111
    assert number_of(near.write, b"x") == 32
    assert near.readinto(bytearray(1)) == 0
    board, _, near = find_fate(make_board, lambda near: near._is_late)
    assert number_of(near.readinto, bytearray(1)) == 111
    assert near.readinto(bytearray(1)) == 0


def test_faulty_a_silent_connection_swallows_a_send_buffer_and_hears_not_even_the_end(make_board):
    board, listener, near = find_fate(make_board, lambda near: near._left_bytes > 100)
    listener.setblocking(True)
    port = near._sock.getsockname()[1]
    while True:
        far, (_, its_port) = listener.accept()
        board.own(far)
        if its_port == port:
            break
    far.settimeout(WAIT_S)
    limit = near._left_bytes
    written = 0
    while written < limit:
        assert board.wait(near, OUT) & OUT
        written += near.write(bytes(10000)) or 0
    assert written == limit
    receive(far, limit)
    far.sendall(b"hello?")
    far.close()
    swallowed = 0
    while True:
        count = near.write(bytes(1000))
        if count is None:
            break
        assert board.events(near, IN | OUT) == (OUT if swallowed + count < 6400 else 0)
        swallowed += count
    assert swallowed == 6400
    assert near.readinto(bytearray(10)) is None
    assert board.events(near, IN | OUT, 30) == 0


def test_faulty_some_connections_are_good(make_board):
    def is_good(near):
        return not near._is_late and near._left_bytes < 0

    board, _, near = find_fate(make_board, is_good)
    assert board.wait(near, OUT) == OUT
    while near.write(b"x") is None:
        pass
