"""Many clients in one loop around one `select.poll` of CPython's own.

    fleet.py '{"uri": "mqtt://127.0.0.1:1883", ...}' TOPIC CLIENTS MESSAGES DEADLINE_S

Client N subscribes to TOPIC/N and publishes MESSAGES messages to TOPIC/N+1 when all are online.
Events: ["online", milliseconds], ["received", messages, milliseconds], ["steps", calls of step(),
turns of the loop while all are idle for a second, seconds of processor time in that], ["bye"].
"""

import resource
import select
import sys
import time

from control import error_text, read_argument, say

from mqttpipe import MQTTClient

IDLE_S = 1.0


class Fleet:
    """The clients, and which descriptor belongs to which."""

    def __init__(self, clients, deadline_s):
        self.clients = clients
        self.poll = select.poll()
        self.owners = {}  # descriptor -> client
        self.watched = {client: {} for client in clients}  # client -> {descriptor: events}
        self.due_s = {}  # client -> time.monotonic() of its next deadline
        self.end_s = time.monotonic() + deadline_s
        self.steps = self.turns = 0
        for client in clients:
            self.work(client)

    def work(self, client):
        """Let one client do what there is, and watch for it what it says."""
        while True:
            self.steps += 1
            if not client.step():
                break
        wanted = {}
        for pollable, events in client.pollables():
            wanted[pollable.fileno()] = events
        watched = self.watched[client]
        for descriptor in watched.keys() - wanted.keys():
            if self.owners.get(descriptor) is client:  # else its number is somebody else's by now
                self.poll.unregister(descriptor)
                del self.owners[descriptor]
        for descriptor, events in wanted.items():
            if watched.get(descriptor) != events or self.owners.get(descriptor) is not client:
                self.poll.register(descriptor, events)
                self.owners[descriptor] = client
        self.watched[client] = wanted
        delay_ms = client.next_deadline_ms()
        if delay_ms is None:
            self.due_s.pop(client, None)
        else:
            self.due_s[client] = time.monotonic() + delay_ms / 1000

    def turn(self, limit_s):
        """Sleep until something is to do, at most until `limit_s`, and do it."""
        self.turns += 1
        now_s = time.monotonic()
        assert now_s < self.end_s, "late"
        next_s = min([limit_s, *self.due_s.values()])
        ready = self.poll.poll(max(0, next_s - now_s) * 1000)
        now_s = time.monotonic()
        todo = {self.owners[descriptor] for descriptor, _ in ready}
        todo.update(client for client, due_s in self.due_s.items() if due_s <= now_s)
        for client in todo:
            self.work(client)

    def until(self, condition):
        begin_s = time.monotonic()
        while not condition():
            self.turn(begin_s + 1000)
        return round((time.monotonic() - begin_s) * 1000)


def allow_descriptors(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY:
            count = min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def main(options, topic, clients, messages, deadline_s):
    options = read_argument(options)
    clients, messages = int(clients), int(messages)
    allow_descriptors(4 * clients + 100)
    received = [0] * clients
    fleet = []

    def make(number):
        def on_message(client, message):
            assert message.payload == b"%d" % received[number], "order"
            received[number] += 1

        client = MQTTClient(client_id="%s-%d" % (topic.replace("/", "-"), number), **options)
        client.on_offline = lambda c, error: error and say("offline", error_text(error))
        client.on_error = lambda c, error: say("error", error_text(error))
        client.subscribe("%s/%d" % (topic, number), on_message, 1)
        client.connect()
        return client

    begin_s = time.monotonic()
    fleet = Fleet([make(number) for number in range(clients)], int(deadline_s))
    fleet.until(lambda: all(client.is_online() for client in fleet.clients))
    say("online", round((time.monotonic() - begin_s) * 1000))
    for number, client in enumerate(fleet.clients):
        for message in range(messages):
            client.publish("%s/%d" % (topic, (number + 1) % clients), b"%d" % message, 1)
    took_ms = fleet.until(lambda: sum(received) == clients * messages)
    say("received", sum(received), took_ms)

    fleet.steps = fleet.turns = 0
    before_s = time.process_time()
    end_s = time.monotonic() + IDLE_S
    while time.monotonic() < end_s:
        fleet.turn(end_s)
    say("idle", fleet.steps, fleet.turns, round(time.process_time() - before_s, 4))
    for client in fleet.clients:
        client.disconnect()
    fleet.until(lambda: all(client.state_name == "DOWN" for client in fleet.clients))
    say("bye")


main(*sys.argv[1:])
