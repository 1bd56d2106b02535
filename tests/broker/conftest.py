"""Fixtures of the tests with a real broker.

    interpreter   the test runs in CPython, MicroPython 64-bit and MicroPython 32-bit
    topic         a topic that no other test uses
    start         start(script, *arguments): run a script of scenarios/ in the interpreter
    remote        remote(**options): a connected client that does what it is told (remote.py)
    peer          paho-mqtt, connected to the broker
    add_peer      add_peer(uri=..., ...): one more
    add_proxy     add_proxy(cuts=...): a Proxy before the broker
    add_broker    add_broker(extra_config, files): one more broker
    exchange      exchange(broker, ...): many messages both ways, see traffic.run()
    wide_broker   a broker that puts no limit on messages in flight, one for the whole run

All of it ends with the test, and says what it saw when the test has failed.
"""

import contextlib
import itertools
import os

import ends
import pytest
import traffic

import servers
from proxy import Proxy

STORIES = pytest.StashKey()
TOPIC_NUMBERS = itertools.count(1)


def pytest_configure(config):
    config.stash[traffic.CHAOS_TABLE] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    finally:  # pytest shows it if the test failed
        for title, tell in item.stash.get(STORIES, []):
            item.add_report_section("call", title, tell())


@pytest.fixture
def closing(request):
    """closing(thing, title, story): close it at the end; its story is told if the test fails."""
    stories = request.node.stash.setdefault(STORIES, [])
    with contextlib.ExitStack() as stack:

        def add(thing, title, story):
            stack.callback(thing.close)
            stories.append((title, story))
            return thing

        yield add
    stories.clear()  # or every client of the whole run would be kept, with its sockets


@pytest.fixture(params=ends.INTERPRETERS)
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


@pytest.fixture
def topic():
    return "mqttpipe/%d/%d" % (os.getpid(), next(TOPIC_NUMBERS))


@pytest.fixture(scope="session")
def board_folder(tmp_path_factory, compile_mpy):
    """A folder with the client compiled as it is for a board."""
    folder = tmp_path_factory.mktemp("board")
    compile_mpy(ends.ROOT / "micropython" / "mqttpipe.py", folder / "mqttpipe.mpy", "-O2")
    return folder


@pytest.fixture
def start(interpreter, closing, request):
    def run(script, *arguments, on_event=None):
        folder = None
        if interpreter.name == ends.BOARD:
            folder = request.getfixturevalue("board_folder")
        scenario = ends.Scenario(interpreter, script, arguments, folder, on_event)
        return closing(scenario, str(scenario), scenario.story)

    return run


@pytest.fixture
def remote(start, broker):
    """A function: options of MQTTClient -> the Scenario, online unless connect=False."""

    def run(connect=True, **options):
        options.setdefault("uri", broker.uri)
        options.setdefault("reconnect_min_ms", 10)
        options.setdefault("reconnect_max_ms", 50)
        scenario = start("remote.py", options, str(ends.DEADLINE_S))
        if connect:
            scenario.tell("connect")
            scenario.next("online")
        return scenario

    return run


@pytest.fixture
def add_peer(broker, closing):
    class Closer:
        def __init__(self, peer):
            self.close = peer.disconnect

    def add(uri=None, **options):
        peer = ends.Peer(uri or broker.uri, **options)
        closing(Closer(peer), "paho", peer.story)
        return peer.connect()

    return add


@pytest.fixture
def peer(add_peer):
    return add_peer()


@pytest.fixture(scope="session")
def wide_broker_of_the_run(broker):
    try:
        another = broker.another(ends.NO_WINDOW)
    except servers.NotOurs as error:
        pytest.skip("needs a broker with settings of its own: %s" % error)
    with another:
        yield another


@pytest.fixture
def wide_broker(wide_broker_of_the_run, request):
    stories = request.node.stash.setdefault(STORIES, [])
    before = len(wide_broker_of_the_run.log())
    stories.append(
        ("the broker's log", lambda: ends.tail(wide_broker_of_the_run.log()[before:], 40))
    )
    return wide_broker_of_the_run


@pytest.fixture
def add_proxy(broker, closing):
    """A function: (cuts, behind, listen_host) -> a Proxy; its uri has the broker's user."""

    def add(cuts=(), behind=None, **options):
        behind = behind or broker
        proxy = Proxy(behind.host, behind.port, cuts, **options)
        host, _, _ = proxy.uri[len("mqtt://") :].rpartition(":")
        proxy.uri = ends.at_address(behind.uri, host, proxy.port)
        return closing(proxy, "proxy", proxy.log)

    return add


@pytest.fixture
def exchange(start, add_peer, add_proxy, topic):
    """A function: (broker, counts_out=, counts_in=, cuts=, ...) -> traffic.Books."""

    def run(broker, **options):
        return traffic.run(start, add_peer, add_proxy, broker, topic, **options)

    return run


@pytest.fixture
def add_broker(broker, closing):
    """A function: (extra_config, files) -> one more broker, running."""

    def add(extra_config="", files=None):
        try:
            another = broker.another(extra_config, files)
        except servers.NotOurs as error:
            pytest.skip("needs a broker with settings of its own: %s" % error)
        closing(another, "the other broker's log", lambda: ends.tail(another.log(), 40))
        another.start()
        return another

    return add


# ---------------------------------------------------------------------------
# Long chaos
# ---------------------------------------------------------------------------


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[traffic.CHAOS_TABLE]:
        terminalreporter.section("long chaos")
        heading = "%-18s  %-18s  %s" % ("interpreter", "session", traffic.Books.HEADING)
        for line in [heading, *config.stash[traffic.CHAOS_TABLE]]:
            terminalreporter.write_line(line)
