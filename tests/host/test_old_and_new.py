"""The present client leads the same life as that of release 0.1 (tests/old_and_new.py)."""

import subprocess
import zipfile

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


@pytest.fixture(scope="session")
def old(tmp_path_factory):
    """Release 0.1 as a checkout: a folder."""
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(old_and_new.OLD) as archive:
        for part in old_and_new.PARTS:
            archive.extractall(folder / part)
    return folder


def test_both_lead_the_same_lives(capsys):
    failures, _, compared, exact = old_and_new.run_many(0, RUNS)
    with capsys.disabled():
        print(" %d lives, %d equal action by action, %d comparisons" % (RUNS, exact, compared))
    assert failures == {}
    assert compared > RUNS


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed(name, old):
    path = old / old_and_new.PARTS[0] / "mqttpipe.py"
    text = path.read_text(encoding="utf-8")
    right, wrong = FAULTS[name]
    assert text.count(right) == 1
    try:
        path.write_text(text.replace(right, wrong), encoding="utf-8")
        failures, _, _, _ = old_and_new.run_many(0, RUNS_OF_A_FAULT, old, failures_max=1)
    finally:
        path.write_text(text, encoding="utf-8")
    assert failures


def test_the_old_client_differs_in_nothing_from_itself(old):
    failures, allowed, _, exact = old_and_new.run_many(0, RUNS_OF_A_FAULT, old)
    assert (failures, allowed, exact) == ({}, {}, RUNS_OF_A_FAULT)


def test_a_life_is_the_same_each_time():
    first, second = [], []
    for told in (first, second):
        life = old_and_new.Life(
            *old_and_new.load(), 7, say=lambda *what, told=told: told.append(what)
        )
        life.run()
    assert first == second and len(first) > 10


def test_what_can_not_be_asked_for_is_told(capsys):
    for words, told in (
        (["--runs=-3"], "must be 1 or more"),
        (["--runs=0"], "must be 1 or more"),
        (["--jobs=0"], "must be 1 or more"),
        (["--new=/nonexistent"], "/nonexistent is no checkout"),
    ):
        with pytest.raises(SystemExit) as caught:
            old_and_new.main(words)
        assert caught.value.code == 2
        assert told in capsys.readouterr().err


def test_the_old_client_is_that_of_the_history():
    with zipfile.ZipFile(old_and_new.OLD) as archive:
        text = archive.read("mqttpipe.py")
    command = ["git", "show", OLD_COMMIT + ":micropython/mqttpipe.py"]
    ran = subprocess.run(command, cwd=old_and_new.ROOT, capture_output=True, timeout=30)
    if ran.returncode:  # a shallow clone, or none
        assert b'__version__ = "0.1.0"' in text
    else:
        assert ran.stdout == text
