"""Waits for messages, and answers each in the callback."""

import sys

from umqtt.simple import MQTTClient

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()


def on_message(name, msg):
    print((name, msg))
    c.publish(topic + b"/answer", msg, qos=1)


c = MQTTClient(b"receiver", host, port, keepalive=30)
c.set_callback(on_message)
c.set_last_will(topic + b"/will", b"gone", retain=False, qos=1)
c.connect()
c.subscribe(topic + b"/in", qos=1)
print("subscribed")
try:
    while True:
        print("first byte", c.wait_msg())
finally:
    c.disconnect()
