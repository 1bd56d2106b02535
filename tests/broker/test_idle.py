"""How much of a processor an idle client takes, in each way to drive it: shown, not judged.

    python -m pytest tests/broker/test_idle.py --long      a longer look

Wanted is at most 1 %. All of them run at the same time, each in a process of its own, and the
kernel says how long each has run. MicroPython's unix port has micropython/mqttpipe_unix.py, which
says why. (`nothing` has no client: the interpreter's sleep_ms() alone.)
"""

import pathlib
import time

import ends
import pytest

INTERPRETERS = ["CPython", "MicroPython 64-bit", ends.BOARD]
WAYS = ("nothing", "step", "background", "asyncio")
SETTLE_S = 0.3  # what is left to do after going online


def processor_s(process):
    """How long all threads of a process have run since ever, in seconds."""
    ran_ns = 0
    for file in pathlib.Path("/proc/%d/task" % process.pid).glob("*/schedstat"):
        ran_ns += int(file.read_text().split()[0])
    return ran_ns / 1e9


@pytest.fixture(scope="module")
def unix_folder(tmp_path_factory, compile_mpy):
    """The client compiled, with what the unix port has besides."""
    folder = tmp_path_factory.mktemp("unix")
    for name in ("mqttpipe", "mqttpipe_unix"):
        compile_mpy(ends.ROOT / "micropython" / (name + ".py"), folder / (name + ".mpy"), "-O3")
    return folder


@pytest.mark.timeout(0)
def test_idle(request, record_property, broker, unix_folder, get_interpreter, closing, topic):
    look_s = 60 if request.config.getoption("--long") else 2
    runs = {}
    for name in INTERPRETERS:
        for way in WAYS:
            client_id = "%s-%s-%s" % (topic.replace("/", "-"), way, name.replace(" ", "-"))
            options = {"uri": broker.uri, "client_id": client_id}
            scenario = ends.Scenario(
                get_interpreter(name), "idle.py", (way, options), unix_folder, heap="192k"
            )
            closing(scenario, str(scenario), scenario.story)
            runs[name, way] = scenario
    for scenario in runs.values():
        scenario.next("online", 20)
    time.sleep(SETTLE_S)
    begin_s = time.monotonic()
    before = {key: processor_s(scenario.process) for key, scenario in runs.items()}
    time.sleep(look_s)
    took_s = time.monotonic() - begin_s
    for (name, way), scenario in runs.items():
        share = (processor_s(scenario.process) - before[name, way]) / took_s
        what = "%% of a processor, idle, driven by %s" % way
        record_property("figure", (name, what, "%.2f" % (100 * share)))
    for scenario in runs.values():
        scenario.tell("end")
        scenario.next("bye", 20)
