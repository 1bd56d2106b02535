"""Runs one cell of the stall matrix: a server that fails, a client process, and what is seen.

What must happen, in this order: the client connects; the fault strikes; the client publishes a
QoS 1 and a QoS 2 message; it tells the error; the fault ends; the client comes online by itself,
and both messages come to the server, the second one just once; a QoS 2 message of the server comes
to the client, just once; the client disconnects in good order.
"""

import collections
import contextlib
import json
import os
import pathlib
import queue
import subprocess
import threading
import time

import stall_cells as cells
import stall_servers as servers

PARTS = pathlib.Path(__file__).resolve().parent
ROOT = PARTS.parent.parent

NAME = "broker.test"  # what the cells of DNS look for; .test is nobody's (RFC 2606)

# Seconds. What takes milliseconds; a machine may be busy.
EVENT_TIMEOUT_S = 20
START_TIMEOUT_S = 20
END_TIMEOUT_S = 3
# The client publishes some time after the fault. After a half packet of the server it is a good
# part of connect_timeout_ms, so that the one deadline does not come in the same step as the other.
PUBLISH_AFTER_S = 0.03
PUBLISH_AFTER_PART = 0.4

OUTPUT_LINES = 6  # of a client that has failed


class CellError(Exception):
    """What should have happened and did not, in one line."""


class NoEvent(CellError):
    """A wait has ended before the event came."""


class Client:
    """A process with client.py in one interpreter; it serves for many cells, one at a time."""

    def __init__(self, interpreter):
        self.interpreter = interpreter
        self.events = queue.Queue()  # (time.monotonic(), name, details); the servers' too
        self._output = collections.deque(maxlen=OUTPUT_LINES)
        env = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join([str(ROOT / "cpython_shim"), str(ROOT / "micropython")]),
            PYTHONUNBUFFERED="1",
            MICROPYPATH=os.pathsep.join([str(interpreter.client_folder), ".frozen"]),
        )
        self._process = subprocess.Popen(
            [*interpreter.command, str(PARTS / "client.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,  # Ctrl-C is for the tool, which ends us
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait(("ready",), START_TIMEOUT_S)

    def _read(self):
        for line in self._process.stdout:
            at = time.monotonic()
            try:
                details = json.loads(line)
                name = details.pop("event")
            except (ValueError, TypeError, KeyError, AttributeError):
                self._output.append(line.decode(errors="replace").rstrip())
                continue
            self.events.put((at, name, details))
        self.events.put((time.monotonic(), "gone", {}))

    def put(self, name, **details):
        """Add what a server has to tell. Called in its thread."""
        self.events.put((time.monotonic(), name, details))

    def tell(self, **order):
        # If it is gone, the event that says so is on its way.
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def wait(self, names, timeout_s, on_event=None):
        """Take events until one of these names; return (time, details).

        on_event(at, name, details) gets all of them.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self.events.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise NoEvent("no %r from the client" % (names,)) from None
            if on_event:
                on_event(*event)
            if event[1] in names:
                return event[0], event[2]
            if event[1] == "gone":
                raise CellError(client_gone(self))

    def output(self):
        """What it printed beside its events: a traceback, for example. Emptied."""
        text = " / ".join(self._output)
        self._output.clear()
        return text

    def close(self):
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(END_TIMEOUT_S)
        self._reader.join(END_TIMEOUT_S)
        self._process.stdout.close()


def client_gone(client):
    return "the client ended by itself: " + client.output()


class Seen:
    """What was seen of one run of a cell."""

    def __init__(self):
        self.errors = []  # details of each "offline", with after_ms
        self.complaints = []
        self.failure = None  # a sentence, if the run came to no good end
        self.during = None  # what the server was at when the fault struck
        self.published = collections.Counter()
        self.came = collections.Counter()  # payload -> how often, at the server
        self.message_count = 0  # those of the server, at the client
        self.back_ms = None  # from the end of the fault until both messages had been acknowledged
        self.steps = 0
        self.worst_us = self.worst_tls_us = 0  # 0: there was none
        self.worst_at = ""


class Run:
    """One run of one cell."""

    def __init__(self, cell, client, tls):
        self.cell = cell
        self.client = client
        self.tls = tls
        self.seen = Seen()
        self._times = {}  # name of an event -> when it came first
        self._counts = collections.Counter()
        self.server = None

    def run(self):
        """Return what was Seen; a failure to come to an end is in it."""
        cell, client, seen = self.cell, self.client, self.seen
        while not client.events.empty():  # of the cell before
            client.events.get()
        contexts = self.tls.contexts(cell.certificate) if cell.transport == cells.TLS else None
        try:
            server = self.server = servers.Server(
                client.put, cell.make_fault(), contexts, cell.make_names(), cell.gate
            )
        except OSError as error:  # a backlog that can't be filled, for example
            seen.failure = "the tool's own server can't be started: %s" % error
            return seen
        try:
            self._play()
        except CellError as error:
            output = client.output()
            seen.failure = "%s%s" % (error, ": " + output if output else "")
        finally:
            server.close()
        seen.came = server.session.came
        return seen

    # What happens --------------------------------------------------------------

    def _on_event(self, at, name, details):
        seen = self.seen
        self._counts[name] += 1
        self._times.setdefault(name, at)
        if name == "offline":
            details["at"] = at
            seen.errors.append(details)
        elif name == "complaint":
            seen.complaints.append(details["text"])
        elif name == "struck":
            seen.during = details["during"]
        elif name == "published":
            seen.published[details["payload"]] += 1
        elif name == "message":
            seen.message_count += 1
        elif name == "gone":
            raise CellError(client_gone(self.client))
        elif name == "broken":
            raise CellError("the tool's own server has failed: %s" % details["text"])
        elif name == "drained":
            raise CellError("the flood did not fill the connection")

    def _wait(self, name, count=1, or_name=None):
        """Wait until so many events of this name have come since the cell's begin.

        or_name: or at least one of this.
        """
        deadline = time.monotonic() + EVENT_TIMEOUT_S
        try:
            while self._counts[name] < count and not self._counts[or_name]:
                self.client.wait((name, or_name), deadline - time.monotonic(), self._on_event)
        except NoEvent:
            errors = ", ".join(error_name(error) for error in self.seen.errors)
            text = "no %r within %g s (errors so far: %s)"
            raise CellError(text % (name, EVENT_TIMEOUT_S, errors or "none")) from None

    def _let_pass(self, seconds):
        deadline = time.monotonic() + seconds
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            with contextlib.suppress(queue.Empty):
                self._on_event(*self.client.events.get(timeout=left_s))

    # The play ----------------------------------------------------------------------

    def _play(self):
        cell, client, server = self.cell, self.client, self.server
        self._start()
        if cell.trigger != cells.AT_ONCE:
            self._wait("online")
            self._trigger()
        if not cell.is_unseen:
            self._wait("struck")
        if cell.trigger == cells.FLOOD:
            self._wait("full")
            if cell.then:
                server.fail(cell.then)
        if cell.trigger not in (cells.PUBLISH, cells.CLOSE):
            if cell.trigger == cells.PUSH:
                self._let_pass(PUBLISH_AFTER_PART * cell.options["connect_timeout_ms"] / 1000)
            elif cell.trigger not in (cells.AT_ONCE, cells.FLOOD):
                self._let_pass(PUBLISH_AFTER_S)
            client.tell(do="publish")
            if cell.trigger != cells.FLOOD:
                self._wait("queued")  # the flood's pipe may have no room until it is online again
        expected = expected_of(cell, self.seen)
        if expected:
            self._wait("offline", or_name="online" if cells.NOTHING in expected else None)
            self._tell_times()
        else:
            self._wait("online")
            self._let_pass(cell.calm_ms / 1000)
        begin = time.monotonic()
        server.heal(cell.is_forgotten)
        if cell.trigger in (cells.DISCONNECT, cells.CLOSE):
            client.tell(do="connect")
        self._wait("published", 2)
        self.seen.back_ms = 1000 * (time.monotonic() - begin)
        server.push()
        self._wait("pushed")
        self._wait("message")
        disconnect_count = self._counts["disconnect"]
        client.tell(do="end")
        _, result = client.wait(("result",), EVENT_TIMEOUT_S, self._on_event)
        self._wait("disconnect", disconnect_count + 1)
        seen = self.seen
        seen.steps = result["steps"]
        seen.worst_us, seen.worst_at = result["worst_us"], result["worst_at"]
        seen.worst_tls_us = result["worst_tls_us"]

    def _start(self):
        cell, server = self.cell, self.server
        host = NAME if server.names else servers.HOST
        scheme = "mqtts" if cell.transport == cells.TLS else "mqtt"
        self.client.tell(
            do="start",
            uri="%s://%s:%d" % (scheme, host, server.port),
            options=cell.options,
            dns_port=server.names.port if server.names else None,
            ca=self.tls.ca_pem if cell.transport == cells.TLS else None,
        )
        self._wait("started")

    def _trigger(self):
        trigger, client, server = self.cell.trigger, self.client, self.server
        if trigger == cells.PUSH:
            server.push()
        elif trigger == cells.STRIKE:
            server.strike()
        elif trigger == cells.PUBLISH:
            client.tell(do="publish")
        elif trigger == cells.UNSUBSCRIBE:
            client.tell(do="unsubscribe")
        elif trigger == cells.FLOOD:
            server.strike()
            client.tell(do="flood")
        elif trigger == cells.DISCONNECT:
            client.tell(do="disconnect")
        elif trigger == cells.CLOSE:
            client.tell(do="publish")
            client.tell(do="disconnect")

    def _tell_times(self):
        is_attempt = self.cell.clock == cells.ATTEMPT
        begin = self._times.get(self.cell.clock, self._times["started"])
        for error in self.seen.errors:
            if is_attempt:  # the client has measured that itself
                error["after_ms"] = error["attempt_ms"]
                continue
            # The client may be quicker to tell the error than the server to tell the fault.
            error["after_ms"] = max(0, 1000 * (error["at"] - begin))


# ---------------------------------------------------------------------------
# Judging
# ---------------------------------------------------------------------------


def error_name(error):
    """Return "TimedOut ACK" for the details of an "offline"."""
    return " ".join(part for part in (error["kind"], error["stage"]) if part)


def expected_of(cell, seen):
    """Return the set of (kind, stage) that is expected after what was seen."""
    if isinstance(cell.expected, dict):
        return cell.expected.get(seen.during, set())
    return cell.expected


def wrongs(cell, seen):
    """Return what is wrong with what was seen, as a list of sentences; times and steps aside."""
    found = []
    expected = expected_of(cell, seen)
    for error in seen.errors:
        if (error["kind"], error["stage"]) not in expected:
            wanted = " or ".join(sorted(" ".join(filter(None, pair)) for pair in expected))
            text = "%s, expected %s: %s" % (error_name(error), wanted or "no error", error["text"])
            if text not in found:
                found.append(text)
        else:
            for key in ("return_code", "errno"):
                wanted = getattr(cell, key)
                if wanted is not None and error[key] != wanted:
                    found.append("%s is %r, expected %r" % (key, error[key], wanted))
    if seen.failure:
        found.append(seen.failure)
        return found
    if expected and cells.NOTHING not in expected and not seen.errors:
        found.append("no error came")
    if cell.has_complaint != bool(seen.complaints):
        found.append("on_error: %s" % ("; ".join(seen.complaints) or "was not called"))
    for payload, is_once in ((b"one", False), (b"two", True)):
        count = seen.came[payload]
        if not count or is_once and count > 1:
            found.append("the server got %r %d times" % (payload.decode(), count))
    if seen.message_count != 1:
        found.append("the client got the QoS 2 message %d times" % seen.message_count)
    return found


def late_ms(cell, seen):
    """Return by how many milliseconds the first error came too late; below 0: too early."""
    if not seen.errors or seen.errors[0].get("after_ms") is None:
        return 0
    after_ms = seen.errors[0]["after_ms"]
    if after_ms < cell.earliest_ms:
        return after_ms - cell.earliest_ms
    return max(0, after_ms - cell.latest_ms)


RUNS_MAX = 4  # the first, and up to three more
# A longer step of a TLS handshake is not wrong, but measured again. The longest that cryptography
# takes here is 3 ms (CPython), 5 ms (MicroPython 64-bit), 8 ms (32-bit); the rest is the machine.
TLS_NOISE_US = 12_000


class Verdict:
    """What is said of a cell after all its runs."""

    def __init__(self, cell, interpreter_name):
        self.cell = cell
        self.interpreter_name = interpreter_name
        self.wrongs = []
        self.runs = 0
        self.worst_us = None  # the smallest of the runs' maxima
        self.worst_at = ""
        self.worst_tls_us = None
        self.after_ms = None
        self.back_ms = None
        self.late_ms = None
        self.errors = []  # "TimedOut ACK", each once
        self.steps = 0

    def add(self, seen):
        """Take one run into account."""
        self.runs += 1
        self.wrongs = wrongs(self.cell, seen)
        for error in seen.errors:
            if error_name(error) not in self.errors:
                self.errors.append(error_name(error))
        if seen.failure:
            return
        self.steps += seen.steps
        if self.worst_us is None or seen.worst_us < self.worst_us:
            self.worst_us, self.worst_at = seen.worst_us, seen.worst_at
        if seen.worst_tls_us:
            self.worst_tls_us = min(self.worst_tls_us or seen.worst_tls_us, seen.worst_tls_us)
        late = late_ms(self.cell, seen)
        if self.late_ms is None or abs(late) < abs(self.late_ms):
            self.late_ms = late
            self.after_ms = seen.errors[0].get("after_ms") if seen.errors else None
        if self.back_ms is None or seen.back_ms < self.back_ms:
            self.back_ms = seen.back_ms

    def needs_another_run(self, bound_us, patience_ms):
        """A step or an error was late, and that may have been the machine's fault."""
        is_noisy = (self.worst_tls_us or 0) > TLS_NOISE_US
        return not self.wrongs and (is_noisy or bool(self._late(bound_us, patience_ms)))

    def finish(self, bound_us, patience_ms):
        """Add what was late in every run to what is wrong."""
        if not self.wrongs:
            self.wrongs += self._late(bound_us, patience_ms)

    def _late(self, bound_us, patience_ms):
        found = []
        if self.worst_us is not None and self.worst_us > bound_us:
            text = "a step(0) of %.1f ms in %s, the bound is %.1f ms"
            found.append(text % (self.worst_us / 1000, self.worst_at, bound_us / 1000))
        if self.late_ms is not None and self.late_ms > patience_ms:
            found.append("the error came %.0f ms too late" % self.late_ms)
        elif self.late_ms is not None and self.late_ms < 0:
            found.append("the error came %.0f ms too early" % -self.late_ms)
        return found


class Runner:
    """Runs cells in one interpreter."""

    def __init__(self, interpreter, tls, bound_us, patience_ms):
        self.interpreter = interpreter
        self._tls = tls
        self._bound_us = bound_us
        self._patience_ms = patience_ms
        self._client = None

    def client(self):
        """Return the process, started if there is none."""
        if self._client is None:
            self._client = Client(self.interpreter)
        return self._client

    def run(self, cell):
        """Return the Verdict of a cell."""
        verdict = Verdict(cell, self.interpreter.name)
        while True:
            seen = Run(cell, self.client(), self._tls).run()
            verdict.add(seen)
            if seen.failure:
                # It may be anywhere, and even hang: the next cell gets a new one.
                self.close()
            again = verdict.needs_another_run(self._bound_us, self._patience_ms)
            if not again or verdict.runs == RUNS_MAX:
                break
        verdict.finish(self._bound_us, self._patience_ms)
        return verdict

    def close(self):
        if self._client is not None:
            self._client.close()
            self._client = None
