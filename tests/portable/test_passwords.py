"""password may be a function: a token that runs out is made anew for each attempt."""

import board_heap  # noqa: F401
from dns_records import A1, A2, answer
from fakes import CONNACK, ECONNRESET, Bench, has_memory, needs, raises

import mqttpipe


def attempts(password, count, **options):
    """What is sent in each of `count` attempts: b"" where none was."""
    bench = Bench(
        user="dev", password=password, reconnect_min_ms=10, reconnect_max_ms=10, **options
    )
    bench.client.connect()
    sent = []
    for _ in range(count):
        bench.steps()
        connections = bench.network.connections
        sent.append(bench.server.received() if connections else b"")
        if connections and not bench.server.is_closed:
            bench.server.error = ECONNRESET
            bench.steps()
        bench.clock.advance(10)
    return bench, sent


def test_it_is_asked_at_each_attempt():
    made = []

    def password():
        made.append(len(made) + 1)
        return "token-%d" % len(made)

    Bench(user="dev", password=password)
    assert not made, "not before the first attempt"
    _, sent = attempts(password, 3)
    assert [wire[-7:] for wire in sent] == [b"token-1", b"token-2", b"token-3"]
    assert all(wire[-9:-7] == b"\x00\x07" for wire in sent)


def test_bytes_serve_as_text_does():
    _, sent = attempts(lambda: b"\x00\xff", 1)
    assert sent[0][-4:] == b"\x00\x02\x00\xff"


def test_a_function_that_raises_costs_the_attempt_and_nothing_else():
    answers = [ValueError("no clock yet"), MemoryError(), "good"]

    def password():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    bench, sent = attempts(password, 3)
    assert [bool(wire) for wire in sent] == [False, False, True], sent
    told = [event for event in bench.take_events() if event[0] in ("error", "offline")]
    assert any("no clock yet" in str(event[1]) for event in told), told


def test_what_is_no_password_costs_the_attempt():
    for wrong in (5, ["a"], "x" * 65_536 if has_memory(400_000) else None):
        answers = [wrong, "good"]
        bench, sent = attempts(lambda answers=answers: answers.pop(0), 2)
        assert [bool(wire) for wire in sent] == [False, True], type(wrong)
        assert [event for event in bench.take_events() if event[0] in ("error", "offline")]


def test_the_client_goes_online_with_it_and_keeps_what_waits():
    tokens = ["token-2", "token-1"]
    bench = Bench(user="dev", password=lambda: tokens.pop())
    token = bench.client.publish("t", "x", 1)
    bench.client.connect()
    bench.steps()
    assert bench.server.received().endswith(b"token-1")
    bench.exchange(b"\x20\x02\x00\x05")
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    assert bench.server.received().endswith(b"token-2")
    assert b"\x00\x01t" in bench.exchange(CONNACK)
    assert not bench.client.is_done(token) and bench.client.is_online()


def test_a_password_needs_a_user_as_ever():
    """[MQTT-3.1.2-22]"""
    raises(mqttpipe.LocalError, Bench, password=lambda: "x")


def test_no_error_shows_it():
    bench, _ = attempts(lambda: ["secret-token"], 1)
    for event in bench.take_events():
        assert "secret-token" not in str(event), event


def test_it_is_asked_once_an_attempt_however_many_addresses_there_are():
    needs("resolver")
    made = []

    def password():
        made.append("token-%d" % (len(made) + 1))
        return made[-1]

    bench = Bench(uri="mqtt://mq.example", user="dev", password=password, reconnect_min_ms=0)
    bench.network.refused = "192.0.2.7"
    bench.client.connect()
    bench.steps()
    bench.network.lookups[0].answers.append(answer([A1, A2]))
    bench.steps()
    assert len(bench.network.connections) == 2 and len(made) == 1, made
    assert bench.server.received().endswith(b"\x00\x07token-1")


def test_what_it_raises_is_told_in_its_words_and_fails_the_whole_attempt():
    """A ValueError is none of TLS here."""
    needs("resolver")
    for error in (ValueError("no clock yet"), OSError(5), KeyError("x"), mqttpipe.LocalError("y")):

        def password(error=error):
            raise error

        bench = Bench(uri="mqtt://mq.example", user="dev", password=password)
        bench.client.connect()
        bench.steps()
        text = str(bench.error())
        assert "password" in text and type(error).__name__ in text and "TLS" not in text, text
        assert not bench.network.connections and bench.client.state_name == "WAITING"


def test_the_time_that_it_takes_is_none_of_the_attempt():
    def password():
        bench.clock.advance(15_000)  # it asks a server of its own
        return "token"

    bench = Bench(user="dev", password=password, connect_timeout_ms=10_000)
    bench.client.connect()
    bench.steps()
    bench.exchange(CONNACK)
    assert bench.client.is_online(), bench.take_events()


def test_none_is_no_password_of_a_function():
    """It is what a function answers that has forgotten to: CONNECT does not go without one."""
    bench, sent = attempts(lambda: None, 1)
    assert sent == [b""]
    assert "password" in str(bench.error())
