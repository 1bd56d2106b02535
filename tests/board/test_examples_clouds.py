"""The examples for clouds; tests/vendors.py holds the vendors' rules before a real broker."""

import contextlib
import json
import re
import sys

import ends
import pytest
import virtual_board as virtual
from deploying import ROOT, SERVER_ADDRESS
from time_server import TimeServer

import certificates
import servers
import vendors
from dns_server import NameServer, answer
from examples import A_RECORD, EXAMPLES, NAME, TOPIC, WAIT_S, next_on, secrets_text, wait_until
from programs import Program

NTP_ADDRESS = "192.168.4.9"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clouds")
    authority = certificates.Authority("the root of the clouds").save(folder, "ca")
    authority.folder = folder
    return authority


@pytest.fixture
def cloud(broker, authority):
    """A function: host, rules, options -> (Gateway, what prepares a board, settings, files)."""
    opened = contextlib.ExitStack()

    def make(host, rules, behind=None, client_name=None, port=8883, alpn=()):
        pair = authority.issue(host).save(authority.folder, host)
        context = vendors.server_context(pair, authority if client_name else None, alpn)
        gateway = vendors.Gateway(behind or broker, rules, context)
        names = NameServer([[lambda query: answer(query, A_RECORD, 1)]] * 50)
        clock = TimeServer()
        opened.enter_context(gateway)
        for each in (names, clock):
            opened.callback(each.close)

        def near(board):
            board.world["routes"][SERVER_ADDRESS, 53] = ("127.0.0.1", names.port)
            board.world["routes"][SERVER_ADDRESS, port] = ("127.0.0.1", gateway.port)
            board.world["routes"][NTP_ADDRESS, 123] = clock.address

        settings = {"CA": "ca.der", "NTP": (NTP_ADDRESS,), "SERVER": "mqtts://" + host}
        files = {"ca.der": authority.cert_der}
        if client_name:
            client = authority.issue_client(client_name).save(authority.folder, client_name)
            files.update({"cert.der": client.cert_der, "key.der": client.key_der})
            settings.update(CERT="cert.der", KEY="key.der")
        return gateway, {"before": near, "more": files, **settings}

    with opened:
        yield make


AWS_HOST = "a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com"


def test_aws_iot_follows_the_shadow_within_the_policy(start_example, broker, cloud):
    gateway, options = cloud(AWS_HOST, vendors.Aws(NAME), client_name=NAME)
    with vendors.Shadow(broker, NAME) as shadow:
        board = start_example("aws_iot", **options)
        board.wait_for_output("mqtt: online", WAIT_S)
        shadow.wait_for_reported(lamp="off")
        shadow.desire(lamp="on")
        shadow.wait_for_reported(lamp="on")
        assert board.events("pin")[-1] == (27, 1)
        board.power_off()
        shadow.desire(lamp="off")  # while it is away
        board.power_on()
        shadow.wait_for_reported(lamp="off")
    assert gateway.broken == [], gateway.story()
    assert set(gateway.names) == {AWS_HOST}


def test_aws_iot_reports_nothing_for_a_word_that_it_does_not_obey(start_example, broker, cloud):
    """To report would bring the same delta again: messages without end, each paid for."""
    gateway, options = cloud(AWS_HOST, vendors.Aws(NAME), client_name=NAME)
    with vendors.Shadow(broker, NAME) as shadow:
        board = start_example("aws_iot", **options)
        shadow.wait_for_reported(lamp="off")
        shadow.desire(lamp="ON")
        with pytest.raises(AssertionError):
            board.wait_for_output("(?s)(lamp: off.*){4}", 2)
        shadow.desire(lamp="on")
        shadow.wait_for_reported(lamp="on")


@pytest.mark.parametrize("policy", ["another thing", "no certificate"])
def test_aws_would_not_take_it_and_the_board_says_so(start_example, cloud, policy):
    rules = vendors.Aws("another" if policy == "another thing" else NAME)
    gateway, options = cloud(AWS_HOST, rules, client_name=NAME)
    if policy == "no certificate":
        options.update(CERT=None, KEY=None)
    board = start_example("aws_iot", **options)
    board.wait_for_output("mqtt: offline: (CONNACK|TLS)", WAIT_S)
    wait_until(lambda: gateway.broken, "the cloud has nothing against it")
    assert "mqtt: online" not in board.output


def test_aws_iot_on_port_443_names_its_protocol(broker, cloud, authority, tmp_path):
    """On CPython: MicroPython has no ALPN."""
    gateway, options = cloud(
        "localhost",
        vendors.Aws(NAME, "x-amzn-mqtt-ca"),
        client_name=NAME,
        port=443,
        alpn=["x-amzn-mqtt-ca"],
    )
    text = (EXAMPLES / "aws_iot.py").read_text()
    (tmp_path / "aws_iot.py").write_text(
        COLLECTOR + text.replace("[1] == 443", "[1] == %d" % gateway.port)
    )
    names = {"CA": authority.cert_pem_file, "NAME": NAME}
    names["CERT"] = str(authority.folder / (NAME + "-cert.pem"))
    names["KEY"] = str(authority.folder / (NAME + "-key.pem"))
    names["SERVER"] = "mqtts://localhost:%d/" % gateway.port
    (tmp_path / "secrets.py").write_text(secrets_text(**names))
    (tmp_path / "wifi.py").write_text(WIFI)
    (tmp_path / "machine.py").write_text(MACHINE)
    path = "%s:%s" % (ROOT / "micropython", ROOT / "cpython_shim")
    with vendors.Shadow(broker, NAME) as shadow:
        environment = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        with Program([sys.executable, tmp_path / "aws_iot.py"], environment) as program:
            program.wait_for("mqtt: online")
            shadow.wait_for_reported(lamp="off")
    assert gateway.broken == [], gateway.story()


# Stand-ins for what a board has, for CPython.
COLLECTOR = "import gc\ngc.threshold = lambda count: None\n"
WIFI = """\
class Wifi:
    def __init__(self, networks, ntp=()):
        pass

    def start(self):
        pass

    def step(self):
        pass

    def is_up(self):
        return True
"""
MACHINE = """\
class Pin:
    OUT = 1

    def __init__(self, name, mode, value):
        self._value = value

    def value(self, *level):
        if level:
            self._value = level[0]
        return self._value
"""


@pytest.mark.parametrize(
    "host",
    ["0123456789abcdef.s1.eu.hivemq.cloud", "ab12cd34.ala.eu-central-1.emqxsl.com"],
    ids=["HiveMQ", "EMQX"],
)
def test_cloud_broker_logs_in_over_tls(start_example, broker, cloud, host):
    users = {"users": servers.password_line("board", "its password")}
    try:
        locked = broker.another("allow_anonymous false\npassword_file {folder}/users", users)
    except servers.NotOurs as error:
        pytest.skip(str(error))
    with locked:
        gateway, options = cloud(host, vendors.Cloud(host), locked)
        listener = ends.Peer("mqtt://board:its%%20password@%s:%d" % (locked.host, locked.port))
        listener._paho.username_pw_set("board", "its password")
        listener.connect()
        listener.subscribe(TOPIC + "#")
        board = start_example("cloud_broker", USER="board", PASSWORD="its password", **options)
        assert next_on(listener, TOPIC + "temperature") == b"21.5"
        listener.publish(TOPIC + "command", "hello")
        board.wait_for_output("command: b'hello'", WAIT_S)
        assert gateway.broken == [], gateway.story()
        listener.disconnect()


def test_another_job_goes_through_tls_as_the_page_says(start_example, listener, cloud):
    page = (ROOT / "docs" / "samples.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"^\*\*For another job.*?\n\n", page, re.M | re.S)
    ntp, ca, first = re.findall(r"`((?:import|ntp|ca)\b.*?)`", told)
    text = (EXAMPLES / "relay_and_lamp.py").read_text()
    text = first.replace("; ", "\n") + "\n" + text.replace("link=wifi", "link=wifi, " + ca)
    text = text.replace("Wifi(secrets.WIFI", "Wifi(secrets.WIFI, " + ntp)
    host = "broker.example"
    gateway, options = cloud(host, vendors.Cloud(host))
    options["more"]["main.py"] = text
    listener.subscribe(TOPIC + "relay")
    start_example("relay_and_lamp", **options)
    assert next_on(listener, TOPIC + "relay") == b"off"
    assert gateway.broken == [], gateway.story()


def test_cloud_broker_says_that_the_login_is_wrong(start_example, broker, cloud):
    host = "0123456789abcdef.s1.eu.hivemq.cloud"
    users = {"users": servers.password_line("board", "its password")}
    try:
        locked = broker.another("allow_anonymous false\npassword_file {folder}/users", users)
    except servers.NotOurs as error:
        pytest.skip(str(error))
    with locked:
        _, options = cloud(host, vendors.Cloud(host), locked)
        board = start_example("cloud_broker", USER="board", PASSWORD="another", **options)
        board.wait_for_output("the login: USER, PASSWORD", WAIT_S)


HUB = "hub.azure-devices.net"
KEY = "c2VjcmV0IG9mIHRoZSBkZXZpY2U="


@pytest.mark.parametrize("machine", [virtual.ESP32, virtual.PICO_W], ids=["ESP32", "Pico W"])
def test_azure_iot_makes_its_token_and_makes_it_anew(start_example, listener, cloud, machine):
    rules = vendors.Azure(HUB, NAME, KEY)
    gateway, options = cloud(HUB, rules)
    options["SERVER"] += "/"  # as a browser adds it: the client takes that, too
    listener.subscribe("devices/#", "$iothub/#")
    changes = {"TOKEN_S": 4, "EVERY_MS": 500}
    board = start_example("azure_iot", machine, changes=changes, PASSWORD=KEY, **options)
    assert json.loads(next_on(listener, "devices/lamp/messages/events/")) == {"temperature": 21.5}
    listener.publish("devices/lamp/messages/devicebound/", "hello")
    board.wait_for_output("message: b'hello'", WAIT_S)
    listener.publish("$iothub/methods/POST/blink/?$rid=7", "{}")
    assert json.loads(next_on(listener, "$iothub/methods/res/200/?$rid=7")) == {"done": "blink"}
    board.wait_for_output("mqtt: offline", WAIT_S)
    listener.publish("devices/lamp/messages/devicebound/", "meanwhile", qos=1)
    wait_until(lambda: len(rules.tokens) >= 2, gateway.story)
    board.wait_for_output("(?s)mqtt: online.*mqtt: offline.*mqtt: online", WAIT_S)
    board.wait_for_output("message: b'meanwhile'", WAIT_S)
    assert gateway.broken == [], gateway.story()


def test_azure_would_not_take_another_key_and_the_board_says_so(start_example, cloud):
    gateway, options = cloud(HUB, vendors.Azure(HUB, NAME, KEY))
    board = start_example("azure_iot", PASSWORD="YW5vdGhlciBrZXk=", **options)
    board.wait_for_output("mqtt: offline: CONNACK: return code 5", WAIT_S)
    assert "a token with a wrong signature" in gateway.broken[0]
