"""TLS streams on CPython, against a real TLS server: in a thread, or in memory for exact faults.

In memory means: the stream's raw socket is a Wire, whose other end is OpenSSL again. It moves as
many bytes a call as the test says, says None, or fails at a given call, and needs no thread.
"""

import contextlib
import errno
import os
import socket
import ssl
import stat
import struct
import subprocess
import tempfile
import threading
import time

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

import certificates
import setup_env
import shim_select
import shim_socket
import shim_tls

POLLIN = 1
POLLOUT = 4
POLLNVAL = 32

# mbedTLS's numbers (mbedtls/ssl.h, mbedtls/x509.h).
CERT_VERIFY_FAILED = -9984
BAD_INPUT_DATA = -28928
INVALID_MAC = -29056
INVALID_RECORD = -29184
CONN_EOF = -29312
CA_CHAIN_REQUIRED = -30336
FATAL_ALERT_MESSAGE = -30592

WAIT_S = 30
VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificates"))


def server_context(pair, version=None, client_ca=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_pem_file, pair.key_pem_file)
    if version:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca.cert_pem_file)
    return context


def client_context(ca=None):
    context = shim_tls.SSLContext(shim_tls.PROTOCOL_TLS_CLIENT)
    if ca:
        context.load_verify_locations(ca.cert_pem)
    return context


# ---------------------------------------------------------------------------
# A server in a thread
# ---------------------------------------------------------------------------


class Server:
    """behave(socket) for each connection, one at a time; what it raised of OSError is kept."""

    def __init__(self, behave):
        self.errors = []
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(WAIT_S)
                try:
                    self._behave(sock)
                except OSError as error:
                    self.errors.append(error)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "a connection was never closed"


@pytest.fixture
def connect():
    """connect(behave): a shim socket, connected without waiting to a new Server's thread."""
    with contextlib.ExitStack() as stack:

        def run(behave):
            server = Server(behave)
            stack.callback(server.close)
            raw = shim_socket.socket()
            stack.callback(raw.close)
            raw.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                raw.connect(server.address)
            return raw

        yield run


def behave_as(context, then):
    """A behaviour: then(TLS socket) after the handshake."""

    def behave(sock):
        with context.wrap_socket(sock, server_side=True) as tls_socket:
            then(tls_socket)

    return behave


def echo(tls_socket):
    while True:
        data = tls_socket.recv(70000)
        if not data:
            return
        tls_socket.sendall(data)


def reset(sock):
    """Let close() send RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def until_done(stream, call, *arguments, mask=POLLIN | POLLOUT):
    """Call until the answer is not None, sleeping in a poll; return the answer."""
    poller = shim_select.poll()
    poller.register(stream, mask)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = call(*arguments)
        if answer is not None:
            return answer
        poller.poll(1000)
    raise AssertionError("nothing for %d s" % WAIT_S)


def send_all(stream, data):
    sent = 0
    while sent < len(data):
        sent += until_done(stream, stream.write, data, sent, len(data) - sent, mask=POLLOUT)


def receive(stream, length):
    buf = bytearray(length)
    received = 0
    while received < length:
        piece = bytearray(length - received)
        count = until_done(stream, stream.readinto, piece, mask=POLLIN)
        assert count, "ended after %d bytes" % received
        buf[received : received + count] = piece[:count]
        received += count
    return bytes(buf)


# ---------------------------------------------------------------------------
# Connections that come about
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_poll_drives_the_handshake_and_bytes_go_both_ways(connect, made, version):
    raw = connect(behave_as(server_context(made.server, version), echo))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
    data = os.urandom(100_000)
    sent, came = 0, bytearray()
    poller = shim_select.poll()
    poller.register(stream)
    buf = bytearray(3000)
    deadline = time.monotonic() + WAIT_S
    while len(came) < len(data) and time.monotonic() < deadline:
        poller.poll(1000)
        if sent < len(data):
            sent += stream.write(data, sent, len(data) - sent) or 0
        came += buf[: stream.readinto(buf) or 0]
        poller.modify(stream, POLLIN if sent == len(data) else POLLIN | POLLOUT)
    assert bytes(came) == data
    suite, spoken = stream.cipher()
    assert spoken == version and "AES" in suite or "CHACHA" in suite


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", b"localhost"])
def test_the_certificate_is_for_each_of_its_names_and_addresses(connect, made, host):
    raw = connect(behave_as(server_context(made.server), echo))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, host)
    send_all(stream, b"hello")
    assert receive(stream, 5) == b"hello"


def test_a_certificate_may_lead_to_its_authority_through_another(connect, made):
    raw = connect(behave_as(server_context(made.chained), echo))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
    send_all(stream, b"hello")
    assert receive(stream, 5) == b"hello"


@pytest.mark.parametrize("form", ["cert_pem", "cert_der"])
@pytest.mark.parametrize("name", ["self_signed", "server"])
def test_what_was_loaded_is_trusted_though_it_is_no_root(connect, made, name, form):
    pair = getattr(made, name)
    raw = connect(behave_as(server_context(pair), echo))
    context = client_context()
    context.load_verify_locations(getattr(pair, form))
    stream = shim_tls.wrap_tls(context, raw, "localhost")
    send_all(stream, b"hello")
    assert receive(stream, 5) == b"hello"


def test_many_authorities_may_stand_in_one_pem_or_be_loaded_in_turn(connect, made):
    together = client_context()
    comment = "# schön\n".encode()
    together.load_verify_locations(comment + made.other_ca.cert_pem + b"\n" + made.ca.cert_pem)
    in_turn = client_context()
    in_turn.load_verify_locations(made.ca.cert_pem.decode())
    in_turn.load_verify_locations(bytearray(made.other_ca.cert_der))
    for context in (together, in_turn):
        for pair in (made.server, made.stranger):
            raw = connect(behave_as(server_context(pair), echo))
            stream = shim_tls.wrap_tls(context, raw, "localhost")
            send_all(stream, b"hello")
            assert receive(stream, 5) == b"hello"
            stream.close()


def test_cert_none_asks_for_no_name_and_no_authority(connect, made):
    for mode in (shim_tls.CERT_NONE, shim_tls.CERT_OPTIONAL):
        for host in (None, "nowhere.invalid"):
            raw = connect(behave_as(server_context(made.expired), echo))
            context = client_context()
            context.verify_mode = mode
            assert context.verify_mode == mode
            stream = shim_tls.wrap_tls(context, raw, host)
            send_all(stream, b"hello")
            assert receive(stream, 5) == b"hello"
            stream.close()


def test_a_genuine_context_of_cpython_serves_as_well(connect, made):
    behave = behave_as(server_context(made.server), echo)
    stream = shim_tls.wrap_tls(
        ssl.create_default_context(cafile=made.ca.cert_pem_file), connect(behave), "localhost"
    )
    send_all(stream, b"hello")
    assert receive(stream, 5) == b"hello"
    stranger = shim_tls.wrap_tls(ssl.create_default_context(), connect(behave), "localhost")
    with pytest.raises(ValueError, match="certificate"):
        until_done(stranger, stranger.write, b"hello")
    with pytest.raises(ValueError):
        shim_tls.wrap_tls(ssl.create_default_context(), connect(echo), None)


def test_alpn_says_what_will_be_spoken(connect, made):
    spoken = []

    def tell(tls_socket):
        spoken.append(tls_socket.selected_alpn_protocol())
        echo(tls_socket)

    server = server_context(made.server)
    server.set_alpn_protocols(["mqtt"])
    context = client_context(made.ca)
    context.set_alpn_protocols(["mqtt"])
    stream = shim_tls.wrap_tls(context, connect(behave_as(server, tell)), "localhost")
    send_all(stream, b"hello")
    assert receive(stream, 5) == b"hello" and spoken == ["mqtt"]


def test_the_system_s_authorities_can_be_loaded(monkeypatch, connect, made):
    monkeypatch.setenv("SSL_CERT_FILE", made.ca.cert_pem_file)
    context = client_context()
    context.load_default_certs()
    raw = connect(behave_as(server_context(made.server), echo))
    stream = shim_tls.wrap_tls(context, raw, "localhost")
    send_all(stream, b"hello")
    assert receive(stream, 5) == b"hello"


def test_a_handshake_at_once_waits_whether_the_socket_blocks_or_not(connect, made):
    for blocks in (True, False):
        raw = connect(behave_as(server_context(made.server), echo))
        raw.setblocking(blocks)
        context = client_context(made.ca)
        stream = context.wrap_socket(raw, server_hostname="localhost")
        assert stream.cipher()[1] == "TLSv1.3"
        stream.setblocking(True)
        assert stream.write(b"hello") == 5
        assert stream.read(5) == b"hello"
        stream.close()

    raw = connect(behave_as(server_context(made.expired), echo))
    with pytest.raises(ValueError, match="expired"):
        client_context(made.ca).wrap_socket(raw, server_hostname="localhost")
    assert raw.fileno() >= 0, "the stream that never was has let go of it"


# ---------------------------------------------------------------------------
# Connections that do not, or end
# ---------------------------------------------------------------------------


def check_that_it_is_over(stream, number):
    """What every call and the poll say after an error."""
    for call in (lambda: stream.write(b"x"), lambda: stream.readinto(bytearray(1))):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == number
    poller = shim_select.poll()
    poller.register(stream)
    assert poller.poll(0) == poller.poll(1000) == [(stream, POLLNVAL)]


@pytest.mark.parametrize("first", ["write", "readinto"])
@pytest.mark.parametrize(
    "name, reason",
    [
        ("wrong_name", "mismatch"),
        ("expired", "has expired"),
        ("not_yet_valid", "not yet valid"),
        ("self_signed", "self.signed"),
        ("stranger", "issuer"),
    ],
)
def test_a_bad_certificate_is_a_value_error_with_the_reason(connect, made, name, reason, first):
    raw = connect(behave_as(server_context(getattr(made, name)), echo))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
    poller = shim_select.poll()
    poller.register(stream)
    with pytest.raises(ValueError, match=reason) as caught:
        until_done(stream, getattr(stream, first), bytearray(1))
    assert not isinstance(caught.value, OSError)  # CPython's own is both
    assert poller.poll(0) == [(stream, POLLNVAL)], "a poll that knew it before"
    check_that_it_is_over(stream, CERT_VERIFY_FAILED)
    stream.close()
    assert raw.fileno() >= 0, "the stream has let go of the raw socket"
    assert poller.poll(0) == [(stream, POLLNVAL)]


def test_without_any_authority_nothing_is_trusted(connect, made):
    raw = connect(behave_as(server_context(made.server), echo))
    stream = shim_tls.wrap_tls(client_context(), raw, "localhost")
    with pytest.raises(OSError) as caught:
        until_done(stream, stream.write, b"x")
    assert caught.value.errno == CA_CHAIN_REQUIRED


def test_cert_required_needs_a_name_to_verify(made):
    with pytest.raises(ValueError, match="CERT_REQUIRED requires server_hostname"):
        shim_tls.wrap_tls(client_context(made.ca), shim_socket.socket(), None)
    with pytest.raises(ValueError):
        shim_tls.wrap_tls(client_context(made.ca), shim_socket.socket(), "")


def test_the_end_of_the_connection_is_an_error_in_the_handshake(connect, made):
    raw = connect(lambda sock: sock.recv(10) and sock.shutdown(socket.SHUT_WR))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
    with pytest.raises(OSError) as caught:
        until_done(stream, stream.write, b"x")
    assert caught.value.errno == CONN_EOF and len(caught.value.args) == 2
    check_that_it_is_over(stream, CONN_EOF)
    assert raw.fileno() >= 0
    stream.close()
    assert raw.fileno() == -1, "of this error a board keeps the raw socket"


def test_a_reset_is_the_raw_socket_s_error_in_the_handshake_and_later(connect, made):
    raw = connect(lambda sock: sock.recv(10) and reset(sock))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
    with pytest.raises(ConnectionResetError):
        until_done(stream, stream.write, b"x")
    check_that_it_is_over(stream, -errno.ECONNRESET)
    stream.close()
    assert raw.fileno() >= 0

    raw = connect(behave_as(server_context(made.server), lambda s: s.recv(1) and reset(s)))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
    send_all(stream, b"x")
    with pytest.raises(ConnectionResetError):
        until_done(stream, stream.readinto, bytearray(1), POLLIN)
    check_that_it_is_over(stream, -errno.ECONNRESET)
    stream.close()
    assert raw.fileno() == -1, "once the handshake is over, the raw socket is the stream's"


def test_a_server_that_speaks_no_tls_is_found_out_by_its_first_bytes(connect, made):
    for junk in (
        b"\x20\x02\x00\x00\x00",
        b"HTTP/1.0 400 Bad Request\r\n",
        b"\x16\x03\x01\xff\xff",
    ):
        raw = connect(lambda sock: sock.sendall(junk) or sock.recv(1000) and sock.recv(1))  # noqa: B023
        stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
        with pytest.raises(OSError) as caught:
            until_done(stream, stream.write, b"x")
        assert caught.value.errno == INVALID_RECORD, junk
        check_that_it_is_over(stream, INVALID_RECORD)
        stream.close()
        raw.close()


class Speaker:
    """A raw socket that takes everything, says its words, and is reset: see shim_socket.py."""

    def __init__(self, words):
        self._words = words

    def write(self, buf, offset, length):
        return length

    def readinto(self, buf, length):
        words, self._words = self._words[:length], self._words[length:]
        if len(words) < length:
            raise ConnectionResetError(errno.ECONNRESET, "by the test")
        buf[:length] = words
        return length

    def fileno(self):
        return 0


@pytest.mark.parametrize(
    "words, number",
    [
        (b"HTTP/1.0 400 Bad Request\r\n", INVALID_RECORD),  # longer than what comes, as TLS
        (b"\x15\x03\x03\x00\x02\x02\x28", FATAL_ALERT_MESSAGE),  # handshake_failure
        (b"\x15\x03\x03\x00\x02\x02\x70", FATAL_ALERT_MESSAGE),  # unrecognized_name
        (b"\x15\x03\x03\x00\x02\x02\x6e", FATAL_ALERT_MESSAGE),  # unsupported_extension
    ],
)
def test_what_a_server_says_before_it_resets_the_connection_is_heard(made, words, number):
    stream = shim_tls.wrap_tls(client_context(made.ca), Speaker(words), "localhost")
    with pytest.raises(OSError) as caught:
        stream.write(b"x")
    assert caught.value.errno == number, caught.value


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("end", ["close_notify", "of TCP"])
def test_the_end_after_the_handshake_is_an_end_and_writing_goes_on(connect, made, end, version):
    def leave(tls_socket):
        tls_socket.sendall(b"hello")
        if end == "close_notify":
            with contextlib.suppress(OSError):  # our end sends none
                tls_socket.unwrap()
        else:
            tls_socket.shutdown(socket.SHUT_WR)
            socket.socket.recv(tls_socket, 10000)

    raw = connect(behave_as(server_context(made.server, version), leave))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
    assert receive(stream, 5) == b"hello"
    assert until_done(stream, stream.readinto, bytearray(9), POLLIN) == 0
    assert stream.readinto(bytearray(9)) == 0 and stream.read(9) == b""
    assert stream.write(b"x") == 1
    stream.close()


def test_bytes_that_were_tampered_with_end_the_connection(connect, made):
    def tamper(tls_socket):
        with socket.socket(fileno=tls_socket.detach()) as sock:
            sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            sock.settimeout(WAIT_S)
            while sock.recv(1000):
                pass

    raw = connect(behave_as(server_context(made.server), tamper))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
    with pytest.raises(OSError) as caught:
        until_done(stream, stream.readinto, bytearray(9), POLLIN)
    assert caught.value.errno == INVALID_MAC
    check_that_it_is_over(stream, INVALID_MAC)


def test_close_closes_the_raw_socket_once_and_says_no_good_bye(connect, made):
    ends = []

    def listen(tls_socket):
        tls_socket.suppress_ragged_eofs = False
        with pytest.raises(ssl.SSLError) as caught:
            echo(tls_socket)
        ends.append(caught.value)

    raw = connect(behave_as(server_context(made.server), listen))
    stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
    poller = shim_select.poll()
    poller.register(stream)
    send_all(stream, b"hello")
    assert receive(stream, 5) == b"hello"
    stream.close()
    assert raw.fileno() == -1
    assert poller.poll(0) == [(stream, POLLNVAL)]
    for call in (lambda: stream.write(b"x"), lambda: stream.readinto(bytearray(1))):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == BAD_INPUT_DATA
    stream.close()
    raw.close()
    deadline = time.monotonic() + WAIT_S
    while not ends and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "EOF" in str(ends), "close_notify would have been a good end"


def test_writing_waits_for_reading_while_the_server_asks_for_new_keys(made):
    """A renegotiation of TLS 1.2, in the middle of which the server sends data, too.

    (CPython's servers do not ask, and mbedTLS, as boards have it, would refuse.)
    """
    openssl = setup_env.ensure_debian_package("openssl", "openssl")
    command = [openssl, "s_server", "-tls1_2", "-accept", "127.0.0.1:0"]
    command += ["-cert", made.server.cert_pem_file, "-key", made.server.key_pem_file]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as server:
        raw = shim_socket.socket()
        try:
            line = b""
            while not line.startswith(b"ACCEPT"):
                line = server.stdout.readline()
                assert line, "openssl has ended"
            raw.connect(("127.0.0.1", int(line.split(b":")[1])))
            raw.setblocking(False)
            stream = shim_tls.wrap_tls(client_context(made.ca), raw, "localhost")
            send_all(stream, b"one\n")
            while line != b"one\n":
                line = server.stdout.readline()
                assert line, "the connection has ended"
            server.stdin.write(b"r\n")  # its command for that
            deadline = time.monotonic() + WAIT_S
            while stream.write(b"two\n") is not None:  # until it is asked
                assert time.monotonic() < deadline
                assert stream.readinto(bytearray(1)) is None
                time.sleep(0.01)
            assert stream.wanted() == POLLIN
            server.stdin.write(b"data\n")
            assert receive(stream, 5) == b"data\n"
            while stream.write(b"three\n") is None:
                assert time.monotonic() < deadline
                assert stream.readinto(bytearray(1)) is None
                time.sleep(0.01)
            while line != b"three\n":
                line = server.stdout.readline()
                assert line, "the connection has ended"
        finally:
            raw.close()
            server.kill()


def test_cipher_before_the_end_of_the_handshake_is_an_error(made):
    stream = shim_tls.wrap_tls(client_context(made.ca), shim_socket.socket(), "localhost")
    with pytest.raises(ValueError):  # the unix port 1.25 crashes there
        stream.cipher()
    stream.close()


# ---------------------------------------------------------------------------
# Exact faults of the raw socket, in memory
# ---------------------------------------------------------------------------


class Wire:
    """A raw socket with a TLS server behind it.

    Attributes:
        step_max: bytes that one call moves. room: bytes that can still be written.
        none_every: each n-th call says None. fail_at: the number of the call that fails.
    """

    def __init__(self, context):
        self.step_max = self.room = 1 << 30
        self.none_every = 1 << 30
        self.fail_at = None
        self.calls = 0
        self.is_closed = False
        self.received = b""  # by the server, decrypted
        self.server_error = None
        self._to_server, self._to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = context.wrap_bio(self._to_server, self._to_client, server_side=True)

    def _is_none(self):
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(errno.ECONNRESET, "by the test")
        return self.calls % self.none_every == 0

    def write(self, buf, offset, length):
        if self._is_none():
            return None
        count = min(length, self.step_max, self.room)
        if not count:
            return None
        self.room -= count
        self._to_server.write(bytes(buf[offset : offset + count]))
        self._serve()
        return count

    def readinto(self, buf, length):
        if self._is_none() or not self._to_client.pending:
            return None
        data = self._to_client.read(min(length, self.step_max))
        buf[: len(data)] = data
        return len(data)

    def _serve(self):
        try:
            self.server.do_handshake()
            while True:
                data = self.server.read(1 << 14)
                if not data:
                    break
                self.received += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.server_error = error

    def close(self):
        assert not self.is_closed, "closed twice"
        self.is_closed = True


def over_wire(made, version=None, **settings):
    wire = Wire(server_context(made.server, version))
    for name, value in settings.items():
        setattr(wire, name, value)
    return shim_tls.wrap_tls(client_context(made.ca), wire, "localhost"), wire


def repeat(call, *arguments, times=100_000):
    """Call until the answer is not None."""
    for _ in range(times):
        answer = call(*arguments)
        if answer is not None:
            return answer
    raise AssertionError("None, %d times" % times)


def write_all(stream, data):
    sent = 0
    while sent < len(data):
        sent += repeat(stream.write, data, sent, len(data) - sent)


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_may_come_and_go_one_by_one_with_pauses(made, version):
    stream, wire = over_wire(made, version, step_max=1, none_every=3)
    data = os.urandom(9000)
    write_all(stream, data)
    assert wire.received == data
    wire.server.write(data)
    buf = bytearray(7000)
    came = b""
    while len(came) < len(data):
        count = repeat(stream.readinto, buf)
        assert count
        came += buf[:count]
    assert came == data
    assert stream.readinto(buf) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_every_call_of_the_raw_socket_may_fail(made, version):
    fail_at = 0
    while True:
        fail_at += 1
        stream, wire = over_wire(made, version, fail_at=fail_at, step_max=500)
        try:
            write_all(stream, b"x" * 5000)
            wire.server.write(b"y" * 2000)
            buf = bytearray(2000)
            assert repeat(stream.readinto, buf) == 2000
        except OSError as error:
            assert error.args == (errno.ECONNRESET, "by the test")
            check_that_it_is_over(stream, -errno.ECONNRESET)
            assert wire.calls == fail_at, "nothing is tried once more"
            stream.close()
        else:
            break  # that call was never made
    assert fail_at > 20


def test_nothing_new_is_taken_while_the_raw_socket_has_no_room(made):
    stream, wire = over_wire(made)
    write_all(stream, b"1")
    data = os.urandom(200_000)
    wire.room = 0
    for _ in range(1000):
        assert stream.write(data) is None
    assert wire.received == b"1"
    wire.room = 3
    assert stream.write(data) is None
    wire.room = 20_000
    sent = stream.write(data)
    assert 0 < sent < 20_000, "records that were taken whole are counted, and no other"
    assert stream.write(data, sent, len(data)) is None
    assert wire.received == b"1" + data[:sent]
    wire.room = 1 << 30
    assert stream.write(data, sent, len(data)) == len(data) - sent
    assert wire.received == b"1" + data


def test_other_bytes_after_none_are_an_error_as_a_board_would_lose_them(made):
    stream, wire = over_wire(made)
    write_all(stream, b"1")
    wire.room = 3
    assert stream.write(b"0123456789") is None
    for other in (b"012345678", b"0123456789a", b"x123456789", b""):
        with pytest.raises(RuntimeError, match="offer again"):
            stream.write(other)
    wire.room = 1 << 30
    assert stream.write(b"..0123456789", 2, 10) == 10
    assert stream.write(b"") == 0
    assert wire.received == b"10123456789"


def test_other_bytes_may_be_offered_while_the_handshake_is_under_way(made):
    stream, wire = over_wire(made, none_every=2)
    assert stream.write(b"first") is None
    write_all(stream, b"other")
    assert wire.received == b"other"


def test_reading_does_not_wait_for_a_record_that_can_not_leave(made):
    stream, wire = over_wire(made)
    write_all(stream, b"1")
    wire.room = 3
    assert stream.write(b"0123456789") is None
    wire.server.write(b"hello")
    assert stream.read(5) == b"hello"
    wire.room = 1 << 30
    assert stream.read(5) is None
    assert wire.received == b"1", "the rest leaves with the next write, as on a board"
    assert stream.write(b"0123456789") == 10


def test_write_and_readinto_take_the_board_s_lengths(made):
    stream, wire = over_wire(made)
    write_all(stream, b"1")
    assert stream.write(b"0123456789", 4) == 4
    assert stream.write(b"0123456789", 7, 100) == 3
    assert stream.write(b"0123456789", 20, 5) == 0
    assert stream.write("é") == 2
    assert wire.received == b"10123789" + "é".encode()
    wire.server.write(b"0123456789")
    buf = bytearray(5)
    assert stream.readinto(buf, 2) == 2 and buf == b"01\0\0\0"
    assert stream.readinto(buf, 0) == 0
    assert stream.readinto(buf, 100) == 5 and buf == b"23456"
    assert stream.pending() == 3
    assert stream.read() == b"789"
    assert stream.pending() == 0
    assert stream.read() is None


def test_readinto_goes_on_over_records_as_a_board_does(made):
    stream, wire = over_wire(made)
    write_all(stream, b"1")
    for number in range(3):
        wire.server.write(b"%d" % number * 10)
    buf = bytearray(100)
    assert stream.readinto(buf) == 30
    assert buf[:30] == b"0" * 10 + b"1" * 10 + b"2" * 10


def test_an_error_keeps_no_hold_of_the_caller_s_buffer(made):
    for fault in ("raw", "tls"):
        stream, wire = over_wire(made)
        out, into = bytearray(b"x" * 100), bytearray(100)
        write_all(stream, b"1")
        wire.server.write(b"a" * 50)
        if fault == "raw":
            wire.fail_at = wire.calls + 3
        else:
            wire._to_client.write(b"junk for OpenSSL")
        with pytest.raises(OSError) as caught:
            stream.readinto(into)
        into += b"grows"  # BufferError if a view of it lives in the traceback
        with pytest.raises(OSError) as again:
            stream.write(out)
        out += b"grows"
        assert caught.value is not again.value

    stream, wire = over_wire(made, fail_at=1)
    with pytest.raises(OSError) as caught:
        stream.write(out)
    out += b"grows"
    assert caught.value.args[0] == errno.ECONNRESET


def test_the_server_is_told_by_an_alert_why_it_is_not_trusted(made):
    wire = Wire(server_context(made.stranger))
    stream = shim_tls.wrap_tls(client_context(made.ca), wire, "localhost")
    with pytest.raises(ValueError):
        write_all(stream, b"1")
    assert "ALERT_UNKNOWN_CA" in wire.server_error.reason


def test_who_reads_waits_for_room_when_the_handshake_must_write(made):
    stream, wire = over_wire(made, room=0)
    assert stream.readinto(bytearray(1)) is None and stream.wanted() == POLLOUT
    assert stream.write(b"x") is None and stream.wanted() == 0, "the writer waits for it anyway"
    wire.room = 1 << 30
    assert stream.readinto(bytearray(1)) is None and stream.wanted() == 0
    write_all(stream, b"x")
    assert wire.received == b"x" and stream.wanted() == 0


def test_a_raw_stream_must_be_one():
    with pytest.raises(OSError, match="stream operation not supported"):
        shim_tls.wrap_tls(client_context(), object(), "localhost")


# ---------------------------------------------------------------------------
# Certificates of the client
# ---------------------------------------------------------------------------


def names_seen(made, context):
    """Connect to a server that wants a certificate; return the name it found in ours."""
    wire = Wire(server_context(made.server, "TLSv1.2", client_ca=made.ca))
    stream = shim_tls.wrap_tls(context, wire, "localhost")
    write_all(stream, b"1")
    stream.close()
    return [value for ((key, value),) in wire.server.getpeercert()["subject"]]


@pytest.mark.parametrize("name", ["client", "rsa_client"])
def test_certificate_and_key_may_have_any_form(made, name):
    pair = getattr(made, name)
    for certificate in (pair.cert_pem, pair.cert_der, bytearray(pair.cert_der)):
        for form, key in pair.key_forms().items():
            context = client_context(made.ca)
            context.load_cert_chain(certificate, key)
            assert names_seen(made, context) == [certificates.CLIENT_NAME], form


def test_without_a_certificate_a_server_that_wants_one_ends_the_connection(made):
    with pytest.raises(OSError) as caught:
        names_seen(made, client_context(made.ca))
    assert caught.value.errno == FATAL_ALERT_MESSAGE
    context = client_context(made.ca)
    context.load_cert_chain(made.other_client.cert_pem, made.other_client.key_pem)
    with pytest.raises(OSError) as caught:
        names_seen(made, context)
    assert caught.value.errno == FATAL_ALERT_MESSAGE


def test_a_client_s_certificate_may_bring_its_chain(made):
    between = certificates.Authority("between", made.ca)
    pair = between.issue_client("far away")
    context = client_context(made.ca)
    context.load_cert_chain(pair.cert_pem, pair.key_pem)
    assert names_seen(made, context) == ["far away"]


def test_what_can_not_be_loaded_is_told_without_telling_the_key(made, capfd):
    locked = made.client._key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    pair = made.client
    cases = [
        (b"junk", pair.key_pem, "invalid cert"),
        (b"", pair.key_pem, "invalid cert"),
        (pair.key_pem, pair.key_pem, "invalid cert"),
        (pair.cert_pem.replace(b"M", b"N"), pair.key_pem, "invalid cert"),
        (pair.cert_der[:-1], pair.key_der, "invalid cert"),
        (pair.cert_pem, b"junk", "invalid key"),
        (pair.cert_pem, b"", "invalid key"),
        (pair.cert_pem, pair.cert_pem, "invalid key"),
        (pair.cert_pem, pair.key_pem.replace(b"M", b"N"), "invalid key"),
        (pair.cert_pem, pair.key_der[:-1], "invalid key"),
        (pair.cert_pem, made.rsa_client.key_pem, "invalid key"),
        (pair.cert_pem, locked, "invalid key"),
    ]
    for certificate, key, text in cases:
        with pytest.raises(ValueError) as caught:
            client_context().load_cert_chain(certificate, key)
        assert str(caught.value) == text
    for data in (b"junk", b"", pair.key_pem, pair.cert_der[:-1]):
        with pytest.raises(ValueError, match="invalid cert"):
            client_context().load_verify_locations(data)
    for data in (None, 5):
        with pytest.raises(TypeError):
            client_context().load_verify_locations(data)
        with pytest.raises(TypeError):
            client_context().load_cert_chain(data, data)
    assert capfd.readouterr() == ("", ""), "nobody was asked for a password"


def test_a_failed_load_does_not_spoil_the_context(made):
    context = client_context(made.ca)
    with pytest.raises(ValueError):
        context.load_cert_chain(made.client.cert_pem, made.rsa_client.key_pem)
    with pytest.raises(ValueError):
        context.load_verify_locations(b"junk")
    context.load_cert_chain(made.client.cert_pem, made.client.key_pem)
    assert names_seen(made, context) == [certificates.CLIENT_NAME]


@pytest.mark.parametrize("has_memfd", [True, False])
def test_no_file_of_the_key_is_left(made, monkeypatch, tmp_path, has_memfd):
    if not has_memfd:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("no os.memfd_create here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes = []
    mkstemp = tempfile.mkstemp

    def watched_mkstemp(*arguments, **options):
        fd, path = mkstemp(*arguments, **options)
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return fd, path

    monkeypatch.setattr(tempfile, "mkstemp", watched_mkstemp)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    context = client_context(made.ca)
    context.load_cert_chain(made.client.cert_der, made.client.key_forms()["traditional DER"])
    with pytest.raises(ValueError):
        context.load_cert_chain(made.client.cert_der, b"junk")
    assert list(tmp_path.iterdir()) == []
    assert bool(modes) != has_memfd and set(modes) <= {0o600}
    again = os.dup(0)
    os.close(again)
    assert again == lowest_free, "a descriptor was left open"
    assert names_seen(made, context) == [certificates.CLIENT_NAME]


# ---------------------------------------------------------------------------
# The rest of the module
# ---------------------------------------------------------------------------


class Pipe:
    """A raw socket whose other end is the same again."""

    def __init__(self):
        self.data = bytearray()
        self.other = None

    def write(self, buf, offset, length):
        self.other.data += buf[offset : offset + length]
        return length

    def readinto(self, buf, length):
        count = min(length, len(self.data))
        buf[:count] = self.data[:count]
        del self.data[:count]
        return count or None


def test_a_board_can_be_the_server(made):
    near, far = Pipe(), Pipe()
    near.other, far.other = far, near
    context = shim_tls.SSLContext(shim_tls.PROTOCOL_TLS_SERVER)
    assert context.verify_mode == shim_tls.CERT_NONE
    context.load_cert_chain(made.server.cert_pem, made.server.key_der)
    server = context.wrap_socket(far, server_side=True, do_handshake_on_connect=False)
    client = shim_tls.wrap_tls(client_context(made.ca), near, "localhost")
    sent = came = None
    for _ in range(10):
        sent = client.write(b"hello") if sent is None else sent
        came = server.read(5) if came is None else came
    assert (sent, came) == (5, b"hello")


def test_the_names_and_numbers_are_the_board_s():
    numbers = (shim_tls.CERT_NONE, shim_tls.CERT_OPTIONAL, shim_tls.CERT_REQUIRED)
    assert numbers == (0, 1, 2)
    assert (shim_tls.PROTOCOL_TLS_CLIENT, shim_tls.PROTOCOL_TLS_SERVER) == (0, 1)
    context = client_context()
    assert context.verify_mode == shim_tls.CERT_REQUIRED
    with pytest.raises(TypeError):
        shim_tls.SSLContext()
    with pytest.raises(TypeError):
        context.wrap_socket(shim_socket.socket(), True)  # by keyword only
    assert all(isinstance(name, str) for name in context.get_ciphers())
    context.set_ciphers(["ECDHE-ECDSA-AES128-GCM-SHA256"])
    with pytest.raises(OSError) as caught:
        context.set_ciphers(["x"])
    assert caught.value.errno == -24192


def test_going_back_to_cert_required_looks_at_the_name_again(connect, made):
    context = client_context(made.ca)
    context.verify_mode = shim_tls.CERT_NONE
    context.verify_mode = shim_tls.CERT_REQUIRED
    raw = connect(behave_as(server_context(made.wrong_name), echo))
    stream = shim_tls.wrap_tls(context, raw, "localhost")
    with pytest.raises(ValueError, match="mismatch"):
        until_done(stream, stream.write, b"x")
