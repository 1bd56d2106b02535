"""What README.md and boards/ promise a new user is tried as it stands there."""

import re
import shlex
import shutil
import subprocess
import sys
import time
import types

import pytest
import virtual_board as virtual

import build
import deploy
from checkouts import share_environment

ROOT = deploy.ROOT
PAGE = (ROOT / "boards" / "README.md").read_text(encoding="utf-8")
SSID, PASSWORD = "the wifi of the test", "its secret password"
TIMEOUT_S = 100
WAIT_MS = 20_000


def section(text, title):
    return text.split("## %s\n" % title, 1)[1].split("\n## ", 1)[0]


def commands_of(text):
    """The commands of the first indented block of a section."""
    block = re.search(r"((?:^    .+\n)+)", section(text, "From a blank board to online"), re.M)
    return [line.strip() for line in block.group(1).splitlines()]


@pytest.fixture
def checkout(tmp_path):
    """A copy of what a user has cloned: without a secrets.py, with an environment made already."""
    folder = tmp_path / "mqttpipe"
    folder.mkdir()
    for name in ("boards", "micropython", "tools"):
        ignored = shutil.ignore_patterns("secrets.py", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)  # by which the tools know a checkout
    share_environment(folder)
    return folder


def test_three_commands_bring_a_blank_board_online(virtual_board, board_kind, broker, checkout):
    commands = commands_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert commands == commands_of(PAGE) and len(commands) == 3
    board = virtual_board(board_kind)
    board.world.add_network(SSID, PASSWORD)
    board.world["routes"]["192.168.4.1", 1883] = (broker.host, broker.port)
    board.wait_for_output(">>> ")
    for command in commands:
        words = shlex.split(command)
        if words[0] == "nano":
            edit(checkout / words[1])
            continue
        if words[0] == "python3":
            # The test's board is on no USB.
            words[:1] = [sys.executable]
            words += ["--port", board.port]
        ran = subprocess.run(
            words,
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout
    assert re.search(r"^deploy: online, \d+\.\d s after the reset$", ran.stdout, re.M)
    # The page shows such an output: each of its lines comes, but for the numbers.
    shown = re.findall(r"^    ((?:deploy:|  board:) .*)$", PAGE, re.M)
    plain = {re.sub(r"[\d.,]+", "#", line) for line in ran.stdout.splitlines()}
    for line in shown:
        if board_kind == virtual.PICO_W and "starts in" in line:
            continue  # its port is not back yet
        if "port" not in line and "MicroPython" not in line:
            assert re.sub(r"[\d.,]+", "#", line) in plain, line


def edit(path):
    """What the user does in the editor, reading the comments."""
    text = path.read_text(encoding="utf-8")
    text = text.replace("name of your Wi-Fi", SSID).replace("its password", PASSWORD)
    path.write_text(text.replace("mqtt://broker.example", "mqtt://192.168.4.1"), encoding="utf-8")


def test_without_wifi_the_client_goes_online_over_any_link(monkeypatch, broker):
    lines = section(PAGE, "Without Wi-Fi").splitlines()
    program = "\n".join(line[4:] for line in lines if line.startswith("    "))
    assert '"mqtt://broker.example"' in program
    program = program.replace("mqtt://broker.example", broker.uri)

    class Lan:
        is_plugged_in = False

        def __init__(self, **options):
            pass

        def active(self, is_on):
            pass

        def isconnected(self):
            return Lan.is_plugged_in

        def ifconfig(self):
            return ("192.0.2.7", "255.255.255.0", "192.0.2.1", "192.0.2.53")

    network = types.SimpleNamespace(LAN=Lan, PHY_LAN8720=1)
    monkeypatch.setitem(sys.modules, "network", network)
    names = {}
    exec(compile(program, "boards/README.md", "exec"), names)
    client = names["client"]
    client.connect()
    step_until(client, lambda: client.state_name == "WAITING")
    assert client.stats["attempts"] == 0
    Lan.is_plugged_in = True
    assert client.wait_online(WAIT_MS)

    # Somebody pulls the cable, and the connection ends.
    Lan.is_plugged_in = False
    broker.restart()
    step_until(client, lambda: not client.is_online())
    assert not client.wait_online(500) and client.stats["attempts"] == 1
    Lan.is_plugged_in = True
    assert client.wait_online(WAIT_MS)
    assert names["link"].dns_servers() == ["192.0.2.53"]
    client.disconnect()
    step_until(client, lambda: client.state_name == "DOWN")


def step_until(client, is_so):
    deadline_s = time.monotonic() + WAIT_MS / 1000
    while not is_so():
        client.step(100)
        assert time.monotonic() < deadline_s, client.state_name


def test_each_option_and_error_that_the_page_names_is_the_tool_s():
    options = set(re.findall(r"`(?:python3 tools/deploy\.py )?(--[a-z-]+)", PAGE)) - {"--help"}
    paths = [ROOT / "tools" / "deploy.py", *(ROOT / "tools" / "deploy").glob("deploy_*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    assert options > {"--force", "--doctor", "--repl"}
    for option in options:
        assert '"%s"' % option in text, option
    rows = re.findall(r"^\| (.+?) \| .* \|$", section(PAGE, "What may go wrong"), re.M)[1:]
    assert len(rows) >= 10
    for row in rows:
        for part in row.split("..."):
            words = part.replace("broker: ", "").replace("Wi-Fi: ", "").strip(" :")
            assert words in re.sub(r'%s|"\n *"', "", text) or words in text, words


def test_each_file_that_the_page_names_is_put_there(virtual_board):
    named = set()
    for row in re.findall(r"^\| (`.+?) \|", section(PAGE, "What is on the board then"), re.M):
        named |= set(re.findall(r"`([\w.]+)`", row))
    facts = types.SimpleNamespace(kind="esp32", mpy_version=6)
    ours = set(deploy.build_files(facts, deploy.DEFAULT_PROFILE, False))
    certificates = {stem + ".pem" for stem in deploy.certs.STEMS.values()}
    assert named == ours | set(deploy.USER_FILES) | {deploy.RECORD} | certificates


RAM = """
import gc
def taken():
    gc.collect()
    return gc.mem_alloc()
import socket, select, time, os, errno, sys
import mqttpipe  # shares many names with them
before = taken()
import wifi, station, service
one = wifi.Wifi(("name", "password"))
two = station.Station(None, one)
print(taken() - before)
"""


@pytest.mark.parametrize("kind", deploy.KINDS)
def test_the_memory_that_a_page_tells_is_what_is_taken(kind, get_interpreter, tmp_path):
    page = (ROOT / "boards" / kind / "README.md").read_text(encoding="utf-8")
    told = int(
        re.search(r"`service`, with their objects \| ([\d,]+) \|", page).group(1).replace(",", "")
    )
    for path in [
        *(ROOT / "boards" / "common").glob("*.py"),
        ROOT / "boards" / kind / "wifi.py",
    ]:
        (tmp_path / (path.stem + ".mpy")).write_bytes(deploy.compile_file(path))
    text = build.read_source()
    switches = build.find_switches(text)
    text = build.configure(text, switches, build.parts_of("full", switches))
    (tmp_path / "mqttpipe.mpy").write_bytes(build.compile_mpy(text))
    ran = subprocess.run(
        [*get_interpreter("MicroPython 32-bit").command, "-X", "heapsize=96k", "-c", RAM],
        env={"MICROPYPATH": "%s:.frozen" % tmp_path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        text=True,
    )
    assert abs(int(ran.stdout) - told) < told / 20, ran.stdout


def test_the_heap_that_source_of_mip_compiles_in_is_that_of_the_page_on_size():
    page = (ROOT / "boards" / "README.md").read_text(encoding="utf-8")
    size = (ROOT / "docs" / "size.md").read_text(encoding="utf-8")
    cells = re.search(r"\| smallest heap to import the self-compiling .*?\|(.*)\|", size).group(1)
    (told,) = re.findall(r"\[(\d+) KiB\]\(\.\./docs/size\.md#the-figures\)", page)
    assert int(told) == int(cells.split("|")[1])  # standard is what mip installs


def test_what_was_not_run_on_hardware_says_so():
    for kind in deploy.KINDS:
        page = (ROOT / "boards" / kind / "README.md").read_text(encoding="utf-8")
        assert "**Tested on: no hardware yet.**" in page
    assert "**Nothing here was run on real hardware yet.**" in PAGE


def test_each_page_links_to_what_is_there():
    for page in (ROOT / "boards").rglob("README.md"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https:)([^)#]+)", text):
            assert (page.parent / target).exists(), (page, target)
        titles = [title.lower().replace(" ", "-") for title in re.findall("^## (.+)$", text, re.M)]
        for target in re.findall(r"\]\(#([^)]+)\)", text):
            assert target in titles, (page, target)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_secrets_are_ignored_by_git():
    names = ["secrets.py", "esp32/secrets.py", "secrets.py.new", "ca.pem", "lamp.key", "ca.crt"]
    names += ["secrets_2.py", "secrets_2.py.new", "shed-secrets.py", "esp32/secrets_2.py"]
    paths = ["boards/" + name for name in names]
    # As the pages have them made, in whatever folder one is.
    paths += ["ca.key", "server.key", "server.csr", "ca.srl", "lamp-private.pem.key", "users"]
    paths += ["boards/esp32/key.pem", "board.img"]
    others = ["boards/esp32/main.py", "boards/secrets_example.py"]
    ran = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths, *others],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
        text=True,
    )
    assert ran.stdout.split() == paths
    assert build.ROOT == ROOT and virtual.ROOT == ROOT
