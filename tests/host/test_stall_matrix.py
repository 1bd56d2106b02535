"""tools/stall_matrix.py: some of its cells in each interpreter, and that it can't be deceived.

Its own bound of 5 ms for a step is for a quiet machine, and stays with the tool. Here, where other
tests may run beside, a step must only not wait for the network: those time-outs are longer than
STEP_BOUND_MS.
"""

import json
import pathlib
import re
import subprocess
import sys

import pytest

import mqttpipe

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOL = ROOT / "tools" / "stall_matrix.py"

sys.path.append(str(ROOT / "tools" / "stall_matrix"))

import stall_cells as cells  # noqa: E402
import stall_report as report  # noqa: E402
import stall_runner as runner  # noqa: E402
import stall_servers as servers  # noqa: E402

STEP_BOUND_MS = 250
PATIENCE_MS = 3000
CONNECT_TIMEOUT_MS = 2000  # a busy machine needs as long for a handshake

# Seconds. The first run may have to install what tools/requirements-stall-matrix.txt has.
RUN_TIMEOUT_S = 200
pytestmark = pytest.mark.timeout(RUN_TIMEOUT_S + 20)

# For all cells: a time-out of the short kind may end one in the place of its fault.
PATIENT = (
    "--patience-ms=%d" % PATIENCE_MS,
    "--connect-timeout-ms=%d" % CONNECT_TIMEOUT_MS,
)
ONE_CELL = ("--no-tls", "--interpreter=CPython", "--only=^TCP, CONNACK, FIN, 0$", *PATIENT)


def run_tool(*options):
    """Run the tool to its end; return its exit status and the lines that it printed."""
    ran = subprocess.run(
        [sys.executable, str(TOOL), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=RUN_TIMEOUT_S,
        cwd=ROOT,
        text=True,
    )
    print(ran.stdout)
    return ran.returncode, ran.stdout.splitlines()


@pytest.mark.parametrize("name", ["CPython", "MicroPython 64-bit", "MicroPython 32-bit"])
def test_the_client_lives_through_every_fault_of_the_short_matrix(name, get_interpreter, request):
    if name == "MicroPython 64-bit" and not request.config.getoption("--long"):
        pytest.skip("the long form takes this width, too")
    get_interpreter(name)  # or the test is left out, or fails with advice
    status, lines = run_tool(
        "--short",
        "--interpreter=" + name,
        "--bound-ms=%d" % STEP_BOUND_MS,
        *PATIENT,
    )
    wrong = "\n".join(line for line in lines if line.startswith("WRONG"))
    assert (status, lines[-1]) == (0, "stall matrix: ok"), wrong
    (summary,) = [line for line in lines if "steps measured" in line]
    assert summary.strip().startswith("%d cells, 0 wrong" % len(cells.SHORT_ROWS))


# ---------------------------------------------------------------------------
# The whole tool
# ---------------------------------------------------------------------------


def test_a_bound_that_no_step_keeps_fails_after_the_repetitions():
    status, lines = run_tool(*ONE_CELL, "--bound-ms=0.0001")
    assert (status, lines[-1]) == (1, "stall matrix: 1 of 1 cells are wrong")
    assert any(line.startswith("WRONG") and "the bound is 0.0 ms" in line for line in lines)
    assert "Run more than once, for a late step or error: 1 of 1 cells were." in lines


def test_no_cell_at_all_is_a_failure_too():
    status, lines = run_tool("--no-tls", "--interpreter=CPython", "--only=no such cell")
    assert (status, lines[-1]) == (1, "stall matrix: 0 of 0 cells are wrong")


def test_the_files_say_what_the_screen_says(tmp_path):
    page, data = tmp_path / "matrix.md", tmp_path / "matrix.json"
    status, _ = run_tool(*ONE_CELL, "--markdown", str(page), "--json", str(data))
    assert status == 0
    text = page.read_text(encoding="utf-8")
    assert "| TCP | CONNACK | FIN | 1 | TransportError CONNACK |" in text
    assert re.search(r"^- date: \d{4}-\d\d-\d\d$", text, re.M)
    assert "mqttpipe " + mqttpipe.__version__ in text
    assert "- command: `python3 tools/stall_matrix.py --no-tls --interpreter=CPython" in text
    assert str(tmp_path) not in text
    (interpreter,) = json.loads(data.read_text(encoding="utf-8"))
    (cell,) = interpreter["cells"]
    assert cell["name"] == "TCP, CONNACK, FIN, 0"
    assert cell["wrongs"] == [] and cell["runs"] >= 1
    assert 0 < cell["worst_us"] == interpreter["rows"][0]["worst_us"]


def test_the_list_has_the_names_and_runs_nothing():
    status, lines = run_tool("--list", "--short", "--no-tls")
    assert status == 0
    assert len(lines) == len([row for row in cells.SHORT_ROWS if row[0] == cells.TCP])
    assert "TCP, TCP connect, SYN unanswered" in lines


@pytest.mark.parametrize("option", ["--only=(", "--jobs=0", "--interpreter=Jython"])
def test_a_wrong_option_is_refused(option):
    status, _ = run_tool(option)
    assert status == 2


# ---------------------------------------------------------------------------
# It can't be deceived: cells that are run for real, and expect or do the wrong thing
# ---------------------------------------------------------------------------


class Interpreter:
    name = "CPython"
    command = (sys.executable,)
    client_folder = ROOT / "micropython"


@pytest.fixture
def run_cell():
    """A function (cell, bound_us, patience_ms) -> Verdict, with a client in CPython."""
    used = []

    def run(cell, bound_us=1_000_000, patience_ms=PATIENCE_MS):
        used.append(runner.Runner(Interpreter, None, bound_us, patience_ms))
        return used[-1].run(cell)

    yield run
    for one in used:
        one.close()


def named(name):
    """Return the cell of this name."""
    (cell,) = [cell for cell in cells.make_cells(points=None) if cell.name == name]
    return cell


def test_a_right_cell_is_right(run_cell):
    verdict = run_cell(named("TCP, CONNACK, FIN, 2"))
    assert verdict.wrongs == []
    assert verdict.errors == ["TransportError CONNACK"]
    assert verdict.steps > 0 and verdict.worst_us > 0 and verdict.back_ms > 0


@pytest.mark.parametrize(
    "expected, said",
    [
        ({("TimedOut", "CONNACK")}, "expected TimedOut CONNACK: "),
        ({("TransportError", "TCP")}, "expected TransportError TCP: "),
        ({("ServerError", None)}, "expected ServerError: "),
        (set(), "expected no error: "),
    ],
)
def test_a_cell_with_the_wrong_expectation_fails(run_cell, monkeypatch, expected, said):
    monkeypatch.setattr(runner, "EVENT_TIMEOUT_S", 0.5)
    cell = named("TCP, CONNACK, FIN, 2")
    cell.expected = expected
    verdict = run_cell(cell)
    assert any(said in wrong and "TransportError CONNACK" in wrong for wrong in verdict.wrongs)


def test_an_error_that_does_not_come_fails(run_cell, monkeypatch):
    monkeypatch.setattr(runner, "EVENT_TIMEOUT_S", 0.5)
    cell = named("TCP, CONNACK, FIN, 2")
    cell.make_fault = lambda: servers.Fault("CONNACK", servers.LATE)
    verdict = run_cell(cell)
    assert verdict.wrongs == ["no 'offline' within 0.5 s (errors so far: none)"]


def test_the_wrong_return_code_fails(run_cell):
    cell = named("TCP, CONNACK, refused, 4")
    cell.return_code = 5
    assert run_cell(cell).wrongs == ["return_code is 4, expected 5"]


def test_an_error_before_its_time_fails(run_cell):
    cell = named("TCP, CONNACK, FIN, 2")
    cell.earliest_ms = 60_000
    verdict = run_cell(cell)
    assert "too early" in verdict.wrongs[0], verdict.wrongs
    assert verdict.runs == runner.RUNS_MAX


def test_a_deadline_of_an_attempt_is_measured_by_the_client_however_late_we_read_it():
    """On a busy machine "started" was read 6 ms late, and the error seemed to be too early."""
    run = runner.Run(named("TCP, DNS, no answer"), None, None)
    run._times = {"started": 100.2}
    run.seen.errors = [{"at": 100.4, "attempt_ms": 400.5}]
    run._tell_times()
    assert run.seen.errors[0]["after_ms"] == 400.5


def test_an_error_after_its_time_fails(run_cell):
    cell = named("TCP, SUBACK, silence, 2")
    cell.earliest_ms, cell.latest_ms = 0, 1
    verdict = run_cell(cell, patience_ms=0)
    assert verdict.runs == runner.RUNS_MAX
    assert "too late" in verdict.wrongs[0]


@pytest.mark.parametrize(
    "lose, said",
    [
        ("one", "the server got 'one' 0 times"),
        ("two", "the server got 'two' 0 times"),
        ("twice", "the server got 'two' 2 times"),
    ],
)
def test_a_lost_or_repeated_message_fails(run_cell, monkeypatch, lose, said):
    """The server's books are cooked, as the client can't be made to lose one."""
    real_update = servers.Server._on_publish

    def on_publish(server, connection, first_byte, body):
        real_update(server, connection, first_byte, body)
        came = server.session.came
        if lose == "twice":
            came[b"two"] *= 2
        else:
            came.pop(lose.encode(), None)

    monkeypatch.setattr(servers.Server, "_on_publish", on_publish)
    assert said in run_cell(named("TCP, CONNACK, FIN, 2")).wrongs


def test_a_client_that_never_comes_back_fails(run_cell, monkeypatch):
    monkeypatch.setattr(runner, "EVENT_TIMEOUT_S", 0.5)
    monkeypatch.setattr(servers.Server, "heal", lambda server, is_forgotten: None)
    verdict = run_cell(named("TCP, CONNACK, FIN, 2"))
    assert any("no 'published' within 0.5 s" in wrong for wrong in verdict.wrongs)


def test_a_client_that_does_not_subscribe_again_fails(run_cell, monkeypatch):
    """The server has lost the filters, but tells the client that it has the session."""
    monkeypatch.setattr(servers.Session, "forget", lambda session: session.filters.clear())
    verdict = run_cell(named("TCP, online, restart, session lost"))
    assert "the client has not subscribed again" in verdict.wrongs[0]


def test_a_client_that_dies_fails_with_its_last_words(run_cell):
    cell = named("TCP, CONNACK, FIN, 2")
    cell.options = dict(cell.options, keep_alive_s=-1)
    (wrong,) = run_cell(cell).wrongs
    assert wrong.startswith("the client ended by itself: ") and "keep_alive_s is -1" in wrong


def test_a_server_of_the_tool_that_fails_is_told(run_cell, monkeypatch):
    def on_packet(*arguments):
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr(servers.Server, "on_packet", on_packet)
    verdict = run_cell(named("TCP, CONNACK, FIN, 2"))
    assert "the tool's own server has failed" in verdict.wrongs[0]
    assert "ZeroDivisionError: of the test" in verdict.wrongs[0]


# ---------------------------------------------------------------------------
# Cells
# ---------------------------------------------------------------------------

EVERY_CELL = cells.make_cells(points=None, handshake=(900, 26))
KINDS = {"LocalError", "none"} | {
    name
    for name, value in vars(mqttpipe).items()
    if isinstance(value, type) and issubclass(value, mqttpipe.MQTTError)
}


def expectations(cell):
    if isinstance(cell.expected, dict):
        return {pair for pairs in cell.expected.values() for pair in pairs}
    return cell.expected


def test_every_cell_has_a_name_of_its_own():
    names = [cell.name for cell in EVERY_CELL]
    assert len(set(names)) == len(names)


def test_expected_are_the_errors_that_the_client_documents():
    guide = (ROOT / "docs" / "user-guide.md").read_text(encoding="utf-8")
    for cell in EVERY_CELL:
        for kind, stage in expectations(cell) - {cells.NOTHING}:
            assert kind in KINDS, cell.name
            assert stage is None or '`"%s"`' % stage in guide, cell.name


def test_every_byte_of_each_packet_is_a_cell():
    for stage, count in (("CONNACK", 4), ("SUBACK", 5), ("PUBACK", 4), ("UNSUBACK", 4)):
        for how in (servers.SILENCE, servers.FIN, servers.RST):
            row = (cells.TCP, stage, how)
            assert [c.point for c in EVERY_CELL if c.row == row] == list(range(count))
    points = {c.point for c in EVERY_CELL if c.stage.startswith("PUBLISH: ")} - {None}
    assert points == set(range(1, len(servers.PUSH_WIRE)))


def test_the_short_selection_has_a_cell_of_each_of_its_rows():
    assert {cell.row for cell in cells.choose_short(EVERY_CELL)} == cells.SHORT_ROWS


def test_a_sample_has_the_first_and_the_last():
    assert cells.sample(3, 4) == [0, 1, 2]
    for count, wanted in ((5, 4), (195, 4), (900, 8), (2, 2)):
        taken = cells.sample(count, wanted)
        assert taken[0] == 0 and taken[-1] == count - 1 and len(taken) <= wanted


def test_the_message_to_the_client_is_spelled_right():
    wire = servers.PUSH_WIRE
    assert (wire[1] & 0x7F) + (wire[2] << 7) == len(wire) - servers.PUSH_HEADER_BYTES
    start = servers.PUSH_HEADER_BYTES + servers.PUSH_TOPIC_BYTES
    assert wire[start : start + servers.PUSH_ID_BYTES] == b"\x00\x07"


def test_the_version_of_a_tls_record_is_found_in_every_record():
    records = b"\x16\x03\x03\x00\x02ab" + b"\x14\x03\x03\x00\x01c"
    found = [at for at in range(len(records)) if servers.is_record_version(records, at)]
    assert found == [1, 2, 8, 9]


# ---------------------------------------------------------------------------
# Verdicts and tables
# ---------------------------------------------------------------------------


def seen_of(worst_us, worst_tls_us=0, kind="TransportError", after_ms=1.0, back_ms=10.0):
    """Return what a good run of the cell below has seen."""
    seen = runner.Seen()
    seen.errors = [
        {
            "kind": kind,
            "stage": "CONNACK",
            "errno": None,
            "return_code": None,
            "text": "of the test",
            "after_ms": after_ms,
        }
    ]
    seen.came[b"one"] = seen.came[b"two"] = seen.message_count = 1
    seen.back_ms = back_ms
    seen.steps = 100
    seen.worst_us, seen.worst_tls_us = worst_us, worst_tls_us
    seen.worst_at = "ONLINE"
    return seen


def verdict_of(*all_seen, bound_us=5000, **of_cell):
    values = {"transport": "TCP", "stage": "CONNACK", "fault": "FIN", "point": 0}
    values.update(of_cell, expected={("TransportError", "CONNACK"), ("TimedOut", "CONNACK")})
    verdict = runner.Verdict(cells.Cell(**values), "an interpreter")
    for seen in all_seen:
        verdict.add(seen)
    verdict.finish(bound_us, 150)
    return verdict


def test_the_smallest_of_the_maxima_counts():
    verdict = verdict_of(seen_of(9000, 30_000), seen_of(400, 8000), seen_of(7000, 9000))
    assert (verdict.runs, verdict.worst_us, verdict.worst_tls_us) == (3, 400, 8000)
    assert verdict.wrongs == []
    assert not verdict.needs_another_run(5000, 150)


def test_a_step_above_the_bound_is_measured_again_and_then_wrong():
    verdict = verdict_of(seen_of(9000), bound_us=100_000)
    assert verdict.needs_another_run(5000, 150)
    assert verdict_of(seen_of(9000), seen_of(6000)).wrongs == [
        "a step(0) of 6.0 ms in ONLINE, the bound is 5.0 ms"
    ]


def test_a_long_step_of_a_handshake_is_measured_again_and_never_wrong():
    verdict = verdict_of(seen_of(400, 90_000))
    assert verdict.needs_another_run(5000, 150)
    assert verdict.wrongs == []


def test_a_wrong_error_is_wrong_in_whichever_run_it_comes_and_is_not_tried_again():
    verdict = verdict_of(seen_of(400), seen_of(400, kind="ServerError"))
    assert verdict.wrongs == [
        "ServerError CONNACK, expected TimedOut CONNACK or TransportError CONNACK: of the test"
    ]
    assert not verdict.needs_another_run(1, 150)


def test_rows_merge_the_cells_of_a_stage_and_fault():
    verdicts = [
        verdict_of(seen_of(400, after_ms=2.0), point=0),
        verdict_of(
            seen_of(300, kind="TimedOut", after_ms=200.4, back_ms=77.7), point=1, latest_ms=200
        ),
        verdict_of(seen_of(8000), point=2),
        verdict_of(seen_of(100, 6000), transport="TLS", fault="RST"),
    ]
    rows = report.merge(verdicts)
    assert [row.texts() for row in rows] == [
        (
            "TCP",
            "CONNACK",
            "FIN",
            "3",
            "TransportError CONNACK, TimedOut CONNACK",
            "200",
            "78",
            "8.00",
            "",
            "WRONG 1",
        ),
        ("TLS", "CONNACK", "RST", "1", "TransportError CONNACK", "1", "10", "0.10", "6.00", "ok"),
    ]
    lines = report.markdown_table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert {line.count("|") for line in lines} == {len(report.COLUMNS) + 1}
    assert lines[3].startswith("| TLS | CONNACK | RST | 1 |")


def test_a_cell_without_a_measurement_leaves_its_fields_empty():
    seen = runner.Seen()
    seen.failure = "it hangs"
    verdict = verdict_of(seen)
    assert verdict.wrongs == ["it hangs"]
    (row,) = report.merge([verdict])
    assert row.texts()[4:] == ("-", "", "", "", "", "WRONG 1")


def test_the_summary_counts_what_is_wrong_and_what_is_late():
    verdicts = [verdict_of(seen_of(us)) for us in (200, 300, 8000)]
    assert report.summary(verdicts, 5000) == (
        "3 cells, 1 wrong; 300 steps measured; longest step(0) 8.00 ms (half of the cells: at "
        "most 0.30), 1 cells above 5 ms"
    )
    assert report.repetitions(verdicts) == "no cell had to be"
    again = verdict_of(seen_of(200), seen_of(100))
    assert report.repetitions([*verdicts, again]) == "1 of 4 cells were"


def test_the_page_names_each_wrong_cell_with_its_reason():
    class Tried(Interpreter):
        version = "CPython 0.0"
        remark = ", tried"

    page = report.markdown(["date: today"], {Tried: [verdict_of(seen_of(8000))]}, 5000, "Legend.")
    assert "- date: today\n\nLegend.\n\n## CPython\n\nCPython 0.0, tried. 1 cells, 1 wrong" in page
    assert "- TCP, CONNACK, FIN, 0: a step(0) of 8.0 ms in ONLINE, the bound is 5.0 ms" in page
