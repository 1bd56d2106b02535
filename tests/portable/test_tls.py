"""mqtts:// and ssl://: the handshake is a timed state; what the library says is told.

The TLS library is the fake of fakes.py, with the ways of mbedTLS. tests/broker/test_tls.py has
the real one.
"""

import board_heap  # noqa: F401
import fake_tls  # noqa: F401  it puts itself into fakes
from fakes import CONNACK, DISCONNECT, ECONNREFUSED, ECONNRESET, Bench, needs

import mqttpipe

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"
EPIPE = 32
CA = b"\x30\x82der"


def secure(**options):
    needs("tls")
    options.setdefault("uri", "mqtts://192.0.2.1")
    options.setdefault("ca", CA)
    return Bench(**options)


def begin(bench):
    """One step from connect() to the begin of the handshake."""
    bench.client.connect()
    bench.client.step()


def shake_hands(bench):
    """From connect() to the end of the handshake. Its steps have nothing to show for it."""
    bench.client.connect()
    for _ in range(1 + bench.network.tls.flights):
        bench.steps()


def refused_by(error, **options):
    """The error that on_offline tells when the handshake raises `error`.

    A small client: a board's collector may take an old one for still in use.
    """
    bench = secure(pipe_slots=2, packet_bytes_max=256, **options)
    bench.network.tls.error = error
    bench.client.connect()
    bench.steps()
    return bench, bench.error()


def test_pollables_ask_for_what_the_library_waits_for():
    """CPython's says so; a socket that only waits for bytes can be written to all the time."""
    bench = secure()
    begin(bench)
    stream = bench.network.tls.streams[0]
    wanted = bench.client.pollables()[1]
    assert wanted == (stream, 5), wanted
    stream.ioctl = lambda request, events: 1
    assert bench.client.pollables()[1] == (stream, 1)


def test_connect_goes_through_tcp_tls_and_connack():
    bench = secure()
    begin(bench)
    client = bench.client
    assert bench.server.address == ("192.0.2.1", 8883)
    assert client.state_name == "TLS_HANDSHAKE"
    assert bench.network.tls.streams[0].host == "192.0.2.1"
    shake_hands(bench)
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


def test_another_protocol_over_tls_is_not_said_to_want_none():
    needs("hints")
    bench = secure()
    shake_hands(bench)
    bench.exchange(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    error = bench.error()
    assert type(error) is mqttpipe.ServerError
    assert str(error).endswith("is 192.0.2.1 port 8883 an MQTT server?"), error


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
    needs("hints")
    bench, error = refused_by(ValueError("\nThe certificate validity has expired\n"))
    assert type(error) is mqttpipe.TransportError, error
    assert error.stage == "TLS"
    assert str(error) == (
        "TLS: the certificate has expired, or the clock is wrong "
        "(The certificate validity has expired), 192.0.2.1 port 8883"
    )
    assert bench.server.is_closed, "a failed stream has let go of the socket; it is closed"
    assert bench.client.state_name == "WAITING"


def test_what_the_library_says_is_put_in_words_and_stays_beside_them():
    needs("hints")
    for said, words in (
        # mbedTLS, x509_crt.c
        ("The certificate validity starts in the future", "not valid yet: is the clock set?"),
        ("The certificate Common Name (CN) does not match with the expected CN", "tls_name="),
        ("The certificate is not correctly signed by the trusted CA", "not trusted by ca="),
        # OpenSSL
        ("certificate verify failed: certificate is not yet valid", "is the clock set?"),
        ("certificate verify failed: certificate has expired", "the clock is wrong"),
        ("certificate verify failed: unable to get local issuer certificate", "trusted by ca="),
        ("certificate verify failed: self-signed certificate", "trusted by ca="),
        ("certificate verify failed: self signed certificate in chain", "trusted by ca="),
        ("Hostname mismatch, certificate is not valid for 'h'", "another host name"),
    ):
        _, error = refused_by(ValueError(said))
        assert words in str(error) and said in str(error), error
    for number, words in (
        (-0x7780, "refused the handshake"),  # a fatal alert
        (-0x6E00, "refused the handshake"),  # no protocol or cipher in common
        (-0x7200, "no TLS behind this port"),  # no record
    ):
        _, error = refused_by(OSError(number, "by the test"))
        assert words in str(error) and str(number) in str(error), error
        assert error.stage == "TLS" and error.errno == number, error


def test_a_key_or_signature_that_is_too_weak_is_not_said_to_be_of_another_authority():
    """What mbedTLS says has the word "signed" in it, too."""
    for what in ("key (eg bad curve, RSA too short).", "hash.", "PK alg (eg RSA vs ECDSA)."):
        said = "The certificate is signed with an unacceptable " + what
        _, error = refused_by(ValueError(said))
        assert said in str(error) and "not trusted" not in str(error), error


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


def test_what_the_port_says_of_an_address_is_told_with_its_own_number():
    """getaddrinfo() of a board without IPv6 raises -2; a socket's errors have that sign in TLS."""
    needs("resolver")
    bench = secure(uri="mqtts://h")
    mqttpipe.hosts = lambda name: ["2001:db8::1"]

    def refuse(*arguments):
        raise OSError(-2)

    bench.network.getaddrinfo = refuse
    bench.client.connect()
    bench.steps()
    error = bench.error()
    assert error.stage == "DNS" and error.errno == -2 and "-2" in str(error), error


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


def test_what_ends_tls_in_service_is_not_said_to_be_of_the_handshake():
    for number in (-0x7780, -0x7200, -0x6E00):  # an alert; no record; what else has no number
        bench = secure().go_online()
        bench.server.error = number
        bench.steps()
        error = bench.error()
        assert error.stage == "TLS" and error.errno == number and str(number) in str(error), error
        assert "refused" not in str(error) and "no TLS" not in str(error), error


def test_an_alert_that_comes_instead_of_connack_is_of_tls():
    """TLS 1.3: a server refuses our certificate after the handshake."""
    bench = secure()
    shake_hands(bench)
    assert bench.client.state_name == "AWAITING_CONNACK"
    bench.server.error = -0x7780
    bench.steps()
    error = bench.error()
    assert error.stage == "TLS" and error.errno == -0x7780, error


def test_the_next_address_is_tried_when_a_handshake_fails():
    needs("resolver")
    bench = secure(uri="mqtts://h", connect_timeout_ms=900)
    mqttpipe.hosts = lambda name: [] if ":" in name else ["192.0.2.1", "192.0.2.2"]
    bench.network.tls.error = OSError(ECONNRESET, "by the test")
    begin(bench)
    assert bench.server.address[0] == "192.0.2.1"
    bench.client.step()  # it has failed
    bench.client.step()
    assert bench.server.address[0] == "192.0.2.2" and bench.take_events() == []
    bench.network.tls.error = None
    shake_hands(bench)
    for stream in bench.network.tls.streams:
        assert stream.host == "h", "the name is verified, not the address"
    bench.exchange(CONNACK)
    assert bench.client.is_online() and len(bench.network.connections) == 2


def test_a_slow_handshake_has_all_that_is_left_of_the_attempt():
    """An address has its share of the time for TCP; the next attempt begins with the next one."""
    needs("resolver")
    bench = secure(uri="mqtts://h", connect_timeout_ms=900, reconnect_min_ms=0)
    mqttpipe.hosts = lambda name: ["192.0.2.1", "192.0.2.2"]
    bench.network.tls.flights = -1
    begin(bench)
    for _ in range(9):
        assert bench.server.address[0] == "192.0.2.1"
        assert bench.client.state_name == "TLS_HANDSHAKE" and bench.take_events() == []
        bench.clock.advance(100)
        bench.client.step()
    for _ in range(2):
        bench.client.step()
    error = bench.take_events()[0][1]
    assert type(error) is mqttpipe.TimedOut and error.stage == "TLS", error
    assert bench.network.connections[0].is_closed
    assert bench.server.address[0] == "192.0.2.2" and len(bench.network.connections) == 2


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


def test_a_poll_that_fails_ends_the_connection_and_not_the_program():
    bench = secure().go_online()
    make_poll = bench.select.poll

    def make_broken_poll():
        poll = make_poll()
        poll.ipoll = lambda timeout_ms: _raise(OSError(5, "poll"))
        return poll

    bench.select.poll = make_broken_poll
    for _ in range(2):  # it is asked once more before it is believed
        bench.client.step(10)
    error = bench.error()
    assert error.stage == "ONLINE" and error.errno == 5, error
    for state_name in ("WAITING", "DOWN"):
        for _ in range(3):  # with no socket it is told, and the caller goes on
            bench.client.step(10)
        ((name, error),) = bench.take_events()
        assert name == "error" and error.errno == 5, error
        assert bench.client.state_name == state_name
        bench.client.disconnect()
        bench.steps()
        bench.take_events()


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


def failed_write(said, error=None):
    """The error that is told when the handshake's writes fail, and the server has said this."""
    bench = secure()
    begin(bench)
    assert bench.client.state_name == "TLS_HANDSHAKE"
    bench.network.tls.error = OSError(EPIPE, "by the test")
    bench.server.send(said)
    bench.server.error = error
    bench.steps()
    assert bench.server.is_closed
    return bench.error()


def test_why_the_server_refused_us_is_told_also_when_it_is_a_write_that_fails():
    """A TLS 1.2 server that misses our certificate says so while we are still writing.

    RFC 5246, section 7.2: an alert of level 2, fatal, and 40, handshake_failure.
    """
    needs("hints")
    error = failed_write(b"\x15\x03\x03\x00\x02\x02\x28")
    assert error.stage == "TLS" and error.errno == -0x7780, error
    assert "the server refused the handshake" in str(error) and "alert 40" in str(error), error


def test_a_write_that_fails_and_nothing_was_said_is_told_as_what_it_is():
    for said, error in (
        (b"", None),
        (b"", ECONNRESET),
        (b"\x16\x03\x03\x00\x02\x02\x28", None),
        (b"\x15\x03\x03\x00\x02\x02", None),  # which alert it was is lost
    ):
        told = failed_write(said, error)
        assert told.stage == "TLS" and told.errno == EPIPE, told
