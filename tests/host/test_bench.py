"""tools/bench.py: what it computes and shows; a short real run with a stand-in for a peer."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bench

TOP = Path(__file__).resolve().parents[2]
KEY = bench.Key("MicroPython 64-bit", "mqttpipe", "publish", 0, 64)

# As little of umqtt.simple as the worker needs, written for this test: no peer's code is here.
STAND_IN = """
import socket


class MQTTClient:
    def __init__(self, client_id, host, port):
        self.address = socket.getaddrinfo(host, port)[0][-1]

    def set_callback(self, callback):
        pass

    def connect(self):
        self.sock = socket.socket()
        self.sock.connect(self.address)
        self.sock.write(b"\\x10\\x0d\\x00\\x04MQTT\\x04\\x02\\x00\\x3c\\x00\\x01p")
        assert self.sock.read(4) == b"\\x20\\x02\\x00\\x00"

    def publish(self, topic, payload, retain=False, qos=0):
        size = 2 + len(topic) + len(payload)
        self.sock.write(bytes((0x30, size, 0, len(topic))))
        self.sock.write(topic)
        self.sock.write(payload)

    def disconnect(self):
        self.sock.write(b"\\xe0\\x00")
        self.sock.close()
"""


def test_the_median_of_the_rounds_counts():
    figures = {KEY: [{"rate": 30}, {"rate": 10}, {"rate": 20}]}
    assert bench.median(figures, KEY) == 20


def test_a_round_that_failed_leaves_no_figure():
    figures = {KEY: [{"rate": 30}, {"error": "no end"}]}
    assert bench.median(figures, KEY) is None
    assert bench.median({}, KEY) is None


def test_ratios_say_how_many_times_as_good_ours_is():
    assert bench.with_ratio(50.0, 100.0, "publish") == "50 (2)"  # twice as many a second
    assert bench.with_ratio(50.0, 100.0, "latency") == "50 (0.5)"  # half as quick
    assert bench.with_ratio(1.0, 2345.0, "publish") == "1 (2,300)"
    assert bench.with_ratio(None, 100.0, "publish") == "-"
    assert bench.with_ratio(50.0, None, "publish") == "50"


def test_numbers_are_short():
    assert [bench.number(n) for n in (None, 0.0421, 12.345, 1234567)] == [
        "-",
        "0.0421",
        "12.3",
        "1,234,567",
    ]


@pytest.mark.parametrize(
    "argument, part",
    [
        ("umqtt.simple", "NAME=PATH"),
        ("other=/tmp", "NAME one of"),
        ("umqtt.simple=/nowhere", "no umqtt/simple.py"),
    ],
)
def test_a_peer_that_is_not_there_is_refused(argument, part, capsys):
    with pytest.raises(SystemExit):
        bench.parse(["--peer", argument])
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--rounds=0", "--seconds=0"])
def test_a_run_of_nothing_is_refused(argument):
    with pytest.raises(SystemExit):
        bench.parse([argument])


@contextlib.contextmanager
def subscribed(qos):
    """A socket, and its reader, of a client that has subscribed at this QoS at a sender."""
    sender = bench.Sender()
    sender.prepare(qos, 3)
    with socket.create_connection(("127.0.0.1", sender.port), timeout=5) as sock:
        reader = sock.makefile("rb")
        sock.sendall(b"\x10\x0d\x00\x04MQTT")
        sock.sendall(b"\x04\x02\x00\x3c\x00\x01p")  # in two pieces, as some clients write it
        assert reader.read(4) == b"\x20\x02\x00\x00"
        sock.sendall(b"\x82\x06\x00\x07\x00\x01t" + bytes((qos,)))
        assert reader.read(5) == b"\x90\x03\x00\x07" + bytes((qos,))
        yield sock, reader


def packets_of(qos, count):
    """What the sender sends such a client."""
    with subscribed(qos) as (_, reader):
        return [reader.read(14 if not qos else 16) for _ in range(count)]


@pytest.mark.parametrize("qos", [1, 2])
def test_each_message_that_is_acknowledged_makes_room_for_the_next(qos):
    """As in servers: who leaves Nagle's algorithm on is not measured by a clock of 44 ms."""
    with subscribed(qos) as (sock, reader):
        packets = [reader.read(16) for _ in range(20)]
        for number in (3, 1):
            if qos == 2:
                sock.sendall(b"\x50\x02\x00" + bytes((number,)))
                assert reader.read(4) == b"\x62\x02\x00" + bytes((number,))
            sock.sendall(b"\xc0\x00" + bytes((0x40 if qos == 1 else 0x70, 2, 0, number)))
            assert reader.read(16) == packets[number - 1]


def test_the_sender_takes_topic_names_in_turn():
    sender = bench.Sender()
    packets = b"".join(sender._packets(0, 1, (b"t/1", b"t/2")))
    assert packets.startswith(b"\x30\x06\x00\x03t/2x\x30\x06\x00\x03t/1x\x30")


def test_each_row_has_a_title_and_only_rates_are_better_if_larger():
    assert set(bench.FIELD) == set(bench.TITLES)
    for task, title in bench.TITLES.items():
        assert ("/s" in title) == (bench.FIELD[task] == "rate")
        assert title % {"qos": 1, "size": 64}


def test_figures_of_another_kind_of_row_are_shown_with_the_rest():
    figures = {bench.Key("a board", "mqttpipe", "idle", 0, 64): [{"rate": 2}]}
    assert bench.measured(figures) == ["a board"]
    assert bench.rows_of(figures, "a board")[1] == [("steps/s that find nothing", [2], "idle")]


def test_the_sender_grants_what_is_asked_and_sends_without_end():
    assert packets_of(0, 200) == [b"\x30\x0c\x00\x07bench/1xxx"] * 200
    first = packets_of(1, 20)
    assert first[0] == b"\x32\x0e\x00\x07bench/1\x00\x01xxx"
    assert first[19] == b"\x32\x0e\x00\x07bench/1\x00\x14xxx"


def test_the_command_of_a_page_has_what_changes_its_figures_and_no_folder(tmp_path):
    assert bench.parse([]).shown == []
    words = ["--rows", "idle", "--rows", "turns", "--heap", "64k"]
    folders = ["--json", str(tmp_path / "x"), "--plot", str(tmp_path), "--markdown", "page.md"]
    assert bench.parse([*folders, *words]).shown == words


def test_whoever_ends_it_no_broker_is_left(tmp_path):
    if not shutil.which("mosquitto") and not os.path.exists("/usr/sbin/mosquitto"):
        pytest.skip("no mosquitto")
    command = [sys.executable, bench.__file__, "--interpreter=CPython", "--seconds=30"]
    with subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob("mqttpipe-bench-*/job.json")):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            assert list(tmp_path.glob("mqttpipe-demo-*/log"))  # of a broker that answers
        finally:
            process.terminate()
        assert process.wait(30) == 130
    # Folders go when what works in them has ended.
    assert list(tmp_path.iterdir()) == []


def test_a_whole_run_prints_and_writes_its_figures(get_interpreter, tmp_path):
    get_interpreter("MicroPython 64-bit")
    if not shutil.which("mosquitto") and not os.path.exists("/usr/sbin/mosquitto"):
        pytest.skip("no mosquitto")
    folder = tmp_path / "peer"
    (folder / "umqtt").mkdir(parents=True)
    (folder / "umqtt" / "simple.py").write_text(STAND_IN)
    command = [sys.executable, str(TOP / "tools" / "bench.py"), "--rounds=1", "--seconds=0.05"]
    command += ["--sizes=16", "--no-instructions", "--interpreter=MicroPython 64-bit"]
    command += ["--peer", "umqtt.simple=%s" % folder, "--json", str(tmp_path / "figures.json")]
    command += ["--markdown", str(tmp_path / "page.md"), "--plot", str(tmp_path / "plots")]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=110)
    output = ran.stdout.decode()
    assert ran.returncode == 0, output
    assert "left out: " in output and "mqtt_as" in output
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    rates = {
        (figure["client"], figure["task"], figure["qos"]): figure["runs"][0].get("rate", 0)
        for figure in figures
    }
    for qos in (0, 1, 2):
        assert rates["mqttpipe", "publish", qos] > 0
        assert rates["mqttpipe", "receive", qos] > 0
    for client in ("mqttpipe", "mqttpipe full", "umqtt.simple", "raw"):
        assert rates[client, "publish", 0] > 0 and rates[client, "sink", 0] > 0, client
    assert ("mqttpipe", "sink", 1) not in rates, "nobody acknowledges"
    for way in bench.TURN_WAYS:
        task = ("turn " + way).strip()
        assert rates["mqttpipe full", task, 0] > 0 and rates["umqtt.simple", task, 0] > 0, task
    for task in ["idle"] + ["receive " + way for way in bench.RECEIVE_WAYS]:
        assert rates["mqttpipe", task, 0] > 0, task
    heap = [
        figure["runs"][0].get("bytes")
        for figure in figures
        if figure["client"] == "mqttpipe" and figure["task"].startswith("allocation")
    ]
    # QoS 0, 1 and 2 published, and received. A packet that came in two pieces costs 32 bytes: on a
    # busy machine one in some dozens does.
    assert len(heap) == 4 and max(heap) < 4, heap
    said = "did not run: MicroPython 64-bit, umqtt.simple, receive QoS 0: "
    assert said in output, "a dash has its reason on the screen, too"
    page = (tmp_path / "page.md").read_text()
    again = "--peer umqtt.simple=PATH --interpreter 'MicroPython 64-bit' --rounds 1 --seconds 0.05"
    again += " --sizes 16 --no-instructions"
    assert "\n    python3 tools/bench.py %s\n" % again in page
    assert "| published/s, QoS 1, 16 bytes |" in page and str(folder) not in page
    assert "## What did not run" in page, "the stand-in can not subscribe, and that is said"
    assert (
        (tmp_path / "plots" / "benchmarks-micropython-64-bit.svg").read_text().startswith("<?xml")
    )
