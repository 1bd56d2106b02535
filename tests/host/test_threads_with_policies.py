"""Threads that publish, take back and subscribe while another is in step(), with each policy.

CPython is told to change between threads as often as it can (sys.setswitchinterval()). The
server is a model, and connections are cut. What tests/broker/test_threads.py lacks: messages are
dropped (by a full pipe, by "latest", by cancel(), by expiry), which is where writers do more than
to fill a slot. tests/host/test_*_meanwhile.py stops one thread at each of its bytecodes; here
nobody says where.
"""

import collections
import random
import sys
import threading
import time

import fakes
import pytest
from model_server import Server
from model_server_5 import Server5

import mqttpipe

PUBLISHERS = 4
COUNT = 150  # messages of each thread
LONG_COUNT = 20_000
WAIT_S = 90  # of a busy machine
LONG_WAIT_S = 3000
POLICIES = ("refuse", "drop_oldest", "latest")
PROTOCOLS = (4, 5)


@pytest.fixture(autouse=True)
def change_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
    fakes.use_real_parts()


class Run:
    """A client, its server, and the threads around them."""

    def __init__(self, policy, seed, count, wait_s, protocol):
        self.policy = policy
        self.is_5 = protocol == 5
        self.seed = seed
        self.count = count
        self.end_s = time.monotonic() + wait_s
        self.bench = fakes.offline(
            clean_session=False,
            keep_alive_s=0,
            reconnect_min_ms=0,
            reconnect_max_ms=0,
            connect_timeout_ms=100_000,  # by a clock that other threads look at
            pipe_slots=7,
            in_flight_max=3,
            packet_bytes_max=64,
            pipe_bytes_max=150,
            offline=policy,
            protocol=protocol,
            session_expiry_s=3600 if self.is_5 else 0,
        )
        self.client = self.bench.client
        self.server = Server5(self.bench) if self.is_5 else Server(self.bench)
        self.refusals = 0
        self.payloads = {}  # token -> payload
        self.ends = collections.defaultdict(list)  # token -> what was told
        self.taken_back = []  # tokens
        self.refused = 0
        self.errors = []
        self.cuts = 0
        client = self.client
        client.on_published = lambda c, token: self.ends[token].append("published")
        client.on_dropped = lambda c, token: self.ends[token].append("dropped")
        client.on_error = self.on_error
        self.is_publishing = True

    def on_error(self, client, error):
        if self.is_5 and isinstance(error, mqttpipe.Refused):
            self.refusals += 1
        else:
            self.errors.append(error)

    def go(self):
        self.client.connect()
        writers = [lambda n=n: self.publish(n) for n in range(PUBLISHERS)]
        others = [self.step, self.cancel, self.subscribe]
        threads = [threading.Thread(target=self.guard, args=(one,)) for one in writers + others]
        for thread in threads:
            thread.start()
        for thread in threads[:PUBLISHERS]:
            thread.join()
        self.is_publishing = False
        for thread in threads[PUBLISHERS:]:
            thread.join()

    def guard(self, function):
        try:
            function()
        except BaseException as error:
            self.errors.append(error)
            self.is_publishing = False

    def is_late(self):
        return time.monotonic() > self.end_s

    def publish(self, number):
        draw = random.Random("%d %d" % (self.seed, number))
        for n in range(self.count):
            qos = draw.randrange(3)
            # One topic for all, so that "latest" has something to replace.
            properties = {}
            if self.is_5 and draw.random() < 0.3:
                properties = {"properties": {"user_property": [("n", str(n))]}}
            payload = b"%d %d" % (number, n)
            expiry_s = 1 if draw.random() < 0.05 else None
            while not self.is_late():
                try:
                    token = self.client.publish(
                        "topic", payload, qos, False, None, expiry_s, **properties
                    )
                except mqttpipe.QueueFull:
                    self.refused += 1
                    time.sleep(0)
                    continue
                self.payloads[token] = qos, payload
                break
            if draw.random() < 0.3:
                time.sleep(0)

    def cancel(self):
        draw = random.Random(self.seed)
        while self.is_publishing and not self.is_late():
            token = max(1, self.client._pipe.last_token - draw.randrange(8))
            try:
                if self.client.cancel(token):
                    self.taken_back.append(token)
            except mqttpipe.QueueFull:
                pass
            time.sleep(draw.choice((0, 0.002)))

    def subscribe(self):
        draw = random.Random(self.seed)
        while self.is_publishing and not self.is_late():
            try:
                name = draw.choice(("a", "b"))
                if draw.random() < 0.5:
                    self.client.subscribe(name)
                else:
                    self.client.unsubscribe(name)
            except mqttpipe.QueueFull:
                pass
            time.sleep(0.001)

    def step(self):
        """Until all is done; cuts the connection now and then, as long as somebody publishes."""
        draw = random.Random(self.seed)
        begin_s = time.monotonic()
        advanced_ms = 0
        while not self.is_late():
            self.client.step()
            self.server.look()
            self.server.send()
            # As time goes by. If it ran faster, Pipe.mend() would take a thread that waits for its
            # turn for one that Ctrl-C has ended.
            passed_ms = int((time.monotonic() - begin_s) * 1000) - advanced_ms
            self.bench.clock.advance(passed_ms)
            advanced_ms += passed_ms
            bench = self.bench
            if self.is_publishing and bench.network.connections and draw.random() < 0.002:
                bench.server.error = fakes.ECONNRESET
                self.cuts += 1
            if self.is_5 and draw.random() < 0.01:
                self.server.refusals = 1
            if not self.is_publishing:
                pipe = self.client._pipe
                asked = self.client._filters.asked_count or self.client._filters.is_unsent
                if pipe.head == pipe.tail and not pipe.dropped and not asked:
                    if self.client.is_online() and not self.client.step():
                        return

    def check(self):
        assert not self.errors, self.errors
        assert not self.is_late(), "it does not end: " + self.client.state_name
        arrived = collections.Counter(payload for _, payload in self.server.accepted)
        for token, (qos, payload) in self.payloads.items():
            told, times = self.ends[token], arrived[payload]
            assert len(told) == 1, (payload, told)
            assert self.client.is_done(token)
            assert qos == 1 or times <= 1, (qos, payload, times)
            if told == ["published"]:
                assert times or not qos, (qos, payload, "lost")
                assert token not in self.taken_back, payload
        for token in self.taken_back:
            assert self.ends[token] == ["dropped"], token
        assert set(self.ends) == set(self.payloads), "the end of what nobody has published"
        pipe = self.client._pipe
        assert not any(pipe.firsts) and not pipe.is_looking and not pipe.is_dropping
        assert not pipe._lock.locked() and self.client._flying == 0
        self.check_order()

    # Each thread's messages of one QoS arrive first in the order of its calls. ("latest" has one
    # topic name here: nothing older comes behind what is newer.)
    def check_order(self):
        # (What was refused, and nobody heard it for a cut, comes again behind later ones.)
        refused = set(self.server.refused) if self.is_5 else ()
        first = [one for one in dict.fromkeys(self.server.accepted) if one[1] not in refused]
        for number in range(PUBLISHERS):
            for qos in (1, 2):
                mine = [
                    int(payload.split()[1])
                    for q, payload in first
                    if q == qos and payload.startswith(b"%d " % number)
                ]
                assert mine == sorted(mine), (number, qos, mine)


def check_run(policy, seed, count, wait_s, protocol):
    run = Run(policy, seed, count, wait_s, protocol)
    run.go()
    run.check()
    told = collections.Counter(ends[0] for ends in run.ends.values())
    return "%s, protocol %d: %r, %d taken back, %d refused, %d times QueueFull, %d cuts" % (
        policy,
        protocol,
        dict(told),
        len(run.taken_back),
        run.refusals,
        run.refused,
        run.cuts,
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("policy", POLICIES)
def test_each_message_has_one_end_and_none_is_lost(policy, protocol, capsys):
    seed = random.SystemRandom().randrange(1 << 32)
    with capsys.disabled():
        print(" seed %d" % seed, end="", flush=True)
    print(check_run(policy, seed, COUNT, WAIT_S, protocol))


@pytest.mark.timeout(LONG_WAIT_S + 100)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("policy", POLICIES)
def test_each_of_80000_messages_has_one_end(policy, protocol, request, record_property):
    if not request.config.getoption("--long"):
        pytest.skip("takes minutes: --long runs it")
    seed = random.SystemRandom().randrange(1 << 32)
    record_property("figure", ("threads", "seed %d" % seed, ""))
    told = check_run(policy, seed, LONG_COUNT, LONG_WAIT_S, protocol)
    record_property("figure", ("threads", told, ""))
