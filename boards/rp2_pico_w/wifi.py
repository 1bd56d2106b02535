"""Wi-Fi of the Pico W and Pico 2 W (CYW43439): what is this port's own. wifi_core.py has the rest.

Where no board and date is named, a fact is from MicroPython's source, v1.29.0-preview-731
(extmod/network_cyw43.c) and its driver (georgerobotics/cyw43-driver, src/cyw43_ctrl.c), or from
the discussion that is named. Nothing was tried on hardware.
"""

from wifi_core import WifiCore


class Wifi(WifiCore):
    """WifiCore with this port's figures: the arguments are the same."""

    PAUSE_MS = 1_000  # as mqtt_as rests between disconnect() and connect()
    # To association, which this port tells (2). status() may stay 1 for ever when the access point
    # goes away meanwhile.
    JOIN_MS = 20_000
    # A first "bad password" is often followed by success, with the right one: the driver takes it
    # back (cyw43-driver#150). So it is not believed at once.
    SETTLE_MS = 2_000
    REJOIN_MS = 3_000  # the driver mends only what its radio mends by itself (pico-sdk#2316)
    # After a lost link or a bad password connect() was reported to do nothing before the interface
    # was off for once; the source shows no reason for it. Switching it off costs next to nothing.
    BOUNCE_EVERY = 1
    # No power save: with the driver's default the radio sleeps between beacons, and a link with
    # little traffic was seen to die (micropython#9455, 1.19.1). Raspberry Pi's "Connecting to the
    # Internet with Raspberry Pi Pico W", 3.6.3.
    POWER_SAVE = 0xA11140
    ASSOCIATED = 2
    # Link states of the driver; 1 (joining) and 3 (up) are none of these.
    REASONS = {
        0: "sent away by the access point",
        -1: "could not join",
        -2: "no access point of this name",
        -3: "refused: wrong password?",
    }
