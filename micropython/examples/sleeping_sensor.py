"""Wake, publish a measurement at QoS 1, wait for its acknowledgement, sleep.

It prints for how long it was awake: that is what the battery pays for. After deepsleep() the board
begins anew, so nothing has to be kept, and the server keeps the last measurement (retain).
"""

import secrets
from time import sleep_ms, ticks_diff, ticks_ms

from wifi import Wifi

import machine
from mqttpipe import MQTTClient

SLEEP_MS = 600_000  # while you try it, sleep_ms() instead of deepsleep() keeps the prompt
AWAKE_MS_MAX = 15_000  # no Wi-Fi, no server: sleep all the same, and try again the next time


def measure():
    return "21.5"  # your sensor


def left_ms():
    return max(0, AWAKE_MS_MAX - ticks_diff(ticks_ms(), begin_ms))


begin_ms = ticks_ms()
wifi = Wifi(secrets.WIFI)
client = MQTTClient(secrets.SERVER, user=secrets.USER, password=secrets.PASSWORD)
client.on_online = lambda client: print("mqtt: online")
client.on_offline = lambda client, error: error and print("mqtt: offline:", error)
topic = "sensors/%s/temperature" % secrets.NAME
token = client.publish(topic, measure(), qos=1, retain=True)  # waits for the connection

wifi.start()
while not wifi.is_up() and left_ms():
    wifi.step()
    sleep_ms(10)
client.connect()
print("acknowledged:", client.wait_for(token, left_ms()))
client.disconnect()
client.wait_offline(1_000)
wifi.stop()
print("awake: %d ms" % ticks_diff(ticks_ms(), begin_ms))
machine.deepsleep(SLEEP_MS)
