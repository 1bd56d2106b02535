"""The Wi-Fi supervisor: links that break, addresses that do not come, several networks."""

from board_fakes import WifiBench


def test_a_link_without_an_address_is_bounced_after_a_while():
    bench = WifiBench()
    bench.driver.after_connect = 1
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.told = 2
    bench.until("ADDRESSING", 300)
    bench.driver.take_calls()
    took_ms = bench.until("RESTING")
    assert 15_000 <= took_ms <= 15_250, took_ms
    assert bench.take_events() == ["joined, but got no address (network 1)"]
    bench.until("JOINING")
    assert bench.driver.take_calls() == [
        "disconnect", "off", "on", ("connect", "home", "password"),
    ]  # fmt: skip


def test_an_address_that_comes_late_is_taken():
    bench = WifiBench()
    bench.driver.after_connect = 1
    bench.wifi.start()
    bench.until("JOINING")
    bench.run(19_000)
    bench.driver.told = 2
    bench.run(14_000)
    bench.driver.is_linked = True
    bench.until("UP", 300)
    assert bench.take_events() == ["up"]


def test_an_address_that_is_lost_is_noticed():
    """On the ESP32 isconnected() stays True when the lease has run out."""
    bench = WifiBench().go_up()
    bench.driver.own = "0.0.0.0"
    took_ms = bench.until("ADDRESSING")
    assert took_ms <= 5_500, took_ms
    assert not bench.wifi.is_up()
    assert bench.take_events() == ["the address is lost"]
    bench.driver.own = "192.0.2.8"
    bench.until("UP", 300)
    bench.driver.own = "0.0.0.0"
    bench.until("RESTING")
    assert bench.driver.take_calls() == ["disconnect", "off"]


def test_a_lost_link_is_told_at_once_and_may_come_back_by_itself():
    bench = WifiBench().go_up()
    bench.driver.is_linked = False
    bench.run(300)
    assert bench.wifi.state_name == "LOST" and not bench.wifi.is_up()
    assert bench.take_events() == ["the link broke"]
    bench.run(2_000)
    bench.driver.is_linked = True
    bench.run(300)
    assert bench.wifi.is_up() and bench.take_events() == ["up"]
    assert bench.driver.calls == [], "the driver has mended it by itself"


def test_a_lost_link_that_stays_lost_is_joined_again():
    bench = WifiBench().go_up()
    bench.driver.is_linked = False
    bench.until("LOST", 300)
    took_ms = bench.until("RESTING")
    assert 3_000 <= took_ms <= 3_250, took_ms
    bench.until("JOINING")
    assert bench.driver.take_calls() == ["disconnect", ("connect", "home", "password")]
    bench.driver.is_linked = True
    bench.until("UP", 300)


def test_success_ends_the_growing_of_the_pause():
    bench = WifiBench()
    bench.wifi.start()
    for _ in range(5):
        bench.until("JOINING")
        bench.until("RESTING")
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.until("UP")
    bench.driver.is_linked = False
    bench.until("RESTING")
    assert bench.until("JOINING") <= 1_300


def test_with_several_networks_each_is_tried_and_the_pause_grows_after_the_last():
    bench = WifiBench([("a", "password"), ("b", "password"), ("c", "password")])
    bench.wifi.start()
    pauses = []
    for _ in range(6):
        bench.until("JOINING")
        bench.until("RESTING")
        pauses.append(bench.until("JOINING"))
    names = [call[1] for call in bench.driver.calls if call[0] == "connect"]
    assert names[:6] == ["a", "b", "c", "a", "b", "c"], names
    assert max(pauses[:5]) <= 1_300 and pauses[5] >= 2_000, pauses


def test_the_network_with_the_strongest_signal_known_is_tried_first():
    for signals, order in (((-80, -60), ["b", "a", "c"]), ((-60, -80), ["a", "b", "c"])):
        bench = WifiBench([("a", "password"), ("b", "password"), ("c", "password")])
        bench.wifi.start()
        for name, bench.driver.rssi in zip(("a", "b"), signals):
            while bench.wifi.state_name != "JOINING" or bench.driver.calls[-1][1] != name:
                bench.run(250)
            bench.driver.is_linked = True
            bench.until("UP")
            bench.driver.is_linked = False
            bench.until("RESTING")
        bench.driver.take_calls()
        bench.run(90_000)
        names = [call[1] for call in bench.driver.calls if call[0] == "connect"]
        assert names[:3] == order, (signals, names)
