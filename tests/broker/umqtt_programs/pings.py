"""Asks whether the server is there, and takes its time over messages that wait."""

import sys
import time

from umqtt.simple import MQTTClient

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
c = MQTTClient("pinging", host, port, keepalive=2)
c.set_callback(lambda name, msg: print("came", msg))
c.set_last_will(topic + b"/will", b"gone")
c.connect()
c.ping()
print("pong", c.wait_msg())
c.ping()
c.subscribe(topic + b"/in", qos=1)
print("waits")
print("subscribed", c.wait_msg())
time.sleep(0.5)  # all of them come meanwhile
for _ in range(25):
    c.check_msg()
    time.sleep(0.4)
c.disconnect()
print("done")
