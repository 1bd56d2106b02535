"""tools/measure_lwip.py: docs/ports.md is true."""

import contextlib
import re
import types

import pytest

import bench
import measure_lwip
import measure_size
import setup_env


def test_the_page_is_true(firmware, broker, monkeypatch, capsys):
    monkeypatch.setattr(setup_env, "reexec_in_venv", lambda requirements: None)
    before = measure_lwip.PAGE.read_bytes()
    assert measure_lwip.main(["--check"]) == 0, capsys.readouterr().out
    assert re.search(r"\d\d figures of ports.md are as measured", capsys.readouterr().out)
    assert measure_lwip.PAGE.read_bytes() == before


def test_no_step_of_the_page_is_longer_than_is_promised():
    cells = measure_size.parse_tables(measure_lwip.PAGE.read_text(encoding="utf-8"))
    steps = {
        place[1]: int(cell.replace(",", ""))
        for place, cell in cells.items()
        if place[0].startswith("longest step")
    }
    assert len(steps) >= 9 and max(steps.values()) <= 50_000, steps


def test_a_figure_that_is_no_longer_true_is_told(tmp_path, monkeypatch, capsys):
    class Made:
        left_out = ()
        versions = ["a board"]

        def figures(self):
            return {("RAM", "tiny", "import"): 1000}

    page = tmp_path / "ports.md"
    row = "| RAM | import |\n|---|---:|\n| tiny | %s |\n"
    monkeypatch.setattr(measure_lwip, "Measurement", lambda *_, **__: Made())
    monkeypatch.setattr(measure_lwip.get_lwip_board, "ensure", lambda suite: "firmware")
    monkeypatch.setattr(setup_env, "reexec_in_venv", lambda requirements: None)
    for shown, status in (("1,000", 0), ("2,000", 1)):
        page.write_text(
            "\n".join([measure_lwip.BEGIN, "", row % shown, measure_size.END]), encoding="utf-8"
        )
        assert measure_lwip.main(["--check"], page) == status, shown
    assert "tiny, import: 2,000, measured: 1,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    "first, body, answer",
    [
        (0x10, b"", b"\x20\x02\0\0"),
        (0x32, b"\0\x01t\x12\x34x", b"\x40\x02\x12\x34"),
        (0x30, b"\0\x01tx", b""),
        (0x30, b"\0\x04send2", (b"\x30\x4b\0\x09home/lamp" + b"x" * 64) * 2),
        (
            0x30,
            b"\0\x08send two2",
            b"\x30\x4b\0\x09home/lamp" + b"x" * 64 + b"\x30\x4b\0\x09home/door" + b"x" * 64,
        ),
    ],
)
def test_the_server_of_the_measurement_answers(first, body, answer):
    assert measure_lwip.Swallower()._answer(first, body) == answer


def test_the_bench_leads_with_what_a_message_costs_on_the_board(firmware, monkeypatch, tmp_path):
    """On a PC a system call is dear and a bytecode cheap; on a board it is the other way round."""
    monkeypatch.setattr(measure_lwip, "measure_costs", lambda *_: {"idle": (3125, 0)})
    page = tmp_path / "benchmarks.md"
    options = types.SimpleNamespace(
        peer=[], interpreter=["CPython"], heap="192k", shown=[], versions={}, plot=None
    )
    console = types.SimpleNamespace(print=print)
    with contextlib.closing(bench.Bench(options, console)) as one:
        progress = types.SimpleNamespace(add_task=lambda *_, **__: 0, advance=lambda task: None)
        one.measure_board(progress)
        one.figures[bench.Key("CPython", "mqttpipe", "idle", 0, 64)] = [{"rate": 1000}]
        bench.write_markdown(page, one)
    headings = re.findall("^## (.*)", page.read_text(), re.MULTILINE)
    assert headings == ["The emulated board", "CPython"]
    assert "| a step with nothing to do | 3,125 | 3,125 (1) |" in page.read_text()
