"""On a PC: send a file to a board that runs commands_and_update.py.

pip install mqttpipe
python3 send_file.py mqtt://192.168.4.2 NAME app.py
"""

import hashlib
import json
import os
import sys

from mqttpipe import MQTTClient

PIECE_BYTES = 900  # with the topic name less than the board's packet_bytes_max

uri, board, path = sys.argv[1:]
topic = "boards/%s/" % board
answers = []
client = MQTTClient(uri, packet_bytes_max=4096)
client.on_offline = lambda client, error: print("offline:", error)
client.subscribe(topic + "answer", lambda c, message: answers.append(message.payload), qos=1)
client.connect()


def ask(topic_name, payload, number):
    """Publish, and return the value of the answer; again if none comes within 5 s."""
    for _ in range(10):
        client.publish(topic + topic_name, payload, qos=1)
        for _ in range(50):
            client.step(100)
            while answers:
                answer = json.loads(answers.pop(0))
                if answer["id"] == number:
                    return answer["value"] if "value" in answer else sys.exit(answer["error"])
    sys.exit("the board does not answer")


def command(number, **words):
    return ask("command", json.dumps(dict(words, id=number)), number)


with open(path, "rb") as file:
    data = file.read()
at = command(1, do="begin")
while at < len(data):
    at = ask("piece/%d" % at, data[at : at + PIECE_BYTES], -1)
command(2, do="end", name=os.path.basename(path), sha256=hashlib.sha256(data).hexdigest())
print("sent: %d bytes" % len(data))
