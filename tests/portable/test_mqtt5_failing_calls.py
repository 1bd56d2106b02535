"""With MQTT 5.0, as test_failing_calls.py: every I/O call fails, one after the other."""

import test_failing_calls as calls
from fakes import needs
from model_server_5 import Server5
from mqtt5 import CONNACK, online

import mqttpipe


def fail_every_call(*arguments):
    needs("mqtt5")
    options = {"protocol": 5, "session_expiry_s": 3600, "make_server": Server5}
    calls.fail_every_call(*arguments, **options)


def test_every_call_may_say_that_the_connection_was_reset():
    fail_every_call([calls.connection_reset])


def test_every_call_that_allocates_may_find_no_memory():
    fail_every_call([MemoryError], calls.FREE_CALLS, [False])


def test_a_reason_for_leaving_may_not_leave():
    """DISCONNECT to a server that breaks the protocol is written once, with no poll before it."""
    for outcome in (0, 1, None, calls.connection_reset, MemoryError, calls.would_block):
        check_bad_packet(outcome)


def check_bad_packet(outcome):
    bench = online(reconnect_min_ms=20)
    asked = []

    def write(buf, offset=0, size=None):
        asked.append(bytes(buf))
        if callable(outcome):
            raise outcome("write")
        return outcome

    bench.client._write = write
    bench.server.send(b"\x20\x03\x00\x00\x00")  # a second CONNACK
    bench.steps()
    assert bench.server.is_closed and asked == [b"\xe0\x01\x82"], (outcome, asked)
    assert type(bench.error()) is mqttpipe.ServerError
    bench.clock.advance(60_000)
    bench.steps()
    bench.exchange(CONNACK)
    assert bench.client.is_online()
