"""Which tests a worker of pytest-xdist runs together, and which of them come first.

A file is one worker's alone, as it may have costly fixtures of its own. But a few files take so
long that the others would wait for the one that has it: of these each worker takes parts.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The files of tests that take longest: begun late, one of them would keep a run waiting.
LONG_FIRST = [
    "tests/host/test_measure_size.py",
    "tests/host/test_build.py",
    "tests/lwip/test_portable_on_lwip.py",
    "tests/test_portable.py",
    "tests/board/test_deploy.py",
    "tests/broker/test_asyncio.py",
    "tests/host/test_stall_matrix.py",
    "tests/host/test_release.py",
    "tests/lwip/test_serial_port.py",
    "tests/lwip/test_lwip_faults.py",
    "tests/lwip/test_lwip_examples.py",
    "tests/lwip/test_installed_tools.py",
    "tests/lwip/test_lwip_traffic.py",
    "tests/lwip/test_measure_lwip.py",
]

# Of these any worker takes a test, or all portable tests in one interpreter or profile.
DIVIDED = [
    "tests/board/test_deploy.py",
    "tests/broker/test_asyncio.py",
    "tests/host/test_build.py",
    "tests/host/test_measure_size.py",
    "tests/host/test_stall_matrix.py",
    "tests/lwip/test_portable_on_lwip.py",
    "tests/test_portable.py",
]


def place_of(path):
    """Return a key to sort files by: the long ones come first, the others stay as they are."""
    name = pathlib.Path(path).relative_to(ROOT).as_posix()
    return LONG_FIRST.index(name) if name in LONG_FIRST else len(LONG_FIRST)


def part_of(nodeid):
    """Return what a test is run together with: its file, or a part of that."""
    path = nodeid.split("::")[0]
    return re.sub(r"-test_\w+\]$", "", nodeid) if path in DIVIDED else path


def make_scheduler(config, log):
    from xdist.scheduler import LoadFileScheduling

    class LoadPartScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return part_of(nodeid)

    return LoadPartScheduling(config, log)
