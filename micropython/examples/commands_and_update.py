"""Commands in JSON with answers, and a file that comes in pieces and is checked before it is used.

    boards/NAME/command     {"id": 7, "do": "echo", "text": "hello"}
    boards/NAME/answer      {"id": 7, "value": "hello"} or {"id": 7, "error": "..."}
    boards/NAME/piece/AT    bytes AT and following of the file, after {"do": "begin"}

send_file.py, on a PC, sends a file so: it waits for the answer to each piece. All of them fit into
packet_bytes_max. Who may publish here can change your program: let your server admit nobody else.
"""

import json
import os
import secrets
from hashlib import sha256

from wifi import Wifi

import machine
from mqttpipe import MQTTClient

TOPIC = "boards/%s/" % secrets.NAME
PART = "update.part"
NAMES = ("app.py",)  # the files that an update may replace; never main.py
FILE_BYTES_MAX = 100_000  # who sends and never ends must not fill the flash


def begin(wanted):
    open(PART, "wb").close()
    return 0


# What is in PART is all that is known of an update: a reset, or a second sender, leaves nothing
# that is out of step with it. A piece that comes twice (QoS 1, or a sender that asks again) or out
# of turn changes nothing: the answer is how much there is.
def write(message, what):
    with open(PART, "r+b") as part:  # raises OSError if there was no begin
        size = part.seek(0, 2)
        if size > FILE_BYTES_MAX:
            raise ValueError("too large")
        if message.topic_name.endswith("/piece/%d" % size):
            size += part.write(message.view)
    return size


def end(wanted):
    name, digest = NAMES[NAMES.index(wanted["name"])], sha256()  # ValueError: another
    is_done = PART not in os.listdir()  # asked again: the answer was lost
    with open(name if is_done else PART, "rb") as file:
        while data := file.read(512):
            digest.update(data)
    if digest.digest().hex() != wanted["sha256"]:
        raise ValueError("damaged, nothing was changed")
    if not is_done:
        os.rename(PART, name)  # from one moment to the next: there is no half file, ever
        print("update:", name)


COMMANDS = {"begin": begin, "end": end, "echo": lambda wanted: str(wanted["text"])[:100]}
COMMANDS["reset"] = lambda wanted: machine.reset()


def obey(message, what):
    wanted = json.loads(message.payload)
    what["id"] = int(str(wanted["id"])[:20])
    do = COMMANDS[wanted["do"]]
    return do(wanted)


# Each answer is short: it fits into a packet, whatever was in the command.
def answer(do, message, number):
    what = {"id": number}
    try:
        what["value"] = do(message, what)
    except Exception as error:  # whatever is in a message, the board goes on
        what["error"] = repr(error)[:100]
    client.publish(TOPIC + "answer", json.dumps(what), qos=1)


wifi = Wifi(secrets.WIFI)
login = {"user": secrets.USER, "password": secrets.PASSWORD}
# Commands may come faster than answers leave: so many wait, and of more the oldest are dropped.
client = MQTTClient(secrets.SERVER, link=wifi, pipe_slots=128, offline="drop_oldest", **login)
client.on_online = lambda client: print("mqtt: online")
client.on_offline = lambda client, error: print("mqtt: offline:", error)
client.subscribe(TOPIC + "command", lambda client, message: answer(obey, message, None), qos=1)
client.subscribe(TOPIC + "piece/+", lambda client, message: answer(write, message, -1), qos=1)
wifi.start()
client.connect()
while True:
    wifi.step()
    client.step(100)
