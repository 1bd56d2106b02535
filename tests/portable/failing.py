"""Wrappers around what mqttpipe does I/O with, real or fake: any call can be made to fail, once.

    plan = Plan()
    install(plan)                     wraps what the names in mqttpipe stand for at the moment
    client = mqttpipe.MQTTClient(...)
    plan.arm(7, make_error)           the 7th call from now on raises make_error(its name), once

A call that fails has done nothing, but for `close`: that has done its work, as it does on every
system. NAMES has the names of the calls; those of a TLS stream begin with "tls ".

A poll goes with its socket. So it is a fault to use one that watches a socket which is closed
(but to ask the one that watches nothing else: it is there to see that), and one whose register()
has failed: on a board that may crash.
"""

import mqttpipe

NAMES = (
    "getaddrinfo",
    "socket",
    "setblocking",
    "setsockopt",
    "connect",
    "read",
    "write",
    "recv",
    "close",
    "register",
    "modify",
    "ipoll",
    "wrap_tls",
    "tls read",
    "tls write",
    "tls close",
    "handshake",  # the fake TLS reads and writes
)


class Plan:
    """Which call fails, and what the wrappers have seen.

    Attributes:
        count: calls since arm(). failed: name of the one that failed, or None.
        numbers: None, or a bytearray that gets the number of each call's name, in NAMES.
        faults: what the client may never do, as text.
        is_real: TLS streams are made over the real socket, not over its wrapper: the port's
            library takes nothing else.
        is_open: is_open(stream) -> bool, by the system's own word; None: not asked.
    """

    def __init__(self, is_real=False, is_open=None):
        self.is_real = is_real
        self.is_open = is_open
        self.faults = []
        self.numbers = None
        self.arm(0, None)

    def arm(self, fail_at, make_error):
        self.count = 0
        self.failed = None
        self._fail_at = fail_at
        self._make_error = make_error

    def call(self, name):
        self.count += 1
        if self.numbers is not None:
            self.numbers.append(NAMES.index(name))
        if self.count == self._fail_at:
            self.failed = name
            raise self._make_error(name)


class Stream:
    """A socket, or a TLS stream (then `raw` is the Stream of its socket)."""

    def __init__(self, plan, inner, raw=None):
        self.plan = plan
        self.inner = inner
        self.raw = raw
        self.is_closed = False

    def __getattr__(self, name):  # what the fakes ask each other
        return getattr(self.inner, name)

    def _call(self, name):
        if self.raw is None:
            self.plan.call(name)
            return
        try:
            self.plan.call("tls " + name)
        except Exception:
            if getattr(self.inner, "flights", 0):  # the fake: it would have let go of its socket
                self.inner.sock = None
            raise

    def _called(self):  # the fake TLS, of the socket below it
        self.plan.call("handshake")
        self.inner._called()

    def setblocking(self, flag):
        self._call("setblocking")
        self.inner.setblocking(flag)

    def setsockopt(self, *arguments):
        self._call("setsockopt")
        self.inner.setsockopt(*arguments)

    def connect(self, address):
        self._call("connect")
        self.inner.connect(address)

    def readinto(self, *arguments):
        self._call("read")
        return self.inner.readinto(*arguments)

    def write(self, *arguments):
        self._call("write")
        return self.inner.write(*arguments)

    def recv(self, count):
        self._call("recv")
        return self.inner.recv(count)

    def close(self):
        plan = self.plan
        if self.is_closed or self.raw is None and plan.is_open and not plan.is_open(self):
            plan.faults.append("closed twice")
        self.is_closed = True
        self.inner.close()
        self._call("close")


class Poll:
    """Attribute `watched`: a list of what is registered."""

    def __init__(self, plan, inner):
        self.plan = plan
        self.inner = inner
        self.watched = []
        self.is_broken = False

    def _called(self, name):
        if self.is_broken:
            self.plan.faults.append(name + " of a poll that is broken")
        if name != "ipoll" or len(self.watched) > 1:
            for thing in self.watched:
                if isinstance(thing, Stream) and thing.is_closed:
                    self.plan.faults.append(name + " of a poll whose socket is closed")
        self.plan.call(name)

    def register(self, thing, mask=5):
        try:
            self._called("register")
        except Exception:
            self.is_broken = True
            raise
        self.inner.register(unwrapped(thing), mask)
        if not is_in(thing, self.watched):
            self.watched.append(thing)

    def modify(self, thing, mask):
        self._called("modify")
        self.inner.modify(unwrapped(thing), mask)

    def ipoll(self, timeout_ms):
        self._called("ipoll")
        return self.inner.ipoll(timeout_ms)


# `in` would compare.
def is_in(thing, things):
    for one in things:
        if one is thing:
            return True
    return False


def unwrapped(thing):
    return thing.inner if isinstance(thing, Stream) else thing


class Select:
    def __init__(self, plan, inner):
        self.plan = plan
        self.inner = inner
        self.POLLIN = inner.POLLIN
        self.POLLOUT = inner.POLLOUT

    def poll(self):
        return Poll(self.plan, self.inner.poll())


class Socket:
    """The module."""

    def __init__(self, plan, inner):
        self.plan = plan
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def getaddrinfo(self, *arguments):
        self.plan.call("getaddrinfo")
        return self.inner.getaddrinfo(*arguments)

    def socket(self, *arguments):
        self.plan.call("socket")
        return Stream(self.plan, self.inner.socket(*arguments))


def install(plan):
    """Put the wrappers in the place of mqttpipe's socket, select and wrap_tls."""
    wrap = mqttpipe.wrap_tls

    def wrap_tls(context, sock, host):
        plan.call("wrap_tls")
        return Stream(plan, wrap(context, sock.inner if plan.is_real else sock, host), sock)

    mqttpipe.socket = Socket(plan, mqttpipe.socket)
    mqttpipe.select = Select(plan, mqttpipe.select)
    mqttpipe.wrap_tls = wrap_tls
