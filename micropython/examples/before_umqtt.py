"""A lamp and a temperature with umqtt.simple: what from_umqtt.py was before.

It runs as it stands on the drop-in of micropython/compat/ as well. See docs/migration.md.
"""

import secrets
import time

import network
from umqtt.simple import MQTTClient

from machine import Pin

TOPIC = b"boards/" + secrets.NAME.encode()
EVERY_MS = 10_000
lamp = Pin(27, Pin.OUT, value=0)


def on_message(topic, msg):
    lamp.value(msg == b"on")
    client.publish(TOPIC + b"/lamp", msg, True, 1)


def connect():
    client.connect()
    client.subscribe(TOPIC + b"/lamp/set", 1)
    client.publish(TOPIC + b"/status", b"online", True, 1)
    print("connected")


wlan = network.WLAN(network.STA_IF)
wlan.active(True)
wlan.connect(*secrets.WIFI[0])
while not wlan.isconnected():
    time.sleep_ms(100)
host, _, port = secrets.SERVER[len("mqtt://") :].partition(":")
client = MQTTClient(
    secrets.NAME, host, int(port or 0), secrets.USER, secrets.PASSWORD, keepalive=60
)
client.set_callback(on_message)
client.set_last_will(TOPIC + b"/status", b"offline", True, 1)
connect()
due_ms = time.ticks_ms()
while True:
    try:
        client.check_msg()
        if time.ticks_diff(time.ticks_ms(), due_ms) >= 0:
            client.publish(TOPIC + b"/temperature", b"21.5")
            due_ms = time.ticks_add(due_ms, EVERY_MS)
    except OSError as error:
        print("lost:", error)
        time.sleep(5)
        try:
            connect()
        except OSError as error:
            print("not yet:", error)
    time.sleep_ms(50)
