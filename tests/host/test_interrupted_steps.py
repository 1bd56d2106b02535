"""Ctrl-C (KeyboardInterrupt) at each line of the client in turn: it finds back from everything.

A scenario is played again and again, and each time another line of the client is not reached, as
if Ctrl-C had been pressed there. Whoever drives the client catches it and goes on, as one does at
a REPL. Then, within a simulated day:

- the client is in service again, no call raises, and publish() works at each QoS;
- every QoS 1 and 2 message whose publish() had answered is at the server, QoS 2 once;
- every message that was acknowledged to the server has reached its callback;
- every token ends, and every request: its callback was called, or about to be when Ctrl-C came;
- a new session has the filters that were asked for last, and none that were taken back.

A line is interrupted the first or the last time that a scenario runs it, the one in this scenario
and the other in the next, with --long each time. No line or function of the client is named here.
"""

import ast
import collections
import gc
import types

import fake_tls  # noqa: F401  it puts itself into fakes
import fakes
import pytest

import mqttpipe
import old_and_new
from broker_5 import Broker5

CLIENT = mqttpipe.__file__
FAILURES_MAX = 20  # of one scenario that are shown
DAY_MS = 24 * 3600 * 1000
PATIENCE_MS = 30_000  # after that the clock goes on in large steps
STEPS_MAX = 500

FILTERS = ("in/#", "+/x")


class NoCollector:
    """CPython is not short of memory, and gc.collect() would take longer than all the rest."""

    collect = staticmethod(lambda: None)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(fakes, "gc", NoCollector)
    for name, part in (("gc", NoCollector), ("pass_on", None), ("sleep_ms", None)):
        monkeypatch.setattr(mqttpipe, name, part, raising=False)
    yield
    fakes.use_real_parts()


class Marker(ast.NodeTransformer):
    """Has each statement of a function begin with reached(LINE), and each turn of a `while`."""

    def __init__(self):
        self.is_in_function = False

    def mark(self, line):
        call = ast.Call(ast.Name(REACHED, ast.Load()), [ast.Constant(line)], [])
        return ast.copy_location(ast.Expr(call), ast.Pass(lineno=line, col_offset=0))

    def generic_visit(self, node):
        super().generic_visit(node)
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if self.is_in_function and isinstance(statements, list):
                marked = []
                for one in statements:
                    if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                        marked.append(self.mark(one.lineno))
                    marked.append(one)
                setattr(node, name, marked)
        if isinstance(node, ast.While) and self.is_in_function:
            reached = self.mark(node.lineno).value
            node.test = ast.BoolOp(ast.Or(), [reached, node.test])  # it answers None
        return node

    def visit_FunctionDef(self, node):
        was_in_function = self.is_in_function
        self.is_in_function = True
        self.generic_visit(node)
        self.is_in_function = was_in_function
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node):
        return node


# No sys.settrace(): an exception out of a trace function has crashed CPython 3.11.
REACHED = "_reached"
running = []  # the Tracer in whose call we are


def reached(line):
    if running:
        running[-1].reach(line)


def codes_of(code, path=()):
    """Yield (names, code) of each function in a code object."""
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names = (*path, constant.co_name)
            yield names, constant
            yield from codes_of(constant, names)


def functions_of(module):
    """Yield (names, function) of each function and method of the client."""
    for thing in vars(module).values():
        if isinstance(thing, types.FunctionType) and thing.__code__.co_filename == CLIENT:
            yield (thing.__name__,), thing
        elif isinstance(thing, type) and thing.__module__ == module.__name__:
            for method in vars(thing).values():
                if isinstance(method, types.FunctionType):
                    yield (thing.__name__, method.__name__), method


@pytest.fixture(autouse=True, scope="module")
def marked():
    """The client's functions with marks, as long as these tests run."""
    with open(CLIENT, encoding="utf-8") as file:
        tree = Marker().visit(ast.parse(file.read()))
    codes = dict(codes_of(compile(ast.fix_missing_locations(tree), CLIENT, "exec")))
    plain = []
    for names, function in functions_of(mqttpipe):
        plain.append((function, function.__code__))
        function.__code__ = codes[names]
    setattr(mqttpipe, REACHED, reached)
    assert len(plain) > 150
    yield
    for function, code in plain:
        function.__code__ = code
    delattr(mqttpipe, REACHED)


class Tracer:
    """Counts the lines of the client that run, and interrupts one of them.

    Args:
        target: the number of the line that is interrupted, from 1 on; 0: none.

    Attributes: lines: line number of each that has run; where: what was interrupted, or None.
    """

    def __init__(self, target):
        self.target = target
        self.lines = []
        self.where = None

    def __call__(self, function, *arguments):
        """Call it under trace. Returns (answer, was it interrupted?)."""
        # Else the collector closes the generators of an earlier client in between, and their lines
        # are counted, or interrupted where nobody catches it.
        gc.disable()
        running.append(self)
        try:
            return function(*arguments), False
        except KeyboardInterrupt:
            return None, True
        finally:
            running.pop()
            gc.enable()

    def reach(self, line):
        if self.where is None:
            self.lines.append(line)
            if len(self.lines) == self.target:
                self.where = "line %d" % line
                raise KeyboardInterrupt


class App:
    """An application at a REPL: it catches what interrupts it, and goes on."""

    def __init__(self, target=0, **options):
        options.setdefault("clean_session", False)
        options.setdefault("keep_alive_s", 5)
        options.setdefault("connect_timeout_ms", 1000)
        options.setdefault("reconnect_min_ms", 100)
        options.setdefault("packet_bytes_max", 100)
        options.setdefault("pipe_slots", 8)
        if options.get("protocol") == 5:
            options.setdefault("session_expiry_s", 3600)
        self.trace = Tracer(target)
        self.bench = fakes.Bench(**options)
        self.clock = self.bench.clock
        self.client = self.bench.client
        # A client that waits for what never comes shall not wait for ever.
        mqttpipe.pass_on = lambda: self.clock.advance(1)
        mqttpipe.sleep_ms = self.clock.advance
        is_5 = options.get("protocol") == 5
        self.broker = Broker5(self.bench) if is_5 else old_and_new.Broker(self.bench)
        self.tokens = []
        self.published = []  # (qos, payload) whose publish() has answered
        self.dropped = set()
        self.received = []
        self.sent = []  # payloads at QoS 1 and 2 that the server had to deliver
        self.requests = []  # what each has brought
        self.filters = None  # those in force at the end
        self.interrupted_callbacks = 0
        self.client.on_message = self.on_message
        self.client.on_dropped = lambda client, token: self.dropped.add(token)
        # Who is told of everything runs through all of the client.
        nothing = lambda *arguments: None  # noqa: E731
        for name in ("on_connect", "on_online", "on_offline", "on_published", "on_subscribed"):
            setattr(self.client, name, nothing)
        self.client.on_error = self.client.on_authenticated = nothing

    # That it was called counts, also if reading the payload is interrupted.
    def on_message(self, client, message):
        try:
            self.received.append(message.payload)
        except KeyboardInterrupt:
            self.interrupted_callbacks += 1
            raise

    def connect(self):
        self.trace(self.client.connect)

    def queue(self, function, *arguments, **options):
        """Call what needs a free pipe: step() frees one that was left in use, in two seconds."""
        for _ in range(20):
            try:
                return self.trace(lambda: function(*arguments, **options))
            except mqttpipe.QueueFull:
                self.clock.advance(100)
                self.client.step()
        return self.trace(lambda: function(*arguments, **options))

    def publish(self, payload, qos, **options):
        token, _ = self.queue(self.client.publish, "t", payload, qos, **options)
        if token is not None:
            self.tokens.append(token)
            self.published.append((token, qos, payload))

    def request(self, payload):
        answers = []
        token, _ = self.queue(
            self.client.request, "t", payload, lambda c, message: answers.append(message), 1500
        )
        if token is not None:
            self.tokens.append(token)
            self.requests.append(answers)

    def subscribe(self, name, qos=2):
        token, is_interrupted = self.queue(self.client.subscribe, name, self.on_message, qos)
        if is_interrupted:
            self.queue(self.client.subscribe, name, self.on_message, qos)
        elif token is not None:
            self.tokens.append(token)

    def unsubscribe(self, name):
        if self.queue(self.client.unsubscribe, name)[1]:
            self.queue(self.client.unsubscribe, name)

    def serve(self, payload, qos, topic="in/a"):
        self.broker.publish(topic, qos, payload, False)
        if qos and len(payload) < 100 and self.broker.has_session:
            self.sent.append(payload)

    def go(self):
        """Step until nothing moves."""
        for number in range(STEPS_MAX):
            moved, is_interrupted = self.trace(self.client.step)
            if number > STEPS_MAX // 5:  # it waits for a lock that Ctrl-C has left taken
                self.clock.advance(10)
            for lookup in self.bench.network.lookups:
                answer(lookup)
            if self.broker.look():
                moved = True
            if self.broker.send():
                moved = True
            if not moved and not is_interrupted:
                return
        raise AssertionError("step() finds work without end, in " + self.client.state_name)

    def sleep(self, ms):
        self.clock.advance(ms)
        self.go()

    def cut(self):
        self.broker.queue = []
        self.broker.is_accepted = False
        if self.bench.network.connections:
            self.bench.server.error = fakes.ECONNRESET
        self.go()

    def is_settled(self):
        is_done = all(map(self.client.is_done, self.tokens)) and not any(self.client._requests)
        return self.client.is_online() and is_done and not self.broker.held

    def recover(self):
        """Let a day pass, or less if all is well before."""
        self.broker.withheld = set()
        self.client.connect()
        passed_ms = 0
        self.go()
        while not self.is_settled() and passed_ms < DAY_MS:
            step_ms = 500 if passed_ms < PATIENCE_MS else 600_000
            passed_ms += step_ms
            self.sleep(step_ms)

    def check(self):
        self.recover()
        for qos in range(3):  # is it in service, or does it only say so?
            self.publish(b"after %d" % qos, qos)
        self.recover()
        client, broker = self.client, self.broker
        assert client.is_online(), client.state_name
        assert [token for token in self.tokens if not client.is_done(token)] == []
        assert broker.held == []
        ends = [len(answers) for answers in self.requests]
        assert max(ends, default=1) == 1 and ends.count(0) <= 1, "ends of requests: %r" % ends
        arrived = [payload for _, payload in broker.accepted]
        asked = [one for one in self.published if one[0] not in self.dropped]
        assert [one for one in asked if one[1] and one[2] not in arrived] == [], "lost"
        assert b"after 0" in arrived
        twice = collections.Counter(one for one in broker.accepted if one[0] == 2)
        assert [one for one in twice if twice[one] > 1] == [], "twice at the server"
        missing = [one for one in self.sent if one not in self.received]
        assert len(missing) <= self.interrupted_callbacks, "not delivered"
        open_now = [one for one in self.bench.network.connections if not one.is_closed]
        assert len(open_now) == 1, "%d connections are open" % len(open_now)
        assert all(lookup.is_closed for lookup in self.bench.network.lookups)
        if self.filters:
            self.cut()
            broker.lose_session()
            self.recover()
            assert sorted(broker.filters) == self.filters


def answer(lookup):
    """The DNS server answers each query once."""
    query = lookup.query
    if query and not getattr(lookup, "is_answered", False):
        lookup.is_answered = True
        head = query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
        record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"
        lookup.answers.append(head + query[12:] + record)


# ---------------------------------------------------------------------------
# Scenarios
# ---------------------------------------------------------------------------


def connect_by_name(app):
    app.connect()
    app.go()


def connect(app):
    app.subscribe("in/#")
    app.connect()
    app.go()


def publish(app):
    app.connect()
    app.go()
    for number in range(2):
        for qos in range(3):
            app.publish(b"m%d" % (3 * number + qos), qos)
    app.publish("text", 1)
    app.published[-1:] = []  # as text it is not looked for
    app.go()
    app.publish(bytearray(b"copied" + b"." * 70), 2, retain=True)
    app.published[-1:] = []
    app.go()


def receive(app):
    connect(app)
    for number in range(2):
        for qos in range(3):
            app.serve(b"s%d" % (3 * number + qos), qos)
    app.go()
    app.serve(b"large" * 40, 1)
    app.serve(b"other", 2, "a/x")
    app.serve(b"nobody's", 1, "else")
    app.go()


def change_filters(app):
    app.subscribe("in/#")
    app.connect()
    app.go()
    for name in FILTERS:
        app.subscribe(name, 1)
    app.go()
    app.unsubscribe("+/x")
    app.go()
    app.serve(b"still", 2)
    app.go()
    app.filters = ["in/#"]


def cut(app):
    connect(app)
    app.broker.withheld = {old_and_new.PUBACK, old_and_new.PUBREC, old_and_new.PUBCOMP}
    for qos in range(3):
        app.publish(b"m%d" % qos, qos)
    app.go()
    app.broker.withheld = {old_and_new.PUBCOMP, old_and_new.PUBREL}
    app.serve(b"half", 2)
    app.go()
    app.cut()
    app.broker.withheld = set()
    app.sleep(1000)
    app.sleep(1000)


def lose_session(app):
    connect(app)
    app.broker.withheld = {old_and_new.PUBREC, old_and_new.PUBACK}
    app.publish(b"m1", 1)
    app.go()
    app.cut()
    app.broker.lose_session()
    app.broker.withheld = set()
    app.sleep(1000)


def disconnect(app):
    connect(app)
    app.publish(b"m1", 1)
    app.trace(app.client.disconnect)
    app.go()
    app.connect()
    app.go()


def ping(app):
    connect(app)
    app.sleep(5000)
    app.broker.withheld = {old_and_new.PINGRESP}
    app.sleep(5000)
    app.sleep(1000)
    app.broker.withheld = set()
    app.sleep(1000)


def drop(app):
    for number in range(10):
        app.publish(b"m%d" % number, 1, offline="drop_oldest")
    for number in range(10, 13):
        app.publish(b"m%d" % number, 1, offline="latest", expiry_s=number - 9)
    app.published = []  # whoever is interrupted while dropping may not be told of it
    app.sleep(1500)
    app.connect()
    app.go()


def refused_address(app):
    app.bench.network.connect_error = fakes.ECONNREFUSED
    app.connect()
    app.go()
    app.bench.network.connect_error = 0
    app.sleep(1000)


SCENARIOS = (
    (connect, {}),
    (connect_by_name, {"uri": "mqtt://name.example"}),
    (connect, {"uri": "mqtts://192.0.2.1", "ca": b"\x30\x82der"}),
    (publish, {}),
    (receive, {}),
    (change_filters, {}),
    (cut, {}),
    (cut, {"uri": "mqtts://192.0.2.1", "ca": b"\x30\x82der"}),
    (lose_session, {}),
    (disconnect, {}),
    (ping, {}),
    (drop, {}),
    (refused_address, {"uri": ["mqtt://192.0.2.1", "mqtt://192.0.2.2"]}),
)


# With MQTT 5.0 all of these, but for one of TLS, and what 3.1.1 has not.


def refuse(app):
    connect(app)
    app.broker.refusals = 3
    for qos in (1, 2, 1, 2):
        app.publish(b"m%d" % len(app.published), qos)
    app.published = []  # as in drop()
    app.go()


def leave_in_words(app):
    """Both sides do, with a reason."""
    connect(app)
    app.publish(b"m0", 1)
    if app.client.is_online():
        app.bench.server.send(b"\xe0\x0a\x89\x08\x1f\x00\x05later")  # Server busy
    app.cut()
    app.sleep(1000)
    app.trace(lambda: app.client.disconnect(4, {"reason_string": "later"}))
    app.go()
    app.connect()
    app.go()


def ask(app):
    connect(app)
    for payload in (b"a", b"b"):
        app.request(payload)
        app.go()
    app.broker.withheld = {old_and_new.PUBLISH}
    app.request(b"late")
    app.go()
    app.sleep(2000)


def authenticate(app):
    app.broker.connack += b"\x15\x00\x01m"
    app.connect()
    app.go()
    app.trace(app.client.reauthenticate)
    app.go()
    app.broker.withheld = {0xF0}
    app.trace(app.client.reauthenticate)
    app.go()
    app.cut()
    app.sleep(1000)


def publish_with_properties(app):
    for number in range(2):
        app.publish(b"m%d" % number, 1 + number, properties={"user_property": [("a", "b")]})
    app.publish(b"m2", 1, properties={"message_expiry_interval": 3600})
    app.connect()
    app.go()
    for topic in "abcab":
        app.serve(b"s" + topic.encode(), 1, "in/" + topic)
        app.go()


def say(data):
    return b"data"


FIVE = {"protocol": 5}
SCENARIOS += tuple(
    (scenario, dict(options, **FIVE))
    for scenario, options in SCENARIOS
    if scenario is not cut or not options
)
SCENARIOS += (
    (refuse, FIVE),
    (leave_in_words, FIVE),
    (ask, FIVE),
    (authenticate, dict(FIVE, auth=("m", say))),
    (publish_with_properties, FIVE),
)
NAMES = [
    "%s %s %s" % (scenario.__name__, options.get("uri", ""), options.get("protocol", ""))
    for scenario, options in SCENARIOS
]


def chosen(lines, is_every, turn):
    """Which of the lines that have run are interrupted, by number.

    Args: turn: the scenario's number, as the next one takes the other run of a line.
    """
    if is_every:
        return range(1, len(lines) + 1)
    runs = collections.defaultdict(list)
    for number, line in enumerate(lines, 1):
        runs[line].append(number)
    return sorted(numbers[-((line + turn) % 2)] for line, numbers in runs.items())


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scenario, options", SCENARIOS, ids=NAMES)
def test_it_finds_back_from_an_interruption_at_each_line(scenario, options, request):
    app = App(**options)
    scenario(app)
    lines = app.trace.lines[:]
    app.check()
    failures = []
    turn = SCENARIOS.index((scenario, options))
    targets = chosen(lines, request.config.getoption("--long"), turn)
    for target in targets:
        app = App(target, **options)
        try:
            scenario(app)
            app.check()
        except Exception as error:
            failures.append("%s: %s: %s" % (app.trace.where, type(error).__name__, error))
        if len(failures) == FAILURES_MAX:
            break
    print("%d interruptions, %d lines" % (len(targets), len(set(lines))))
    assert failures == []


def served_to_three(qos, target):
    """A message for three callbacks; returns how often each had it, and the app."""
    app = App()
    had = [0, 0, 0]

    def count(number):
        def callback(client, message):
            had[number] += 1

        return callback

    for number, name in enumerate(("in/#", "+/x", "in/x")):
        app.client.subscribe(name, count(number), 2)
    app.connect()
    app.go()
    app.trace = Tracer(target)
    app.serve(b"once", qos, "in/x")
    app.go()
    app.recover()
    assert app.client.is_online()
    return had, app


@pytest.mark.parametrize("qos", [1, 2])
def test_an_interruption_takes_a_message_from_none_of_its_callbacks(qos):
    """[MQTT-4.3.3-2] And at QoS 2 it gives it to none a second time."""
    lines = served_to_three(qos, 0)[1].trace.lines
    failures = []
    for target in range(1, len(lines) + 1):
        had, app = served_to_three(qos, target)
        if had != [1, 1, 1] if qos == 2 else 0 in had:
            failures.append("%s: %r" % (app.trace.where, had))
    assert len(lines) > 100 and failures == []
