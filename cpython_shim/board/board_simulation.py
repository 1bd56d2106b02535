"""What surrounds a simulated board, and its hardware: radio, watchdog, pins, clock.

Theory
------
A test owns a `World`: a dict that says which Wi-Fi networks there are, what DHCP hands out, which
level a pin has. `Hardware` is the board's side of it. It knows what the drivers of an ESP32 or of
a Pico W know, and answers the board's programs:

    network.py machine.py ntptime.py  ->  board_bus.call("wlan_connect", ...)  ->  Hardware

Two boards are built on it. In one the program runs in this process (board_bus.py beside this
file, simulated_board.py). In the other real MicroPython runs in a process of its own, behind a
pseudo-terminal, and board_bus.py of that side carries the calls over (tests/board/). The modules
that a board's program imports are the same files in both.

Nothing here has a thread: `tick()` brings everything up to the present, and both boards see to it
that it is called all the time. So a test may do what it likes to the world while the board runs:
it is a plain dict.

Whence the behaviour
--------------------
From the sources; nothing was seen on real hardware. "esp32/…", "rp2/…" and "extmod/…" are files
of micropython/micropython, "cyw43_ctrl.c" is georgerobotics/cyw43-driver. Times are shorter than
a radio's, so that tests are quick: they are in the World, as are the options with a doubt.

Left out: access-point mode, roaming, IPv6, certificates for Wi-Fi, hidden networks, channels,
power saving (`pm` is only remembered), the real ports' errno numbers, bluetooth.
"""

import calendar
import threading
import time

# Reset causes. ESP32: reset_reason_t in esp32/modmachine.c. rp2 has PWRON and WDT only, and
# says WDT after machine.reset() too, which is made with the watchdog (rp2/modmachine.c).
PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
DEEPSLEEP_RESET = 4
SOFT_RESET = 5

# WLAN.status() of ESP32 (esp32/modnetwork.h, and wifi_err_reason_t of the IDF).
ESP32_IDLE = 1000
ESP32_CONNECTING = 1001
ESP32_GOT_IP = 1010
REASON_ASSOC_LEAVE = 8
REASON_BEACON_TIMEOUT = 200
REASON_NO_AP_FOUND = 201
REASON_AUTH_FAIL = 202
REASON_ASSOC_FAIL = 203

# WLAN.status() of rp2 (cyw43.h).
CYW43_DOWN = 0
CYW43_JOIN = 1
CYW43_NOIP = 2
CYW43_UP = 3
CYW43_FAIL = -1
CYW43_NONET = -2
CYW43_BADAUTH = -3

NO_ADDRESS = "0.0.0.0"
EPERM = 1

WDT_TIMEOUT_MAX_MS = 8388  # RP2040 (rp2/machine_wdt.c)

# What a clock says that nobody has set: ESP32 counts from here at power-on (esp32/main.c), rp2
# starts its timer with the second one (rp2/main.c).
EPOCH_2000_S = calendar.timegm((2000, 1, 1, 0, 0, 0))
EPOCH_2021_S = calendar.timegm((2021, 1, 1, 0, 0, 0))


def now_ms():
    """Return the milliseconds of a clock that only goes forward."""
    return time.monotonic_ns() // 1_000_000


class World(dict):
    """The surroundings of a board. Change it at any time; what each key means is said here."""

    def __init__(self, **changes):
        super().__init__(
            # ssid -> {"password": str or None, "rssi": dBm, and if wanted:
            #   "present": False       the access point is switched off
            #   "refuses": True        it answers, and does not let the board in
            #   "deaf": True           the board is joined, and not one packet passes
            #   "doubts": 2            the right password is called wrong so many times; seen on a
            #                          Pico W (cyw43-driver#150)
            #   "lease": (...)         its own, in place of the one below }
            networks={},
            # What DHCP hands out: address, netmask, gateway, DNS server.
            lease=("192.168.4.20", "255.255.255.0", "192.168.4.1", "192.168.4.1"),
            # From joined to having an address; None: the DHCP server is silent.
            dhcp_ms=20,
            # From connect() to joined, or to the news that the password is wrong (a real radio
            # takes 1 to 4 s).
            join_ms=30,
            # From connect() to the news that there is no such network; length of a scan().
            scan_ms=50,
            # From the access point's end to the board's noticing it (a real radio: 6 to 10 s).
            beacon_ms=60,
            # Weaker than this an access point is not found.
            rssi_min_dbm=-92,
            # ESP32: connect() sooner than this after disconnect(), or after an attempt that has
            # failed for good, gets stuck at 202 (peterhinch/micropython-mqtt#154). 0: never.
            esp32_pause_ms=500,
            # rp2: after a lost connection or a wrong password connect() does nothing until
            # active(False), active(True). The driver's source shows no reason for it; there are
            # reports of all kinds. A supervisor that lives with this one lives with the others.
            rp2_needs_restart=True,
            # rp2: the chip's firmware joins again by itself after a lost connection (seen:
            # embassy-rs/cyw43#10). The driver's source has nothing of the kind.
            rp2_rejoins=False,
            # Pins: number or name -> 0, 1 or a function without arguments that answers it.
            # A pin that is not here floats to its pull-up or pull-down.
            pins={},
            # A deep sleep ends after so many milliseconds, however long it was to be.
            deepsleep_ms_max=100,
            # Host name -> address, for the board's getaddrinfo() (else this machine is asked).
            hosts={},
            # (address, port) that the board asks for -> (address, port) on this machine.
            # ("192.168.4.1", 53): (...) gives the board a DNS server.
            routes={},
            # How long a TCP connection survives with the link down and bytes to send.
            tcp_give_up_ms=20_000,
            # The time server: True answers with this machine's time, False is silent, a number
            # is the seconds since 1970 that it answers.
            ntp=True,
        )
        self.update(changes)

    def add_network(self, ssid, password=None, rssi=-55, **details):
        """Put up an access point."""
        self["networks"][ssid] = dict(password=password, rssi=rssi, **details)

    def switch_off(self, ssid=None):
        """Switch off one access point, or all."""
        self._set("present", False, ssid)

    def switch_on(self, ssid=None):
        """Switch on one access point, or all."""
        self._set("present", True, ssid)

    def _set(self, key, value, ssid):
        for name, network in self["networks"].items():
            if ssid is None or name == ssid:
                network[key] = value

    def network(self, ssid):
        """Return the network of this name if the board can hear it, else None."""
        network = self["networks"].get(ssid)
        if not network or not network.get("present", True):
            return None
        if network.get("rssi", -55) < self["rssi_min_dbm"]:
            return None
        return network


class BoardError(Exception):
    """An error that the board's program shall see: `name` of a built-in exception, arguments."""

    def __init__(self, name, *arguments):
        super().__init__(name, *arguments)
        self.name = name
        self.arguments = arguments


# ---------------------------------------------------------------------------
# The radio: what both drivers share
# ---------------------------------------------------------------------------

_IDLE = "idle"
_JOINING = "joining"  # until _due_ms
_STUCK = "stuck"  # looks like joining, and nothing comes of it
_DHCP = "dhcp"  # joined, no address; until _due_ms
_UP = "up"  # joined, with an address


class _Radio:
    """A station interface. The subclasses are the two drivers."""

    def __init__(self, hardware):
        self.hardware = hardware
        self.world = hardware.world
        self.is_active = False
        self.phase = _IDLE
        self.ssid = None
        self.key = None
        self.static = None  # 4 strings set with ifconfig(); None: DHCP
        self.lease = None  # 4 strings
        self.generation = 0  # grows when the interface takes its sockets down with it
        self._due_ms = 0
        self._gone_since_ms = None  # the access point has not been heard since
        self.settings = {}

    def log(self, *words):
        self.hardware.log_event("wlan", *words)

    # -- what happens --

    def begin_join(self):
        self.phase = _JOINING
        is_heard = self.world.network(self.ssid) is not None
        self._due_ms = now_ms() + self.world["join_ms" if is_heard else "scan_ms"]
        self.log("joining", self.ssid)

    def tick(self):
        if self.phase == _JOINING and now_ms() >= self._due_ms:
            self._finish_join()
        elif self.phase == _DHCP:
            self._look_for_address()
        if self.phase in (_DHCP, _UP):
            self._listen_for_beacons()

    def _finish_join(self):
        network = self.world.network(self.ssid)
        if network is None:
            self.on_failed("no network")
        elif network.get("refuses"):
            self.on_failed("refused")
        elif (network.get("password") or "") != (self.key or ""):
            self.on_failed("wrong password")
        elif network.get("doubts"):
            network["doubts"] -= 1
            self.on_failed("wrong password")
        else:
            self.log("joined", self.ssid)
            self._gone_since_ms = None
            self.phase = _DHCP
            self._due_ms = now_ms()
            self._look_for_address()

    def _look_for_address(self):
        if self.static is None:
            dhcp_ms = self.world["dhcp_ms"]
            if dhcp_ms is None or now_ms() < self._due_ms + dhcp_ms:
                return
            network = self.world.network(self.ssid) or {}
            lease = tuple(network.get("lease", self.world["lease"]))
        else:
            lease = self.static
        if self.lease is not None and self.lease[0] != lease[0]:
            self.generation += 1  # lwIP aborts the connections of an address that is gone
        self.lease = lease
        self.phase = _UP
        self.log("up", lease[0])
        self.on_up()

    def _listen_for_beacons(self):
        if self.world.network(self.ssid) is not None:
            self._gone_since_ms = None
        elif self._gone_since_ms is None:
            self._gone_since_ms = now_ms()
        elif now_ms() - self._gone_since_ms >= self.world["beacon_ms"]:
            self.log("lost", self.ssid)
            self.on_lost()

    def on_up(self):
        """For the subclass: there is an address."""

    # -- what the program asks --

    def is_connected(self):
        return self.phase == _UP

    def does_traffic_flow(self):
        network = self.world.network(self.ssid)
        return self.phase == _UP and network is not None and not network.get("deaf")

    def addresses(self):
        if self.static is not None:
            return self.static
        if self.lease is not None and self.keeps_lease(self.phase):
            return self.lease
        return (NO_ADDRESS,) * 4

    def set_static(self, addresses):
        self.static = None if addresses is None else tuple(str(part) for part in addresses)
        if self.phase == _UP:  # at once, as both drivers do; back to DHCP asks for a lease anew
            self.phase = _DHCP
            self._due_ms = now_ms()
            self._look_for_address()

    def rssi(self):
        network = self.world.network(self.ssid) if self.phase in (_DHCP, _UP) else None
        return network.get("rssi", -55) if network else None

    def take_down(self):
        if self.lease is not None:
            self.generation += 1
        self.lease = None
        self.phase = _IDLE
        self._gone_since_ms = None


# ---------------------------------------------------------------------------
# The radio of an ESP32 (esp32/network_wlan.c)
# ---------------------------------------------------------------------------


class _Esp32Radio(_Radio):
    """The driver keeps on by itself after a failure, and says why the last attempt failed."""

    def __init__(self, hardware):
        super().__init__(hardware)
        self._reason = 0  # wifi_sta_disconn_reason: cleared by an address, and by nothing else
        self._is_requested = False  # wifi_sta_connect_requested
        self._reconnects_max = -1  # config(reconnects=): -1 is for ever
        self._reconnects = 0
        self._quiet_since_ms = None  # the end of disconnect() or of the last attempt

    def keeps_lease(self, phase):
        return phase == _UP

    def active(self, is_active):
        if is_active is not None and bool(is_active) != self.is_active:
            self.is_active = bool(is_active)
            self.log("active", self.is_active)
            if self.is_active:
                self._reconnects = 0  # WIFI_EVENT_STA_START
            else:
                if self.phase != _IDLE:
                    self._reason = REASON_ASSOC_LEAVE
                self.take_down()
            self._quiet_since_ms = None
        return self.is_active

    def connect(self, ssid, key):
        if not self.is_active:
            raise BoardError("OSError", "Wifi Not Started")
        if ssid is not None:
            if self.phase == _JOINING:
                # "sta is connecting, return error" (ESP_ERR_WIFI_CONN; micropython#7139, #17661),
                # which is the state of things as long as the driver tries by itself: it needs a
                # disconnect() first. (From IDF 5.5 on it is "Wifi Internal State Error".)
                raise BoardError("OSError", "Wifi Internal Error")
            if self.phase in (_DHCP, _UP):
                # esp_wifi_connect(): "sta is connected, disconnect before connecting to new ap".
                self._is_requested = True
                return
            self.ssid, self.key = ssid, key
        self._reconnects = 0
        self._is_requested = True
        if self.phase in (_JOINING, _DHCP, _UP):
            return
        pause_ms = self.world["esp32_pause_ms"]
        if self._quiet_since_ms is not None and now_ms() - self._quiet_since_ms < pause_ms:
            self.log("stuck", "connect() too early")
            self._reason = REASON_AUTH_FAIL
            self._quiet_since_ms = now_ms()
            self.phase = _STUCK
            return
        self.begin_join()

    def disconnect(self):
        if not self.is_active:
            raise BoardError("OSError", "Wifi Not Started")
        self._is_requested = False
        if self.phase != _IDLE:
            self.log("disconnected")
            self._reason = REASON_ASSOC_LEAVE
            self._quiet_since_ms = now_ms()
        self.phase = _IDLE

    def on_up(self):
        self._reason = 0

    def on_failed(self, why):
        self.log("failed", why)
        self._end_attempt(
            {
                "no network": REASON_NO_AP_FOUND,
                "refused": REASON_ASSOC_FAIL,
                "wrong password": REASON_AUTH_FAIL,
            }[why]
        )

    def on_lost(self):
        self._end_attempt(REASON_BEACON_TIMEOUT)

    # WIFI_EVENT_STA_DISCONNECTED of network_wlan_wifi_event_handler().
    def _end_attempt(self, reason):
        self._reason = reason
        self.phase = _IDLE
        self._gone_since_ms = None
        if self._is_requested:
            if self._reconnects_max >= 0:
                self._reconnects += 1
                if self._reconnects >= self._reconnects_max + 1:
                    self._quiet_since_ms = now_ms()
                    return
            self.begin_join()

    def status(self):
        if self.phase == _UP:
            return ESP32_GOT_IP
        if self._reason in (REASON_NO_AP_FOUND, REASON_AUTH_FAIL):
            return self._reason
        if self._reason == REASON_ASSOC_LEAVE:
            return ESP32_IDLE
        is_endless = self._reconnects_max < 0
        if self._is_requested and (is_endless or self._reconnects < self._reconnects_max + 1):
            return ESP32_CONNECTING
        return self._reason or ESP32_IDLE

    def read_rssi(self):
        rssi = self.rssi()
        if rssi is None:
            raise BoardError("OSError", "Wifi Not Connected")
        return rssi

    def scan(self):
        if not self.is_active:
            raise BoardError("OSError", "STA must be active")
        return [(*found, False) for found in self.hardware.heard_networks()]

    GET = ("mac", "ssid", "essid", "channel", "hostname", "dhcp_hostname", "reconnects", "txpower")
    GET += ("protocol", "pm", "security", "authmode", "bandwidth", "ifname", "hidden")
    SET = ("mac", "channel", "hostname", "dhcp_hostname", "reconnects", "txpower", "protocol")
    SET += ("pm", "bandwidth")
    AP_ONLY = ("hidden", "security", "authmode", "key", "password", "max_clients")
    DEFAULTS = dict(channel=0, txpower=20.0, protocol=7, pm=1, bandwidth=2, ifname="st1")

    def config_get(self, name):
        if name == "reconnects":
            return self._reconnects_max
        if name in self.AP_ONLY:
            raise BoardError("OSError", "AP required")
        return None

    def config_set(self, name, value):
        if name in self.AP_ONLY + ("ssid", "essid"):
            raise BoardError("OSError", "AP required")
        if name == "reconnects":
            self._reconnects_max = value


# ---------------------------------------------------------------------------
# The radio of a Pico W (extmod/network_cyw43.c, cyw43_ctrl.c, cyw43_lwip.c)
# ---------------------------------------------------------------------------


class _Cyw43Radio(_Radio):
    """The driver tries once, remembers the outcome, and does nothing about a lost connection."""

    def __init__(self, hardware):
        super().__init__(hardware)
        self._join_state = CYW43_DOWN  # as cyw43_wifi_link_status() answers it
        self._needs_restart = False
        self._is_rejoining = False

    # netif_set_link_down() leaves the address as it is; it goes with the interface.
    def keeps_lease(self, phase):
        return True

    def active(self, is_active):
        if is_active is None:
            return self.is_active
        if bool(is_active) != self.is_active:
            self.is_active = bool(is_active)
            self.log("active", self.is_active)
            if not self.is_active:
                self.take_down()
            self._join_state = CYW43_DOWN
            self._needs_restart = self._is_rejoining = False
            self.static = None  # cyw43_cb_tcpip_init() begins with DHCP
        return None

    def connect(self, ssid, key):
        if not self.is_active:
            raise BoardError("OSError", EPERM)
        self.ssid, self.key = ssid, key
        self._join_state = CYW43_JOIN
        self._is_rejoining = False
        self.phase = _STUCK
        if self._needs_restart and self.world["rp2_needs_restart"]:
            self.log("stuck", "connect() without active(False), active(True)")
            return
        self.begin_join()

    def disconnect(self):
        if self.phase != _IDLE:
            self.log("disconnected")
        self.phase = _IDLE
        self._is_rejoining = False
        self._join_state = CYW43_DOWN  # CYW43_EV_DISASSOC

    def on_failed(self, why):
        self.log("failed", why)
        if why == "no network" and self._is_rejoining:
            self.begin_join()
            return
        self.phase = _IDLE
        self._join_state = {
            "no network": CYW43_NONET,
            "refused": CYW43_FAIL,
            "wrong password": CYW43_BADAUTH,
        }[why]
        self._needs_restart = why == "wrong password"

    # CYW43_EV_LINK with "down": the join state stays "active", so status() is 1 from now on.
    def on_lost(self):
        self.phase = _IDLE
        self._gone_since_ms = None
        self._join_state = CYW43_JOIN
        self._is_rejoining = self.world["rp2_rejoins"]
        if self._is_rejoining:
            self.begin_join()
        else:
            self._needs_restart = True

    def status(self):
        if self.phase == _UP:
            return CYW43_UP
        if self.phase == _DHCP:
            return CYW43_NOIP
        return self._join_state

    # cyw43_wifi_get_rssi() fails silently, and what was on the stack is answered: here 0.
    def read_rssi(self):
        return self.rssi() or 0

    def scan(self):
        if not self.is_active:
            raise BoardError("OSError", EPERM)
        return [(*found, 1) for found in self.hardware.heard_networks()]

    GET = ("antenna", "channel", "ssid", "essid", "security", "mac", "pm", "txpower", "hostname")
    SET = ("antenna", "channel", "ssid", "essid", "monitor", "security", "key", "password", "pm")
    SET += ("trace", "txpower", "hostname")
    AP_ONLY = ()
    DEFAULTS = dict(antenna=0, channel=6, security=0, pm=0xA11142, txpower=31)

    def config_get(self, name):
        return None

    def config_set(self, name, value):
        if name in ("ssid", "essid", "key", "password", "security", "channel"):
            self.settings.pop(name, None)  # of the access point, which is not simulated


# ---------------------------------------------------------------------------
# The board
# ---------------------------------------------------------------------------


class Hardware:
    """A board's hardware: the world in, `call()` from the board's program, a log of events."""

    def __init__(self, machine, world=None, firmware=(1, 25, 0), unique_id=None, pull_reset=None):
        """Make a board that is switched off.

        Args:
            machine: as sys.implementation._machine has it; "ESP32" in it makes an ESP32.
            world: World.
            unique_id: bytes; None: made up from the machine's name.
            pull_reset: pull_reset(cause) ends the running program and starts anew.
        """
        self.machine = machine
        self.port = "esp32" if "ESP32" in machine.upper() else "rp2"
        self.is_rp2350 = "RP2350" in machine.upper()
        self.world = World() if world is None else world
        self.firmware = firmware
        id_bytes = 6 if self.port == "esp32" else 8
        self.unique_id = unique_id or (machine.encode() + b"01234567")[-id_bytes:]
        self.log = []  # (seconds since the first power-on, kind, details...)
        self.pins = {}  # name -> [mode, pull, level]
        self._pull_reset = pull_reset or (lambda cause: None)
        self._lock = threading.RLock()
        self._born_ms = now_ms()
        self._clock_offset_s = 0.0
        self._wdt_timeout_ms = None
        self._wdt_deadline_ms = 0
        self._wdt_is_due = False
        self._wake_ms = None  # the end of a deep sleep
        self._seen_inputs = {}
        self.reset_cause = PWRON_RESET
        self.hostname = "mpy-esp32" if self.port == "esp32" else "PicoW"
        self.country = "XX"
        self.radio = None
        self.start(PWRON_RESET)
        self.log.clear()

    def log_event(self, kind, *details):
        """Add one event to the log."""
        self.log.append(((now_ms() - self._born_ms) / 1000, kind, *details))

    def events(self, kind):
        """Return the details of all events of one kind, oldest first."""
        return [event[2:] for event in list(self.log) if event[1] == kind]

    def start(self, cause):
        """Begin anew, as the chip does with its reset line."""
        with self._lock:
            is_esp32 = self.port == "esp32"
            generation = self.radio.generation if self.radio else 0
            self.radio = _Esp32Radio(self) if is_esp32 else _Cyw43Radio(self)
            self.radio.generation = generation + 1
            self.pins.clear()
            self._wdt_timeout_ms = None
            self._wdt_is_due = False
            self._wake_ms = None
            self.hostname = "mpy-esp32" if is_esp32 else "PicoW"
            self.country = "XX"
            # ESP32 keeps its clock through a reset that leaves the power on; rp2 does not.
            if cause == PWRON_RESET or not is_esp32:
                self.set_clock(EPOCH_2000_S if is_esp32 else EPOCH_2021_S)
            if not is_esp32 and cause in (HARD_RESET, DEEPSLEEP_RESET):
                cause = WDT_RESET  # rp2's deepsleep() is a lightsleep() and a reset
            self.reset_cause = cause
            self.log_event("start", cause)

    def soft_reset(self):
        """What a soft reset does to the hardware: very little."""
        with self._lock:
            # Both ports leave Wi-Fi, watchdog and clock as they are (soft_reset_exit in main.c).
            self.pins.clear()
            if self.port == "esp32":
                self.reset_cause = SOFT_RESET
            self.radio.generation += 1  # no socket survives: gc_sweep_all() closes them
            self.log_event("soft reset")

    def tick(self):
        """Bring everything up to the present."""
        with self._lock:
            self.radio.tick()
            for name, pin in list(self.pins.items()):
                if pin[0] == "in":
                    level = self._input(name)
                    if self._seen_inputs.get(name) != level:
                        self._seen_inputs[name] = level
                        self.log_event("input", name, level)
            if self._wdt_timeout_ms and now_ms() >= self._wdt_deadline_ms:
                if not self._wdt_is_due:
                    self._wdt_is_due = True
                    self.log_event("watchdog", self._wdt_timeout_ms)
                    self._pull_reset(WDT_RESET)

            if self._wake_ms is not None and now_ms() >= self._wake_ms:
                self._wake_ms = None
                self._pull_reset(DEEPSLEEP_RESET)

    def call(self, name, *arguments):
        """Do what a module of the board asks for.

        Raises:
            BoardError: what the module shall raise.
        """
        with self._lock:
            self.tick()
            try:
                return getattr(self, "_do_" + name)(*arguments)
            finally:
                self.radio.tick()  # times of 0 ms end at once

    # -- state that is looked at often, and not called for --

    def does_traffic_flow(self):
        """Return whether packets pass."""
        return self.radio.does_traffic_flow()

    def is_connected(self):
        """Return what WLAN.isconnected() says."""
        return self.radio.is_connected()

    def feed(self):
        """Feed the watchdog."""
        if self._wdt_timeout_ms:
            self._wdt_deadline_ms = now_ms() + self._wdt_timeout_ms

    # -- network --

    def _do_wlan_active(self, is_active):
        return self.radio.active(is_active)

    def _do_wlan_connect(self, ssid, key):
        self.radio.connect(ssid, key)

    def _do_wlan_disconnect(self):
        self.radio.disconnect()

    def _do_wlan_status(self):
        return self.radio.status()

    def _do_wlan_rssi(self):
        return self.radio.read_rssi()

    def _do_wlan_addresses(self):
        return self.radio.addresses()

    def _do_wlan_has_dhcp(self):
        return self.radio.static is None and self.radio.phase == _UP

    def _do_wlan_is_dhcp(self):
        return self.radio.static is None

    def _do_wlan_set_addresses(self, addresses):
        self.radio.set_static(addresses)

    def _do_wlan_scan(self):
        return self.world["scan_ms"], self.radio.scan()

    def _do_wlan_config_get(self, name):
        radio = self.radio
        if name in ("hostname", "dhcp_hostname") and name in radio.GET:
            return self.hostname
        if name == "mac":
            return self.mac()
        if name not in radio.GET + radio.AP_ONLY:
            raise BoardError("ValueError", "unknown config param")
        value = radio.config_get(name)
        if value is None and name in ("ssid", "essid"):
            value = radio.ssid or ""
        if value is None:
            value = radio.settings.get(name, radio.DEFAULTS.get(name))
        return value

    def _do_wlan_config_set(self, settings):
        radio = self.radio
        for name, value in settings.items():
            if name not in radio.SET + radio.AP_ONLY + ("ssid", "essid"):
                raise BoardError("ValueError", "unknown config param")
            if name in ("hostname", "dhcp_hostname"):
                self._do_hostname(value)
                continue
            radio.settings[name] = value
            radio.config_set(name, value)
            self.log_event("wlan", "config", name, "..." if name in ("key", "password") else value)

    def _do_hostname(self, name):
        if name is not None:
            if len(name.encode()) > 32:  # MICROPY_PY_NETWORK_HOSTNAME_MAX_LEN
                raise BoardError("ValueError")
            self.hostname = name
            self.log_event("hostname", name)
        return self.hostname

    def _do_country(self, code):
        if code is not None:
            if len(code) != 2:
                raise BoardError("ValueError")
            self.country = code
            self.log_event("country", code)
        return self.country

    def mac(self):
        """Return the radio's address. An ESP32's identity is made of it."""
        if self.port == "esp32":
            return self.unique_id
        return b"\x28\xcd\xc1" + self.unique_id[-3:]

    def heard_networks(self):
        """Return (ssid, bssid, channel, rssi, security) of each network, strongest first."""
        found = []
        for number, ssid in enumerate(self.world["networks"]):
            network = self.world.network(ssid)
            if network:
                bssid = b"\x02\x00\x00\x00\x00" + bytes((number,))
                security = (3 if self.port == "esp32" else 5) if network.get("password") else 0
                found.append((ssid.encode(), bssid, 6, network.get("rssi", -55), security))
        return sorted(found, key=lambda entry: -entry[3])

    # What the board's own names and addresses are on this machine. With the link down there is
    # no answer, or none ever: the socket modules see to that.
    def _do_resolve(self, host):
        return self.world["hosts"].get(host)

    def _do_route(self, address, port):
        return self.world["routes"].get((address, port), (address, port))

    def _do_tcp_give_up_ms(self):
        return self.world["tcp_give_up_ms"]

    def _do_ntp(self):
        answer = self.world["ntp"]
        if not self.does_traffic_flow() or answer is False or answer is None:
            return None
        self.log_event("ntp")
        return time.time() if answer is True else answer

    # -- machine --

    def _do_unique_id(self):
        return self.unique_id

    def _do_reset_cause(self):
        return self.reset_cause

    def _do_reset(self):
        self.log_event("reset")
        self._pull_reset(HARD_RESET)

    def _do_deepsleep(self, time_ms):
        self.log_event("deep sleep", time_ms)
        self.radio.take_down()
        self.radio.is_active = False
        self._wdt_timeout_ms = None
        self._wake_ms = now_ms() + min(time_ms, self.world["deepsleep_ms_max"])

    def _do_wdt_start(self, timeout_ms):
        if self.port == "esp32":
            if timeout_ms <= 0:
                raise BoardError("ValueError", "WDT timeout too short")
        elif not 0 <= timeout_ms <= (16777 if self.is_rp2350 else WDT_TIMEOUT_MAX_MS):
            limit = 16777 if self.is_rp2350 else WDT_TIMEOUT_MAX_MS
            raise BoardError("ValueError", "timeout exceeds %d" % limit)
        self._wdt_timeout_ms = timeout_ms
        self._wdt_deadline_ms = now_ms() + timeout_ms
        self.log_event("watchdog started", timeout_ms)

    def _do_pin_init(self, name, mode, pull, level):
        pin = self.pins.get(name)
        if pin is None:
            pin = self.pins[name] = ["in", None, 0]
        if mode is not None:
            pin[0] = mode
            pin[1] = pull
        if level is not None:
            self._drive(name, pin, level)

    def _drive(self, name, pin, level):
        pin[2] = level
        self.log_event("pin", name, level)

    def _input(self, name):
        level = self.world["pins"].get(name)
        if level is None:
            return 1 if self.pins[name][1] == "up" else 0
        return int(level() if callable(level) else level)

    def _do_pin_get(self, name):
        pin = self.pins[name]
        return self._input(name) if pin[0] == "in" else pin[2]

    def _do_pin_set(self, name, level):
        self._drive(name, self.pins[name], level)

    def _do_bootsel(self):
        level = self.world["pins"].get("BOOTSEL", 0)
        return int(level() if callable(level) else level)

    # -- the clock --

    def clock_s(self):
        """Return the seconds since 1970 that the board believes in."""
        return time.time() + self._clock_offset_s

    def set_clock(self, seconds):
        """Set the clock to seconds since 1970."""
        self._clock_offset_s = seconds - time.time()

    def _do_clock_offset_s(self):
        return self._clock_offset_s

    def _do_set_clock(self, seconds):
        self.set_clock(seconds)
        self.log_event("clock set", int(seconds))
        return self._clock_offset_s
