"""A battery device: it measures often, keeps what it has measured, and is rarely online.

Each measurement waits in the queue. After the first, and then after every BATCH of them, it
switches the Wi-Fi on, sends all, waits until they are acknowledged, and switches the Wi-Fi off.
What it could not send waits for the next time. When the queue is full, the oldest is dropped.
A reset loses the queue. In secrets.py: NTP, which tells the time of each measurement.
"""

import secrets
from time import ticks_add, ticks_diff, ticks_ms, time

from wifi import Wifi

import machine
from mqttpipe import MQTTClient

PERIOD_MS = 60_000
BATCH = 15
KEPT = 200  # measurements: more than three hours
ONLINE_MS_MAX = 30_000
TOPIC = b"sensors/%s/temperature" % secrets.NAME.encode()


def measure():
    return 21.5  # your sensor


def is_empty():
    return all(client.is_done(token) for token in waiting)


def send_all():
    begin_ms = ticks_ms()
    end_ms = ticks_add(begin_ms, ONLINE_MS_MAX)
    wifi.start()
    client.connect()
    while not is_empty() and ticks_diff(end_ms, ticks_ms()) > 0:
        wifi.step()
        client.step(20)
    waiting[:] = [token for token in waiting if not client.is_done(token)]
    client.disconnect()
    client.wait_offline(2_000)
    wifi.stop()
    print("online: %d ms, waiting: %d" % (ticks_diff(ticks_ms(), begin_ms), len(waiting)))


waiting = []  # tokens
wifi = Wifi(secrets.WIFI, ntp=secrets.NTP)
client = MQTTClient(
    secrets.SERVER,
    user=secrets.USER,
    password=secrets.PASSWORD,
    link=wifi,
    pipe_slots=KEPT,
    pipe_bytes_max=KEPT * 72,
    offline="drop_oldest",
)
client.on_online = lambda client: print("mqtt: online")
client.on_offline = lambda client, error: error and print("mqtt: offline:", error)
client.on_dropped = lambda client, token: print("dropped:", token)
count = 0
while True:
    waiting.append(client.publish(TOPIC, "%d %.1f" % (time(), measure()), qos=1))
    if count % BATCH == 0:  # the first one as well: you see at once whether it works
        send_all()
    count += 1
    machine.lightsleep(PERIOD_MS)
