"""Print the changes of state that clients take: in portable tests, and in lives made for it.

    python3 tests/host/state_recorder.py [module of tests/portable ...]

Prints a list of pairs of names, sorted; exit status 1 if a test or a life has failed.
"""

import contextlib
import io
import pathlib
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
for part in ("tests/portable", "tests", "micropython", "cpython_shim"):
    sys.path.insert(0, str(TOP / part))

import mqttpipe  # noqa: E402

TAKEN = set()


class Recorded(mqttpipe.MQTTClient):
    def __setattr__(self, name, value):
        if name == "state":
            TAKEN.add((self.__dict__.get("state", 0), value))
        super().__setattr__(name, value)


mqttpipe.MQTTClient = Recorded

import fake_tls  # noqa: E402, F401
import test_address_families as names  # noqa: E402
from fakes import CONNACK, ECONNRESET, Bench  # noqa: E402

import run_portable  # noqa: E402


def disconnect_in(state, is_broken):
    """disconnect() when the client is first seen in this state; the connection may break then."""
    bench = Bench(
        uri="mqtts://dual.example", ca=b"\x30\x82der", keep_alive_s=0, connect_timeout_ms=1000
    )
    network = bench.network
    client = bench.client
    if state == "WAITING":
        network.refused = "192.0.2.7"
    network.is_silent = state == "TCP_CONNECTING"
    answers = names.Names(bench, {names.A: [names.V4]})
    is_asked = False

    def leave():
        nonlocal is_asked
        if not is_asked and client.state_name == state:
            is_asked = True
            client.disconnect()
            if is_broken:
                for connection in network.connections:
                    connection.error = ECONNRESET

    client.on_connect = lambda client, session_present: leave()
    client.subscribe("a")
    client.connect()
    client.step()
    for _ in range(400):
        leave()
        client.step()
        leave()
        answers.answer()
        if network.connections and client.state_name == "AWAITING_CONNACK":
            bench.server.send(CONNACK)
        if client.state_name == "SUBSCRIBING" and state != "SUBSCRIBING":
            bench.server.send(b"\x90\x03\xff\x01\x00")
        bench.clock.advance(10)
        if is_asked and client.state_name == "DOWN":
            return
    raise AssertionError("%s: it came to %s" % (state, client.state_name))


def no_handshake_with_ipv4():
    """TLS fails with every address of one family: the other one is asked for."""
    bench = Bench(uri="mqtts://dual.example", ca=b"\x30\x82der")
    answers = names.Names(bench, {names.A: [names.V4], names.AAAA: [names.V6]})
    bench.network.tls.error = OSError(-0x7780, "by the test")
    bench.client.connect()
    for _ in range(50):
        bench.client.step()
        answers.answer()
        bench.clock.advance(10)
    assert names.AAAA in answers.asked


def main(modules):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = run_portable.main(str(TOP / "tests" / "portable"), modules) if modules else 0
        for state in mqttpipe.STATE_NAMES[1:-1]:
            for is_broken in (False, True):
                disconnect_in(state, is_broken)
        no_handshake_with_ipv4()
    if status:
        sys.exit(printed.getvalue())
    taken = sorted((old, new) for old, new in TAKEN if old != new)
    print([(mqttpipe.STATE_NAMES[old], mqttpipe.STATE_NAMES[new]) for old, new in taken])


if __name__ == "__main__":
    main(sys.argv[1:])
