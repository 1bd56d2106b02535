"""The present client leads the same life as that of release 0.1 (tests/old_and_new.py)."""

import gzip
import subprocess

import pytest

import old_and_new

RUNS = 300
RUNS_OF_A_FAULT = 300  # by then it is noticed
OLD_COMMIT = "c2655c7"

# Faults put into release 0.1.
FAULTS = {
    "no DUP": ("self.flags_again = _DUP if session_present else 0", "self.flags_again = 0"),
    "QoS 2 delivered again": ("if packet_id in received:", "if False:"),
    "PUBREL before PUBLISH": (
        "outbox.put_ack(_PUBREL, row[_ID])\n            elif",
        "pass\n            elif",
    ),
    "+ matches nothing": ("if byte == _PLUS:", "if byte == _PLUS + 100:"),
    "retain is lost": ("first_byte |= _RETAIN", "first_byte |= 0"),
    "a deadline never comes": ("if is_final and self._is_answered:", "if is_final:"),
    "a filter is forgotten": ("self.is_unsent = is_more", "self.is_unsent = False"),
}


def old_text():
    return gzip.decompress(old_and_new.OLD.read_bytes()).decode()


def test_both_lead_the_same_lives(capsys):
    failures, _, compared, exact = old_and_new.run_many(0, RUNS)
    with capsys.disabled():
        print(" %d lives, %d equal action by action, %d comparisons" % (RUNS, exact, compared))
    assert failures == {}
    assert compared > RUNS


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed(name, tmp_path):
    old, new = FAULTS[name]
    assert old_text().count(old) == 1
    path = tmp_path / "mqttpipe.py"
    path.write_text(old_text().replace(old, new), encoding="utf-8")
    failures, _, _, _ = old_and_new.run_many(0, RUNS_OF_A_FAULT, path)
    assert failures


def test_a_life_is_the_same_each_time():
    first, second = [], []
    for told in (first, second):
        life = old_and_new.Life(
            *old_and_new.load(), 7, say=lambda *what, told=told: told.append(what)
        )
        life.run()
    assert first == second and len(first) > 10


def test_the_old_client_is_that_of_the_history():
    command = ["git", "show", OLD_COMMIT + ":micropython/mqttpipe.py"]
    ran = subprocess.run(command, cwd=old_and_new.ROOT, capture_output=True, timeout=30)
    if ran.returncode:  # a shallow clone, or none
        assert '__version__ = "0.1.0"' in old_text()
    else:
        assert ran.stdout.decode() == old_text()
