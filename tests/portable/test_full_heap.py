"""No memory is left when a connection ends: it ends in good order all the same, and comes back.

That is when memory is short: an attempt has taken what there was, and failed for the want of more.
"""

import board_heap  # noqa: F401
from fakes import CONNACK, ECONNRESET, Bench

import mqttpipe

ENOMEM = 12


class Unspeakable(OSError):
    """An error whose text finds no memory."""

    def __str__(self):
        raise MemoryError


# A client that gets online again after `fail(bench)`, and is told of the end.
def check_that_it_comes_back(fail):
    bench = Bench(reconnect_min_ms=20).go_online()
    fail(bench)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TransportError, error
    assert bench.server.is_closed
    assert bench.client._socket is None and bench.client._poll is None
    bench.clock.advance(60000)
    bench.steps()
    assert len(bench.network.connections) == 2, bench.client.state_name
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_an_error_without_memory_to_tell_it_is_told_in_short():
    def fail(bench):
        bench.server._called = raise_unspeakable

    check_that_it_comes_back(fail)


def raise_unspeakable():
    raise Unspeakable(ECONNRESET)


def test_a_pause_without_memory_to_draw_it_ends_all_the_same():
    """Else the client would wait for ever, with no deadline."""
    for make_error in (MemoryError, no_memory_of_the_system):
        makers = [make_error]
        check_that_it_comes_back(lambda bench, makers=makers: fail_to_draw(bench, makers))


def no_memory_of_the_system(name):
    return OSError(ENOMEM, name)


def fail_to_draw(bench, makers):
    bench.server.error = ECONNRESET

    def urandom(count):
        if makers:
            raise makers.pop()("urandom")
        return bytes(count)

    mqttpipe.urandom = urandom
