"""AWS IoT Core: a certificate of the board's own, and a lamp that follows the thing's shadow.

In secrets.py: SERVER = "mqtts://...-ats.iot.REGION.amazonaws.com", NAME, the name of the
thing, and NTP. AmazonRootCA1.pem and the thing's certificate and key go onto the board
with --ca, --cert, --key of tools/deploy.py.
"""

import gc

gc.threshold(16384)  # before all else: TLS needs 17 KB of memory in one piece

import json
import secrets

from wifi import Wifi

from machine import Pin
from mqttpipe import MQTTClient, QueueFull, parse_uri

SHADOW = "$aws/things/%s/shadow/" % secrets.NAME
lamp = Pin(27, Pin.OUT, value=0)
unreported = set()  # "lamp": its state is to be reported


# Another word is not obeyed, and not reported: each report of what is not wanted brings a delta.
def follow(wanted):
    if wanted.get("lamp") in ("on", "off"):
        lamp.value(wanted["lamp"] == "on")
        unreported.add("lamp")


# What is wanted now, or was while the board was away: the answer to "get".
def on_shadow(client, message):
    unreported.add("lamp")
    follow(json.loads(message.payload)["state"].get("desired", {}))


# What is wanted and not so.
def on_delta(client, message):
    follow(json.loads(message.payload)["state"])


def on_rejected(client, message):
    print("shadow:", message.payload)  # code 404: there is none yet
    unreported.add("lamp")


def on_online(client):
    print("mqtt: online")
    client.publish(SHADOW + "get", b"", qos=1, offline="drop_oldest")


# On port 443 AWS tells MQTT by ALPN, which MicroPython has not (1.29): use port 8883 there, or a
# domain configuration of AWS with the application protocol SECURE_MQTT, which needs no ALPN.
def tls_with_alpn():
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(secrets.CA)
    context.load_cert_chain(secrets.CERT, secrets.KEY)
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    return {"tls": context}


files = {"ca": secrets.CA, "cert": secrets.CERT, "key": secrets.KEY}
wifi = Wifi(secrets.WIFI, ntp=secrets.NTP)
client = MQTTClient(
    secrets.SERVER,
    client_id=secrets.NAME,
    link=wifi,
    packet_bytes_max=2048,
    **(tls_with_alpn() if parse_uri(secrets.SERVER)[1] == 443 else files),
)
client.on_online = on_online
client.on_offline = lambda client, error: print("mqtt: offline:", error)
for name, callback in (("get/accepted", on_shadow), ("get/rejected", on_rejected)):
    client.subscribe(SHADOW + name, callback, qos=1)
client.subscribe(SHADOW + "update/delta", on_delta, qos=1)
wifi.start()
client.connect()
while True:
    wifi.step()
    client.step(100)
    if unreported:
        state = {"reported": {"lamp": "on" if lamp.value() else "off"}}
        try:
            client.publish(SHADOW + "update", json.dumps({"state": state}), qos=1)
            unreported.clear()
            print("lamp:", state["reported"]["lamp"])
        except QueueFull:
            pass  # deltas came faster than reports leave: in a later round
