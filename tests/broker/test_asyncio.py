"""The client under CPython's asyncio and MicroPython's: beside other tasks, cancelled anywhere.

Each check is a coroutine of scenarios/tasks.py, and runs in an interpreter of its own. CPython's
is in development mode (-X dev), where a socket, a task or a coroutine that is left behind is a
ResourceWarning or a RuntimeWarning; each is an error here. How late the loop was at most beside a
working client is printed at the end of the test run.
"""

import re

import ends
import pytest

SOURCE = (ends.SCENARIOS / "tasks.py").read_text()
CHECKS = re.findall(r"^async def check_(\w+)\(", SOURCE, re.M)
INTERPRETERS = ["CPython", "MicroPython 64-bit", ends.BOARD, ends.ESP32_SOCKETS]
DEVELOPMENT = ["-X", "dev", "-W", "error"]

# Over TLS the same, as far as the transport has a part in it.
TLS_CHECKS = [
    "run_ends_after_disconnect",
    "cancel_at_every_await_of_run_leaves_nothing_behind",
    "messages_come_in_order_and_stay_valid",
    "idle_it_does_nothing",
    "it_comes_back_when_the_connection_breaks",
]


class InDevelopment:
    """An Interpreter, CPython, where warnings are errors."""

    def __init__(self, interpreter):
        self.name = interpreter.name
        self.version = interpreter.version
        self.command = interpreter.command + DEVELOPMENT


@pytest.fixture(params=INTERPRETERS)
def interpreter(request, get_interpreter):
    interpreter = get_interpreter(request.param)
    return InDevelopment(interpreter) if interpreter.name == "CPython" else interpreter


def run_check(name, start, proxy, topic, record, **options):
    options.setdefault("uri", proxy.uri)
    # asyncio itself takes some 20 KiB of MicroPython's heap.
    check = start(
        "tasks.py", name, dict(options, client_id=topic.replace("/", "-")), topic, heap="192k"
    )
    orders = {
        "stall": proxy.stall,
        "resume": proxy.resume,
        "refuse": proxy.refuse,
        "cut": proxy.cut,
    }
    while True:
        check.wait_until(
            lambda: check.count("please") or check.is_over(), "neither wish nor end", 60
        )
        if not check.count("please"):
            break
        (wish,) = check.next("please")
        orders[wish]()
        check.tell("done")
    assert check.process.wait(ends.WAIT_S) == 0, check.story()
    assert check.count("ok") == 1, check.story()
    story = check.story()
    for trouble in ("Warning", "never retrieved", "was never awaited", "Traceback"):
        assert trouble not in story, story
    while check.count("figure"):
        record(*check.next("figure"))


@pytest.fixture
def record(record_property, interpreter):
    """record(name, value): a figure, printed at the end of the run."""

    def add(what, value):
        record_property("figure", (interpreter.name, what, value))

    return add


@pytest.mark.parametrize("name", CHECKS)
def test_under_asyncio(name, start, add_proxy, topic, record):
    options = {"protocol": 5} if name.startswith("request_wait") else {}
    run_check(name, start, add_proxy(), topic, record, **options)


@pytest.mark.parametrize("name", TLS_CHECKS)
def test_under_asyncio_over_tls(name, start, add_proxy, tls_broker, made, topic, record):
    proxy = add_proxy((), tls_broker)
    uri = "mqtts://localhost:%d" % proxy.port
    run_check(name, start, proxy, topic, record, uri=uri, ca=made.ca.cert_pem_file)
