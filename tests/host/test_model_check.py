"""The client and a model of a server, in lives that hypothesis makes (tests/model_check.py)."""

import gc
import random

import fakes
import pytest

import model_check
import mqttpipe

LIVES = 200
LONG_LIVES = 100_000
LIVES_OF_A_FAULT = 400  # by then it is noticed

# Faults: where, the name, what is there; and a seed that notices it soon.
FAULTS = {
    "what is sent again has no DUP": (mqttpipe, "_DUP", 0, 3),
    "the clock must not wrap": (fakes.Clock, "ticks_diff", lambda self, a, b: a - b, 1),
    "every filter matches": (mqttpipe, "topic_matches", lambda *arguments: True, 4),
    "no acknowledgement has a deadline": (
        mqttpipe.MQTTClient,
        "_allow",
        lambda *arguments: None,
        4,
    ),
}


@pytest.fixture(autouse=True)
def real_parts():
    yield
    fakes.use_real_parts()
    fakes.gc = mqttpipe.gc = gc


def test_what_is_promised_holds_in_lives_of_a_fresh_seed(capsys):
    seed = random.SystemRandom().randrange(1 << 32)
    with capsys.disabled():
        print(" seed %d" % seed, end="")
    model_check.run_lives(seed, LIVES)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed(name, monkeypatch):
    *fault, seed = FAULTS[name]
    monkeypatch.setattr(*fault)
    with pytest.raises(AssertionError):
        model_check.run_lives(seed, LIVES_OF_A_FAULT, shrinks=False)


@pytest.mark.timeout(14_400)
def test_what_is_promised_holds_in_100000_lives(request):
    if not request.config.getoption("--long"):
        pytest.skip("takes half an hour: --long runs it")
    assert model_check.main(["--runs", str(LONG_LIVES), "--jobs", "2"]) == 0
