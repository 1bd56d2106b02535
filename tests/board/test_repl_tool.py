"""tools/repl.py on a virtual board, and a person at the REPL that it opens.

tests/broker/test_repl.py tries the same commands without a board, and more of each.
"""

import signal
import subprocess
import sys
import termios

import pytest
import virtual_board as virtual

import deploy
import repl as tool
from terminal import Terminal

SERVER_ADDRESS = "192.168.4.1"  # as the board sees it
SECRETS = """\
WIFI = [("home", "password of the tests")]
SERVER = "mqtt://%s"
USER = PASSWORD = CA = None
"""
PROMPT = ">>>"
ENDED_S = 60
SET_UP_S = 300  # another set-up may be at work, and then this one
ONLINE_S = 40  # with Wi-Fi to be joined first
FOLDERS = {virtual.ESP32: "esp32", virtual.PICO_W: "rp2_pico_w"}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory, compile_mpy, compile_client):
    """A function: a path in the project -> bytes of its .mpy."""
    folder = tmp_path_factory.mktemp("compiled")

    def get(path):
        target = folder / (path.replace("/", "-") + ".mpy")
        if path == "micropython/mqttpipe.py":
            return compile_client(opt=2)
        if not target.exists():
            compile_mpy(deploy.ROOT / path, target, "-O2")
        return target.read_bytes()

    return get


@pytest.fixture
def deployed(virtual_board, board_kind, compiled, broker):
    """A board with the client and its Wi-Fi on it, near an access point and the broker."""
    wifi = "boards/%s/wifi.py" % FOLDERS[board_kind]
    files = {
        "mqttpipe.mpy": compiled("micropython/mqttpipe.py"),
        "wifi_core.mpy": compiled("boards/common/wifi_core.py"),
        "wifi.mpy": compiled(wifi),
        "secrets.py": SECRETS % SERVER_ADDRESS,
    }
    board = virtual_board(board_kind, files=files)
    board.world.add_network("home", "password of the tests")
    board.world["routes"][SERVER_ADDRESS, 1883] = (broker.host, broker.port)
    board.wait_for_output(">>> ")
    return board


@pytest.fixture
def open_repl():
    """open_repl(board): a Terminal with tools/repl.py, at the prompt."""
    opened = []

    def run(board, **options):
        command = [sys.executable, tool.__file__, "--port", board.port]
        terminal = Terminal(command, **options)
        opened.append(terminal)
        terminal.wait_for_line(PROMPT, SET_UP_S)
        return terminal

    yield run
    for terminal in opened:
        print(terminal.story())  # shown if the test has failed
        terminal.close()


def enter(terminal, line, answer, timeout_s=10):
    terminal.wait_for_line(PROMPT)
    before = len(terminal.raw())
    terminal.ask(line, answer, timeout_s)
    terminal.wait_until(lambda _: b">>> " in terminal.raw()[before:], "prompt after " + line)
    terminal.wait_for_line(PROMPT)


def publish(broker, topic, text):
    """By the command of the host, as a person would."""
    mqtt = str(deploy.ROOT / "tools" / "mqtt.py")
    words = ["pub", "-h", broker.host, "-p", str(broker.port), "-t", topic, "-m", text, "-q", "1"]
    subprocess.run([sys.executable, mqtt, *words], check=True, timeout=20)


def test_a_person_at_a_board(deployed, open_repl, broker):
    repl = open_repl(deployed)
    greeting = [row for row in repl.lines() if "mqtt_" in row and "deploy:" not in row]
    assert len(greeting) == 2, repl.lines()

    enter(repl, "mqtt_start()", "online after", ONLINE_S)
    assert any("wifi: up" in row for row in repl.lines())
    enter(repl, "mqtt_subscribe('board/#')", "subscribe board/#: done after")
    repl.type("print('half a li")
    repl.wait_for_line(">>> print('half a li")
    publish(broker, "board/a", "while typing")
    repl.wait_for("<- board/a: while typing")
    repl.wait_for_line(">>> print('half a li")
    repl.type("ne')\r")
    repl.wait_for("half a line")
    enter(repl, "mqtt_publish('board/b', 'from the board')", "-> board/b: done after")
    repl.wait_for("<- board/b: from the board")
    enter(repl, "mqtt_status()", "ONLINE for")
    enter(repl, "mqtt_unsubscribe('board/#')", "unsubscribe board/#: done after")
    enter(repl, "mqtt_publish('board/b', 'to nobody')", "-> board/b: done after")
    assert not any("to nobody" in row for row in repl.lines() if row.startswith("<-"))

    enter(repl, "mqtt_test('start', 20)", "20 messages/s")
    repl.type("import time; time.sleep(1); print('slept')\r")
    repl.wait_until(lambda rows: "slept" in rows, "end of the pause")
    enter(repl, "mqtt_test('stop')", "reconnections")
    rows = dict(row.split(None, 1) for row in repl.lines() if " " in row)
    assert int(rows["published"].split()[0]) >= 10 and rows["lost"].startswith("0 ")

    repl.type("1234")
    broker.restart()
    repl.wait_for("mqtt: offline: ", ONLINE_S)
    repl.wait_for("mqtt: online", ONLINE_S)
    repl.wait_for_line(">>> 1234")
    repl.type("\x03")
    repl.wait_for_line(PROMPT)
    enter(repl, "mqtt_status()", "reconnected  1 times")
    enter(repl, "mqtt_stop()", "stopped")

    repl.type("\x1d")  # Ctrl-]: the end of mpremote
    assert repl.wait_for_end(ENDED_S) == 0


def test_a_wifi_that_stood_before_and_breaks_is_joined_again(deployed, open_repl):
    """The driver of a Pico W does not do so."""
    repl = open_repl(deployed)
    enter(repl, "import network; wlan = network.WLAN(0); wlan.active(True) or 1", "1")
    enter(repl, "wlan.connect('home', 'password of the tests')", ">>>")
    enter(repl, "while not wlan.isconnected(): pass\r\r", ">>>", ONLINE_S)
    enter(repl, "mqtt_start(keep_alive_s=2)", "online after", ONLINE_S)
    assert not any("joining" in row for row in repl.lines())
    deployed.world.switch_off()
    repl.wait_for("wifi: down", ONLINE_S)
    deployed.world.switch_on()
    repl.wait_for("wifi: up", ONLINE_S)
    repl.wait_for("mqtt: online", ONLINE_S)


def test_modules_of_the_users_project_are_none_of_the_tools(deployed, open_repl, tmp_path):
    """A project for MicroPython may have its own typing.py."""
    for name in ("typing", "argparse", "socket", "runpy", "termios", "serial"):
        (tmp_path / (name + ".py")).write_text("raise ImportError('of the project')\n")
    repl = open_repl(deployed, cwd=tmp_path)
    enter(repl, "1 + 1", "2")
    repl.type("\x1d")
    assert repl.wait_for_end(ENDED_S) == 0


def test_who_does_not_come_to_the_prompt_leaves_no_program_stopped(deployed, monkeypatch, capfd):
    monkeypatch.setattr(tool.setup_env, "reexec_in_venv", lambda requirements: None)
    monkeypatch.setattr(tool, "GREETING", "raise ValueError('no greeting')")
    assert tool.main(["--port", deployed.port]) == 1
    assert "no greeting" in capfd.readouterr().out
    deployed.wait_for_event("start", count=2)


def test_who_is_ended_leaves_the_terminal_as_it_was_and_no_program_stopped(deployed, open_repl):
    repl = open_repl(deployed)
    assert not termios.tcgetattr(repl.master)[3] & termios.ECHO
    repl.process.send_signal(signal.SIGTERM)
    deployed.wait_for_event("start", timeout_s=ENDED_S, count=2)
    assert repl.wait_for_end(ENDED_S) == 130
    assert termios.tcgetattr(repl.master)[3] & termios.ECHO


def test_the_second_time_nothing_is_copied(deployed, open_repl):
    first = open_repl(deployed)
    assert any("mqttpipe_repl.mpy copied" in row for row in first.lines())
    first.type("\x1d")
    first.wait_for_end(ENDED_S)
    second = open_repl(deployed)
    assert not any("copied" in row for row in second.lines())
    enter(second, "mqtt_status()", "not started")


def test_commands_that_were_deployed_as_source_serve(deployed):
    source = (deploy.ROOT / "micropython" / "mqttpipe_repl.py").read_bytes()
    (deployed.files / "mqttpipe_repl.py").write_bytes(source)
    tool.prepare(deployed.port)
    assert not (deployed.files / "mqttpipe_repl.mpy").exists()


def test_commands_as_another_source_are_in_the_way(deployed):
    (deployed.files / "mqttpipe_repl.py").write_text("from old_times import *\n")
    with pytest.raises(deploy.DeployError, match="mqttpipe_repl.py on the board is in the way"):
        tool.prepare(deployed.port)


def run_tool(*arguments):
    ran = subprocess.run(
        [sys.executable, tool.__file__, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    lines = ran.stdout.splitlines()
    return ran.returncode, lines[-1] if lines else ""


def test_a_board_without_mqttpipe_is_told_what_to_do(board):
    status, line = run_tool("--port", board.port)
    assert status == 1 and "tools/deploy.py puts it there" in line
    assert "mqttpipe_repl.mpy" not in [path.name for path in board.files.iterdir()]


def test_a_small_build_is_told_what_to_do(virtual_board):
    # All that the tool asks of it is whether it has start().
    board = virtual_board(files={"mqttpipe.py": "class MQTTClient:\n    pass\n"})
    board.wait_for_output(">>> ")
    status, line = run_tool("--port", board.port)
    assert status == 1 and "--profile standard" in line


def test_a_full_disk_leaves_nothing_half_copied(virtual_board, compiled):
    files = {"mqttpipe.mpy": compiled("micropython/mqttpipe.py")}
    used = len(files["mqttpipe.mpy"]) // 4096 + 1
    board = virtual_board(files=files, disk_bytes=(used + 3) * 4096)
    board.wait_for_output(">>> ")
    status, line = run_tool("--port", board.port)
    assert status == 1 and "full" in line, line
    assert sorted(path.name for path in board.files.iterdir()) == ["boot.py", "mqttpipe.mpy"]


def test_a_port_there_is_not_is_told():
    status, line = run_tool("--port", "/nonexistent/port")
    assert status == 1 and "no board: there is no port" in line
