"""The shim's identity: a process is a board."""

import os
import subprocess
import sys

import pytest

import shim_machine


@pytest.fixture(autouse=True)
def own_identity():
    yield
    shim_machine.set_unique_id(None)


def test_the_identity_is_eight_bytes_and_stays():
    first = shim_machine.unique_id()
    assert isinstance(first, bytes) and len(first) == 8
    assert shim_machine.unique_id() == first


def test_two_processes_are_two_boards():
    program = "import shim_machine; print(shim_machine.unique_id().hex())"
    environ = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-c", program]
    seen = {subprocess.check_output(command, env=environ) for _ in range(3)}
    assert len(seen) == 3


def test_a_forked_child_is_another_board():
    parent = shim_machine.unique_id()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, shim_machine.unique_id())
        os._exit(0)
    os.waitpid(pid, 0)
    child = os.read(reader, 100)
    os.close(reader)
    os.close(writer)
    assert len(child) == 8 and child != parent


def test_a_test_can_set_it():
    shim_machine.set_unique_id(b"\x01\x02\x03\x04\x05\x06")
    assert shim_machine.unique_id() == b"\x01\x02\x03\x04\x05\x06"


def test_import_machine_and_import_micropython_find_the_shim():
    import machine
    import micropython
    import shim_micropython

    assert machine.unique_id is shim_machine.unique_id
    assert micropython.schedule is shim_micropython.schedule
    assert micropython.const(7) == 7
