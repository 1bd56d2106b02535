"""HiveMQ Cloud and EMQX Cloud: TLS with the right root, and a login.

In secrets.py: SERVER = "mqtts://..." with the host that their console shows (port 8883), USER and
PASSWORD as made there, NTP. The root certificate goes onto the board with --ca of tools/deploy.py,
or --public-ca finds it. Both want the host's name: an address would not do.
"""

import gc

gc.threshold(16384)  # before all else: TLS needs 17 KB of memory in one piece

import secrets
from time import ticks_add, ticks_diff, ticks_ms

from wifi import Wifi

from mqttpipe import MQTTClient, QueueFull

EVERY_MS = 10_000
TOPIC = "boards/%s/" % secrets.NAME


def measure():
    return "21.5"  # your sensor


def on_command(client, message):
    print("command:", message.payload)


def on_offline(client, error):
    print("mqtt: offline:", error)
    if getattr(error, "return_code", 0) in (4, 5):
        print("the login: USER, PASSWORD, and the permissions of that user in the console")


wifi = Wifi(secrets.WIFI, ntp=secrets.NTP)
client = MQTTClient(
    secrets.SERVER,
    client_id=secrets.NAME,
    user=secrets.USER,
    password=secrets.PASSWORD,
    ca=secrets.CA,
    link=wifi,
)
client.on_online = lambda client: print("mqtt: online")
client.on_offline = on_offline
client.subscribe(TOPIC + "command", on_command, qos=1)
wifi.start()
client.connect()
due_ms = ticks_ms()
while True:
    wifi.step()
    client.step(100)
    # A due time that is farther ahead was one of days ago: ticks_ms() has come round.
    if client.is_online() and not 0 < ticks_diff(due_ms, ticks_ms()) <= EVERY_MS:
        try:
            client.publish(TOPIC + "temperature", measure(), qos=1)
            due_ms = ticks_add(ticks_ms(), EVERY_MS)
        except QueueFull:
            pass  # the server acknowledges nothing: in a later round
