"""The server as bytes and the port as text, as a socket takes them; bools for the QoS."""

import sys

from umqtt.simple import MQTTClient

host, port, topic = sys.argv[1].encode(), sys.argv[2], sys.argv[3].encode()
came = []
c = MQTTClient(b"loose", host, port)
c.set_callback(lambda name, msg: came.append(msg))
c.set_last_will(topic + b"/will", b"gone", True, False)
print("session", c.connect())
c.subscribe(topic, True)
c.publish(topic, b"at QoS 1", False, True)
while not came:
    c.wait_msg()
print(came)
c.disconnect()
