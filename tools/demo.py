"""Show the client at work: CPython and MicroPython talk to each other, and lose their connection.

    python3 tools/demo.py                           set up everything, find or start a broker
    python3 tools/demo.py --broker=mosquitto        the mosquitto of this machine
    python3 tools/demo.py --broker=amqtt            the pure-Python broker of `.venv`
    python3 tools/demo.py --broker=mqtt://user:password@broker.example
    python3 tools/demo.py --no-micropython          a second CPython in MicroPython's place

Set up, once: `.venv` with amqtt (tools/setup_env.py) and MicroPython (tools/get_micropython.py).
Neither root nor mosquitto is needed; with mosquitto there, or a broker of your own, that one is
used; docs/brokers.md tells of others. Where MicroPython can't be had this is said, and a second
CPython stands in.

What is shown is checked: every message is counted and compared at its receiver, and what the
clients say of their connections is compared with the packets that went over the wire. The last
line is `demo: ok` (status 0) or `demo: failed: ` and the reason (status 1); Ctrl-C gives 130.
"""

import argparse
import collections
import contextlib
import json
import os
import queue
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse

import get_micropython
import setup_env
from commands import put

ROOT = setup_env.ROOT
PARTS = ROOT / "tools" / "demo"
sys.path.append(str(PARTS))

from brokers import END_TIMEOUT_S, Amqtt, Broker, DemoError, Mosquitto, end_process  # noqa: E402
from demo_wire import PUBLISH_QOS_1, SUBSCRIBE, Wire  # noqa: E402

INTRODUCTION = """
Two programs send each other messages through an MQTT broker, one on {first}, the other
on {second}. Both use the same file, micropython/mqttpipe.py. They connect and
subscribe, send each other messages at QoS 0 (sent once) and QoS 1 (sent until acknowledged), lose
the connection to the broker and come back by themselves, and lose it once more in the middle
of sending. Every message is counted and compared. Each line below shows the seconds since the
start, who it is about, and what happened.
"""

QOS = (0, 1)
MESSAGES = 10  # from each to the other, at each QoS, in each round
BURST = 60  # while the connection is cut; more than the client's pipe holds at a time
BURST_STALL_AT = 20  # the first message that does not get through, or one shortly before
OUTAGE_S = 0.8  # long enough that an attempt to come back fails, too

# Seconds. All of them end with --timeout as well.
ONLINE_TIMEOUT_S = 10
MESSAGES_TIMEOUT_S = 10
CUT_TIMEOUT_S = 5
LEAVE_TIMEOUT_S = 5
LOOK_S = 0.1  # how often a wait looks whether the broker still runs

TAIL_LINES = 8  # of each program's output, when something failed


class Stopped(Exception):
    """A signal asks us to end."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


# ---------------------------------------------------------------------------
# What people see
# ---------------------------------------------------------------------------

BOLD, RED, GREEN, YELLOW, CYAN, DIM = "1", "31", "32", "33", "36", "2"


class Unseen(Exception):
    """Nobody sees the show, as in `demo.py | head`, or the disk behind `>` is full."""


class Screen:
    """Prints aligned lines: elapsed seconds, who, what."""

    def __init__(self):
        self._began = time.monotonic()
        is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._has_colors = bool(sys.stdout and sys.stdout.isatty()) and not is_plain
        self._colors = {}

    def paint(self, text, color):
        return "\033[%sm%s\033[0m" % (color, text) if color and self._has_colors else text

    def set_color(self, who, color):
        self._colors[who] = color

    def heading(self, text):
        self.tell("\n" + self.paint(text, BOLD))

    def say(self, who, what, at=None, color=None):
        elapsed_s = (time.monotonic() if at is None else at) - self._began
        stamp = self.paint("%5.2f s" % elapsed_s, DIM)
        who = self.paint("%-18s" % who, self._colors.get(who))
        self.tell("%s  %s  %s" % (stamp, who, self.paint(what, color)))

    def tell(self, text):
        if not put(text):
            raise Unseen


def count(number, noun):
    return "%d %s%s" % (number, noun, "" if number == 1 else "s")


# ---------------------------------------------------------------------------
# The clients
# ---------------------------------------------------------------------------


class Client:
    """A process with tools/demo/client.py, and what we know of it."""

    def __init__(self, name, command, topic, wire, events):
        self.name = name
        self.topic = topic
        self.wire = wire
        self.is_online = False
        self.times_online = 0
        self.granted = []  # QoS of each subscription
        self.accepted = 0  # of its messages: left (QoS 0) or acknowledged (QoS 1)
        self.expected = {}  # payload -> QoS, of all that was ever sent to it
        self.received = []  # payloads, also those that came twice
        self.last_error = ""
        self.end = None  # its own account, when it has left
        self._events = events
        self._output = collections.deque(maxlen=TAIL_LINES)
        folders = [str(ROOT / "cpython_shim"), str(ROOT / "micropython")]
        env = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join(folders),
            PYTHONUNBUFFERED="1",
            MICROPYPATH=os.pathsep.join([folders[1], ".frozen"]),
        )
        self._process = subprocess.Popen(
            [*command, str(PARTS / "client.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,  # Ctrl-C is for us: we end it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip()
            try:
                event = json.loads(text)
                event["event"]
            except (ValueError, TypeError, KeyError):
                self._output.append(text)  # nothing of ours: a traceback, most likely
                continue
            self._events.put((time.monotonic(), self, event))
        self._events.put((time.monotonic(), self, {"event": "gone"}))

    def tell(self, **command):
        # If it is gone, the event that says so is on its way.
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()

    def output(self):
        return "\n".join(self._output)

    def status(self):
        """Return the exit status of a process that has closed its output, so ends at once."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(END_TIMEOUT_S)
        return None

    def close(self):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        end_process(self._process)
        self._reader.join(END_TIMEOUT_S)
        self._process.stdout.close()

    # Accounts ---------------------------------------------------------------

    def missing(self, payloads):
        """Return those of the payloads that have not come."""
        received = set(self.received)
        return [payload for payload in payloads if payload not in received]

    def repetitions(self, payloads):
        """Return how many have come too many of these payloads, all of which have come."""
        wanted = set(payloads)
        return sum(payload in wanted for payload in self.received) - len(wanted)

    def check_order(self, payloads):
        """Raise DemoError unless these payloads came in this order, repetitions aside."""
        wanted = set(payloads)
        came = list(dict.fromkeys(payload for payload in self.received if payload in wanted))
        for payload, due in zip(came, payloads):
            if payload != due:
                reason = "%s got %r where %r was due: the order of messages is broken"
                raise DemoError(reason % (self.name, payload, due))


# ---------------------------------------------------------------------------
# The show
# ---------------------------------------------------------------------------


class Show:
    """The broker, both clients, and what they do in turn."""

    def __init__(self, brokers, commands, screen, timeout_s):
        self._brokers = brokers  # the first one that starts is taken
        self._commands = commands  # name -> command of its interpreter
        self._screen = screen
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._events = queue.Queue()
        self._broker = None
        self._wires = []
        self._clients = []

    def run(self):
        screen = self._screen
        screen.heading("1. They connect and subscribe")
        self._start_broker()
        self._connect()
        screen.heading("2. They send each other messages")
        self._exchange("first")
        screen.heading("3. Both lose the connection to the broker, and come back by themselves")
        self._cut_both()
        self._exchange("second")
        title = "%d. %s loses the connection while it sends %d messages at QoS 1"
        for number, (sender, receiver) in enumerate(self._pairs(), 4):
            screen.heading(title % (number, sender.name, BURST))
            self._cut_while_sending(sender, receiver)
        screen.heading("6. They disconnect, and the accounts are compared")
        self._leave()

    def close(self):
        for thing in self._clients + self._wires:
            thing.close()
        if self._broker:
            self._broker.close()

    def outputs(self):
        """Return (name, text) of every program that has said anything beside its reports."""
        outputs = [(client.name, client.output()) for client in self._clients]
        if self._broker:
            lines = self._broker.log().rstrip().splitlines()
            outputs.append(("the broker", "\n".join(lines[-TAIL_LINES:])))
        return [pair for pair in outputs if pair[1]]

    # Acts -------------------------------------------------------------------

    def _start_broker(self):
        for broker in self._brokers:
            self._broker = broker
            try:
                broker.start(self._deadline, check_stopped)
                break
            except DemoError as error:
                if time.monotonic() >= self._deadline:
                    reason = str(error).partition("; ")[0]
                    raise DemoError("%s %s" % (reason, self._late())) from error
                if broker is self._brokers[-1]:
                    raise
                self._screen.say("broker", "%s; taking the next one" % error)
                broker.close()
        self._screen.say("broker", self._broker.description)

    def _connect(self):
        run = "%06x" % random.getrandbits(24)  # the broker may serve others, and other demos
        secret = self._broker.secret and self._broker.secret + "@"
        for name, command in self._commands.items():
            wire = Wire(self._broker.host, self._broker.port)
            self._wires.append(wire)
            topic = "demo-%s/%s" % (run, name.split()[0].lower())
            if any(client.topic == topic for client in self._clients):
                topic += "-2"
            client = Client(name, command, topic, wire, self._events)
            self._clients.append(client)
            client.tell(
                do="connect",
                uri="mqtt://%s127.0.0.1:%d" % (secret, wire.port),
                client_id="demo%s%d" % (run, len(self._clients)),
                # One for each QoS: amqtt delivers at the QoS of the subscription, whatever that
                # of the message was.
                filters=["%s/qos%d" % (topic, qos) for qos in QOS],
            )
        self._wait_online(self._clients, 1)
        for client in self._clients:
            if client.granted != list(QOS):
                reason = "the broker granted %s QoS %r for %s/qos0 and /qos1: may it subscribe?"
                raise DemoError(reason % (client.name, client.granted, client.topic))

    def _exchange(self, round_name):
        for qos in QOS:
            sendings = []
            for sender, receiver in self._pairs():
                what = "%s round" % round_name
                sendings.append(self._send(sender, receiver, qos, MESSAGES, what))
            for sending in sendings:
                self._wait_arrived(*sending)

    def _cut_both(self):
        screen = self._screen
        times_online = self._clients[0].times_online
        screen.say("the wire", "is cut, both connections at once", color=YELLOW)
        for wire in self._wires:
            wire.cut()
        self._wait_offline(self._clients)
        self._let_pass(OUTAGE_S)
        for wire in self._wires:
            wire.mend()
        screen.say("the wire", "is mended", color=YELLOW)
        self._wait_online(self._clients, times_online + 1)
        screen.say(
            "demo", "nobody has called subscribe() again; if messages arrive now, they did it"
        )

    def _cut_while_sending(self, sender, receiver):
        screen = self._screen
        wire = sender.wire
        times_online = sender.times_online
        sent_before = wire.packets[PUBLISH_QOS_1]
        let_through_before = wire.publishes_let_through
        wire.stall_after(BURST_STALL_AT)
        what = "sent by %s" % sender.name
        sending = self._send(sender, receiver, 1, BURST, what)
        payloads = sending[3]
        lack = "%s did not even send %d messages" % (sender.name, BURST_STALL_AT)
        self._wait(lambda: wire.is_stalled, CUT_TIMEOUT_S, lambda: lack)
        screen.say("the wire", "lets nothing through, either way", color=YELLOW)
        # Not cut at once: amqtt 0.11.4 on CPython 3.12 and later loses messages that it has
        # acknowledged, if their sender's connection ends before it has passed them on.
        let_through = wire.publishes_let_through - let_through_before
        self._wait(
            lambda: BURST - len(receiver.missing(payloads)) >= let_through,
            MESSAGES_TIMEOUT_S,
            lambda: (
                "%s did not get the %d messages that the wire let through to the broker"
                % (receiver.name, let_through)
            ),
        )
        wire.cut()
        screen.say("the wire", "is cut", color=YELLOW)
        self._wait_offline([sender])
        self._let_pass(OUTAGE_S)
        came = BURST - len(receiver.missing(payloads))
        if came > let_through:
            text = "%s got %d messages of %d that the wire let through?"
            raise DemoError(text % (receiver.name, came, let_through))
        screen.say(receiver.name, "has %d of %d so far" % (came, BURST))
        wire.mend()
        screen.say("the wire", "is mended", color=YELLOW)
        self._wait_online([sender], times_online + 1)
        self._wait_arrived(*sending)
        again = wire.packets[PUBLISH_QOS_1] - sent_before - BURST
        if again <= 0:
            raise DemoError("%s did not send again what was lost in the cut" % sender.name)
        screen.say(sender.name, "had to send %s again" % count(again, "message"))

    def _leave(self):
        for client in self._clients:
            client.tell(do="quit")
        self._wait(
            lambda: all(client.end for client in self._clients),
            LEAVE_TIMEOUT_S,
            lambda: "%s did not disconnect" % names(c for c in self._clients if not c.end),
        )
        for client in self._clients:
            self._check_account(client)
        sent = sum(len(client.expected) for client in self._clients)
        twice = sum(client.repetitions(client.expected) for client in self._clients)
        text = "%d messages were sent, all of them arrived" % sent
        if twice:
            text += "; %d of them twice, as QoS 1 allows after a cut" % twice
        self._screen.say("demo", text, color=GREEN)

    def _check_account(self, client):
        """Compare what the client says of itself at the end with what was seen."""
        missing = client.missing(client.expected)
        if missing:
            raise DemoError("%s lost %r" % (client.name, missing[0]))
        stats = client.end["stats"]
        subscribed = client.wire.packets[SUBSCRIBE]
        for what, said, seen in (
            ("messages received", stats["received"], len(client.received)),
            ("connections", stats["connections"], client.times_online),
            ("calls of subscribe()", client.end["subscribe_calls"], len(QOS)),
            ("exit status", client.status(), 0),
        ):
            if said != seen:
                raise DemoError("%s: %s: %r, expected %r" % (client.name, what, said, seen))
        if subscribed < client.times_online:
            text = "%s was online %d times, but sent SUBSCRIBE %d times"
            raise DemoError(text % (client.name, client.times_online, subscribed))
        self._screen.say(
            client.name,
            "%s, %s over the wire, %s of subscribe(), %s received"
            % (
                count(stats["connections"], "connection"),
                count(subscribed, "SUBSCRIBE packet"),
                count(client.end["subscribe_calls"], "call"),
                count(stats["received"], "message"),
            ),
        )

    # Sending ----------------------------------------------------------------

    def _pairs(self):
        first, second = self._clients
        return (first, second), (second, first)

    def _send(self, sender, receiver, qos, number, what):
        """Let one send to the other; return the arguments for _wait_arrived()."""
        payloads = [
            "%s, QoS %d, %d of %d: %.1f \N{DEGREE SIGN}C" % (what, qos, i, number, 20 + i / 10)
            for i in range(1, number + 1)
        ]
        for payload in payloads:
            receiver.expected[payload] = qos
        accepted = sender.accepted + number
        text = "sends %d messages at QoS %d to %s"
        self._screen.say(sender.name, text % (number, qos, receiver.name))
        topic_name = "%s/qos%d" % (receiver.topic, qos)
        sender.tell(do="publish", topic_name=topic_name, payloads=payloads, qos=qos)
        return sender, receiver, qos, payloads, accepted

    def _wait_arrived(self, sender, receiver, qos, payloads, accepted):
        def is_done():
            return not receiver.missing(payloads) and sender.accepted >= accepted

        def lack():
            missing = receiver.missing(payloads)
            if not missing:
                lacking = count(accepted - sender.accepted, "acknowledgement")
                return "%s got everything, but %s lacks %s" % (receiver.name, sender.name, lacking)
            text = "%s did not get %d of %d messages at QoS %d from %s, the first is %r,"
            numbers = (len(missing), len(payloads), qos, sender.name, missing[0])
            return text % (receiver.name, *numbers)

        self._wait(is_done, MESSAGES_TIMEOUT_S, lack)
        receiver.check_order(payloads)
        twice = receiver.repetitions(payloads)
        if twice and qos == 0:
            raise DemoError("%s got %s twice at QoS 0" % (receiver.name, count(twice, "message")))
        self._screen.say(
            receiver.name,
            'has all %d, in order%s, the last is "%s"'
            % (len(payloads), ", %d twice" % twice if twice else "", payloads[-1]),
            color=GREEN,
        )

    # Waiting ----------------------------------------------------------------

    def _wait_online(self, clients, times):
        def lack():
            late = [c for c in clients if not c.is_online or c.times_online < times]
            errors = {c.last_error for c in late if c.last_error}
            reason = " (%s)" % "; ".join(sorted(errors)) if errors else ""
            return "%s did not come online%s" % (names(late), reason)

        self._wait(
            lambda: all(c.is_online and c.times_online >= times for c in clients),
            ONLINE_TIMEOUT_S,
            lack,
        )

    def _wait_offline(self, clients):
        self._wait(
            lambda: not any(client.is_online for client in clients),
            CUT_TIMEOUT_S,
            lambda: "%s did not notice the cut" % names(c for c in clients if c.is_online),
        )

    def _let_pass(self, seconds):
        end = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() >= end, seconds + 1, lambda: "nothing ended")

    def _late(self):
        return "before --timeout, %g s, was over" % self._timeout_s

    def _wait(self, is_done, timeout_s, lack):
        """Take events until is_done(); raise DemoError with lack() after timeout_s."""
        deadline = min(self._deadline, time.monotonic() + timeout_s)
        while not is_done():
            if time.monotonic() >= deadline:
                limit = "within %g s" % timeout_s
                if deadline == self._deadline:
                    limit = self._late()
                raise DemoError("%s %s" % (lack(), limit))
            self._broker.check()
            check_stopped()
            with contextlib.suppress(queue.Empty):
                self._on_event(*self._events.get(timeout=LOOK_S))

    # What the clients report ------------------------------------------------

    def _on_event(self, at, client, event):
        kind = event["event"]
        if kind == "message":
            self._on_message(client, event)
        elif kind == "published":
            client.accepted += 1
        elif kind == "subscribed":
            client.granted.append(event["granted"])
        elif kind == "online":
            client.is_online = True
            client.times_online += 1
            text = (
                "online again and subscribed again"
                if client.times_online > 1
                else "online and subscribed"
            )
            self._screen.say(client.name, "%s, to %s/qos0 and /qos1" % (text, client.topic), at)
        elif kind == "offline":
            self._on_offline(at, client, event)
        elif kind == "ended":
            client.end = event
        elif kind == "error":
            raise DemoError("%s reports an error: %s" % (client.name, event["error"]))
        elif kind == "gone" and not client.end:
            last = client.output().rpartition("\n")[2]
            reason = "%s ended by itself (%s): %s"
            raise DemoError(reason % (client.name, client.status(), last or "it printed nothing"))
        elif kind == "started" and event["python"] != client.name.split()[0].lower():
            raise DemoError("%s is %s in truth" % (client.name, event["python"]))

    def _on_offline(self, at, client, event):
        was_online, client.is_online = client.is_online, False
        client.last_error = event["error"]
        if event["kind"] is None:
            self._screen.say(client.name, "disconnected, as it was asked to", at)
        elif event["kind"] == "Refused":
            raise DemoError("%s: %s" % (client.name, event["error"]))
        elif was_online:
            text = "has lost the connection: %s" % event["error"]
            self._screen.say(client.name, text, at, YELLOW)
        else:
            self._screen.say(client.name, "could not connect: %s" % event["error"], at)

    def _on_message(self, client, event):
        payload = event["payload"]
        qos = client.expected.get(payload)
        if qos is None:
            raise DemoError("%s got %r, which nobody sent" % (client.name, payload))
        topic_name = "%s/qos%d" % (client.topic, qos)
        if event["topic_name"] != topic_name or event["qos"] != qos:
            text = "%s got %r on %s at QoS %r, but it was sent on %s at QoS %d"
            got = (client.name, payload, event["topic_name"], event["qos"])
            raise DemoError(text % (*got, topic_name, qos))
        client.received.append(payload)


def names(clients):
    return " and ".join(client.name for client in clients)


# ---------------------------------------------------------------------------
# Start and end
# ---------------------------------------------------------------------------


def choose_brokers(option):
    """Return the brokers to try in turn, not started yet."""
    if option == "amqtt":
        return [Amqtt()]
    if option not in ("auto", "mosquitto"):
        return [Broker(option)]
    program = setup_env.find_program("mosquitto")
    if option == "mosquitto":
        if not program:
            raise DemoError("there is no mosquitto here: install it, or take --broker=amqtt")
        return [Mosquitto(program)]
    return [Mosquitto(program), Amqtt()] if program else [Amqtt()]


def choose_interpreters(is_micropython_wanted):
    """Return name -> command for both clients, and a sentence to say, or ""."""
    name = "CPython %d.%d" % sys.version_info[:2]
    commands = {name: [sys.executable]}
    if not is_micropython_wanted:
        note = "--no-micropython: a second CPython stands in for it."
    else:
        # What is there already goes first, and the width of a board before the other.
        for get in (get_micropython.find, get_micropython.ensure):
            for bits in (32, 64):
                command = get(bits)
                if command:
                    # More memory than a board has: there the client comes compiled.
                    commands["MicroPython %d-bit" % bits] = [*command, "-X", "heapsize=4m"]
                    return commands, ""
        note = "NO MICROPYTHON could be had here, see above: a second CPython stands in for it."
    commands[name + " (2nd)"] = [sys.executable]
    return commands, note


def broker_option(text):
    if text in ("auto", "mosquitto", "amqtt"):
        return text
    with contextlib.suppress(ValueError):  # raised by .port for what is no port
        parts = urllib.parse.urlsplit(text)
        if parts.scheme in ("mqtt", "tcp") and parts.hostname and parts.port != 0:
            return text
    rule = "must be auto, mosquitto, amqtt or a URI such as mqtt://127.0.0.1:1883"
    # Without user and password: it may go into a log.
    raise argparse.ArgumentTypeError("%r: %s" % (re.sub("^([a-z]+://)?.*@", r"\1", text), rule))


def seconds_option(text):
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 3600:
            return float(text)
    raise argparse.ArgumentTypeError("%r: must be a number of seconds, up to 3600" % text)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--broker",
        type=broker_option,
        default="auto",
        metavar="WHICH",
        help="mosquitto, amqtt, a URI, or auto: mosquitto if it is here, else amqtt (default)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds_option,
        default=60.0,
        metavar="SECONDS",
        help="for all that comes after the set-up (default: 60; about 6 are usual)",
    )
    parser.add_argument(
        "--no-micropython",
        action="store_true",
        help="a second CPython takes the place of MicroPython",
    )
    return parser.parse_args()


SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
stopped_by = []  # the number of the signal that ends the show


def handle_signals(handler):
    for number in SIGNALS:
        signal.signal(number, handler)


def stop_set_up(number, frame):
    handle_signals(signal.SIG_IGN)  # once is enough: a second one must not disturb the cleaning up
    raise Stopped(number)


def stop_show(number, frame):
    # Raising here would do harm, for instance in the midst of Thread.start(). Waits look for this.
    handle_signals(signal.SIG_IGN)
    stopped_by.append(number)


def check_stopped():
    if stopped_by:
        raise Stopped(stopped_by[0])


def give_show(options):
    commands, note = choose_interpreters(not options.no_micropython)
    screen = Screen()
    first, second = commands
    screen.set_color(first, CYAN)
    screen.set_color(second, GREEN)
    screen.tell(textwrap.fill(INTRODUCTION.format(first=first, second=second).strip(), 98))
    if note:
        screen.tell(screen.paint(note, BOLD))
    show = None
    handle_signals(stop_show)
    try:
        show = Show(choose_brokers(options.broker), commands, screen, options.timeout)
        show.run()
    except DemoError as error:
        for name, text in show.outputs() if show else ():
            put("\n--- the last that %s printed ---\n%s" % (name, text))
        put(screen.paint("\ndemo: failed: %s" % error, RED))
        return 1
    finally:
        handle_signals(signal.SIG_IGN)
        if show:
            show.close()
    if note:
        screen.tell(screen.paint(note, BOLD))
    screen.tell(screen.paint("demo: ok", GREEN))
    return 0


def main():
    options = parse_arguments()
    handle_signals(stop_set_up)
    try:
        setup_env.reexec_in_venv("requirements-demo.txt")
        return give_show(options)
    except Stopped as stopped:
        put("\ndemo: stopped by %s; everything is ended" % stopped)
        return stopped.status
    except Unseen:
        return 1


if __name__ == "__main__":
    sys.exit(main())
