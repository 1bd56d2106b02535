"""A mqttpipe.py that a board can't compile, as mip once left it: each tool says what to do."""

import subprocess
import sys

import pytest
import virtual_board as virtual

import build
import deploy

SOURCE = build.SOURCE.read_bytes()
TOOL_TIMEOUT_S = 100
TOO_LARGE = (
    "/%s on the board is a source of %s, too large to compile there: "
    "`mpremote rm :%s`, or deploy with --force, removes it"
)


def advice(path):
    return TOO_LARGE % (path, deploy.kib(len(SOURCE)), path)


@pytest.fixture
def make_board(virtual_board):
    """make_board(files): a board with these files, at its prompt."""

    def make(files, **options):
        board = virtual_board(virtual.PICO_W, files=files, **options)
        board.wait_for_output(">>> ")
        return board

    return make


@pytest.fixture
def secrets(tmp_path):
    text = deploy.EXAMPLE.read_text()
    for old, new in (
        ('("name of your Wi-Fi", "its password")', '("home", "password of the tests")'),
        ('"mqtt://broker.example"', '"mqtt://192.168.4.1"'),
    ):
        assert old in text, old
        text = text.replace(old, new)
    path = tmp_path / "secrets.py"
    path.write_text(text)
    return path


def run(tool, board, *arguments, status=0):
    path = deploy.ROOT / "tools" / (tool + ".py")
    ran = subprocess.run(
        [sys.executable, str(path), "--port", board.port, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TOOL_TIMEOUT_S,
        text=True,
    )
    assert ran.returncode == status, ran.stdout
    return ran.stdout


@pytest.mark.parametrize("path", ["mqttpipe.py", "lib/mqttpipe.py"])
def test_the_doctor_says_what_to_remove(path, make_board):
    printed = run("deploy", make_board({path: SOURCE}), "--doctor", status=1)
    assert "  NOT OK %s\n" % advice(path) in printed


@pytest.mark.parametrize("path", ["mqttpipe.py", "lib/mqttpipe.py"])
def test_the_repl_says_what_to_remove(path, make_board):
    printed = run("repl", make_board({path: SOURCE}), status=1)
    assert printed.splitlines()[-1] == "repl: failed: " + advice(path)


def test_deploying_passes_it_over_and_removes_it_with_force(make_board, secrets):
    board = make_board({"lib/mqttpipe.py": SOURCE})
    words = ["--secrets", secrets, "--wait", "0"]
    printed = run("deploy", board, *words)
    assert "deploy: %s\n" % advice("lib/mqttpipe.py") in printed
    assert (board.files / "mqttpipe.mpy").exists() and (board.files / "lib/mqttpipe.py").exists()

    printed = run("deploy", board, *words, "--force")
    assert "lib/mqttpipe.py is removed" in printed and "too large" not in printed
    assert not (board.files / "lib" / "mqttpipe.py").exists()


def test_one_at_the_top_makes_room_for_what_is_deployed(make_board, secrets):
    board = make_board({"mqttpipe.py": SOURCE})
    printed = run("deploy", board, "--secrets", secrets, "--wait", "0")
    assert "mqttpipe.py    is removed" in printed and "too large" not in printed
    assert not (board.files / "mqttpipe.py").exists()


def test_one_that_is_never_imported_is_no_fault_but_is_told(make_board):
    files = {"lib/mqttpipe.py": SOURCE, "mqttpipe.mpy": client()}
    printed = run("deploy", make_board(files), "--doctor", status=1)
    assert "         %s\n" % advice("lib/mqttpipe.py") in printed


def test_what_the_board_can_compile_is_not_told_of(make_board, mip_packages):
    files = {"lib/mqttpipe.py": mip_packages["mqttpipe-full"].file("py")}
    assert "too large" not in run("deploy", make_board(files), "--doctor", status=1)
    board = make_board({"lib/mqttpipe.py": SOURCE}, heap="480k")
    assert "too large" not in run("deploy", board, "--doctor", status=1)


def client():
    text = build.read_source()
    switches = build.find_switches(text)
    return build.compile_mpy(build.configure(text, switches, build.parts_of("tiny", switches)))
