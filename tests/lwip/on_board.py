"""Runs on the board, ahead of the tests' own programs: a client that is watched, and its traffic.

watch = Watch(MQTTClient(uri))
echo = Echo(watch.client, "topic", 100)
watch.client.connect()
print(watch.run(10_000, until=echo.is_complete, work=echo.work), watch.story(), echo.story())
"""

import time
from time import ticks_add, ticks_diff, ticks_ms, ticks_us

from mqttpipe import MQTTClient, QueueFull  # noqa: F401 the tests' programs make it

PAUSE_MS = 1


class Watch:
    """Drives a client, notes what it tells, and how long its longest step(0) took."""

    def __init__(self, client):
        self.client = client
        self.events = []  # ("online",) or (what, class of the error, its stage)
        self.longest = (0, "", "")  # microseconds, state before and after
        client.on_online = lambda client: self.events.append(("online",))
        client.on_offline = lambda client, error: self.note("offline", error)
        client.on_error = lambda client, error: self.note("error", error)

    def note(self, what, error):
        stage = getattr(error, "stage", None)
        self.events.append((what, type(error).__name__, stage, str(error)))

    def step(self):
        client = self.client
        before = client.state_name
        start_us = ticks_us()
        client.step()
        took_us = ticks_diff(ticks_us(), start_us)
        if took_us > self.longest[0]:
            self.longest = (took_us, before, client.state_name)

    def run(self, ms, until=None, work=None):
        """Drive it until `until()`, for `ms` at most; return whether that came, or None."""
        end_ms = ticks_add(ticks_ms(), ms)
        while ticks_diff(end_ms, ticks_ms()) > 0:
            if work:
                work()
            self.step()
            if until and until():
                return True
            time.sleep_ms(PAUSE_MS)
        return until and until()

    def rest(self, ms):
        """Drive it as a program does that has nothing to do."""
        end_ms = ticks_add(ticks_ms(), ms)
        while ticks_diff(end_ms, ticks_ms()) > 0:
            self.client.step(500)
            self.step()

    def story(self):
        return self.events, self.longest


class Echo:
    """Numbered messages to the server and back: how often did each come?

    Args:
        every_ms: the time between two; 0: as soon as fewer than `ahead` are on the way.
    """

    def __init__(self, client, topic, count, qos=(0, 1, 2), sizes=(64,), every_ms=0, ahead=8):
        self.client = client
        self.topic = topic
        self.qos = qos
        self.sizes = sizes
        self.every_ms = every_ms
        self.ahead = ahead
        self.big = {}  # number: another size
        self.due_ms = ticks_ms()
        self.sent = self.came = self.wrong = 0
        self.got = bytearray(count)
        self.payload = memoryview(bytearray(max(sizes)))
        client.subscribe(topic, self.on_message, max(qos))

    def size_of(self, number):
        return self.big.get(number) or self.sizes[number // len(self.qos) % len(self.sizes)]

    def qos_of(self, number):
        return self.qos[number % len(self.qos)]

    def send_one_big(self, number, size):
        self.big[number] = size
        self.payload = memoryview(bytearray(size))

    def on_message(self, client, message):
        number = int(bytes(message.view[:6]))
        self.got[number] += 1
        self.came += 1
        if len(message.view) != self.size_of(number):
            self.wrong += 1

    def work(self):
        number = self.sent
        if number == len(self.got):
            return
        if self.every_ms:
            if ticks_diff(ticks_ms(), self.due_ms) < 0:
                return
        elif number - self.came >= self.ahead:
            return
        payload = self.payload[: self.size_of(number)]
        payload[:6] = b"%06d" % number
        try:
            self.client.publish(self.topic, payload, qos=self.qos_of(number))
        except QueueFull:
            return
        self.due_ms = ticks_add(self.due_ms, self.every_ms)
        self.sent += 1

    def is_complete(self):
        """All are there that must be."""
        if self.sent < len(self.got):
            return False
        return not self.missing()

    def missing(self):
        return [n for n in range(len(self.got)) if not self.got[n] and self.qos_of(n)][:9]

    def story(self):
        twice = [n for n in range(len(self.got)) if self.got[n] > 1 and self.qos_of(n) != 1]
        return self.sent, self.missing(), twice[:9], self.wrong
