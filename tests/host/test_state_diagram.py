"""The diagram of docs/principle.md shows the transitions that the client takes, and no others.

state_recorder.py runs the portable tests of MODULES, and lives that end in each state, with a
client that notes each change of its state. What was taken is held against the arrows of the
diagram, both ways: a wrong arrow fails, and so does one that is missing.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import mqttpipe

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs" / "principle.md"
RECORDER = TOP / "tests" / "host" / "state_recorder.py"
MODULES = (
    "test_after_failure",
    "test_connection",
    "test_hard_moments",
    "test_offline",
    "test_resolver",
    "test_stalls",
    "test_stalls_on_the_way",
    "test_subscribe",
    "test_tls",
)
TIMEOUT_S = 300


def arrows():
    (diagram,) = re.findall(r"^```mermaid\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    assert diagram.startswith("stateDiagram-v2\n")
    assert "[*] --> DOWN" in diagram
    return re.findall(r"^ *([A-Z_]+) --> ([A-Z_]+) *:", diagram, re.M)


def test_each_state_is_in_the_diagram_and_no_arrow_twice():
    drawn = arrows()
    assert {name for arrow in drawn for name in arrow} == set(mqttpipe.STATE_NAMES)
    assert len(drawn) == len(set(drawn))


def test_the_arrows_are_the_transitions_that_clients_take():
    ran = subprocess.run(
        [sys.executable, str(RECORDER), *MODULES],
        capture_output=True,
        timeout=TIMEOUT_S,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    taken = set(ast.literal_eval(ran.stdout.splitlines()[-1]))
    drawn = set(arrows())
    assert taken - drawn == set(), "taken, and not drawn"
    assert drawn - taken == set(), "drawn, and never taken"
