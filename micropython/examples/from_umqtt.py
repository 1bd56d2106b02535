"""A lamp and a temperature: what became of before_umqtt.py. See docs/migration.md."""

import secrets
from time import ticks_add, ticks_diff, ticks_ms

from wifi import Wifi

from machine import Pin
from mqttpipe import MQTTClient, QueueFull

TOPIC = "boards/" + secrets.NAME
EVERY_MS = 10_000
lamp = Pin(27, Pin.OUT, value=0)
is_lamp_due = False  # its state is to be told


def on_lamp(client, message):
    global is_lamp_due
    lamp.value(message.payload == b"on")
    is_lamp_due = True


def on_online(client):  # after each reconnection as well; the subscriptions are made again
    print("mqtt: online")
    client.publish(TOPIC + "/status", "online", qos=1, retain=True, offline="drop_oldest")


wifi = Wifi(secrets.WIFI)
client = MQTTClient(
    secrets.SERVER,
    client_id=secrets.NAME,
    user=secrets.USER,
    password=secrets.PASSWORD,
    will=(TOPIC + "/status", "offline", 1, True),  # QoS before retain
    link=wifi,
)
client.on_online = on_online
client.on_offline = lambda client, error: print("mqtt: offline:", error)
client.subscribe(TOPIC + "/lamp/set", on_lamp, qos=1)
wifi.start()
client.connect()
due_ms = ticks_ms()
while True:
    wifi.step()
    client.step(50)
    try:
        if is_lamp_due:
            client.publish(TOPIC + "/lamp", "on" if lamp.value() else "off", qos=1, retain=True)
            is_lamp_due = False
        # A due time that is farther ahead was one of days ago: ticks_ms() has come round.
        if client.is_online() and not 0 < ticks_diff(due_ms, ticks_ms()) <= EVERY_MS:
            client.publish(TOPIC + "/temperature", "21.5")
            due_ms = ticks_add(ticks_ms(), EVERY_MS)
    except QueueFull:
        pass  # commands came faster than states leave: what is due is told in a later round
