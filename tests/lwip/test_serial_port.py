"""mpremote, tools/deploy.py and tools/repl.py on the emulated board: a real raw REPL and littlefs.

tests/board/ tries more of each tool, on a board that is simulated.
"""

import re
import shlex
import signal
import subprocess
import sys

import pytest

import deploy
import emulated_board
from emulated_board import HOST
from setup_env import ROOT
from terminal import Terminal

NAME = "emulated"
TOPIC = "boards/%s/" % NAME
TOOL_TIMEOUT_S = 100
PROMPT = ">>>"
ONLINE_S = 40
ENDED_S = 60
SET_UP_S = 300  # another set-up may be at work, and then this one


@pytest.fixture
def port_board(make_board):
    return make_board(has_port=True)


@pytest.fixture
def secrets(tmp_path, broker):
    """A secrets.py, filled in as a user would."""
    text = deploy.EXAMPLE.read_text()
    for old, new in (
        ('"mqtt://broker.example"', repr("mqtt://%s:%d" % (HOST, broker.port))),
        ('"mqttpipe-1"', repr(NAME)),
        ('"name of your Wi-Fi", "its password"', '"home", "password of the tests"'),
    ):
        assert old in text, old
        text = text.replace(old, new)
    path = tmp_path / "secrets.py"
    path.write_text(text)
    return path


def run_tool(command, status=0):
    ran = subprocess.run(
        [sys.executable, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TOOL_TIMEOUT_S,
        text=True,
    )
    assert ran.returncode == status, ran.stdout
    return ran.stdout


def run_deploy(board, *arguments, status=0):
    return run_tool([deploy.__file__, "--port", board.port, *arguments], status)


def test_mpremote_copies_runs_and_resets(port_board, tmp_path):
    connect = ["-m", "mpremote", "connect", port_board.port]
    (tmp_path / "one.py").write_text("print('from', 'one')\n" + "# filled up\n" * 500)
    run_tool([*connect, "fs", "cp", tmp_path / "one.py", ":"])
    assert "one.py" in run_tool([*connect, "fs", "ls"])
    assert run_tool([*connect, "exec", "import one"]).strip() == "from one"
    run_tool([*connect, "reset"])
    assert run_tool([*connect, "eval", "6 * 7"]).strip() == "42"
    run_tool([*connect, "fs", "cp", ":one.py", tmp_path / "back.py"])
    assert (tmp_path / "back.py").read_text() == (tmp_path / "one.py").read_text()


def test_a_blank_board_is_deployed_goes_online_and_stays_what_it_is(port_board, secrets, broker):
    blank = run_deploy(port_board, "--secrets", secrets, "--doctor")
    assert "broker: accepted us" in blank and "NOT OK" not in blank
    first = run_deploy(port_board, "--secrets", secrets)
    assert first.splitlines()[-1].startswith("deploy: online")
    assert len(re.findall(r"^deploy:   (\S+) +copied,", first, re.M)) == 7
    second = run_deploy(port_board, "--secrets", secrets)
    assert second.splitlines()[-1].startswith("deploy: online")
    assert " copied," not in second
    doctor = run_deploy(port_board, "--doctor")
    assert not re.search(r"^  (?!ok )\S", doctor, re.M), doctor
    assert "broker: accepted us" in doctor
    assert "password of the tests" not in blank + first + second + doctor


def enter(terminal, line, answer, timeout_s=10):
    terminal.wait_for_line(PROMPT)
    terminal.type(line + "\r")
    terminal.wait_for(answer, timeout_s)
    terminal.wait_for_line(PROMPT)


def test_a_person_at_the_repl(port_board, secrets, broker):
    run_deploy(port_board, "--secrets", secrets, "--wait", "0")
    command = [sys.executable, deploy.ROOT / "tools" / "repl.py", "--port", port_board.port]
    with Terminal(command) as repl:
        repl.wait_for_line(PROMPT, SET_UP_S)
        enter(repl, "mqtt_start()", "online after", ONLINE_S)
        enter(repl, "mqtt_subscribe('board/#')", "subscribe board/#: done after")
        enter(repl, "mqtt_publish('board/b', 'from lwIP')", "<- board/b: from lwIP")
        repl.type("1234")
        broker.restart()
        repl.wait_for("mqtt: offline: ", ONLINE_S)
        repl.wait_for("mqtt: online", ONLINE_S)
        repl.wait_for_line(">>> 1234")
        repl.type("\x03")
        enter(repl, "mqtt_stop()", "stopped")
        repl.type("\x1d")  # Ctrl-]: the end of mpremote
        assert repl.wait_for_end(ENDED_S) == 0


def test_the_tool_starts_a_board_for_people_and_ends_with_ctrl_c(firmware, tmp_path):
    command = [sys.executable, emulated_board.__file__, "--flash", tmp_path / "flash"]
    with Terminal(command) as tool:
        tool.wait_for("Ctrl-C ends it", ENDED_S)
        lines = tool.lines()
        ports = {match for line in lines for match in re.findall(r"/dev/pts/\d+", line)}
        assert len(ports) == 1, lines
        for name in ("mpremote", "deploy.py", "repl.py"):
            assert name in "".join(lines), lines  # a row may end in its middle
        connect = ["-m", "mpremote", "connect", ports.pop()]
        run_tool([*connect, "exec", "with open('kept', 'w') as file: file.write('yes')"])
        tool.type("\x03")
        assert tool.wait_for_end(ENDED_S) == 0
    with emulated_board.Board(flash=tmp_path / "flash") as board:
        assert board.get("/kept") == b"yes"


def test_who_ends_the_tool_otherwise_leaves_no_board_behind(firmware):
    # As a script's `&` starts it: such a process does not hear SIGINT.
    begin = "trap '' INT; exec \"$@\""
    command = ["sh", "-c", begin, "sh", sys.executable, emulated_board.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if "Ctrl-C ends it" in line:
                    break
            process.send_signal(signal.SIGTERM)
            assert process.wait(ENDED_S) == 0
            assert process.stdout.read().strip() == "board: off"
        finally:
            process.kill()


def test_the_portable_tests_run_on_a_board_as_docs_porting_says(port_board, tmp_path):
    page = (ROOT / "docs" / "porting.md").read_text(encoding="utf-8")
    build, *commands = [
        shlex.split(line)
        for line in re.findall(r"^    ((?:python3 tools/build\.py|mpremote) .+)$", page, re.M)
        if "mip install" not in line and "program.py" not in line
    ]
    assert build[:2] == ["python3", "tools/build.py"] and len(commands) == 3
    run_tool([ROOT / build[1], *build[2:], "--out", tmp_path])
    for program, *words in commands:
        assert program == "mpremote"
        words = [word.replace("build/", "%s/" % tmp_path) for word in words]
        words = [str(ROOT / word) if word == "tests" else word for word in words]
        printed = run_tool(["-m", "mpremote", "connect", port_board.port, *words])
    skipped = re.findall(r"^skip .+: (.+?)\r?$", printed, re.M)
    assert set(skipped) <= {"this build has no mqtt5"}, printed
    ended = r"^[1-9]\d* passed, 0 failed, %d skipped\r?$" % len(skipped)
    assert re.search(ended, printed, re.M), printed


def test_the_drop_in_for_umqtt_is_copied_as_docs_migration_says(port_board, tmp_path):
    page = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    line = re.search(r"^    (python3 tools/build\.py && mpremote cp .+)$", page, re.M).group(1)
    build, copy = [shlex.split(command) for command in line.split("&&")]
    run_tool([ROOT / build[1], *build[2:], "--out", tmp_path])
    words = [str(ROOT / word) if word.startswith("micropython/") else word for word in copy[1:]]
    words = [word.replace("build/", "%s/" % tmp_path) for word in words]
    run_tool(["-m", "mpremote", "connect", port_board.port, *words])
    code = "import umqtt.robust, umqtt.simple; print(umqtt.simple.mqttpipe.__name__)"
    printed = run_tool(["-m", "mpremote", "connect", port_board.port, "exec", code])
    assert printed.split()[-1] == "mqttpipe"


def test_an_example_runs_from_the_pc_as_docs_samples_says(port_board, secrets):
    page = (ROOT / "docs" / "samples.md").read_text(encoding="utf-8")
    line = re.search(r"^    mpremote connect PORT (run .+)$", page, re.M).group(1)
    verb, program = line.split()
    run_deploy(port_board, "--secrets", secrets, "--wait", "0", "--main", ROOT / program)
    command = [sys.executable, "-m", "mpremote", "connect", port_board.port, verb, ROOT / program]
    with Terminal(command) as mpremote:
        mpremote.wait_for("mqtt: online", ONLINE_S)
        mpremote.type("\x03")
        mpremote.wait_for_end(ENDED_S)
