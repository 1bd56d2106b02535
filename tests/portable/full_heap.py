"""A heap with so many bytes left, at each moment of a client's life: what is asked of it then.

    sweep(moment, levels, is_in_pieces)     a list of the levels that it does not bear, and why

MOMENTS has the moments. In each one the heap is filled, the client does its work in what is left,
first at once and then for a while, and then the memory is there again. Asserted is that

- no exception leaves step(); a call of the application may raise MemoryError;
- the client is in service within BACK_MS after that;
- a message at QoS 1 that was queued before has reached the server, and one of the server's the
  application.

The server is that of model_server.py. What the fakes themselves allocate fails as well: it stands
for what a port's sockets need. full_heap_sockets.py has real ones.
"""

import gc

import fake_tls  # noqa: F401  it puts itself into fakes
from fakes import ECONNRESET, Bench, needs
from model_server import Server

import mqttpipe

BACK_MS = 5000
SHORT_MS = 1200  # for so long memory is short: longer than any deadline of these clients
STEP_MS = 200
ROUNDS_MAX = 100
TICKS = 12
LEVEL_MAX = 4096
PIECES_MAX = 500  # of a heap's free memory
LEAK_MAX = 256  # bytes: the collector takes a number for an address now and then
PASSES = 3

QUERY_END = b"\x00\x00\x01\x00\x01"
RECORD = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"


def can_fill():
    """True on MicroPython: the heap has an end, and is looked at."""
    return hasattr(gc, "mem_free")


def fill(free_bytes, is_in_pieces=False):
    """Take all memory but `free_bytes`, in one run or in blocks that lie apart.

    Returns a list that holds it: clear() gives it back. With the last reference to the list alone
    that is not sure: the collector takes what a word of the C stack was once for a reference.
    """
    pieces = [None] * PIECES_MAX
    gc.collect()
    if is_in_pieces:
        kept = tuple([bytearray(16) for _ in range(free_bytes // 16)])
    else:
        kept = bytearray(free_bytes)
    count = 0
    size = 16384
    while size >= 4:
        try:
            pieces[count] = bytearray(size)
            count += 1
        except MemoryError:
            size //= 2
    kept = None  # noqa: F841
    gc.collect()
    return pieces


class Life:
    """A client on fakes, its server and its application."""

    make_server = Server

    def __init__(self, **options):
        options.setdefault("uri", "mqtt://192.0.2.1")
        self.use(
            Bench(
                clean_session=False,
                keep_alive_s=0,  # no ping helps it
                connect_timeout_ms=500,
                reconnect_min_ms=20,
                packet_bytes_max=64,
                pipe_slots=4,
                in_flight_max=2,
                **options,
            )
        )

    def use(self, bench):
        self.bench = bench
        self.client = bench.client
        self.clock = bench.clock
        self.server = self.make_server(bench)
        self.received = 0
        self.call = None
        self.step = self.client.step
        self.connect = self.client.connect
        self.pass_time = self.clock.advance
        self.client.on_message = self.on_message
        self.client.on_offline = self.client.on_online = self.client.on_connect = None
        self.client.on_published = self.client.on_subscribed = None
        self.client.on_error = self.on_error

    def on_message(self, client, message):
        self.received += message.qos > 0

    def on_error(self, client, error):
        pass

    def go(self):
        """step() and the server until nothing moves."""
        for _ in range(ROUNDS_MAX):
            happened = self.step()
            self.answer()
            self.server.look()
            if not happened and not self.server.queue:
                return
            self.server.send()
        raise AssertionError("step() finds work without end, in " + self.client.state_name)

    # The DNS server.
    def answer(self):
        lookups = self.bench.network.lookups
        if lookups and lookups[-1].query and not lookups[-1].is_closed:
            query = lookups[-1].query
            if not lookups[-1].answers:
                head = query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
                lookups[-1].answers.append(head + query[12:] + RECORD)

    def begin(self):
        self.client.subscribe("in", None, 1)
        self.client.publish("out", b"before", 1)
        self.client.connect()

    def go_online(self):
        self.begin()
        for _ in range(10):
            self.go()
            if self.client.is_online():
                return self
            self.clock.advance(10)
        raise AssertionError(self.client.state_name)

    def back(self):
        """Memory is there: how long until it is in service?"""
        for _ in range(BACK_MS // STEP_MS):
            self.go()
            if self.client.is_online():
                break
            self.clock.advance(STEP_MS)
        assert self.client.is_online(), self.client.state_name
        self.server.publish(1, b"still there")
        self.client.publish("out", b"after", 1)
        for _ in range(10):
            self.go()
            self.clock.advance(STEP_MS)
        accepted = self.server.accepted
        assert (1, b"before") in accepted, ("lost", accepted)
        assert (1, b"after") in accepted, ("not sent", accepted)
        assert self.received and not self.server.held, ("not delivered", self.server.held)
        open_count = sum([not one.is_closed for one in self.bench.network.connections])
        assert open_count == 1, "%d connections are open" % open_count
        assert all(one.is_closed for one in self.bench.network.lookups), "a lookup is open"


# ---------------------------------------------------------------------------
# Moments: a function makes a Life, and returns it just before the heap is filled. `call` is what
# the application does then.
# ---------------------------------------------------------------------------


def connecting():
    life = Life()
    life.begin()
    return life


def looking_up():
    life = Life(uri="mqtt://name.example")
    life.begin()
    return life


def answered():
    """By the DNS server."""
    life = looking_up()
    life.client.step()
    life.answer()
    return life


def securing():
    life = Life(uri="mqtts://192.0.2.1", ca=b"\x30\x82der")
    life.begin()
    return life


def shaking_hands():
    life = securing()
    life.bench.network.tls.flights = 3
    life.client.step()
    life.client.step()
    return life


def accepted():
    """CONNACK is there."""
    life = Life()
    life.begin()
    life.client.step()
    life.server.look()
    life.server.send()
    return life


def serving():
    return Life().go_online()


def publishing():
    life = Life().go_online()
    life.call = lambda: life.client.publish("out", b"a message", 2)
    return life


def acknowledged():
    life = Life().go_online()
    life.client.publish("out", b"more", 1)
    life.client.publish("out", b"more", 2)
    life.client.step()
    life.server.look()
    life.server.send()
    life.server.send()
    return life


def receiving():
    life = Life().go_online()
    for qos in range(3):
        life.server.publish(qos, b"in %d" % qos)
        life.server.send()
    return life


def cut():
    life = Life().go_online()
    life.client.publish("out", b"more", 1)
    life.client.step()
    life.bench.server.error = ECONNRESET
    return life


def cut_with_tls():
    life = Life(uri="mqtts://192.0.2.1", ca=b"\x30\x82der").go_online()
    life.bench.server.error = ECONNRESET
    return life


def waiting():
    life = cut()
    life.client.step()
    life.clock.advance(60)
    return life


def closing():
    life = Life().go_online()
    life.client.publish("out", b"more", 1)
    life.client.disconnect()
    return life


def subscribing():
    life = Life().go_online()
    life.call = lambda: life.client.subscribe("another", None, 1)
    return life


class TimerLife(Life):
    """Its client is driven by a timer of 10 ms, as on the rp2; each tick is a step()."""

    def __init__(self):
        needs("background")
        super().__init__()
        self.timer = None
        mqttpipe.Timer = self
        self.PERIODIC = 1
        self.step = self.tick
        self.connect = self.start_again

    # What machine.Timer(...) does.
    def __call__(self, period, mode, callback):
        self.callback = callback
        self.timer = self
        return self

    def deinit(self):
        self.timer = None

    def tick(self):
        if self.timer is not None:
            self.callback(self)

    def go(self):
        for _ in range(TICKS):
            self.tick()
            self.server.look()
            self.server.send()

    def start_again(self):
        """Whoever has not got it started tries once more."""
        if self.timer is None:
            self.client.start()


def starting():
    life = TimerLife()
    life.client.publish("out", b"before", 1)
    life.call = life.client.start
    return life


def started():
    life = starting()
    life.call()
    life.call = None
    life.go()
    life.client.publish("out", b"more", 1)
    return life


def started_and_cut():
    life = started()
    life.go()
    life.bench.server.error = ECONNRESET
    return life


MOMENTS = (
    connecting,
    looking_up,
    answered,
    securing,
    shaking_hands,
    accepted,
    serving,
    publishing,
    acknowledged,
    receiving,
    cut,
    cut_with_tls,
    waiting,
    closing,
    subscribing,
    starting,
    started,
    started_and_cut,
)


def fill_and_step(life, free_bytes, is_in_pieces):
    """Let the life go on for a while with so many bytes; then the memory is there again."""
    call = life.call
    step = life.step
    pass_time = life.pass_time
    pieces = fill(free_bytes, is_in_pieces)
    raised = None
    try:
        if call is not None:
            call()
    except MemoryError:
        pass
    try:
        step()
        step()
        for _ in range(SHORT_MS // STEP_MS):
            pass_time(STEP_MS)
            step()
    except Exception as error:
        raised = error
    pieces.clear()
    gc.collect()
    assert raised is None, ("step() raised", raised)


def once(moment, free_bytes, is_in_pieces=False):
    """One moment with so many bytes left. Raises AssertionError if it is not borne."""
    life = moment()
    fill_and_step(life, free_bytes, is_in_pieces)
    life.connect()
    life.back()
    life.bench.events.clear()


def sweep(moment, levels, is_in_pieces=False, once=once):
    """Each of the levels.

    A leak is there in each of PASSES; what a stale word on the stack keeps alive is not.

    Returns a list of (level, what went wrong), and of (None, bytes) if so many stay in use.
    """
    once(moment, LEVEL_MAX, is_in_pieces)
    gc.collect()
    for _ in range(PASSES):
        failures = []
        before = gc.mem_alloc()
        for free_bytes in levels:
            try:
                once(moment, free_bytes, is_in_pieces)
            except Exception as error:
                failures.append((free_bytes, repr(error)))
        if failures:
            return failures
        for _ in range(3):
            once(moment, LEVEL_MAX, is_in_pieces)  # the last life stays: the same as before
            gc.collect()
            leaked = gc.mem_alloc() - before
            if leaked <= LEAK_MAX:
                return []
    return [(None, "%d bytes stay in use" % leaked)]
