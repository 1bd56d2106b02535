"""One client of tools/demo.py: does what it is told and tells what happens. On any Python.

This same file runs on CPython and inside MicroPython. Commands come on standard input, events go
to standard output: JSON, one a line. By hand:

    $ MICROPYPATH=micropython micropython tools/demo/client.py
    {"do": "connect", "uri": "mqtt://127.0.0.1", "client_id": "me", "filters": ["me/0"]}
    {"do": "publish", "topic_name": "me/0", "payloads": ["one", "two"], "qos": 0}
    {"do": "quit"}

It ends with its standard input, so it can't outlive who started it.
"""

import json
import select
import sys

from mqttpipe import MQTTClient, QueueFull

# The client's defaults suit a device in the field, 1 s to 1 minute. Here somebody watches.
RECONNECT_MIN_MS = 300
RECONNECT_MAX_MS = 1500

# How long step() may sleep: a command waits for that long at most.
STEP_MS = 10


def tell(event, **details):
    details["event"] = event
    print(json.dumps(details))


def on_message(client, message):
    tell(
        "message",
        topic_name=message.topic_name,
        payload=str(message.payload, "utf-8"),
        qos=message.qos,
    )


def on_offline(client, error):
    kind = type(error).__name__ if error else None
    tell("offline", kind=kind, error=str(error))


def on_subscribed(client, token, granted):
    tell("subscribed", granted=granted[0])


class Worker:
    def __init__(self):
        self.client = None
        self.outgoing = []  # (topic_name, payload, qos), oldest first
        self.is_leaving = False
        self.subscribe_calls = 0

    def obey(self, command):
        if command["do"] == "connect":
            self.connect(command["uri"], command["client_id"], command["filters"])
        elif command["do"] == "publish":
            for payload in command["payloads"]:
                self.outgoing.append((command["topic_name"], payload, command["qos"]))
        elif command["do"] == "quit":
            self.is_leaving = True
            self.client.disconnect()

    def connect(self, uri, client_id, filters):
        client = self.client = MQTTClient(
            uri,
            client_id=client_id,
            # The server forgets the subscription with the connection: who gets messages after a
            # cut has subscribed again.
            clean_session=True,
            reconnect_min_ms=RECONNECT_MIN_MS,
            reconnect_max_ms=RECONNECT_MAX_MS,
        )
        client.on_online = lambda client: tell("online")
        client.on_offline = on_offline
        client.on_published = lambda client, token: tell("published")
        client.on_subscribed = on_subscribed
        client.on_error = lambda client, error: tell("error", error=repr(error))
        for qos, topic_filter in enumerate(filters):
            client.subscribe(topic_filter, on_message, qos)  # here and nowhere else
            self.subscribe_calls += 1
        client.connect()

    def work(self):
        """Return False when it is all over."""
        while self.outgoing:
            try:
                self.client.publish(*self.outgoing[0])
            except QueueFull:
                break  # step() makes room
            self.outgoing.pop(0)
        self.client.step(STEP_MS)
        if self.is_leaving and self.client.state_name == "DOWN":
            tell("ended", stats=self.client.stats, subscribe_calls=self.subscribe_calls)
            return False
        return True


def main():
    worker = Worker()
    # Unbuffered: a poll does not see what lies in a buffer.
    commands = open(0, "rb", 0)
    poll = select.poll()
    poll.register(commands, select.POLLIN)
    tell("started", python=sys.implementation.name)
    while True:
        if poll.poll(0 if worker.client else -1):
            line = commands.readline()
            if not line:
                return
            worker.obey(json.loads(line))
        if worker.client and not worker.work():
            return


main()
