"""tools/deploy.py and TLS: certificates and keys of one's own, and the well-known authorities."""

import contextlib
import pathlib
import re
import shutil
import ssl

import pytest
from deploying import SERVER_ADDRESS, copied, failure, files_on, wait_until_idle
from time_server import TimeServer

import certificates
import deploy
import servers

certs = deploy.certs
DAY_S = certificates.DAY_S

NTP_ADDRESS = "192.168.4.9"
KEY_LINE = re.compile(rb"[A-Za-z0-9+/]{30}")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def over_tls(secrets):
    """A function that makes the secrets.py one for a server with TLS."""

    def change(**settings):
        text = secrets.read_bytes()
        settings = {"SERVER": "mqtts://localhost", "NTP": (NTP_ADDRESS,), **settings}
        for name, value in settings.items():
            text = deploy.with_setting(text, name, value)
        secrets.write_bytes(text)

    change()
    return change


@pytest.fixture
def secure(broker, made):
    """A function that puts a board where a server with TLS is."""
    with contextlib.ExitStack() as stack:
        time_server = stack.enter_context(contextlib.closing(TimeServer()))

        def connect(board, pair=made.server, extra="", **options):
            server = stack.enter_context(broker.another(extra, tls=servers.Tls(pair, **options)))
            board.world["routes"]["127.0.0.1", 8883] = (server.host, server.port)
            board.world["routes"][NTP_ADDRESS, 123] = time_server.address
            return server

        yield connect


def no_secret_in(printed, *files):
    """No line of these files is in what was printed."""
    for file in files:
        for line in KEY_LINE.findall(pathlib.Path(file).read_bytes()):
            assert line.decode() not in printed
    assert "PRIVATE" not in printed


# ---------------------------------------------------------------------------
# Own authorities
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ("pem", "der"))
def test_an_authority_of_one_s_own_is_copied_named_and_trusted(
    ready, run_deploy, secrets, over_tls, secure, made, form
):
    board = ready()
    secure(board)
    path = getattr(made.ca, "cert_%s_file" % form)
    printed = run_deploy(board, "--ca", path)
    assert copied(printed) == ["ca." + form, "secrets.py"]
    assert "secrets.py     names ca.%s as CA" % form in printed
    assert "board: mqtt: online" in printed
    assert files_on(board)["ca." + form] == pathlib.Path(path).read_bytes()
    assert 'CA = "ca.%s"\n' % form in secrets.read_text()
    assert secrets.stat().st_mode & 0o777 == 0o600

    # Nothing is given now, and nothing is beside secrets.py: it is on the board.
    assert copied(run_deploy(board)) == []
    printed = run_deploy(board, "--doctor")
    assert "ok     broker: accepted us" in printed


def test_the_board_s_own_certificate_and_key_are_copied_and_let_it_in(
    ready, run_deploy, secrets, over_tls, secure, made
):
    board = ready()
    secure(board, client_ca=made.ca)
    given = ["--ca", made.ca.cert_pem_file, "--cert", made.client.cert_pem_file]
    given += ["--key", made.client.key_pem_file]
    printed = run_deploy(board, *given)
    assert copied(printed) == ["ca.pem", "cert.pem", "key.pem", "secrets.py"]
    assert "board: mqtt: online" in printed
    no_secret_in(printed + board.output, made.client.key_pem_file)
    settings = deploy.settings_of(secrets)
    assert [settings[name] for name in ("CA", "CERT", "KEY")] == ["ca.pem", "cert.pem", "key.pem"]


def test_a_key_that_another_replaces_does_not_stay_on_the_board(
    ready, run_deploy, secrets, over_tls, made
):
    board = ready()

    def give(form):
        given = [["--ca", made.ca, "cert"], ["--cert", made.client, "cert"]]
        given += [["--key", made.client, "key"]]
        options = [[o, getattr(one, "%s_%s_file" % (kind, form))] for o, one, kind in given]
        printed = run_deploy(board, *sum(options, []), "--wait", 0)
        return printed, sorted(name for name in files_on(board) if name.endswith(("pem", "der")))

    assert give("pem")[1] == ["ca.pem", "cert.pem", "key.pem"]
    (board.files / "cert.pem").write_text("somebody's own")
    printed, names = give("der")
    assert names == ["ca.der", "cert.der", "cert.pem", "key.der"]
    assert "key.pem        is removed" in printed
    (board.files / "cert.pem").unlink()
    assert give("pem")[1] == ["ca.pem", "cert.pem", "key.pem"]


def test_certificates_beside_secrets_are_copied_if_it_names_them(
    ready, run_deploy, secrets, over_tls, secure, made
):
    over_tls(CA="home-ca.pem")
    (secrets.parent / "home-ca.pem").write_bytes(made.ca.cert_pem)
    (secrets.parent / "old.pem").write_bytes(made.other_ca.cert_pem)
    (secrets.parent / "older.der").write_bytes(made.other_ca.cert_der)
    board = ready()
    secure(board)
    printed = run_deploy(board)
    assert "secrets.py does not name, and so not copied: old.pem, older.der\n" in printed
    assert copied(printed) == ["home-ca.pem"] and "board: mqtt: online" in printed


@pytest.mark.parametrize(
    "line", ('CA, TLS = "ca.pem", None', '[CA, TLS] = ("ca.pem", None)', 'CA: str = "ca.pem"')
)
def test_a_setting_may_be_written_in_any_of_python_s_ways(
    ready, run_deploy, secrets, over_tls, made, line
):
    (secrets.parent / "ca.pem").write_bytes(made.ca.cert_pem)
    secrets.write_text(secrets.read_text().replace("CA = None\n", line + "\n"))
    assert copied(run_deploy(ready(), "--wait", 0)) == ["ca.pem"]


def test_a_deployment_that_fails_leaves_secrets_as_it_is(
    ready, run_deploy, secrets, over_tls, made
):
    board = ready()
    (board.files / "secrets.py").write_text("somebody = 'else'")
    before = secrets.read_bytes()
    printed = run_deploy(board, "--ca", made.ca.cert_pem_file, status=1)
    assert failure(printed).endswith("is not what was put there: --force overwrites it")
    assert secrets.read_bytes() == before and "names" not in printed


def test_dry_run_leaves_secrets_as_it_is(ready, run_deploy, secrets, over_tls, made):
    board = ready()
    before = secrets.read_bytes()
    printed = run_deploy(board, "--ca", made.ca.cert_pem_file, "--dry-run")
    assert "secrets.py     would name ca.pem as CA" in printed
    assert secrets.read_bytes() == before and "ca.pem" not in files_on(board)


@pytest.mark.parametrize(
    "options, reason",
    (
        (("--ca", "{none}"), "can't read .*none.pem: No such file or directory"),
        (("--ca", "{key}"), "client-key.pem is no certificate"),
        (("--ca", "{text}"), "text.pem is no certificate"),
        (("--ca", "{empty}"), "empty.pem is no certificate"),
        (("--ca", "{large}"), "large.pem has more than 16 KiB: a board needs the one"),
        (("--ca", "{past}"), r"past.pem has expired: it was valid until \d{4}-"),
        (("--cert", "{cert}", "--key", "{cert}"), "client-cert.pem is no private key"),
        (("--cert", "{key}", "--key", "{key}"), "client-key.pem is no certificate"),
        (("--cert", "{cert}", "--key", "{text}"), "text.pem is no private key"),
        (("--cert", "{cert}", "--key", "{other_key}"), "key.pem does not belong to .*cert.pem"),
        (("--cert", "{cert}", "--key", "{rsa_key}"), "key.der does not belong to .*cert.pem"),
        (("--cert", "{cert}", "--key", "{locked}"), "locked.pem is encrypted: no board can ask"),
    ),
)
def test_a_file_that_does_not_serve_is_told_before_anything_is_copied(
    ready, run_deploy, secrets, over_tls, made, tmp_path, options, reason
):
    files = {
        "none": tmp_path / "none.pem",
        "text": tmp_path / "text.pem",
        "empty": tmp_path / "empty.pem",
        "large": tmp_path / "large.pem",
        "past": tmp_path / "past.pem",
        "locked": tmp_path / "locked.pem",
        "cert": made.client.cert_pem_file,
        "key": made.client.key_pem_file,
        "other_key": made.other_client.key_pem_file,
        "rsa_key": made.rsa_client.key_der_file,
    }
    files["text"].write_text("my notes\n")
    files["empty"].touch()
    files["large"].write_bytes(made.ca.cert_pem * 100)
    past = certificates.Authority("of the past", begins_s=-2 * DAY_S, ends_s=-DAY_S)
    files["past"].write_bytes(past.cert_pem)
    files["locked"].write_bytes(
        made.client.key_pem.replace(b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY")
    )
    board = ready()
    before = files_on(board)
    text = secrets.read_bytes()
    printed = run_deploy(board, *(word.format(**files) for word in options), status=1)
    assert re.search(reason, failure(printed))
    assert files_on(board) == before and secrets.read_bytes() == text
    no_secret_in(printed, made.client.key_pem_file)


def test_a_file_with_certificate_and_key_is_copied_in_two(made, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(made.client.key_pem + made.client.cert_pem)
    assert certs.read_certificates(both) == made.client.cert_pem
    assert certs.read_key(both) == made.client.key_pem


def test_a_file_that_two_settings_name_is_copied_whole(
    ready, run_deploy, over_tls, secure, secrets, made
):
    both = made.client.key_pem + made.client.cert_pem
    (secrets.parent / "lamp.pem").write_bytes(both)
    (secrets.parent / "ca.pem").write_bytes(made.ca.cert_pem)
    over_tls(CA="ca.pem", CERT="lamp.pem", KEY="lamp.pem")
    board = ready()
    secure(board, client_ca=made.ca)
    assert "board: mqtt: online" in run_deploy(board)
    assert files_on(board)["lamp.pem"] == both
    assert "ok     broker: accepted us" in run_deploy(board, "--doctor")


def test_each_way_to_write_a_key_is_known(made):
    for pair in (made.client, made.rsa_client):
        for form, key in pair.key_forms().items():
            certs.check_pair(pair.cert_der, key, "the certificate", form)


def test_a_key_alone_is_refused(run_deploy, made, capsys):
    with pytest.raises(SystemExit):
        run_deploy(None, "--key", made.client.key_pem_file)
    assert "--cert and --key need each other" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings, reason",
    (
        ({"CA": None}, "SERVER is mqtts://, and CA is None: .* --ca FILE, or --public-ca"),
        (
            {"CA": "lost.pem"},
            "CA names lost.pem, which is neither beside it nor on the",
        ),
        ({"TLS": "insecure", "KEY": "key.pem"}, "CERT and KEY need each other"),
    ),
)
def test_a_setting_that_lacks_another_is_told(ready, run_deploy, over_tls, settings, reason):
    board = ready()
    over_tls(**settings)
    assert re.search(reason, failure(run_deploy(board, status=1)))


@pytest.mark.parametrize(
    "settings, reason",
    (
        ({"CA": "mine.pem"}, "CA has a value of its own: set it to None, and --ca names its file"),
        ({"TLS": "insecure"}, 'TLS = "insecure" verifies nothing: set it to None'),
    ),
)
def test_a_setting_that_is_in_the_way_is_told(ready, run_deploy, over_tls, made, settings, reason):
    board = ready()
    over_tls(**settings)
    assert reason in failure(run_deploy(board, "--ca", made.ca.cert_pem_file, status=1))


def test_a_setting_is_changed_where_it_stands_and_nothing_else():
    text = b"# CA = 1\r\nCA = None  # of the server\r\nTLS = None\r\n"
    changed = deploy.with_setting(text, "CA", "ca.pem")
    assert changed == b'# CA = 1\r\nCA = "ca.pem"  # of the server\r\nTLS = None\r\n'
    assert deploy.with_setting(b"CA = TLS = None", "CA", 'a"b') == (
        b'CA = TLS = None\nCA = "a\\"b"\n'
    )
    assert deploy.with_setting(b"USER = '\xc3\xa9'; CA = None; TLS = None\n", "CA", "ca.pem") == (
        b"USER = '\xc3\xa9'; CA = \"ca.pem\"; TLS = None\n"
    )
    # A board knows nothing but UTF-8, whatever is said of it.
    text = b"# coding: latin-1\nUSER = '\xc3\xa9'; CA = None\n"
    assert deploy.with_setting(text, "CA", "a") == text.replace(b"None", b'"a"')


@pytest.mark.parametrize(
    "uri, address",
    (
        ("mqtts://jo:123#4/5?6@broker.example", ("broker.example", 8883)),
        ("MQTTS://jo@[2001:db8::1]:1234/", ("2001:db8::1", 1234)),
    ),
)
def test_a_server_s_address_is_what_the_client_takes_for_it(uri, address):
    assert deploy.split_uri(uri) == address


@pytest.mark.parametrize("uri", ("mqtts://jo:word@", "mqtts://jo:word@host:0", "mqtts://a b"))
def test_no_address_shows_user_or_password(uri):
    with pytest.raises(deploy.DeployError, match="SERVER: URI has no host") as told:
        deploy.split_uri(uri)
    assert "word" not in str(told.value)


# ---------------------------------------------------------------------------
# Errors that no waiting mends
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, reason",
    (
        ("stranger", r"not trusted by ca=.*: give the certificate that the server's is signed"),
        ("wrong_name", "for another host name.*: SERVER in secrets.py must be a name"),
        ("expired", "certificate has expired.*: renew the server's certificate"),
    ),
)
def test_a_certificate_that_is_refused_ends_the_wait(
    ready, run_deploy, over_tls, secure, made, name, reason
):
    board = ready()
    secure(board, getattr(made, name))
    printed = run_deploy(board, "--ca", made.ca.cert_pem_file, status=1)
    assert re.match("the board can't go online: broker: TLS: .*" + reason, failure(printed))
    assert printed.count("board: mqtt: offline: TLS: ") == 2


def test_a_clock_that_nobody_sets_ends_the_wait_and_ntp_is_named(
    ready, run_deploy, over_tls, secure, made
):
    over_tls(NTP=())
    board = ready()
    secure(board)
    printed = run_deploy(board, "--ca", made.ca.cert_pem_file, status=1)
    assert "secrets.py has no NTP" in printed
    assert re.search(r"the clock says 2000 and is not set \(NTP\)", failure(printed))
    assert failure(printed).endswith('NTP = ("pool.ntp.org",) in secrets.py sets the clock')


def test_a_time_server_that_is_asked_is_seen_and_its_silence_is_told(
    ready, run_deploy, over_tls, secure, made
):
    board = ready()
    secure(board)
    printed = run_deploy(board, "--ca", made.ca.cert_pem_file)
    assert printed.index("board: clock: asking") < printed.index("board: wifi: up")

    board.world["routes"][NTP_ADDRESS, 123] = ("127.0.0.1", servers.free_port())
    board.power_off()  # and with it goes the time
    board.power_on()
    wait_until_idle(board, board.output.rindex("rst:"))
    printed = run_deploy(board, status=1)
    assert "board: clock: not set: no time server of NTP has answered" in printed
    assert failure(printed).endswith(deploy.CLOCK_ADVICE)
    assert printed.count("board: mqtt: offline: TLS: ") == deploy.CLOCK_TIMES


# ---------------------------------------------------------------------------
# Well-known authorities
# ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(made, tmp_path_factory):
    """A file like Mozilla's, with the authority of the tests among others."""
    others = [certificates.Authority("one of many %d" % number) for number in range(12)]
    roots = [*others[:7], made.ca, *others[7:]]
    path = tmp_path_factory.mktemp("bundle") / "cacert.pem"
    path.write_bytes(b"".join(b"# of somebody\n" + one.cert_pem for one in roots))
    return path


@pytest.mark.parametrize("name", ("server", "chained"))
def test_of_well_known_authorities_the_one_is_copied_that_the_server_needs(
    ready, run_deploy, secrets, over_tls, secure, made, bundle, name
):
    board = ready()
    server = secure(board, getattr(made, name))
    over_tls(SERVER="mqtts://localhost:%d" % server.port)
    board.world["routes"]["127.0.0.1", server.port] = (server.host, server.port)
    printed = run_deploy(board, "--public-ca", bundle, "--yes")
    assert re.search(r"trust the authority of the tests, valid until \d{4}-\d\d-\d\d\?", printed)
    assert copied(printed) == ["ca.pem", "secrets.py"] and "board: mqtt: online" in printed
    assert files_on(board)["ca.pem"] == made.ca.cert_pem


@pytest.mark.parametrize("form", ("pem", "der"))
@pytest.mark.parametrize("is_named", (False, True))
def test_a_server_that_asks_for_a_certificate_is_shown_the_board_s_own(
    broker, secrets, over_tls, made, bundle, form, is_named
):
    pair = [getattr(made.client, "%s_%s_file" % (what, form)) for what in ("cert", "key")]
    with broker.another(tls=servers.Tls(made.server, client_ca=made.ca)) as server:
        given = ["--cert", pair[0], "--key", pair[1]]
        names = {}
        if is_named:
            given = []
            names = {"CERT": "lamp." + form, "KEY": "lamp-key." + form}
            for path, name in zip(pair, names.values()):
                shutil.copy(path, secrets.parent / name)
        over_tls(SERVER="mqtts://localhost:%d" % server.port, **names)
        contexts = []
        shake_hands = certs.shake_hands

        def shake(host, port, context):
            contexts.append(context)
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # else it is refused too late
            shake_hands(host, port, context)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(certs, "shake_hands", shake)
            options = ["--secrets", secrets, "--public-ca", bundle, "--yes", *given]
            found = deploy.Certificates(deploy.parse_arguments(list(map(str, options))))
    assert contexts and found.files["ca.pem"] == made.ca.cert_pem


def test_a_key_of_another_certificate_is_told_before_a_server_is_asked(secrets, made, bundle):
    options = ["--secrets", secrets, "--public-ca", bundle, "--yes"]
    options += ["--cert", made.client.cert_pem_file, "--key", made.server.key_pem_file]
    with pytest.raises(deploy.DeployError, match="key.pem does not belong to .*cert.pem"):
        deploy.Certificates(deploy.parse_arguments(list(map(str, options))))


def test_nobody_is_trusted_unasked(ready, run_deploy, over_tls, secure, bundle, monkeypatch):
    board = ready()
    server = secure(board)
    over_tls(SERVER="mqtts://localhost:%d" % server.port)
    before = files_on(board)
    reason = failure(run_deploy(board, "--public-ca", bundle, status=1))
    assert re.match("trust the authority of the tests, .*--yes says so", reason)
    monkeypatch.setattr(deploy, "confirm", lambda question, is_yes: False)
    reason = failure(run_deploy(board, "--public-ca", bundle, status=1))
    assert reason == "not trusted, and nothing was changed"
    assert files_on(board) == before


@pytest.mark.parametrize(
    "name, reason",
    (
        ("stranger", "no well-known authority vouches for localhost port .*"),
        ("wrong_name", "no well-known authority vouches for localhost port .*mismatch"),
        ("expired", "no well-known authority vouches for localhost port .*expired"),
    ),
)
def test_a_server_that_no_well_known_authority_vouches_for_is_told(
    broker, made, bundle, name, reason
):
    with broker.another(tls=servers.Tls(getattr(made, name))) as server:
        with pytest.raises(deploy.DeployError, match=reason):
            certs.find_root("localhost", server.port, bundle.read_bytes())


def test_a_server_that_is_away_or_speaks_no_tls_is_told(broker, bundle):
    data = bundle.read_bytes()
    with pytest.raises(deploy.DeployError, match="port %d: " % broker.port):
        certs.find_root(broker.host, broker.port, data)
    port = servers.free_port()
    with pytest.raises(deploy.DeployError, match="port %d: .*refused" % port):
        certs.find_root("127.0.0.1", port, data)
    for host in ("a" * 64 + ".example", "a..b"):
        with pytest.raises(deploy.DeployError, match="port 8883: .*label"):
            certs.find_root(host, 8883, data)


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(bundle, monkeypatch):
    import socket

    monkeypatch.setattr(certs, "HANDSHAKE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(deploy.DeployError, match="port %d: .*no answer within" % port):
            certs.find_root("127.0.0.1", port, bundle.read_bytes())


def test_mozilla_s_bundle_is_there_and_each_of_its_authorities_is_described():
    data = certs.read_file(certs.public_bundle(), certs.BUNDLE_BYTES_MAX)
    blocks = [block for _, block in certs.blocks_of(data)]
    assert len(blocks) > 100
    for block in blocks:
        assert re.match(r".+, valid until \d{4}-\d\d-\d\d$", certs.describe(block))
        assert len(certs.der_of(block)) == 1 and ssl.DER_cert_to_PEM_cert(certs.der_of(block)[0])


def test_well_known_authorities_are_for_servers_with_tls(ready, run_deploy):
    reason = failure(run_deploy(ready(), "--public-ca", status=1))
    assert reason == "--public-ca: SERVER in secrets.py is not mqtts://"
    assert SERVER_ADDRESS not in reason
