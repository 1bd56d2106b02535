"""The proxy cuts where it says: the tests of reconnection and chaos stand on it."""

import socket
import threading

import pytest

from proxy import DOWN, FIN, RST, UP, VANISH, Cut, Proxy, Shape, random_cuts, throttle

WAIT_S = 20


class Echo:
    """A server that sends back what it gets; `ended` holds how each connection ended."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ended = []
        self.got = b""
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(WAIT_S)
                try:
                    data = sock.recv(1000)
                    while data:
                        self.got += data
                        sock.sendall(data)
                        data = sock.recv(1000)
                    self.ended.append(FIN)
                except socket.timeout:
                    self.ended.append("silence")
                except OSError:
                    self.ended.append(RST)

    def close(self):
        # Wakes accept(), which closing alone does not everywhere.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(2 * WAIT_S)
        assert not self.thread.is_alive()


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


def connect(proxy):
    sock = socket.create_connection(("127.0.0.1", proxy.port), WAIT_S)
    sock.settimeout(WAIT_S)
    return sock


def read_to_end(sock):
    """Return what comes, and how the connection ends."""
    data = b""
    try:
        while True:
            piece = sock.recv(1000)
            if not piece:
                return data, FIN
            data += piece
    except ConnectionResetError:
        return data, RST


def test_what_is_not_cut_is_passed_on_whole(echo):
    data = bytes(range(256)) * 2000
    with Proxy("127.0.0.1", echo.port) as proxy, connect(proxy) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        came = b""
        while len(came) < len(data):
            came += sock.recv(65536)
        sender.join(WAIT_S)
        assert came == data
        assert (proxy.passed(UP), proxy.passed(DOWN)) == (len(data), len(data))
        assert proxy.cuts == 0


def try_one(proxy, data):
    """Connect, send, read to the end; any of them may meet a reset."""
    try:
        with connect(proxy) as sock:
            sock.sendall(data)
            return read_to_end(sock)
    except (ConnectionResetError, BrokenPipeError):
        return b"", RST


@pytest.mark.parametrize("how", (RST, FIN))
@pytest.mark.parametrize("position", (0, 1, 7))
def test_a_cut_comes_after_just_so_many_bytes_to_the_server(echo, position, how):
    with Proxy("127.0.0.1", echo.port, [Cut(UP, position, how)]) as proxy:
        assert try_one(proxy, b"0123456789")[1] in (how, RST)  # FIN with bytes unread is a reset
        assert proxy.cuts == 1
        with connect(proxy) as sock:  # the next one lives, and comes after the first ended
            sock.sendall(b"!")
            assert sock.recv(1) == b"!"
    before, mark = b"0123456789"[:position], b"!"
    # A reset may overtake the bytes before it.
    assert echo.got == before + mark or how == RST and (before + mark).startswith(echo.got[:-1])


@pytest.mark.parametrize("position", (1, 4))
def test_a_cut_comes_after_just_so_many_bytes_to_the_client(echo, position):
    with Proxy("127.0.0.1", echo.port, [Cut(DOWN, position, FIN)]) as proxy:
        assert try_one(proxy, b"0123456789") == (b"0123456789"[:position], FIN)


def test_when_a_connection_vanishes_the_server_is_not_told(echo):
    with Proxy("127.0.0.1", echo.port) as proxy, connect(proxy) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert proxy.cut(VANISH) == 1
        assert read_to_end(sock) == (b"", RST)
        assert echo.ended == []


def test_stalled_bytes_wait_and_are_not_lost(echo):
    with Proxy("127.0.0.1", echo.port) as proxy, connect(proxy) as sock:
        proxy.stall()
        sock.sendall(b"x")
        assert proxy.passed(UP) == 0
        proxy.resume()
        assert sock.recv(1) == b"x"


def test_refused_connections_are_reset_until_resume(echo):
    with Proxy("127.0.0.1", echo.port) as proxy:
        proxy.refuse()
        assert try_one(proxy, b"x") == (b"", RST)
        proxy.resume()
        with connect(proxy) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"


def test_what_is_swallowed_reaches_nobody_and_nobody_is_told():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)

        def passes(sock, server):
            server.settimeout(0.05)
            sock.sendall(b"x")
            try:
                return server.recv(1) == b"x"
            except socket.timeout:
                return False

        with Proxy("127.0.0.1", listener.getsockname()[1]) as proxy, connect(proxy) as old:
            old_server, _ = listener.accept()
            proxy.swallow()
            with old_server, connect(proxy) as new:
                new_server, _ = listener.accept()
                with new_server:
                    assert not passes(old, old_server) and not passes(new, new_server)
                    proxy.resume()
                    assert not passes(old, old_server) and not passes(new_server, new)
                    with connect(proxy) as later:
                        later_server, _ = listener.accept()
                        with later_server:
                            later_server.settimeout(WAIT_S)
                            later.sendall(b"y")
                            assert later_server.recv(1) == b"y"


def test_a_half_closed_connection_ends_in_one_direction_only():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        with Proxy("127.0.0.1", listener.getsockname()[1]) as proxy, connect(proxy) as sock:
            server, _ = listener.accept()
            with server:
                server.settimeout(WAIT_S)
                proxy.half_close(DOWN)
                assert sock.recv(1) == b""
                sock.sendall(b"x")
                assert server.recv(1) == b"x"


def test_bytes_that_are_held_come_together_and_none_is_lost():
    """Two writes, so far apart that they would come as two, come as one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        with Proxy("127.0.0.1", listener.getsockname()[1]) as proxy, connect(proxy) as sock:
            server, _ = listener.accept()
            with server:
                server.settimeout(WAIT_S)
                proxy.shape(Shape(hold_s=60))
                sock.sendall(b"on")
                while not proxy.passed(UP, waiting=True):
                    pass
                sock.sendall(b"e")
                while proxy.passed(UP, waiting=True) < 3:
                    pass
                assert proxy.passed(UP) == 0
                proxy.shape(Shape())
                assert server.recv(10) == b"one"


def test_a_throttled_link_passes_all_in_small_pieces(echo):
    data = bytes(range(100))
    seen = []
    with Proxy(
        "127.0.0.1", echo.port, on_bytes=lambda number, direction, piece: seen.append(piece)
    ) as proxy, connect(proxy) as sock:
        proxy.shape(throttle(200))
        sock.sendall(data)
        came = b""
        while len(came) < len(data):
            came += sock.recv(1000)
    assert came == data and max(map(len, seen)) <= 10
    assert throttle(2000).piece_bytes == 100 and throttle(2000).gap_s == 0.05
    assert throttle(5).piece_bytes == 1 and throttle(5).gap_s == 0.2


def test_bytes_that_are_split_come_in_pieces_of_that_size(echo):
    seen = []
    with Proxy(
        "127.0.0.1", echo.port, on_bytes=lambda number, direction, piece: seen.append(piece)
    ) as proxy, connect(proxy) as sock:
        proxy.shape(Shape(piece_bytes=3, gap_s=0.001))
        sock.sendall(b"0123456789")
        came = b""
        while len(came) < 10:
            came += sock.recv(1000)
    assert came == b"0123456789"
    assert seen[:4] != [] and {len(piece) for piece in seen} <= {1, 2, 3}


def test_the_same_seed_makes_the_same_cuts():
    one, same, other = ([repr(cut) for cut in random_cuts(seed, 50, 1000)] for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert len(one) == 50
