"""umqtt.robust: publishes while there is no connection, and connects anew."""

import sys
import time

import umqtt.robust

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
c = umqtt.robust.MQTTClient(sys.argv[3], host, port, keepalive=10)
c.TIMEOUT_MS = 1_000
c.DEBUG = True
c.connect()
print("connected")
while not c._was_lost:
    c.check_msg()
    time.sleep_ms(20)
c.publish(topic, b"fire", qos=1)
c.disconnect()
print("disconnected")
while True:
    time.sleep_ms(100)
    try:
        c.connect()
        break
    except OSError:
        print("not yet")
c.publish(topic, b"out", qos=1)
c.disconnect()
