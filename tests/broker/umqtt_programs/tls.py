"""TLS, with the parameters of ssl.wrap_socket(): what is verified, and what is not."""

import sys

from umqtt.simple import MQTTClient

host, port, topic = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
with open(sys.argv[4], "rb") as file:
    ca = file.read()
for params in (
    {},
    {"server_hostname": host.encode(), "cadata": ca, "cert_reqs": 2},
    {"server_hostname": "elsewhere", "cadata": ca, "cert_reqs": 0},
    {"server_hostname": "elsewhere", "cadata": ca},
):
    c = MQTTClient(topic, host, port, ssl=True, ssl_params=params)
    try:
        c.connect()
        c.publish(topic, b"secret", False, 1)
        c.disconnect()
        print("told")
    except OSError:
        print("OSError")
