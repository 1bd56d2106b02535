"""Keeps a board on its Wi-Fi without ever waiting: what is the same on every port.

Theory of operation
-------------------
    OFF -> RESTING -> JOINING -> ADDRESSING -> CLOCK -> UP -> LOST -> UP, or RESTING ...

`step()` looks at the driver four times a second and moves one state machine; between two looks it
does nothing. The driver does its work by itself, in the background. Each state but OFF and UP has
a deadline, and what misses it goes to RESTING: the network is left, a pause follows, the next
network is tried. A network that gives no address, and as many failures in a row as the port says,
also switch the interface off and on, which cures what a driver has got itself into.

Only what Wi-Fi itself does moves these states. A server that can't be reached does not: the client
knows nothing that this file could be asked, but for `is_up()` and `dns_servers()`.

There is no scan. scan() blocks for seconds on both ports (ESP32: esp_wifi_scan_start() with
block=1, ports/esp32/network_wlan.c; rp2: a wait of up to 10 s, extmod/network_cyw43.c), and a
board would miss its watchdog and its user. So networks are tried by name: first those whose signal
was the strongest when we were last with them, then the others in the order given.

What differs by port is in the class `Wifi` of the port's own wifi.py.

Rules for this file
-------------------
1. A state changes only in `_move()`, along _NEXT_STATE.
2. A wait is a deadline in `_due_ms`. Nothing sleeps.
3. Neither a network's name nor its password is ever printed or put into an error.
4. Nothing that a driver, a server or a full heap raises leaves start(), stop() or step().
   `except Exception`, no tuple of kinds: that would be made when there is no memory for it.
"""

try:
    import socket
    from errno import EAGAIN
    from os import urandom
    from time import gmtime, ticks_add, ticks_diff, ticks_ms

    from micropython import const
except ImportError:  # CPython
    from os import urandom

    import shim_socket as socket
    from shim_errno import EAGAIN
    from shim_micropython import const
    from shim_time import gmtime, ticks_add, ticks_diff, ticks_ms

try:
    import network

    from machine import RTC
except ImportError:  # MicroPython's unix port: tests put theirs here
    network = RTC = None

_LOOK_MS = const(250)  # how often the driver is looked at
# Once in so many looks while UP: that there is an address still, and the signal. It allocates
# the four texts of ifconfig().
_LOOKS_PER_CHECK = const(20)
_FULL_LOOKS_MAX = const(240)  # a minute
# No state waits for longer. So a deadline that lies further ahead has passed: after more than half
# a turn of ticks_ms(), 6.2 days without a step(), it looks like one to come.
_WAIT_MS_MAX = const(3_600_000)
_CLOCK_MS = const(10_000)  # for so long an unset clock may keep a link from being UP
_PAUSE_MAX_MS = const(10_000)  # after all networks have failed again and again

# The states, as in `Wifi.state`.
_OFF = const(0)  # nothing is wanted
_RESTING = const(1)  # the pause before the next attempt
_JOINING = const(2)  # the driver looks for the network and logs in
_ADDRESSING = const(3)  # it is in, but has no address (yet, or no more)
_CLOCK = const(4)  # with an address; the time is asked for, if that is wanted
_UP = const(5)  # in service
_LOST = const(6)  # the link broke; the driver may mend it by itself

STATE_NAMES = ("OFF", "RESTING", "JOINING", "ADDRESSING", "CLOCK", "UP", "LOST")

# The events: the columns of _NEXT_STATE.
_START = const(0)
_ATTEMPT = const(1)  # the pause is over
_ASSOCIATED = const(2)  # in, without an address
_ADDRESSED = const(3)  # in, with an address
_READY = const(4)  # the clock is set, or need not or can not be
_DROPPED = const(5)  # the link broke
_FAILED = const(6)  # this attempt has ended
_STOP = const(7)
_EVENTS = const(8)

# Row: state. Column: event. Cell: next state; _X: the event is illegal there.
_X = const(0xFF)
_NEXT_STATE = const(
    b"\x01\xff\xff\xff\xff\xff\xff\x00"  # OFF
    b"\xff\x02\xff\xff\xff\xff\x01\x00"  # RESTING
    b"\xff\xff\x03\x04\xff\xff\x01\x00"  # JOINING
    b"\xff\xff\xff\x04\xff\xff\x01\x00"  # ADDRESSING
    b"\xff\xff\x03\xff\x05\x06\x01\x00"  # CLOCK
    b"\xff\xff\x03\xff\xff\x06\x01\x00"  # UP
    b"\xff\xff\x03\x04\xff\xff\x01\x00"  # LOST
)

# SNTP (RFC 4330).
_NTP_PORT = const(123)
_DNS_PORT = const(53)
_NTP_ANSWER_MS = const(3_000)  # then the next server is asked
# The same server is asked again after 15 s at the earliest (section 10, rule 1), and after longer
# and longer if none answers, until the link breaks: hurry().
_NTP_RETRY_MS = const(15_000)
_NTP_RETRY_DOUBLINGS = const(8)
_NTP_AGAIN_MS = const(86_400_000)  # a day: a clock drifts by seconds in it
_NTP_BYTES = const(48)
# 1 January 2024 and 2100 in seconds since 1900. What is less is of the era that begins in 2036.
_NTP_2024_S = const(3_913_056_000)
_NTP_2100_S = const(6_311_433_600)
_YEAR_MIN = const(2024)  # a clock that is behind was never set: boards begin in 2000 or 2021


class WifiCore:
    """The supervisor. Use `Wifi` of your port's wifi.py, which has the same arguments.

    Args:
        networks: (name, password), or a list of them; password None: an open network.
        address: None: from DHCP; else (address, netmask, gateway, DNS server).
        country: two letters, for the channels and power that are legal there.
        hostname: str, at most 32 bytes.
        power_save: None: the port's choice; else what the driver's config(pm=...) takes.
        ntp: name or address (str) of a time server, or several; () sets no clock. While the clock
            was never set, the link is UP at most 10 s later for it: TLS needs the date.
        dns: address (str) of a DNS server to be asked after the one of DHCP, or several.

    Attributes to set: on_up(wifi); on_down(wifi, reason): the link broke, or an attempt to get it
        has failed; reason is a str without any name or password.

    Attributes to read: state (an index into STATE_NAMES), state_name, reason (of the last
        failure, or ""), number (1..: of the network that is used or tried), signal_dbm (None: not
        known).

    Raises:
        ValueError: an argument is wrong; its text never shows a name or password.

    Allocates: a few hundred bytes, once. Blocks: see step().
    """

    # What a port says of itself; see boards/<board>/wifi.py.
    PAUSE_MS = 1_000  # between leaving a network and connect()
    JOIN_MS = 30_000  # from connect() to the address, or to association where that is told
    ADDRESS_MS = 20_000  # from association to the address
    SETTLE_MS = 0  # for so long a failure must stand before it is believed
    REJOIN_MS = 5_000  # for so long a driver may mend a broken link by itself
    BOUNCE_EVERY = 3  # so many failures in a row switch the interface off and on
    POWER_SAVE: "int | None" = None
    ASSOCIATED: "int | None" = None  # the status that tells of a link without an address
    REASONS: dict = {}  # status: what it means

    def __init__(
        self,
        networks: "list | tuple",
        address: "tuple | None" = None,
        country: "str | None" = None,
        hostname: "str | None" = None,
        power_save: "int | None" = None,
        ntp: "list | tuple | str" = (),
        dns: "list | tuple | str" = (),
    ) -> None:
        if isinstance(networks, tuple) and len(networks) == 2 and isinstance(networks[0], str):
            networks = (networks,)
        self._networks = [_checked_network(one) for one in _listed(networks)]
        if not self._networks:
            raise ValueError("networks is empty, must name one")
        if address is not None and [is_literal(one) for one in _listed(address)] != [True] * 4:
            raise ValueError(
                "address must be (address, netmask, gateway, DNS server): %r" % (address,)
            )
        if country is not None and (not isinstance(country, str) or len(country) != 2):
            raise ValueError("country must be two letters: %r" % (country,))
        if hostname is not None and not (
            isinstance(hostname, str) and 0 < len(hostname.encode()) <= 32
        ):
            raise ValueError("hostname must be text of 1..32 bytes: %r" % (hostname,))
        self._address = address
        self._country = country
        self._hostname = hostname
        self._power_save = self.POWER_SAVE if power_save is None else power_save
        self._dns = _listed(dns)
        for one in self._dns:
            if not is_literal(one):
                raise ValueError("dns must be addresses: %r" % (one,))
        self._sntp = Sntp(ntp, self.dns_servers) if ntp else None
        self.on_up: object = None
        self.on_down: object = None
        self.state = _OFF  # _move() only
        self.reason = ""
        self.signal_dbm: int | None = None
        self._wlan: network.WLAN = None
        self._network = 0  # index of the one that is used or tried
        self._round: list | None = None  # indexes of those to try before the pause grows
        self._signals: list = [None] * len(self._networks)  # dBm when last with each
        self._failures = 0  # in a row
        self._rounds = 0  # in which all networks have failed, in a row
        self._now_ms = ticks_ms()  # at the begin of this look
        self._look_ms = self._now_ms  # ticks_ms() of the next look
        self._due_ms = self._now_ms  # ticks_ms() of the state's deadline
        self._looks = 0  # until the next check while UP
        self._full_looks = 0  # in a row, that found no memory
        # status() before connect(); None: it has changed since
        self._stale: int | None = None
        self._is_failing = False  # status() tells of a failure ...
        self._failed_ms = self._now_ms  # ... since then, in ticks_ms()

    @property
    def state_name(self) -> str:
        return STATE_NAMES[self.state]

    @property
    def number(self) -> int:
        return self._network + 1

    def is_up(self) -> bool:
        """True if there is a link with an address. Allocates: nothing. Blocks: never."""
        return self.state == _UP

    def start(self) -> None:
        """Ask for the link, to be kept until stop(). Returns at once; step() does the work.

        The interface begins from nothing: a soft reset leaves it as it was, joined to whatever
        it was joined to, with settings that may be old.
        """
        if self.state == _OFF:
            self._now_ms = self._look_ms = ticks_ms()
            self._move(_START)
            self._arm(0)
            try:
                self._open()
                self._leave(True)
                self._choose()
            except Exception:
                pass  # _join() meets it again, and has a state for it

    def stop(self) -> None:
        """Leave the network and switch the interface off."""
        was_up = self.state == _UP
        self._move(_STOP)
        self._drop_sntp()
        self._leave(True)
        if was_up:
            self._tell(self.on_down, "stopped")

    def step(self) -> bool:
        """Look at the driver, if it is time to. Call it again and again.

        Returns:
            True if the state has changed.

        Raises: nothing. What the driver raises ends the attempt and is its reason; but for want
        of memory a link or an attempt ends only when that has gone on for a minute.
        Allocates: nothing while UP, but every 5 s, and when a state changes.
        Blocks: never on the network. Switching the interface on and off is the driver's: it loads
        its firmware then and takes some tenths of a second (not measured on hardware).
        """
        now_ms = ticks_ms()
        if self.state == _OFF:
            return False
        if 0 < ticks_diff(self._look_ms, now_ms) <= _LOOK_MS:
            return False
        self._now_ms = now_ms
        self._look_ms = ticks_add(now_ms, _LOOK_MS)
        state = self.state
        reason = None
        try:
            if state == _RESTING:
                if self._is_due():
                    self._join()
            elif state == _UP or state == _CLOCK:
                self._on_linked()
            else:
                self._on_waiting()
            self._full_looks = 0
        except MemoryError:
            # That the heap is full says nothing of the link, and to leave it frees nothing: look
            # again. Unless it goes on: then it may be the driver's.
            self._full_looks += 1
            if state == _RESTING or self._full_looks >= _FULL_LOOKS_MAX:
                reason = "out of memory"
        except Exception as error:
            reason = "out of memory"
            try:
                reason = "the driver says: %s" % error
            except MemoryError:
                pass
        if reason is not None:
            try:
                self._fail(reason, True)
            except MemoryError:
                pass  # a call had no room for its frame: the next look meets the same again
        return self.state != state

    def dns_servers(self) -> list:
        """Return the addresses of the DNS servers to ask, as a list of str: for the client.

        Raises: what the driver raises.
        """
        found = self._wlan.ifconfig()[3]
        own = [found] if found and found != "0.0.0.0" else []
        return own + [one for one in self._dns if one not in own]

    def address(self) -> str:
        """Return our own address, "0.0.0.0" if there is none. Raises: what the driver raises."""
        return self._wlan.ifconfig()[0]

    # -- states ----------------------------------------------------------------

    def _move(self, event):
        state = _NEXT_STATE[self.state * _EVENTS + event]
        if state == _X:
            raise RuntimeError("event %d is illegal in %s" % (event, self.state_name))
        self.state = state

    def _arm(self, delay_ms):
        self._due_ms = ticks_add(self._now_ms, delay_ms)

    def _is_due(self):
        return not 0 < ticks_diff(self._due_ms, self._now_ms) <= _WAIT_MS_MAX

    # isconnected() alone is not enough: on the ESP32 it stays True when a lease has run out
    # (IP_EVENT_STA_LOST_IP is not handled, ports/esp32/network_wlan.c).
    def _has_address(self):
        return self._wlan.ifconfig()[0] != "0.0.0.0"

    # JOINING, ADDRESSING and LOST: wait for the driver.
    def _on_waiting(self):
        if self._wlan.isconnected() and self._has_address():
            self._move(_ADDRESSED)
            self._arm(_CLOCK_MS)
            self._on_linked()  # where no time is wanted it is UP at once
            return
        status = self._wlan.status()
        if status != self._stale:
            self._stale = None
        if self.state == _LOST:
            if self._is_due():
                self._fail(self._why(status, "the link broke"))
            return
        if self.state == _JOINING and status == self.ASSOCIATED:
            self._move(_ASSOCIATED)
            self._arm(self.ADDRESS_MS)
        if self._stale is None and self.is_failure(status):
            if not self._is_failing:
                self._is_failing = True
                self._failed_ms = self._now_ms
            if ticks_diff(self._now_ms, self._failed_ms) >= self.SETTLE_MS:
                self._fail(self._why(status, "status %d" % status))
                return
        else:
            self._is_failing = False
        if self._is_due():
            if self.state == _ADDRESSING:
                self._fail("joined, but got no address", True)
            else:
                self._fail(self._why(status, "no answer within the time allowed"))

    # CLOCK and UP: there is a link. Does it stand, and is it time to ask for the time?
    def _on_linked(self):
        if not self._wlan.isconnected():
            self._lose(_DROPPED, self.REJOIN_MS, "the link broke")
            return
        if self.state == _UP:
            self._looks -= 1
            if self._looks <= 0:
                self._looks = _LOOKS_PER_CHECK
                if not self._has_address():
                    self._lose(_ASSOCIATED, self.ADDRESS_MS, "the address is lost")
                    return
                self._read_signal()
        if self._sntp is not None:
            self._sntp.step(self._now_ms)
        if self.state == _CLOCK:
            if self._sntp is None or self._sntp.is_clock_set() or self._is_due():
                self._move(_READY)
                self._failures = self._rounds = 0
                self._round = None  # a list would take memory, and on_up must be told
                self._looks = _LOOKS_PER_CHECK
                self.reason = ""
                self._read_signal()
                self._tell(self.on_up)

    # The link that stood does no more.
    def _lose(self, event, time_ms, reason):
        was_up = self.state == _UP
        self._move(event)
        self._arm(time_ms)
        self._stale = None
        self._is_failing = False
        self._drop_sntp()
        self.reason = reason
        if was_up:
            self._tell(self.on_down, reason)

    # -- attempts ----------------------------------------------------------------

    def _open(self):
        if self._wlan is None:
            self._wlan = network.WLAN(network.STA_IF)

    def _join(self):
        self._open()
        wlan = self._wlan
        if not wlan.active():
            self._switch_on()
        # Some drivers go on telling of the last failure after connect(): on the ESP32 until there
        # is an address (wifi_sta_disconn_reason, ports/esp32/network_wlan.c). Who believes it,
        # breaks off each attempt at its begin, for ever (peterhinch/micropython-mqtt#154).
        self._stale = wlan.status()
        self._is_failing = False
        self._move(_ATTEMPT)
        self._arm(self.JOIN_MS)
        name, password = self._networks[self._network]
        if password is None:
            wlan.connect(name)
        else:
            wlan.connect(name, password)

    # Settings come before the first connect(), country and name before the interface is on. All
    # are made again each time: with the interface the drivers forget them (the Pico W's address).
    def _switch_on(self):
        if self._country is not None:
            network.country(self._country)
        if self._hostname is not None:
            network.hostname(self._hostname)
        self._wlan.active(True)
        if self._power_save is not None:
            try:
                self._wlan.config(pm=self._power_save)
            except ValueError:
                pass  # this driver has no such setting: that is no reason to stay offline
        if self._address is not None:
            self._wlan.ifconfig(self._address)

    # Leave the network. What the driver says of it does not matter.
    def _leave(self, is_bounce):
        wlan = self._wlan
        if wlan is None:
            return
        try:
            if wlan.active():
                wlan.disconnect()
        except Exception:
            pass
        try:
            if is_bounce and wlan.active():
                wlan.active(False)
        except Exception:
            pass

    def _fail(self, reason, is_bounce=False):
        self._move(_FAILED)
        self._failures += 1
        self._drop_sntp()
        self._leave(is_bounce or self._failures % self.BOUNCE_EVERY == 0)
        pause_ms = self.PAUSE_MS
        if not self._round:
            self._rounds = min(self._rounds + 1, 8)
            pause_ms = min(pause_ms << self._rounds - 1, max(_PAUSE_MAX_MS, pause_ms))
        self._arm(pause_ms)
        self.reason = reason
        try:
            self.reason = "%s (network %d)" % (reason, self.number)
        except MemoryError:
            pass
        self._choose()
        self._tell(self.on_down, self.reason)

    # The next network of this round; a new round begins with the strongest known.
    def _choose(self):
        if not self._round:
            try:
                indexes = list(range(len(self._networks)))
                self._round = sorted(indexes, key=lambda i: (-(self._signals[i] or -200), i))
            except MemoryError:
                self._network = (self._network + 1) % len(self._networks)
                return
        self._network = self._round.pop(0)  # a slice would take memory

    # The port's answer to: what does this status mean?
    def _why(self, status, otherwise):
        return self.REASONS.get(status, otherwise)

    def is_failure(self, status: int) -> bool:
        """True if a status while joining tells that it has failed. The port knows."""
        return status in self.REASONS

    # -- the rest ------------------------------------------------------------------

    def _read_signal(self):
        try:
            self.signal_dbm = self._wlan.status("rssi")
        except Exception:
            self.signal_dbm = None  # not every firmware tells, nor at all times
        if isinstance(self.signal_dbm, int):
            self._signals[self._network] = self.signal_dbm
        else:
            self.signal_dbm = None

    def _drop_sntp(self):
        self.signal_dbm = None
        if self._sntp is not None:
            self._sntp.close()
            self._sntp.hurry(self._now_ms)

    # A callback that raises must not take the link with it.
    def _tell(self, callback, reason=None):
        if callback is None:
            return
        try:
            if reason is None:
                callback(self)
            else:
                callback(self, reason)
        except Exception as error:
            try:
                print("wifi: a callback raised %s: %s" % (type(error).__name__, error))
            except Exception:
                pass  # no memory for that text, or an error that can not be shown


# ("pool.ntp.org") lacks the comma of a tuple: it is a str, and each letter would be a server.
def _listed(names):
    return list(names) if isinstance(names, (tuple, list)) else [names]


def _checked_network(one):
    if not isinstance(one, (tuple, list)) or len(one) != 2:
        raise ValueError("a network must be (name, password)")
    name, password = one
    if not isinstance(name, str) or not 0 < len(name.encode()) <= 32:
        raise ValueError("a network's name must have 1..32 bytes")
    if password is None:
        return name, None
    if not isinstance(password, str) or not 8 <= len(password.encode()) <= 64:
        raise ValueError("a network's password must have 8..64 bytes, or be None")
    return name, password


# ---------------------------------------------------------------------------
# The time
# ---------------------------------------------------------------------------
# ntptime.settime() blocks: for its answer, and in getaddrinfo() on some boards for ever. This is
# one datagram each way on a socket that never blocks. The transmit timestamp that we send is
# random and must come back (section 5 of RFC 4330: it need not be a time), so that nobody who does
# not see our datagram can set the clock. Who does see it can: SNTP has no other protection.


def is_literal(host: str) -> bool:
    """True if `host` is a str with an address, not a name: getaddrinfo() asks nobody for it."""
    if not isinstance(host, str):
        return False
    if host.count(":") > 1:
        return not host.strip("0123456789abcdefABCDEF:.")
    parts = host.split(".")
    return len(parts) == 4 and all(part.isdigit() and int(part) < 256 for part in parts)


class Sntp:
    """Sets the board's clock, and again every day.

    Args:
        servers: names or addresses (str), asked in turn; one may come alone.
        dns_servers: function that returns addresses (str), for the names: each is asked for all
            names before the next one is.

    Raises:
        ValueError: a server is a name that can't be, or the client is a build without resolver.

    A server with a date before 2024 or after 2099, with an answer of another form, or that
    can't be asked at all is passed over: the next one is asked.

    Allocates: at each question and answer. Blocks: never.
    """

    def __init__(self, servers: "list | tuple | str", dns_servers) -> None:
        self._servers = _listed(servers)
        self._dns_servers = dns_servers
        self._resolver = None  # the module with encode_query() and decode_answer()
        names = [server for server in self._servers if not is_literal(server)]
        if names:
            import mqttpipe

            if not hasattr(mqttpipe, "encode_query"):
                raise ValueError("ntp: names need a client with resolver; give addresses")
            self._resolver = mqttpipe
            for name in names:
                try:
                    if not isinstance(name, str) or ":" in name:
                        raise ValueError("%r is neither a name nor an address" % (name,))
                    mqttpipe.encode_query(0, name, 1)
                except Exception as error:  # here, and not out of a step() some time later
                    raise ValueError("ntp: %s" % error)
        self._socket: socket.socket = None
        self._query = b""  # the DNS question under way
        self._request = b""  # the NTP question under way
        self._asked = 0  # servers, since the last answer
        self._dns = -1  # the DNS server of this round, in which all servers are asked
        self._due_ms = None  # ticks_ms() of the next question; None: at once

    def is_clock_set(self) -> bool:
        """True if the clock shows a date that can be."""
        return gmtime()[0] >= _YEAR_MIN

    def step(self, now_ms) -> bool:
        """Do what is due. True: the clock has just been set. Raises: nothing."""
        try:
            if self._socket is not None and self._receive(now_ms):
                return True
            due_ms = self._due_ms
            if due_ms is None or not 0 < ticks_diff(due_ms, now_ms) <= _NTP_AGAIN_MS:
                self._ask(now_ms)
        except Exception:
            # This server can't be asked, or what it said can't be used, or there is no memory
            # now: no reason to give up the link. The timer goes on to the next one.
            self.close()
        return False

    def close(self) -> None:
        """Give the socket back. What is due is asked by the next step()."""
        self._drop_socket()
        self._query = self._request = b""

    def hurry(self, now_ms) -> None:
        """The link has ended: forget the long pauses. The next one may have what this one had not.

        If the clock is not set, the next question comes in 15 s at the latest. Raises: nothing.
        """
        try:
            if self._due_ms is None:
                return
            left_ms = ticks_diff(self._due_ms, now_ms)
            if left_ms <= 0:
                self._due_ms = None  # a link may be away for so long that the ticks wrap
            if not self.is_clock_set():
                self._asked %= len(self._servers)
                if left_ms > _NTP_RETRY_MS:
                    self._due_ms = ticks_add(now_ms, _NTP_RETRY_MS)
        except Exception:
            pass  # no memory for the date: it is asked later

    def _drop_socket(self):
        sock = self._socket
        self._socket = None
        if sock is not None:
            try:
                sock.close()
            except Exception:
                pass

    def _ask(self, now_ms):
        self.close()
        count = len(self._servers)
        server = self._servers[self._asked % count]
        if self._asked % count == 0:
            self._dns += 1
        self._asked += 1
        wait_ms = _NTP_ANSWER_MS
        if self._asked % count == 0:
            rounds = min(self._asked // count - 1, _NTP_RETRY_DOUBLINGS)
            wait_ms = _NTP_RETRY_MS << rounds
        self._due_ms = ticks_add(now_ms, wait_ms)
        if is_literal(server):
            self._send_request(server)
            return
        dns_servers = self._dns_servers()
        if dns_servers:
            draw = urandom(2)
            self._query = self._resolver.encode_query(draw[0] << 8 | draw[1], server, 1)
            self._send(dns_servers[self._dns % len(dns_servers)], _DNS_PORT, self._query)

    def _send_request(self, address):
        # Leap indicator 0, version 4, mode 3 (client); all else but the transmit timestamp is 0.
        self._request = b"\x23" + bytes(39) + urandom(8)
        self._query = b""
        self._send(address, _NTP_PORT, self._request)

    # A socket of its own for each question: with its new port, one thing more to guess.
    def _send(self, address, port, data):
        self._drop_socket()
        # Without a kind of socket: lwIP would print a complaint about it, and answer SOCK_STREAM
        # all the same. An address is not asked for anywhere, so this does not block.
        found = socket.getaddrinfo(address, port)[0]
        where = found[4]
        sock = self._socket = socket.socket(found[0], socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(where)
        sock.write(data)

    # True: the clock has been set.
    def _receive(self, now_ms):
        try:
            data = self._socket.recv(512)
        except OSError as error:
            if error.errno == EAGAIN:
                return False
            raise
        if self._query:
            answer = self._resolver.decode_answer(data, self._query)
            if answer is not None and answer[1]:
                # Any of them: the first may be silent, each time.
                self._send_request(answer[1][urandom(1)[0] % len(answer[1])])
            return False
        when = decode_time(data, self._request)
        if when is None:
            return False  # a stranger's, or of no use
        RTC().datetime((when[0], when[1], when[2], when[6], when[3], when[4], when[5], 0))
        self.close()
        self._asked = 0
        self._dns -= 1  # it has answered: tomorrow it is asked first
        self._due_ms = ticks_add(now_ms, _NTP_AGAIN_MS)
        return True


def decode_time(data: bytes, request: bytes) -> "tuple | None":
    """Read what came back for an SNTP request.

    Args:
        data: the datagram, bytes. request: what was sent, bytes.

    Returns:
        The time as gmtime() gives it, or None: it is no answer to this request, or of a server
        that has no good time itself (section 5 of RFC 4330), or not in the years 2024 to 2099.
    """
    if len(data) < _NTP_BYTES or data[24:32] != request[40:48]:
        return None
    leap, version, mode = data[0] >> 6, data[0] >> 3 & 7, data[0] & 7
    if leap == 3 or version not in (3, 4) or mode != 4 or not 1 <= data[1] <= 15:
        return None  # stratum 0 is a kiss of death: this server does not want us
    seconds = int.from_bytes(data[40:44], "big")
    if not seconds:
        return None
    if seconds < _NTP_2024_S:
        seconds += 1 << 32
    # gmtime() of a board raises OverflowError for what is not in its 32 bits.
    if seconds >= _NTP_2100_S:
        return None
    epoch_s = 3_155_673_600 if gmtime(0)[0] == 2000 else 2_208_988_800
    return gmtime(seconds - epoch_s)
