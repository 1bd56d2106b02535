"""mqtts:// and ssl://: the handshake is a timed state; what the library says is told.

The TLS library is the fake of fakes.py, with the ways of mbedTLS. tests/broker/test_tls.py has
the real one.
"""

import fake_tls  # noqa: F401  it puts itself into fakes
from fakes import CONNACK, DISCONNECT, ECONNREFUSED, ECONNRESET, Bench, needs, raises, reconnect

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


def begin(bench):
    """One step from connect() to the begin of the handshake."""
    bench.client.connect()
    bench.client.step()


def refused_by(error, **options):
    """The error that on_offline tells when the handshake raises `error`."""
    bench = secure(**options)
    bench.network.tls.error = error
    bench.client.connect()
    bench.steps()
    return bench, bench.error()


def test_connect_goes_through_tcp_tls_and_connack():
    bench = secure()
    begin(bench)
    client = bench.client
    assert bench.server.address == ("192.0.2.1", 8883)
    assert client.state_name == "TLS_HANDSHAKE"
    assert bench.network.tls.streams[0].host == "192.0.2.1"
    bench.steps()
    assert client.state_name == "AWAITING_CONNACK"
    assert bench.server.received() == CONNECT
    bench.exchange(CONNACK)
    assert client.is_online()
    token = client.publish("t", b"x", 1)
    assert bench.exchange() == b"\x32\x06\x00\x01t\x00\x01x"
    bench.exchange(b"\x40\x02\x00\x01")
    assert client.is_done(token)
    client.disconnect()
    bench.steps()
    assert bench.server.received() == DISCONNECT
    assert client.state_name == "DOWN" and bench.server.is_closed


def test_the_handshake_begins_when_the_connection_stands():
    bench = secure()
    bench.network.is_silent = True
    begin(bench)
    assert bench.client.state_name == "TCP_CONNECTING"
    assert bench.client.step() is False, "nothing has happened yet"
    bench.network.is_silent = False
    bench.client.step()
    assert bench.client.state_name == "TLS_HANDSHAKE"


def test_a_refused_connection_is_told_as_tcp_whatever_the_poll_says():
    # unix: all at once; ESP32: as if it stood, but readable; rp2: an error, or with HUP.
    for events in (29, 5, 8, 24):
        bench = secure()
        bench.network.error_events = events
        bench.client.connect()
        bench.network.is_silent = True
        bench.client.step()
        bench.server.is_connecting = False
        bench.server.error = ECONNREFUSED
        bench.steps()
        error = bench.error()
        assert type(error) is mqttpipe.TransportError, error
        assert error.stage == "TCP" and error.errno == ECONNREFUSED, error
        assert bench.server.is_closed and not bench.network.tls.streams


def test_hup_alone_is_not_yet_a_connection():
    bench = secure()
    bench.network.is_silent = True
    begin(bench)
    bench.server.events = lambda: 16  # lwIP: a socket that is about to connect
    bench.server.is_connecting = False  # so that it may be read
    assert bench.client.step() is False
    assert bench.client.state_name == "TCP_CONNECTING"


def test_a_server_that_speaks_first_or_closes_has_no_tls():
    for is_ended, said, reason in (
        (False, b"220 mail", "speaks before TLS"),
        (True, b"", "closed by the server"),
    ):
        bench = secure()
        bench.network.is_silent = True
        begin(bench)
        bench.network.is_silent = False
        bench.server.is_connecting = False
        bench.server.is_ended = is_ended
        bench.server.send(said)
        bench.steps()
        error = bench.error()
        assert error.stage == "TCP" and reason in str(error), error
        assert bench.server.is_closed


def test_a_connection_that_does_not_come_is_told_as_tcp():
    bench = secure(connect_timeout_ms=500)
    bench.network.is_silent = True
    begin(bench)
    bench.clock.advance(500)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "TCP", error
    assert bench.server.is_closed


def test_a_handshake_without_end_is_ended_by_its_deadline():
    bench = secure(connect_timeout_ms=500)
    bench.network.tls.flights = -1
    begin(bench)
    for _ in range(20):
        bench.client.step()
    assert bench.client.state_name == "TLS_HANDSHAKE"
    bench.clock.advance(499)
    bench.client.step()
    assert bench.take_events() == []
    bench.clock.advance(1)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "TLS", error
    assert bench.server.is_closed, "the stream closes the socket below it"


def test_a_certificate_that_is_not_good_is_told_with_the_reason():
    bench, error = refused_by(ValueError("\nThe certificate validity has expired\n"))
    assert type(error) is mqttpipe.TransportError, error
    assert error.stage == "TLS"
    assert str(error) == "TLS: The certificate validity has expired, 192.0.2.1 port 8883"
    assert bench.server.is_closed, "a failed stream has let go of the socket; it is closed"
    assert bench.client.state_name == "WAITING"


def test_a_clock_that_was_never_set_is_said():
    for year, is_said in ((2000, True), (2021, True), (2024, False)):
        bench = secure()
        bench.year = year
        bench.network.tls.error = ValueError("not valid yet")
        bench.client.connect()
        bench.steps()
        assert ("the clock says %d" % year in str(bench.error())) == is_said, year


def test_what_else_the_library_says_is_told_with_its_number():
    _, error = refused_by(OSError(-0x7780, "MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE"))
    assert type(error) is mqttpipe.TransportError and error.stage == "TLS", error
    assert error.errno == -0x7780 and "ALERT" in str(error)
    assert "192.0.2.1 port 8883" in str(error)


def test_a_reset_in_the_handshake_is_told_as_such():
    bench, error = refused_by(OSError(ECONNRESET, "by the test"))
    assert error.stage == "TLS" and error.errno == ECONNRESET, error
    assert bench.server.is_closed


def test_a_server_that_closes_without_a_word_is_told_so():
    _, error = refused_by(OSError(-0x7280, "MBEDTLS_ERR_SSL_CONN_EOF"))
    assert error.stage == "TLS" and "closed by the server" in str(error), error
    bench = secure().go_online()
    bench.server._called = lambda: _raise(OSError(-0x7280, "MBEDTLS_ERR_SSL_CONN_EOF"))
    bench.steps()
    error = bench.error()
    assert error.stage == "ONLINE" and "closed by the server" in str(error), error


def _raise(error):
    raise error


def test_a_reset_in_service_is_told_with_its_own_number():
    """The unix port hands on the socket's number with the other sign, after the handshake."""
    bench = secure().go_online()
    bench.server._called = lambda: _raise(OSError(-ECONNRESET, "by the test"))
    bench.steps()
    error = bench.error()
    assert error.stage == "ONLINE" and error.errno == ECONNRESET, error


def test_an_alert_that_comes_instead_of_connack_is_of_tls():
    """TLS 1.3: a server refuses our certificate after the handshake."""
    bench = secure()
    bench.client.connect()
    bench.steps()
    assert bench.client.state_name == "AWAITING_CONNACK"
    bench.server.error = -0x7780
    bench.steps()
    error = bench.error()
    assert error.stage == "TLS" and error.errno == -0x7780, error


def test_the_next_address_is_tried_when_a_handshake_fails():
    needs("resolver")
    bench = secure(uri="mqtts://h", connect_timeout_ms=900)
    mqttpipe.hosts = lambda name: ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    bench.network.tls.flights = -1
    begin(bench)
    for last in "123":
        bench.steps()
        assert bench.server.address[0] == "192.0.2." + last
        assert bench.client.state_name == "TLS_HANDSHAKE"
        assert bench.network.tls.streams[-1].host == "h", "the name is verified, not the address"
        bench.clock.advance(300)
        bench.client.step()
    assert bench.error().stage == "TLS"
    assert all(connection.is_closed for connection in bench.network.connections)


def test_one_context_serves_all_connections():
    bench = secure().go_online()
    assert len(bench.network.tls.contexts) == 1
    reconnect(bench, CONNACK)
    bench.clock.advance(2000)
    bench.steps()
    assert len(bench.network.tls.streams) == 2
    assert bench.network.tls.streams[0].context is bench.network.tls.streams[1].context
    assert len(bench.network.tls.contexts) == 1


def test_what_was_refused_is_offered_again_to_the_same_end():
    # The fake asserts it; here more is published while bytes are refused, of which some leave.
    bench = secure().go_online()
    for credit in (0, 1, 7, 20):
        bench.server.write_credit = credit
        first = [bench.client.publish("a/%d" % n, b"x" * 20) for n in range(3)]
        bench.steps()
        second = [bench.client.publish("b/%d" % n, b"y" * 20) for n in range(3)]
        bench.steps()
        bench.server.write_credit = 1 << 30
        bench.steps()
        assert bench.server.received() == b"".join(
            b"\x30\x19\x00\x03%s/%d%s" % (letter, n, fill * 20)
            for letter, fill in ((b"a", b"x"), (b"b", b"y"))
            for n in range(3)
        ), credit
        assert all(bench.client.is_done(token) for token in first + second)


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


def test_a_poll_that_fails_ends_the_connection_and_not_the_program():
    bench = secure().go_online()
    bench.select.ipoll = lambda timeout_ms: _raise(OSError(5, "poll"))
    bench.client.step(10)
    error = bench.error()
    assert error.stage == "ONLINE" and error.errno == 5, error
    bench.client.step(10)  # with no socket it is told, and the caller goes on
    assert bench.take_events()[-1][0] == "error"


def test_a_close_that_fails_changes_nothing():
    bench = secure().go_online()
    close = bench.server.close

    def close_and_raise():
        close()
        raise OSError(5, "close")

    bench.server.close = close_and_raise
    bench.server.error = ECONNRESET
    bench.steps()
    assert bench.error().errno == ECONNRESET
    bench.server.close = close
    bench.clock.advance(2000)
    bench.steps()
    bench.exchange(CONNACK)
    assert bench.client.is_online()
