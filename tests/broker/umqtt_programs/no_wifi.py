"""umqtt.robust: connect() of a subclass finds no Wi-Fi at first."""

import sys

import umqtt.robust

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()


class Client(umqtt.robust.MQTTClient):
    attempts = 0

    def connect(self, clean_session=True):
        self.attempts += 1
        if self.attempts % 3:
            raise OSError("no Wi-Fi")
        return super().connect(clean_session)


c = Client(sys.argv[3], host, port, keepalive=10)
c.DEBUG = True
print("reconnected", c.reconnect())
c.disconnect()
print("reconnected", c.reconnect())
c.publish(topic, b"here", qos=1)
