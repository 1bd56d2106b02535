"""A temperature and a switch that Home Assistant finds by itself.

In secrets.py: SERVER = "mqtt://homeassistant.local", and USER and PASSWORD of a user of Home
Assistant. The board is a device there, with both on it, and "unavailable" when it is gone.
"""

import json
import secrets
from time import ticks_add, ticks_diff, ticks_ms

from wifi import Wifi

from machine import Pin
from mqttpipe import MQTTClient, QueueFull

EVERY_MS = 30_000
TOPIC = "boards/%s/" % secrets.NAME
STATUS = TOPIC + "status"
relay = Pin(26, Pin.OUT, value=0)
untold = set()  # "relay": its state is to be told


def measure():
    return "21.5"  # your sensor


# The short keys are Home Assistant's: a configuration must fit into packet_bytes_max, 1,024 bytes.
def announce(kind, name, settings):
    settings["name"] = name
    settings["uniq_id"] = "%s_%s" % (secrets.NAME, name)
    settings["avty_t"] = STATUS  # "online" and "offline", unless told otherwise
    settings["dev"] = {"ids": [secrets.NAME], "name": secrets.NAME}
    config = json.dumps(settings).encode()  # its size is in bytes
    topic = "homeassistant/%s/%s/%s/config" % (kind, secrets.NAME, name)
    client.publish(topic, config, qos=1, retain=True, offline="drop_oldest")
    print("announced: %s, %d bytes" % (topic, len(topic) + len(config)))


# The queue may be full of what waits for this moment: the oldest of it makes room.
def on_online(client):
    print("mqtt: online")
    settings = {"dev_cla": "temperature", "unit_of_meas": "\u00b0C", "stat_cla": "measurement"}
    settings["stat_t"] = TOPIC + "temperature"
    settings["exp_aft"] = 4 * EVERY_MS // 1000  # s; then "unavailable", whatever the board says
    announce("sensor", "temperature", settings)
    announce("switch", "relay", {"stat_t": TOPIC + "relay", "cmd_t": TOPIC + "relay/set"})
    client.publish(STATUS, "online", qos=1, retain=True, offline="drop_oldest")
    untold.add("relay")


def on_command(client, message):
    relay.value(message.payload == b"ON")
    untold.add("relay")


wifi = Wifi(secrets.WIFI)
will = (STATUS, "offline", 1, True)
client = MQTTClient(
    secrets.SERVER, user=secrets.USER, password=secrets.PASSWORD, will=will, link=wifi
)
client.on_online = on_online
client.on_offline = lambda client, error: print("mqtt: offline:", error)
client.subscribe(TOPIC + "relay/set", on_command, qos=1)
wifi.start()
client.connect()
due_ms = ticks_ms()
while True:
    wifi.step()
    client.step(100)
    if not client.is_online():
        continue
    try:
        if untold:
            client.publish(TOPIC + "relay", "ON" if relay.value() else "OFF", qos=1, retain=True)
            untold.clear()
        # A due time that is farther ahead was one of days ago: ticks_ms() has come round.
        if not 0 < ticks_diff(due_ms, ticks_ms()) <= EVERY_MS:
            client.publish(TOPIC + "temperature", measure())
            due_ms = ticks_add(ticks_ms(), EVERY_MS)
    except QueueFull:
        pass  # commands came faster than states leave: what is due is told in a later round
