"""What this board does. Yours to change: when you have, tools/deploy.py leaves it alone.

It keeps the board on its Wi-Fi and at its MQTT server, through everything that happens to both:

    boards/NAME/status     "online", "offline" (which the server says of a lost board); retained
    boards/NAME/uptime     seconds since the start, each minute
    boards/NAME/command    what you publish here comes to on_command() below
    boards/NAME/answer     what it answers
"""

import secrets

from station import Station, boot
from wifi import Wifi

from machine import Pin
from mqttpipe import MQTTClient

try:
    from time import ticks_add, ticks_diff, ticks_ms
except ImportError:  # CPython, with the simulated board of cpython_shim/
    from shim_time import ticks_add, ticks_diff, ticks_ms

# ---------------------------------------------------------------------------
# This board
# ---------------------------------------------------------------------------
# The LED and the BOOT button of most boards with an ESP32; S2 and S3: GPIO0 as well, C3: GPIO9.
# Which pin an LED hangs on differs from board to board; None: there is none.
LED = Pin(2, Pin.OUT)
LED_ON = 1
BOOT = Pin(0, Pin.IN, Pin.PULL_UP)


def button():
    return not BOOT.value()


# ---------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------
SAFE_BOOT_S = 2  # for so long a key or the button keeps this program from starting
# Set this to 8 when the board goes out of your hands. A watchdog can't be stopped: with it, who
# stops the program with Ctrl-C has 8 s before the board starts anew.
WATCHDOG_S = 0
NO_WIFI_RESET_S = 3_600  # a reset, when there was no Wi-Fi for so long; 0: never
UPTIME_EVERY_MS = 60_000

TOPIC = "boards/%s/" % secrets.NAME

# ---------------------------------------------------------------------------
# Your code
# ---------------------------------------------------------------------------


def on_command(client, message):
    """Called for each message to boards/NAME/command. Here it is only sent back."""
    client.publish(TOPIC + "answer", message.payload, qos=1)


def work(client):
    """Called about ten times a second. It must not wait: the watchdog and the server would."""


# ---------------------------------------------------------------------------
# The same on every board
# ---------------------------------------------------------------------------


def on_wifi_up(wifi):
    print("wifi: up, %s, %s dBm" % (wifi.address(), wifi.signal_dbm))


def on_wifi_down(wifi, reason):
    print("wifi: down: %s" % reason)


def on_online(client):
    print("mqtt: online")
    client.publish(TOPIC + "status", "online", qos=1, retain=True)


def on_offline(client, error):
    print("mqtt: offline: %s" % error)


def main():
    wifi = Wifi(
        secrets.WIFI,
        address=secrets.ADDRESS,
        country=secrets.COUNTRY,
        hostname=secrets.NAME,
        ntp=secrets.NTP,
    )
    wifi.on_up = on_wifi_up
    wifi.on_down = on_wifi_down
    client = MQTTClient(
        secrets.SERVER,
        user=secrets.USER,
        password=secrets.PASSWORD,
        ca=secrets.CA,
        tls=secrets.TLS,
        will=(TOPIC + "status", "offline", 1, True),
        link=wifi,
    )
    client.on_online = on_online
    client.on_offline = on_offline
    client.subscribe(TOPIC + "command", on_command, qos=1)
    station = Station(client, wifi, LED, LED_ON, WATCHDOG_S, NO_WIFI_RESET_S)
    wifi.start()
    client.connect()
    uptime_s = 0
    due_ms = ticks_add(ticks_ms(), UPTIME_EVERY_MS)
    while True:
        station.step(100)
        work(client)
        if ticks_diff(ticks_ms(), due_ms) >= 0:
            due_ms = ticks_add(due_ms, UPTIME_EVERY_MS)
            uptime_s += UPTIME_EVERY_MS // 1000
            if client.is_online():
                client.publish(TOPIC + "uptime", str(uptime_s))


boot(main, button, SAFE_BOOT_S)
