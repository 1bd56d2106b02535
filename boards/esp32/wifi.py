"""Wi-Fi of the ESP32 family: what is this port's own. wifi_core.py has the rest.

Where no board and date is named, a fact is from MicroPython's source, v1.29.0-preview-731
(ports/esp32/network_wlan.c), or from the discussion that is named. Nothing was tried on hardware.
"""

from wifi_core import WifiCore


class Wifi(WifiCore):
    """WifiCore with this port's figures: the arguments are the same."""

    # connect() too early after a failure is refused ("Wifi Internal Error", micropython#17661,
    # 1.25), or seems to fail with 202 for ever; a pause of 1 s was found enough (peterhinch#132,
    # #154).
    PAUSE_MS = 1_000
    # status() does not tell association from joining (1001 is both), so this is for both, with a
    # DHCP server that takes its time. The driver meanwhile tries again and again by itself.
    JOIN_MS = 30_000
    # 1000 may come for a moment between 1001 and 1010 (peterhinch#129); it is no failure.
    SETTLE_MS = 500
    # The driver reconnects by itself ("reconnects", default: for ever); a scan takes about 3 s.
    REJOIN_MS = 10_000
    BOUNCE_EVERY = 3
    # The driver's own (WIFI_PS_MIN_MODEM) wakes for each beacon: 0 is faster and takes more power.
    POWER_SAVE = None
    # wifi_err_reason_t of ESP-IDF, those which status() passes on.
    REASONS = {
        200: "the access point is no longer heard",
        201: "no access point of this name",
        202: "refused: wrong password?",
        203: "refused by the access point",
        204: "the handshake was not answered: wrong password?",
        210: "no access point of this name with security that fits",
        211: "no access point of this name with security that is good enough",
        212: "no access point of this name with a signal that is good enough",
    }

    # 1000, 1001 and 1010 are states, all below are reasons.
    def is_failure(self, status: int) -> bool:
        return 0 < status < 1000
