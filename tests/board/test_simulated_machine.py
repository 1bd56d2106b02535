"""The simulated `machine` behaves as the two ports' does, in the virtual board and in CPython."""

import time

import pytest
from consoles import BoardFailed, InProcess, RawRepl
from virtual_board import ESP32

PRELUDE = """
import machine
try:
    from time import sleep_ms, ticks_diff, ticks_ms
except ImportError:
    from shim_time import sleep_ms, ticks_diff, ticks_ms

def wait_for(is_so, timeout_ms=5000):
    start_ms = ticks_ms()
    while not is_so():
        assert ticks_diff(ticks_ms(), start_ms) < timeout_ms
        sleep_ms(1)
"""


@pytest.fixture(params=["virtual", "CPython"])
def console(request, board_kind):
    """A console of a board."""
    if request.param == "virtual":
        board = request.getfixturevalue("virtual_board")(board_kind)
        board.wait_for_output(">>> ")
        console = RawRepl(board)
    else:
        console = InProcess(board_kind)
    console.is_esp32 = board_kind == ESP32
    console.is_virtual = request.param == "virtual"
    with console:
        console.run(PRELUDE)
        yield console


def test_the_chip_has_its_number_and_its_frequency(console):
    length = 6 if console.is_esp32 else 8
    assert console.run("print(len(machine.unique_id()), machine.freq())") == (
        "%d %d\n" % (length, 160_000_000 if console.is_esp32 else 125_000_000)
    )
    console.run("machine.freq(80_000_000)")
    assert console.run("print(machine.freq())") == "80000000\n"


def test_an_output_is_in_the_log(console):
    console.run("pin = machine.Pin(2, machine.Pin.OUT, value=1)\npin.off()\npin(1)\npin.toggle()")
    assert console.run("print(pin.value())") == "0\n"
    assert console.events("pin") == [(2, 1), (2, 0), (2, 1), (2, 0)]


def test_an_input_reads_what_the_world_says(console):
    console.run("pin = machine.Pin(5, machine.Pin.IN, machine.Pin.PULL_UP)")
    assert console.run("print(pin.value())") == "1\n"
    console.world["pins"][5] = 0
    assert console.run("print(pin.value())") == "0\n"
    console.world["pins"][5] = lambda: 1
    assert console.run("print(pin())") == "1\n"
    console.run("pin = machine.Pin(6, machine.Pin.IN, machine.Pin.PULL_DOWN)")
    assert console.run("print(pin.value())") == "0\n"


def test_only_pins_that_there_are_can_be_had(console):
    if console.is_esp32:
        for name, error in (
            ("'LED'", "invalid pin"),
            (24, "invalid pin"),
            ("35, machine.Pin.OUT", "pin can only be input"),
        ):
            with pytest.raises(BoardFailed, match="ValueError: " + error):
                console.run("machine.Pin(%s)" % name)
    else:
        console.run("led = machine.Pin('LED', machine.Pin.OUT)\nled.on()\nmachine.Pin('GP3')")
        assert console.events("pin") == [("LED", 1)]
        with pytest.raises(BoardFailed, match="ValueError"):
            console.run("machine.Pin(30)")


def test_a_signal_may_be_active_low(console):
    console.run("led = machine.Signal(machine.Pin(2, machine.Pin.OUT), invert=True)\nled.on()")
    assert console.run("print(led.value())") == "1\n"
    assert console.events("pin") == [(2, 0)]


def test_a_timer_calls_back_while_the_program_sleeps_and_computes(console):
    number = "0" if console.is_esp32 else ""
    console.run("count = 0\ndef tick(timer):\n    global count\n    count += 1")
    console.run("timer = machine.Timer(%s)\ntimer.init(period=10, callback=tick)" % number)
    console.run("sleep_ms(200)\nwait_for(lambda: count > 5)")
    console.run("seen = count\nstart_ms = ticks_ms()")
    console.run("while count < seen + 3:\n    assert ticks_diff(ticks_ms(), start_ms) < 5000")
    console.run("timer.deinit()\nseen = count\nsleep_ms(50)")
    assert console.run("print(count - seen)") == "0\n"


def test_a_timer_calls_back_at_the_prompt(console):
    number = "0" if console.is_esp32 else ""
    console.run("count = 0\ndef tick(timer):\n    global count\n    count += 1")
    console.run("timer = machine.Timer(%s)\ntimer.init(period=5, callback=tick)" % number)
    for _ in range(100):  # a busy machine
        time.sleep(0.1)
        # Within this program it could not have run 3 times.
        seen = int(console.run("count, seen = 0, count\nprint(seen)"))
        if seen >= 3:
            break
    console.run("timer.deinit()")
    assert seen >= 3


def test_timers_threads_and_calls_of_the_hardware_get_along(console):
    # In the unix port a timer's signal, a collection of garbage and a thread can lock each other
    # out, or worse: vm/board_bus.py says how that is prevented.
    number = "0" if console.is_esp32 else ""
    console.run(
        "import _thread\n"
        "pin = machine.Pin(2, machine.Pin.IN)\n"
        "count = [0, 0]\n"
        "def work():\n"
        "    while count[0] < 300:\n"
        "        assert pin.value() == 0 and bytes(100)\n"
        "        count[0] += 1\n"
        "def tick(timer):\n"
        "    count[1] += 1 - pin.value()\n"
        "timer = machine.Timer(%s)\n"
        "timer.init(period=2, callback=tick)\n"
        # A function: a name that is new among the globals, while a thread reads them, may end an
        # interpreter without a GIL.
        "def main():\n"
        "    for i in range(300):\n"
        "        assert pin.value() == 0 and bytes(100)\n"
        "    wait_for(lambda: count[0] == 300 and count[1] > 3)\n"
        "_thread.start_new_thread(work, ())\n"
        "main()\n"
        "timer.deinit()\n" % number
    )


def test_rp2_has_one_thread_more_and_esp32_many(console):
    if not console.is_virtual:
        pytest.skip("in CPython they are its own threads")
    console.run("import _thread\nend = False\ndef work():\n    while not end:\n        pass")
    console.run("_thread.start_new_thread(work, ())")
    if console.is_esp32:
        console.run("_thread.start_new_thread(work, ())")
    else:
        with pytest.raises(BoardFailed, match="OSError: core1 in use"):
            console.run("_thread.start_new_thread(work, ())")
    console.run(
        "end = True\n"
        "for _ in range(500):\n"
        "    sleep_ms(10)\n"
        "    try:\n"
        "        _thread.start_new_thread(work, ())\n"
        "        break\n"
        "    except OSError:  # the other one has not come to its end\n"
        "        pass\n"
        "else:\n"
        "    raise OSError('in use for 5 s')\n"
    )


def test_a_timer_may_fire_once(console):
    number = "1" if console.is_esp32 else "-1"
    console.run("calls = []")
    console.run(
        "timer = machine.Timer(%s, mode=machine.Timer.ONE_SHOT, period=5, callback=calls.append)"
        % number
    )
    console.run("wait_for(lambda: calls)\nsleep_ms(30)")
    assert console.run("print(len(calls), calls[0] is timer)") == "1 True\n"


def test_a_callback_that_raises_is_reported_and_the_timer_goes_on(console):
    number = "0" if console.is_esp32 else ""
    console.run("count = 0\ndef tick(timer):\n    global count\n    count += 1\n    1 / 0")
    console.run("timer = machine.Timer(%s)" % number)
    printed = console.run(
        "timer.init(period=5, callback=tick)\nwait_for(lambda: count > 2)\ntimer.deinit()"
    )
    assert printed.count("ZeroDivisionError") >= 2


def test_the_ports_have_different_timers(console):
    if console.is_esp32:
        assert console.run("print(machine.Timer(3) is machine.Timer(3))") == "True\n"
        refused = ("4", "-1")
    else:
        assert console.run("print(machine.Timer() is machine.Timer(-1))") == "False\n"
        refused = ("0",)
    for number in refused:
        with pytest.raises(BoardFailed, match="ValueError"):
            console.run("machine.Timer(%s)" % number)


def test_a_watchdog_that_is_fed_stays_quiet(console):
    console.run("wdt = machine.WDT(timeout=2000)")
    console.run("for i in range(60):\n    sleep_ms(40)\n    wdt.feed()")
    assert console.events("watchdog started") == [(2000,)]
    assert console.events("watchdog") == []


def test_a_watchdog_takes_the_timeouts_of_its_port(console):
    refused = "timeout=0" if console.is_esp32 else "timeout=8389"
    with pytest.raises(BoardFailed, match="ValueError"):
        console.run("machine.WDT(%s)" % refused)
    with pytest.raises(BoardFailed, match="ValueError"):
        console.run("machine.WDT(1)")


def test_a_reset_ends_the_program_and_has_its_cause(console):
    console.run_to_reset("machine.reset()")
    console.run(PRELUDE)
    cause = "machine.HARD_RESET" if console.is_esp32 else "machine.WDT_RESET"
    assert console.run("print(machine.reset_cause() == %s)" % cause) == "True\n"
    assert console.events("reset") == [()]


def test_an_unfed_watchdog_ends_the_program(console):
    hang = "while True:\n    pass" if console.is_virtual else "sleep_ms(100)\nwdt.feed()"
    console.run_to_reset("wdt = machine.WDT(timeout=50)\n" + hang)
    console.run(PRELUDE)
    assert console.run("print(machine.reset_cause() == machine.WDT_RESET)") == "True\n"
    assert console.events("watchdog") == [(50,)]


def test_after_a_deep_sleep_the_board_begins_anew(console):
    with pytest.raises(BoardFailed, match="NotImplementedError"):
        console.run("machine.deepsleep()")
    console.run("machine.lightsleep(5)\nmachine.idle()")
    console.run_to_reset("print('in vain')\nmachine.deepsleep(3_600_000)\nprint('never')")
    console.run(PRELUDE)
    cause = "machine.DEEPSLEEP_RESET" if console.is_esp32 else "machine.WDT_RESET"
    assert console.run("print(machine.reset_cause() == %s)" % cause) == "True\n"
    assert console.events("deep sleep") == [(3_600_000,)]


def test_a_pin_calls_when_its_level_changes(console):
    console.world["pins"][5] = 1
    console.run("seen = []\npin = machine.Pin(5, machine.Pin.IN)")
    console.run("pin.irq(lambda pin: seen.append(pin.value()), machine.Pin.IRQ_FALLING)")
    for level in (0, 1, 0):
        console.world["pins"][5] = level
        console.run("wait_for(lambda: pin.value() == %d)\nsleep_ms(60)" % level)
    assert console.run("print(seen)") == "[0, 0]\n"
    console.run("pin.irq(None)")
    console.world["pins"][5] = 1
    console.world["pins"][5] = 0
    console.run("sleep_ms(60)")
    assert console.run("print(len(seen))") == "2\n"


def test_the_clock_of_an_esp32_survives_a_reset_and_that_of_a_pico_does_not(console):
    console.run("machine.RTC().datetime((2025, 6, 15, 6, 12, 0, 0, 0))")
    console.run_to_reset("machine.reset()")
    console.run(PRELUDE)
    year = 2025 if console.is_esp32 else 2021
    assert console.run("print(machine.RTC().datetime()[0])") == "%d\n" % year


def test_the_ports_count_their_seconds_from_different_years(console):
    if not console.is_virtual:
        pytest.skip("in CPython it is its own `time`")
    console.run("import time")
    first = (2000, 2000) if console.is_esp32 else (1970, 2021)
    assert console.run("print(time.gmtime(0)[0], time.gmtime()[0])") == "%d %d\n" % first
    # Not one second may pass between the two looks, and one can: so it is asked till it is so.
    console.run(
        "wait_for(lambda: time.mktime(time.localtime()) == time.time() == time.time_ns() // 10**9)"
    )
    console.run("machine.RTC().datetime((2025, 6, 15, 6, 12, 30, 15, 0))")
    assert console.run("print(time.gmtime()[:5], time.localtime()[6:])") == (
        "(2025, 6, 15, 12, 30) (6, 166)\n"
    )


@pytest.mark.parametrize("board_kind", ["Pico W"], indirect=True)
def test_the_bootsel_button_is_a_pin_of_the_world(console):
    console.run("import rp2")
    assert console.run("print(rp2.bootsel_button())") == "0\n"
    console.world["pins"]["BOOTSEL"] = 1
    assert console.run("print(rp2.bootsel_button())") == "1\n"


@pytest.mark.parametrize("board_kind", ["ESP32"], indirect=True)
def test_an_esp32_has_no_rp2(console):
    with pytest.raises(BoardFailed, match="ImportError|ModuleNotFoundError"):
        console.run("import rp2")
