"""A clock, a Wi-Fi driver and a network module for the tests of the board files: nothing waits.

The client's own fakes would do for the clock, but bring the client with them, for which there is
no room beside these tests in a board's heap.
"""

import wifi_core
from wifi_core import WifiCore

STATUS_IDLE = 1000


class SkipTest(Exception):
    """This interpreter can't run the test; the message says why."""


class Clock:
    """ticks_ms() that stands still until it is told to go on; wraps at 2**30."""

    MASK = 0x3FFFFFFF  # no arithmetic here leaves the small integers of a 32-bit board
    HALF = 0x20000000

    def __init__(self, now_ms=1000):
        self.now_ms = now_ms

    def ticks_ms(self):
        return self.now_ms

    def ticks_add(self, ticks, delta):
        return ticks + delta & self.MASK

    def ticks_diff(self, end, start):
        apart = end - start & self.MASK
        return apart if apart < self.HALF else apart - self.HALF - self.HALF

    def advance(self, ms):
        self.now_ms = self.now_ms + ms & self.MASK


def raises(kind, function, *arguments, **options):
    """Call it; it must raise just `kind`. Returns the message."""
    try:
        function(*arguments, **options)
    except Exception as error:
        assert type(error) is kind, "%r instead of %s" % (error, kind)
        return str(error)
    raise AssertionError("%s was not raised" % kind)


class Driver:
    """Stands for network.WLAN: what it was told, and what the test makes it say."""

    def __init__(self, clock):
        self.clock = clock
        self.calls = []
        self.is_on = False
        self.is_linked = False
        self.own = "192.0.2.7"
        self.dns = "192.0.2.53"
        self.told = STATUS_IDLE  # what status() answers
        self.after_connect = None  # what status() answers after connect(); None: as before
        self.connect_error = None
        self.rssi = -50
        self.config_error = None

    def active(self, is_on=None):
        if is_on is None:
            return self.is_on
        self.calls.append("on" if is_on else "off")
        self.is_on = is_on
        if not is_on:
            self.is_linked = False

    def connect(self, name, password=None):
        assert self.is_on, "connect() with the interface off"
        assert not self.is_linked, "connect() while connected"
        self.calls.append(("connect", name, password))
        self.connected_ms = self.clock.now_ms
        if self.connect_error:
            raise self.connect_error
        if self.after_connect is not None:
            self.told = self.after_connect

    def disconnect(self):
        self.calls.append("disconnect")
        self.disconnected_ms = self.clock.now_ms
        self.is_linked = False

    def isconnected(self):
        return self.is_linked

    def status(self, what=None):
        if what is None:
            return self.told
        assert what == "rssi"
        if self.rssi is None:
            raise OSError("Wifi Not Connected")
        return self.rssi

    def config(self, **settings):
        self.calls.append(("config", settings))
        if self.config_error:
            raise self.config_error

    def ifconfig(self, address=None):
        if address is None:
            return (self.own, "255.255.255.0", "192.0.2.1", self.dns)
        self.calls.append(("ifconfig", address))

    def take_calls(self):
        calls, self.calls = self.calls, []
        return calls


class Network:
    """Stands for the module `network`."""

    STA_IF = 0

    def __init__(self, driver):
        self.driver = driver

    def WLAN(self, interface):
        assert interface == self.STA_IF
        return self.driver

    def country(self, code):
        self.driver.calls.append(("country", code))

    def hostname(self, name):
        self.driver.calls.append(("hostname", name))


class Port(WifiCore):
    """A port with figures of its own, all different."""

    PAUSE_MS = 1_000
    JOIN_MS = 20_000
    ADDRESS_MS = 15_000
    SETTLE_MS = 2_000
    REJOIN_MS = 3_000
    ASSOCIATED = 2
    REASONS = {201: "no access point of this name", 202: "refused: wrong password?"}


class WifiBench:
    def __init__(self, networks=("home", "password"), kind=Port, now_ms=1000, **options):
        self.clock = Clock(now_ms)
        self.driver = Driver(self.clock)
        self.year = 2026
        wifi_core.ticks_ms = self.clock.ticks_ms
        wifi_core.ticks_add = self.clock.ticks_add
        wifi_core.ticks_diff = self.clock.ticks_diff
        wifi_core.network = Network(self.driver)
        wifi_core.gmtime = lambda: (self.year, 1, 1, 0, 0, 0, 0, 1)
        self.events = []
        self.wifi = kind(networks, **options)
        self.wifi.on_up = lambda wifi: self.events.append("up")
        self.wifi.on_down = lambda wifi, reason: self.events.append(reason)

    def run(self, time_ms, every_ms=50):
        """Let time pass, step() all the while."""
        while time_ms > 0:
            self.wifi.step()
            self.clock.advance(min(every_ms, time_ms))
            time_ms -= every_ms
        self.wifi.step()

    def until(self, state_name, time_ms=60_000):
        """Let time pass until the supervisor is in a state; returns how long that took."""
        for passed_ms in range(0, time_ms, 50):
            self.wifi.step()
            if self.wifi.state_name == state_name:
                return passed_ms
            self.clock.advance(50)
        raise AssertionError("%s, never %s" % (self.wifi.state_name, state_name))

    def go_up(self):
        self.wifi.start()
        self.until("JOINING")
        self.driver.is_linked = True
        self.until("UP")
        self.driver.take_calls()
        self.events.clear()
        return self

    def take_events(self):
        events, self.events = self.events, []
        return events
