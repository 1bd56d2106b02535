"""Publishes once, and ends."""

import sys

from umqtt.simple import MQTTClient

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
c = MQTTClient("publisher", host, port)
print("session", c.connect())
c.publish(topic, b"hello")
c.publish(topic, "as text", retain=True)
c.publish(topic, b"third, fourth argument", False, 1)
c.disconnect()
print("done")
