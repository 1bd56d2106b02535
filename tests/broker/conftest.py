"""Fixtures of the tests with a real broker.

    interpreter   the test runs in CPython, MicroPython 64-bit, MicroPython 32-bit, MicroPython
                  with the ESP32's sockets, and CPython with the personalities of other ports
    topic         a topic that no other test uses
    start         start(script, *arguments): run a script of scenarios/ in the interpreter
    remote        remote(**options): a connected client that does what it is told (remote.py)
    made          certificates.Certificates, made for this run
    peer          paho-mqtt, connected to the broker
    add_peer      add_peer(uri=..., ...): one more
    add_proxy     add_proxy(cuts=...): a Proxy before the broker
    add_broker    add_broker(extra_config, files, tls): one more broker
    exchange      exchange(broker, ...): many messages both ways, see traffic.run()
    wide_broker   a broker that puts no limit on messages in flight, one for the whole run
    tls_broker    the same, which speaks TLS only, with the certificate made.server

All of it ends with the test, and says what it saw when the test has failed.
"""

import contextlib
import itertools
import os
import re
import ssl

import ends
import pytest
import traffic

import build
import certificates
import servers
import summary
from proxy import Proxy

STORIES = pytest.StashKey()
TOPIC_NUMBERS = itertools.count(1)

# Left out with a personality and on the ESP32's sockets, unless --long says otherwise: or these
# tests would take more than twice the time. Each pattern is searched in the name of a test.
SPARED = [
    # Most of the time goes to the client's own timers, and no socket has a part in it.
    r"test_a_silent_server_ends_in_timed_out\[(CPython .*|ESP32 sockets)\]",  # 6 s
    r"test_a_client_finds_the_broker_by_name\[(CPython .*|ESP32 sockets)-lost\]",
    r"test_an_idle_connection_is_kept_alive.*\[(CPython (as rp2|as unix|hostile)|ESP32 s)",  # 4 s
    r"test_a_server_that_is_silent_in_the_handshake.*\[CPython (as unix|hostile)",
    # A connection takes ESP32 some ticks of 10 ms; the other form of the same test is run.
    r"test_a_cut_after_every_byte_of_the_first_150\[(CPython as ESP32|ESP32 sockets)-down\]",
    r"test_chaos\[(CPython as ESP32|ESP32 sockets)-clean session\]",
    # The real unix port does the same; where connections are cut and closed, both are run.
    r"test_(chaos|many_messages|a_large_message|20_connections).*\[CPython as unix",
    # Datagrams are whole and on time there.
    r"test_a_(client_finds_the_broker_by_name|name_without_an_address).*\[CPython hostile",
    # Certificates are the affair of mbedTLS, which the other MicroPythons have as well.
    r"test_a_server_(is_verified|with_a_bad|of_another).*\[ESP32 sockets",
    r"test_(ssl_is|an_intermediate|an_address_is|without_a_ca|insecure).*\[ESP32 sockets",
    r"test_a_(client_is_known|client_without|key_that).*\[ESP32 sockets",
    r"test_under_asyncio_over_tls\[ESP32 sockets-(?!messages)",
]


def pytest_collection_modifyitems(config, items):
    if config.getoption("--long"):
        return
    others = [item for item in items if "other" in item.fixturenames]
    text = "%d tests with RabbitMQ, ActiveMQ, aedes and amqtt"
    deselect(config, items, others, text + " (--long runs them)")
    spared = [item for item in items if any(re.search(name, item.name) for name in SPARED)]
    text = "%d slow tests with a personality, or on the ESP32's sockets"
    deselect(config, items, spared, text + " (--long runs them)")


def deselect(config, items, unwanted, text):
    if unwanted:
        config.hook.pytest_deselected(items=unwanted)
        items[:] = [item for item in items if item not in unwanted]
        summary.leave_out(config, text % len(unwanted))


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
    """A folder with the client compiled as it is for a board, without MQTT 5.0."""
    return compiled_client(build.WHOLE, tmp_path_factory, compile_mpy)


@pytest.fixture(scope="session")
def mqtt5_folder(tmp_path_factory, compile_mpy):
    """The same with MQTT 5.0."""
    return compiled_client("mqtt5", tmp_path_factory, compile_mpy)


def compiled_client(profile, tmp_path_factory, compile_mpy):
    folder = tmp_path_factory.mktemp("board")
    text = build.read_source()
    switches = build.find_switches(text)
    source = folder / "source" / "mqttpipe.py"
    source.parent.mkdir()
    source.write_text(build.configure(text, switches, build.parts_of(profile, switches)))
    compile_mpy(source, folder / "mqttpipe.mpy", "-O3", "-s", source.name)
    return folder


@pytest.fixture
def start(interpreter, closing, request):
    def run(script, *arguments, on_event=None, heap=ends.BOARD_HEAP):
        folder = None
        if interpreter.name == ends.BOARD:
            is_mqtt5 = any(isinstance(a, dict) and a.get("protocol") == 5 for a in arguments)
            folder = request.getfixturevalue("mqtt5_folder" if is_mqtt5 else "board_folder")
        scenario = ends.Scenario(interpreter, script, arguments, folder, on_event, heap)
        return closing(scenario, str(scenario), scenario.story)

    return run


@pytest.fixture
def remote(start, broker):
    """A function: options of MQTTClient -> the Scenario, online unless connect=False."""

    def run(connect=True, heap=ends.BOARD_HEAP, **options):
        options.setdefault("uri", broker.uri)
        options.setdefault("reconnect_min_ms", 10)
        options.setdefault("reconnect_max_ms", 50)
        scenario = start("remote.py", options, str(ends.DEADLINE_S), heap=heap)
        if connect:
            scenario.tell("connect")
            scenario.next("online")
        return scenario

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def add_peer(broker, closing, request):
    class Closer:
        def __init__(self, peer):
            self.close = peer.disconnect

    def add(uri=None, **options):
        uri = uri or broker.uri
        if uri.startswith("mqtts:"):
            ca_file = request.getfixturevalue("made").ca.cert_pem_file
            options.setdefault("tls", ssl.create_default_context(cafile=ca_file))
        peer = ends.Peer(uri, **options)
        closing(Closer(peer), "paho", peer.story)
        return peer.connect()

    return add


@pytest.fixture
def peer(add_peer):
    return add_peer()


@contextlib.contextmanager
def broker_of_the_run(broker, **options):
    try:
        another = broker.another(ends.NO_WINDOW, **options)
    except servers.NotOurs as error:
        pytest.skip("needs a broker with settings of its own: %s" % error)
    with another:
        yield another


# For a test that uses it: what it writes meanwhile is told if the test fails.
def broker_with_story(another, request):
    stories = request.node.stash.setdefault(STORIES, [])
    before = len(another.log())
    stories.append(("the broker's log", lambda: ends.tail(another.log()[before:], 40)))
    return another


@pytest.fixture(scope="session")
def wide_broker_of_the_run(broker):
    with broker_of_the_run(broker) as another:
        yield another


@pytest.fixture
def wide_broker(wide_broker_of_the_run, request):
    return broker_with_story(wide_broker_of_the_run, request)


@pytest.fixture(scope="session")
def tls_broker_of_the_run(broker, made):
    with broker_of_the_run(broker, tls=servers.Tls(made.server)) as another:
        yield another


@pytest.fixture
def tls_broker(tls_broker_of_the_run, request):
    return broker_with_story(tls_broker_of_the_run, request)


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
    """A function: (extra_config, files, tls) -> one more broker, running."""

    def add(extra_config="", files=None, tls=None):
        try:
            another = broker.another(extra_config, files, tls)
        except servers.NotOurs as error:
            pytest.skip("needs a broker with settings of its own: %s" % error)
        closing(another, "the other broker's log", lambda: ends.tail(another.log(), 40))
        another.start()
        return another

    return add
