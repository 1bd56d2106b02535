"""tools/load.py: many clients in one loop, all cut at once, lose nothing; few of them here.

With --long it is 2,000 of them. That the tool sees a loss is shown with a server that forgets.
"""

import pytest

import load
import servers

CLIENTS = 60
MESSAGES = 5
DOWN_S = 0.2


@pytest.fixture
def run(broker):
    def start(*arguments, **options):
        try:
            return load.run(*arguments, broker=broker, **options)
        except servers.NotOurs as error:
            pytest.skip("needs a broker with settings of its own: %s" % error)

    return start


def check(phases, clients):
    for figure in load.figures_of(phases, clients):
        print("%-50s %s" % figure)
    assert not load.judge(phases)
    storm = phases["storm"]
    # Each was cut, and each came back.
    assert storm["ended"] >= clients and len(storm["accepted"]) >= clients
    assert phases["bye"]["accepted"] > clients * MESSAGES


def test_the_rate_is_counted_by_tenths_of_a_second():
    assert load.rates([]) == []
    assert load.rates([0, 0.05, 0.31, 0.39, 0.32]) == [2, 0, 0, 3]


@pytest.mark.timeout(600)
def test_many_clients_that_are_cut_at_once_lose_nothing_and_jitter_spreads_them(run):
    runs = {}
    for name in load.KINDS:
        runs[name] = run(CLIENTS, MESSAGES, DOWN_S, name == "jitter", idle_s=0.2)
        check(runs[name], CLIENTS)
    assert load.judge_jitter(runs, CLIENTS) == []


def test_a_client_without_jitter_is_found():
    storms = [
        {"storm": {"attempts": [(at, at) for at in times]}} for times in ([0, 0, 1], [0] * 5)
    ]
    runs = dict(zip(load.KINDS, storms))
    assert load.judge_jitter(runs, 60) == []
    runs["jitter"]["storm"]["attempts"].append((1.01, 1))
    assert load.judge_jitter(runs, 60) == []
    runs["jitter"]["storm"]["attempts"].append((1.02, 1))
    (wrong,) = load.judge_jitter(runs, 60)
    assert wrong == "its jitter spreads nothing: 3 due in 100 ms, 5 without"
    assert load.judge_jitter(runs, 5) == []  # by chance


@pytest.mark.timeout(300)
def test_a_run_that_does_not_end_says_what_is_missing(run, monkeypatch):
    monkeypatch.setattr(load, "DEADLINE_S", 3)
    missing = r"\d of 2 clients are online, \d of \d messages have had their end"
    with pytest.raises(load.LoadError, match=missing):
        run(2, 1, 0, idle_s=4)


@pytest.mark.timeout(300)
def test_a_server_that_forgets_its_sessions_is_found(run):
    """Who comes back first publishes to those who are not there yet."""
    wrongs = load.judge(run(CLIENTS, MESSAGES, DOWN_S, idle_s=0, drain_s=1, settings=""))
    assert len(wrongs) == 1 and wrongs[0].endswith("messages are lost"), wrongs


@pytest.mark.timeout(900)
@pytest.mark.parametrize("jitter", [True, False], ids=["with jitter", "without"])
def test_two_thousand_clients_that_are_cut_at_once_lose_nothing(request, run, jitter):
    if not request.config.getoption("--long"):
        pytest.skip("takes a minute: --long runs it")
    check(run(load.CLIENTS, load.MESSAGES, load.DOWN_S, jitter), load.CLIENTS)
