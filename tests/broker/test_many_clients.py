"""pollables() and next_deadline_ms(): a hundred clients in one loop, around one select.poll.

With `--long-threads` it is five hundred. How long it took, and what they cost while idle, is shown
at the end of the run.
"""

import figures
import pytest

CLIENTS = 100
LONG_CLIENTS = 500
MESSAGES = 5


@pytest.fixture(params=["CPython"])  # whose select.poll it is
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


def drive(request, start, broker, topic, clients, deadline_s):
    options = {"uri": broker.uri, "packet_bytes_max": 256, "pipe_slots": 8}
    options["connect_timeout_ms"] = 30_000  # all knock at the same time
    fleet = start("fleet.py", options, topic, str(clients), str(MESSAGES), str(deadline_s))
    (online_ms,) = fleet.next("online", deadline_s)
    received, received_ms = fleet.next("received", deadline_s)
    steps, turns, processor_s = fleet.next("idle", deadline_s)
    fleet.next("bye", deadline_s)
    assert fleet.process.wait(10) == 0, fleet.story()
    assert not fleet.count("offline") and not fleet.count("error"), fleet.story()
    assert received == clients * MESSAGES
    # Nothing is due: the loop sleeps, and no client is stepped but for a timer now and then.
    assert steps < 5 * clients, steps
    who = "%d in one poll" % clients
    figures.add(request.config, who, "ms until all are online", online_ms)
    figures.add(request.config, who, "ms for %d messages, QoS 1" % received, received_ms)
    figures.add(request.config, who, "% of a processor while all are idle", 100 * processor_s)


def test_100_clients_in_one_poll(request, start, wide_broker, topic):
    drive(request, start, wide_broker, topic, CLIENTS, 60)


@pytest.mark.timeout(200)
def test_500_clients_in_one_poll(request, start, wide_broker, topic):
    if not request.config.getoption("--long-threads", default=False):
        pytest.skip("takes some seconds more: --long-threads runs it")
    drive(request, start, wide_broker, topic, LONG_CLIENTS, 150)
