"""umqtt.robust: the server comes later than the program, which says reconnect()."""

import sys
import time

import umqtt.robust
import umqtt.simple

host, port, topic, begin = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4]
c = umqtt.robust.MQTTClient(sys.argv[3], host, port, keepalive=10)
if begin == "connect":
    try:
        c.connect()
    except OSError:
        print("not yet")
if begin == "disconnect":
    c.connect()
    c.disconnect()
    c.TIMEOUT_MS = 1_000
    print("not yet")
    probe = umqtt.simple.MQTTClient("probe", host, port)
    try:
        while True:  # the server goes
            probe.connect()
            probe.disconnect()
            time.sleep(0.1)
    except OSError:
        pass
    begin_ms = time.ticks_ms()
    print("none", c.reconnect(), time.ticks_diff(time.ticks_ms(), begin_ms) < 3_000)
    c.TIMEOUT_MS = 10_000
else:
    print("soon")
print("reconnected", c.reconnect())
c.publish(topic, b"here", qos=1)
print("done")
