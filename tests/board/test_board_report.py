"""tools/board_report.py: what a board that has run for a while tells, and what it does not."""

import re
import types

import pytest
import virtual_board as virtual

import board_report
import deploy

SSID, PASSWORD, USER = "wifi that no report has", "password that no report has", "user-unreported"
SERVER_ADDRESS = "192.168.4.1"  # as the board sees it
NAME = "board-unreported"
KIND_OF = {virtual.ESP32: "esp32", virtual.PICO_W: "rp2_pico_w"}
AGAIN_S = 40


def secrets_text():
    text = deploy.EXAMPLE.read_text()
    for old, new in (
        ('("name of your Wi-Fi", "its password")', repr((SSID, PASSWORD))),
        ('"mqtt://broker.example"', repr("mqtt://" + SERVER_ADDRESS)),
        ("USER = None", "USER = %r" % USER),
        ("PASSWORD = None", "PASSWORD = %r" % PASSWORD),
        ('"mqttpipe-1"', repr(NAME)),
    ):
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def start_board(virtual_board, broker):
    """A function: machine, profile, main -> a board with the client on it, in its network."""

    def start(machine=virtual.ESP32, profile="standard", main=None):
        kind = KIND_OF[machine]
        files = deploy.build_files(
            types.SimpleNamespace(kind=kind, mpy_version=6), profile, source=False
        )
        if main is None:
            text = (deploy.BOARDS / kind / "main.py").read_text()
            main, count = re.subn(r"^SAFE_BOOT_S = \d", "SAFE_BOOT_S = 0", text, flags=re.M)
            assert count == 1
        files.update({"main.py": main, "secrets.py": secrets_text()})
        board = virtual_board(machine, files)
        board.world.add_network(SSID, PASSWORD)
        board.world["routes"][SERVER_ADDRESS, 1883] = (broker.host, broker.port)
        return board

    return start


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """A function: a board -> (status, what was printed), by the tool in this process."""
    monkeypatch.setattr(board_report.setup_env, "reexec_in_venv", lambda requirements: None)

    def run(port):
        status = board_report.main(["--port", port])
        printed = capsys.readouterr()
        assert printed.err == ""
        return status, printed.out

    return run


def table_of(printed):
    """The cells of a Markdown table, each row of which has two."""
    rows = [re.fullmatch(r"\| ([^|]*) \| ([^|]*) \|", line) for line in printed.splitlines()[2:]]
    assert printed.startswith("| | |\n|---|---|\n") and all(rows), printed
    return dict(row.groups() for row in rows)


def test_a_board_in_service_tells_how_it_has_fared(start_board, board_kind, run_tool, broker):
    board = start_board(board_kind, profile="full")
    board.wait_for_output("mqtt: online", timeout_s=AGAIN_S)
    since = len(board.output)
    broker.restart()
    board.wait_for_output("mqtt: offline: ", since=since, timeout_s=AGAIN_S)
    board.wait_for_output("mqtt: online", since=since, timeout_s=AGAIN_S)

    since = len(board.output)
    status, printed = run_tool(board.port)
    assert status == 0
    told = table_of(printed)
    assert told["board"].startswith(board_kind)
    assert "MicroPython" in told["firmware"]
    assert re.fullmatch(r"\d+\.\d+\.\d+, profile full", told["mqttpipe"])
    assert re.fullmatch(r"\d+\.\d\d", told["hours up"])
    assert float(told["hours of these offline"]) <= float(told["hours up"])
    assert told["connections"] == "2" and told["reconnections"] == "1"
    assert told["state"] == "ONLINE"
    assert re.fullmatch(r"-\d+ dBm", told["Wi-Fi signal"])
    for name in ("memory", "disk"):
        assert re.fullmatch(r"[1-9]\d* KiB of \d+ KiB free", told[name]), told[name]
    assert int(told["queued"]) >= 1  # "online", when it was so first
    for secret in (SSID, PASSWORD, USER, NAME, SERVER_ADDRESS, broker.host, str(broker.port)):
        assert secret not in printed, secret
    # It goes on where it was: in service.
    board.wait_for_output("mqtt: online", since=since, timeout_s=AGAIN_S)


def test_what_is_counted_beside_the_client_is_told_without_its_counters(start_board, run_tool):
    board = start_board()
    board.wait_for_output("mqtt: online", timeout_s=AGAIN_S)
    status, printed = run_tool(board.port)
    told = table_of(printed)
    assert status == 0 and told["mqttpipe"].endswith(", profile standard")
    assert told["connections"] == "1" and "reconnections" not in told


def test_a_loop_without_boot_is_counted_as_well(start_board, run_tool):
    main = (
        "from mqttpipe import MQTTClient\nfrom station import Station\n"
        "station = Station(MQTTClient('mqtt://h'))\nprint('made')\n"
        "while True:\n    station.step(100)\n"
    )
    board = start_board(main=main)
    board.wait_for_output("made")
    status, printed = run_tool(board.port)
    told = table_of(printed)
    assert status == 0 and told["state"] == "DOWN" and told["connections"] == "0"


def test_of_a_program_without_a_station_the_client_is_found_among_its_names(start_board, run_tool):
    main = "from mqttpipe import MQTTClient\nours = MQTTClient('mqtt://h')\nprint('made')\n"
    board = start_board(main=main)
    board.wait_for_output("made")
    status, printed = run_tool(board.port)
    told = table_of(printed)
    assert status == 0 and told["state"] == "DOWN"
    assert told["hours up"] == "not counted; the program has no Station"


def test_a_board_that_runs_no_mqttpipe_has_nothing_to_report(board, run_tool):
    status, printed = run_tool(board.port)
    assert status == 1
    assert printed.startswith("report: failed: no mqttpipe runs on the board: ")
    assert printed.count("\n") == 1


def test_a_port_there_is_not_is_told(run_tool, tmp_path):
    port = str(tmp_path / "ttyUSB9")
    assert run_tool(port) == (1, "report: failed: no board: there is no port %s\n" % port)


# ---------------------------------------------------------------------------
# What a board may say
# ---------------------------------------------------------------------------

GOOD = {
    "firmware": "3.4.0; MicroPython v1.25.0 on 2025-04-15",
    "client": "0.1.0",
    "state": "ONLINE",
    "stats": {"sent": 3, "ping_ms": None},
    "uptime_s": 5400,
    "offline_s": 36,
    "connections": 2,
    "memory_free": 30_000,
    "signal_dbm": -55,
}
OF_PROBE = {"platform": "esp32", "version": (1, 25, 0), "machine": "ESP32", "mpy": 6}
OF_PROBE.update({"memory_free": 1 << 16, "memory": 1 << 17, "disk_free": 0, "disk": 1 << 21})


class FakeBoard:
    port = "the port"

    def __init__(self, told):
        self.told = told

    def evaluate(self, code):
        return self.told


@pytest.fixture
def ask(monkeypatch):
    """A function: what the board tells -> what becomes of it."""
    monkeypatch.setattr(deploy, "ask", lambda board, names: dict(OF_PROBE))
    return lambda told: board_report.ask(FakeBoard(told))


@pytest.mark.parametrize(
    "name, value",
    [
        ("firmware", None),
        ("client", "0.1.0 | <b>"),
        ("client", "9" * 101),
        ("client", 1),
        ("state", "online"),
        ("stats", None),
        ("stats", {"sent": -1}),
        ("stats", {"sent": True}),
        ("stats", {"sent": 1 << 63}),
        ("stats", {"| |": 1}),
        ("stats", {"a" * 41: 1}),
        ("uptime_s", -1),
        ("uptime_s", "5"),
        ("offline_s", 0.5),
        ("connections", [2]),
        ("memory_free", -1),
        ("signal_dbm", 1),
        ("signal_dbm", False),
        ("password", "no such thing was asked for"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(ask, name, value):
    with pytest.raises(deploy.Nonsense):
        ask(dict(GOOD, **{name: value}))


@pytest.mark.parametrize("told", [None, [], {}, "ESP32", {"firmware": ""}])
def test_half_an_answer_is_refused(ask, told):
    with pytest.raises(deploy.Nonsense):
        ask(told)


def test_the_page_shows_what_is_told_and_nothing_in_it_is_markup(ask):
    told = ask(dict(GOOD, firmware="v1 | x |\n<img src=//a.example> @all #1 `[a](b)` \x1b[2J"))
    page = board_report.markdown(board_report.rows_of(told))
    table = table_of(page + "\n")
    assert re.fullmatch(r"[A-Za-z0-9 _.,;()+=%?-]+", table["firmware"])
    assert table["hours up"] == "1.50" and table["hours of these offline"] == "0.01"
    assert table["sent"] == "3" and table["ping_ms"] == "None"
    assert table["memory"] == "29 KiB of 128 KiB free", "while the program ran"


def test_without_a_figure_of_the_program_the_memory_is_that_of_now(ask):
    told = ask(dict(GOOD, memory_free=None))
    assert dict(board_report.rows_of(told))["memory"] == "64 KiB of 128 KiB free"


@pytest.mark.parametrize(
    "version, described",
    [
        ("0.1.0", "0.1.0, profile full"),
        ("0.1.0+no.stats", "0.1.0, without stats"),
        ("0.1.0+no.tls.nothing", "0.1.0, without tls, nothing"),
    ],
)
def test_a_build_is_told_by_its_profile_or_by_what_it_lacks(version, described):
    assert board_report.describe_client(version) == described


def test_each_profile_is_told_by_its_name():
    text = board_report.build.read_source()
    switches = board_report.build.find_switches(text)
    for profile in board_report.build.PROFILES:
        parts = board_report.build.parts_of(profile, switches)
        made = board_report.build.configure(text, switches, parts)
        described = board_report.describe_client(board_report.build.version_of(made))
        # No version tells of MQTT 5.0.
        assert described.endswith(", profile " + profile.replace("mqtt5", "full"))
