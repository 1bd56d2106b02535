"""The server stalls or breaks, at every byte that it sends or takes: the client notices, in time.

A full session (model_server.Play) is played again and again, and each time the server fails one
byte later: it falls silent, closes (FIN) or is gone (RST), or takes nothing more. For each it is
asserted that

- on_offline is told once, with the right class and stage; TimedOut comes at its deadline, to the
  millisecond. The deadline is not taken from the client: the server knows what it owes, and since
  when;
- no step(0) makes more than CALLS_MAX calls on sockets, sleeps, or polls;
- the socket is closed, once, and nothing stays registered;
- when the fault has ended the client is back, and everything arrives: QoS 1 at least once, QoS 2
  once.
"""

import board_heap  # noqa: F401
from fakes import ECONNRESET
from model_server import KEEP_ALIVE_S, PINGRESP, TIMEOUT_MS, Play

import mqttpipe

TRANSPORTS = (False, True)  # is_tls
BYTES_MAX = 400  # above what the server sends in a play


# When the client must lose patience with a server that has just fallen silent, if it does
# nothing else meanwhile, and the stages that it may name: more than one if two deadlines are one.
def expected_end(play):
    server = play.server
    if play.client.state_name == "AWAITING_CONNACK":
        return play.begin_ms + TIMEOUT_MS, ["CONNACK"]
    if play.client.state_name == "SUBSCRIBING":
        return server.heard_ms + TIMEOUT_MS, ["SUBACK"]
    since = [(ms, "PINGRESP" if key[0] == PINGRESP else "ACK") for key, ms in server.owed.items()]
    if server.is_partial:
        since.append((server.sent_ms, "PACKET"))
    if not since:
        return None, []
    first_ms = min(since)[0]
    return first_ms + TIMEOUT_MS, [stage for ms, stage in since if ms == first_ms]


# The server is silent from now on. Goes to the deadline, and looks at what happens there.
def sit_out(play, case):
    end_ms, stages = expected_end(play)
    if end_ms is None:  # it owes nothing: a PINGREQ asks it
        play.go_to(play.server.heard_ms + KEEP_ALIVE_S * 1000 - 1, case)
        assert not play.server.owed, case
        play.go_to(play.clock.now_ms + 1, case)
        end_ms, stages = expected_end(play)
        assert stages == ["PINGRESP"], (case, "no PINGREQ came")
    sockets = len(play.bench.network.connections)
    play.go_to(end_ms - 1, case)
    play.clock.advance(1)
    play.steps()
    (error,) = play.errors
    assert type(error) is mqttpipe.TimedOut and error.stage in stages, (case, error, stages)
    assert play.bench.network.connections[sockets - 1].is_closed, case


# The same, but the client sleeps in step(): it must wake when the time has come, by itself.
def sleep_out(play, case):
    end_ms, stages = expected_end(play)
    ping_ms = play.server.heard_ms + KEEP_ALIVE_S * 1000
    play.timeout_ms = 100000
    while not play.errors:
        before_ms = play.clock.now_ms
        play.client.step(play.timeout_ms)
        play.server.look()
        assert play.clock.now_ms - before_ms < 100000, (case, "overslept")
        if end_ms is None and play.server.owed:
            assert play.clock.now_ms == ping_ms, case
            end_ms, stages = expected_end(play)
    (error,) = play.errors
    assert play.clock.now_ms == end_ms, (case, play.clock.now_ms - end_ms, "ms late")
    assert type(error) is mqttpipe.TimedOut and error.stage in stages, (case, error, stages)
    play.timeout_ms = 0
    play.bench.select.slept.clear()


# Play until the limit is reached in no play any more; fault(play, case) is called when it is, once
# the client has seen all that was sent, or (is_at_once) before it has seen the last of it.
def after_every_byte(is_tls, fault, is_at_once=False):
    for count in range(BYTES_MAX):
        if not after_byte(count, is_tls, fault, is_at_once):
            assert count > 60, count
            return
    raise AssertionError("the server sends more than %d bytes" % BYTES_MAX)


# One of these plays. False: so many bytes were never sent, there was no fault.
def after_byte(count, is_tls, fault, is_at_once):
    play = Play(is_tls)
    play.server.limit = count
    case = (is_tls, count)

    def look():
        if play.server.limit == 0 and play.server.connection:
            fault(play, case)
            play.server.limit = None  # that was the fault: the next connection is good

    if is_at_once:
        play.on_sent = look
    play.run(None if is_at_once else look)
    play.check(case)
    is_reached = play.server.limit is None
    assert len(play.errors) == 1 + is_reached and play.errors[-1] is None, (case, play.errors)
    return is_reached


def test_silence_after_every_byte_ends_at_its_deadline():
    after_every_byte(False, sit_out)


def test_silence_after_every_byte_under_tls_ends_at_its_deadline():
    after_every_byte(True, sit_out)


def test_a_client_that_sleeps_wakes_at_the_deadline_of_every_silence():
    after_every_byte(False, sleep_out)


# The ways in which a connection ends without the client's doing.
def close(connection):
    connection.is_ended = True


def reset(connection):
    connection.error = ECONNRESET


STAGES = {"AWAITING_CONNACK": "CONNACK", "SUBSCRIBING": "SUBACK", "ONLINE": "ONLINE"}


# The connection ends when all has been seen.
def end_quietly(end):
    def fault(play, case):
        stage = STAGES[play.client.state_name]
        end(play.server.connection)
        play.steps()
        check_ended(play, case, stage)

    return fault


def check_ended(play, case, stage):
    (error,) = play.errors
    assert type(error) is mqttpipe.TransportError and error.stage == stage, (case, error, stage)
    assert error.errno == play.server.connection.error, (case, error)
    assert play.server.connection.is_closed, case


# It ends together with its last bytes, which a reset destroys. What came before an orderly end
# counts: after CONNACK it is SUBACK that is missing.
def end_at_once(end):
    def fault(play, case):
        stage = STAGES[play.client.state_name]
        end(play.server.connection)
        if play.server.connection.is_ended and play.server.sent_count >= 4 and stage == "CONNACK":
            stage = "SUBACK"
        play.steps()
        check_ended(play, case, stage)

    return fault


def test_an_orderly_end_after_every_byte_is_told():
    for is_tls in TRANSPORTS:
        after_every_byte(is_tls, end_quietly(close))


def test_a_reset_after_every_byte_is_told():
    for is_tls in TRANSPORTS:
        after_every_byte(is_tls, end_quietly(reset))


def test_an_orderly_end_together_with_the_last_byte_is_told():
    for is_tls in TRANSPORTS:
        after_every_byte(is_tls, end_at_once(close), True)


def test_a_reset_that_destroys_the_last_bytes_is_told():
    for is_tls in TRANSPORTS:
        after_every_byte(is_tls, end_at_once(reset), True)
