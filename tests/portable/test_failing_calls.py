"""Every I/O call fails, one after the other: the client recovers, and everything arrives.

A full session (model_server.Play: a name looked up, an address that refuses and one that does
not, subscriptions, messages at every QoS both ways, a ping, unsubscribe, disconnect) is played
again and again, and each time the next call fails: on sockets, TLS streams, polls and in the
modules. There is no list of calls that matter: the plays end when the n-th call is never made.

No error leaves step(), each socket is closed once, nothing stays open, and no poll is used any
more whose socket is closed, or whose register() has failed.
"""

import board_heap  # noqa: F401
import failing
from failing import NAMES
from fakes import ECONNRESET, needs
from model_server import Play

import mqttpipe

ENOMEM = 12

REFUSED = "192.0.2.9"
# Two A records for the name asked, 60 s: the first one is REFUSED.
RECORDS = b"".join(
    b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02" + last
    for last in (b"\x09", b"\x01")
)


def answer_lookups(play):
    for lookup in play.bench.network.lookups:
        query = lookup.query
        if query and not lookup.is_closed:
            head = query[:2] + b"\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00"
            lookup.answers.append(head + query[12:] + RECORDS)
            lookup.query = b""


# A play in which call number `fail_at` raises make_error(its name); 0: none does.
def play_with(is_tls, fail_at, make_error, options, numbers=None):
    plan = failing.Plan()
    play = Play(
        is_tls,
        uri="mqtts://h" if is_tls else "mqtt://h",
        prepare=lambda: failing.install(plan),
        **options,
    )
    play.calls_max = 100  # several connections may be begun in one step
    play.timeout_ms = 1  # the poll is part of it
    play.bench.network.refused = REFUSED
    play.on_sent = lambda: answer_lookups(play)
    plan.arm(fail_at, make_error)
    plan.numbers = numbers
    play.run()
    case = (is_tls, fail_at, plan.failed, make_error)
    play.check(case)
    assert not plan.faults, (case, plan.faults)
    assert bool(plan.failed) == (fail_at > 0), case


TLS_CALLS = ("wrap_tls", "tls read", "tls write", "tls close", "handshake")
FREE_CALLS = ("close", "tls close")  # nothing is allocated for them on any port


# Each call of a play fails, if its name is not among those `without`. With several errors the
# calls of one name raise them in turn; if there are too few of them, the first has the rest.
# (makers: of errors; an error that is raised again and again keeps all that it has seen. options:
# of the Play.)
def fail_every_call(makers, without=(), transports=(False, True), **options):
    needs("resolver")
    for is_tls in transports:
        numbers = bytearray()
        play_with(is_tls, 0, None, options, numbers)
        for number in range(len(NAMES)):
            name = NAMES[number]
            times = 0
            first = numbers.find(bytes((number,)))
            assert (first >= 0) == (is_tls or name not in TLS_CALLS), name
            if name in without or first < 0:
                continue
            for at in range(first, len(numbers)):
                if numbers[at] == number:
                    play_with(is_tls, at + 1, makers[times % len(makers)], options)
                    times += 1
            for make_error in makers[times:]:
                play_with(is_tls, first + 1, make_error, options)


def connection_reset(name):
    return OSError(ECONNRESET, "by the test")


def no_memory_of_the_system(name):
    return OSError(ENOMEM, "by the test")


def would_block(name):
    return OSError(mqttpipe.EAGAIN, "where None is the answer")


def unknown_number(name):
    return OSError(-0x7F00, "as of TLS libraries, and of getaddrinfo() on boards")


def no_number(name):
    return OSError("[addrinfo error -2]")  # as of the unix port's getaddrinfo()


def bad_certificate(name):
    return ValueError("by the test")


def test_every_call_may_say_that_the_connection_was_reset():
    fail_every_call([connection_reset])


def test_every_call_that_allocates_may_find_no_memory():
    fail_every_call([MemoryError], FREE_CALLS)


def test_every_call_may_raise_what_is_less_common():
    fail_every_call([no_memory_of_the_system, would_block, unknown_number, no_number], (), [True])


def test_every_call_of_tls_may_refuse_a_certificate():
    """Ports raise ValueError then, from reading and writing as well."""
    names = ("wrap_tls", "tls read", "tls write")
    fail_every_call([bad_certificate], [name for name in NAMES if name not in names], [True])
