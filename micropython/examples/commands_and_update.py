"""Commands in JSON with answers, and a file that comes in pieces and is checked before it is used.

    boards/NAME/command     {"id": 7, "do": "echo", "text": "hello"}
    boards/NAME/answer      {"id": 7, "value": "hello"} or {"id": 7, "error": "..."}
    boards/NAME/piece/AT    bytes AT and following of the file that {"do": "begin"} has named

send_file.py, on a PC, sends a file so: it waits for the answer to each piece. All of them fit into
packet_bytes_max, so no file is too large. Who may publish here can change your program: let your
server admit nobody else.
"""

import json
import os
import secrets
from binascii import hexlify
from hashlib import sha256

from wifi import Wifi

import machine
from mqttpipe import MQTTClient

TOPIC = "boards/%s/" % secrets.NAME
PART = "update.part"
file, size, digest, name = None, 0, None, ""


def begin(wanted):
    global file, size, digest, name
    if file:
        file.close()
    file, size, digest, name = open(PART, "wb"), 0, sha256(), wanted["name"]
    return size


# A piece that comes twice (QoS 1, or a sender that asks again) changes nothing: the answer is how
# much there is.
def on_piece(client, message):
    global size
    if file and int(message.topic_name.split("/")[-1]) == size:
        file.write(message.view)
        digest.update(message.view)
        size += len(message.view)
    answer(-1, {"value": size})


def end(wanted):
    global file
    file.close()
    file = None
    if hexlify(digest.digest()).decode() != wanted["sha256"]:
        raise ValueError("damaged, nothing was changed")
    os.rename(PART, name)  # from one moment to the next: there is no half file, ever
    print("update:", name, size, "bytes")
    return size


COMMANDS = {"echo": lambda wanted: wanted["text"], "begin": begin, "end": end}
COMMANDS["reset"] = lambda wanted: machine.reset()


def on_command(client, message):
    number = None
    try:
        wanted = json.loads(message.payload)
        number = wanted["id"]
        do = COMMANDS[wanted["do"]]
        answer(number, {"value": do(wanted)})
    except Exception as error:  # whatever is in a message, the board goes on
        answer(number, {"error": repr(error)})


def answer(number, what):
    what["id"] = number
    client.publish(TOPIC + "answer", json.dumps(what), qos=1)


wifi = Wifi(secrets.WIFI)
client = MQTTClient(secrets.SERVER, user=secrets.USER, password=secrets.PASSWORD, link=wifi)
client.on_online = lambda client: print("mqtt: online")
client.on_offline = lambda client, error: print("mqtt: offline:", error)
client.subscribe(TOPIC + "command", on_command, qos=1)
client.subscribe(TOPIC + "piece/+", on_piece, qos=1)
wifi.start()
client.connect()
while True:
    wifi.step()
    client.step(100)
