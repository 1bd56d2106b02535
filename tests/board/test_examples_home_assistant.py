"""Home Assistant finds what the example announces: the keys are those of its schema."""

import ast
import json
import re
import subprocess
import sys
import zipfile

import pytest
from deploying import ROOT

from dns_server import NameServer
from examples import A_RECORD, NAME, TOPIC, WAIT_S, next_on

# Keys of homeassistant 2026.11.0 (PyPI): ABBREVIATIONS of components/mqtt/abbreviations.py for
# those that are used, and what PLATFORM_SCHEMA of sensor.py and switch.py requires.
# test_the_keys_are_those_of_home_assistant_itself compares.
ABBREVIATIONS = {
    "avty_t": "availability_topic",
    "cmd_t": "command_topic",
    "dev": "device",
    "dev_cla": "device_class",
    "exp_aft": "expire_after",
    "stat_cla": "state_class",
    "stat_t": "state_topic",
    "uniq_id": "unique_id",
    "unit_of_meas": "unit_of_measurement",
}
DEVICE_ABBREVIATIONS = {"ids": "identifiers"}
REQUIRED = {"sensor": {"state_topic"}, "switch": {"command_topic"}}
COMMON = {"availability_topic", "device", "name", "state_topic", "unique_id"}
ALLOWED = {
    "sensor": COMMON | {"device_class", "expire_after", "state_class", "unit_of_measurement"},
    "switch": COMMON | {"command_topic"},
}
HOME_ASSISTANT = "homeassistant==2026.11.0"


def test_home_assistant_finds_both_and_is_told_when_the_board_is_gone(
    start_example, broker, listener
):
    listener.subscribe("homeassistant/#", TOPIC + "#")
    queries = NameServer([[multicast_answer]] * 20)

    def near(board):
        board.world["routes"]["224.0.0.251", 5353] = ("127.0.0.1", queries.port)

    board = start_example("home_assistant", before=near, SERVER="mqtt://homeassistant.local")
    try:
        found = {}  # topic name: payload
        while TOPIC + "relay" not in found:  # the last of what it says when it is online
            message = listener.next_message(WAIT_S)
            assert message.topic_name == TOPIC + "temperature" or message.qos == 1
            found[message.topic_name] = message.payload
        check_configuration(found, "sensor", "temperature")
        relay = check_configuration(found, "switch", "relay")
        assert found[TOPIC + "status"] == b"online"
        board.wait_for_output(r"relay/config, \d+ bytes\n")
        sizes = re.findall(r"^announced: \S+, (\d+) bytes$", board.output, re.M)
        told = [len(topic) + len(found[topic]) for topic in found if topic.endswith("/config")]
        assert sorted(map(int, sizes)) == sorted(told) and max(told) < 1024 - 9
        assert len(told) == 2
        for page in ("samples.md", "zh/samples.md"):
            text = (ROOT / "docs" / page).read_text("utf-8")
            rows = re.findall(r"^\| `homeassistant/.*\D(\d+) (?:bytes|字节)", text, re.M)
            assert sorted(map(int, rows)) == sorted(told), page  # NAME has four letters
        listener.publish(relay["command_topic"], "ON")
        while next_on(listener, relay["state_topic"]) != b"ON":
            pass
        assert board.events("pin")[-1] == (26, 1)
        board.power_off()
        broker_sees = next_on(listener, relay["availability_topic"], 10)
        assert broker_sees == b"offline"
        assert queries.queries
    finally:
        queries.close()


def multicast_answer(query):
    return query[:2] + b"\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00" + query[12:] + A_RECORD


def check_configuration(found, kind, name):
    """It has what the schema requires and nothing else; return it with the long keys."""
    short = json.loads(found["homeassistant/%s/%s/%s/config" % (kind, NAME, name)])
    device = {DEVICE_ABBREVIATIONS.get(key, key): each for key, each in short["dev"].items()}
    assert device == {"identifiers": [NAME], "name": NAME}
    long = {ABBREVIATIONS.get(key, key): each for key, each in short.items()}
    assert REQUIRED[kind] <= set(long) <= ALLOWED[kind], set(long)
    assert long["unique_id"].startswith(NAME + "_")
    return long


def test_the_keys_are_those_of_home_assistant_itself(request, tmp_path):
    if not request.config.getoption("--long"):
        pytest.skip("--long: a download of 68 MB")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--ignore-requires-python"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(tmp_path), HOME_ASSISTANT]
    subprocess.run(command, check=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:

        def parsed(name):
            return ast.parse(archive.read("homeassistant/" + name))

        constants = {
            node.targets[0].id: node.value.value
            for name in ("const.py", "components/mqtt/const.py", "components/sensor/const.py")
            for node in ast.walk(parsed(name))
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        constants |= {
            node.target.id: node.value.value
            for name in ("const.py", "components/mqtt/const.py", "components/sensor/const.py")
            for node in ast.walk(parsed(name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant)
        }
        abbreviations = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in parsed("components/mqtt/abbreviations.py").body
            if isinstance(node, ast.Assign)
        }

        # The names in Required(...), Optional(...) and Exclusive(...) of a file.
        def keys(name, *kinds):
            return {
                constants.get(node.args[0].id)
                for node in ast.walk(parsed("components/mqtt/" + name))
                if isinstance(node, ast.Call)
                and getattr(node.func, "attr", "") in kinds
                and isinstance(node.args[0], ast.Name)
            }

        for short, long in ABBREVIATIONS.items():
            assert abbreviations["ABBREVIATIONS"][short] == long
        assert abbreviations["DEVICE_ABBREVIATIONS"]["ids"] == "identifiers"
        every = ("Required", "Optional", "Exclusive")
        common = keys("schemas.py", *every) | keys("config.py", *every)
        for kind, allowed in ALLOWED.items():
            assert allowed <= common | keys(kind + ".py", *every), kind
        assert {"state_topic", "command_topic"} <= keys("config.py", "Required")
