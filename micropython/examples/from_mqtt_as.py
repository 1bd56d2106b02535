"""A lamp and a temperature: what became of before_mqtt_as.py. See docs/migration.md.

It needs the profile with asyncio: tools/deploy.py --profile full.
"""

import asyncio
import secrets

from wifi import Wifi

from machine import Pin
from mqttpipe import MQTTClient

TOPIC = "boards/" + secrets.NAME
EVERY_S = 10
lamp = Pin(27, Pin.OUT, value=0)


def on_online(client):  # a function, no coroutine; the subscriptions are made again
    print("mqtt: online")
    client.publish(TOPIC + "/status", "online", qos=1, retain=True, offline="drop_oldest")


async def obey():
    async with client.messages(TOPIC + "/lamp/set", qos=1, queue_max=8) as messages:
        async for message in messages:
            lamp.value(message.payload == b"on")
            await client.publish_wait(TOPIC + "/lamp", message.payload, qos=1, retain=True)


async def keep_wifi():
    wifi.start()
    while True:
        wifi.step()
        await asyncio.sleep_ms(100)


async def main():
    for task in (keep_wifi, client.run, obey):
        asyncio.create_task(task())
    while True:
        await client.publish_wait(TOPIC + "/temperature", "21.5", qos=1)
        await asyncio.sleep(EVERY_S)


wifi = Wifi(secrets.WIFI)
client = MQTTClient(
    secrets.SERVER,
    user=secrets.USER,
    password=secrets.PASSWORD,
    will=(TOPIC + "/status", "offline", 1, True),  # QoS before retain
    link=wifi,
)
client.on_online = on_online
client.on_offline = lambda client, error: print("mqtt: offline:", error)
asyncio.run(main())
