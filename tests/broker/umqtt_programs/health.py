"""Has nothing but ping() to tell whether it is connected, and connects where that raises."""

import sys
import time

from umqtt.simple import MQTTClient

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
c = MQTTClient(topic, host, port)


def connect():
    try:
        c.connect()
        c.publish(topic, b"here", False, 1)
    except OSError:
        print("not yet")


connect()
while True:
    time.sleep(0.2)
    try:
        c.ping()
    except OSError:
        connect()
