"""tools/soak.py: a day in the life of a client, and the first wrap of its clock; with --long, ten.

That the tool sees what it looks for is tested with figures made up, and with a device that does
lose a little of its heap.
"""

import collections
import types

import pytest

import servers
import soak

ROUNDS = 25  # of an hour and more: each kind of fault at least once
NOISE_BYTES = 2000
BEGIN_MS = soak.PERIOD_MS - 20 * 3_600_000  # the wrap is in the midst of them


@pytest.fixture
def run(broker, get_interpreter):
    get_interpreter("MicroPython 32-bit")  # skips the test where it is left out

    def start(**options):
        try:
            return soak.run(broker=broker, **options)
        except servers.NotOurs as error:
            pytest.skip("needs a broker with settings of its own: %s" % error)

    return start


def samples(free, largest=lambda number: 9000, count=400):
    return [
        soak.Sample(60 * number, number // 100, free(number), largest(number), number)
        for number in range(count)
    ]


def test_a_heap_that_goes_up_and_down_is_good():
    assert not soak.judge(samples(lambda n: 36000 + n % 24 * 16, lambda n: 5000 + n * 7919 % 9000))


@pytest.mark.parametrize("name", ["free", "largest"])
def test_a_heap_that_goes_down_is_not(name):
    options = {"free": lambda number: 36000, name: lambda number: 36000 - 8 * number}
    assert soak.judge(samples(**options))[-1] == (
        "%s: 33200 bytes in the last quarter, 35592 before" % name
    )


def test_what_is_lost_behind_a_wrap_and_comes_back_is_seen():
    wrongs = soak.judge(samples(lambda number: 30000 if number // 100 == 2 else 36000))
    assert wrongs == ["free: 30000 bytes after wrap 2, 36000 before"]


def make_world():
    """Three messages have come to the observer at QoS 1 and 2."""
    world = object.__new__(soak.World)
    world.ways = types.SimpleNamespace(UP="up", DOWN="down")
    world.witness, world.observers = (
        types.SimpleNamespace(repeated={"up": {}, "down": collections.Counter()}) for _ in "ab"
    )
    world.peer = types.SimpleNamespace(wait_until=lambda *arguments: None)
    world.seen = collections.defaultdict(collections.Counter)
    for qos in (1, 2):
        world.seen["soak/out/%d" % qos].update((1, 2, 3))
    return world


def test_what_comes_to_the_observer_out_of_order_is_wrong():
    world = make_world()
    assert world.ask_witnesses([9, 3, 3], {}) == []
    world.seen["soak/out/1"].update((5, 4, 4))
    wrongs = world.ask_witnesses([9, 5, 3], {})
    assert wrongs == ["out of order at the observer, QoS 1"]


@pytest.mark.timeout(300)
def test_a_client_lives_for_days_through_a_wrap_of_its_clock(run, tmp_path):
    result = run(rounds=ROUNDS, wraps=1, first_ms=BEGIN_MS)
    print("\n".join(soak.describe(result)))
    # In so few hours the heap is what the last ones happened to leave.
    wrongs = [wrong for wrong in result.wrongs if not wrong.startswith(("free", "largest"))]
    assert not wrongs, wrongs
    assert result.samples[-1].free > result.samples[soak.WARM_UP].free - NOISE_BYTES
    assert len(result.wraps) == 1 and len(result.samples) >= ROUNDS
    expected = {"cut", "dns", "publish", "refuse", "restart", "resume", "stall"}
    assert set(result.asked) == expected
    assert result.counts["expired"] and result.counts["dropped"] == 2 * result.counts["expired"]


@pytest.mark.timeout(300)
def test_a_device_that_loses_a_little_in_each_hour_is_found(run):
    result = run(rounds=ROUNDS // 2, wraps=0, leak_bytes=300)
    print("\n".join([*result.wrongs, *map(str, result.samples)]))
    assert any(wrong.startswith("free") for wrong in result.wrongs)


@pytest.mark.timeout(300)
def test_a_client_that_ends_a_connection_that_is_well_is_found(run, monkeypatch):
    source = soak.build.read_source()
    ping = "            outbox.put_packet(_PINGREQ_PACKET)\n"
    assert source.count(ping) == 1
    fails = (
        "            if outbox.sent_count % 31 == 3:\n                raise ServerError('alone')\n"
    )
    monkeypatch.setattr(soak.build, "read_source", lambda: source.replace(ping, fails + ping))
    result = run(rounds=12, wraps=0)
    assert "no fault explains ServerError: alone" in result.wrongs, result.wrongs


@pytest.mark.timeout(3600)
def test_a_client_lives_for_ten_wraps_of_its_clock(request, run):
    if not request.config.getoption("--long"):
        pytest.skip("takes a quarter of an hour: --long runs it")
    result = run()
    print("\n".join(soak.describe(result)))
    assert not result.wrongs, result.wrongs
