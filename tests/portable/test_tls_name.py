"""tls_name: the name to verify and to send, where the host of the URI is another."""

import fake_tls  # noqa: F401  it puts itself into fakes
from fakes import CONNACK, Bench, needs, raises

import mqttpipe

CA = b"\x30\x82der"


def name_of(uri, **options):
    """What the TLS library is told to verify."""
    needs("tls")
    bench = Bench(uri=uri, ca=CA, **options)
    bench.client.connect()
    bench.steps()
    bench.exchange(CONNACK)
    assert bench.client.is_online()
    return bench.network.tls.streams[0].host


def test_it_is_given_to_the_library_instead_of_the_host():
    assert name_of("mqtts://192.0.2.1", tls_name="broker.example") == "broker.example"


def test_without_it_the_host_is_verified_as_ever():
    assert name_of("mqtts://192.0.2.1") == "192.0.2.1"


def test_a_dot_at_the_end_of_the_host_or_of_tls_name_is_no_part_of_the_name():
    """RFC 6066 section 3: it is not sent."""
    needs("resolver")
    assert name_of("mqtts://localhost.", prepare=know_localhost) == "localhost"
    assert name_of("mqtts://192.0.2.1", tls_name="broker.example.") == "broker.example"


def know_localhost():
    mqttpipe.hosts = lambda name: ["127.0.0.1"]


def test_it_holds_for_each_server_and_each_attempt():
    needs("tls", "failover")
    bench = Bench(
        uri=["mqtts://192.0.2.1", "mqtts://192.0.2.2"],
        ca=CA,
        tls_name="broker.example",
        reconnect_min_ms=0,
        reconnect_max_ms=0,
    )
    bench.client.connect()
    for _ in range(3):
        bench.steps()
        bench.server.is_ended = True
        bench.client.step()
        bench.clock.advance(1)
    hosts = [stream.host for stream in bench.network.tls.streams]
    assert len(hosts) >= 3 and set(hosts) == {"broker.example"}, hosts


def test_what_is_no_name_is_refused():
    needs("tls")
    for wrong in (5, b"broker.example", True):
        raises(mqttpipe.LocalError, Bench, uri="mqtts://192.0.2.1", ca=CA, tls_name=wrong)
