"""Nothing is left behind by connections, good or bad: no descriptor, no byte of the heap.

A client connects some dozen times in each way that a connection can fail, and in the two ways in
which it works; with `--long` a thousand times. What it leaves is measured from the inside
(scenarios/leaks.py): open files, bytes of MicroPython's heap (on CPython: objects that the
collector knows), bytes that malloc() has given out, for the TLS libraries have theirs there, and
the memory of the whole process. All is measured again, up to five times, while it grows.
"""

import itertools
import re
import socket
import threading

import ends
import pytest
from test_host_names import NameServer, no_such_name

import servers
from proxy import DOWN, FIN, RST, Cut, Proxy, reset

WARM_UP = 30
COUNT = 40
LONG_COUNT = 1000
DEADLINE_S = 100
LONG_DEADLINE_S = 300
QUERIES_MAX = WARM_UP + 6 * LONG_COUNT  # there may be up to five rounds

FIGURES = ("open files", "heap", "malloc, bytes", "process, KB")

SHORT_MS = 20  # for those that wait for nothing until the deadline
LONG_MS = 2000


class BadServer:
    """Listens on loopback and does one thing to each client.

    Args:
        how: "close" (FIN at once), "reset", "silence", or bytes to answer what comes with.
    """

    def __init__(self, how):
        self._how = how
        self._count = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._listener.settimeout(0.2)
        self.port = self._listener.getsockname()[1]
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        before = None  # kept while the next one comes: the client is the first to give it up
        while not self._is_over:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                continue
            self._count += 1
            if before:
                before.close()
            before = None if self._how == "reset" else sock
            sock.settimeout(ends.WAIT_S)
            try:
                if self._how == "reset":
                    reset(sock)
                elif self._how == "close":
                    sock.shutdown(socket.SHUT_WR)
                elif self._how != "silence":
                    sock.recv(4096)
                    sock.sendall(self._how)
            except OSError:
                pass  # the client was faster
        if before:
            before.close()

    def story(self):
        return "%d connections" % self._count

    def close(self):
        self._is_over = True
        self._thread.join(ends.WAIT_S)
        self._listener.close()


HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"
REFUSED = b"\x20\x02\x00\x05"

# Name -> (what BadServer does, or None; scheme; timeout; what the error must look like).
BAD_SERVERS = {
    "silence": ("silence", "mqtt", SHORT_MS, "TimedOut: (CONNACK|TCP)"),
    "FIN": ("close", "mqtt", LONG_MS, "TransportError: .*closed by the server"),
    "RST": ("reset", "mqtt", LONG_MS, "TransportError: "),
    "garbage": (HTTP, "mqtt", LONG_MS, "ServerError: "),
    "CONNACK refused": (REFUSED, "mqtt", LONG_MS, "Refused: .*not authorized"),
    "TLS, plain text": (HTTP, "mqtts", LONG_MS, "TransportError: TLS"),
    "TLS, FIN": ("close", "mqtts", LONG_MS, "TransportError: (TCP|TLS): closed by the server"),
    "TLS, silence": ("silence", "mqtts", SHORT_MS, "TimedOut: (TLS|TCP)"),
}
# Name -> (certificate of the broker, what the error must look like).
BAD_CERTIFICATES = {
    "TLS, wrong CA": ("stranger", "TransportError: TLS"),
    "TLS, wrong host name": ("wrong_name", "TransportError: TLS"),
}


@pytest.fixture(params=["CPython", "MicroPython 64-bit", ends.BOARD, ends.ESP32_SOCKETS])
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


@pytest.fixture
def check_leaks(start, request, made, interpreter):
    """A function: (kind, how, uri, timeout_ms, error=, dns_port=, spill=): run it and look.

    It prints what it saw: pytest -rP shows that of tests that passed.
    """

    def run(kind, how, uri, timeout_ms, error=None, dns_port="-", spill="-"):
        # (A board's heap is too small for a thousand objects.)
        is_long = request.config.getoption("--long") and spill != "object"
        count = LONG_COUNT if is_long else COUNT
        deadline_s = LONG_DEADLINE_S if is_long else DEADLINE_S
        options = {
            "uri": uri,
            "connect_timeout_ms": timeout_ms,
            "keep_alive_s": 5,
            "reconnect_min_ms": 0,
            "reconnect_max_ms": 1,
        }
        if uri.startswith("mqtts:"):
            options["ca"] = made.ca.cert_pem_file
        arguments = [dns_port, WARM_UP, count, deadline_s, spill]
        scenario = start("leaks.py", how, options, *[str(argument) for argument in arguments])
        rounds, last, limits, text = scenario.next("left", deadline_s)
        print("%s, %s, %d connections a round:" % (interpreter.name, kind, count))
        for name, *figures in zip(FIGURES, last, limits, *rounds):
            print("    %-16s %9d; limit %6d, rounds: %s" % (name, *figures[:2], figures[2:]))
        for name, limit, *growths in zip(FIGURES, limits, *rounds):
            assert min(growths) <= limit, "%s: %r" % (name, growths)
        assert error is None and text is None or re.match(error, text), text

    return run


LONG = pytest.mark.timeout(LONG_DEADLINE_S + 60)


@LONG
@pytest.mark.parametrize("kind", BAD_SERVERS)
def test_bad_servers_leave_nothing(check_leaks, closing, kind):
    how, scheme, timeout_ms, error = BAD_SERVERS[kind]
    server = BadServer(how)
    closing(server, "server", server.story)
    uri = "%s://127.0.0.1:%d" % (scheme, server.port)
    check_leaks(kind, "fail", uri, timeout_ms, error)


@LONG
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_refused_connections_leave_nothing(check_leaks, scheme):
    uri = "%s://127.0.0.1:%d" % (scheme, servers.free_port())
    check_leaks(scheme + ", refused", "fail", uri, LONG_MS, "TransportError: TCP")


@LONG
def test_names_that_nobody_knows_leave_nothing(check_leaks, closing):
    server = NameServer([[no_such_name]] * QUERIES_MAX)
    closing(server, "DNS server", lambda: "%d queries" % len(server.queries))
    uri = "mqtt://nobody.test"
    check_leaks("no such name", "fail", uri, LONG_MS, "TransportError: DNS", server.port)


@LONG
@pytest.mark.parametrize("kind", BAD_CERTIFICATES)
def test_bad_certificates_leave_nothing(check_leaks, add_broker, made, kind):
    pair, error = BAD_CERTIFICATES[kind]
    broker = add_broker(tls=servers.Tls(getattr(made, pair)))
    check_leaks(kind, "fail", broker.uri, LONG_MS, error)


@LONG
def test_handshakes_that_are_cut_leave_nothing(check_leaks, tls_broker, closing):
    """After 0 to 850 bytes from the server: the handshake has some more, with TLS 1.2 as well."""
    cuts = (
        Cut(DOWN, number * 37 % 850, RST if number & 1 else FIN) for number in itertools.count()
    )
    proxy = Proxy(tls_broker.host, tls_broker.port, cuts)
    closing(proxy, "proxy", proxy.log)
    uri = "mqtts://localhost:%d" % proxy.port
    check_leaks("TLS, cut", "fail", uri, LONG_MS, "TransportError: ")


@LONG
def test_good_connections_leave_nothing(check_leaks, broker):
    check_leaks("good", "work", broker.uri, LONG_MS)


@LONG
def test_good_connections_with_tls_leave_nothing(check_leaks, tls_broker):
    check_leaks("TLS, good", "work", tls_broker.uri, LONG_MS)


@LONG
@pytest.mark.parametrize("figure", ["heap", "malloc"])
def test_what_each_connection_leaves_is_found(request, check_leaks, figure):
    """One object, or one piece of malloc(): in the long form the smallest."""
    spill = "object"
    if figure == "malloc":
        spill = "1" if request.config.getoption("--long") else "500"
    uri = "mqtt://127.0.0.1:%d" % servers.free_port()
    with pytest.raises(AssertionError, match="^%s\\b.*: " % figure):
        check_leaks("a leak", "fail", uri, LONG_MS, spill=spill)
