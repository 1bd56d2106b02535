"""The board's `network`, simulated: a station interface over a radio that board_simulation.py is.

The same file serves the virtual board (real MicroPython) and CPython. The arguments, errors and
return values are those of esp32/network_wlan.c and extmod/network_cyw43.c, which differ: see
PORT. Access-point mode is left out: WLAN(AP_IF) can be made and switched off, and nothing else.
"""

import board_bus

try:
    from time import sleep_ms
except ImportError:
    from shim_time import sleep_ms

STA_IF = 0
AP_IF = 1

_ESP32 = board_bus.PORT == "esp32"

if _ESP32:
    STAT_IDLE = 1000
    STAT_CONNECTING = 1001
    STAT_GOT_IP = 1010
    STAT_NO_AP_FOUND = 201
    STAT_WRONG_PASSWORD = 202
    STAT_BEACON_TIMEOUT = 200
    STAT_ASSOC_FAIL = 203
    STAT_HANDSHAKE_TIMEOUT = 204
    AUTH_OPEN = 0
    AUTH_WPA2_PSK = 3
else:
    STAT_IDLE = 0
    STAT_CONNECTING = 1
    STAT_GOT_IP = 3
    STAT_CONNECT_FAIL = -1
    STAT_NO_AP_FOUND = -2
    STAT_WRONG_PASSWORD = -3


def hostname(*name):
    """Set or return the host name, 32 characters at most."""
    if name:
        board_bus.call("hostname", name[0])
        return None
    return board_bus.call("hostname", None)


def country(*code):
    """Set or return the two letters of the country."""
    if code:
        board_bus.call("country", code[0])
        return None
    return board_bus.call("country", None)


def ipconfig(*query, **settings):
    """Only "dns" is here; and "prefer" on rp2, which is only remembered."""
    if settings:
        if query:
            raise TypeError("can't specify pos and kw args")
        for name, value in settings.items():
            if name == "dns":
                old = board_bus.call("wlan_addresses")
                board_bus.call("wlan_set_addresses", old[:3] + (value,))
            elif name != "prefer" or _ESP32:
                raise ValueError("unexpected key")
        return None
    if len(query) != 1:
        raise TypeError("must query one param")
    if query[0] == "dns":
        return board_bus.call("wlan_addresses")[3]
    raise ValueError("unexpected key")


class _Wlan:
    # The one station object there is: WLAN(STA_IF) answers it each time, as on both ports.

    IF_STA = STA_IF
    IF_AP = AP_IF
    if not _ESP32:
        PM_NONE = 0x10
        PM_PERFORMANCE = 0xA11142
        PM_POWERSAVE = 0x11
        SEC_OPEN = 0
        SEC_WPA_WPA2 = 0x00400006
        SEC_WPA3 = 0x01000004
        SEC_WPA2_WPA3 = 0x01400004
    else:
        PM_NONE = 0
        PM_PERFORMANCE = 1
        PM_POWERSAVE = 2

    def active(self, *is_active):
        # ESP32 answers the state in both cases, rp2 None when it is set.
        return board_bus.call("wlan_active", bool(is_active[0]) if is_active else None)

    # ESP32: connect(ssid=None, key=None, *, bssid=None), the first two by position only.
    # rp2: connect(ssid, key=None, *, auth, security, bssid, channel), any by name.
    def connect(self, *arguments, **named):
        ssid = key = None
        if not _ESP32:
            ssid = named.pop("ssid", None)
            key = named.pop("key", None)
            for name in ("auth", "security", "channel"):
                named.pop(name, None)
        bssid = named.pop("bssid", None)
        if named or len(arguments) > 2:
            raise TypeError("extra arguments given")
        if arguments:
            ssid = arguments[0]
            key = arguments[1] if len(arguments) > 1 else key
        if ssid is None and not _ESP32:
            raise TypeError("'ssid' argument required")
        if bssid is not None and len(bssid) != 6:
            raise ValueError
        board_bus.call("wlan_connect", _text(ssid), _text(key))

    def disconnect(self):
        board_bus.call("wlan_disconnect")

    def isconnected(self):
        return board_bus.is_connected()

    def status(self, *query):
        if not query:
            return board_bus.call("wlan_status")
        if query[0] == "rssi":
            return board_bus.call("wlan_rssi")
        if query[0] == "stations":
            raise OSError("AP required") if _ESP32 else ValueError("AP required")
        raise ValueError("unknown status param")

    def scan(self, **options):
        # Both ports wait for its end: seconds long, as long as a real one.
        scan_ms, found = board_bus.call("wlan_scan")
        sleep_ms(scan_ms)
        return found

    def ifconfig(self, *addresses):
        if not addresses:
            return board_bus.call("wlan_addresses")
        if addresses[0] == "dhcp":
            board_bus.call("wlan_set_addresses", None)
        elif isinstance(addresses[0], str):
            raise ValueError("invalid arguments")
        else:
            if len(addresses[0]) != 4:
                raise ValueError("requested length 4 but object has length %d" % len(addresses[0]))
            board_bus.call("wlan_set_addresses", tuple(addresses[0]))
        return None

    def ipconfig(self, *query, **settings):
        now = board_bus.call("wlan_addresses")
        if not settings:
            if len(query) != 1:
                raise TypeError("must query one param")
            if query[0] == "addr4":
                return now[:2]
            if query[0] == "gw4":
                return now[2]
            if query[0] == "dhcp4":
                return board_bus.call("wlan_is_dhcp")
            if query[0] == "has_dhcp4" and not _ESP32:
                return board_bus.call("wlan_has_dhcp")
            raise ValueError("unexpected key")
        if query:
            raise TypeError("can't specify pos and kw args")
        for name, value in settings.items():
            if name == "dhcp4":
                if value:
                    board_bus.call("wlan_set_addresses", None)
            elif name == "addr4":
                if isinstance(value, str):
                    address, _, bits = value.partition("/")
                    value = (address, _netmask(int(bits)) if bits else now[1])
                now = (value[0], value[1], now[2], now[3])
                board_bus.call("wlan_set_addresses", now)
            elif name == "gw4":
                now = (now[0], now[1], value, now[3])
                board_bus.call("wlan_set_addresses", now)
            else:
                raise ValueError("unexpected key")
        return None

    def config(self, *query, **settings):
        if settings:
            if query:
                raise TypeError("either pos or kw args are allowed")
            board_bus.call("wlan_config_set", settings)
            return None
        if len(query) != 1:
            raise TypeError("can query only one param" if _ESP32 else "must query one param")
        return board_bus.call("wlan_config_get", query[0])

    def __repr__(self):
        return "<WLAN>" if _ESP32 else "<CYW43 STA>"


class _AccessPoint:
    # As far as a station's program has to do with it: it switches it off.

    def active(self, *is_active):
        if is_active and is_active[0]:
            raise NotImplementedError("access-point mode is not simulated")
        return False if _ESP32 or not is_active else None

    def isconnected(self):
        return False

    def disconnect(self):
        pass


_station = _Wlan()
_access_point = _AccessPoint()


def _wlan(interface_id=STA_IF):
    if interface_id == STA_IF:
        return _station
    if interface_id == AP_IF:
        return _access_point
    raise ValueError("invalid WLAN interface identifier")


class WLAN(_Wlan):
    """WLAN(STA_IF): the station interface, the same object each time."""

    def __new__(cls, interface_id=STA_IF):
        return _wlan(interface_id)


def _text(name):
    if name is None or isinstance(name, str):
        return name
    return bytes(name).decode()


def _netmask(bits):
    value = 0xFFFFFFFF << (32 - bits) & 0xFFFFFFFF
    return ".".join(str(value >> shift & 0xFF) for shift in (24, 16, 8, 0))
