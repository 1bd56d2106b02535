"""mqtts:// and ssl://: certificates, keys and contexts; what is wrong with them is said."""

import fake_tls  # noqa: F401  it puts itself into fakes
from fakes import CONNACK, ECONNRESET, Bench, needs, raises, reconnect

import mqttpipe

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"
CA = b"\x30\x82der"
# Two certificates; "AAEC" and "AwQF" are base64 of 00 01 02 and 03 04 05.
PEM = (
    b"text before\n-----BEGIN CERTIFICATE-----\nAA\nEC\n-----END CERTIFICATE-----\n"
    b"-----BEGIN CERTIFICATE-----\r\nAwQF\r\n-----END CERTIFICATE-----\r\n"
)
KEY = (
    b"-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----\n"
    b"-----BEGIN EC PRIVATE KEY-----\nAAEC\n-----END EC PRIVATE KEY-----\n"
)


def secure(**options):
    needs("tls")
    options.setdefault("uri", "mqtts://192.0.2.1")
    options.setdefault("ca", CA)
    return Bench(**options)


def test_one_context_serves_all_connections():
    bench = secure().go_online()
    assert len(bench.network.tls.contexts) == 1
    reconnect(bench, CONNACK)
    bench.clock.advance(2000)
    bench.steps()
    assert len(bench.network.tls.streams) == 2
    assert bench.network.tls.streams[0].context is bench.network.tls.streams[1].context
    assert len(bench.network.tls.contexts) == 1


def test_each_certificate_is_loaded_as_it_is_where_the_library_takes_it():
    bench = secure(ca=PEM, cert=PEM.decode(), key=KEY)
    (context,) = bench.network.tls.contexts
    assert context.loaded == [(PEM,), (PEM, KEY)]
    assert context.verify_mode == bench.network.tls.CERT_REQUIRED


def test_pem_is_taken_apart_for_a_library_that_reads_der_only():
    needs("tls")
    bench = Bench()
    bench.network.tls.is_pem_refused = True
    mqttpipe.MQTTClient("ssl://h", ca=PEM, cert=PEM, key=KEY)
    (context,) = bench.network.tls.contexts
    assert context.loaded == [
        (b"\x00\x01\x02",),
        (b"\x03\x04\x05",),
        (b"\x00\x01\x02", b"\x00\x01\x02"),
    ], context.loaded


def test_insecure_verifies_nothing_and_is_said_once():
    bench = secure(ca=None, tls="insecure")
    (context,) = bench.network.tls.contexts
    assert context.verify_mode == bench.network.tls.CERT_NONE
    bench.client.connect()
    bench.steps()
    ((name, error),) = bench.take_events()
    assert name == "error" and "insecure" in str(error)
    bench.exchange(CONNACK)
    reconnect(bench, CONNACK)
    bench.clock.advance(2000)
    bench.steps()
    assert "error" not in [event[0] for event in bench.take_events()]


def test_a_ready_context_is_used_as_it_is():
    context = Bench().network.tls.SSLContext(0)
    bench = secure(ca=None, tls=context)
    bench.client.connect()
    bench.steps()
    assert bench.network.tls.contexts == []
    assert bench.network.tls.streams[0].context is context and context.verify_mode is None


def test_a_list_may_hold_servers_with_tls_and_without():
    needs("failover")
    bench = secure(uri=["mqtts://192.0.2.1", "mqtt://192.0.2.2"])
    bench.network.tls.error = OSError(ECONNRESET, "by the test")
    bench.client.connect()
    bench.steps()
    bench.steps()
    assert bench.server.address == ("192.0.2.2", 1883)
    assert bench.server.received() == CONNECT
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_wrong_arguments_are_refused_at_once():
    needs("tls")
    Bench()
    new = mqttpipe.MQTTClient
    cases = (
        (dict(), "needs ca="),
        (dict(ca=b"bad"), "ca can not be used: invalid cert"),
        (dict(ca=7), "ca must be str or bytes"),
        (dict(ca="no/such/file.pem"), "ca: can't read the file"),
        (dict(ca=CA, cert=b"c"), "cert or key must be str or bytes, not NoneType"),
        (dict(ca=CA, key=b"k"), "cert or key must be str or bytes, not NoneType"),
        (dict(ca=CA, cert=b"bad", key=b"k"), "cert or key can not be used"),
        (dict(tls="secure"), "'insecure'"),
        (dict(tls=True), "bool"),
        (dict(tls=mqttpipe.tls.SSLContext(0), ca=CA), "load ca"),
    )
    for options, part in cases:
        message = raises(mqttpipe.LocalError, new, "mqtts://h", **options)
        assert part in message, (options, message)
    for options in (dict(ca=CA), dict(tls="insecure"), dict(cert=b"c", key=b"k")):
        message = raises(mqttpipe.LocalError, new, "mqtt://h", **options)
        assert "mqtts://" in message, message


def test_no_error_shows_a_key():
    Bench()
    for key in ("MIIEsecret", b"secret bad"):
        message = raises(
            mqttpipe.LocalError, mqttpipe.MQTTClient, "mqtts://h", ca=CA, cert=CA, key=key
        )
        assert "secret" not in message, message


def test_a_port_without_tls_says_so():
    Bench()
    mqttpipe.tls = None
    message = raises(mqttpipe.LocalError, mqttpipe.MQTTClient, "mqtts://h", ca=CA)
    assert "needs TLS" in message, message
