"""Every I/O call of a real session fails, one after the other: the client recovers each time.

tests/portable/test_failing_calls.py does the same with fakes, and there every call fails in every
run. Here it is sockets, polls and TLS streams of the system, with a thin wrapper around them
(tests/portable/failing.py), and a DNS server and mosquitto at the other end. In each run it is
another part of the calls; `--long` lets each fail with each error, which takes minutes.
"""

import os
import random

import ends
import pytest
from test_host_names import NameServer, answer

import servers

HOST = "broker.test"
# 127.0.0.2, where nobody listens, and 127.0.0.1; 0 s, so that each session asks.
RECORDS = b"".join(
    b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00" + last
    for last in (b"\x02", b"\x01")
)
SESSIONS_MAX = 5000

# Between the calls that fail, and errors that there are (ERRORS in scenarios/failing_calls.py).
STEP = {"mqtt": 3, "mqtts": 5}
TURNS = 6
DEADLINE_S = 100

# What each session with TLS calls, and those without but for the last three.
NAMES = {
    "getaddrinfo",
    "socket",
    "setblocking",
    "setsockopt",
    "connect",
    "write",
    "recv",
    "close",
    "register",
    "modify",
    "ipoll",
}


@pytest.fixture(params=["CPython", "MicroPython 64-bit", ends.BOARD, ends.ESP32_SOCKETS])
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


def both_addresses(query):
    return answer(query, RECORDS, 2)


@pytest.mark.timeout(TURNS * DEADLINE_S + 60)
@pytest.mark.parametrize("scheme", STEP)
def test_every_call_may_fail(scheme, start, add_broker, made, closing, topic, request):
    own_broker = add_broker(tls=servers.Tls(made.ca.issue(HOST)) if scheme == "mqtts" else None)
    name_server = NameServer([[both_addresses]] * SESSIONS_MAX)
    closing(name_server, "DNS server", lambda: "%d queries" % len(name_server.queries))
    options = {
        "uri": "%s://%s:%d" % (scheme, HOST, own_broker.port),
        "clean_session": False,
        "connect_timeout_ms": 2000,
        "reconnect_min_ms": 1,
        "reconnect_max_ms": 20,
    }
    if scheme == "mqtts":
        options["ca"] = made.ca.cert_pem_file
    is_every = request.config.getoption("--long")
    seed = int(os.environ.get("MQTTPIPE_SEED") or random.randrange(1 << 20))
    print("MQTTPIPE_SEED=%d" % seed)
    step = 1 if is_every else STEP[scheme]
    failed = set()
    for turn in range(TURNS) if is_every else [seed]:
        first = 1 if is_every else 1 + seed % step
        arguments = [name_server.port, topic, first, step, turn, DEADLINE_S]
        scenario = start("failing_calls.py", options, *[str(argument) for argument in arguments])
        assert scenario.next("first", 2 * ends.WAIT_S) == [[]]
        while True:
            number, name, problems = scenario.next("run", 2 * ends.WAIT_S)
            assert not problems, "call %d, %s, turn %d: %s" % (number, name, turn, problems)
            if name is None:
                break
            failed.add(name)
        (sessions,) = scenario.next("over")
        print("turn %d: %d sessions, the last with %d calls" % (turn, sessions, number))
        assert sessions > 10
    if is_every:
        tls_names = {"wrap_tls", "tls write", "tls read", "tls close"}
        assert failed >= NAMES | (tls_names if scheme == "mqtts" else {"read"}), failed
