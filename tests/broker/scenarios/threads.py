"""Several threads publish through one client that is driven in the background.

    threads.py '{"uri": "mqtt://127.0.0.1:1883", ...}' TOPIC THREADS COUNT DEADLINE_S

Each thread publishes the messages 1 to COUNT to TOPIC/THREAD/1 and as many to TOPIC/THREAD/2, at
QoS 1 and 2, in turn, and waits for its last token. Events: ["online"], ["offline", error],
["done", thread, refusals], ["failed", thread, error], ["stopped", what stop() has answered] and
["bye", stats] at the end.
"""

import _thread
import sys

from control import error_text, read_argument, say

import mqttpipe
from mqttpipe import MQTTClient, QueueFull, sleep_ms, ticks_diff, ticks_ms


class Publisher:
    def __init__(self, client, number, topic, count, deadline_s):
        self.client = client
        self.number = number
        self.topics = [b"%s/%d/%d" % (topic.encode(), number, qos) for qos in (1, 2)]
        self.count = count
        self.deadline_s = deadline_s
        self.refusals = 0
        self.error = None
        self.is_over = False

    def run(self):
        try:
            token = 0
            for number in range(1, self.count + 1):
                for qos in (1, 2):
                    token = self.publish(b"%d" % number, qos)
            if not self.client.wait_for(token, self.deadline_s * 1000):
                self.error = mqttpipe.TimedOut("the last one")
        except Exception as error:
            self.error = error
        self.is_over = True

    def publish(self, payload, qos):
        while True:
            try:
                return self.client.publish(self.topics[qos - 1], payload, qos)
            except QueueFull:
                self.refusals += 1
                sleep_ms(1)


def main(options, topic, threads, count, deadline_s):
    deadline_s = int(deadline_s)
    begin_ms = ticks_ms()
    client = MQTTClient(**read_argument(options))
    client.on_online = lambda c: say("online")
    client.on_offline = lambda c, error: say("offline", error_text(error))
    client.on_error = lambda c, error: say("error", error_text(error))
    publishers = [
        Publisher(client, number, topic, int(count), deadline_s) for number in range(int(threads))
    ]
    client.start()
    for publisher in publishers:
        _thread.start_new_thread(publisher.run, ())
    while not all(publisher.is_over for publisher in publishers):
        if ticks_diff(ticks_ms(), begin_ms) > deadline_s * 1000:
            say("late")
            break
        sleep_ms(10)
    for publisher in publishers:
        if publisher.error:
            say("failed", publisher.number, error_text(publisher.error))
        else:
            say("done", publisher.number, publisher.refusals)
    say("stopped", client.stop())
    say("bye", client.stats)


main(*sys.argv[1:])
