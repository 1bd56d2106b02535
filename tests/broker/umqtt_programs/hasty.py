"""A timer's function connects, in the middle of step(), when the connection has just been lost."""

import sys

from umqtt.simple import MQTTClient

from micropython import schedule

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()


class Client(MQTTClient):
    def _on_offline(self, client, error):
        super()._on_offline(client, error)
        self._error = None  # as when the timer is due a little later
        schedule(tick, None)
        for _ in range(3):
            pass


def tick(_):
    try:
        c.connect(False)
    except Exception:
        print("not now")


c = Client(topic, host, port, keepalive=10)
c.set_callback(lambda name, msg: print("came", msg.decode()))
c.connect(False)
c.subscribe(topic)
print("subscribed")
while True:
    c.wait_msg()
