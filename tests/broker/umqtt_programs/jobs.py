"""Wakes, looks for one message, and sleeps, with disconnect() or without."""

import sys
import time

from umqtt.simple import MQTTClient

host, port, topic, end = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4]
awake = []  # what a reset leaves to the server: connections


def wake():
    c = MQTTClient(topic, host, port)
    c.set_callback(lambda name, msg: print("came", msg.decode()))
    awake.append(c)
    return c, c.connect(False)


c, session_present = wake()
c.subscribe(topic, 1)
c.disconnect()
print("asleep")
for _ in range(15):
    time.sleep(0.2)
    c, session_present = wake()
    time.sleep(0.2)
    c.check_msg()
    if end == "disconnect":
        c.disconnect()
print("done", session_present)
