"""The server stalls or breaks before there is a connection, or works and leaves one thing undone.

A connection that never stands or is refused, a handshake that stops at any flight, a packet that
is never acknowledged, a server that reads no more at any byte, sockets that give and take few
bytes at a time. What is asserted is said in test_stalls.py, which has the rest.
"""

import board_heap  # noqa: F401
from fakes import ECONNREFUSED, ECONNRESET
from model_server import (
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    SUBACK,
    TIMEOUT_MS,
    TURN_MS,
    UNSUBACK,
    Play,
)

import mqttpipe

TRANSPORTS = (False, True)  # is_tls
FLIGHTS = 5


# ---------------------------------------------------------------------------
# Before there is a connection
# ---------------------------------------------------------------------------


# Play with a fault on the way to the connection; `repair` ends it. The play up to then is short.
def play_from(play, repair, end_ms, stage, case):
    play.turn()
    if end_ms is not None:
        play.go_to(end_ms - 1, case)
        play.clock.advance(1)
        play.steps()
    (error,) = play.errors
    kind = mqttpipe.TransportError if end_ms is None else mqttpipe.TimedOut
    assert type(error) is kind and error.stage == stage, (case, error)
    assert play.bench.server.is_closed, case
    repair()
    play.run()
    play.check(case)
    assert len(play.errors) == 2, (case, play.errors)
    return error


def test_a_connection_that_never_stands_ends_at_its_deadline():
    for is_tls in TRANSPORTS:
        play = Play(is_tls)
        network = play.bench.network
        network.is_silent = True

        def repair(network=network):
            network.is_silent = False

        play_from(play, repair, play.begin_ms + TIMEOUT_MS, "TCP", is_tls)


def test_a_connection_that_is_refused_at_once_is_told_so():
    for is_tls in TRANSPORTS:
        play = Play(is_tls)
        network = play.bench.network
        network.connect_error = ECONNREFUSED

        def repair(network=network):
            network.connect_error = 0

        error = play_from(play, repair, None, "TCP", is_tls)
        assert error.errno == ECONNREFUSED, (is_tls, error)


def test_a_connection_that_is_refused_later_is_told_so():
    for is_tls in TRANSPORTS:
        play = Play(is_tls)
        network = play.bench.network
        network.is_silent = True
        play.turn()
        play.clock.advance(TIMEOUT_MS - 1)
        play.steps()
        assert not play.errors, play.errors
        play.bench.server.error = ECONNREFUSED

        def repair(network=network):
            network.is_silent = False

        error = play_from(play, repair, None, "TCP", is_tls)
        assert error.errno == ECONNREFUSED, (is_tls, error)


# A play whose handshake goes on no more when `left` of its flights are left.
def play_to_flight(left):
    play = Play(True)
    tls = play.bench.network.tls
    tls.flights = FLIGHTS
    tls.stuck_at = left
    for _ in range(FLIGHTS):
        play.turn()
    assert play.client.state_name == "TLS_HANDSHAKE" and tls.streams[0].flights == left, left

    def repair():
        tls.stuck_at = None

    return play, repair


def test_silence_at_every_flight_of_the_handshake_ends_at_its_deadline():
    for left in range(1, FLIGHTS + 1):
        play, repair = play_to_flight(left)
        play_from(play, repair, play.begin_ms + TIMEOUT_MS, "TLS", left)


def test_an_end_at_every_flight_of_the_handshake_is_told():
    for left in range(1, FLIGHTS + 1):
        for errno in (-0x7280, ECONNRESET):
            play, repair = play_to_flight(left)
            if errno == ECONNRESET:
                play.bench.server.error = errno
            else:
                play.bench.server.is_ended = True
            error = play_from(play, repair, None, "TLS", left)
            assert error.errno == errno, (left, error)


# ---------------------------------------------------------------------------
# A server that works, and leaves one thing undone
# ---------------------------------------------------------------------------


def test_what_is_never_acknowledged_ends_at_its_deadline_whatever_else_comes():
    """The server goes on sending messages."""
    for is_tls in TRANSPORTS:
        for kind in (SUBACK, PUBACK, PUBREC, PUBCOMP, UNSUBACK, PINGRESP):
            never_acknowledge(kind, is_tls)


def never_acknowledge(kind, is_tls):
    play = Play(is_tls)
    play.server.mute = (kind,)
    since = []

    def look():
        if play.errors and play.server.mute:
            (error,) = play.errors
            assert play.clock.now_ms == since[0] + TIMEOUT_MS, (kind, error)
            stage = {PINGRESP: "PINGRESP", SUBACK: "SUBACK"}.get(kind, "ACK")
            assert type(error) is mqttpipe.TimedOut and error.stage == stage, (kind, error)
            play.server.mute = ()
        elif play.server.mute:
            for (owed, _), ms in play.server.owed.items():
                if owed == kind and not since:
                    since.append(ms)
            if play.client.state_name == "ONLINE":
                play.server.publish(0, b"noise")

    play.run(look)
    assert since, kind
    assert kind == SUBACK or play.noise_count > TIMEOUT_MS // TURN_MS - 2, kind
    play.check((is_tls, kind))


# The first connection takes `credit` bytes, and then no more.
def limit_first(play, credit):
    network = play.bench.network
    make = network.socket

    def socket(*arguments):
        connection = make(*arguments)
        if len(network.connections) == 1:
            connection.write_credit = credit
        return connection

    network.socket = socket


def test_a_server_that_takes_no_more_at_any_byte_is_left_at_the_deadline():
    for is_tls in TRANSPORTS:
        seen = set()  # states
        credit = 0
        while take_no_more_after(credit, is_tls, seen):
            credit += 1
        assert credit > 90, credit
        first = "TLS_HANDSHAKE" if is_tls else "TCP_CONNECTING"
        expected = {first, "AWAITING_CONNACK", "SUBSCRIBING", "ONLINE", "CLOSING"}
        assert seen == expected, seen


# False: the client has never offered that many bytes.
def take_no_more_after(credit, is_tls, seen):
    play = Play(is_tls)
    limit_first(play, credit)

    def look():
        first = play.bench.network.connections[0]
        if not play.errors and first.is_blocked:
            seen.add(play.client.state_name)
            expect_end_of_writing(play, (is_tls, credit))
            assert first.is_closed, credit

    play.run(look)
    play.check((is_tls, credit))
    return play.bench.network.connections[0].is_blocked


# The client has been blocked since this turn.
def expect_end_of_writing(play, case):
    state = play.client.state_name
    end_ms = play.clock.now_ms + TIMEOUT_MS
    stages = ["WRITE", "ACK", "PINGRESP"]
    if state in ("TCP_CONNECTING", "TLS_HANDSHAKE", "AWAITING_CONNACK"):
        end_ms = play.begin_ms + TIMEOUT_MS
        stages = [{"TCP_CONNECTING": "TCP", "TLS_HANDSHAKE": "TLS"}.get(state, "CONNACK")]
    elif state == "SUBSCRIBING":  # of two SUBSCRIBEs one may have left: it has the same deadline
        stages = ["WRITE", "SUBACK"] if play.server.owed else ["WRITE"]
    play.go_to(end_ms - 1, case)
    play.clock.advance(1)
    play.steps()
    (error,) = play.errors
    if state == "CLOSING":  # nobody waits for DISCONNECT: that is the end that was asked for
        assert error is None, (case, error)
        return
    assert type(error) is mqttpipe.TimedOut and error.stage in stages, (case, error, stages)


def test_reads_and_writes_of_every_size_change_nothing():
    for is_tls in TRANSPORTS:
        for size in range(1, 26):  # the largest packet of a play has 17 bytes
            move_at_most(size, "read_max", is_tls)
            move_at_most(size, "write_max", is_tls)


def move_at_most(size, name, is_tls):
    play = Play(is_tls)
    network = play.bench.network
    make = network.socket

    def socket(*arguments):
        connection = make(*arguments)
        setattr(connection, name, size)
        return connection

    network.socket = socket
    if name == "read_max":
        # It reads what has come, piece by piece: of the head, of the longest body and the next
        # head. Then a read that finds nothing, and a write.
        play.calls_max = -(-2 // size) + -(-17 // size) + 2
    play.run()
    play.check((is_tls, name, size))
    assert play.errors == [None], (is_tls, name, size, play.errors)
