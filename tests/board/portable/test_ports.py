"""Each port's own figures and words. The folder of one port is on the path."""

import wifi_core
from board_fakes import Clock, WifiBench
from wifi import Wifi

IS_RP2 = Wifi.ASSOCIATED is not None
NO_NETWORK, WRONG_PASSWORD, JOINING, CONNECTED = (
    (-2, -3, 1, 3) if IS_RP2 else (201, 202, 1001, 1010)
)


def test_joining_and_connected_are_no_failures():
    wifi = Wifi(("home", "password"))
    for status in (JOINING, CONNECTED) if IS_RP2 else (JOINING, CONNECTED, 1000):
        assert not wifi.is_failure(status), status
    for status in (NO_NETWORK, WRONG_PASSWORD):
        assert wifi.is_failure(status), status


def test_each_failure_has_a_reason_for_people():
    for told, word in ((NO_NETWORK, "no access point of this name"), (WRONG_PASSWORD, "password")):
        bench = WifiBench(kind=Wifi)
        bench.driver.after_connect = JOINING
        bench.wifi.start()
        bench.until("JOINING")
        bench.run(1_000)
        bench.driver.told = told
        bench.until("RESTING", 3_000)
        (reason,) = bench.take_events()
        assert word in reason and reason.endswith("(network 1)"), reason


def test_a_second_lies_between_leaving_and_joining():
    bench = WifiBench(kind=Wifi)
    bench.driver.after_connect = JOINING
    bench.wifi.start()
    for _ in range(3):
        bench.until("JOINING")
        bench.driver.told = NO_NETWORK
        bench.until("RESTING")
        bench.until("JOINING")
        assert bench.driver.connected_ms - bench.driver.disconnected_ms >= 1_000


def test_an_address_may_take_a_dhcp_server_20_s():
    bench = WifiBench(kind=Wifi)
    bench.driver.after_connect = JOINING
    bench.wifi.start()
    bench.until("JOINING")
    bench.run(2_000)
    bench.driver.told = 2 if IS_RP2 else JOINING
    bench.run(19_000)
    bench.driver.is_linked = True
    bench.until("UP", 300)
    assert bench.events == ["up"]


def test_a_wrong_password_that_is_taken_back_ends_nothing_on_the_pico_w():
    bench = WifiBench(kind=Wifi)
    bench.driver.after_connect = JOINING
    bench.wifi.start()
    bench.until("JOINING")
    bench.run(500)
    bench.driver.told = WRONG_PASSWORD
    bench.run(1_500)
    assert (bench.events == []) == IS_RP2, bench.events


def test_the_pico_w_switches_its_interface_off_after_each_failure():
    bench = WifiBench(kind=Wifi)
    bench.driver.after_connect = JOINING
    bench.wifi.start()
    for _ in range(2):
        bench.until("JOINING")
        bench.driver.take_calls()
        bench.driver.told = NO_NETWORK
        bench.until("RESTING")
        assert ("off" in bench.driver.take_calls()) == IS_RP2


def test_the_power_save_of_the_pico_w_is_off():
    bench = WifiBench(kind=Wifi)
    bench.wifi.start()
    bench.until("JOINING")
    settings = [call[1] for call in bench.driver.calls if call[0] == "config"]
    assert settings == ([{"pm": 0xA11140}] if IS_RP2 else [])


def test_the_time_to_come_back_by_itself_is_the_driver_s():
    bench = WifiBench(kind=Wifi).go_up()
    bench.driver.is_linked = False
    bench.until("LOST")
    took_ms = bench.until("RESTING")
    assert took_ms // 1000 == (3 if IS_RP2 else 10), took_ms


def test_the_clock_is_the_fake_one():
    assert isinstance(WifiBench().clock, Clock) and wifi_core.ticks_ms() == 1000
