"""A relay and a lamp that obey "on", "off" and "toggle"; a button that needs no network.

boards/NAME/relay/set, boards/NAME/lamp/set    what you publish here is done
boards/NAME/relay, boards/NAME/lamp            how they are, kept by the server
"""

import secrets

from wifi import Wifi

from machine import Pin
from mqttpipe import MQTTClient

TOPIC = "boards/%s/" % secrets.NAME
OUTPUTS = {"relay": Pin(26, Pin.OUT, value=0), "lamp": Pin(27, Pin.OUT, value=0)}
button = Pin(14, Pin.IN, Pin.PULL_UP)  # to ground; it switches the lamp


def switch(name, word):
    pin = OUTPUTS[name]
    if word == b"toggle":
        pin.value(not pin.value())
    elif word in (b"on", b"off"):
        pin.value(word == b"on")
    tell(name)


def tell(name):
    word = "on" if OUTPUTS[name].value() else "off"
    print(name, word)
    # While offline only the latest state of each waits: nobody wants the others.
    client.publish(TOPIC + name, word, qos=1, retain=True, offline="latest")


def on_set(client, message):
    name = message.topic_name.split("/")[-2]
    if name in OUTPUTS:
        switch(name, message.payload)


def on_online(client):
    print("mqtt: online")
    for name in OUTPUTS:
        tell(name)


wifi = Wifi(secrets.WIFI)
client = MQTTClient(secrets.SERVER, user=secrets.USER, password=secrets.PASSWORD, link=wifi)
client.on_online = on_online
client.on_offline = lambda client, error: print("mqtt: offline:", error)
client.subscribe(TOPIC + "+/set", on_set, qos=1)
wifi.start()
client.connect()
was_pressed = False
while True:
    wifi.step()
    client.step(20)
    is_pressed = not button.value()
    if is_pressed and not was_pressed:
        switch("lamp", b"toggle")
    was_pressed = is_pressed
