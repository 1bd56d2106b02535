"""What every board's main.py does: no moment without room, in queue or heap, ends it."""

import gc

import service
from board_fakes import Clock, SkipTest, raises

import micropython
from mqttpipe import QueueFull

clock = Clock()


class Done(Exception):
    pass


class Secrets:
    WIFI = ("home", "password")
    SERVER = "mqtt://192.0.2.1"
    NAME = "lamp"


class Wifi:
    def __init__(self, networks, **options):
        self.state_name = "UP"

    def start(self):
        pass


class Client:
    latest: "Client" = None

    def __init__(self, server, **options):
        Client.latest = self
        self.error = None  # what publish() raises
        self.published = []

    def connect(self):
        self.on_online(self)

    def is_online(self):
        return True

    def publish(self, topic_name, payload, qos=0, retain=False):
        if self.error is not None:
            raise self.error
        self.published.append((topic_name, payload, qos, retain))


class Station:
    """A minute a round, and an end."""

    full_in = 0  # the round without a free byte in the heap
    is_full = False

    def __init__(self, *arguments):
        self.rounds = 0

    def step(self, timeout_ms):
        empty_heap()
        assert timeout_ms == 100
        if self.rounds == 4:
            raise Done
        self.rounds += 1
        clock.advance(60_000)
        if self.rounds == self.full_in:
            micropython.heap_lock()
            Station.is_full = True


def empty_heap():
    if Station.is_full:
        Station.is_full = False
        micropython.heap_unlock()


def run(work=None):
    """Run the program for four minutes; return what it has published."""
    service.ticks_ms = clock.ticks_ms
    service.ticks_add = clock.ticks_add
    service.ticks_diff = clock.ticks_diff
    service.Wifi, service.MQTTClient, service.Station = Wifi, Client, Station
    raises(Done, service.run, Secrets, None, work)
    return Client.latest.published


UPTIME = [("boards/lamp/uptime", "%d" % uptime_s, 0, False) for uptime_s in (60, 120, 180, 240)]
STATUS = ("boards/lamp/status", "online", 1, True)


def test_it_tells_that_it_is_online_and_each_minute_for_how_long():
    assert run() == [STATUS] + UPTIME


def run_without_room(error, full_at):
    """Run it with publish() raising `error` in one round; 0: from connect() to the first work."""
    rounds = 0

    def connect(client):
        client.error = error if full_at == 0 else None
        client.on_online(client)

    def work(client):
        nonlocal rounds
        rounds += 1
        client.error = error if rounds == full_at else None

    Client.connect, real = connect, Client.connect
    try:
        return run(work)
    finally:
        Client.connect = real


def test_without_room_for_it_the_status_comes_later_and_an_uptime_is_left_out():
    for error in (QueueFull("by the test"), MemoryError()):
        published = run_without_room(error, 0)
        assert published == UPTIME[:1] + [STATUS] + UPTIME[1:], (error, published)
        published = run_without_room(error, 2)
        assert published == [STATUS] + UPTIME[:1] + UPTIME[2:], (error, published)


def test_a_round_in_a_full_heap_goes_on_and_costs_what_was_due_in_it():
    if not hasattr(gc, "mem_alloc"):
        raise SkipTest("CPython's heap can't be locked")
    try:
        Station.full_in = 1
        assert run() == [STATUS] + UPTIME[1:]
        Station.full_in = 3
        assert run() == [STATUS] + UPTIME[:2] + UPTIME[3:]
    finally:
        empty_heap()
        Station.full_in = 0
