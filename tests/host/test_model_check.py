"""The client and a model of a server, in lives that hypothesis makes (tests/model_check.py)."""

import functools
import gc
import os
import random

import fakes
import pytest

import model_check
import mqttpipe

LIVES = 200
LONG_LIVES = 100_000
LIVES_OF_A_FAULT = 400  # by then it is noticed in two of three seeds,
SEEDS_OF_A_FAULT = 10  # and by then in one


def without_receive_maximum(client):
    obey(client)
    client._flying_max = client.in_flight_max


def without_packet_bytes_max(client):
    obey(client)
    client._pipe.packet_bytes_max = client._packet_bytes_max


def without_pingresp_deadline(client, timer, timeout_ms):
    if timer != mqttpipe._TIMER_PINGRESP:
        arm(client, timer, timeout_ms)


# Those of QoS 1 on their way, every second one: (index, token).
def second_flying(pipe):
    for at in range(pipe.size):
        if pipe.firsts[at] & mqttpipe._FLYING and pipe.firsts[at] & 2 and pipe.tokens[at] % 2:
            yield at, pipe.tokens[at]


def telling_when_written(client):
    leaving = leave(client)
    leaving.send(None)
    while True:
        is_all = yield
        leaving.send(is_all)
        for at, token in second_flying(client._pipe) if is_all else ():
            client._pipe.free(at)
            client._flying -= 1
            client.on_published(client, token)


def losing_rewind(pipe):
    for at, _ in second_flying(pipe):
        pipe.free(at)
    rewind(pipe)


def subscribe_twice(client, topic_filter, callback=None, *arguments):
    def call(client, message):
        for _ in range(2 if message.qos == 1 else 1):
            callback(client, message)

    return subscribe(client, topic_filter, callback and call, *arguments)


def sending_what_has_expired(pipe, now_ms):
    """QoS 1 and 2: it is told as dropped, once, and leaves all the same."""
    told = pipe.__dict__.setdefault("told", {0})

    def free(at):
        token = mqttpipe.Pipe.free(pipe, at)
        return 0 if token in told else token

    def give_up(at):
        (free if pipe.tokens[at] in told else functools.partial(mqttpipe.Pipe.give_up, pipe))(at)

    pipe.free, pipe.give_up = free, give_up
    pipe.find = lambda token: -1 if token in told else mqttpipe.Pipe.find(pipe, token)
    at = pipe.sent
    while at != pipe.tail:
        first = pipe.firsts[at]
        is_waiting = first & mqttpipe._EXPIRES and first & 6 and not first & mqttpipe._SENT
        if is_waiting and mqttpipe._left_of(pipe.extras[at], now_ms) <= 0:
            pipe.firsts[at] &= ~mqttpipe._EXPIRES
            pipe.dropped.append(pipe.tokens[at])
            told.add(pipe.tokens[at])
        at = pipe.after[at]
    drop_expired(pipe, now_ms)  # the others


obey = mqttpipe.MQTTClient._on_connack_5
arm = mqttpipe.MQTTClient._arm
leave = mqttpipe.MQTTClient._leaving
subscribe = mqttpipe.MQTTClient.subscribe
rewind = mqttpipe.Pipe.rewind
drop_expired = mqttpipe.Pipe.drop_expired

# Faults: where, the name, what is there; and a seed that notices it soon.
FAULTS = {
    "what is sent again has no DUP": (mqttpipe, "_DUP", 0, 3),
    "the clock must not wrap": (fakes.Clock, "ticks_diff", lambda self, a, b: a - b, 1),
    "every filter matches": (mqttpipe, "topic_matches", lambda *arguments: True, 4),
    "no acknowledgement has a deadline": (
        mqttpipe.MQTTClient,
        "_allow",
        lambda *arguments: None,
        10,
    ),
    "PINGRESP has no deadline": (
        mqttpipe.MQTTClient,
        "_arm",
        without_pingresp_deadline,
        2,
    ),
    "QoS 1 is published when it is written": (
        mqttpipe.MQTTClient,
        "_leaving",
        telling_when_written,
        1,
    ),
    "QoS 1 on its way is lost with the connection": (mqttpipe.Pipe, "rewind", losing_rewind, 6),
    "what has expired is sent": (mqttpipe.Pipe, "drop_expired", sending_what_has_expired, 12),
    "QoS 1 calls a callback twice": (mqttpipe.MQTTClient, "subscribe", subscribe_twice, 1),
}

FAULTS_5 = {
    "its receive maximum is not obeyed": (
        mqttpipe.MQTTClient,
        "_on_connack_5",
        without_receive_maximum,
        1,
    ),
    "its maximum packet size is not obeyed": (
        mqttpipe.MQTTClient,
        "_on_connack_5",
        without_packet_bytes_max,
        11,
    ),
    "what it refuses is passed over": (mqttpipe.MQTTClient, "_on_failed", lambda *a: 0, 1),
    "an expiry is not sent": (mqttpipe, "_EXPIRES", 0, 1),
}


@pytest.fixture(autouse=True)
def real_parts():
    yield
    fakes.use_real_parts()
    fakes.gc = mqttpipe.gc = gc


@pytest.mark.parametrize("protocol", model_check.LIVES)
def test_what_is_promised_holds_in_lives_of_a_fresh_seed(protocol, capsys):
    seed = random.SystemRandom().randrange(1 << 32)
    with capsys.disabled():
        print(" seed %d" % seed, end="")
    model_check.run_lives(seed, LIVES, protocol=protocol)


@pytest.mark.parametrize(
    "protocol, name", [(4, name) for name in FAULTS] + [(5, name) for name in FAULTS_5]
)
def test_a_fault_is_noticed(protocol, name, monkeypatch):
    *fault, seed = (FAULTS if protocol == 4 else FAULTS_5)[name]
    monkeypatch.setattr(*fault)
    with pytest.raises(AssertionError):
        # The back-off is drawn anew each time, so that one seed may miss what it has noticed.
        for again in range(SEEDS_OF_A_FAULT):
            first = seed + again
            model_check.run_lives(first, LIVES_OF_A_FAULT, shrinks=False, protocol=protocol)


def test_what_can_not_be_asked_for_is_told(capsys):
    for words in (["--runs=-5"], ["--runs=0"], ["--jobs=0"], ["--steps=0"]):
        with pytest.raises(SystemExit) as caught:
            model_check.main(words)
        assert caught.value.code == 2
        assert "must be 1 or more" in capsys.readouterr().err


def test_a_process_that_dies_is_told_as_what_it_is(monkeypatch, capsys):
    class Deadly(dict):
        def __getitem__(self, protocol):
            os._exit(9)

    monkeypatch.setattr(model_check, "LIVES", Deadly(model_check.LIVES))
    assert model_check.main(["--seed=5", "--runs=1"]) == 1
    assert "seed 5: A process in the process pool was terminated" in capsys.readouterr().out


@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("protocol", model_check.LIVES)
def test_what_is_promised_holds_in_100000_lives(protocol, request):
    if not request.config.getoption("--long"):
        pytest.skip("takes half an hour: --long runs it")
    arguments = ["--runs", str(LONG_LIVES), "--jobs", "2"]
    assert model_check.main([*arguments, "--protocol", str(protocol)]) == 0
