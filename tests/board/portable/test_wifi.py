"""The Wi-Fi supervisor on a clock that stands still and a driver that does what the test says."""

import gc

import wifi_core
from board_fakes import STATUS_IDLE, Port, SkipTest, WifiBench, raises

import micropython


def test_it_comes_up_and_says_so_once():
    bench = WifiBench()
    assert not bench.wifi.is_up() and bench.wifi.state_name == "OFF"
    bench.wifi.start()
    bench.until("JOINING")
    bench.run(1_000)
    assert not bench.wifi.is_up()
    bench.driver.is_linked = True
    bench.run(5_000)
    assert bench.wifi.is_up() and bench.wifi.signal_dbm == -50
    assert bench.take_events() == ["up"]
    assert [call for call in bench.driver.calls if call[0] == "connect"] == [
        ("connect", "home", "password")
    ]


def test_nothing_touches_the_driver_before_start():
    bench = WifiBench()
    bench.run(5_000)
    assert bench.driver.calls == []


def test_an_interface_that_is_on_from_before_begins_from_nothing():
    """A soft reset leaves it on, joined to what it was joined to."""
    bench = WifiBench()
    bench.driver.is_on = bench.driver.is_linked = True
    bench.wifi.start()
    assert bench.driver.take_calls() == ["disconnect", "off"]
    bench.until("JOINING")
    assert bench.driver.take_calls() == ["on", ("connect", "home", "password")]


def test_settings_are_made_in_the_order_that_the_drivers_need():
    bench = WifiBench(
        address=("192.0.2.9", "255.255.255.0", "192.0.2.1", "192.0.2.1"),
        country="NZ",
        hostname="lamp",
        power_save=0xA11140,
    )
    bench.wifi.start()
    bench.until("JOINING")
    assert bench.driver.take_calls() == [
        ("country", "NZ"),
        ("hostname", "lamp"),
        "on",
        ("config", {"pm": 0xA11140}),
        ("ifconfig", ("192.0.2.9", "255.255.255.0", "192.0.2.1", "192.0.2.1")),
        ("connect", "home", "password"),
    ]


def test_a_driver_without_power_save_joins_all_the_same():
    bench = WifiBench(power_save=1)
    bench.driver.config_error = ValueError("unknown config param")
    bench.wifi.start()
    bench.until("JOINING")


def test_settings_are_made_again_after_the_interface_was_off():
    bench = WifiBench(address=("192.0.2.9", "255.255.255.0", "192.0.2.1", "192.0.2.1"))
    bench.wifi.start()
    bench.until("JOINING")
    for _ in range(3):  # the third failure in a row switches it off
        bench.until("RESTING")
        bench.until("JOINING")
    calls = [call if isinstance(call, str) else call[0] for call in bench.driver.calls]
    assert calls == [
        "on", "ifconfig", "connect", "disconnect",
        "connect", "disconnect",
        "connect", "disconnect", "off",
        "on", "ifconfig", "connect",
    ]  # fmt: skip


def test_an_open_network_is_joined_without_a_password():
    bench = WifiBench([("cafe", None)])
    bench.wifi.start()
    bench.until("JOINING")
    assert bench.driver.calls[-1] == ("connect", "cafe", None)


def test_an_attempt_without_an_answer_ends_in_time():
    bench = WifiBench()
    bench.wifi.start()
    bench.until("JOINING")
    took_ms = bench.until("RESTING")
    assert 20_000 <= took_ms <= 20_250, took_ms
    assert bench.take_events() == ["no answer within the time allowed (network 1)"]


def test_between_leaving_and_joining_lies_the_pause_of_the_port():
    bench = WifiBench()
    bench.wifi.start()
    for _ in range(6):
        bench.until("JOINING")
        bench.until("RESTING")
        bench.until("JOINING")
        assert bench.driver.connected_ms - bench.driver.disconnected_ms >= 1_000


def test_the_pause_grows_and_stays_bounded():
    bench = WifiBench()
    bench.wifi.start()
    pauses = []
    for _ in range(7):
        bench.until("JOINING")
        bench.until("RESTING")
        pauses.append(bench.until("JOINING"))
    for pause_ms, least_ms in zip(pauses, (1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000)):
        assert least_ms <= pause_ms <= least_ms + 300, pauses


def test_a_failure_is_believed_when_it_has_stood_for_a_while():
    """The Pico W says "bad password" and then takes it back."""
    bench = WifiBench()
    bench.driver.after_connect = 1
    bench.wifi.start()
    bench.until("JOINING")
    bench.run(500)
    bench.driver.told = 202
    bench.run(1_500)
    bench.driver.told = 1
    bench.run(3_000)
    assert bench.wifi.state_name == "JOINING"
    bench.driver.told = 202
    took_ms = bench.until("RESTING")
    assert 2_000 <= took_ms <= 2_500, took_ms
    assert bench.take_events() == ["refused: wrong password? (network 1)"]


def test_a_failure_of_the_attempt_before_is_not_believed():
    """The ESP32 says 201 from the failure to the next address, through connect()."""
    bench = WifiBench()
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.told = 201
    bench.until("RESTING")
    bench.until("JOINING")
    bench.run(15_000)
    assert bench.wifi.state_name == "JOINING"  # association and address may be on their way
    bench.driver.is_linked = True
    bench.until("UP", 300)


def test_a_failure_that_changes_is_a_new_one():
    bench = WifiBench()
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.told = 201
    bench.until("RESTING")
    bench.until("JOINING")
    bench.run(1_000)
    bench.driver.told = 202
    took_ms = bench.until("RESTING")
    assert took_ms <= 2_500, took_ms


def test_the_driver_s_errors_end_the_attempt_and_switch_it_off_and_on():
    for error in (OSError("Wifi Internal Error"), RuntimeError("Wifi Unknown Error 0x3014")):
        bench = WifiBench()
        bench.driver.connect_error = error
        bench.wifi.start()
        bench.run(300)
        assert bench.wifi.state_name == "RESTING"
        (reason,) = bench.take_events()
        assert str(error) in reason and reason.startswith("the driver says: "), reason
        assert bench.driver.take_calls()[-2:] == ["disconnect", "off"]
        bench.driver.connect_error = None
        bench.until("JOINING")


METHODS = ("active", "connect", "disconnect", "isconnected", "status", "ifconfig", "config")


def test_every_call_of_the_driver_may_fail():
    """Whichever call it is that raises, first or later: step() does not, and it comes up."""
    for method in METHODS:
        for at in range(1, 12):
            bench = WifiBench(power_save=1)
            fail(bench.driver, method, at, OSError("by the test"))
            bench.wifi.start()
            come_up(bench)
            assert bench.wifi.is_up(), (method, at, bench.wifi.state_name)


def test_it_may_fail_with_whatever_a_driver_raises():
    for error in (ValueError("x"), MemoryError(), OverflowError("x"), TypeError(), KeyError(1)):
        for method in METHODS:
            for at in (1, 3):
                bench = WifiBench(power_save=1)
                fail(bench.driver, method, at, error)
                bench.wifi.start()
                come_up(bench)
                assert bench.wifi.is_up(), (method, at, error)


def test_a_driver_that_always_fails_makes_no_call_of_ours_raise():
    for error in (OSError(5), ValueError("x"), MemoryError()):
        bench = WifiBench()
        for method in METHODS:
            fail(bench.driver, method, 0, error)
        bench.wifi.start()
        bench.run(20_000)
        assert not bench.wifi.is_up() and bench.wifi.reason
        bench.wifi.stop()
        assert bench.wifi.state_name == "OFF"


def test_an_interface_that_is_not_there_yet_is_asked_for_again():
    bench = WifiBench()
    network = wifi_core.network
    count = [0]

    def missing(interface):
        count[0] += 1
        if count[0] < 4:
            raise MemoryError
        return bench.driver

    network.WLAN = missing
    bench.wifi.stop()
    bench.wifi.start()
    come_up(bench)
    assert bench.wifi.is_up() and count[0] == 4


def test_a_text_that_finds_no_memory_is_left_out():
    """An error that can not be shown stands for it: `%` raises in the same place."""

    class NoRoom(Exception):
        def __str__(self):
            raise MemoryError

    bench = WifiBench()
    fail(bench.driver, "connect", 1, NoRoom())
    bench.wifi.on_down = lambda wifi, reason: (_ for _ in ()).throw(NoRoom())
    bench.wifi.start()
    come_up(bench)
    assert bench.wifi.is_up()


def fill_heap(bench):
    """From now on what allocates in a driver finds no memory; call what this returns to end it."""
    real = bench.driver.ifconfig
    fail(bench.driver, "ifconfig", 0, MemoryError())

    def empty_heap():
        bench.driver.ifconfig = real

    return empty_heap


def test_a_full_heap_ends_no_link_that_is_up():
    bench = WifiBench().go_up()
    empty_heap = fill_heap(bench)
    bench.run(300_000, 250)
    assert bench.wifi.is_up() and bench.driver.calls == []
    empty_heap()
    bench.run(5_500)
    assert bench.wifi.is_up() and bench.events == []
    bench.driver.own = "0.0.0.0"
    bench.until("ADDRESSING", 5_500)


def test_a_full_heap_ends_no_attempt_and_no_link_that_comes_back():
    bench = WifiBench()
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.take_calls()
    for _ in range(2):
        empty_heap = fill_heap(bench)
        bench.driver.is_linked = True
        bench.run(2_500)
        assert not bench.wifi.is_up() and bench.driver.calls == []
        empty_heap()
        bench.until("UP", 300)
        bench.driver.is_linked = False
        bench.until("LOST", 300)
    assert bench.take_events() == ["up", "the link broke"] * 2 and bench.driver.calls == []


def test_a_driver_that_has_no_memory_for_a_minute_is_switched_off_and_on():
    bench = WifiBench().go_up()
    fail(bench.driver, "isconnected", 0, MemoryError())
    bench.run(59_000, 250)
    assert bench.wifi.is_up() and bench.driver.calls == []
    bench.until("RESTING", 1_500)
    assert bench.take_events() == ["out of memory (network 1)"]
    assert bench.driver.take_calls() == ["disconnect", "off"]


def test_it_needs_no_memory_to_come_up():
    bench = WifiBench()
    bench.wifi.start()
    bench.until("JOINING")
    bench.driver.is_linked = True
    address = bench.driver.ifconfig()
    bench.driver.ifconfig = lambda: address
    step = bench.wifi.step
    bench.clock.advance(250)
    micropython.heap_lock()
    try:
        step()
    finally:
        micropython.heap_unlock()
    assert bench.wifi.is_up() and bench.events == ["up"]


def test_it_needs_no_memory_to_start():
    bench = WifiBench()
    start = bench.wifi.start
    micropython.heap_lock()
    try:
        start()
    finally:
        micropython.heap_unlock()
    come_up(bench)
    assert bench.wifi.is_up() and bench.events == ["up"]


def come_up(bench):
    for _ in range(400):
        bench.wifi.step()
        if bench.driver.calls and bench.driver.calls[-1][0] == "connect":
            bench.driver.is_linked = True
        bench.clock.advance(250)


def fail(driver, method, at, error):
    """Have the call of this number raise; 0: every call."""
    real = getattr(driver, method)
    count = [0]

    def fails(*arguments, **settings):
        count[0] += 1
        if at in (0, count[0]):
            raise error
        return real(*arguments, **settings)

    setattr(driver, method, fails)


def test_a_callback_that_raises_breaks_nothing():
    bench = WifiBench()

    def boom(*arguments):
        raise KeyError("by the test")

    bench.wifi.on_up = bench.wifi.on_down = boom
    bench.go_up()
    bench.driver.is_linked = False
    bench.until("RESTING")
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.until("UP")


def test_stop_leaves_the_network_and_start_begins_anew():
    bench = WifiBench().go_up()
    bench.wifi.stop()
    assert bench.wifi.state_name == "OFF" and not bench.wifi.is_up()
    assert bench.driver.take_calls() == ["disconnect", "off"]
    assert bench.take_events() == ["stopped"]
    bench.run(5_000)
    assert bench.driver.calls == []
    bench.go_up()


def test_it_works_across_the_wrap_of_the_clock():
    bench = WifiBench(now_ms=(1 << 30) - 2_000)
    bench.wifi.start()
    bench.until("JOINING")
    took_ms = bench.until("RESTING")
    assert 20_000 <= took_ms <= 20_250, took_ms
    bench.until("JOINING")
    bench.driver.is_linked = True
    bench.until("UP")


def test_it_goes_on_at_once_when_nobody_has_stepped_for_days():
    for days in (1, 6, 7, 9, 12):
        bench = WifiBench().go_up()
        bench.clock.advance(days * 86_400_000)
        bench.driver.is_linked = False
        bench.until("LOST", 300)
        bench.clock.advance(days * 86_400_000)
        bench.until("RESTING", 300)
        bench.clock.advance(days * 86_400_000)
        bench.until("JOINING", 300)


def test_the_driver_is_looked_at_four_times_a_second_whatever_the_loop():
    bench = WifiBench().go_up()
    looks = [0]
    real = bench.driver.isconnected

    def isconnected():
        looks[0] += 1
        return real()

    bench.driver.isconnected = isconnected
    bench.run(10_000, every_ms=1)
    assert 38 <= looks[0] <= 41, looks


def test_the_dns_servers_are_dhcp_s_and_then_the_given():
    bench = WifiBench(dns=("192.0.2.99", "192.0.2.53")).go_up()
    assert bench.wifi.dns_servers() == ["192.0.2.53", "192.0.2.99"]
    bench.driver.dns = "0.0.0.0"
    assert bench.wifi.dns_servers() == ["192.0.2.99", "192.0.2.53"]
    bench = WifiBench(dns="192.0.2.99").go_up()
    assert bench.wifi.dns_servers() == ["192.0.2.53", "192.0.2.99"]


def test_wrong_arguments_are_told_without_name_or_password():
    for networks in (
        [], ("home",), ("home", "short"), ("", "password"), ("n" * 33, "password"),
        [("home", "password"), "shed"], ("home", b"password"), 5, [("secretive", 12345678)],
        None, "home", {"home": "password"},
    ):  # fmt: skip
        text = raises(ValueError, Port, networks)
        for word in ("home", "short", "nnn", "secretive", "12345678"):
            assert word not in text, text
    for setting, values in (
        ("address", (("192.0.2.9",), "1234", ("a", "b", "c", "d"), 5, ("192.0.2.9", 1, 2, 3))),
        ("country", ("NZL", "", 49, ("N", "Z"))),
        ("hostname", (5, "", b"lamp", ("a", "b"))),
        ("dns", (5, ("192.0.2.53", 53), (("192.0.2.53", 53),))),
    ):
        for value in values:
            text = raises(ValueError, Port, ("home", "password"), **{setting: value})
            assert text.startswith(setting + " must be "), text
            shown = repr(value)
            assert text.endswith(": " + shown) or setting == "dns", (text, shown)
    for length, letter in ((33, "h"), (17, "\u00fc")):  # the drivers count bytes
        raises(ValueError, Port, ("home", "password"), hostname=letter * length)
        raises(ValueError, Port, ("home", letter * length * 2))
    Port(("\u00fc" * 16, "\u00fc" * 4), hostname="\u00fc" * 16)
    for dns in (
        "dns.example", ("192.0.2.53", "dns.example"), "192.0.2.256", "192.0.2.53:53", ("",),
    ):  # fmt: skip
        raises(ValueError, Port, ("home", "password"), dns=dns)  # each question would block


def test_no_reason_shows_name_or_password():
    bench = WifiBench([("secret-name", "secret-password"), ("other-name", "other-password")])
    bench.wifi.start()
    for told in (201, 202, STATUS_IDLE, 2, 201):
        bench.until("JOINING")
        bench.driver.told = told
        bench.until("RESTING")
    for reason in bench.take_events():
        assert "secret" not in reason and "other" not in reason, reason


def test_idle_steps_while_up_allocate_nothing():
    bench = WifiBench().go_up()
    if not hasattr(gc, "mem_alloc"):
        raise SkipTest("CPython does not tell")
    wifi = bench.wifi
    clock = bench.clock
    wifi.step()
    gc.collect()
    gc.disable()
    try:
        before = gc.mem_alloc()
        for _ in range(10):
            clock.now_ms += 250
            wifi.step()
        allocated = gc.mem_alloc() - before
    finally:
        gc.enable()
    assert allocated == 0, allocated
