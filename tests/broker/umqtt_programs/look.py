"""Looks for messages beside other work, publishes now and then, and knows one topic at a time."""

import sys
import time

from umqtt.simple import MQTTClient

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
c = MQTTClient("looker", host, port)
c.set_callback(lambda name, msg: print((name, msg)))
c.connect()
c.subscribe(topic + b"/one")
print(c.check_msg())
print("ready")
n = 0
while n < 3:
    if c.check_msg():
        n += 1
    c.ping()
    time.sleep_ms(20)
c.unsubscribe(topic + b"/one")
print("unsubscribed")
c.subscribe(topic + b"/two")
c.wait_msg()
c.disconnect()
try:
    c.wait_msg()
except OSError:
    print("after disconnect(): OSError")
begin_ms = time.ticks_ms()
try:
    c.publish(topic, b"nobody is there")
except OSError:
    print("at once", time.ticks_diff(time.ticks_ms(), begin_ms) < 2_000)
