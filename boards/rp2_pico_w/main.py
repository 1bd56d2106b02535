"""What this board does. Yours to change: when you have, tools/deploy.py leaves it alone.

service.py keeps the board on its Wi-Fi and connected to its MQTT server, and reconnects both. It
publishes the first two of these topics; the last two are this file's:

    boards/NAME/status     "online", "offline" (which the server says of a lost board); retained
    boards/NAME/uptime     seconds since the start, each minute
    boards/NAME/command    what you publish here comes to on_command() below
    boards/NAME/answer     what it answers
"""

import secrets

import rp2
import service
from station import boot

from machine import Pin

# ---------------------------------------------------------------------------
# This board
# ---------------------------------------------------------------------------
# The LED is the one on the board; the button is BOOTSEL, which needs no wire. Both hang on chips
# of their own (the Wi-Fi's, the flash's), so Pin(25) is not the LED of a W.
LED = Pin("LED", Pin.OUT)
LED_ON = 1


def button():
    return rp2.bootsel_button()


# ---------------------------------------------------------------------------
# Settings
# ---------------------------------------------------------------------------
SAFE_BOOT_S = 2  # for so long a key or the button keeps this program from starting
# Set this to 8 when the board leaves your desk. Nothing can stop a watchdog: 8 s after Ctrl-C the
# board restarts.
WATCHDOG_S = 0
NO_WIFI_RESET_S = 3_600  # a reset, when there was no Wi-Fi for so long; 0: never

TOPIC = "boards/%s/" % secrets.NAME

# ---------------------------------------------------------------------------
# Your code
# ---------------------------------------------------------------------------
# Put what may fail, such as a sensor that does not answer, into begin() or work(): an error there
# resets the board. An error out here, or in an import, leaves the board at its prompt.


def begin(client):
    """Called once, before the client connects."""
    client.subscribe(TOPIC + "command", on_command, qos=1)


def on_command(client, message):
    """Called for each message to boards/NAME/command. Here it is only sent back."""
    client.publish(TOPIC + "answer", message.payload, qos=1)


def work(client):
    """Called about ten times a second. It must not wait: the watchdog and the server would."""


# ---------------------------------------------------------------------------
# The start
# ---------------------------------------------------------------------------


def main():
    service.run(secrets, begin, work, LED, LED_ON, WATCHDOG_S, NO_WIFI_RESET_S)


boot(main, button, SAFE_BOOT_S)
