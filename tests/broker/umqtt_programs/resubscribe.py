"""umqtt.robust: a subclass subscribes again, whenever it is connected and there was no session."""

import sys

import umqtt.robust

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()


class Client(umqtt.robust.MQTTClient):
    def connect(self, clean_session=True):
        session_present = super().connect(clean_session)
        if not session_present:
            self.subscribe(topic + b"/kept", qos=1)
            self.subscribe(topic + b"/in")
        print("connected")
        return session_present


c = Client(topic, host, port, keepalive=10)
c.set_callback(lambda name, msg: print("came", msg.decode()))
c.connect()
while True:
    c.wait_msg()
