"""tools/outputs.py: what can not be done is told before a run; files are whole or not there."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import outputs
import setup_env

TOOLS = Path(outputs.__file__).parent


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "-inf", "x", ""])
def test_what_is_no_number_above_0_is_refused(text):
    for kind in (outputs.positive, outputs.positive_int):
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)


def test_numbers_are_what_they_were():
    assert outputs.positive("0.5") == 0.5 and outputs.positive_int("7") == 7
    with pytest.raises(argparse.ArgumentTypeError):
        outputs.positive_int("0.5")


def test_a_file_must_have_a_folder_and_be_none(tmp_path):
    assert outputs.new_file(str(tmp_path / "x")) == tmp_path / "x"
    for wrong in (tmp_path, tmp_path / "none" / "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            outputs.new_file(str(wrong))


def test_a_folder_may_have_to_be_made_but_not_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("a/b/c", ".", str(tmp_path / "x")):
        assert outputs.new_folder(text) == Path(text)
    (tmp_path / "file").write_text("")
    for text in ("file", "file/x"):
        with pytest.raises(argparse.ArgumentTypeError):
            outputs.new_folder(text)


def test_what_can_not_be_looked_at_is_refused(tmp_path, monkeypatch):
    """As in a folder of another's. Until Python 3.13 Path.exists() raised what it was told."""
    long = str(tmp_path / ("x" * 300))
    for kind in (outputs.new_file, outputs.new_folder):
        with pytest.raises(argparse.ArgumentTypeError):
            kind(long)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(outputs.os, "stat", refuse)
    for kind in (outputs.new_file, outputs.new_folder):
        with pytest.raises(argparse.ArgumentTypeError):
            kind(str(tmp_path / "x"))


def test_a_file_that_can_not_be_written_whole_stays_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    file.write_text("before")

    def fail(path, data):
        with open(path, "wb") as half:
            half.write(data[:3])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        (wrong,) = outputs.attempt(outputs.write, file, "behind")
    assert "No space left" in wrong
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
    assert outputs.attempt(outputs.write, file, "behind") == []
    assert file.read_text() == "behind" and list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_device_stays_one():
    (wrong,) = outputs.attempt(outputs.write, Path("/dev/full"), "x")
    assert "No space left" in wrong and not Path("/dev/full").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ("bench.py", "--seconds", "nan"),
        ("bench.py", "--sizes", "16,0"),
        ("bench.py", "--sizes", "16001"),
        ("bench.py", "--json", "none/x"),
        ("chaos.py", "--markdown", "none/x"),
        ("load.py", "--down-s", "nan"),
        ("load.py", "--json", "none/x"),
        ("mutate.py", "--jobs", "0"),
        ("mutate.py", "--report", "none/x"),
        ("soak.py", "--json", "none/x"),
        ("soak.py", "--plot", "/dev/null/x"),
        ("stall_matrix.py", "--bound-ms", "nan"),
        ("stall_matrix.py", "--json", "none/x"),
    ],
    ids=" ".join,
)
def test_a_run_that_can_come_to_nothing_does_not_begin(words, tmp_path):
    ran = subprocess.run(
        [sys.executable, str(TOOLS / words[0]), *words[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        cwd=tmp_path,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (2, ""), ran
    assert words[1] in ran.stderr.splitlines()[-1]


@pytest.mark.timeout(400)  # it may have to be set up
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "words",
    [
        ("mutate.py", "--section", "Decoder.packets"),
        ("stall_matrix.py", "--no-tls", "--interpreter", "CPython"),
    ],
    ids=" ".join,
)
def test_a_run_that_is_ended_leaves_nothing_behind_and_says_no_traceback(words, how, tmp_path):
    name = words[0].replace("_", "-").replace(".py", ".txt")
    setup_env.find_python("requirements-" + name)
    with subprocess.Popen(
        [sys.executable, str(TOOLS / words[0]), *words[1:]],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # nohup
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.iterdir()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(how)
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, "")
    assert list(tmp_path.iterdir()) == []
