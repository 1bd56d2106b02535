"""tools/test.py: which arguments go where, and what a run in several processes says at its end."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

import workers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# By its path: Python has a module `test` of its own.
specification = importlib.util.spec_from_file_location("test_tool", ROOT / "tools" / "test.py")
test_tool = importlib.util.module_from_spec(specification)
specification.loader.exec_module(test_tool)

RUN_TIMEOUT_S = 100

# Two modules of the portable tests, figures, and files of which tests are left out.
SELECTED = ["tests/test_portable.py", "tests/broker/test_many_clients.py"]
SELECTED += ["tests/broker/test_chaos.py", "tests/broker/test_other_brokers.py"]
SELECTED += ["-k", "CPython-test_strings or CPython-test_uris or 500"]


def run_pytest(*arguments):
    """Run pytest on the project as a user would; return its output."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--no-lwip", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=RUN_TIMEOUT_S,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def last_words(output):
    """What this project's tests say at the end, with 0 for each figure that was measured."""
    said = output[re.search(r"^=+ figures =+$", output, re.M).start() :]
    lines = [line for line in said.splitlines() if line]
    return [re.sub(r"\s+[\d.]+$", " 0", line) for line in lines[:-1]]


def test_two_workers_say_at_the_end_what_one_process_says(broker):
    one = run_pytest(*SELECTED)
    two = run_pytest(*SELECTED, *test_tool.SIDE_BY_SIDE, "-n2")
    assert "2 workers" in two and "workers" not in one
    words = last_words(two)
    assert words == last_words(one)
    totals = [line.split() for line in words if line.startswith("CPython ")]
    assert len(totals) == 1 and int(totals[0][1]) > 5 and totals[0][2] == "passed,"
    assert any(line.startswith("500 in one poll") for line in words)
    assert any("slow tests with a personality" in line for line in words)
    assert any("aedes and amqtt (--long runs them)" in line for line in words)
    assert "LEFT OUT: all that needs the emulated board (--no-lwip)" in words


def test_what_only_long_runs_is_left_out_in_one_line():
    files = ["tests/broker/test_mqtt5_at_rabbitmq.py", "tests/broker/test_many_clients.py"]
    said = run_pytest("--collect-only", "-q", *files).splitlines()
    assert not [line for line in said if "at_rabbitmq.py::" in line]
    (line,) = [line for line in said if "RabbitMQ" in line]
    assert re.fullmatch(r"LEFT OUT: \d+ tests with RabbitMQ, .*\(--long runs them\)", line)


def test_what_a_test_of_the_board_files_can_not_do_is_told_at_the_end():
    said = run_pytest("tests/board/test_board_files.py", "-k", "CPython-esp32-test_station")
    assert re.search(r"^board files, CPython +\d+ passed, 0 failed, 2 skipped ", said, re.M), said
    assert "_allocates_nothing_but_for_the_led: CPython does not tell" in said


def test_each_file_that_has_a_long_form_is_named():
    asks = re.compile(r"""getoption\("--long"\)""")
    files = [path for path in ROOT.glob("tests/**/test_*.py") if asks.search(path.read_text())]
    assert len(files) > 10
    for path in files:
        assert "    %s  " % path.relative_to(ROOT).as_posix() in test_tool.__doc__, path


@pytest.fixture
def started(monkeypatch):
    """A function: arguments of tools/test.py -> those that pytest is started with."""
    monkeypatch.setattr(test_tool.setup_env, "reexec_in_venv", lambda requirements: None)
    monkeypatch.setattr(test_tool.setup_env, "ensure_venv", lambda requirements: None)
    for tool, name in (
        (test_tool.get_micropython, "ensure"),
        (test_tool.get_lwip_board, "ensure"),
        (test_tool.get_esp32_sockets, "ensure"),
    ):
        monkeypatch.setattr(tool, name, lambda *arguments: None)
    monkeypatch.setattr(test_tool, "check_style", lambda: True)
    monkeypatch.setattr(test_tool, "compile_modules", lambda: None)
    monkeypatch.setattr(test_tool.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(test_tool.os, "chdir", lambda folder: None)
    calls = []
    monkeypatch.setattr(test_tool.os, "execv", lambda program, command: calls.append(command[3:]))

    def start(*arguments):
        calls.clear()
        test_tool.main(list(arguments))
        return calls[0]

    return start


def test_all_tests_run_in_three_processes_for_each_processor_up_to_a_limit(started, monkeypatch):
    assert started() == [*test_tool.SIDE_BY_SIDE, "-n6"]
    assert started("--no-lint", "--long") == [
        *test_tool.SIDE_BY_SIDE,
        "-n6",
        "--long",
    ]
    monkeypatch.setattr(test_tool.os, "cpu_count", lambda: 64)
    assert started()[-1] == "-n%d" % test_tool.WORKERS_MAX
    for unknown in (1, None):
        monkeypatch.setattr(test_tool.os, "cpu_count", lambda count=unknown: count)
        assert started() == []


def test_what_the_tools_need_is_installed_before_all_tests_run(started, monkeypatch):
    """A test's time-out killed pip half way, and .venv was made anew below the other tests."""
    installed = []
    monkeypatch.setattr(test_tool.setup_env, "ensure_venv", installed.append)
    started("tests/host", "-k", "pipe")
    assert not installed
    started("--no-lint", "--no-lwip")
    assert "requirements-pages.txt" in installed
    for name in installed:
        assert (test_tool.setup_env.TOOLS / name).is_file()


def test_no_program_that_a_test_starts_has_to_compile_the_client(monkeypatch, tmp_path):
    """With PYTHONDONTWRITEBYTECODE set, each did."""
    monkeypatch.setattr(test_tool.setup_env, "ROOT", tmp_path)
    (tmp_path / "micropython").mkdir()
    (tmp_path / "micropython" / "client.py").write_text("a = 1\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "odd.py").write_text("no Python\n")
    test_tool.compile_modules()
    (made,) = (tmp_path / "micropython" / "__pycache__").iterdir()
    assert made.name.startswith("client.") and made.suffix == ".pyc"


def test_what_can_not_be_installed_says_why_and_the_tests_run(started, monkeypatch, capsys):
    def fail(name):
        raise test_tool.setup_env.SetupError("no network for " + name)

    monkeypatch.setattr(test_tool.setup_env, "ensure_venv", fail)
    assert started() == [*test_tool.SIDE_BY_SIDE, "-n6"]
    assert "test: no network for requirements-pages.txt" in capsys.readouterr().out


def test_a_part_of_the_tests_runs_in_one_process(started):
    for arguments in (["tests/host"], ["-k", "pipe"], ["-x", "--no-broker"]):
        assert not [one for one in started(*arguments) if one.startswith(("-n", "--dist"))]


def test_what_is_not_for_the_tool_goes_to_pytest_in_its_order(started):
    arguments = [
        "-vk",
        "not shim",
        "-p",
        "no:cacheprovider",
        "--broker",
        "mqtt://h:1",
        "--maxfail=60",
    ]
    arguments += ["--no-br", "--deselect", "no/such/folder"]
    assert started(*arguments) == arguments
    assert started("--no-lint", *arguments) == arguments


def test_the_long_files_exist():
    for name in [*workers.LONG_FIRST, *workers.DIVIDED]:
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize(
    ("nodeid", "part"),
    [
        ("tests/host/test_shrink.py::test_x[a-test_b]", "tests/host/test_shrink.py"),
        (
            "tests/test_portable.py::test_portable[MicroPython 64-bit-test_pipe]",
            "tests/test_portable.py::test_portable[MicroPython 64-bit",
        ),
        ("tests/host/test_build.py::test_x[3]", "tests/host/test_build.py::test_x[3]"),
    ],
)
def test_a_file_is_run_by_one_worker_unless_it_is_a_long_one(nodeid, part):
    assert workers.part_of(nodeid) == part
