"""Host names on the emulated board, against a DNS server that does what a test says."""

import pytest
from test_lwip_traffic import STEP_US_MAX

from dns_server import NameServer, answer, failure, no_such_name
from emulated_board import HOST

# 60 s of the address that this machine has for the board.
A_RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + bytes(map(int, HOST.split(".")))

LINK = """
class Link:
    def is_up(self): return True
    def dns_servers(self): return %r
"""
SILENT = ()

OPTIONS = {"reconnect_min_ms": 60_000, "connect_timeout_ms": 60_000}


def right(query):
    return answer(query, A_RECORD, 1)


@pytest.fixture
def name_server():
    """name_server(script): a DNS server; its script is a list of answers for each query."""
    servers = []

    def make(*script):
        servers.append(NameServer(script))
        return servers[-1]

    yield make
    for server in servers:
        print(server.story())
        server.close()


@pytest.fixture
def start_look_up(start_client, broker):
    """start_look_up(servers): a board whose client begins to look for the broker by its name."""

    def start(servers, clock="steady", profile="full", **options):
        board = start_client("mqtt://unused", clock=clock, profile=profile)
        addresses = [(HOST, server.port) for server in servers]
        board.run(LINK % addresses)
        arguments = {**OPTIONS, **options}
        uri = "mqtt://broker.test:%d" % broker.port
        board.run("client = MQTTClient(%r, link=Link(), **%r)" % (uri, arguments))
        board.run("watch = Watch(client)\nclient.connect()")
        return board

    return start


@pytest.fixture
def look_up(start_look_up):
    """look_up(servers): the events of a client that has looked for the broker by its name."""

    def run(servers, ms=20_000, **options):
        board = start_look_up(servers, **options)
        done = "lambda: bool(watch.events)"
        board.run("watch.run(%d, %s)" % (ms, done), timeout_s=100)
        events, longest = board.evaluate("watch.story()")
        print("longest step: %d us in %s -> %s" % longest)
        assert longest[0] <= STEP_US_MAX, longest
        assert "lwip" not in board.output().lower(), "modlwip complains of what it was asked"
        return events

    return run


@pytest.mark.parametrize("profile", ["standard", "full"])
def test_the_broker_is_found_by_its_name(look_up, name_server, profile):
    server = name_server([right])
    assert look_up([server], profile=profile) == [("online",)]
    assert len(server.queries) == 1


def test_a_query_that_is_lost_is_sent_again(look_up, name_server):
    server = name_server(SILENT, [right])
    assert look_up([server]) == [("online",)]
    assert len(server.queries) == 2 and server.queries[0][:2] != server.queries[1][:2]


def test_the_second_server_is_asked_if_the_first_is_silent_or_fails(look_up, name_server):
    for script in ([SILENT], [[failure]]):
        first, second = name_server(*script), name_server([right])
        assert look_up([first, second]) == [("online",)], script
        assert len(first.queries) == len(second.queries) == 1


def test_servers_that_are_silent_end_in_timed_out(look_up, name_server):
    server = name_server()
    events = look_up([server], ms=60_000, clock="jump")
    assert [event[:3] for event in events] == [("offline", "TimedOut", "DNS")]


def test_a_name_that_nobody_has_is_told_at_once(look_up, name_server):
    events = look_up([name_server([no_such_name], [no_such_name])])
    assert [event[:3] for event in events] == [("offline", "TransportError", "DNS")]
    assert "broker.test" in events[0][3]


# An address that is good for this moment only: each attempt asks again.
PASSING_RECORD = A_RECORD[:6] + bytes(4) + A_RECORD[10:]


def passing(query):
    return answer(query, PASSING_RECORD, 1)


def test_no_step_waits_for_all_queries_to_fail_without_a_cable(start_look_up, name_server):
    """lwIP knows at once that it can't send: queries, and the address that was good before."""
    board = start_look_up([name_server([passing])], reconnect_min_ms=100, reconnect_max_ms=100)
    assert board.evaluate("watch.run(20_000, client.is_online)") is True
    board.pull_cable()
    board.run("while lan.status(): time.sleep_ms(2)")
    board.run("client.disconnect()\nwatch.run(1_000)\nwatch = Watch(client)\nclient.connect()")
    events, longest = board.evaluate("watch.run(2_000), watch.story()")[1]
    print("longest step: %d us in %s -> %s" % longest)
    failed = [event[:3] for event in events]
    assert len(failed) >= 5 and set(failed) == {("offline", "TransportError", "TCP")}, events
    assert longest[0] <= STEP_US_MAX, longest


# A DNS server on the board itself: lwIP's own resolver, which `tiny` has to take, asks port 53. It
# answers from a timer's callback, as a look-up by getaddrinfo() blocks the program.
OWN_SERVER = """
import socket, machine
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setblocking(False)
server.bind(("0.0.0.0", 53))
asked = []
def serve(timer):
    try:
        query, who = server.recvfrom(512)
    except OSError:
        return
    asked.append(query)
    server.sendto(query[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + query[12:] + %r, who)
timer = machine.Timer(period=20, callback=serve)
lan.ifconfig(lan.ifconfig()[:3] + ("127.0.0.1",))
"""


def test_the_smallest_profile_finds_the_broker_with_lwip_s_own_resolver(start_client, broker):
    board = start_client("mqtt://broker.test:%d" % broker.port, profile="tiny")
    board.run(OWN_SERVER % A_RECORD)
    board.run("client.connect()")
    assert board.evaluate("watch.run(20_000, client.is_online)") is True
    assert board.evaluate("len(asked)") == 1
    assert board.evaluate("watch.events") == [("online",)]
