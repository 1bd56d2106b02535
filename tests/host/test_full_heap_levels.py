"""A heap with so many bytes left, from 0 to 4 KiB, at each moment of a client's life.

tests/portable/full_heap.py says what is asked of the client then; full_heap_sockets.py and
full_heap_run.py do the same over real sockets and under asyncio. Each moment runs in a process of
its own, in MicroPython 32-bit with a heap as on a board: a crash there is a failure of that
moment. The short form tries some levels, `--long` each in steps of 8 bytes.
"""

import importlib
import os
import pathlib
import subprocess

import pytest

import build

PORTABLE = pathlib.Path(__file__).resolve().parent.parent / "portable"
MODULES = ("full_heap", "full_heap_sockets", "full_heap_run", "full_heap_5")
LEVEL_MAX = 4096
# Full, with all parts and asyncio, the fakes and a piece of 4 KiB beside it.
HEAP = "128k"
STEP = 8
# Under asyncio each level takes a third of a second: its loop sleeps in milliseconds.
STEP_SLOW = 64
SLOW = "full_heap_run"
# Most allocations are small, so most of the levels that matter are.
SHORT = [*range(0, 512, 32), *range(512, LEVEL_MAX + 1, 512)]
SHORT_SLOW = [0, 16, 64, 160, 512, 2048]

TIMEOUT_S = 100
LONG_TIMEOUT_S = 1000

PROGRAM = """\
import board_heap
import full_heap
import %(module)s as module
for is_in_pieces in (False, True):
    failures = full_heap.sweep(module.%(moment)s, %(levels)r, is_in_pieces, module.once)
    for level, what in failures:
        print("in pieces" if is_in_pieces else "in one run", level, what)
print("the end")
"""


def moments():
    for name in MODULES:
        for moment in importlib.import_module(name).MOMENTS:
            yield name, moment.__name__


@pytest.fixture(scope="session")
def folder(tmp_path_factory, compile_mpy):
    """What would be on a board's flash."""
    folder = tmp_path_factory.mktemp("full-heap")
    (folder / "mqttpipe.mpy").write_bytes(build.compile_mpy(build.read_source(), keeps_names=True))
    for source in PORTABLE.glob("*.py"):
        if not source.name.startswith("test_"):
            compile_mpy(source, folder / (source.stem + ".mpy"))
    return folder


def run(code, folder, micropythons, timeout_s):
    command = [*micropythons["MicroPython 32-bit"].command, "-X", "heapsize=" + HEAP]
    return subprocess.run(
        [*command, "-c", code],
        env=dict(os.environ, MICROPYPATH="%s:.frozen" % folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        text=True,
        errors="replace",
    )


LEAK = """\
import board_heap
import full_heap
kept = []
def leaking():
    if len(kept) < %d:
        kept.append(bytes(64))
    return full_heap.serving()
print(full_heap.sweep(leaking, range(8)))
"""


@pytest.mark.timeout(TIMEOUT_S + 10)
def test_a_leak_is_noticed_and_what_is_kept_once_is_none(folder, micropythons):
    leaks = run(LEAK % 1000, folder, micropythons, TIMEOUT_S).stdout
    assert leaks.startswith("[(None, '") and "bytes stay in use" in leaks
    assert run(LEAK % 9, folder, micropythons, TIMEOUT_S).stdout == "[]\n"


@pytest.mark.timeout(LONG_TIMEOUT_S + 10)
@pytest.mark.parametrize("module, moment", moments())
def test_it_bears_each_level(module, moment, folder, micropythons, request):
    is_long = request.config.getoption("--long")
    if is_long:
        levels = list(range(0, LEVEL_MAX + 1, STEP_SLOW if module == SLOW else STEP))
    else:
        levels = SHORT_SLOW if module == SLOW else SHORT
    code = PROGRAM % {"module": module, "moment": moment, "levels": tuple(levels)}
    ran = run(code, folder, micropythons, LONG_TIMEOUT_S if is_long else TIMEOUT_S)
    assert ran.stdout == "the end\n" and ran.returncode == 0, "status %d\n%s" % (
        ran.returncode,
        ran.stdout,
    )
