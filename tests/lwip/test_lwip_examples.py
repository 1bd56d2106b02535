"""Examples on the emulated board: over lwIP, with its TLS, from its flash.

tests/board/ runs all of them, on a board that is simulated. Here are those for which the network
matters, in a heap of 188 KiB.
"""

import json
import sys
import types

import pytest

import certificates
import deploy
import vendors
from dns_server import NameServer, answer
from emulated_board import HOST
from programs import Program

ROOT = deploy.ROOT
sys.path += [str(ROOT / "tests" / "board"), str(ROOT / "tests" / "broker")]

import ends  # noqa: E402

from examples import EXAMPLES, FULL, NAME, TOPIC, next_on, secrets_text, wait_until  # noqa: E402

WAIT_S = 60  # of this machine's time
A_RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + bytes(map(int, HOST.split(".")))

ASK_OURS = "import wifi\nwifi.Wifi.dns_servers = lambda self: [(%r, %d)]\n"


@pytest.fixture
def listener(broker):
    peer = ends.Peer(broker.uri).connect()
    yield peer
    for message in retained(peer):
        peer.publish(message.topic_name, b"", retain=True)
    peer.disconnect()


def retained(peer):
    peer.subscribe("#")
    return [message for message in peer.make_round_trip("examples/end") if message.retain]


@pytest.fixture
def start_example(listener, make_board, broker):
    """A function: name of an example, more files, what runs before it -> the Board."""
    # The listener outlives the board: what its will leaves is removed, too.

    def run(name, more=None, before="", changes=None, **settings):
        facts = types.SimpleNamespace(kind="rp2_pico_w", mpy_version=6)
        files = deploy.build_files(facts, "full" if name in FULL else "standard", False)
        settings.setdefault("SERVER", "mqtt://%s:%d" % (HOST, broker.port))
        files.update({"secrets.py": secrets_text(**settings).encode(), **(more or {})})
        text = (EXAMPLES / (name + ".py")).read_text()
        for old, new in (changes or {}).items():
            assert old in text, old
            text = text.replace(old, new)
        board = make_board(clock="steady")
        for file, data in files.items():
            if "/" in file:
                board.run("import os\nos.mkdir(%r)" % file.split("/")[0])
            board.put("/" + file, data)
        board.put("/main.py", text.encode())
        board.start("%sexec(open('/main.py').read())" % before)
        return board

    return run


def wait_for_output(board, text):
    wait_until(lambda: text in board.output(), "no %r" % text, WAIT_S)


def test_aws_iot_follows_the_shadow_over_tls(start_example, broker, tmp_path):
    host = "a1b2c3d4e5f6g7-ats.iot.eu-central-1.amazonaws.com"
    authority = certificates.Authority("the root of the clouds").save(tmp_path, "ca")
    pair = authority.issue(host).save(tmp_path, "server")
    client = authority.issue_client(NAME).save(tmp_path, "client")
    files = {"ca.der": authority.cert_der, "cert.der": client.cert_der, "key.der": client.key_der}
    names = NameServer([[lambda query: answer(query, A_RECORD, 1)]] * 50)
    context = vendors.server_context(pair, authority)
    try:
        with vendors.Gateway(broker, vendors.Aws(NAME), context) as gateway:
            with vendors.Shadow(broker, NAME) as shadow:
                start_example(
                    "aws_iot",
                    files,
                    ASK_OURS % (HOST, names.port),
                    SERVER="mqtts://%s:%d" % (host, gateway.port),
                    CA="ca.der",
                    CERT="cert.der",
                    KEY="key.der",
                )
                shadow.wait_for_reported(lamp="off", timeout_s=WAIT_S)
                shadow.desire(lamp="on")
                shadow.wait_for_reported(lamp="on", timeout_s=WAIT_S)
            assert gateway.broken == [] and set(gateway.names) == {host}, gateway.story()
    finally:
        names.close()


def test_a_sensor_sleeps_and_wakes(start_example, listener):
    listener.subscribe("sensors/#")
    changes = {"SLEEP_MS = 600_000": "SLEEP_MS = 100"}
    board = start_example("sleeping_sensor", changes=changes)
    for _ in range(2):
        assert next_on(listener, "sensors/%s/temperature" % NAME, WAIT_S) == b"21.5"
    wait_until(lambda: board.output().count("awake: ") >= 2, "it sleeps on", WAIT_S)


def test_a_relay_obeys(start_example, listener):
    listener.subscribe(TOPIC + "#")
    start_example("relay_and_lamp")
    assert next_on(listener, TOPIC + "relay", WAIT_S) == b"off"
    listener.publish(TOPIC + "relay/set", "toggle")
    assert next_on(listener, TOPIC + "relay", WAIT_S) == b"on"


def test_a_file_arrives_in_pieces(start_example, broker, tmp_path):
    board = start_example("commands_and_update")
    wait_for_output(board, "mqtt: online")
    program = tmp_path / "app.py"
    program.write_bytes(b"# filled up\n" * 700)
    path = "%s:%s" % (ROOT / "micropython", ROOT / "cpython_shim")
    command = [sys.executable, EXAMPLES / "send_file.py", broker.uri, NAME, program]
    with Program(command, {"PYTHONPATH": path}) as sender:
        assert sender.wait_for_end(WAIT_S) == (0, ["sent: 8400 bytes"])
    board.enter_raw_repl()
    assert board.get("/app.py") == program.read_bytes()


def test_home_assistant_is_told_of_both(start_example, listener):
    listener.subscribe("homeassistant/#", TOPIC + "#")
    start_example("home_assistant")
    config = "homeassistant/switch/%s/relay/config" % NAME
    settings = json.loads(next_on(listener, config, WAIT_S))
    listener.publish(settings["cmd_t"], "ON")
    wait_until(lambda: next_on(listener, settings["stat_t"], WAIT_S) == b"ON", "no ON", WAIT_S)


def test_a_battery_device_empties_its_queue(start_example, listener):
    listener.subscribe("sensors/#")
    changes = {"PERIOD_MS = 60_000": "PERIOD_MS = 20", "BATCH = 15": "BATCH = 3"}
    board = start_example("battery_queue", changes=changes)
    for _ in range(6):
        assert next_on(listener, "sensors/%s/temperature" % NAME, WAIT_S).endswith(b" 21.5")
    wait_for_output(board, "waiting: 0")


@pytest.mark.parametrize("name", ["before_umqtt", "from_umqtt", "from_mqtt_as"])
def test_before_and_after_obey(start_example, listener, name):
    folder = ROOT / "micropython" / "compat" / "umqtt"
    drop_in = {"umqtt/simple.mpy": deploy.compile_file(folder / "simple.py")}
    listener.subscribe(TOPIC + "#")
    start_example(name, drop_in)
    assert next_on(listener, TOPIC + "status", WAIT_S) == b"online"
    listener.publish(TOPIC + "lamp/set", "on")
    assert next_on(listener, TOPIC + "lamp", WAIT_S) == b"on"
