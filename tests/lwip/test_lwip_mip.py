"""mip brings a client that runs on a board with 100 KiB free, over its own network stack.

The index is what tools/release.py writes. mip and requests are those that Debian freezes into its
MicroPython; a real board has them in its firmware, so here they are in the ROMFS.
"""

import hashlib
import re
import subprocess
import sys

import pytest
from mpremote.romfs import VfsRomWriter

import build
import debian_sources
import setup_env
from emulated_board import HOST

VERSION = build.version_of(build.read_source())
FREE_BYTES = 100 * 1024
SLACK_BYTES = 256
TOOL_TIMEOUT_S = 60
MODULES = ("mip", "requests")

# The heap as on a board that has less (within a few words).
LIMIT_HEAP = """\
import gc
gc.collect()
ballast = bytearray(gc.mem_free() - %d)
gc.collect()
print(gc.mem_free())
"""

USE = """\
from mqttpipe import MQTTClient, __version__
client = MQTTClient("mqtt://%s:%d")
client.connect()
is_online = client.wait_online(20_000)
print(__version__, is_online, client.wait_for(client.publish("mip", "x", 1), 9_000))
"""

DIGEST = "__import__('hashlib').sha256(open('/lib/mqttpipe.mpy', 'rb').read()).digest()"

STANDARD = "%s+no.failover.asyncio.isr.stats True True" % VERSION


def files_of_patch(text):
    """Return path -> text of the files that a patch adds."""
    files = {}
    for part in re.split(r"^diff --git .*\n", text, flags=re.M)[1:]:
        head, _, hunk = part.partition("\n@@ ")
        name = re.search(r"^\+\+\+ b/(\S+)$", head, re.M).group(1)
        if "--- /dev/null" in head:
            lines = hunk.split("\n")[1:]
            files[name] = "".join(line[1:] + "\n" for line in lines if line.startswith("+"))
    return files


@pytest.fixture(scope="module")
def mip_in_rom(tmp_path_factory):
    """The Path of a ROMFS with mip and requests."""
    folder = tmp_path_factory.mktemp("mip")
    try:
        tarball = debian_sources.fetch("trixie", ["micropython"], "diff")["micropython"]
    except setup_env.SetupError as error:
        pytest.fail("no mip: %s" % error, pytrace=False)
    debian_sources.unpack(tarball, folder)
    files = files_of_patch((folder / "patches" / "mip.patch").read_text())
    writer = VfsRomWriter()
    for name in MODULES:
        (path,) = [path for path in files if path.endswith("/%s/__init__.py" % name)]
        writer.mkfile(name + ".mpy", build.cross_compile(name + ".py", files[path]))
    image = folder / "image"
    image.write_bytes(writer.finalise())
    return image


def test_mip_on_the_board_brings_a_client_that_goes_online(
    make_board, mip_in_rom, mip_index, mip_packages, broker
):
    board = make_board(romfs=mip_in_rom)
    board.go_online()
    assert int(board.run(LIMIT_HEAP % FREE_BYTES)) <= FREE_BYTES + SLACK_BYTES
    code = "import mip\nmip.install('mqttpipe', index='http://%s:%d')"
    printed = board.run(code % (HOST, mip_index.port))
    assert printed.endswith("Copying: /lib/mqttpipe.mpy\nDone\n"), printed
    assert board.evaluate(DIGEST) == hashlib.sha256(mip_packages["mqttpipe"].file("6")).digest()
    assert board.run(USE % (HOST, broker.port)).strip() == STANDARD


def test_source_that_mip_brings_compiles_itself_there(make_board, mip_in_rom, mip_index, broker):
    board = make_board(romfs=mip_in_rom)
    board.go_online()
    assert int(board.run(LIMIT_HEAP % FREE_BYTES)) <= FREE_BYTES + SLACK_BYTES
    code = "import mip\nmip.install('mqttpipe', index='http://%s:%d', mpy=False)"
    assert board.run(code % (HOST, mip_index.port)).endswith("/lib/mqttpipe.py\nDone\n")
    assert board.run(USE % (HOST, broker.port)).strip() == STANDARD


def test_mpremote_brings_a_client_that_goes_online(make_board, mip_index, mip_packages, broker):
    board = make_board(has_port=True)

    def mpremote(*words):
        ran = subprocess.run(
            [sys.executable, "-m", "mpremote", "connect", board.port, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TOOL_TIMEOUT_S,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout

    printed = mpremote("mip", "install", "--index", mip_index.url, "mqttpipe")
    assert printed.endswith("Done\n")
    printed = mpremote("eval", DIGEST).strip()
    assert printed == repr(hashlib.sha256(mip_packages["mqttpipe"].file("6")).digest())
    go = "import network, time\nlan = network.LAN()\nlan.active(True)\n"
    go += "while not lan.isconnected(): time.sleep_ms(5)\n"
    program = LIMIT_HEAP % FREE_BYTES + go + USE % (HOST, broker.port)
    free, used = mpremote("exec", program).splitlines()
    assert int(free) <= FREE_BYTES + SLACK_BYTES and used == STANDARD
