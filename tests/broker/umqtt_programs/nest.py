"""Answers at QoS 0 in its callback, while a burst of messages waits."""

import sys
import time

from umqtt.simple import MQTTClient

host, port, topic, count = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), int(sys.argv[4])
depth = deepest = got = 0


def on_message(name, msg):
    global depth, deepest, got
    depth += 1
    deepest = max(deepest, depth)
    c.publish(topic + b"/answer", msg, qos=got % 2)
    got += 1
    depth -= 1


c = MQTTClient("nesting", host, port)
c.set_callback(on_message)
c.connect()
c.subscribe(topic + b"/in")
print("subscribed")
time.sleep(2)  # all of them come meanwhile
while got < count:
    c.check_msg()
c.disconnect()
print("deepest", deepest)
