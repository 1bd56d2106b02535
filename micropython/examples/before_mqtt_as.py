"""A lamp and a temperature with mqtt_as: what from_mqtt_as.py was before.

See docs/migration.md.
"""

import asyncio
import secrets

from mqtt_as import MQTTClient, config

from machine import Pin

TOPIC = "boards/" + secrets.NAME
EVERY_S = 10
lamp = Pin(27, Pin.OUT, value=0)


async def on_up():
    while True:
        await client.up.wait()
        client.up.clear()
        print("connected")
        await client.subscribe(TOPIC + "/lamp/set", 1)
        await client.publish(TOPIC + "/status", "online", True, 1)


async def obey():
    async for _topic, msg, _retained in client.queue:
        lamp.value(msg == b"on")
        await client.publish(TOPIC + "/lamp", msg, True, 1)


async def main():
    await client.connect()
    for task in (on_up, obey):
        asyncio.create_task(task())
    while True:
        await client.publish(TOPIC + "/temperature", "21.5", qos=1)
        await asyncio.sleep(EVERY_S)


config["ssid"], config["wifi_pw"] = secrets.WIFI[0]
config["server"] = secrets.SERVER[len("mqtt://") :]
config["user"], config["password"] = secrets.USER or "", secrets.PASSWORD or ""
config["will"] = (TOPIC + "/status", "offline", True, 1)
config["queue_len"] = 8
client = MQTTClient(config)
asyncio.run(main())
