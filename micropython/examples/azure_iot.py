"""Azure IoT Hub: a SAS token that the board makes itself, and makes anew when it has run out.

In secrets.py: SERVER = "mqtts://HUB.azure-devices.net", NAME, the device's id, PASSWORD, its
primary key, and NTP. DigiCert Global Root G2 goes onto the board with --ca of tools/deploy.py.
"""

import gc

gc.threshold(16384)  # before all else: TLS needs 17 KB of memory in one piece

import json
import secrets
from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from time import gmtime, ticks_add, ticks_diff, ticks_ms, time

from wifi import Wifi

from mqttpipe import MQTTClient, QueueFull, parse_uri

EVERY_MS = 10_000
TOKEN_S = 3600  # the hub ends the connection then, and the next one brings a new token
HUB = parse_uri(secrets.SERVER)[0]
EVENTS = "devices/%s/messages/events/" % secrets.NAME
COMMANDS = "devices/%s/messages/devicebound/#" % secrets.NAME
METHODS = "$iothub/methods/"
EPOCH_S = 946_684_800 if gmtime(0)[0] == 2000 else 0  # some ports count from 2000


def hmac_sha256(key, data):
    key = (sha256(key).digest() if len(key) > 64 else key) + bytes(64)
    inner = sha256(bytes(x ^ 0x36 for x in key[:64]) + data).digest()
    return sha256(bytes(x ^ 0x5C for x in key[:64]) + inner).digest()


def quote(text):
    return text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")


def sas_token():
    end_s = int(time()) + EPOCH_S + TOKEN_S
    resource = quote("%s/devices/%s" % (HUB, secrets.NAME))
    signed = hmac_sha256(a2b_base64(secrets.PASSWORD), ("%s\n%d" % (resource, end_s)).encode())
    signed = quote(b2a_base64(signed).decode().strip())
    print("token: until", end_s)
    return "SharedAccessSignature sr=%s&sig=%s&se=%d" % (resource, signed, end_s)


# The hub waits for the answer: $iothub/methods/POST/NAME/?$rid=7 -> .../res/200/?$rid=7
# Of more than the queue holds the oldest is dropped; who called that method is told of a timeout.
def on_method(client, message):
    name, rid = message.topic_name.split("/")[-2:]
    print("method:", name, message.payload)
    answer = json.dumps({"done": name})
    client.publish(METHODS + "res/200/" + rid, answer, qos=1, offline="drop_oldest")


wifi = Wifi(secrets.WIFI, ntp=secrets.NTP)
user = "%s/%s/?api-version=2021-04-12" % (HUB, secrets.NAME)
login = {"user": user, "password": sas_token, "ca": secrets.CA}
# clean_session=False: the hub keeps what is sent to the device while a new token is made.
client = MQTTClient(secrets.SERVER, secrets.NAME, link=wifi, clean_session=False, **login)
client.on_online = lambda client: print("mqtt: online")
client.on_offline = lambda client, error: print("mqtt: offline:", error)
client.subscribe(COMMANDS, lambda client, message: print("message:", message.payload), qos=1)
client.subscribe(METHODS + "POST/#", on_method, qos=1)
wifi.start()
client.connect()
due_ms = ticks_ms()
while True:
    wifi.step()
    client.step(100)
    # A due time that is farther ahead was one of days ago: ticks_ms() has come round.
    if client.is_online() and not 0 < ticks_diff(due_ms, ticks_ms()) <= EVERY_MS:
        try:
            client.publish(EVENTS, json.dumps({"temperature": 21.5}), qos=1)
            due_ms = ticks_add(ticks_ms(), EVERY_MS)
        except QueueFull:
            pass  # methods came faster than answers leave: in a later round
