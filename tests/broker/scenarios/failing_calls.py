"""Sessions with a real broker, in each of which one more I/O call fails.

    failing_calls.py OPTIONS DNS_PORT TOPIC FIRST STEP TURN DEADLINE_S

OPTIONS: of MQTTClient, JSON; its uri has a host name that the DNS server at DNS_PORT of loopback
knows. In a session the client subscribes to TOPIC/+, publishes there at each QoS, gets it back,
unsubscribes and disconnects. In the first one call number FIRST fails, in the next FIRST + STEP,
and so on until that call was not made. With which error depends on the number and on TURN; with
TURNS of these every call has failed with every error.

Events: ["first", [what was wrong, ...]], of a session without a fault; ["run", number of the call,
its name, [what was wrong, ...]]; ["over", sessions].
"""

import gc
import sys

from control import error_text, open_files, read_argument, say

import mqttpipe

sys.path.append((__file__.rpartition("/")[0] or ".") + "/../../portable")

import failing  # noqa: E402

ECONNRESET = 104
ENOMEM = 12
SESSION_MS = 8000  # it takes some 10 to 50

REAL = mqttpipe.socket, mqttpipe.select, mqttpipe.wrap_tls

ERRORS = (
    lambda name: OSError(ECONNRESET, "by the test"),
    lambda name: MemoryError(),
    lambda name: OSError(-0x7F00, "of a TLS library"),
    lambda name: OSError(ENOMEM, "by the test"),
    lambda name: ValueError("certificate"),
    lambda name: OSError("no number"),
)


# Nothing is allocated for these; and certificates are a matter of TLS.
def can_raise(name, error):
    if isinstance(error, MemoryError):
        return "close" not in name
    return not isinstance(error, ValueError) or "tls" in name and name != "tls close"


def make_error_of(number):
    def make_error(name):
        error = ERRORS[number % len(ERRORS)](name)
        return error if can_raise(name, error) else ERRORS[0](name)

    return make_error


# By the system's word: a TLS stream may have closed the socket below it.
def is_open(stream):
    return stream.inner.fileno() in open_files()


class Link:
    def __init__(self, port):
        self.port = port

    def is_up(self):
        return True

    def dns_servers(self):
        return [("127.0.0.1", self.port)]


class Session:
    """One client, from connect() to disconnect()."""

    def __init__(self, options, link, topic, plan):
        self.topic = topic
        self.times = [0, 0, 0]  # how often the message of each QoS came back
        self.problems = []
        mqttpipe.socket, mqttpipe.select, mqttpipe.wrap_tls = REAL
        failing.install(plan)
        self.client = client = mqttpipe.MQTTClient(link=link, **options)
        client.on_message = self.on_message
        client.on_error = lambda client, error: None  # an address that could not be asked
        self.begin_ms = mqttpipe.ticks_ms()

    def on_message(self, client, message):
        self.times[message.qos] += 1

    def step_until(self, condition, what):
        while not condition():
            self.client.step(5)
            if mqttpipe.ticks_diff(mqttpipe.ticks_ms(), self.begin_ms) > SESSION_MS:
                raise RuntimeError("%s, in %s" % (what, self.client.state_name))

    def run(self):
        client = self.client
        client.subscribe(self.topic + "/+", None, 2)
        client.connect()
        self.step_until(client.is_online, "not online")
        tokens = [client.publish("%s/%d" % (self.topic, qos), b"x", qos) for qos in range(3)]
        self.step_until(lambda: all(client.is_done(token) for token in tokens), "not acknowledged")
        self.step_until(lambda: self.times[1] and self.times[2], "not received")
        token = client.unsubscribe(self.topic + "/+")
        self.step_until(lambda: client.is_done(token) and client.is_online(), "not unsubscribed")
        client.disconnect()
        self.step_until(lambda: client.state_name == "DOWN", "not disconnected")
        if self.times[0] > 1 or self.times[2] > 1:
            self.problems.append("times: %r" % self.times)

    def check(self, plan):
        self.problems += plan.faults
        poll = self.client._poll
        if poll is not None and len(poll.watched) != 1:
            self.problems.append("registered: %r" % poll.watched)


def main(options, port, topic, first, step, turn, deadline_s):
    options = read_argument(options)
    link = Link(int(port))
    number = int(first)
    sessions = 0
    begin_ms = mqttpipe.ticks_ms()
    say("first", run(options, link, topic + "/first", failing.Plan(True, is_open)))
    files = open_files()
    while mqttpipe.ticks_diff(mqttpipe.ticks_ms(), begin_ms) < int(deadline_s) * 1000:
        plan = failing.Plan(True, is_open)
        make_error = make_error_of(number + int(turn))
        problems = run(options, link, "%s/%d" % (topic, sessions), plan, number, make_error)
        if open_files() != files:
            problems.append("open: %r, before: %r" % (open_files(), files))
            files = open_files()
        say("run", number, plan.failed, problems)
        sessions += 1
        if plan.failed is None:
            say("over", sessions)
            return
        number += int(step)
    say("late", sessions)


# One session; returns what was wrong. Afterwards its client is gone, and what that kept open.
def run(options, link, topic, plan, fail_at=0, make_error=None):
    options["client_id"] = topic.replace("/", "-")
    session = Session(options, link, topic, plan)
    plan.arm(fail_at, make_error)
    try:
        session.run()
    except Exception as error:
        session.problems.append("raised: " + error_text(error))
    session.check(plan)
    problems = session.problems
    del session
    gc.collect()
    return problems


main(*sys.argv[1:])
