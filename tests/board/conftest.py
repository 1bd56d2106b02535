"""Fixtures of the tests with a virtual board.

    virtual_board   virtual_board(machine=..., files={"main.py": text}, ...): a VirtualBoard,
                    switched on; its other arguments are VirtualBoard's
    board_kind      the test runs for each machine of BOARD_KINDS
    board           a blank board of that kind, at its prompt
    mpremote        mpremote(board, *arguments, status=0): run it, return what it printed

and of those with tools/deploy.py:

    secrets         the path of a secrets.py that was filled in
    ready           ready(machine, main=None, ...): a board to which all of it was deployed
    run_deploy      run_deploy(board, *arguments, status=0): what the tool prints, in this process
    peer            a client that talks with the program of boards/

All of it ends with the test, which shows the board's log and output if it has failed.
"""

import contextlib
import pathlib
import re
import shutil
import subprocess
import sys
import types

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "broker"))

import ends  # noqa: E402
import virtual_board as virtual  # noqa: E402
from deploying import (  # noqa: E402
    KIND_OF,
    NAME,
    PASSWORD,
    SERVER_ADDRESS,
    SSID,
    main_with,
    plug_in,
    wait_until_idle,
)
from peers import Peer  # noqa: E402

import deploy  # noqa: E402
import examples  # noqa: E402

BOARD_KINDS = {"ESP32": virtual.ESP32, "Pico W": virtual.PICO_W}

MPREMOTE_TIMEOUT_S = 60

BOARDS = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    finally:  # pytest shows it if the test failed
        for number, board in enumerate(item.stash.get(BOARDS, [])):
            events = "\n".join(str(event) for event in board.log)
            item.add_report_section("call", "board %d: log" % number, events)
            item.add_report_section("call", "board %d: output" % number, board.output)


@pytest.fixture
def virtual_board(request, tmp_path, get_interpreter):
    """A function that makes a board and switches it on."""
    get_interpreter("MicroPython 32-bit")  # or skip, or say how to get it
    boards = request.node.stash.setdefault(BOARDS, [])
    with contextlib.ExitStack() as stack:

        def make(machine=virtual.ESP32, files=None, **options):
            board = virtual.VirtualBoard(
                tmp_path / ("board%d" % len(boards)), machine=machine, **options
            )
            for name, text in (files or {}).items():
                path = board.files / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode() if isinstance(text, str) else text)
            boards.append(board)
            return stack.enter_context(board)

        yield make
    boards.clear()


@pytest.fixture(params=BOARD_KINDS)
def board_kind(request):
    return BOARD_KINDS[request.param]


@pytest.fixture
def board(virtual_board, board_kind):
    board = virtual_board(board_kind)
    board.wait_for_output(">>> ")
    return board


@pytest.fixture
def mpremote():
    """A function that runs mpremote on a board."""

    def run(board, *arguments, status=0, **options):
        ran = subprocess.run(
            [sys.executable, "-m", "mpremote", "connect", board.port, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=MPREMOTE_TIMEOUT_S,
            text=True,
            **options,
        )
        assert ran.returncode == status, "mpremote %r: %d\n%s" % (
            arguments,
            ran.returncode,
            ran.stdout,
        )
        return ran.stdout

    return run


# ---------------------------------------------------------------------------
# micropython/examples/
# ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def files_of(get_interpreter):
    """A function: (machine, profile) -> name -> bytes, what tools/deploy.py puts on a board."""
    get_interpreter("MicroPython 32-bit")
    made = {}

    def build(machine, profile):
        if (machine, profile) not in made:
            kind = "esp32" if "ESP32" in machine else "rp2_pico_w"
            facts = types.SimpleNamespace(kind=kind, mpy_version=6)
            made[machine, profile] = deploy.build_files(facts, profile, False)
        return dict(made[machine, profile])

    return build


@pytest.fixture
def start_example(virtual_board, broker, files_of):
    """A function that starts an example on a board.

    Args:
        changes: name of a constant of the example -> another value.
        more: name -> content of more files. before: before(board), while nothing runs there.
        settings: of secrets.py.
    """

    def run(name, machine=virtual.ESP32, changes=None, more=None, before=None, **settings):
        text = (examples.EXAMPLES / (name + ".py")).read_text()
        for constant, value in (changes or {}).items():
            line = re.compile(r"^%s = [\d_]+" % constant, re.M)
            text, count = line.subn("%s = %r" % (constant, value), text)
            assert count == 1, constant
        files = files_of(machine, "full" if name in examples.FULL else "standard")
        files.update({"main.py": text, "secrets.py": examples.secrets_text(**settings)})
        files.update(more or {})
        board = virtual_board(machine)
        board.world.add_network(SSID, PASSWORD)
        board.world["routes"][SERVER_ADDRESS, 1883] = (broker.host, broker.port)
        if before:
            before(board)
        board.wait_for_output(">>> ")
        for file, data in files.items():
            (board.files / file).parent.mkdir(exist_ok=True)
            (board.files / file).write_bytes(data.encode() if isinstance(data, str) else data)
        board.reset_button()
        return board

    yield run
    forget_retained(broker)


# What an example has the broker keep would come to the next test.
def forget_retained(broker):
    broker.start()
    peer = ends.Peer(broker.uri).connect()
    peer.subscribe("#")
    for message in peer.make_round_trip("examples/end"):
        if message.retain:
            peer.publish(message.topic_name, b"", retain=True)
    peer.disconnect()


@pytest.fixture
def listener(broker):
    peer = ends.Peer(broker.uri).connect()
    yield peer
    peer.disconnect()


# ---------------------------------------------------------------------------
# tools/deploy.py
# ---------------------------------------------------------------------------


@pytest.fixture
def peer(broker):
    peer = Peer(broker, NAME)
    yield peer
    peer.close()


@pytest.fixture
def secrets(tmp_path):
    """A secrets.py, filled in as a user would."""
    text = deploy.EXAMPLE.read_text()
    for old, new in (
        ('("name of your Wi-Fi", "its password")', repr((SSID, PASSWORD))),
        ('"mqtt://broker.example"', repr("mqtt://" + SERVER_ADDRESS)),
        ('"mqttpipe-1"', repr(NAME)),
    ):
        assert old in text, old
        text = text.replace(old, new)
    path = tmp_path / "secrets.py"
    path.write_text(text)
    return path


@pytest.fixture(scope="session")
def quick_boards(tmp_path_factory):
    """boards/, with main programs that start at once."""
    folder = tmp_path_factory.mktemp("quick") / "boards"
    shutil.copytree(
        deploy.BOARDS, folder, ignore=shutil.ignore_patterns("secrets.py", "*.pem", "*.der")
    )
    for kind in KIND_OF.values():
        (folder / kind / "main.py").write_text(main_with(kind, SAFE_BOOT_S=0))
    return folder


@pytest.fixture(scope="session")
def deployed(quick_boards, broker, get_interpreter):
    """A function: machine -> the files of a board to which everything was deployed."""
    get_interpreter("MicroPython 32-bit")
    made = {}

    def files_of(machine):
        if machine not in made:
            kind = "esp32" if "ESP32" in machine else "rp2_pico_w"
            facts = types.SimpleNamespace(kind=kind, mpy_version=6)
            made[machine] = deploy.build_files(facts, deploy.DEFAULT_PROFILE, False)
            made[machine]["main.py"] = (quick_boards / facts.kind / "main.py").read_bytes()
        return dict(made[machine])

    return files_of


@pytest.fixture
def ready(virtual_board, broker, secrets, deployed):
    """A function that makes a board on which all is deployed, so that there is nothing to copy."""

    def make(machine=virtual.ESP32, main=None, **options):
        files = deployed(machine)
        files["secrets.py"] = secrets.read_bytes()
        if main is not None:
            files["main.py"] = main.encode()
        given = ("secrets.py", "main.py") if main is not None else ("secrets.py",)
        record = {name: [deploy.digest(data), name in given] for name, data in files.items()}
        files["deployed.json"] = deploy.json.dumps(record)
        return plug_in(virtual_board(machine, files, **options), broker)

    return make


@pytest.fixture
def run_deploy(secrets, quick_boards, monkeypatch, capsys):
    """A function that runs the tool in this process and returns what it printed."""
    monkeypatch.setattr(deploy.setup_env, "reexec_in_venv", lambda requirements: None)
    monkeypatch.setattr(deploy, "SECRETS", secrets)
    monkeypatch.setattr(deploy, "BOARDS", quick_boards)

    def run(board, *arguments, status=0):
        port = ["--port", board if isinstance(board, str) else board.port] if board else []
        capsys.readouterr()
        is_board = hasattr(board, "output")
        since = len(board.output) if is_board else 0
        returned = deploy.main([*port, *map(str, arguments)])
        printed = capsys.readouterr()
        if is_board and board.is_on() and "raw REPL" in board.output[since:]:
            wait_until_idle(board, board.output.rindex("raw REPL"))
        assert returned == status, printed.out
        assert printed.err == "" and SSID not in printed.out and PASSWORD not in printed.out
        return printed.out

    return run
