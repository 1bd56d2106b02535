"""Measure mqttpipe beside other clients, in one run, on this machine.

    python3 tools/bench.py
    python3 tools/bench.py --peer umqtt.simple=PATH --peer umqtt.simple2=PATH --peer mqtt_as=PATH
    python3 tools/bench.py --json bench.json --plot docs --markdown docs/benchmarks.md
    python3 tools/bench.py --rows turns --rows idle                only these

Measured on the emulated board (tools/get_lwip_board.py): instructions for each message, which do
not depend on this machine. Measured on CPython and real MicroPython, 64-bit and 32-bit, against a
mosquitto of our own: messages per second at each QoS, published and received; the same one in
each turn of a program's loop, and in the other ways that programs have; a step that finds nothing;
latency; heap per message; the heap that a client takes; instructions per message (where valgrind
is). Beside that `raw`: ready-made bytes moved by the same interpreter without any client, the
ceiling.

On MicroPython `mqttpipe` is what tools/build.py makes of it if not told otherwise, the profile
standard, and `mqttpipe full` has all its parts; on CPython it is the file itself.

PATH is the folder that a peer is imported from: the one with umqtt/simple.py, with
umqtt/simple2.py, or with mqtt_as/. paho-mqtt comes from PyPI. A peer that is not given is left
out, and that is said.

How. Each figure is the median of --rounds runs, each in a fresh process; the clients take turns,
so that a slow moment of the machine hits all of them. Each client keeps its defaults. The broker
has `set_tcp_nodelay`, or its own delays would be measured. Messages to receive come from a sender
that is as fast as a socket, because a broker is slower than the clients. Messages to publish go to
the broker, and to a socket that discards everything. Compare ratios within one run; the absolute
figures are those of this machine.

In `umqtt.simple` a QoS 1 message waits for its acknowledgement before the next one leaves. "One in
each turn" is a publish() and a step() of ours, and its publish() alone. MicroPython has a heap of
--heap, as a Pico W leaves it to a program.

"One in each turn" on a PC is mostly the kernel's work. mqttpipe sets TCP_NODELAY: each message is
a segment of its own, which leaves at once. umqtt.simple leaves Nagle's algorithm on: the kernel
packs messages together, and a message alone may wait for 44 ms (the rows of latency).
"""

import argparse
import collections
import contextlib
import datetime
import json
import pathlib
import platform
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import build
import get_micropython
import outputs
import setup_env

ROOT = setup_env.ROOT
PARTS = ROOT / "tools" / "bench"
WORKER = PARTS / "worker.py"
sys.path.append(str(ROOT / "tools" / "demo"))

from brokers import DemoError, Mosquitto  # noqa: E402

INTERPRETERS = {"CPython": None, "MicroPython 64-bit": 64, "MicroPython 32-bit": 32}
PEERS = {
    "umqtt.simple": "umqtt/simple.py",
    "umqtt.simple2": "umqtt/simple2.py",
    "mqtt_as": "mqtt_as/__init__.py",
}
SIZES = (16, 64, 1024)
SIZE_MAX = 16_000  # what the sender writes; MicroPython's heap may be full before
WAY_SIZE = 64  # bytes of a payload in what has one size only

# What can be asked for alone.
ROWS = ("board", "rates", "turns", "idle", "latency", "heap", "instructions")

# Ways to publish one in each turn, and to receive, beside the plain one: worker.py says which.
TURN_WAYS = {
    "": "",
    "told": ", on_published set",
    "text": ", topic name and payload as str",
    "topics": ", two topic names in turn",
}
RECEIVE_WAYS = {"copied": ", topic name and payload copied", "topics": ", two topic names in turn"}
OURS = {"mqttpipe": build.DEFAULT_PROFILE, "mqttpipe full": "full"}  # client -> profile
QOS_OF = {  # what a client can do at all
    "mqttpipe": (0, 1, 2),
    "mqttpipe full": (0, 1, 2),
    "paho": (0, 1, 2),
    "umqtt.simple": (0, 1),
    "umqtt.simple2": (0, 1),
    "mqtt_as": (0, 1),
    "raw": (0,),
}
RUN_TIMEOUT_S = 90
COUNTED = 2000  # messages between the two runs whose instructions are compared

BOARD = "The emulated board"  # in the place of an interpreter; its tasks begin with BOARD_TASK
BOARD_TASK = "board "

Key = collections.namedtuple("Key", "interpreter client task qos size")


# ---------------------------------------------------------------------------
# A sender as fast as a socket
# ---------------------------------------------------------------------------


class Sender:
    """An MQTT server for one client: it grants the subscription, then sends without pause.

    At QoS 1 and 2 20 messages are on their way: as in servers, each that is acknowledged makes
    room for the next. Without a job, it reads all away. (No broker could do this: mosquitto hands
    out some 100,000 messages a second here and takes some 300,000, and the fastest clients do
    more.)
    """

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._job = None
        threading.Thread(target=self._serve, daemon=True).start()

    def prepare(self, qos, size, topics=(b"bench/1",)):
        self._job = qos, size, topics

    def prepare_to_read(self):
        self._job = None

    def _serve(self):
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(OSError):
            reader = connection.makefile("rb")
            self._read_packet(reader)  # CONNECT
            connection.sendall(b"\x20\x02\x00\x00")
            if self._job is None:
                buf = bytearray(1 << 20)
                while connection.recv_into(buf):
                    pass
                return
            subscribe = self._read_packet(reader)
            qos, size, topics = self._job
            connection.sendall(b"\x90\x03" + subscribe[:2] + bytes((qos,)))
            packets = self._packets(qos, size, topics)
            batch = b"".join(packets)
            while not qos:
                connection.sendall(batch)
            connection.sendall(batch)
            came = b""
            while True:
                data = reader.read1(1 << 16)
                if not data:
                    return
                came += data
                answers = []
                # Without waiting for the others: who leaves Nagle's algorithm on sends the second
                # acknowledgement when something has come for the first.
                while len(came) >= 2 and len(came) >= 2 + came[1]:  # none is long
                    kind, number, came = came[0], came[2:4], came[2 + came[1] :]
                    if kind == 0x50:  # PUBREC
                        answers.append(b"\x62\x02" + number)
                    elif kind in (0x40, 0x70):  # PUBACK, PUBCOMP
                        answers.append(packets[int.from_bytes(number, "big") - 1])
                connection.sendall(b"".join(answers))

    def _read_packet(self, reader):
        """Return the body of a packet of at most 127 bytes: CONNECT, SUBSCRIBE."""
        return reader.read(reader.read(2)[1])

    def _packets(self, qos, size, topics):
        packets = []
        for number in range(1, (20 if qos else 50) + 1):
            topic = topics[number % len(topics)]
            body = len(topic).to_bytes(2, "big") + topic
            if qos:
                body += number.to_bytes(2, "big")
            body += b"x" * size
            length = len(body)
            header = bytes((length,)) if length < 128 else bytes((length & 127 | 128, length >> 7))
            packets.append(bytes((0x30 | qos << 1,)) + header + body)
        return packets


# ---------------------------------------------------------------------------
# Runs
# ---------------------------------------------------------------------------


class Bench:
    def __init__(self, options, console):
        self.options = options
        self.console = console
        self.figures = {}  # Key -> list of dict, one a round
        self.notes = []  # what was left out, and why
        self.commands = {}
        self.paths = {"raw": []}
        for name, path in options.peer:
            self.paths[name] = [str(path), str(PARTS / "stand_ins")]
        self._folder = tempfile.TemporaryDirectory(prefix="mqttpipe-bench-")
        self.build_ours()
        for name, bits in INTERPRETERS.items():
            if options.interpreter and name not in options.interpreter:
                continue
            command = get_micropython.ensure(bits) if bits else [sys.executable]
            if command and bits:
                command = [*command, "-X", "heapsize=" + options.heap]
            if command:
                self.commands[name] = command
            else:
                self.note("%s: not on this machine" % name)
        for name in PEERS:
            if name not in self.paths:
                self.note("%s: left out; --peer %s=PATH names its folder" % (name, name))

    def note(self, text):
        self.notes.append(text)
        self.console.print("[yellow]left out:[/yellow] " + text)

    def build_ours(self):
        """Make a folder for each of our builds, as a board would have it."""
        text = build.read_source()
        switches = build.find_switches(text)
        for name, profile in OURS.items():
            folder = pathlib.Path(self._folder.name) / profile
            folder.mkdir()
            parts = build.parts_of(profile, switches)
            mpy = build.compile_mpy(build.configure(text, switches, parts))
            (folder / "mqttpipe.mpy").write_bytes(mpy)
            self.paths[name] = [str(folder)]

    def clients_of(self, interpreter):
        if interpreter == "CPython":
            return ["mqttpipe", "paho", "raw"]
        return [*OURS, *[name for name in PEERS if name in self.paths], "raw"]

    def run(self, interpreter, client, job, prefix=()):
        """Run the worker once; return what it says, or a dict with `error`."""
        paths = [] if interpreter == "CPython" else self.paths[client]
        job = dict(job, client=client, paths=paths)
        environment = {
            "PATH": "/usr/bin:/bin",
            "MICROPYPATH": ".frozen",
            "PYTHONPATH": "%s:%s" % (ROOT / "micropython", ROOT / "cpython_shim"),
        }
        # Not as an argument itself: in MicroPython's unix port that may have 255 bytes at most.
        job_file = pathlib.Path(self._folder.name) / "job.json"
        job_file.write_text(json.dumps(job))
        command = [*prefix, *self.commands[interpreter], str(WORKER), str(job_file)]
        try:
            ran = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=RUN_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            return {"error": "no end within %d s" % RUN_TIMEOUT_S}
        try:
            answer = json.loads(ran.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            lines = (ran.stdout + ran.stderr).strip().splitlines() or [
                "status %d" % ran.returncode
            ]
            return {"error": lines[-1]}
        found = re.findall(r"Collected : (\d+)", ran.stderr)
        if found:  # the last one: before it is the shell that starts MicroPython
            answer["instructions"] = int(found[-1])
        return answer

    def jobs(self, broker, sender):
        """Yield (Key, job) of one round, the clients taking turns."""
        seconds = self.options.seconds
        at_broker = {"host": broker.host, "port": broker.port}
        rows = self.options.rows
        at_sender = {"host": "127.0.0.1", "port": sender.port}
        for interpreter in self.commands:
            clients = self.clients_of(interpreter)
            for size in self.options.sizes if "rates" in rows else ():
                for qos in (0, 1, 2):
                    for task in ("publish", "sink", "receive"):
                        if task == "sink" and qos:
                            continue  # nobody would acknowledge
                        for client in clients:
                            if qos not in QOS_OF[client]:
                                continue
                            key = Key(interpreter, client, task, qos, size)
                            job = {"task": task, "qos": qos, "size": size, "seconds": seconds}
                            job.update(at_broker)
                            if task != "publish":
                                job.update(at_sender)
                            yield key, job
            yield from self.way_jobs(interpreter, clients, at_sender)
            for qos in (0, 1) if "latency" in rows else ():
                for client in clients:
                    if client != "raw":
                        key = Key(interpreter, client, "latency", qos, 64)
                        job = {"task": "latency", "qos": qos, "size": 64, "count": 200}
                        yield key, dict(job, **at_broker)

    def way_jobs(self, interpreter, clients, at_sender):
        """Yield (Key, job) of what programs do in other ways. For clients with a step alone."""
        kinds = []
        if "turns" in self.options.rows:
            kinds += [("turn", way) for way in TURN_WAYS]
            kinds += [("receive", way) for way in RECEIVE_WAYS]
        if "idle" in self.options.rows:
            kinds.append(("idle", ""))
        for task, way in kinds:
            for client in clients:
                if client.startswith(("mqttpipe", "umqtt")):
                    job = {"task": task, "way": way, "qos": 0, "size": WAY_SIZE}
                    job.update(at_sender, seconds=self.options.seconds)
                    yield Key(interpreter, client, (task + " " + way).strip(), 0, WAY_SIZE), job

    def heap_jobs(self, broker, sender):
        """Yield (Key, job) of what is the same in every round."""
        for interpreter in self.commands:
            if interpreter == "CPython":
                continue
            for client in self.clients_of(interpreter):
                if client == "raw":
                    continue
                job = {"size": 64, "qos": 0, "host": broker.host, "port": broker.port}
                yield Key(interpreter, client, "memory", 0, 64), dict(job, task="memory")
                for qos in QOS_OF[client]:
                    key = Key(interpreter, client, "allocation publish", qos, 64)
                    job.update(task="allocation", count=200, qos=qos, direction="publish")
                    yield key, dict(job)
                if client == "mqtt_as":
                    continue
                key = Key(interpreter, client, "allocation receive", 0, 64)
                job.update(host="127.0.0.1", port=sender.port, qos=0, direction="receive")
                yield key, dict(job)

    def measure_board(self, progress):
        """What a message costs on the board, in instructions."""
        import get_lwip_board
        import measure_lwip

        if not get_lwip_board.ensure(get_lwip_board.SUITE):
            self.note("%s: not on this machine" % BOARD)
            return
        peers = {name: path for name, path in self.options.peer if name in measure_lwip.COSTS_OF}
        names = {**OURS, **{name: name for name in peers}}
        task = progress.add_task(BOARD, total=len(names))
        with tempfile.TemporaryDirectory(prefix="mqttpipe-bench-") as folder:
            clients = measure_lwip.Clients(pathlib.Path(folder), peers)
            port = measure_lwip.Swallower().port
            for name, build_name in names.items():
                costs = measure_lwip.measure_costs(build_name, clients, port)
                for title, (figure, at) in measure_lwip.COSTS.items():
                    key = Key(BOARD, name, BOARD_TASK + title, 0, WAY_SIZE)
                    TITLES[key.task], FIELD[key.task] = title, "count"
                    if figure in costs:
                        self.figures[key] = [{"count": costs[figure][at]}]
                progress.advance(task)

    def measure(self, broker, sender, progress):
        if "board" in self.options.rows and not self.options.interpreter:
            self.measure_board(progress)
        rounds = [list(self.jobs(broker, sender)) for _ in range(self.options.rounds)]
        once = list(self.heap_jobs(broker, sender)) if "heap" in self.options.rows else []
        task = progress.add_task("measuring", total=sum(map(len, rounds)) + len(once))
        for key, job in [pair for one in rounds for pair in one] + once:
            progress.update(task, description="%s, %s: %s QoS %d, %d bytes" % key)
            if job["task"] == "sink":
                sender.prepare_to_read()
                job = dict(job, task="publish")
            elif job["task"] in ("turn", "idle"):
                sender.prepare_to_read()
            elif job["task"] in ("receive", "allocation"):
                topics = (b"bench/1", b"bench/2") if job.get("way") == "topics" else (b"bench/1",)
                sender.prepare(job["qos"], job["size"], topics)
            answer = self.run(key.interpreter, key.client, job)
            self.figures.setdefault(key, []).append(answer)
            progress.advance(task)
        if self.options.instructions and "instructions" in self.options.rows:
            self.count_instructions(broker, progress)

    def count_instructions(self, broker, progress):
        """Instructions per message: a run with many messages less a run with one."""
        valgrind = shutil.which("valgrind")
        if not valgrind:
            self.note("instructions per message: no valgrind")
            return
        prefix = [
            valgrind, "--tool=callgrind", "--trace-children=yes", "--callgrind-out-file=/dev/null"
        ]  # fmt: skip
        interpreter = "MicroPython 64-bit"
        if interpreter not in self.commands:
            return
        clients = [name for name in self.clients_of(interpreter) if name not in ("mqtt_as",)]
        task = progress.add_task("instructions", total=2 * len(clients))
        for client in clients:
            found = []
            for count in (1, COUNTED + 1):
                progress.update(task, description="%s, %s: instructions" % (interpreter, client))
                job = {
                    "task": "count",
                    "qos": 0,
                    "size": 64,
                    "count": count,
                    "direction": "publish",
                }
                job.update(host=broker.host, port=broker.port)
                answer = self.run(interpreter, client, job, prefix=prefix)
                found.append(answer.get("instructions"))
                progress.advance(task)
            key = Key(interpreter, client, "instructions publish", 0, 64)
            if None in found:
                reason = answer.get("error", "valgrind said nothing")
                self.figures[key] = [{"error": reason}]
                continue
            self.figures[key] = [{"instructions": (found[1] - found[0]) // COUNTED}]

    def close(self):
        self._folder.cleanup()


# ---------------------------------------------------------------------------
# What came out
# ---------------------------------------------------------------------------

TITLES = {
    "publish": "published/s, QoS %(qos)d, %(size)d bytes",
    "sink": "published/s to a socket that reads, %(size)d bytes",
    "receive": "received/s, QoS %(qos)d, %(size)d bytes",
    "idle": "steps/s that find nothing",
    "latency": "latency median ms, QoS %(qos)d",
    "memory": "heap: import, client, connection; bytes",
    "allocation publish": "heap per message published, QoS %(qos)d; bytes",
    "allocation receive": "heap per message received; bytes",
    "instructions publish": "instructions per message published, QoS 0",
}
for _way, _words in TURN_WAYS.items():
    TITLES[("turn " + _way).strip()] = "published/s, one in each turn%s, %%(size)d bytes" % _words
for _way, _words in RECEIVE_WAYS.items():
    TITLES["receive " + _way] = "received/s, QoS 0, %%(size)d bytes%s" % _words

FIELD = {
    **dict.fromkeys(TITLES, "rate"),
    "latency": "p50_ms",
    "memory": "bytes",
    "allocation publish": "bytes",
    "allocation receive": "bytes",
    "instructions publish": "instructions",
}


def median(figures, key, field=None):
    """Return the median of a figure, or None if a round of it failed."""
    runs = figures.get(key)
    field = field or FIELD[key.task]
    if not runs or any(field not in run for run in runs):
        return None
    return statistics.median(run[field] for run in runs)


def number(value):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return "%.3g" % value


def measured(figures):
    """The interpreters that there are figures of, in their order."""
    return list(dict.fromkeys(key.interpreter for key in figures))


def rows_of(figures, interpreter):
    """Return (columns, rows) of one interpreter: a row for each task, a column a client."""
    keys = [key for key in figures if key.interpreter == interpreter]
    clients = list(dict.fromkeys(key.client for key in keys))
    tasks = list(dict.fromkeys((key.task, key.qos, key.size) for key in keys))
    rows = []
    for task, qos, size in tasks:
        cells = [median(figures, Key(interpreter, c, task, qos, size)) for c in clients]
        title = TITLES[task] % {"qos": qos, "size": size}
        rows.append((title, cells, task))
        if task == "latency":
            for part in ("p95_ms", "p99_ms"):
                more = [
                    median(figures, Key(interpreter, c, task, qos, size), part) for c in clients
                ]
                rows.append(("latency %s %% ms, QoS %d" % (part[1:3], qos), more, task))
    return clients, rows


def with_ratio(value, base, task):
    """The figure, and how many times as good ours is (more is better for rates, less else)."""
    if value is None or base is None or not value or not base:
        return number(value)
    ratio = base / value if FIELD[task] == "rate" else value / base
    rounded = float("%.2g" % ratio)
    return "%s (%s)" % (
        number(value),
        "{:,.0f}".format(rounded) if rounded >= 100 else "%.2g" % ratio,
    )


def errors_of(figures):
    """Return why some have no figure."""
    return sorted(
        {
            "%s, %s, %s QoS %d: %s" % (k.interpreter, k.client, k.task, k.qos, run["error"])
            for k, runs in figures.items()
            for run in runs
            if "error" in run
        }
    )


def print_tables(console, bench):
    from rich.table import Table

    for interpreter in measured(bench.figures):
        clients, rows = rows_of(bench.figures, interpreter)
        table = Table(title=interpreter, caption="in brackets: how many times as good ours is")
        table.add_column("")
        for client in clients:
            table.add_column(client, justify="right")
        for title, cells, task in rows:
            ours = cells[0]
            others = [with_ratio(cell, ours, task) for cell in cells[1:]]
            table.add_row(title, number(ours), *others)
        console.print(table)
    for error in errors_of(bench.figures):
        console.print("did not run: " + error, markup=False, highlight=False, soft_wrap=True)


def versions(bench):
    lines = ["CPython " + platform.python_version()]
    for name, command in bench.commands.items():
        if name != "CPython":
            lines.append("%s: %s" % (name, get_micropython.version(command)))
    lines += ["%s: %s" % pair for pair in sorted(bench.options.versions.items())]
    return lines


# For those who run what the pages say (tests/host/test_docs.py).
NOT_RUN = (
    "<!-- not run: it takes hours and the sources of other clients; tests/host/test_bench.py runs"
    " less of it -->"
)


def write_markdown(path, bench):
    lines = [
        "# Benchmarks",
        "",
        "Written by `tools/bench.py` on %s." % datetime.date.today().isoformat(),
        "Compare within a line: the absolute figures are those of one machine. In brackets: how",
        "many times better mqttpipe is. `raw` is no client: ready-made bytes, the ceiling.",
        "",
        NOT_RUN,
        "    " + shlex.join(["python3", "tools/bench.py", *bench.options.shown]),
        "",
    ]
    lines += ["- " + line for line in versions(bench)]
    lines += ["- left out: " + note for note in bench.notes]
    lines += ["", *__doc__[__doc__.index("How. ") :].strip().splitlines()]
    for interpreter in measured(bench.figures):
        clients, rows = rows_of(bench.figures, interpreter)
        lines += ["", "## " + interpreter, "", "| | " + " | ".join(clients) + " |"]
        lines.append("|---|" + "---:|" * len(clients))
        for title, cells, task in rows:
            others = [with_ratio(cell, cells[0], task) for cell in cells[1:]]
            lines.append("| %s | %s |" % (title, " | ".join([number(cells[0]), *others])))
        if bench.options.plot and interpreter in bench.commands:
            name = plot_name(interpreter)
            lines += ["", "![messages per second on %s](%s)" % (interpreter, name)]
    errors = errors_of(bench.figures)
    if errors:
        lines += ["", "## What did not run", ""] + ["- " + error for error in errors]
    outputs.write(path, "\n".join(lines) + "\n")


def plot_name(interpreter):
    return "benchmarks-%s.svg" % interpreter.lower().replace(" ", "-")


def write_plots(folder, bench):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mqttpipe"  # the same figures give the same file
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    for interpreter in bench.commands:
        clients = [c for c in bench.clients_of(interpreter) if c != "raw"]
        figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        for axis, task in zip(axes, ("publish", "receive")):
            width = 0.8 / len(clients)
            for at, client in enumerate(clients):
                values = [
                    median(bench.figures, Key(interpreter, client, task, qos, 64)) or 0
                    for qos in (0, 1, 2)
                ]
                places = [qos + at * width for qos in (0, 1, 2)]
                axis.bar(places, values, width, label=client)
            axis.set_yscale("log")
            axis.set_ylabel("messages/s")
            axis.set_title("%s, 64 bytes" % task)
            axis.set_xticks(
                [qos + 0.4 - width / 2 for qos in (0, 1, 2)], ["QoS 0", "QoS 1", "QoS 2"]
            )
        axes[0].legend(fontsize="small")
        figure.suptitle(interpreter)
        figure.savefig(folder / plot_name(interpreter), metadata={"Date": None})
        pyplot.close(figure)


def peer(text):
    name, equals, path = text.partition("=")
    folder = pathlib.Path(path).expanduser().resolve()
    if not equals or name not in PEERS:
        raise argparse.ArgumentTypeError(
            "%r must be NAME=PATH with NAME one of %s" % (text, ", ".join(PEERS))
        )
    if not (folder / PEERS[name]).is_file():
        raise argparse.ArgumentTypeError("no %s in %s" % (PEERS[name], path))
    return name, folder


def sizes(text):
    found = [outputs.positive_int(part) for part in text.split(",")]
    if max(found) > SIZE_MAX:
        raise argparse.ArgumentTypeError("%d: at most %d" % (max(found), SIZE_MAX))
    return found


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        type=peer,
        metavar="NAME=PATH",
        help="one more client",
    )
    parser.add_argument(
        "--interpreter", action="append", choices=list(INTERPRETERS), help="only this one"
    )
    parser.add_argument(
        "--rounds", type=outputs.positive_int, default=3, help="runs of each (default: 3)"
    )
    parser.add_argument(
        "--seconds", type=outputs.positive, default=1.0, help="for each rate in a run (default: 1)"
    )
    parser.add_argument(
        "--sizes",
        default=",".join(map(str, SIZES)),
        type=sizes,
        help="bytes of a payload (default: %(default)s)",
    )
    parser.add_argument(
        "--no-instructions",
        dest="instructions",
        action="store_false",
        help="do not count instructions with valgrind",
    )
    parser.add_argument("--rows", action="append", choices=ROWS, help="only these kinds of rows")
    parser.add_argument(
        "--heap", default="192k", help="of MicroPython, such as 192k (default: %(default)s)"
    )
    parser.add_argument("--json", type=outputs.new_file, metavar="FILE", help="write all figures")
    parser.add_argument("--plot", type=outputs.new_folder, metavar="DIR", help="write SVG plots")
    parser.add_argument("--markdown", type=outputs.new_file, metavar="FILE", help="write a page")
    options = parser.parse_args(arguments)
    options.shown = shown_words(options, parser.parse_args([]))
    options.rows = options.rows or ROWS
    options.versions = {name: describe(folder) for name, folder in options.peer}
    return options


def shown_words(options, defaults):
    """Return the words to measure the same again; where a peer lies is nobody's business."""
    words = []
    for name, _ in options.peer:
        words += ["--peer", name + "=PATH"]
    for name in ("interpreter", "rounds", "seconds", "sizes", "rows", "heap"):
        value = getattr(options, name)
        if value != getattr(defaults, name):
            values = [",".join(map(str, value))] if name == "sizes" else value
            for one in values if isinstance(values, list) else [values]:
                words += ["--" + name, str(one)]
    return words if options.instructions else [*words, "--no-instructions"]


def describe(folder):
    """Return what git says of a peer's folder: commit and date."""
    command = ["git", "-C", str(folder), "log", "-1", "--format=%h of %ad", "--date=short"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return ran.stdout.strip() or "version unknown (no git checkout)"


def main(arguments):
    setup_env.reexec_in_venv("requirements-bench.txt")
    options = parse(arguments)
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is ended
    try:
        program = setup_env.ensure_debian_package("mosquitto", "mosquitto")
    except setup_env.SetupError as error:
        sys.exit("bench: no mosquitto: %s" % error)
    bench = Bench(options, console)
    broker = Mosquitto(program, ["set_tcp_nodelay true", "max_queued_messages 0"])
    try:
        broker.start(time.monotonic() + 20, lambda: None)
        columns = [TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()]
        with Progress(*columns, console=console) as progress:
            bench.measure(broker, Sender(), progress)
    except DemoError as error:
        sys.exit("bench: %s" % error)
    finally:
        broker.close()
        bench.close()
    print_tables(console, bench)
    wrongs = []
    if options.json:
        figures = [dict(key._asdict(), runs=runs) for key, runs in bench.figures.items()]
        report = {"date": datetime.date.today().isoformat(), "versions": versions(bench)}
        report.update(notes=bench.notes, figures=figures)
        wrongs += outputs.attempt(outputs.write, options.json, json.dumps(report, indent=1) + "\n")
    if options.plot:
        wrongs += outputs.attempt(write_plots, options.plot, bench)
    if options.markdown:
        wrongs += outputs.attempt(write_markdown, options.markdown, bench)
    for wrong in wrongs:
        print("bench: " + wrong)
    return 1 if wrongs else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
