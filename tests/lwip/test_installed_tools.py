"""What pip installs emulates a board and puts a client on it, without a checkout."""

import contextlib
import pathlib
import re
import signal
import subprocess
import time

import pytest

import deploy
import installing
import setup_env
from emulated_board import HOST
from installing import checked

WAIT_S = 60


@pytest.fixture(scope="module")
def mqttpipe(firmware, tmp_path_factory):
    """The environment, with what mqttpipe[board] brings; and variables: the firmware is built."""
    folder = tmp_path_factory.mktemp("installed")
    environment = installing.Environment(folder / "venv")
    (folder / "checkout").mkdir()
    environment.install(installing.make_wheel(folder / "checkout"))
    environment.add(installing.tools_python())
    cache = folder / "cache"
    (cache / "mqttpipe").mkdir(parents=True)
    for name in ("lwip-board", "sources"):
        (cache / "mqttpipe" / name).symlink_to(setup_env.CACHE / name)
    environment.variables = {"XDG_CACHE_HOME": str(cache)}
    return environment


@contextlib.contextmanager
def emulated(mqttpipe, folder):
    """`mqttpipe board emulate`: (its process, the file with what it prints)."""
    output = folder / "emulate.txt"
    with open(output, "w") as file:
        process = subprocess.Popen(
            [mqttpipe.command, "board", "emulate"],
            env=installing.variables(PYTHONUNBUFFERED="1", **mqttpipe.variables),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline_s = time.monotonic() + WAIT_S
        while "Ctrl-C ends it" not in output.read_text():
            assert process.poll() is None and time.monotonic() < deadline_s, output.read_text()
            time.sleep(0.05)
        yield process, output
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # it switches the board off
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WAIT_S)
        process.kill()
        process.wait()


def test_a_board_is_emulated_deployed_and_online(mqttpipe, broker, tmp_path):
    text = deploy.EXAMPLE.read_text()
    server = "mqtt://%s:%d" % (HOST, broker.port)
    text = text.replace("mqtt://broker.example", server).replace("mqttpipe-1", "installed")
    text = text.replace('"name of your Wi-Fi", "its password"', '"home", "password of the tests"')
    (tmp_path / "secrets.py").write_text(text)
    with emulated(mqttpipe, tmp_path) as (process, output):
        printed = output.read_text()
        # It names the commands that are there.
        port = re.search(r"^    mqttpipe board deploy --port (\S+) ", printed, re.M)[1]
        assert "mqttpipe board repl --port " + port in printed and "python3" not in printed
        mpremote = re.search(r"^    (\S+) connect %s " % port, printed, re.M)[1]
        assert pathlib.Path(mpremote).parent == mqttpipe.python.parent
        command = [mqttpipe.command, "board", "deploy", "--port", port]
        printed = checked(command, tmp_path, **mqttpipe.variables)
        assert "deploy: online" in printed.splitlines()[-1], printed
        command = [mqttpipe.command, "board", "doctor", "--port", port]
        printed = checked(command, tmp_path, **mqttpipe.variables)
        assert "  ok     broker: " in printed, printed
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0 and output.read_text().endswith("board: off\n")
