"""A timer's function publishes while the program waits, where it is least convenient."""

import sys

from umqtt.simple import MQTTClient

from micropython import schedule

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()


class Client(MQTTClient):
    is_due = True

    def _on_message(self, client, message):
        if message.payload != b"3":
            be_due(message.payload)  # in step()
        super()._on_message(client, message)

    def _deliver(self):
        if self.is_due and self._messages[0][1] == b"3":
            self.is_due = False
            be_due(b"3")  # between a look whether there is a message and its delivery
        return super()._deliver()


def be_due(msg):
    schedule(tick, msg)
    for _ in range(3):
        pass  # as behind any jump, it runs here


def tick(msg):
    if msg == b"4":
        c.disconnect()
        return
    c.publish(topic + b"/tick", msg, qos=int(msg) % 3)
    c.ping()
    c.check_msg()


def on_message(name, msg):
    global got
    got += 1
    print("came", msg.decode())


got = 0
c = Client(topic, host, port)
c.set_callback(on_message)
c.connect()
c.subscribe(topic + b"/in")
print("subscribed")
try:
    while True:
        c.wait_msg()
except OSError:
    print("disconnected", got)
