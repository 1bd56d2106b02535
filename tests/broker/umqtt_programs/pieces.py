"""Connects with a heap whose free pieces are as large as its fourth argument says."""

import sys

from umqtt.simple import MQTTClient

import mqttpipe

host, port, topic, piece = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])


class InPieces(mqttpipe.MQTTClient):
    def __init__(self, **options):
        print("asks for", options["packet_bytes_max"])
        if options["packet_bytes_max"] > piece:
            raise MemoryError("memory allocation failed, allocating 4096 bytes")
        super().__init__(**options)


mqttpipe.MQTTClient = InPieces
c = MQTTClient("pieces" + topic, host, port)
c.set_callback(lambda name, msg: print("got", len(msg)))
try:
    c.connect()
    c.subscribe(topic)
    c.publish(topic, "x" * 900)
    c.wait_msg()
    c.disconnect()
except MemoryError:
    print("MemoryError")
