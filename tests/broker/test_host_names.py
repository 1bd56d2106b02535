"""Host names over real datagrams: a scripted DNS server on loopback, the real broker behind it.

And a responder for names that end in .local, in the group of multicast DNS on this machine.
"""

import os
import urllib.parse

import ends
import pytest

from dns_server import (
    NameServer,
    Responder,
    answer,
    failure,
    junk,
    looping,
    no_such_name,
    truncated,
)

A_RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01"  # 127.0.0.1, 60 s
LOCAL_RECORD = b"\xc0\x0c\x00\x01\x80\x01\x00\x00\x00\x0a\x00\x04\x7f\x00\x00\x01"
CNAME_RECORD = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01x\xc0\x13"


def from_responder(query):
    """The query's identifier and question; flags of an authority; the cache-flush bit is set."""
    return query[:2] + b"\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00" + query[12:] + LOCAL_RECORD


def right(query):
    return answer(query, A_RECORD, 1)


def alias(query):
    return answer(query, CNAME_RECORD + A_RECORD, 2)


def wrong_identifier(query):
    return bytes((query[0] ^ 1,)) + answer(query, A_RECORD, 1)[1:]


def other_question(query):
    return answer(query, A_RECORD, 1).replace(b"broker", b"brokes")


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


@pytest.mark.parametrize(
    "script", [[[from_responder]], [[], [from_responder]]], ids=["at_once", "lost"]
)
def test_a_client_finds_the_broker_by_a_local_name(start, broker, closing, script):
    if urllib.parse.urlsplit(broker.uri).hostname not in ("127.0.0.1", "localhost"):
        pytest.skip("the broker is not on this machine's loopback, where the name leads")
    name = "broker-%d.local" % os.getpid()  # nobody else's
    try:
        responder = Responder(name, script)
    except OSError as error:
        pytest.skip("this machine has no interface for multicast: %s" % error)
    closing(responder, "responder", responder.story)
    server = NameServer([[no_such_name]])
    closing(server, "DNS server", server.story)
    port = urllib.parse.urlsplit(broker.uri).port
    options = {"uri": "mqtt://%s:%d" % (name, port), "reconnect_min_ms": 60000}
    scenario = start("host_name.py", options, str(server.port), str(ends.DEADLINE_S))
    scenario.next("online")
    assert len(responder.queries) == len(script) and not server.queries
    (longest_us,) = scenario.next("longest")
    print("longest step(0): %d us" % longest_us)
