"""The process of tools/load.py that has all the clients, in one thread and one loop.

    load_worker.py '{"uri": ..., "clients": 2000, "messages": 10, "jitter": true, ...}'

Client N subscribes to load/N and publishes to load/N+1, both at QoS 1, with a session that the
server keeps. Events, lines of JSON on stdout: ["phase", name, figures]; ["cut"]: the server may
be taken away now; it is told to be back by a line on stdin; ["bye", figures].
"""

import contextlib
import heapq
import json
import os
import resource
import select
import sys
import time

import mqttpipe

PIPE_SLOTS = 16

# While the server is away and until all are back, each client publishes so often.
STEADY_S = 2.0


def say(*event):
    print(json.dumps(event), flush=True)


def rss_kb():
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


class Member:
    """A client, what it sent and received, and when it has to be stepped next."""

    def __init__(self, fleet, number, options):
        self.fleet = fleet
        self.number = number
        self.topic = b"load/%d" % ((number + 1) % options["clients"])
        self.accepted = 0  # messages that publish() took; they are numbered from 0
        self.refused = 0  # QueueFull
        self.ended = 0  # acknowledged
        self.received = set()
        self.again = 0
        self.due_s = None  # time.monotonic()
        self.entered_s = None  # its entry in the fleet's heap: that, or earlier
        self.offline_s = None  # when the connection has ended, until the pause is known
        self.paused_s = 0.0  # all pauses since the cut
        self.sock = None  # what is watched, and for what
        self.events = 0
        self.client = client = mqttpipe.MQTTClient(
            options["uri"],
            client_id="load-%d" % number,
            clean_session=False,
            packet_bytes_max=256,
            pipe_slots=PIPE_SLOTS,
            connect_timeout_ms=30_000,  # all knock at the same time
            link=self,
        )
        client.on_published = self.on_published
        client.on_offline = self.on_offline
        client.on_connect = self.on_connect
        client.subscribe("load/%d" % number, self.on_message, 1)
        client.connect()

    # As `link` of the client it is asked once at the begin of each attempt.
    def is_up(self):
        self.fleet.attempts.append((self.paused_s, time.monotonic()))
        return True

    def on_connect(self, client, session_present):
        self.fleet.accepted.append(time.monotonic())

    def on_offline(self, client, error):
        self.offline_s = time.monotonic()
        self.fleet.ended.append(self.offline_s)

    def on_published(self, client, token):
        self.ended += 1

    def on_message(self, client, message):
        number = int(bytes(message.view))
        if number in self.received:
            self.again += 1
        self.received.add(number)
        self.fleet.received += 1

    def publish(self):
        try:
            self.client.publish(self.topic, b"%d" % self.accepted, 1)
            self.accepted += 1
        except mqttpipe.QueueFull:
            self.refused += 1


class Fleet:
    """All of them, around one epoll. Who publishes calls work() behind it: nobody else does, so
    only the sockets are watched, not the pipes.
    """

    def __init__(self, options):
        self.attempts = []  # (all pauses before it, when it was made) of each attempt to connect
        self.accepted = []  # of each CONNACK
        self.ended = []  # of each connection
        self.received = 0
        self.end_s = time.monotonic() + options["deadline_s"]
        self._epoll = select.epoll()
        self._owners = {}  # descriptor -> Member
        self._due = []  # a heap of (time, number)
        self.members = [Member(self, number, options) for number in range(options["clients"])]

    def work(self, member):
        """Let one do what there is, and watch for it what it says."""
        client = member.client
        while client.step():
            pass
        for sock, events in client.pollables()[1:]:
            if sock is not member.sock:
                # A closed one has left the epoll by itself; its number may be another's by now.
                member.sock = sock
                member.events = events
                self._owners[sock.fileno()] = member
                self._epoll.register(sock.fileno(), events)
            elif events != member.events:
                member.events = events
                self._epoll.modify(sock.fileno(), events)
        delay_ms = client.next_deadline_ms()
        member.due_s = None if delay_ms is None else time.monotonic() + delay_ms / 1000
        self.enter(member)
        if member.offline_s is not None and delay_ms:  # 0: one step more, then it is known
            member.paused_s += member.due_s - member.offline_s
            member.offline_s = None

    def enter(self, member):
        due_s = member.due_s
        if due_s is not None and (member.entered_s is None or due_s < member.entered_s):
            member.entered_s = due_s
            heapq.heappush(self._due, (due_s, member.number))

    def turn(self, limit_s):
        """Sleep until something is to do, or until limit_s, and do it."""
        now_s = time.monotonic()
        if now_s > self.end_s:
            raise TimeoutError(self.story())
        if self._due:
            limit_s = min(limit_s, self._due[0][0])
        for descriptor, _ in self._epoll.poll(max(0, limit_s - now_s)):
            self.work(self._owners[descriptor])
        now_s = time.monotonic()
        while self._due and self._due[0][0] <= now_s:
            entered_s, number = heapq.heappop(self._due)
            member = self.members[number]
            if entered_s != member.entered_s:
                continue  # an earlier one has taken its place
            member.entered_s = None
            if member.due_s is not None and member.due_s <= now_s:
                self.work(member)
            else:  # it was put off
                self.enter(member)

    def story(self):
        members = self.members
        return "too late: %d of %d clients are online, %d of %d messages have had their end" % (
            sum(member.client.is_online() for member in members),
            len(members),
            sum(member.ended for member in members),
            sum(member.accepted for member in members),
        )

    def until(self, condition):
        while not condition():
            self.turn(time.monotonic() + 0.1)

    def is_online(self):
        return all(member.client.is_online() for member in self.members)

    def is_settled(self):
        return all(member.ended == member.accepted for member in self.members)

    def has_all(self):
        return self.received >= sum(member.accepted for member in self.members)


@contextlib.contextmanager
def phase(name, **figures):
    begin_s, begin_cpu_s = time.monotonic(), time.process_time()
    yield figures
    figures["seconds"] = time.monotonic() - begin_s
    figures["processor_s"] = time.process_time() - begin_cpu_s
    say("phase", name, figures)


def make_fleet(options):
    before_kb = rss_kb()
    with phase("connecting") as figures:
        fleet = Fleet(options)
        figures["made_kb"] = rss_kb() - before_kb
        for member in fleet.members:
            fleet.work(member)
        fleet.until(fleet.is_online)
        figures["kb"] = rss_kb() - before_kb
        figures["files"] = len(os.listdir("/proc/self/fd"))
    return fleet


def exchange(fleet, messages):
    with phase("messages", count=messages * len(fleet.members)):
        for _ in range(messages):
            for member in fleet.members:
                member.publish()
                fleet.work(member)
        fleet.until(lambda: fleet.is_settled() and fleet.has_all())


def storm(fleet):
    """The server goes, and comes back; meanwhile all go on publishing."""
    del fleet.attempts[:], fleet.accepted[:], fleet.ended[:]
    stdin = select.poll()
    stdin.register(0, select.POLLIN)
    count = len(fleet.members)
    next_s = time.monotonic()
    at = 0
    back_s = None
    with phase("storm") as figures:
        say("cut")
        while back_s is None or not fleet.is_online():
            fleet.turn(next_s)
            while next_s <= time.monotonic():
                member = fleet.members[at % count]
                at += 1
                next_s += STEADY_S / count
                member.publish()
                fleet.work(member)
            if back_s is None and stdin.poll(0):
                back_s = float(sys.stdin.readline())
        online_s = time.monotonic()
        cut_s = min(fleet.ended)
        figures["back_s"] = back_s - cut_s
        figures["online_s"] = online_s - cut_s
        figures["attempts"] = [(paused_s, made - cut_s) for paused_s, made in fleet.attempts]
        figures["accepted"] = [accepted - cut_s for accepted in fleet.accepted]
        figures["ended"] = len(fleet.ended)


# Deliveries may be doubled, so it is not their number that tells; what never comes ends the wait.
def drain(fleet, options):
    def lacking():
        members = fleet.members
        return sum(
            member.accepted - len(members[(at + 1) % len(members)].received)
            for at, member in enumerate(members)
        )

    end_s = time.monotonic() + options["drain_s"]
    fleet.until(fleet.is_settled)
    fleet.until(lambda: not lacking() or time.monotonic() > end_s)
    return lacking()


def main(options):
    options = json.loads(options)
    files = options["clients"] + 100
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    fleet = make_fleet(options)
    if not options["jitter"]:
        # Half of what may be drawn, always: the same pauses on the average.
        mqttpipe.urandom = lambda count: b"\x7f\xff"[:count]
    exchange(fleet, options["messages"])
    with phase("idle"):
        end_s = time.monotonic() + options["idle_s"]
        while time.monotonic() < end_s:
            fleet.turn(end_s)
    storm(fleet)
    lost = drain(fleet, options)
    for member in fleet.members:
        member.client.disconnect()
        fleet.work(member)
    fleet.until(lambda: all(member.client.state_name == "DOWN" for member in fleet.members))
    members = fleet.members
    figures = {
        name: sum(getattr(m, name) for m in members) for name in ("accepted", "refused", "again")
    }
    figures.update(lost=lost, received=sum(len(member.received) for member in members))
    say("bye", figures)


main(sys.argv[1])
