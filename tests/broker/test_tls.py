"""TLS with a real broker: whom the client trusts, whom it does not, and what it says then.

The certificates are made at run time (tests/certificates.py). OpenSSL speaks in CPython and in the
broker, mbedTLS 3.6 in MicroPython: both have TLS 1.2 and 1.3. Their reasons have different words.
What becomes of the bytes is in test_tls_traffic.py.
"""

import re
import socket

import pytest
from ends import BOARD, ESP32_SOCKETS, at_address, check_both_ways

import certificates
import servers

# What each library says of a certificate, OpenSSL and mbedTLS.
REASONS = {
    "wrong_name": "mismatch|does not match",
    "expired": "expired",
    "not_yet_valid": "not yet valid|in the future",
    "self_signed": "self.signed|not correctly signed",
    "stranger": "issuer|not correctly signed",
}


# Whom one trusts is the library's affair: two libraries, and the board's width.
@pytest.fixture(params=["CPython", "MicroPython 64-bit", BOARD, ESP32_SOCKETS])
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


def check_that_it_never_connects(client, broker, topic, attempts=2):
    """Have it try; return what it says. No CONNECT may have reached the broker."""
    client.tell("connect")
    texts = {client.next("offline")[0] for _ in range(attempts)}
    assert not client.count("connect")
    assert "as %s " % client_id_of(topic) not in broker.log()
    client.finish()
    return "\n".join(texts)


def client_id_of(topic):
    return topic.replace("/", "-")


# ---------------------------------------------------------------------------
# Trusted
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PEM file", "DER file", "PEM text", "PEM bytes", "DER bytes"])
def test_a_server_is_verified_with_a_ca_in_any_form(
    remote, tls_broker, add_peer, topic, made, form
):
    ca = {
        "PEM file": made.ca.cert_pem_file,
        "DER file": made.ca.cert_der_file,
        "PEM text": made.ca.cert_pem.decode(),
        "PEM bytes": ["bytes", made.ca.cert_pem_file],
        "DER bytes": ["bytes", made.ca.cert_der_file],
    }[form]
    client = remote(uri=tls_broker.uri, ca=ca)
    check_both_ways(client, add_peer(tls_broker.uri), topic)
    assert not client.count("error")
    client.finish()


def test_ssl_is_another_word_for_mqtts_and_two_authorities_may_be_given(remote, tls_broker, made):
    both = made.other_ca.cert_pem + made.ca.cert_pem
    uri = "ssl://" + tls_broker.uri[len("mqtts://") :]
    remote(uri=uri, ca=both.decode()).finish()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_both_versions_of_tls_are_spoken(
    interpreter, remote, add_broker, add_peer, topic, made, version
):
    broker = add_broker(tls=servers.Tls(made.server, version=version))
    if version == "TLSv1.3" and interpreter.name == ESP32_SOCKETS:  # ESP-IDF's default has no 1.3
        client = remote(connect=False, uri=broker.uri, ca=made.ca.cert_pem_file)
        assert "TransportError: TLS" in check_that_it_never_connects(client, broker, topic)
        return
    client = remote(uri=broker.uri, ca=made.ca.cert_pem_file)
    check_both_ways(client, add_peer(broker.uri), topic)
    client.finish()


def test_an_intermediate_authority_is_followed_to_the_one_that_is_known(remote, add_broker, made):
    broker = add_broker(tls=servers.Tls(made.chained))
    remote(uri=broker.uri, ca=made.ca.cert_pem_file).finish()


def test_an_address_is_verified_as_a_name_is(remote, tls_broker, add_broker, topic, made):
    uri = at_address(tls_broker.uri, "127.0.0.1", tls_broker.port)
    remote(uri=uri, ca=made.ca.cert_pem_file).finish()

    by_name_only = add_broker(tls=servers.Tls(made.ca.issue("localhost")))
    remote(uri=by_name_only.uri, ca=made.ca.cert_pem_file).finish()
    client = remote(
        connect=False,
        uri=at_address(by_name_only.uri, "127.0.0.1", by_name_only.port),
        ca=made.ca.cert_pem_file,
        client_id=client_id_of(topic),
    )
    text = check_that_it_never_connects(client, by_name_only, topic)
    assert re.search(REASONS["wrong_name"], text), text


def test_an_ipv6_address_is_verified_as_well(remote, tls_broker, add_proxy, made):
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        pytest.skip("this machine has no IPv6: %s" % error)
    proxy = add_proxy((), tls_broker, listen_host="::1")
    assert proxy.uri.startswith("mqtts://[::1]:")
    remote(uri=proxy.uri, ca=made.ca.cert_pem_file).finish()


def test_a_ready_context_is_used_as_it_is(remote, add_broker, topic, made):
    broker = add_broker("use_identity_as_username true", tls=mutual(made))
    client = remote(
        uri=broker.uri,
        tls="ready",
        ca=made.ca.cert_pem_file,
        cert=made.client.cert_pem_file,
        key=made.client.key_pem_file,
    )
    assert "u'%s'" % certificates.CLIENT_NAME in broker.log()
    client.finish()

    stranger = add_broker(tls=servers.Tls(made.stranger))
    client = remote(
        connect=False,
        uri=stranger.uri,
        tls="ready",
        ca=made.ca.cert_pem_file,
        client_id=client_id_of(topic),
    )
    text = check_that_it_never_connects(client, stranger, topic)
    assert re.search(REASONS["stranger"], text), text


# ---------------------------------------------------------------------------
# Not trusted
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", REASONS)
def test_a_server_with_a_bad_certificate_gets_no_connect(remote, add_broker, topic, made, name):
    broker = add_broker(tls=servers.Tls(getattr(made, name)))
    client = remote(
        connect=False,
        uri=broker.uri,
        ca=made.ca.cert_pem_file,
        client_id=client_id_of(topic),
        user="user",
        password="hush-hush",
    )
    text = check_that_it_never_connects(client, broker, topic)
    for line in text.splitlines():
        assert line.startswith("TransportError: TLS"), text
        assert re.search(REASONS[name], line), text
    assert "hush-hush" not in text


def test_a_server_of_another_authority_gets_no_connect(remote, tls_broker, topic, made):
    client = remote(
        connect=False,
        uri=tls_broker.uri,
        ca=made.other_ca.cert_pem_file,
        client_id=client_id_of(topic),
    )
    text = check_that_it_never_connects(client, tls_broker, topic)
    assert text.startswith("TransportError: TLS") and re.search(REASONS["stranger"], text), text


def test_without_a_ca_a_board_refuses_and_a_pc_asks_the_system(
    interpreter, remote, tls_broker, topic, made
):
    options = dict(uri=tls_broker.uri, client_id=client_id_of(topic))
    client = remote(connect=False, **options)
    if interpreter.name == "CPython":
        text = check_that_it_never_connects(client, tls_broker, topic)
        assert text.startswith("TransportError: TLS") and re.search(REASONS["stranger"], text)
    else:
        (text,) = client.next("refused")
        assert text.startswith("LocalError: ") and "ca=" in text
        assert client.process.wait(10) == 0


def test_insecure_trusts_anybody_and_says_so(remote, add_broker, add_peer, topic, made):
    for pair in (made.expired, made.self_signed, made.wrong_name):
        broker = add_broker(tls=servers.Tls(pair))
        client = remote(uri=broker.uri, tls="insecure")
        (text,) = client.next("error")
        assert "insecure" in text
        client.finish()


# ---------------------------------------------------------------------------
# Certificates of clients
# ---------------------------------------------------------------------------


def mutual(made, **options):
    return servers.Tls(made.server, client_ca=made.ca, **options)


@pytest.mark.parametrize("name", ["client", "rsa_client"])
@pytest.mark.parametrize("form", ["PEM file", "DER file", "PEM bytes", "DER bytes", "PEM text"])
def test_a_client_is_known_by_its_certificate_in_any_form(remote, add_broker, made, form, name):
    pair = getattr(made, name)
    kind, _, as_what = form.lower().partition(" ")
    options = {}
    for option in ("cert", "key"):
        file = getattr(pair, "%s_%s_file" % (option, kind))
        options[option] = ["bytes", file] if as_what == "bytes" else file
        if as_what == "text":
            options[option] = getattr(pair, option + "_pem").decode()
    broker = add_broker("use_identity_as_username true", tls=mutual(made))
    client = remote(uri=broker.uri, ca=made.ca.cert_pem_file, **options)
    assert "u'%s'" % certificates.CLIENT_NAME in broker.log()
    client.finish()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("name", [None, "other_client"])
def test_a_client_without_the_right_certificate_is_not_let_in(
    remote, add_broker, topic, made, name, version
):
    """With TLS 1.3 the server's refusal comes when the client's handshake is over."""
    options = {}
    if name:
        pair = getattr(made, name)
        options = dict(cert=pair.cert_pem_file, key=pair.key_pem_file)
    broker = add_broker(tls=mutual(made, version=version))
    client = remote(
        connect=False,
        uri=broker.uri,
        ca=made.ca.cert_pem_file,
        client_id=client_id_of(topic),
        **options,
    )
    text = check_that_it_never_connects(client, broker, topic)
    # The server closes at once, and its RST may eat the alert that says why.
    assert re.search("TransportError: (TLS|CONNACK)", text), text


def test_a_key_that_is_none_is_refused_and_not_shown(remote, tls_broker, made):
    secret = made.client.key_pem.decode().splitlines()[1]
    for cert, key in (
        (made.client.cert_pem_file, made.client.cert_pem_file),
        (made.client.key_pem_file, made.client.key_pem_file),
        (made.client.cert_pem_file, made.client.key_pem.decode()[:-60]),
        (made.client.cert_pem_file, "no such file"),
        (made.client.cert_pem_file, secret),  # taken for a file's name
    ):
        client = remote(
            connect=False, uri=tls_broker.uri, ca=made.ca.cert_pem_file, cert=cert, key=key
        )
        (text,) = client.next("refused")
        assert text.startswith("LocalError: ")
        assert secret not in client.story()


# ---------------------------------------------------------------------------
# The wrong protocol
# ---------------------------------------------------------------------------


def test_a_server_that_speaks_no_tls_is_an_error_in_the_handshake(remote, broker, topic, made):
    uri = "mqtts://" + broker.uri.rpartition("@")[2].rpartition("//")[2]
    client = remote(
        connect=False, uri=uri, ca=made.ca.cert_pem_file, client_id=client_id_of(topic)
    )
    text = check_that_it_never_connects(client, broker, topic)
    assert text.startswith("TransportError: TLS"), text


def test_a_server_that_speaks_tls_only_is_an_error_for_plain_mqtt(remote, tls_broker, topic):
    uri = "mqtt://127.0.0.1:%d" % tls_broker.port
    client = remote(connect=False, uri=uri, client_id=client_id_of(topic))
    text = check_that_it_never_connects(client, tls_broker, topic)
    # mosquitto closes without a word. (Others send an alert, which is no CONNACK.)
    assert re.match("(TransportError|ServerError): ", text), text
