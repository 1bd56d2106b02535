"""Stall the server at every stage and every byte, and see what the client does meanwhile.

    python3 tools/stall_matrix.py                      all cells, some bytes of each packet
    python3 tools/stall_matrix.py --every-byte         all cells, all bytes (an hour or more)
    python3 tools/stall_matrix.py --short              a selection, some seconds an interpreter
    python3 tools/stall_matrix.py --only "PUBACK|DNS"  cells whose name has this
    python3 tools/stall_matrix.py --interpreter CPython
    python3 tools/stall_matrix.py --list               the cells' names; nothing runs
    python3 tools/stall_matrix.py --markdown docs/stall-matrix.md --json matrix.json

A cell is a server that goes wrong once, at one byte: falls silent, closes, resets, sends nonsense
and so on. The client runs in a process of its own, in CPython and in MicroPython (64-bit and
32-bit), and calls step(0) again and again. What is looked at: how long the longest step(0) took;
that the error is the right one, in time; and that the client comes back by itself when the fault
is over, with nothing lost that was published meanwhile. The last line is `stall matrix: ok`
(status 0) or `stall matrix: N cells are wrong` (status 1).

Set up, once: `.venv` with tools/requirements-stall-matrix.txt (tools/setup_env.py) and MicroPython
(tools/get_micropython.py). No broker is needed.
"""

import argparse
import concurrent.futures
import datetime
import json
import pathlib
import platform
import re
import shlex
import signal
import sys
import tempfile
import threading
import time

import build
import get_micropython
import outputs
import setup_env

ROOT = setup_env.ROOT
PARTS = ROOT / "tools" / "stall_matrix"
sys.path.append(str(PARTS))

import stall_cells  # noqa: E402
import stall_report  # noqa: E402
from stall_certificates import Certificates  # noqa: E402
from stall_runner import RUNS_MAX, TLS_NOISE_US, CellError, Run, Runner  # noqa: E402

CPYTHON = "CPython"
BOARD = "MicroPython 32-bit"  # has a board's width, and a board's heap
INTERPRETERS = (CPYTHON, "MicroPython 64-bit", BOARD)
BITS = {"MicroPython 64-bit": 64, BOARD: 32}
BOARD_HEAP = "96k"

BOUND_MS = 5.0
PATIENCE_MS = 150  # an error may be so late: the machine does other things, too

POINTS = 4  # bytes taken of each part of a packet


class Interpreter:
    """A Python to start as a process: `[*command, "script.py"]`."""

    def __init__(self, name, command, version, client_folder, remark=""):
        self.name = name
        self.command = command
        self.version = version
        self.client_folder = client_folder  # where it finds mqttpipe
        self.remark = remark


def find_interpreter(name, board_folder):
    """Return the Interpreter of this name, got if it lacks; None if it can't be had."""
    source = ROOT / "micropython"
    if name == CPYTHON:
        return Interpreter(name, [sys.executable], "CPython " + platform.python_version(), source)
    command = get_micropython.ensure(BITS[name])
    if command is None:
        return None
    version = get_micropython.version(command)
    if name != BOARD:
        return Interpreter(name, command, version, source)
    compile_client(board_folder)
    command = [*command, "-X", "heapsize=" + BOARD_HEAP]
    remark = ", a heap of %sB, the client compiled" % BOARD_HEAP.replace("k", " Ki")
    return Interpreter(name, command, version, board_folder, remark)


def compile_client(folder):
    """Compile the client into a folder, as it is for a board: profile full, with line numbers."""
    text = build.read_source()
    switches = build.find_switches(text)
    text = build.configure(text, switches, build.parts_of(build.WHOLE, switches))
    (pathlib.Path(folder) / "mqttpipe.mpy").write_bytes(build.compile_mpy(text, opt=2))


# ---------------------------------------------------------------------------
# Which cells
# ---------------------------------------------------------------------------


def measure_handshake(interpreter, certificates, options):
    """Return how many bytes a TLS server sends this client, before CONNACK and with it."""
    cell = stall_cells.healthy_cell(stall_cells.TLS, options.connect_timeout_ms)
    runner = Runner(interpreter, certificates, 0, 0)
    try:
        run = Run(cell, runner.client(), certificates)
        seen = run.run()
    finally:
        runner.close()
    if not run.server.handshake_bytes:
        raise CellError("no TLS connection to %s: %s" % (interpreter.name, seen.failure))
    return run.server.handshake_bytes, run.server.connack_bytes


def choose_cells(options, handshake):
    """Return the cells that are asked for."""
    points = None if options.every_byte else POINTS
    cells = stall_cells.make_cells(points, handshake, options.connect_timeout_ms)
    if options.short:
        cells = stall_cells.choose_short(cells)
    return [cell for cell in cells if re.search(options.only, cell.name)]


# ---------------------------------------------------------------------------
# Running them
# ---------------------------------------------------------------------------


class Progress:
    """Says how far it is: a line that moves on a terminal, else a line now and then."""

    EVERY_S = 10

    def __init__(self, console):
        from rich import progress

        self._console = console
        self._bar = progress.Progress(
            progress.TextColumn("{task.description:20}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._lock = threading.Lock()
        self._said_at = time.monotonic()

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *exception):
        self._bar.stop()

    def begin(self, name, total):
        return name, total, self._bar.add_task(name, total=total)

    def advance(self, task, verdict, done):
        name, total, number = task
        with self._lock:
            self._bar.advance(number)
            if verdict.wrongs:
                text = "%s: %s: %s" % (name, verdict.cell.name, "; ".join(verdict.wrongs))
                self._console.print("WRONG  " + text, markup=False, highlight=False)
            if not self._console.is_terminal and time.monotonic() - self._said_at > self.EVERY_S:
                self._said_at = time.monotonic()
                self._console.print("%s: %d of %d cells" % (name, done, total), highlight=False)


def run_cells(interpreter, cells, certificates, options, progress, stopped):
    """Run cells one after the other in one interpreter; return their verdicts."""
    runner = Runner(interpreter, certificates, 1000 * options.bound_ms, options.patience_ms)
    task = progress.begin(interpreter.name, len(cells))
    verdicts = []
    try:
        for cell in cells:
            if stopped.is_set():
                break
            verdicts.append(runner.run(cell))
            progress.advance(task, verdicts[-1], len(verdicts))
    finally:
        runner.close()
    return verdicts


def run_all(interpreters, certificates, options, console):
    """Return interpreter -> verdicts."""
    stopped = threading.Event()
    with Progress(console) as progress, concurrent.futures.ThreadPoolExecutor(
        options.jobs
    ) as pool:
        futures = {}
        try:
            for interpreter in interpreters:
                handshake = certificates and measure_handshake(interpreter, certificates, options)
                cells = choose_cells(options, handshake)
                futures[interpreter] = pool.submit(
                    run_cells, interpreter, cells, certificates, options, progress, stopped
                )
            return {interpreter: future.result() for interpreter, future in futures.items()}
        except BaseException:
            stopped.set()
            raise


# ---------------------------------------------------------------------------
# What is said of them
# ---------------------------------------------------------------------------


def print_tables(console, results, bound_us):
    from rich import box, table

    for interpreter, verdicts in results.items():
        shown = table.Table(
            *stall_report.COLUMNS,
            title="%s (%s)" % (interpreter.name, interpreter.version + interpreter.remark),
            caption=stall_report.summary(verdicts, bound_us),
            box=box.SIMPLE,
            title_justify="left",
            caption_justify="left",
        )
        for name in ("cells", "after", "back", "worst step", "TLS step"):
            shown.columns[stall_report.COLUMNS.index(name)].justify = "right"
        for row in stall_report.merge(verdicts):
            shown.add_row(*row.texts(), style="bold red" if row.wrong_count else None)
        console.print(shown)


def write_markdown(path, results, options, legend):
    head = [
        "date: %s" % datetime.date.today().isoformat(),
        "command: `%s`" % command_line(sys.argv[1:]),
        "versions: %s; mqttpipe %s; %s %s"
        % (
            "; ".join("%s: %s" % (i.name, i.version) for i in results),
            client_version(),
            platform.system(),
            platform.machine(),
        ),
    ]
    text = stall_report.markdown(head, results, 1000 * options.bound_ms, legend)
    outputs.write(path, text)


def command_line(arguments):
    """Return the command for people: where files were written to is nobody's business."""
    words = ["python3", "tools/stall_matrix.py"]
    is_path = False
    for word in arguments:
        if not is_path and not word.startswith(("--markdown=", "--json=")):
            is_path = word in ("--markdown", "--json")
            words += [] if is_path else [word]
        else:
            is_path = False
    return shlex.join(words)


def client_version():
    text = (ROOT / "micropython" / "mqttpipe.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.*)"', text, re.M).group(1)


# ---------------------------------------------------------------------------
# Start and end
# ---------------------------------------------------------------------------


def pattern(text):
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError("%r: %s" % (text, error)) from error
    return text


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="a selection of the cells")
    parser.add_argument("--every-byte", action="store_true", help="every byte of each packet")
    parser.add_argument(
        "--only", type=pattern, default="", metavar="REGEX", help="cells whose name matches"
    )
    parser.add_argument(
        "--interpreter",
        action="append",
        choices=INTERPRETERS,
        help="only this one; may be given again (default: all)",
    )
    parser.add_argument("--no-tls", action="store_true", help="leave out the cells over TLS")
    parser.add_argument("--list", action="store_true", help="print the cells' names, run nothing")
    parser.add_argument(
        "--markdown", type=outputs.new_file, metavar="FILE", help="write the tables there"
    )
    parser.add_argument(
        "--json", type=outputs.new_file, metavar="FILE", help="write everything there"
    )
    parser.add_argument(
        "--jobs",
        type=outputs.positive_int,
        default=1,
        metavar="N",
        help="interpreters at the same time (default: 1; more are quicker and measure worse)",
    )
    parser.add_argument(
        "--bound-ms",
        type=outputs.positive,
        default=BOUND_MS,
        metavar="MS",
        help="the longest that a step(0) may take, cryptography aside (default: %g)" % BOUND_MS,
    )
    parser.add_argument(
        "--patience-ms",
        type=outputs.positive,
        default=PATIENCE_MS,
        metavar="MS",
        help="how late an error may come (default: %d)" % PATIENCE_MS,
    )
    parser.add_argument(
        "--connect-timeout-ms",
        type=outputs.positive_int,
        metavar="MS",
        help="the client's (default: %d, with TLS %d); more on a slow machine"
        % (stall_cells.CONNECT_TIMEOUT_MS["TCP"], stall_cells.CONNECT_TIMEOUT_MS["TLS"]),
    )
    return parser.parse_args()


def list_cells(options):
    # The bytes of a handshake are known when there has been one: here about so many.
    handshake = None if options.no_tls else (900, 26)
    for cell in choose_cells(options, handshake):
        print(cell.name)


def run_matrix(options):
    from rich.console import Console

    console = Console(soft_wrap=not sys.stdout.isatty())
    if not sys.stdout.isatty():
        console.width = 160
    with tempfile.TemporaryDirectory(prefix="mqttpipe-stall-") as board_folder:
        interpreters = []
        for name in options.interpreter or INTERPRETERS:
            interpreter = find_interpreter(name, board_folder)
            if interpreter is None:
                print("stall matrix: failed: no %s could be had, see above" % name)
                return 1
            interpreters.append(interpreter)
        certificates = None if options.no_tls else Certificates()
        results = run_all(interpreters, certificates, options, console)
    bound_us = 1000 * options.bound_ms
    timeouts = dict(stall_cells.CONNECT_TIMEOUT_MS)
    if options.connect_timeout_ms:
        timeouts = {name: options.connect_timeout_ms for name in timeouts}
    if options.no_tls:
        del timeouts[stall_cells.TLS]
    every = [verdict for verdicts in results.values() for verdict in verdicts]
    legend = stall_report.legend(timeouts, bound_us, TLS_NOISE_US, RUNS_MAX, every)
    print_tables(console, results, bound_us)
    wrongs = []
    if options.markdown:
        wrongs += outputs.attempt(write_markdown, options.markdown, results, options, legend)
    if options.json:
        text = json.dumps(stall_report.as_json(results), indent=1) + "\n"
        wrongs += outputs.attempt(outputs.write, options.json, text)
    print("Run more than once, for a late step or error: %s." % stall_report.repetitions(every))
    wrong_count = sum(bool(verdict.wrongs) for verdict in every)
    if wrong_count or not every:
        wrongs.append("%d of %d cells are wrong" % (wrong_count, len(every)))
    if wrongs:
        print("stall matrix: " + "; ".join(wrongs))
        return 1
    print("stall matrix: ok")
    return 0


def main():
    options = parse_arguments()
    if options.list:
        list_cells(options)
        return 0
    setup_env.reexec_in_venv("requirements-stall-matrix.txt")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is ended
    try:
        return run_matrix(options)
    except CellError as error:
        print("stall matrix: failed: %s" % error)
        return 1
    except KeyboardInterrupt:
        print("\nstall matrix: stopped; everything is ended")
        return 130


if __name__ == "__main__":
    sys.exit(main())
