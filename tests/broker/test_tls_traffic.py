"""Many bytes over TLS with a real broker, and connections that stall, break and come back."""

import hashlib
import os
import random

import pytest
from ends import check_both_ways

import servers
from proxy import DOWN, FIN, RST, UP, Cut, random_cuts

LARGE_BYTES = 60_000
LARGE_HEAP = "400k"  # a packet of that size, twice, is nothing for 96 KiB


def test_a_server_that_is_silent_in_the_handshake_runs_out_of_time(
    remote, tls_broker, add_proxy, made
):
    proxy = add_proxy((), tls_broker)
    client = remote(
        connect=False, uri=proxy.uri, ca=made.ca.cert_pem_file, connect_timeout_ms=1000
    )
    proxy.stall()
    client.tell("connect")
    error, _ = client.next("offline")
    assert error.startswith("TimedOut: TLS"), error
    proxy.resume()
    client.next("online")
    client.finish()


# As in scenarios/remote.py.
def large_payload(size):
    return bytes(at * 31 + (at >> 8) & 0xFF for at in range(size))


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_large_message_goes_both_ways(remote, tls_broker, add_peer, topic, made, qos):
    peer = add_peer(tls_broker.uri)
    peer.subscribe(topic + "/out")
    client = remote(
        uri=tls_broker.uri,
        ca=made.ca.cert_pem_file,
        packet_bytes_max=LARGE_BYTES + 100,
        heap=LARGE_HEAP,
    )
    client.tell("subscribe", topic + "/in", qos)
    client.next("subscribed")
    client.next("token")
    payload = large_payload(LARGE_BYTES)
    for _ in range(3):
        client.tell("publish_large", topic + "/out", LARGE_BYTES, qos)
        assert client.next("published") == client.next("token")
        message = peer.next_message()
        assert message.payload == payload and message.qos == qos
        peer.publish(topic + "/in", payload, qos)
        digest = hashlib.sha256(payload).hexdigest()
        assert client.next("large") == [topic + "/in", LARGE_BYTES, digest]
    client.finish()


def test_many_messages_at_every_qos_both_ways(exchange, tls_broker, made):
    books = exchange(
        tls_broker,
        counts_out=(500, 500, 500),
        counts_in=(500, 500, 500),
        ca=made.ca.cert_pem_file,
        clean_session=False,
    )
    books.check(is_session_kept=True)
    assert books.stats["connections"] == 1
    assert all(not ledger.lost for ledger in books.ledgers.values()), "nothing was cut"


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_nothing_is_lost_when_cut_20_times_in_the_handshake_and_behind_it(
    exchange, tls_broker, made, direction
):
    """A handshake of these certificates has 500 to 1,500 bytes a way."""
    cuts = [Cut(direction, 7 + 150 * at, (RST, FIN)[at % 2]) for at in range(20)]
    books = exchange(
        tls_broker,
        counts_out=(0, 150, 150),
        counts_in=(0, 150, 150),
        cuts=cuts,
        ca=made.ca.cert_pem_file,
        clean_session=False,
    )
    books.check(is_session_kept=True)
    assert books.cuts == 20


def test_chaos_over_tls(exchange, tls_broker, made):
    seed = int(os.environ.get("MQTTPIPE_SEED") or random.randrange(1 << 30))
    print("seed: %d" % seed)
    books = exchange(
        tls_broker,
        counts_out=(400, 400, 400),
        counts_in=(400, 400, 400),
        cuts=random_cuts(seed, 20, 4000),
        ca=made.ca.cert_pem_file,
        clean_session=False,
    )
    books.check(is_session_kept=True)
    assert books.cuts, "nothing was cut"  # how many fit depends on the machine


def test_a_connection_that_is_cut_in_service_says_so(remote, tls_broker, add_proxy, made):
    """Not that TLS has failed: mbedTLS hands on the socket's errors as negative numbers."""
    proxy = add_proxy((), tls_broker)
    client = remote(uri=proxy.uri, ca=made.ca.cert_pem_file)
    for how in (RST, FIN):
        assert proxy.cut(how) == 1
        error, _ = client.next("offline")
        assert error.startswith("TransportError: ONLINE"), error
        client.next("online")
    client.finish()


def open_files_of(client):
    client.tell("files")
    return client.next("files")[0]


def test_20_connections_in_a_row_leave_nothing_behind(remote, tls_broker, add_peer, topic, made):
    client = remote(uri=tls_broker.uri, ca=made.ca.cert_pem_file)
    first = open_files_of(client)
    for _ in range(20):
        client.tell("disconnect")
        assert client.next("offline") == [None, None]
        client.tell("connect")
        client.next("online")
    check_both_ways(client, add_peer(tls_broker.uri), topic)
    # One that was about to be closed may have been counted among the first.
    assert open_files_of(client) <= first
    client.finish()


def test_20_failed_handshakes_in_a_row_leave_nothing_behind(remote, add_broker, made):
    """A board's TLS object has let go of the socket then: the client must close that itself."""
    broker = add_broker(tls=servers.Tls(made.expired))
    client = remote(connect=False, uri=broker.uri, ca=made.ca.cert_pem_file)
    client.tell("connect")
    client.next("offline")
    first = open_files_of(client)
    for _ in range(20):
        client.next("offline")
    last = open_files_of(client)
    # An attempt may be under way at either time, with a socket, or two for the resolver.
    assert last <= first + 3
    client.finish()
