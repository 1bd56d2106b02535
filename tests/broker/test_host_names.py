"""Host names over real datagrams: a scripted DNS server on loopback, the real broker behind it."""

import socket
import threading
import urllib.parse

import ends
import pytest

A_RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01"  # 127.0.0.1, 60 s
CNAME_RECORD = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01x\xc0\x13"


def answer(query, records=b"", count=0, code=0):
    return (
        query[:2] + bytes((0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0)) + query[12:] + records
    )


class NameServer:
    """Answers each query with the datagrams that the script has for it; silence at its end."""

    def __init__(self, script):
        self.queries = []
        self._script = list(script)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.port = self._socket.getsockname()[1]
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while not self._is_over:
            try:
                query, address = self._socket.recvfrom(512)
            except OSError:
                continue
            self.queries.append(query)
            for make in self._script.pop(0) if self._script else ():
                self._socket.sendto(make(query), address)

    def story(self):
        return "queries: %r" % self.queries

    def close(self):
        self._is_over = True
        self._thread.join(ends.WAIT_S)
        self._socket.close()


def right(query):
    return answer(query, A_RECORD, 1)


def alias(query):
    return answer(query, CNAME_RECORD + A_RECORD, 2)


def wrong_identifier(query):
    return bytes((query[0] ^ 1,)) + answer(query, A_RECORD, 1)[1:]


def other_question(query):
    return answer(query, A_RECORD, 1).replace(b"broker", b"brokes")


def junk(query):
    return b"\x00" * 3


def failure(query):
    return answer(query, code=2)


def no_such_name(query):
    return answer(query, code=3)


def truncated(query):
    return query[:2] + b"\x83\x80" + query[4:]


def looping(query):
    return answer(query, b"\xc0\x0c" * 60, 30)


@pytest.fixture
def connect(start, broker, closing):
    """connect(script): a client that looks for broker.test; returns its scenario."""

    def run(*script):
        server = NameServer(script)
        closing(server, "DNS server", server.story)
        port = urllib.parse.urlsplit(broker.uri).port
        options = {"uri": "mqtt://broker.test:%d" % port, "reconnect_min_ms": 60000}
        scenario = start("host_name.py", options, str(server.port), str(ends.DEADLINE_S))
        return scenario, server

    return run


@pytest.mark.parametrize(
    "script",
    [
        [[right]],
        [[alias]],
        [[junk, wrong_identifier, other_question, right]],
        [[failure], [right]],
        [[truncated], [right]],
        [[], [right]],
    ],
    ids=["at_once", "alias", "after_forgeries", "after_failure", "after_cut", "lost"],
)
def test_a_client_finds_the_broker_by_name(connect, script, broker):
    if urllib.parse.urlsplit(broker.uri).hostname not in ("127.0.0.1", "localhost"):
        pytest.skip("the broker is not on this machine's loopback, where the name leads")
    scenario, server = connect(*script)
    scenario.next("online")
    assert len(server.queries) == len(script)
    assert len({query[:2] for query in server.queries}) >= len(script) - 1, "identifiers are drawn"
    (longest_us,) = scenario.next("longest")
    print("longest step(0): %d us" % longest_us)


@pytest.mark.parametrize(
    "script",
    [[[no_such_name]], [[looping], [looping]]],  # IPv4, then IPv6
    ids=["no_such_name", "loops"],
)
def test_a_name_without_an_address_is_told_at_once(connect, script):
    scenario, server = connect(*script)
    (text,) = scenario.next("offline")
    assert text.startswith("TransportError: DNS") and "broker.test" in text
    assert len(server.queries) == len(script)


def test_a_silent_server_ends_in_timed_out(connect):
    scenario, server = connect()
    (text,) = scenario.next("offline", 3 * ends.WAIT_S)
    assert text.startswith("TimedOut: DNS")
    assert len(server.queries) == 4
