"""Connections that break late or fall silent, few bytes at a time: what is promised holds.

The client runs as "CPython faulty" (cpython_shim/shim_personality.py): a connection in seven says
ECONNREFUSED when it is first used, one in seven falls silent for ever after some bytes, and on all
of them calls move few bytes or answer None for no reason. A proxy cuts the good ones.

A seed that failed: MQTTPIPE_SEED=12345 python -m pytest tests/broker/test_faulty_links.py
"""

import os
import random

import pytest

from proxy import random_cuts

MESSAGES = 300
CUTS = 40
POSITION_MAX = 3000

pytestmark = pytest.mark.parametrize("interpreter", ["CPython faulty"], indirect=True)


def check(exchange, broker, is_session_kept, **options):
    seed = int(os.environ.get("MQTTPIPE_SEED") or random.randrange(1 << 30))
    print("seed: %d" % seed)
    books = exchange(
        broker,
        counts_out=[MESSAGES] * 3,
        counts_in=[MESSAGES] * 3,
        cuts=random_cuts(seed, CUTS, POSITION_MAX),
        clean_session=not is_session_kept,
        keep_alive_s=1,  # what is silent is found out in little more than that
        connect_timeout_ms=300,
        timeout_s=60,
        **options,
    )
    books.check(is_session_kept)
    # A cut takes a good connection, or none at all when its bytes have not come so far.
    assert books.stats["connections"] > CUTS / 4
    assert books.stats["attempts"] > books.stats["connections"], "some were no good"


@pytest.mark.parametrize("session", ["persistent session", "clean session"])
def test_nothing_is_lost_over_faulty_links(exchange, wide_broker, session):
    check(exchange, wide_broker, session == "persistent session")


def test_nothing_is_lost_over_faulty_links_with_tls(exchange, tls_broker, made):
    check(exchange, tls_broker, True, ca=made.ca.cert_pem_file)
