"""A relay and a lamp that obey "on", "off" and "toggle"; a button that needs no network.

boards/NAME/relay/set, boards/NAME/lamp/set    what you publish here is done
boards/NAME/relay, boards/NAME/lamp            how they are, kept by the server
"""

import secrets
from time import ticks_diff, ticks_ms

from wifi import Wifi

from machine import Pin
from mqttpipe import MQTTClient, QueueFull

BOUNCE_MS = 50  # for so long a button's contacts may open and close
TOPIC = "boards/%s/" % secrets.NAME
OUTPUTS = {"relay": Pin(26, Pin.OUT, value=0), "lamp": Pin(27, Pin.OUT, value=0)}
untold = set()  # names of OUTPUTS whose state the server is to be told
button = Pin(14, Pin.IN, Pin.PULL_UP)  # to ground; it switches the lamp


def switch(name, word):
    pin = OUTPUTS[name]
    if word == b"toggle":
        pin.value(not pin.value())
    elif word in (b"on", b"off"):
        pin.value(word == b"on")
    print(name, state(name))
    untold.add(name)


def state(name):
    return "on" if OUTPUTS[name].value() else "off"


# The program's loop calls this, and no callback: commands may come faster than states leave. What
# finds no room in the queue is told in a later round, as it is then, so the last state is told.
def tell():
    try:
        for name in OUTPUTS:
            if name in untold:
                # While offline only the latest state of each waits: nobody wants the others.
                client.publish(TOPIC + name, state(name), qos=1, retain=True, offline="latest")
                untold.remove(name)
    except QueueFull:
        pass


def on_set(client, message):
    name = message.topic_name.split("/")[-2]
    if name in OUTPUTS:
        switch(name, message.payload)


def on_online(client):
    print("mqtt: online")
    untold.update(OUTPUTS)


wifi = Wifi(secrets.WIFI)
client = MQTTClient(secrets.SERVER, user=secrets.USER, password=secrets.PASSWORD, link=wifi)
client.on_online = on_online
client.on_offline = lambda client, error: print("mqtt: offline:", error)
client.subscribe(TOPIC + "+/set", on_set, qos=1)
wifi.start()
client.connect()
was_pressed = False
changed_ms = ticks_ms()
while True:
    wifi.step()
    client.step(20)
    is_pressed = not button.value()
    if is_pressed != was_pressed and not 0 <= ticks_diff(ticks_ms(), changed_ms) < BOUNCE_MS:
        was_pressed = is_pressed
        changed_ms = ticks_ms()
        if is_pressed:
            switch("lamp", b"toggle")
    tell()
