"""Connects, subscribes, looks and disconnects, time and again, to what it wants then."""

import sys
import time

from umqtt.simple import MQTTClient

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
came = []
c = MQTTClient(topic, host, port)
c.set_callback(lambda name, msg: came.append(msg.decode()))


def look():
    for _ in range(20):
        c.check_msg()
        time.sleep(0.02)
    print(" ".join(came))
    came.clear()


c.connect()
c.publish(topic + b"/kept", b"kept", True)
for _ in range(3):
    c.subscribe(topic + b"/kept")
    look()
    c.disconnect()
    c.connect()
c.publish(topic + b"/kept", b"", True)
c.subscribe(topic + b"/other")
c.publish(topic + b"/kept", b"not for it")
c.publish(topic + b"/other", b"for it")
look()
c.disconnect()
