"""umqtt.robust: publishes each 50 ms at QoS 1, and prints what comes back."""

import sys
import time

import umqtt.robust

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
c = umqtt.robust.MQTTClient(sys.argv[3], host, port, keepalive=10)
c.DEBUG = True
c.TIMEOUT_MS = int(sys.argv[5])
c.set_callback(lambda name, msg: print("came", msg.decode()))
if not c.connect(clean_session=False):
    print("new session")
    c.subscribe(topic, qos=1)
for n in range(int(sys.argv[4])):
    c.publish(topic, b"%d" % n, qos=1)
    c.check_msg()
    time.sleep_ms(50)
print("all published")
while True:
    c.wait_msg()
