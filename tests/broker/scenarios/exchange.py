"""A client that publishes many messages and tells which ones it receives.

    exchange.py '{"uri": ..., "client_id": ...}' TOPIC SEND RECEIVE DEADLINE_S

It publishes to TOPIC/out/QOS the messages 1 to n, where SEND is "n0,n1,n2", for QoS 0, 1 and 2, in
turn, so that all end together. It subscribes to TOPIC/in/QOS for the digits of RECEIVE ("12": at
QoS 1 and 2; "-": to nothing).

A payload is its number, and filling whose length depends on the number: both ends can tell whether
it is whole. Events: ["online", number of connections], ["offline", error], ["in", qos, number] for
each message, ["broken", qos, payload], ["sent"] when all is acknowledged. Order: ["quit"].
"""

import sys

from control import Control, error_text, leave, read_argument, say

import mqttpipe

FILLING = b"abcdefghijklmnopqrstuvwxyz" * 3


def payload_of(number):
    return b"%d " % number + FILLING[: number % 61]


class Exchange:
    def __init__(self, options, topic, send, receive):
        self.topic = topic
        self.counts = [int(part) for part in send.split(",")]
        self.next = [1, 1, 1]
        self.unacknowledged = sum(self.counts)
        self.client = client = mqttpipe.MQTTClient(**options)
        client.on_online = lambda c: say("online", c.stats["connections"])
        client.on_offline = lambda c, error: say("offline", error_text(error))
        client.on_error = lambda c, error: say("error", error_text(error))
        client.on_published = self.on_published
        client.on_message = self.on_message
        for digit in receive.replace("-", ""):
            client.subscribe("%s/in/%s" % (topic, digit), None, int(digit))
        client.connect()

    def on_published(self, client, token):
        self.unacknowledged -= 1
        if not self.unacknowledged:
            say("sent")

    def on_message(self, client, message):
        qos = int(message.topic_name[-1])
        payload = message.payload
        try:
            number = int(payload.split(b" ")[0])
        except ValueError:
            number = 0
        if payload != payload_of(number) or qos != message.qos:
            say("broken", qos, repr(payload))
        else:
            say("in", qos, number)

    def publish_more(self):
        """Publish until the pipe is full; the QoS that is most behind comes first."""
        while True:
            shares = [
                (self.next[qos] * 1000 // self.counts[qos], qos)
                for qos in range(3)
                if self.next[qos] <= self.counts[qos]
            ]
            if not shares:
                return
            qos = min(shares)[1]
            try:
                topic_name = "%s/out/%d" % (self.topic, qos)
                self.client.publish(topic_name, payload_of(self.next[qos]), qos)
            except mqttpipe.QueueFull:
                return
            self.next[qos] += 1


def main(options, topic, send, receive, deadline_s):
    exchange = Exchange(read_argument(options), topic, send, receive)
    control = Control(int(deadline_s) * 1000)
    while True:
        exchange.publish_more()
        exchange.client.step(5)
        order = control.next_order()
        if order and order[0] == "quit":
            break
    leave(exchange.client)


main(*sys.argv[1:])
