"""What tests of tools/deploy.py share: names, and what they do with boards and output.

The fixtures `peer`, `secrets`, `quick_boards`, `deployed`, `ready` and `run_deploy` are in
conftest.py.
"""

import os
import re
import subprocess
import sys
import time

import virtual_board as virtual

import deploy

ROOT = deploy.ROOT
SSID = "name-that-no-tool-prints"
PASSWORD = "password-that-no-tool-prints"
SERVER_ADDRESS = "192.168.4.1"  # as the board sees it
NAME = "lamp"
WAIT_S = 20
DEPLOY_TIMEOUT_S = 100

KIND_OF = {virtual.ESP32: "esp32", virtual.PICO_W: "rp2_pico_w"}
OURS = ["mqttpipe.mpy", "service.mpy", "station.mpy", "wifi.mpy", "wifi_core.mpy"]
WORK = "def work(client):\n"
ALL = sorted(["deployed.json", "main.py", "secrets.py", *OURS])


def plug_in(board, broker):
    """Put the board where its Wi-Fi and its server are."""
    board.world.add_network(SSID, PASSWORD)
    board.world["routes"][SERVER_ADDRESS, 1883] = (broker.host, broker.port)
    wait_until_idle(board)
    return board


def wait_until_idle(board, since=0):
    """Wait until a start that came after `since` (of the output) has come to rest.

    The unix port may hang when it is interrupted in the middle of an allocation, and an import
    does little else.
    """
    board.wait_for_output(r"station: starts in|>>> \Z", since=since)
    # A board may be there before the port that it makes itself.
    deadline_s = time.monotonic() + WAIT_S
    while not os.path.exists(board.port):
        assert time.monotonic() < deadline_s, "no port"
        time.sleep(0.01)


def main_with(kind, **settings):
    """The text of a board's main.py with other settings."""
    text = (ROOT / "boards" / kind / "main.py").read_text()
    for name, value in settings.items():
        text, count = re.subn(
            r"^%s = \d[\d_]*" % name, "%s = %s" % (name, value), text, flags=re.M
        )
        assert count == 1, name
    return text


def failure(printed):
    """The reason in the last line, which is the only one that tells of a failure."""
    lines = printed.splitlines()
    assert [line for line in lines if line.startswith("deploy: failed: ")] == lines[-1:]
    return lines[-1].partition("deploy: failed: ")[2]


def files_on(board):
    return {
        path.name: path.read_bytes() for path in board.files.iterdir() if path.name != "boot.py"
    }


def copied(printed):
    """The names of the files that were copied."""
    return sorted(re.findall(r"^deploy:   (\S+) +copied,", printed, re.M))


def run_command(board, *arguments, status=0):
    """Run the tool as the README says, with the python that runs the tests."""
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "deploy.py"), "--port", board.port, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEPLOY_TIMEOUT_S,
        text=True,
    )
    assert ran.returncode == status, ran.stdout
    assert SSID not in ran.stdout and PASSWORD not in ran.stdout
    return ran.stdout
