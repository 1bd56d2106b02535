"""A clock, a network and a server for tests: nothing waits, nothing is left to chance.

`Bench` puts them in the place of what mqttpipe imports. The server's packets are
bytes, spelled by hand in the tests. What the socket does is worse than the truth on
request: it takes or gives few bytes at a time, fails at any call, or says nothing.
"""

import gc

import mqttpipe

EINPROGRESS = mqttpipe.EINPROGRESS
mqttpipe._linger_ms = 0  # whatever the board has: these are no lwIP, and hold no memory back
_REPLACED = (
    "ticks_ms",
    "ticks_add",
    "ticks_diff",
    "socket",
    "select",
    "urandom",
    "dns_servers",
    "hosts",
    "tls",
    "wrap_tls",
    "gmtime",
)
# A smaller build has not all of them.
_REAL = [getattr(mqttpipe, name, None) for name in _REPLACED]
ECONNREFUSED = 111
ECONNRESET = 104

# CONNACK, accepted: without and with a session (section 3.2).
CONNACK = b"\x20\x02\x00\x00"
CONNACK_SESSION = b"\x20\x02\x01\x00"
POLLNVAL = 0x20

tls = None  # fake_tls.py, if the test imports it: a board's heap has no room to spare
PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
DISCONNECT = b"\xe0\x00"


class SkipTest(Exception):
    """This interpreter or this build can't run the test; the message says why."""


def needs(*parts):
    """Skip the test in a build that lacks one of these parts, such as "tls".

    What a build lacks stands in its version: "0.1.0+no.tls.stats" (tools/build.py). That it has
    no "mqtt5" does not.
    """
    lacking = mqttpipe.__version__.partition("+no.")[2].split(".")
    if not hasattr(mqttpipe.MQTTClient, "reauthenticate"):
        lacking.append("mqtt5")
    for part in parts:
        if part in lacking:
            raise SkipTest("this build has no " + part)


class Clock:
    """ticks_ms() that stands still until it is told to go on; wraps at 2**30."""

    MASK = 0x3FFFFFFF  # no arithmetic here leaves the small integers of a 32-bit board
    HALF = 0x20000000

    def __init__(self, now_ms=1000):
        self.now_ms = now_ms

    def ticks_ms(self):
        return self.now_ms

    def ticks_add(self, ticks, delta):
        return ticks + delta & self.MASK

    def ticks_diff(self, end, start):
        apart = end - start & self.MASK
        return apart if apart < self.HALF else apart - self.HALF - self.HALF

    def advance(self, ms):
        self.now_ms = self.now_ms + ms & self.MASK


class Connection:
    """A socket of the client, and the server's end of it."""

    def __init__(self, network):
        self.network = network
        self.to_client = bytearray()
        self.from_client = bytearray()
        self.is_connecting = True
        self.is_ended = False  # by the server, in good order
        self.error = None  # errno that the next read or write raises
        # errno of a reset that lies behind what is here: a read that asks for more raises it, and
        # what it had read is lost. So do the streams of MicroPython.
        self.error_behind = None
        self.read_max = self.write_max = 1 << 20  # bytes that one call moves
        self.write_credit = 1 << 30  # bytes that may be written before it blocks
        self.is_blocked = False  # it has
        self.is_closed = False  # by the client
        self.is_blocking = True
        self.calls = 0
        self.options = []

    # -- the client's side
    def setblocking(self, flag):
        self.is_blocking = flag

    def setsockopt(self, level, name, value):
        self.options.append((level, name, value))

    def connect(self, address):
        assert not self.is_blocking, "the client must never block"
        self.address = address
        if self.network.connect_error:
            raise OSError(self.network.connect_error, "by the test")
        if address[0] == self.network.refused:
            self.error = ECONNREFUSED
        raise OSError(EINPROGRESS, "by the test")

    def _called(self):
        assert not self.is_closed, "used after close"
        assert not self.is_blocking, "the client must never block"
        self.calls += 1
        self.network.calls += 1
        if self.network.calls == self.network.fail_at_call:
            self.error = ECONNRESET
        if self.error:
            raise OSError(self.error, "by the test")

    def readinto(self, buf, count=None):
        self.network.reads += 1
        self._called()
        assert not self.is_connecting, "read before the connection stands"
        count = len(buf) if count is None else count
        assert 0 < count <= len(buf), count
        if self.error_behind and count > len(self.to_client):
            self.error = self.error_behind
            raise OSError(self.error, "by the test")
        count = min(count, self.read_max, len(self.to_client))
        if not count:
            return 0 if self.is_ended else None
        if isinstance(self.to_client, bytearray):
            buf[:count] = memoryview(self.to_client)[:count]
            self.to_client[:count] = b""  # in place: a board's heap is not to end in pieces
        else:
            buf[:count] = self.to_client[:count]
            self.to_client = self.to_client[count:]
        return count

    def write(self, buf, offset, count):
        self._called()
        if self.is_connecting:
            if self.network.is_silent:
                return None
            self.is_connecting = False
        assert offset + count <= len(buf), (offset, count, len(buf))
        count = min(count, self.write_max, self.write_credit)
        self.is_blocked = not count
        if not count:
            return None
        self.write_credit -= count
        self.from_client.extend(memoryview(buf)[offset : offset + count])  # copied once
        return count

    def close(self):
        assert not self.is_closed, "closed twice: on the unix port somebody else's is closed"
        self.is_closed = True

    def events(self):
        """What a poll says of it, on the unix port."""
        if self.is_closed:
            return POLLNVAL
        if self.error:
            return self.network.error_events
        if self.is_connecting and self.network.is_silent:
            return 0
        self.is_connecting = False
        readable = self.to_client or self.is_ended
        return Select.POLLOUT | (Select.POLLIN if readable else 0)

    # -- the server's side
    def send(self, packet):
        self.to_client += packet

    def received(self):
        """Take what the client has sent since the last call."""
        data = bytes(self.from_client)
        self.from_client = bytearray()
        return data


class Network:
    """Stands for the module `socket`."""

    AF_INET = 2
    SOCK_STREAM = 1
    SOCK_DGRAM = 2
    IPPROTO_TCP = 6
    TCP_NODELAY = 1

    def __init__(self):
        self.connections = []
        self.connect_error = 0
        self.refused = None  # an address where nobody listens
        self.is_silent = False  # TCP: SYN is never answered
        self.calls = 0  # reads and writes, of all connections
        self.reads = 0
        self.fail_at_call = 0  # the number of the one that fails
        self.lookups = []  # the sockets of DNS queries
        self.error_events = 29  # IN, OUT, ERR, HUP: what a poll says of a failed connection
        self.tls = tls and tls.Tls()

    def getaddrinfo(self, host, port, family=0, kind=0, proto=0, flags=0):
        assert ":" in host or host.replace(".", "").isdigit(), "a name would block: " + host
        return [(2, kind, 6, "", (host, port))]

    def socket(self, family=2, kind=1, proto=0):
        if kind == self.SOCK_DGRAM:
            self.lookups.append(Lookup(self))
            return self.lookups[-1]
        self.connections.append(Connection(self))
        return self.connections[-1]


class Lookup:
    """A datagram socket of the client, and the DNS server's end of it."""

    def __init__(self, network):
        self.query = b""
        self.answers = []
        self.error = None
        self.is_closed = False
        self.is_blocking = True

    def setblocking(self, flag):
        self.is_blocking = flag

    def connect(self, address):
        self.address = address

    def write(self, data):
        self.query = bytes(data)
        return len(data)

    def sendto(self, data, address):
        self.address = address
        return self.write(data)

    def recv(self, count):
        assert not self.is_closed, "used after close"
        assert not self.is_blocking, "the client must never block"
        if self.error:
            raise OSError(self.error, "by the test")
        if not self.answers:
            raise OSError(mqttpipe.EAGAIN, "nothing yet")
        return self.answers.pop(0)[:count]

    def close(self):
        assert not self.is_closed, "closed twice: on the unix port somebody else's is closed"
        self.is_closed = True


class Select:
    """Stands for the module `select`; sleeping is the clock going on.

    Attributes:
        polls: all that were made; the client drops one with its socket. slept: each time-out that
        one of them was given, but 0.
    """

    POLLIN = 1
    POLLOUT = 4

    def __init__(self, clock):
        self.clock = clock
        self.polls = []
        self.slept = []

    def poll(self):
        self.polls.append(Poll(self))
        return self.polls[-1]

    @property
    def watched(self):
        """id -> events of what the newest poll watches."""
        return self.polls[-1].watched if self.polls else {}


class Poll:
    def __init__(self, select):
        self.select = select
        self.things = []
        self.watched = {}

    def register(self, thing, mask=5):
        if id(thing) not in self.watched:
            self.things.append(thing)
        self.watched[id(thing)] = mask

    def modify(self, thing, mask):
        if id(thing) not in self.watched:
            raise OSError(2, "ENOENT, as on a board")
        self.watched[id(thing)] = mask

    def ipoll(self, timeout_ms):
        if timeout_ms:
            self.select.slept.append(timeout_ms)
            self.select.clock.advance(timeout_ms)
            return ()
        found = []
        for thing in self.things:
            if hasattr(thing, "events") and thing.events():
                found.append((thing, thing.events()))
        return found


class Bench:
    """A client on fakes, and a record of what it told the application.

    Of the options `prepare` is a function to be called when all but the client is there, `now_ms`
    what the clock says then; the others are MQTTClient's.

    events: list of tuples such as ("online",), ("message", topic, payload, qos).
    """

    last = None  # the one made before

    def __init__(self, **options):
        self.clock = Clock(options.pop("now_ms", 1000))
        # A board's heap has no room for two: little is left of the last one, though a variable of
        # the test, or a word that looks like its address, may still refer to it.
        if Bench.last:
            Bench.last.client = None
            del Bench.last.network.connections[:-1]
        Bench.last = self
        self.network = Network()
        self.select = Select(self.clock)
        mqttpipe.ticks_ms = self.clock.ticks_ms
        mqttpipe.ticks_add = self.clock.ticks_add
        mqttpipe.ticks_diff = self.clock.ticks_diff
        mqttpipe.socket = self.network
        mqttpipe.select = self.select
        mqttpipe.urandom = self.urandom
        if tls:
            mqttpipe.tls = self.network.tls
            mqttpipe.wrap_tls = self.network.tls.wrap
        self.year = 2026
        mqttpipe.gmtime = lambda: (self.year, 1, 1, 0, 0, 0, 0, 1)
        mqttpipe.dns_servers = lambda: ["192.0.2.53", "192.0.2.54"]
        mqttpipe.hosts = lambda name: []
        self.random = 0  # what the back-off draws, of 0xFFFF: 0 is the shortest pause
        self.events = []
        options.setdefault("client_id", "c")
        gc.collect()  # what the last one has left lies in pieces; from here on nobody holds it
        prepare = options.pop("prepare", None)
        if prepare:
            prepare()
        self.client = client = mqttpipe.MQTTClient(
            options.pop("uri", "mqtt://192.0.2.1"), **options
        )
        client.on_connect = lambda c, present: self.events.append(("connect", present))
        client.on_online = lambda c: self.events.append(("online",))
        client.on_offline = lambda c, error: self.events.append(("offline", error))
        client.on_message = self.on_message
        client.on_published = lambda c, token: self.events.append(("published", token))
        client.on_subscribed = lambda c, token, granted: self.events.append(
            ("subscribed", token, granted)
        )
        client.on_error = lambda c, error: self.events.append(("error", error))

    def urandom(self, count):
        return bytes((self.random >> 8, self.random & 0xFF))

    def on_message(self, client, message):
        self.events.append(("message", message.topic_name, message.payload, message.qos))

    @property
    def server(self):
        """The server's end of the newest connection."""
        return self.network.connections[-1]

    def steps(self, limit=1000):
        """step(0) until nothing happens."""
        for _ in range(limit):
            if not self.client.step():
                return
        raise AssertionError("step() finds work without end")

    def go_online(self, connack=CONNACK):
        """Connect to a server that accepts; for a client without subscriptions."""
        self.client.connect()
        self.steps()
        while self.client.state_name == "TLS_HANDSHAKE":  # some steps, with nothing to show
            self.steps()
        self.server.received()
        self.server.send(connack)
        self.steps()
        assert self.client.is_online(), self.client.state_name
        self.events.clear()
        return self

    def exchange(self, *packets):
        """The server sends; returns what the client answers."""
        for packet in packets:
            self.server.send(packet)
        self.steps()
        return self.server.received()

    def take_events(self):
        events, self.events = self.events, []
        return events

    def error(self):
        """The error of the only event, which must be `offline`."""
        ((name, error),) = self.take_events()
        assert name == "offline", name
        return error


def offline(**options):
    needs("offline")
    bench = Bench(**options)
    bench.client.on_dropped = lambda client, token: bench.events.append(("dropped", token))
    return bench


def sent_after_connect(bench):
    """What the server gets after it has accepted the client."""
    bench.client.connect()
    bench.steps()
    bench.server.received()
    return bench.exchange(CONNACK)


def reconnect(bench, connack):
    """Cut the connection; returns what is sent after the new CONNACK."""
    bench.server.error = ECONNRESET
    bench.steps()
    bench.server.received()
    bench.server.send(connack)
    bench.steps()
    return bench.server.received()


def lose(bench):
    """Cut the connection; the next CONNECT is there. What was sent and told is forgotten."""
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    bench.take_events()


class Counted:
    """Stands for a list, and counts in looks[0] how often one of its elements is looked at."""

    def __init__(self, values, looks):
        self.values = values
        self.looks = looks

    def __getitem__(self, at):
        self.looks[0] += 1
        return self.values[at]


class Guarded:
    """Stands for Pipe.dropped: a list that nobody may change without the lock."""

    def __init__(self, lock):
        self.lock = lock
        self.items = []

    def __len__(self):
        return len(self.items)

    def append(self, token):
        assert self.lock.locked()
        self.items.append(token)

    def pop(self, at):
        assert self.lock.locked()
        return self.items.pop(at)


def use_real_parts():
    """Give mqttpipe back the clock and the sockets of this machine."""
    for name, part in zip(_REPLACED, _REAL):
        setattr(mqttpipe, name, part)


def has_memory(byte_count):
    """True if a test may use that much: a board's heap is 96 KiB in all."""
    gc.collect()
    return not hasattr(gc, "mem_free") or gc.mem_free() > byte_count


def raises(kind, function, *arguments, **options):
    """Call it; it must raise just `kind`. Returns the message."""
    try:
        function(*arguments, **options)
    except Exception as error:
        assert type(error) is kind, "%r instead of %s" % (error, kind)
        return str(error)
    raise AssertionError("%s was not raised" % kind)
