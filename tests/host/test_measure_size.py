"""tools/measure_size.py: docs/size.md is true, and what is no longer true is noticed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import build
import measure_size
import setup_env
import vm_memory

ROOT = Path(__file__).resolve().parent.parent.parent
BOARD = "MicroPython 32-bit"

PAGE = """\
# Title

%s
Measured once.

| profile | tiny | full |
|---|---:|---:|
| RAM, bytes | 1,000 | 20,000 |
| heap, KiB | 30 | no |

| part | .mpy |
|---|---:|
| a, b: c | -12 |
%s

The end.
""" % (measure_size.BEGIN, measure_size.END)

# As of a client: two sections, a heading in a class, a switch, a constant.
CLIENT = """\
\"\"\"Text.\"\"\"

# ---------------------------------------------------------------------------
# First (section 1): more
# ---------------------------------------------------------------------------
_KEPT = const(1)
LOST = (
    1,
    2,
)


if _KEPT:

    def one():
        return _KEPT


# ---------------------------------------------------------------------------
# Second
# ---------------------------------------------------------------------------
class Class:
    def __init__(self):
        pass

    # -- a heading -----------------------------------------------------------

    @property
    def two(self):
        return 2

    if _KEPT:

        def three(self):
            return 3

    # -- another -----------------------------------------------------------

    def four(self):
        return 4
"""


class Made:
    """A measurement that was never made."""

    left_out = ()

    def __init__(self):
        self.values = {
            ("profile", "RAM, bytes", "tiny"): 1000,
            ("profile", "RAM, bytes", "full"): 20000,
            ("profile", "heap, KiB", "tiny"): 30,
            ("profile", "heap, KiB", "full"): "no",
            ("part", "a, b: c", ".mpy"): -12,
        }

    def figures(self):
        return self.values

    def lines(self):
        return ["", "New.", ""]


@pytest.fixture(autouse=True)
def no_set_up(monkeypatch):
    """The set-up would start pytest anew."""
    monkeypatch.setattr(setup_env, "reexec_in_venv", lambda requirements: None)


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "size.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


# ---------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------


@pytest.mark.timeout(900)  # the long form makes a hundred builds, of two seconds and more each
def test_the_page_is_true(get_interpreter, request, capsys):
    get_interpreter(BOARD)
    before = measure_size.PAGE.read_bytes()
    options = ["--check"] if request.config.getoption("--long") else ["--check", "--short"]
    if request.config.getoption("--no-broker") or not setup_env.find_program("mosquitto"):
        options.append("--no-broker")
    assert measure_size.main(options) == 0, capsys.readouterr().out
    assert re.search(r"\d\d+ figures of size.md are as measured", capsys.readouterr().out)
    assert measure_size.PAGE.read_bytes() == before


def test_a_page_as_measured_is_true(page):
    assert measure_size.compare(page, Made()) == (5, [])


@pytest.mark.parametrize(
    ("place", "figure", "is_true"),
    [
        (("profile", "RAM, bytes", "full"), 20400, True),  # within 2 %
        (("profile", "RAM, bytes", "full"), 19610, True),
        (("profile", "RAM, bytes", "full"), 20409, False),
        (("profile", "RAM, bytes", "full"), 19600, False),
        (("profile", "RAM, bytes", "tiny"), 1320, True),  # a few of the VM's blocks
        (("profile", "RAM, bytes", "tiny"), 1321, False),
        (("profile", "heap, KiB", "tiny"), 31, True),
        (("profile", "heap, KiB", "tiny"), 28, False),
        (("profile", "heap, KiB", "full"), 28, False),
        (("part", "a, b: c", ".mpy"), 12, True),
        (("part", "a, b: c", ".mpy"), 53, False),
        (("profile", "RAM, bytes", "full"), "no", False),
        (("profile", "RAM, bytes", "full"), None, True),  # not measured this time
    ],
)
def test_a_figure_is_true_within_its_tolerance(page, place, figure, is_true):
    made = Made()
    made.values[place] = figure
    compared, amiss = measure_size.compare(page, made)
    assert (amiss == []) == is_true, amiss
    assert compared == (4 if figure is None else 5)
    if not is_true:
        assert (
            len(amiss) == 1 and place[1] in amiss[0] and str(figure) in amiss[0].replace(",", "")
        )


def test_a_row_too_few_or_too_many_is_told(page):
    made = Made()
    made.values["profile", "flash, bytes", "tiny"] = 7
    del made.values["part", "a, b: c", ".mpy"]
    assert measure_size.compare(page, made)[1] == [
        "flash, bytes, tiny is missing, measured: 7",
        "a, b: c, .mpy is measured no more",
    ]


def test_only_what_stands_between_the_markers_is_written(page):
    measure_size.write_page(page, Made())
    text = page.read_text(encoding="utf-8")
    before, after = PAGE.split(measure_size.BEGIN)[0], PAGE.split(measure_size.END)[1]
    assert text == before + measure_size.BEGIN + "\n\nNew.\n\n" + measure_size.END + after


def test_what_is_written_can_be_read_again(page):
    table = measure_size.Table("title", ["one", "two"])
    table.rows = {"a | row": {"one": 1234567, "two": "no TLS"}, "b": {"one": -5, "two": 0}}
    table.rows["c"] = table.rows.pop("a | row")
    made = Made()
    made.values = {
        ("title", name, column): figure
        for name, row in table.rows.items()
        for column, figure in row.items()
    }
    made.lines = table.lines
    measure_size.write_page(page, made)
    assert measure_size.compare(page, made) == (4, [])


@pytest.mark.parametrize("text", ["", PAGE.replace(measure_size.END, "")])
def test_a_page_without_its_markers_is_told(page, text):
    page.write_text(text)
    with pytest.raises(measure_size.SizeError, match="size.md has not the two lines"):
        measure_size.compare(page, Made())


def test_a_missing_page_is_told(tmp_path):
    with pytest.raises(measure_size.SizeError, match="can't read none.md"):
        measure_size.compare(tmp_path / "none.md", Made())


# ---------------------------------------------------------------------------
# The parts of the file
# ---------------------------------------------------------------------------


def test_the_parts_are_the_sections_and_what_has_a_heading_in_a_class():
    parts = measure_size.find_parts(CLIENT)
    assert [part.name for part in parts] == [
        "First",
        "Second",
        "Second: a heading",
        "Second: another",
    ]
    assert parts[0].first == 3 and parts[-1].last == CLIENT.count("\n")
    for one, next_one in zip(parts, parts[1:]):
        assert one.last + 1 == next_one.first


def names_left(text):
    return re.findall(r"def (\w+)|^(\w+) = ", text, re.M)


def test_a_part_is_left_out_but_for_its_constants():
    parts = {part.name: part for part in measure_size.find_parts(CLIENT)}
    parts.update((part.name, part) for part in measure_size.find_functions(CLIENT))
    for name, lost in (
        ("First", ["LOST", "one"]),
        ("Second", ["__init__"]),
        ("Second: a heading", ["two", "three"]),
        ("Second: another", ["four"]),
        ("Class.three", ["three"]),
        ("one", ["one"]),
    ):
        text = measure_size.without(CLIENT, parts[name])
        names = ["".join(pair) for pair in names_left(text)]
        assert names == [
            each
            for each in ("_KEPT", "LOST", "one", "__init__", "two", "three", "four")
            if each not in lost
        ], name
        assert text.count("\n") == CLIENT.count("\n"), "line numbers are in the .mpy as well"
        compile(text, name, "exec")
    assert "@property" not in measure_size.without(CLIENT, parts["Second: a heading"])


def test_the_parts_of_the_client_cover_it_and_each_has_a_name_of_its_own():
    text = build.read_source()
    parts = measure_size.find_parts(text)
    names = [part.name for part in parts]
    assert len(names) > 10 and len(set(names)) == len(names), names
    assert parts[-1].last == text.count("\n")
    functions = measure_size.find_functions(text)
    assert all(function.first >= parts[0].first for function in functions)
    assert {"_Driving.step", "parse_uri"} <= {function.name for function in functions}


# ---------------------------------------------------------------------------
# The tool
# ---------------------------------------------------------------------------


@pytest.mark.timeout(900)  # some builds, and a busy machine takes its time for each
def test_a_grown_client_is_noticed_and_what_is_left_out_is_said(
    monkeypatch, request, tmp_path, capsys
):
    monkeypatch.setattr(vm_memory, "find", lambda: None)
    json_file = tmp_path / "size.json"
    before = measure_size.PAGE.read_bytes()
    grown = tmp_path / "mqttpipe.py"
    text = build.read_source()
    more = "".join(
        "def more_%d(a):\n    return a.text + 'a text of %d'\n" % (i, i) for i in range(50)
    )
    grown.write_text(text + "\n\n" + more)
    monkeypatch.setattr(build, "SOURCE", grown)
    # To make each build small takes half a minute, and more is not needed to be seen as grown.
    monkeypatch.setattr(build, "remembered", lambda make, *what: build.strip(what[-1]))
    measured = []  # once is enough
    measure = measure_size.Measurement

    def measure_once(*arguments):
        if not measured:
            measured.append(measure(*arguments))
        return measured[0]

    monkeypatch.setattr(measure_size, "Measurement", measure_once)
    short = [] if request.config.getoption("--long") else ["--short"]
    assert measure_size.main(["--check", *short, "--json", str(json_file)]) == 1
    output = capsys.readouterr().out
    assert "LEFT OUT: RAM" in output and "size.md is not current" in output
    assert re.search(
        r"^measure_size: \.mpy, -O3, bytes, tiny: [\d,]+, measured: [\d,]+$", output, re.M
    )
    assert "RAM" not in output.replace("LEFT OUT: RAM", "").replace("-O3", "")
    assert short == [] or "LEFT OUT: switches and parts of the file" in output

    tables = json.loads(json_file.read_text())["tables"]
    sizes = tables["profile"][".mpy, -O3, bytes"]
    assert sizes["tiny"] < sizes["standard"] < sizes["full"]
    text, switches = text + "\n\n" + more, build.find_switches(text)
    full = build.configure(text, switches, build.parts_of("full", switches))
    assert sizes["full"] == len(build.compile_mpy(full))
    assert tables["profile"]["RAM: import, bytes"]["tiny"] is None
    parts = {
        name: row["full .mpy"]
        for name, row in tables["part of the file, bytes"].items()
        if name != "the whole"
    }
    if short:
        assert set(parts.values()) == {None}
    else:
        assert sum(parts.values()) == sizes["full"], "the parts and what they share make it"

    # Without all figures the page stays as it is.
    assert len(measured) == 1
    assert measure_size.main([]) == 0
    assert "size.md is not written" in capsys.readouterr().out
    assert measure_size.PAGE.read_bytes() == before


def test_a_client_without_its_form_is_told_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build, "SOURCE", tmp_path / "none.py")
    assert measure_size.main(["--check"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("measure_size: can't read the client") and error.count("\n") == 1


def test_the_functions_of_a_profile_are_listed_the_largest_first(monkeypatch, tmp_path, capsys):
    small = "\n".join(build.read_source().split("\n# Control packet types")[:1])
    text = (
        small
        + "\n\ndef little():\n    return 1\n\n\ndef large(a):\n    return %s\n"
        % " + ".join("a.b%d" % i for i in range(50))
    )
    source = tmp_path / "mqttpipe.py"
    source.write_text(text)
    monkeypatch.setattr(build, "SOURCE", source)
    assert measure_size.main(["--functions", "tiny"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    names = [words[0] for words in lines[1:-1]]
    assert names[0] == "large" and "little" in names
    assert int(lines[1][1].replace(",", "")) > 200


def test_help_is_enough_to_use_it():
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "measure_size.py"), "--help"],
        stdout=subprocess.PIPE,
        timeout=60,
        text=True,
    )
    assert ran.returncode == 0
    for option in ("--check", "--json", "--no-broker", "--functions"):
        assert option in ran.stdout


# ---------------------------------------------------------------------------
# The VM's memory
# ---------------------------------------------------------------------------

# Takes what is said here, and a little for itself.
MODULE = """\
kept = bytearray(10000)

class MQTTClient:
    def __init__(self, uri, **options):
        assert uri == "mqtt://somewhere" and not options
        self.on_offline = None
        self.buf = bytearray(3000)
        waste = bytearray(5000)

    def connect(self):
        self.more = bytearray(500)

    def wait_online(self, timeout_ms):
        return %s
"""


@pytest.fixture
def vm(get_interpreter):
    get_interpreter(BOARD)
    return vm_memory.find()


def write_module(folder, text):
    (folder / "mqttpipe.py").write_text(text)
    return folder


def test_ram_is_what_stays_of_import_client_and_connection(vm, tmp_path):
    folder = write_module(tmp_path, MODULE % "True")
    ram = vm.ram(folder, "mqtt://somewhere", is_online=True)
    assert 10000 <= ram.import_bytes < 12000, "the array, the class and its names"
    assert 3000 <= ram.client_bytes < 3200
    assert 500 <= ram.connection_bytes < 700
    alone = vm.ram(folder, "mqtt://somewhere")
    assert alone.connection_bytes is None and abs(alone.client_bytes - ram.client_bytes) <= 32
    assert (
        abs(vm.import_bytes(folder) - ram.import_bytes) < 300
    )  # as the script's own names differ


def test_the_same_figures_come_each_time(vm, tmp_path):
    folder = write_module(tmp_path, MODULE % "True")
    first, second = (vars(vm.ram(folder, "mqtt://somewhere", is_online=True)) for _ in range(2))
    assert first == second


def test_a_client_that_does_not_come_online_or_fails_is_told(vm, tmp_path):
    with pytest.raises(vm_memory.MemoryProbeError, match="AttributeError"):
        vm.ram(write_module(tmp_path, MODULE % "False"), "mqtt://somewhere", is_online=True)
    with pytest.raises(vm_memory.MemoryProbeError, match="ValueError: of the test"):
        vm.import_bytes(write_module(tmp_path, "raise ValueError('of the test')"))


def test_the_smallest_heap_is_just_enough(vm, tmp_path, get_interpreter):
    folder = write_module(tmp_path, "kept = bytearray(100 * 1024)\n")
    heap_kib = vm.smallest_heap_kib(folder)
    assert 100 < heap_kib < 110, heap_kib
    for kib, status in ((heap_kib, 0), (heap_kib - 1, 1)):
        ran = subprocess.run(
            [*get_interpreter(BOARD).command, "-X", "heapsize=%dk" % kib, "-c", "import mqttpipe"],
            env=dict(os.environ, MICROPYPATH=str(folder)),
            capture_output=True,
            timeout=60,
        )
        assert ran.returncode == status, kib


def test_what_can_not_be_imported_in_any_heap_is_told(vm, tmp_path):
    folder = write_module(tmp_path, "import a_module_of_nobody\n")
    with pytest.raises(vm_memory.MemoryProbeError, match="can't be imported: ImportError"):
        vm.smallest_heap_kib(folder)


def test_import_bytes_may_be_prepared(vm, tmp_path):
    folder = write_module(tmp_path, "kept = [at_hand]\n")
    assert vm.import_bytes(folder, "import builtins; builtins.at_hand = 1") < 500
