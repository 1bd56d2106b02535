"""The README tells the truth: its program runs, its tree is the tree, its commands exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
README = (TOP / "README.md").read_text(encoding="utf-8")
PROGRAM = re.search(r"```python\n(.*?)```", README, re.S).group(1)


def output_of(command, environment, line_count):
    """The first lines that the program prints; it is stopped then, or after 20 s."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        return [process.stdout.readline().rstrip() for _ in range(line_count)]
    finally:
        process.kill()
        process.wait(20)


def check(lines):
    assert lines[0] == "online: True", lines
    assert sorted(lines[1:]) == ["acknowledged: True", "home/lamp b'on'"], lines


@pytest.fixture
def program(broker, tmp_path):
    path = tmp_path / "program.py"
    text = PROGRAM.replace("mqtt://localhost", broker.uri)
    assert text != PROGRAM
    path.write_text(text)
    return str(path)


def test_the_program_has_at_most_15_lines():
    assert len([line for line in PROGRAM.splitlines() if line.strip()]) <= 15


def test_the_program_runs_on_cpython(program):
    path = os.pathsep.join([str(TOP / "micropython"), str(TOP / "cpython_shim")])
    environment = dict(os.environ, PYTHONPATH=path, PYTHONUNBUFFERED="1")
    check(output_of([sys.executable, program], environment, 3))


def test_the_program_runs_on_micropython(program, micropython):
    path = "%s:.frozen" % (TOP / "micropython")
    command = [*micropython.command, program]
    check(output_of(command, dict(os.environ, MICROPYPATH=path), 3))


def test_it_can_be_read_in_two_minutes():
    assert README.count("\n") <= 200


def test_the_figures_are_those_of_the_pages_that_are_measured():
    """If this fails: python3 tools/fill_figures.py"""
    command = [sys.executable, TOP / "tools" / "fill_figures.py", "--check"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = re.search(r"figures: begin.*?figures: end", README, re.S).group().count("\n| ")
    assert rows >= 9


@pytest.mark.parametrize("page", ["README.md", "docs/zh/README.md"])
def test_the_longest_step_is_that_of_the_page_that_is_measured(page):
    ports = (TOP / "docs" / "ports.md").read_text(encoding="utf-8")
    table = ports.partition("| longest step in a fault")[2].partition("\n\n")[0]
    longest_us = max(int(text.replace(",", "")) for text in re.findall(r"\| ([\d,]+) \|", table))
    row = re.search(r"\| `step\(\)` .*", (TOP / page).read_text(encoding="utf-8")).group()
    told_ms = [int(text) for text in re.findall(r"(\d+) ms", row)]
    assert told_ms[-1] == -(-longest_us // 1000), row


@pytest.mark.parametrize("page", ["README.md", "docs/zh/README.md"])
def test_the_memory_in_its_text_is_that_of_the_page_on_size(page):
    size = (TOP / "docs" / "size.md").read_text(encoding="utf-8")
    text = (TOP / page).read_text(encoding="utf-8")
    (told,) = re.findall(r"(\d+) KB\D*ROMFS\D*(\d+) KB|(\d+) KB\D*, (\d+) KB from a ROMFS", text)
    for row, kb in zip(("all three", "all three, from a ROMFS"), filter(None, told)):
        cells = re.search(r"\| RAM: %s, bytes \|(.*)\|" % row, size).group(1).split("|")
        standard = int(cells[1].replace(",", ""))
        assert abs(standard / 1000 - int(kb)) < 1, (row, kb)  # it may be measured anew


def test_each_link_leads_somewhere():
    for target in re.findall(r"\]\((?!https:)([^)#]+)", README):
        assert (TOP / target).exists(), target


def test_the_tree_names_every_folder():
    tree = README.split("## The tree")[1].split("##")[0]
    named = set(re.findall(r"^    (\w+)/", tree, re.M))
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=TOP, capture_output=True, text=True, timeout=20
    ).stdout
    folders = {line.split("/")[0] for line in tracked.splitlines() if "/" in line}
    assert named == {folder for folder in folders if not folder.startswith(".")}


def test_each_script_named_is_there():
    for script in set(re.findall(r"python3 (\w+/[\w/]+\.py)", README)):
        assert (TOP / script).is_file(), script


def test_what_people_start_and_every_option_of_the_tests_is_named():
    for script in ("demo", "test", "build", "deploy", "repl", "mqtt"):
        assert "tools/%s.py" % script in README, script
    conftest = (TOP / "tests" / "conftest.py").read_text(encoding="utf-8")
    contributing = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for option in re.findall(r'addoption\(\s*"(--[a-z-]+)"', conftest):
        assert "`%s" % option in contributing, option


def test_ci_runs_the_test_command_and_nothing_else():
    lines = (TOP / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "cd "))]
    assert commands == ["exec python3 tools/test.py"], commands


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_what_the_pages_beside_it_name_is_there(page):
    text = (TOP / page).read_text(encoding="utf-8")
    names = re.findall(r"\]\((?!https:)([^)#]+)", text)
    names += re.findall(r"\b((?:tests|tools|micropython|boards)/[\w/.]+\.\w+)", text)
    assert len(names) >= 5
    for name in set(names) - {"boards/secrets.py"}:  # everybody's own
        assert (TOP / name).exists(), name
