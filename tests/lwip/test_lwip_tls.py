"""TLS on the emulated board: mbedTLS as MicroPython's boards have it, over lwIP."""

import contextlib
import re
import types

import pytest
from test_lwip_traffic import run_echo

import certificates
import deploy
import servers
from emulated_board import HOST

OPTIONS = {"reconnect_min_ms": 60_000, "connect_timeout_ms": 30_000}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def add_broker(broker):
    """add_broker(pair): a broker that shows this certificate."""
    with contextlib.ExitStack() as stack:

        def add(pair):
            try:
                return stack.enter_context(broker.another(tls=servers.Tls(pair)))
            except servers.NotOurs as error:
                pytest.skip(str(error))

        yield add


@pytest.fixture(scope="module")
def tls_broker(add_broker, made):
    return add_broker(made.ca.issue("localhost", HOST))


def uri_of(broker):
    return "mqtts://%s:%d" % (HOST, broker.port)


@pytest.mark.parametrize("profile", ["standard", "full"])
def test_a_server_is_verified_and_messages_go_both_ways(
    start_client, tls_broker, made, topic, profile
):
    board = start_client(uri_of(tls_broker), profile=profile, ca=made.ca.cert_der, **OPTIONS)
    sizes = (6, 200, 900)
    board.run("echo = Echo(client, %r, 60, sizes=%r)\nclient.connect()" % (topic, sizes))
    # How long cryptography takes is not for the client to say.
    events, _, _ = run_echo(board, 90_000)
    assert events == [("online",)]


@pytest.mark.parametrize("what", ["a stranger's", "of another name"])
def test_a_certificate_that_can_not_be_verified_gets_nothing(start_client, add_broker, made, what):
    authority = made.other_ca if what == "a stranger's" else made.ca
    pair = authority.issue("elsewhere.test" if what == "of another name" else HOST)
    broker = add_broker(pair)
    board = start_client(uri_of(broker), ca=made.ca.cert_der, **OPTIONS)
    log_begin = len(broker.log())
    board.run("client.connect()\nwatch.run(60_000, lambda: bool(watch.events))", 100)
    events = board.evaluate("watch.events")
    assert [event[:3] for event in events] == [("offline", "TransportError", "TLS")], events
    assert "New client connected" not in broker.log()[log_begin:]


def test_what_a_board_loads_leaves_the_library_room_in_one_piece(board):
    """It needs 17 KB in one piece twice, and found them on one start and not on another."""
    facts = types.SimpleNamespace(kind="rp2_pico_w", mpy_version=6)
    for name, data in deploy.build_files(facts, "standard", False).items():
        board.put("/" + name, data)
    before = board.evaluate("__import__('gc').threshold()")
    board.run("import service")
    assert board.evaluate("__import__('gc').threshold()") == before
    printed = board.run("import gc, micropython\ngc.collect()\nmicropython.mem_info()")
    blocks = int(re.search(r"max free sz: (\d+)", printed)[1])
    free = int(re.search(r"free: (\d+)", printed)[1])
    assert 16 * blocks > 0.75 * free, printed
