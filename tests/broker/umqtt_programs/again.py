"""Goes back to its session, behind a filter that was wrong and topics of each type."""

import sys

from umqtt.simple import MQTTClient

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3]
c = MQTTClient("again" + topic, host, port)
c.set_callback(lambda name, msg: print((name, msg)))
c.connect(False)
try:
    c.subscribe(topic + "/#/one")
except Exception as e:
    print("wrong", type(e).__name__)
c.subscribe(topic.encode() + b"/left")
c.unsubscribe(topic + "/left")
c.subscribe(bytearray(topic.encode() + b"/right"))
c.disconnect()
c.keepalive = 30
print("again", c.connect(False))
c.wait_msg()
c.disconnect()
c.connect()  # ends the session
c.disconnect()
