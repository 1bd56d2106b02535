"""Many messages at every QoS, both ways, through a proxy that cuts at random bytes.

With `--long`: 5,000 messages a QoS each way, 220 cuts, and the broker killed and restarted
on the way, its persistence on. A table at the end says what came of it; the short form is in
every run of the tests.

What is promised, and so what is asserted (traffic.Books.check):
- QoS 0: at most once. What is lost is counted and belongs to QoS 0.
- QoS 1: at least once.
- QoS 2: exactly once, in order, with clean_session=False. With clean_session=True the broker
  forgets our half of the handshake with the connection: at least once. (traffic.py says what a
  broker's own repetitions count as.)
- To a client with clean_session=True the broker sends nothing of what came while it was away. The
  test publishes that again, as an application would have to, until all has arrived.

A seed that failed: MQTTPIPE_SEED=12345 python -m pytest tests/broker/test_chaos.py -k ...
"""

import os
import random

import pytest
from ends import NO_WINDOW
from traffic import Books

from proxy import random_cuts

SESSIONS = {"persistent session": False, "clean session": True}  # -> clean_session

# The cuts, at a third of POSITION_MAX on average, fall on the first half of the bytes.
MESSAGES = 500
CUTS = 24
POSITION_MAX = 4000

LONG_MESSAGES = 5000
LONG_CUTS = 220
LONG_POSITION_MAX = 5000
RESTARTS = 3
PERSISTENCE = "persistence true\npersistence_location {data}"


def make_seed():
    seed = int(os.environ.get("MQTTPIPE_SEED") or random.randrange(1 << 30))
    print("seed: %d" % seed)
    return seed


@pytest.mark.parametrize("session", SESSIONS)
def test_chaos(exchange, wide_broker, session):
    books = exchange(
        wide_broker,
        counts_out=[MESSAGES] * 3,
        counts_in=[MESSAGES] * 3,
        cuts=random_cuts(make_seed(), CUTS, POSITION_MAX),
        clean_session=SESSIONS[session],
    )
    books.check(is_session_kept=not SESSIONS[session])
    assert books.cuts == CUTS


@pytest.mark.timeout(400)
@pytest.mark.parametrize("session", SESSIONS)
def test_long_chaos(request, record_property, interpreter, exchange, add_broker, session):
    if not request.config.getoption("--long"):
        pytest.skip("takes minutes: --long runs it")
    books = exchange(
        add_broker(NO_WINDOW + "\n" + PERSISTENCE),
        counts_out=[LONG_MESSAGES] * 3,
        counts_in=[LONG_MESSAGES] * 3,
        cuts=random_cuts(make_seed(), LONG_CUTS, LONG_POSITION_MAX),
        restarts=RESTARTS,
        timeout_s=300,
        clean_session=SESSIONS[session],
    )
    heading = "%-18s  %-18s  %s" % ("interpreter", "session", Books.HEADING)
    rows = ["%-18s  %-18s  %s" % (interpreter.name, session, row) for row in books.rows()]
    for line in [heading, *rows]:
        record_property("long chaos", line)
    books.check(is_session_kept=not SESSIONS[session])
    # A restart ends a connection before its cut.
    assert LONG_CUTS - RESTARTS <= books.cuts <= LONG_CUTS
    assert books.restarts == RESTARTS
