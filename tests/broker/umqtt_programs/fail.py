"""What is raised: the server's refusal, nobody there, a filter that may not be."""

import sys

from umqtt.simple import MQTTClient, MQTTException

host, port, user, password = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
c = MQTTClient("failing", host, port, user, password + "?")
try:
    c.connect()
except MQTTException as e:
    print("refused", e.args)
c.pswd = password
print(c.connect())
c.set_callback(print)
try:
    c.subscribe(b"forbidden/#")
except MQTTException as e:
    print("filter", e.args)
c.disconnect()
try:
    MQTTClient("nobody", host, 1).connect(timeout=3)
except OSError as e:
    print("nobody", e.args[0] > 0)
