"""tools/deploy.py and tools/repl.py with a board that lies: a port with a script behind it.

The script speaks as much of MicroPython's raw REPL as mpremote needs. Whatever it answers, the
tool ends in time, with one line that says what is wrong, and the terminal is left alone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import deploy
import repl

BANNER = b"raw REPL; CTRL-B to exit\r\n>"
BUSY_S = 100  # a busy machine starts a tool late
HARMFUL = "\x1b]0;title\x07\x1b[2J\u202e\u2028\x9b1m\x00"

TOLD = {
    "platform": "esp32",
    "version": (1, 25, 0),
    "machine": "ESP32 of the tests",
    "mpy": 6,
    "memory_free": 100_000,
    "memory": 200_000,
    "block_bytes": 4096,
    "disk_free": 1_000_000,
    "disk": 2_000_000,
    "has_wifi": True,
    "files": {"secrets.py": 1},
    "hashes": {},
    "sources": {"lib/mqttpipe.py": None, "mqttpipe.py": 1},
    "record": None,
}


class Liar:
    """A board: `tell(code)` answers what it prints when code is run, and what error it shows.

    Args:
        tell: returns (printed, error), bytes; None: it says nothing more.
        flood: bytes that it sends again and again, from the first Ctrl-C on.
        after_reset: bytes that it prints after machine.reset().
    """

    def __init__(self, tell=None, flood=b"", after_reset=b""):
        self._master, slave = os.openpty()
        self.port = os.ttyname(slave)
        self._slave = slave
        import tty

        tty.setraw(slave)
        self._tell = tell or (lambda code: (b"", b""))
        self._flood = flood
        self._after_reset = after_reset
        self._is_over = False
        self.was_reset = threading.Event()  # some time after the tool has ended
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self):
        self._is_over = True
        os.close(self._slave)
        with contextlib.suppress(OSError):
            os.close(self._master)

    def _send(self, data):
        while data and not self._is_over:
            data = data[os.write(self._master, data[:1024]) :]

    def _serve(self):
        code = bytearray()
        with contextlib.suppress(OSError):
            while not self._is_over:
                data = os.read(self._master, 1)
                if data == b"\x03":
                    code.clear()
                    while self._flood and not self._is_over:
                        self._send(self._flood)
                elif data == b"\x01" and code != b"\x05A":
                    code.clear()
                    self._send(b"\r\n" + BANNER)
                elif data == b"\x01":
                    code.clear()
                    self._send(b"R\x00")  # no raw paste
                elif data == b"\x04":
                    self._run(bytes(code).decode())
                    code.clear()
                elif data != b"\r" or code:
                    code += data

    def _run(self, code):
        if not code:
            self._send(b"OK\r\nMPY: soft reboot\r\n" + BANNER)
            return
        self._send(b"OK")
        if "machine.reset()" in code:
            self.was_reset.set()
            self._send(b"\x04\x04>" + self._after_reset)
            return
        answer = self._tell(code)
        if answer is not None:
            printed, error = answer
            self._send(printed + b"\x04" + error + b"\x04>")


@pytest.fixture
def plug_in():
    with contextlib.ExitStack() as stack:

        def make(*arguments, **options):
            return stack.enter_context(contextlib.closing(Liar(*arguments, **options)))

        yield make


@pytest.fixture
def run(capsys, monkeypatch):
    """run(board, *arguments): the tool's lines. It must fail, in time, and harm nothing."""
    monkeypatch.setattr(deploy.setup_env, "reexec_in_venv", lambda name: None)
    monkeypatch.setattr(deploy, "ANSWER_TIMEOUT_S", 3)
    monkeypatch.setattr(deploy, "RUN_TIMEOUT_S", 4)
    monkeypatch.setattr(deploy, "DOCTOR_ALL_S", 4)
    monkeypatch.setattr(deploy, "ANSWER_BYTES_MAX", 30_000)

    def go(board, *arguments, tool=deploy, status=1):
        began_s = time.monotonic()
        assert tool.main(["--port", board.port, *arguments]) == status
        assert time.monotonic() - began_s < 60
        out, err = capsys.readouterr()
        assert not err
        assert all(line.isprintable() for line in out.split("\n")), out
        return out.splitlines()

    return go


def telling(**changes):
    """What a board prints that tells of itself, with some of it changed."""
    told = dict(TOLD, **changes)

    def tell(code):
        if "NAMES = " in code:
            return repr(told).encode() + b"\r\n", b""
        return b"False\r\n", b""

    return tell


def test_text_from_a_board_is_shown_as_one_harmless_line():
    assert deploy.shown(HARMFUL) == (r"\x1b]0;title\x07\x1b[2J\u202e\u2028\x9b1m\x00")
    assert deploy.shown("a\tb\r\nc\ud800") == r"a\tb\r\nc\ud800"
    assert deploy.shown("Zürich 東京 🙂") == "Zürich 東京 🙂"
    assert len(deploy.shown("\x00" * 20_000)) <= deploy.SHOWN_MAX + 3


@pytest.mark.parametrize("tool", [deploy, repl])
@pytest.mark.parametrize("text", [HARMFUL, "x" * 20_000], ids=["harmful", "long"])
def test_names_and_errors_of_a_board_do_nothing_to_the_terminal(plug_in, run, tool, text):
    for tell in (
        telling(machine=text, platform=text),
        telling(machine=text, version=(1, 0, 0)),
        lambda code: (b"", b"Traceback\r\n" + text.encode(errors="replace") + b"\r\n"),
    ):
        lines = run(plug_in(tell), tool=tool)
        assert lines[-1].startswith(tool.__name__ + ": failed: ")


def test_names_of_files_do_nothing_to_the_terminal(plug_in, run):
    name = HARMFUL.replace("\x00", "")
    files = dict(TOLD["files"], **{name + deploy.UNFINISHED: 1})
    told = {"files": files, "hashes": {name: HARMFUL}}
    told["record"] = deploy.json.dumps({name: [HARMFUL, False]})  # then it is half a copy of ours
    lines = run(plug_in(telling(**told)), "--dry-run", status=0)
    assert any(r"\x1b]0;title" in line for line in lines), lines


VALUES = ["", 1, -1, 1 << 70, None, [], {}, (1,), {"a": {}}, 2.5]
WRONG = [
    (name, value)
    for name, is_good in deploy.TOLD.items()
    for value in VALUES
    if not is_good(value)
]


class Told:
    """A board, as far as deploy.ask() needs one."""

    port = "the port"

    def __init__(self, told):
        self.told = told

    def evaluate(self, code):
        return self.told


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_is_of_another_type_is_nonsense(name, value):
    with pytest.raises(deploy.Nonsense):
        deploy.ask(Told(dict(TOLD, **{name: value})), [])


def test_a_board_names_no_file_that_a_person_is_told_to_remove():
    sources = {"lib/mqttpipe.py": None, "; rm -r ~": 1 << 30}
    with pytest.raises(deploy.Nonsense):
        deploy.ask(Told(dict(TOLD, sources=sources)), [])


def test_a_part_too_few_or_too_many_is_nonsense():
    deploy.ask(Told(TOLD), [])
    few = dict(TOLD)
    del few["mpy"]
    for wrong in (few, dict(TOLD, more=1), 3, None, [TOLD]):
        with pytest.raises(deploy.Nonsense):
            deploy.ask(Told(wrong), [])


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"1",
        b"{}",
        b"[",
        b"(" * 9999,
        b"-" * 20_000 + b"1",
        b"__import__('os')",
        b"\xff\xfe",
        b"{[]: 1}",
        b"{{}}",
        b"1if 1else '\\\x1b[2J'",
    ],
    ids=[
        "nothing",
        "a number",
        "empty",
        "cut",
        "deep",
        "long",
        "code",
        "bytes",
        "no key",
        "no set",
        "a warning",
    ],
)
@pytest.mark.parametrize("tool", [deploy, repl])
def test_what_is_no_answer_is_nonsense(plug_in, run, tool, printed):
    tell = telling()
    board = plug_in(lambda code: (printed, b"") if "NAMES = " in code else tell(code))
    assert run(board, tool=tool)[-1].endswith("answers nonsense")


@pytest.mark.parametrize("tool", [deploy, repl])
def test_a_tool_that_fails_leaves_no_board_with_its_program_stopped(plug_in, run, tool):
    board = plug_in(telling(platform="stm32"))
    assert "there are files for" in run(board, tool=tool)[-1]
    assert board.was_reset.wait(BUSY_S)


def test_a_board_whose_client_has_no_start_goes_on_without_a_prompt(plug_in, run):
    board = plug_in(telling())
    assert "was built without start()" in run(board, tool=repl)[-1]
    assert board.was_reset.wait(BUSY_S)


@pytest.mark.parametrize("name", ["deploy.py", "repl.py", "board_report.py"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_tool_that_is_ended_leaves_no_board_with_its_program_stopped(plug_in, name, number):
    """As by `kill`, or with the terminal that is closed."""
    is_asked, is_ended = threading.Event(), threading.Event()

    def tell(code):
        is_asked.set()
        is_ended.wait(BUSY_S)  # the board takes its time over the first answer
        return b"False", b""

    board = plug_in(tell)
    tool = subprocess.Popen(
        [sys.executable, str(deploy.ROOT / "tools" / name), "--port", board.port],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # else under nohup it goes on
    )
    assert is_asked.wait(BUSY_S)
    tool.send_signal(number)
    is_ended.set()
    printed = tool.communicate(timeout=BUSY_S)[0]
    assert tool.returncode == 130, printed
    assert board.was_reset.wait(BUSY_S)


@pytest.mark.parametrize("record", ["[1]", "[" * 9999, '{"main.py": 3}', '{"main.py": [{}, 1]}'])
def test_a_record_of_another_form_counts_as_none(plug_in, run, record):
    lines = run(plug_in(telling(record=record)), "--dry-run", status=0)
    assert any("main.py" in line for line in lines), lines


@pytest.mark.parametrize("tool", [deploy, repl])
def test_an_answer_without_end_is_ended(plug_in, run, tool):
    for board in (
        plug_in(flood=b"x" * 4096),  # from the begin
        plug_in(lambda code: (b"x" * (deploy.ANSWER_BYTES_MAX + 10_000), b"")),
        plug_in(lambda code: (b"", b"x" * (deploy.ANSWER_BYTES_MAX + 10_000))),
    ):
        lines = run(board, tool=tool)
        assert lines[-1].endswith("answers without end"), lines


def test_an_answer_that_drips_is_ended(plug_in, run):
    board = plug_in()

    def drip(code):
        while not board._is_over:
            board._send(b".")
            time.sleep(0.2)

    board._tell = drip
    assert run(board)[-1].endswith("answers without end")


def test_a_board_that_falls_silent_is_told(plug_in, run, monkeypatch):
    original = deploy.Board.run
    monkeypatch.setattr(  # 1 s of silence and not 10
        deploy.Board,
        "run",
        lambda board, code, timeout_s=1, *rest: original(board, code, 1, *rest),
    )
    assert run(plug_in(lambda code: None))[-1].endswith("has stopped answering")


def test_the_doctor_shows_what_a_board_says_harmlessly(plug_in, run):
    tell = telling(machine=HARMFUL)

    def lie(code):
        if "def look_at_wifi" in code:
            return b"+ Wi-Fi: \x1b[2Jjoined\r\n- broker: \xff\xc2\x9b1m\r\n", b""
        return tell(code)

    lines = run(plug_in(lie), "--doctor")
    assert any(r"\x1b[2Jjoined" in line for line in lines), lines


def test_what_a_board_prints_after_the_reset_is_shown_harmlessly(plug_in, run, monkeypatch):
    monkeypatch.setattr(deploy, "plan_files", lambda *_: deploy.Plan({}))
    board = plug_in(
        telling(),
        after_reset=b"\r\n\x1b[2Jhello\r\nmqtt: offline: \xe2\x80\xae\x07why\r\n"
        + b"y" * 5000
        + b"\r\n",
    )
    lines = run(board, "--wait", "2")
    assert r"  board: \x1b[2Jhello" in lines
    assert lines[-1].endswith(r"broker: \u202e\x07why"), lines
    assert max(map(len, lines)) < 2 * deploy.SHOWN_MAX


def test_a_board_that_prints_without_end_after_the_reset_is_left(plug_in, run, monkeypatch):
    monkeypatch.setattr(deploy, "plan_files", lambda *_: deploy.Plan({}))
    monkeypatch.setattr(deploy, "PRINTED_BYTES_MAX", 50_000)
    board = plug_in(telling(), after_reset=b"z" * 500_000)
    assert run(board, "--wait", "30")[-1].endswith("prints without end")
