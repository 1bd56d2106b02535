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
    most_due = []
    for jitter in (True, False):
        phases = run(CLIENTS, MESSAGES, DOWN_S, jitter, idle_s=0.2)
        check(phases, CLIENTS)
        most_due.append(dict(load.figures_of(phases, CLIENTS))["most due in 100 ms"])
    assert 2 * most_due[0] <= most_due[1], most_due


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
