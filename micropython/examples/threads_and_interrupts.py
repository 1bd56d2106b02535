"""Three that publish: an interrupt, a second thread (on the Pico W the second core), the program.

One of them calls step(), here the program; the others only publish. It needs the profile with
publish_isr(): tools/deploy.py --profile full.
"""

import _thread
import secrets
from time import sleep_ms

from wifi import Wifi

from machine import Pin
from mqttpipe import MQTTClient, QueueFull

TOPIC = "boards/%s/" % secrets.NAME
# An interrupt may make nothing new, so these are made before.
BELL = (TOPIC + "bell").encode()
PRESSED = b"pressed"
ring = client = None


def on_press(pin):
    ring(BELL, PRESSED)


# The other core has its own things, and hands over what it has measured: no list or dict of the
# program is touched by both.
def measure_for_ever():
    number = 0
    while True:
        try:
            client.publish(TOPIC + "measured", str(number), qos=1)
            number += 1
        except QueueFull:
            pass  # offline for long: wait for room
        sleep_ms(1_000)


wifi = Wifi(secrets.WIFI)
client = MQTTClient(secrets.SERVER, user=secrets.USER, password=secrets.PASSWORD, link=wifi)
ring = client.publish_isr  # bound once: `client.publish_isr` is a new object each time
client.on_online = lambda client: print("mqtt: online")
client.on_offline = lambda client, error: print("mqtt: offline:", error)
client.on_message = lambda client, message: print(message.topic_name, message.payload)
client.subscribe(TOPIC + "#", qos=1)
button = Pin(14, Pin.IN, Pin.PULL_UP)
button.irq(on_press, Pin.IRQ_FALLING)
_thread.start_new_thread(measure_for_ever, ())
wifi.start()
client.connect()
while True:
    wifi.step()
    client.step(100)  # an interrupt wakes it
