"""asyncio: the client, a sensor, commands and a blinking lamp are four tasks beside each other.

It needs the profile with asyncio: tools/deploy.py --profile full.
"""

import asyncio
import secrets

from wifi import Wifi

from machine import Pin
from mqttpipe import MQTTClient

TOPIC = "boards/%s/" % secrets.NAME
lamp = Pin(27, Pin.OUT, value=0)
period_ms = 500


def measure():
    return "21.5"  # your sensor


async def keep_wifi():
    wifi.start()
    while True:
        wifi.step()
        await asyncio.sleep_ms(100)


async def tell_temperature():
    while True:
        # Returns when the server has it; while offline that takes as long as it takes.
        await client.publish_wait(TOPIC + "temperature", measure(), qos=1)
        await asyncio.sleep(10)


async def obey():
    global period_ms
    async with client.messages(TOPIC + "period", qos=1) as messages:
        async for message in messages:
            try:
                period_ms = min(60_000, max(20, int(message.payload)))
                print("period:", period_ms)
            except ValueError:
                print("no number:", message.payload)


async def blink():
    while True:
        lamp.value(not lamp.value())
        await asyncio.sleep_ms(period_ms)


async def main():
    asyncio.create_task(keep_wifi())
    running = asyncio.create_task(client.run())
    for task in (tell_temperature, obey, blink):
        asyncio.create_task(task())
    await running


wifi = Wifi(secrets.WIFI)
client = MQTTClient(secrets.SERVER, user=secrets.USER, password=secrets.PASSWORD, link=wifi)
client.on_online = lambda client: print("mqtt: online")
client.on_offline = lambda client, error: print("mqtt: offline:", error)
asyncio.run(main())
