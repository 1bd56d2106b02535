"""The main loop: it alone feeds the watchdog, the LED says what is missing, resets are rare."""

import station
from board_fakes import Clock, SkipTest, raises
from station import Station, boot, is_wanted


class Client:
    def __init__(self, clock):
        self.clock = clock
        self.is_connected = False
        self.waits = []

    def step(self, timeout_ms):
        self.waits = self.waits[-1:] + [timeout_ms]
        self.clock.advance(timeout_ms)

    def is_online(self):
        return self.is_connected


class Link:
    def __init__(self):
        self.is_linked = True

    def is_up(self):
        return self.is_linked


class SteppedLink(Link):
    steps = 0

    def step(self):
        self.steps += 1


class Led:
    def __init__(self, clock):
        self.clock = clock
        self.changes = []

    def value(self, value):
        self.changes.append((self.clock.now_ms, value))


class Dog:
    def __init__(self, timeout):
        self.timeout_ms = timeout
        self.meals = 0

    def feed(self):
        self.meals += 1


class Reset(Exception):
    pass


class Machine:
    """Stands for the module `machine`."""

    def __init__(self):
        self.dogs = []

    def WDT(self, timeout):
        self.dogs.append(Dog(timeout))
        return self.dogs[-1]

    def reset(self):
        raise Reset


class Keys:
    """Stands for the module `select`, and for sys.stdin, which would wait for a whole letter."""

    POLLIN = 1
    stdin = None

    def __init__(self, typed=b""):
        self.typed = typed
        self.stdin = self.buffer = self

    def poll(self, timeout_ms=None):
        if timeout_ms is None:
            return self
        assert timeout_ms == 0
        return [(self, 1)] if self.typed else []

    def register(self, thing, mask):
        assert thing is self

    def read(self, count):
        key, self.typed = self.typed[:count], self.typed[count:]
        return key


class Gc:
    """Stands for the module `gc`, which can't tell on CPython."""

    def collect(self):
        pass

    def mem_free(self):
        return 12_345


class Bench:
    def __init__(self, link=None, led_on=1, **options):
        self.clock = Clock()
        station.ticks_ms = self.clock.ticks_ms
        station.ticks_add = self.clock.ticks_add
        station.ticks_diff = self.clock.ticks_diff
        station.sleep_ms = self.clock.advance
        self.machine = station.machine = Machine()
        station.watchdog = None
        self.client = Client(self.clock)
        self.link = link
        self.led = Led(self.clock)
        self.station = Station(self.client, link, self.led, led_on, **options)

    def use_keys(self, typed=b""):
        keys = station.select = Keys(typed)
        station.sys = keys
        return keys

    def run(self, rounds):
        for _ in range(rounds):
            self.station.step(50)


def test_the_watchdog_is_fed_once_a_round_and_begins_with_the_first():
    bench = Bench(watchdog_s=8)
    assert bench.machine.dogs == []
    bench.run(5)
    (dog,) = bench.machine.dogs
    assert dog.timeout_ms == 8_000 and dog.meals == 5


def test_a_client_that_hangs_is_not_covered_by_a_meal():
    bench = Bench(watchdog_s=8)
    bench.run(1)

    def hang(timeout_ms):
        raise Reset

    bench.client.step = hang
    raises(Reset, bench.station.step)
    assert bench.machine.dogs[0].meals == 1


def test_without_a_watchdog_there_is_none():
    bench = Bench()
    bench.run(3)
    station.feed()
    assert bench.machine.dogs == []


def test_the_wait_is_the_client_s_alone():
    bench = Bench()
    bench.run(2)
    assert bench.client.waits == [50, 50]


def test_any_link_will_do_and_one_with_work_to_do_is_stepped():
    bench = Bench(link=SteppedLink())
    bench.run(3)
    assert bench.link.steps == 3
    bench = Bench(link=Link())
    bench.run(3)


def test_the_led_blinks_quickly_without_link_slowly_without_server_and_is_steady_with_both():
    bench = Bench(link=Link())
    bench.link.is_linked = False
    bench.run(40)
    assert gaps(bench.led) == {150}, bench.led.changes
    bench.link.is_linked = True
    bench.led.changes.clear()
    bench.run(100)
    assert gaps(bench.led) == {1000}, bench.led.changes
    bench.client.is_connected = True
    bench.led.changes.clear()
    bench.run(100)
    assert [value for _, value in bench.led.changes] in ([1], []), bench.led.changes


def gaps(led):
    """The times between two changes, the first one aside: it belongs to what was before."""
    times = [at for at, _ in led.changes][1:]
    return {later - earlier for earlier, later in zip(times, times[1:])}


def test_an_led_that_hangs_on_the_supply_shines_at_0():
    bench = Bench(led_on=0)
    bench.client.is_connected = True
    bench.run(1)
    assert bench.led.changes[-1][1] == 0
    bench.client.is_connected = False
    bench.run(1)
    assert bench.led.changes[-1][1] == 1


def test_the_led_is_touched_only_when_it_changes():
    bench = Bench()
    bench.client.is_connected = True
    bench.run(100)
    assert len(bench.led.changes) == 1


def test_the_led_tells_of_a_loss_at_once_however_long_nothing_was_missing():
    """Ticks that lie more than 6.2 days back look like a time to come."""
    bench = Bench(link=Link())
    bench.run(1)  # a change, and with it the time of the next one
    for days in (1, 6, 7, 9, 12, 13, 20):
        bench.client.is_connected = True
        for _ in range(24 * days):
            bench.clock.advance(3_600_000)
            bench.run(1)
        bench.client.is_connected = False
        bench.led.changes.clear()
        bench.run(1)
        assert [value for _, value in bench.led.changes] == [0], days


def test_a_link_that_is_down_for_too_long_resets_the_board():
    bench = Bench(link=Link(), reset_after_s=10)
    bench.link.is_linked = False
    bench.run(200)
    bench.link.is_linked = True
    bench.run(1)
    bench.link.is_linked = False
    bench.run(200)  # counted from the begin
    raises(Reset, bench.run, 2)


def test_it_needs_no_memory_for_that():
    bench = Bench(link=Link(), reset_after_s=1)
    bench.link.is_linked = False
    bench.run(20)
    station.print = no_memory
    try:
        raises(Reset, bench.run, 2)
    finally:
        del station.print


def test_a_server_that_is_away_never_resets_the_board():
    bench = Bench(link=Link(), reset_after_s=1)
    for _ in range(100):
        bench.run(1)
        bench.clock.advance(60_000)


def test_it_counts_seconds_those_without_server_and_connections():
    bench = Bench(link=Link())
    bench.run(50)  # 2.5 s
    for _ in range(2):
        bench.client.is_connected = True
        bench.run(70)
        bench.client.is_connected = False
        bench.run(10)
    assert bench.station.connections == 2
    assert (bench.station.uptime_s, bench.station.offline_s) == (10, 2)
    bench.clock.advance(100_000)  # a callback that took its time
    bench.run(1)
    assert bench.station.uptime_s == 110


def test_what_a_program_had_counted_stays_when_it_ends_and_the_client_does_not():
    bench = Bench()
    bench.use_keys()
    bench.client.state_name = "ONLINE"
    bench.client.stats = {"sent": 3}
    station.gc = Gc()

    def program():
        assert station.latest is bench.station
        bench.client.is_connected = True
        bench.run(30)
        raise KeyboardInterrupt

    try:
        boot(program, None, 0)
    except KeyboardInterrupt:
        pass
    latest = station.latest
    assert (latest.uptime_s, latest.offline_s, latest.connections) == (1, 0, 1)
    assert latest.told == ["ONLINE", {"sent": 3}, 12_345]
    assert bench.client not in latest.__dict__.values()


def test_without_memory_for_what_a_client_tells_the_program_ends_as_it_did():
    bench = Bench()
    bench.use_keys()

    class Full(Gc):
        def collect(self):
            raise MemoryError

    station.gc = Full()

    def program():
        raise KeyboardInterrupt

    try:
        boot(program, None, 0)
    except KeyboardInterrupt:
        assert station.latest.told is None
        return
    raise AssertionError("it was swallowed")


def test_wrong_arguments_are_told():
    raises(ValueError, Station, None, watchdog_s=17)
    raises(ValueError, Station, None, watchdog_s=-1)
    raises(ValueError, Station, None, reset_after_s=86_401)


def test_a_key_or_the_button_keeps_the_program_from_starting():
    bench = Bench()
    keys = bench.use_keys(b"x")
    assert not is_wanted(None, 2)
    assert keys.typed == b"", "the key is not left to the REPL"
    bench.use_keys()
    assert not is_wanted(lambda: True, 2)
    began_ms = bench.clock.now_ms
    assert is_wanted(lambda: False, 2)
    assert 2_000 <= bench.clock.now_ms - began_ms <= 2_050


# A glitch of the line is a start bit, or that and some zeros, before ones: 0xff, 0xfe, 0xfc ...
def test_noise_on_the_line_is_no_key_and_keeps_no_program_from_starting():
    bench = Bench()
    noise = b"\xff\xfe\xfc\xf8\xf0\xe0\xc0\x80\x00"
    bench.use_keys(noise)
    began_ms = bench.clock.now_ms
    assert is_wanted(None, 2)
    assert 2_000 <= bench.clock.now_ms - began_ms <= 2_050
    keys = bench.use_keys(noise + b"xy")
    assert not is_wanted(None, 2)
    assert keys.typed == b"y"


def test_a_line_that_makes_noise_without_end_is_waited_for_no_longer():
    bench = Bench()
    bench.use_keys(bytes(1_000))
    assert is_wanted(None, 2)


def test_a_program_that_fails_resets_the_board_after_a_while_and_keeps_the_watchdog_fed():
    bench = Bench()
    bench.use_keys()
    station.watchdog = dog = Dog(8_000)
    printed = []
    station.print_exception = printed.append

    def fail():
        raise KeyError("by the test")

    began_ms = bench.clock.now_ms
    raises(Reset, boot, fail, None, 0)
    assert bench.clock.now_ms - began_ms >= 5_000
    assert dog.meals >= 4 and isinstance(printed[0], KeyError)


def no_memory(*arguments):
    raise MemoryError


def test_without_memory_to_tell_why_it_failed_the_board_is_reset_all_the_same():
    bench = Bench()
    bench.use_keys()
    for told in (no_memory, lambda error: None):
        station.print_exception = told

        def fail():
            station.print = no_memory
            raise KeyError("by the test")

        began_ms = bench.clock.now_ms
        try:
            raises(Reset, boot, fail, None, 0)
        finally:
            del station.print
        assert bench.clock.now_ms - began_ms >= 5_000


kept = None


def test_a_program_that_has_filled_the_heap_for_good_resets_the_board():
    import gc
    import sys

    if not hasattr(gc, "mem_alloc"):
        raise SkipTest("CPython's heap is not filled in a moment")
    bench = Bench()
    bench.use_keys()
    station.print_exception = sys.print_exception
    station.gc = gc
    machine = bench.machine
    machine.is_reset = False

    def reset():
        machine.is_reset = True

    machine.reset = reset

    def fill():
        global kept
        while True:
            kept = (kept,)  # the smallest piece: nothing finds room beside it

    global kept
    try:
        boot(fill, None, 0)
    finally:
        kept = None
    assert machine.is_reset


def test_a_program_s_end_is_let_through_by_a_client_that_can_not_tell_how_it_was():
    """SystemExit leads to the prompt, as Ctrl-C does."""
    bench = Bench()
    bench.use_keys()
    station.gc = Gc()

    class Broken:
        @property
        def state_name(self):
            raise ValueError

    def end():
        station.latest._client = Broken()
        raise SystemExit

    try:
        boot(end, None, 0)
    except SystemExit:
        return
    raise AssertionError("it was swallowed")


def test_ctrl_c_while_it_waits_for_the_reset_prevents_it_and_keeps_what_was_told():
    bench = Bench()
    bench.use_keys()
    bench.client.state_name = "ONLINE"
    station.gc = Gc()
    station.print_exception = lambda error: None

    def interrupted(time_ms):
        raise KeyboardInterrupt

    def fail():
        station.sleep_ms = interrupted
        raise KeyError("by the test")

    try:
        boot(fail, None, 0)
    except KeyboardInterrupt:
        assert station.latest.told[0] == "ONLINE"
        return
    raise AssertionError("it was swallowed")


def test_ctrl_c_goes_through_and_resets_nothing():
    bench = Bench()
    bench.use_keys()

    def interrupted():
        raise KeyboardInterrupt

    try:
        boot(interrupted, None, 0)
    except KeyboardInterrupt:
        return
    raise AssertionError("it was swallowed")


def test_a_round_allocates_nothing_but_for_the_led():
    import gc

    if not hasattr(gc, "mem_alloc"):
        raise SkipTest("CPython does not tell")
    bench = Bench(link=Link(), watchdog_s=8)
    bench.client.step = lambda timeout_ms: None
    bench.client.is_connected = True
    step = bench.station.step
    step(0)
    gc.collect()
    gc.disable()
    try:
        before = gc.mem_alloc()
        for _ in range(20):
            step(0)
        allocated = gc.mem_alloc() - before
    finally:
        gc.enable()
    assert allocated == 0, allocated
