"""tools/deploy.py --wizard: a person at a terminal answers, and the board goes online.

The first tests type at the command itself, behind a pseudo-terminal; the others ask the functions.
"""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import sys
import threading

import deploy_talk
import deploy_wizard as wizard
import pexpect
import pytest
import zeroconf
from consoles import end
from deploying import PASSWORD, ROOT, SSID, files_on, plug_in

import certificates
import deploy
import servers
from checkouts import share_environment

TYPED_S = 30
ONLINE_S = 100
SEARCHES_S = (2, 5, 20)  # a busy machine answers late
SECRET = "password of jo, that no tool prints"


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a user has cloned, without a secrets.py, with an environment made already."""
    folder = tmp_path / "mqttpipe"
    folder.mkdir()
    for name in ("boards", "cpython_shim", "micropython", "tools"):
        ignored = shutil.ignore_patterns("secrets.py", "*.pem", "*.der", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    share_environment(folder)
    return folder


class Typist:
    """The command in a terminal, and who answers it."""

    def __init__(self, checkout, *arguments):
        words = [str(checkout / "tools" / "deploy.py"), "--wizard", *map(str, arguments)]
        self.child = pexpect.spawn(
            sys.executable, words, cwd=str(checkout), timeout=TYPED_S, encoding="utf-8",
            codec_errors="replace", dimensions=(50, 200),
        )  # fmt: skip
        self.shown = ""

    def answer(self, question, text):
        self.wait(question)
        self.child.sendline(text)

    def wait(self, text, timeout_s=TYPED_S):
        self.child.expect(text, timeout=timeout_s)
        self.shown += self.child.before + self.child.after

    def end(self):
        self.child.expect(pexpect.EOF, timeout=ONLINE_S)
        self.shown += self.child.before
        self.child.close()
        return self.child.exitstatus

    def answer_wifi(self):
        self.answer("Name of your Wi-Fi: ", SSID)
        self.answer("Its password .*: ", PASSWORD)


@pytest.fixture
def typist(checkout):
    typists = []

    def start(*arguments):
        typists.append(Typist(checkout, *arguments))
        return typists[-1]

    yield start
    for one in typists:
        end(one.child)


def test_who_answers_the_questions_has_a_board_online(virtual_board, broker, checkout, typist):
    board = plug_in(virtual_board(), broker)
    one = typist("--port", board.port)
    one.answer_wifi()
    one.answer(r"\(host, mqtt://host or mqtts://host\).*: ", "mqtt://127.0.0.1:%d" % broker.port)
    one.answer("User .*: ", "jo")
    one.answer("Its password .*: ", SECRET)
    one.wait("it accepts us")
    one.wait("would be the board itself there")
    one.answer("take it all the same.*", "y")
    one.answer("Name of the board.*: ", "")
    one.wait("mqtt: online", ONLINE_S)
    assert one.end() == 0 and re.search(r"deploy: online, [\d.]+ s", one.shown)
    assert PASSWORD not in one.shown and SECRET not in one.shown
    path = checkout / "boards" / "secrets.py"
    assert path.stat().st_mode & 0o777 == 0o600
    assert deploy.settings_of(path) == {
        **deploy.settings_of(deploy.EXAMPLE),
        "WIFI": [(SSID, PASSWORD)],
        "SERVER": "mqtt://127.0.0.1:%d" % broker.port,
        "USER": "jo",
        "PASSWORD": SECRET,
    }
    assert files_on(board)["secrets.py"] == path.read_bytes()
    assert os.listdir(checkout / "boards").count("secrets.py") == 1

    # Once more: what is there is not overwritten unasked.
    before = path.read_bytes()
    one = typist("--port", board.port)
    one.answer("secrets.py is there: write it anew.*", "n")
    assert one.end() == 1 and "secrets.py is as it was" in one.shown
    assert path.read_bytes() == before


def test_a_server_with_tls_and_an_authority_of_one_s_own(
    virtual_board, broker, checkout, typist, tmp_path
):
    made = certificates.make(tmp_path)
    board = plug_in(virtual_board(), broker)
    with broker.another(tls=servers.Tls(made.server)) as secure:
        one = typist("--port", board.port, "--wait", 0)
        one.answer_wifi()
        one.answer("mqtts://host.*: ", secure.uri)
        one.answer("certificate is signed by.*: ", str(tmp_path / "nothing.pem"))
        one.wait("not so: can't read .*nothing.pem")
        one.answer("certificate is signed by.*: ", made.ca.cert_pem_file)
        one.answer("User .*: ", "")
        one.wait("it accepts us")
        one.wait("would be the board itself there")
        one.answer("take it all the same.*", "y")
        one.answer("Name of the board.*: ", "shed")
        assert one.end() == 0
    settings = deploy.settings_of(checkout / "boards" / "secrets.py")
    assert settings["CA"] == "ca.pem" and settings["NTP"] == wizard.NTP
    assert files_on(board)["ca.pem"] == made.ca.cert_pem


def test_wrong_answers_are_told_with_the_rule_and_asked_again(typist, checkout, broker):
    one = typist("--port", "/dev/none")
    one.answer("Name of your Wi-Fi: ", "")
    one.wait("not so: a Wi-Fi's name has 1 to 32 bytes")
    one.answer("Name of your Wi-Fi: ", SSID)
    one.answer("Its password .*: ", "short12")
    one.wait("not so: a Wi-Fi's password has 8 to 64 bytes")
    one.answer("Its password .*: ", PASSWORD)
    one.answer("mqtts://host.*: ", "mqtt://jo:%s@127.0.0.1" % "x")
    one.wait("not so: without user and password")
    one.answer("mqtts://host.*: ", "http://127.0.0.1")
    one.wait("not so: URI must begin with mqtt://")
    port = servers.free_port()
    one.answer("mqtts://host.*: ", "127.0.0.1:%d" % port)
    one.answer("User .*: ", "")
    one.wait("it does not work from here: .*port %d" % port)
    one.answer("take it all the same.*", "n")
    one.answer("mqtts://host.*: ", "127.0.0.1:%d" % broker.port)
    one.answer("User .*: ", "")
    one.wait("it accepts us")
    one.wait("would be the board itself there")
    one.answer("take it all the same.*", "y")
    one.answer("Name of the board.*: ", "my board")
    one.wait("not so: letters, digits and -")
    one.answer("Name of the board.*: ", "board-7")
    assert one.end() == 1 and "there is no port /dev/none" in one.shown
    assert deploy.settings_of(checkout / "boards" / "secrets.py")["NAME"] == "board-7"
    assert "short12" not in one.shown


def test_what_the_terminal_sends_amiss_is_asked_for_again(typist, checkout):
    one = typist()
    one.wait("Name of your Wi-Fi: ")
    os.write(one.child.child_fd, b"caf\xe9\n")
    one.wait("not so: ")
    one.answer("Name of your Wi-Fi: ", "x" * 700)
    one.wait("not so: at most 511 characters")
    one.answer("Name of your Wi-Fi: ", SSID)
    one.wait("Its password .*: ")
    os.write(one.child.child_fd, b"password\xe9\n")
    one.wait("not so: ")
    one.wait("Its password .*: ")
    one.child.sendeof()
    assert one.end() == 1 and "nobody answers; nothing was written" in one.shown
    assert "Traceback" not in one.shown
    assert not list((checkout / "boards").glob("secrets.py*"))


def test_a_key_that_types_no_letter_is_no_part_of_an_answer(typist):
    one = typist()
    one.answer("Name of your Wi-Fi: ", "my\x1b[Dnet")
    one.wait("not so: no control characters")
    one.answer("Name of your Wi-Fi: ", SSID)
    one.answer("Its password .*: ", "secret\x1b[A word")
    one.wait("not so: no control characters")
    one.wait("Its password .*: ")


def test_the_wizard_and_a_dry_run_exclude_each_other(secrets, capsys):
    before = secrets.read_bytes()
    with pytest.raises(SystemExit):
        deploy.main(["--wizard", "--dry-run", "--secrets", str(secrets)])
    said = capsys.readouterr().err
    assert said.endswith(
        "--wizard writes secrets.py, and --dry-run writes nothing: give one of them\n"
    )
    assert secrets.read_bytes() == before


def test_a_server_that_is_not_verified_is_tried_without_a_word_among_the_questions(
    broker, tmp_path, capfd
):
    made = certificates.make(tmp_path)
    with broker.another(tls=servers.Tls(made.server)) as secure:
        assert wizard.try_server(secure.uri, None, None, None, "insecure") is None
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_writes_nothing(typist, checkout):
    one = typist()
    one.answer_wifi()
    one.wait("mqtts://host.*: ")
    one.child.sendintr()
    assert one.end() == 130 and "deploy: stopped" in one.shown
    assert not list((checkout / "boards").glob("secrets.py*"))


def test_without_a_terminal_nothing_is_asked(run_deploy, secrets):
    secrets.unlink()
    printed = run_deploy(None, "--wizard", status=1)
    assert printed == "deploy: failed: --wizard asks questions: it needs a terminal\n"


@pytest.mark.parametrize("name", ("stdin", "stdout"))
def test_with_a_stream_that_was_closed_nothing_is_asked(monkeypatch, name):
    """`<&-` or `>&-`: Python has no such stream then."""
    monkeypatch.setattr(sys, name, None)
    with pytest.raises(deploy_talk.DeployError, match="nobody is here to be asked"):
        deploy_talk.confirm("trust it?")


def test_a_folder_that_can_not_be_written_is_told_before_anything_is_asked(run_deploy, tmp_path):
    path = tmp_path / "none" / "secrets.py"
    printed = run_deploy(None, "--wizard", "--secrets", path, status=1)
    assert printed == "deploy: failed: can't write into the folder %s\n" % path.parent


def test_a_server_that_refuses_is_told_before_anything_is_written(broker):
    with broker.another("allow_anonymous false") as locked:
        reason = wizard.try_server(locked.uri, "jo", SECRET, None, None)
    assert reason == "CONNACK: return code 5, not authorized"


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(wizard, "TRY_MS", 300)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = "mqtt://127.0.0.1:%d" % silent.getsockname()[1]
        assert wizard.try_server(uri, None, None, None, None).startswith("no answer within")


# Other tests may run on this machine, and announce theirs.
NAS = "nas-%d.local" % os.getpid()
PI = "pi-%d.local" % os.getpid()


def found_of_ours(count):
    """What the wizard finds of the servers above, once there are so many of them; and all."""
    for search_s in SEARCHES_S:
        found = wizard.find_servers(search_s, interfaces=["127.0.0.1"])
        ours = [one for one in found if NAS in one or PI in one]
        if len(ours) >= count:
            break
    return ours, found


@pytest.fixture
def announce():
    """A function that announces a service in the network of this machine alone."""
    with contextlib.closing(zeroconf.Zeroconf(interfaces=["127.0.0.1"])) as network:

        def register(kind, name, host, port):
            network.register_service(
                zeroconf.ServiceInfo(
                    kind,
                    "%s %d.%s" % (name, os.getpid(), kind),
                    port,
                    server=host,
                    addresses=[socket.inet_aton("127.0.0.1")],
                ),
                cooperating_responders=True,
            )

        yield register


def test_servers_that_announce_themselves_are_found(announce):
    announce("_mqtt._tcp.local.", "an evil one", "a b\x1b[2J.local.", 1883)
    announce("_mqtt._tcp.local.", "Mosquitto on nas", NAS + ".", 1883)
    announce("_secure-mqtt._tcp.local.", "the other", PI + ".", 18883)
    ours, found = found_of_ours(2)
    assert ours == ["mqtt://" + NAS, "mqtts://%s:18883" % PI]
    assert "2J" not in "".join(found)
    assert wizard.checked_server("2", ours) == "mqtts://%s:18883" % PI


@pytest.mark.parametrize("text", ("0", "2", "65536"))
def test_a_number_that_is_not_in_the_list_is_no_host(text):
    with pytest.raises(ValueError, match="a number of the list, 1 to 1, or an address"):
        wizard.checked_server(text, ["mqtt://nas.local"])


@pytest.mark.parametrize(
    "host, is_so",
    (
        ("LOCALHOST", True),
        ("localhost.", True),
        ("127.1.2.3", True),
        ("0:0:0:0:0:0:0:1", True),
        ("0.0.0.0", True),
        ("127.example.org", False),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
    ),
)
def test_what_would_be_the_board_itself_is_known(host, is_so):
    assert wizard.is_this_computer_only(host) is is_so


@pytest.mark.parametrize(
    "name", ("lamp._secure-mqtt._tcp.local.", "x" * 63 + "." + "y" * 63 + "._mqtt._tcp.local.")
)
def test_an_answer_that_is_no_service_s_name_is_no_server(announce, name):
    announce("_mqtt._tcp.local.", "Mosquitto on nas", NAS + ".", 1883)
    answer = zeroconf.DNSOutgoing(0x8400)  # an authoritative response
    pointer = zeroconf.DNSPointer("_mqtt._tcp.local.", 12, 1, 4500, name)
    answer.add_answer_at_time(pointer, 0)
    is_over = threading.Event()

    def send():
        with contextlib.closing(zeroconf.Zeroconf(interfaces=["127.0.0.1"])) as network:
            while not is_over.wait(0.1):
                network.send(answer)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        ours, found = found_of_ours(1)
        assert ours == ["mqtt://" + NAS]
        assert not any(name[:4] in one for one in found)
    finally:
        is_over.set()
        thread.join()


def test_where_no_network_is_none_is_found(monkeypatch):
    def refuse(**options):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(zeroconf, "Zeroconf", refuse)
    assert wizard.find_servers() == []


def test_a_name_or_password_with_anything_in_it_comes_back_as_it_was(tmp_path):
    hard = "a\"b'c\\d\N{SNOWMAN}\u202e{}%s"
    text = deploy.with_setting(deploy.EXAMPLE.read_bytes(), "WIFI", [(hard, hard + "12345678")])
    path = tmp_path / "secrets.py"
    deploy.write_secrets(path, text)
    assert deploy.settings_of(path)["WIFI"] == [(hard, hard + "12345678")]
    assert [one.name for one in tmp_path.iterdir()] == ["secrets.py"]
    deploy.compile_file(path)


def test_secrets_that_can_not_be_written_are_told_and_leave_nothing(tmp_path, monkeypatch):
    path = tmp_path / "secrets.py"
    path.write_bytes(b"old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(deploy.os, "fsync", refuse)
    with pytest.raises(deploy_talk.DeployError, match="can't write .*: No space left"):
        deploy.write_secrets(path, b"new")
    assert path.read_bytes() == b"old" and len(list(pathlib.Path(tmp_path).iterdir())) == 1

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(deploy.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        deploy.write_secrets(path, b"new")
    assert path.read_bytes() == b"old" and len(list(pathlib.Path(tmp_path).iterdir())) == 1
