"""Goes to another server: when the connection is lost (behind disconnect() or not), or at once."""

import sys
import time

from umqtt.simple import MQTTClient

host, port, topic, end = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), sys.argv[5]
c = MQTTClient(topic, host, port, keepalive=10)
c.TIMEOUT_MS = 2_000
c.set_callback(lambda name, msg: print("came", msg.decode()))
c.connect()
c.subscribe(topic)
print("connected")
try:
    while end != "at once":
        c.publish(topic, b"is it there?", False, 1)
        time.sleep(0.1)
except OSError:
    print("lost")
if end == "disconnect":
    c.disconnect()
c.port = int(sys.argv[4])
if end == "at once":
    c.client_id += b"/2"  # it is the same server
print("session", c.connect())
c.subscribe(topic)
c.publish(topic, b"here", False, 1)
c.disconnect()
