"""Many messages at every QoS, both ways, through a proxy that cuts at random bytes.

In every interpreter. tools/chaos.py has more kinds of faults and goes on for longer.

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

from proxy import random_cuts

SESSIONS = {"persistent session": False, "clean session": True}  # -> clean_session

# The cuts, at a third of POSITION_MAX on average, fall on the first half of the bytes. On a busy
# machine more may pass one way while the other waits for its cut: not always do all of them fit.
MESSAGES = 500
CUTS = 24
POSITION_MAX = 4000


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
    assert books.cuts, "nothing was cut"
