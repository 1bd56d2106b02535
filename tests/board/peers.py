"""The other side of a board's conversation: a client of the same server."""

import threading
import time

import paho.mqtt.client as paho

import servers

WAIT_S = 20


class Peer:
    """paho-mqtt, at the same server as the board `name`: what it hears is in `heard`."""

    def __init__(self, broker, name):
        self.name = name
        self.heard = []  # (topic, payload)
        self._changed = threading.Condition()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.reconnect_delay_set(min_delay=1, max_delay=1)
        self.client.on_connect = lambda client, *_: client.subscribe("boards/#", qos=1)
        self.client.on_message = self._on_message
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()

    def _on_message(self, client, user_data, message):
        with self._changed:
            self.heard.append((message.topic, message.payload.decode()))
            self._changed.notify_all()

    def wait_for(self, topic, payload, since=0, timeout_s=WAIT_S):
        """Wait until this message is among those heard; `since`: len(heard) of some moment."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while (topic, payload) not in self.heard[since:]:
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, "not heard: %s %s; heard: %s" % (topic, payload, self.heard)
                self._changed.wait(left_s)

    def ask(self, text, timeout_s=WAIT_S):
        """Publish a command, and wait for the board's answer."""
        since = len(self.heard)
        self.client.publish("boards/%s/command" % self.name, text, qos=1)
        self.wait_for("boards/%s/answer" % self.name, text, since, timeout_s)

    def close(self):
        servers.end_paho(self.client)
