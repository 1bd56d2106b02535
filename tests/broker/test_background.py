"""start() and stop() in a thread: they join, drain and free, and nothing is swallowed.

Each check is a function of scenarios/background.py, and runs in an interpreter of its own, which
must end by itself. (The way of the rp2, a timer, is in tests/portable/test_timer.py.)
"""

import re

import ends
import pytest

SOURCE = (ends.SCENARIOS / "background.py").read_text()
CHECKS = re.findall(r"^def check_(\w+)\(", SOURCE, re.M)
INTERPRETERS = ["CPython", "MicroPython 64-bit", ends.BOARD, ends.ESP32_SOCKETS]


@pytest.fixture(params=INTERPRETERS)
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


@pytest.mark.parametrize("name", CHECKS)
def test_in_the_background(name, start, add_proxy, topic):
    proxy = add_proxy()
    options = {"uri": proxy.uri, "client_id": topic.replace("/", "-")}
    check = start("background.py", name, options, topic, heap="128k")
    orders = {
        "stall": proxy.stall,
        "resume": proxy.resume,
        "refuse": lambda: (proxy.refuse(), proxy.cut()),
        "cut": proxy.cut,
    }
    while True:
        check.wait_until(lambda: check.count("please") or check.is_over(), "neither wish nor end")
        if not check.count("please"):
            break
        (wish,) = check.next("please")
        orders[wish]()
        check.tell("done")
    status = check.process.wait(ends.WAIT_S)
    if status and "libgcc_s.so.1 must be installed" in check.story():
        pytest.skip("this MicroPython was unpacked without libgcc_s: get it anew")
    assert status == 0, check.story()
    assert check.count("ok") == 1, check.story()
