"""umqtt.robust: a subclass says that it is online, whenever it is connected."""

import sys
import time

import umqtt.robust

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()


class Client(umqtt.robust.MQTTClient):
    connections = 0

    def connect(self, clean_session=True):
        self.set_last_will(topic, b"offline", retain=True)
        try:
            return super().connect(clean_session)
        finally:
            self.connections += 1
            self.publish(topic, b"online %d" % self.connections, retain=True)


c = Client("teller", host, port, keepalive=5)
c.set_callback(print)
c.connect()
while True:
    c.check_msg()
    time.sleep_ms(20)
