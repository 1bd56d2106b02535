"""pollables() and next_deadline_ms(): five hundred clients in one loop, around one select.poll.

How long it took, and what they cost while idle, is shown at the end of the run.
"""

import pytest

CLIENTS = 500
DEADLINE_S = 100
MESSAGES = 5


@pytest.fixture(params=["CPython"])  # whose select.poll it is
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


def test_500_clients_in_one_poll(record_property, start, wide_broker, topic):
    options = {"uri": wide_broker.uri, "packet_bytes_max": 256, "pipe_slots": 8}
    options["connect_timeout_ms"] = 30_000  # all knock at the same time
    fleet = start("fleet.py", options, topic, str(CLIENTS), str(MESSAGES), str(DEADLINE_S))
    (online_ms,) = fleet.next("online", DEADLINE_S)
    received, received_ms = fleet.next("received", DEADLINE_S)
    steps, turns, processor_s = fleet.next("idle", DEADLINE_S)
    fleet.next("bye", DEADLINE_S)
    assert fleet.process.wait(10) == 0, fleet.story()
    assert not fleet.count("offline") and not fleet.count("error"), fleet.story()
    assert received == CLIENTS * MESSAGES
    # Nothing is due: the loop sleeps, and no client is stepped but for a timer now and then.
    assert steps < 5 * CLIENTS, steps
    who = "%d in one poll" % CLIENTS
    record_property("figure", (who, "ms until all are online", online_ms))
    record_property("figure", (who, "ms for %d messages, QoS 1" % received, received_ms))
    share = "%.2f" % (100 * processor_s)
    record_property("figure", (who, "% of a processor while all are idle", share))
