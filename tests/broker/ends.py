"""The two ends of a test with a real broker: our client in a process, and paho-mqtt in a thread.

Both keep what happened in lists that the test waits on; every wait has an end, and says what came
instead when it ends.
"""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time
import urllib.parse

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

import servers

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCENARIOS = HERE / "scenarios"

BOARD = "MicroPython 32-bit"  # has a board's width, and a board's heap
BOARD_HEAP = "96k"
PERSONALITIES = ["CPython as ESP32", "CPython as rp2", "CPython as unix", "CPython hostile"]
ESP32_SOCKETS = "ESP32 sockets"
INTERPRETERS = ["CPython", "MicroPython 64-bit", BOARD, ESP32_SOCKETS, *PERSONALITIES]

WAIT_S = 30  # how long to wait for what takes milliseconds on an idle machine
DEADLINE_S = 60  # of a scenario: it ends by itself if we should forget it
SHOWN = 25  # lines at the end of a log

# MicroPython 1.25 dies of a longer argument ("FATAL: uncaught NLR"): it makes a qstr of each.
ARGUMENT_BYTES_MAX = 255

# Where the order of messages is looked at, mosquitto must not queue them for want of room in its
# window of 20: 2.0.11 lets a new message take a place before the queue's first (seen on the wire
# to paho). And with a window of 1 it never sends some of the queue to a client whose connection
# breaks again and again.
NO_WINDOW = "max_inflight_messages 0"


def tail(text, count=SHOWN):
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-count:])


def at_address(uri, host, port):
    """Return the URI with another host and port, and the same scheme, user and password."""
    parts = urllib.parse.urlsplit(uri)
    secret, at, _ = parts.netloc.rpartition("@")
    return "%s://%s%s%s:%d" % (parts.scheme, secret, at, host, port)


class Waiting:
    """Something that other threads add to, and a test waits on."""

    def __init__(self):
        self._changed = threading.Condition()

    def wait_until(self, condition, what, timeout_s=WAIT_S):
        """Wait until condition() is true, and return what it answered.

        It is called at the beginning and after each change, never at the same time as one.
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                answer = condition()
                if answer:
                    return answer
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self.is_over():
                    raise AssertionError("%s: %s\n%s" % (self, what, self.story()))
                self._changed.wait(min(left_s, 0.5))

    def is_over(self):
        """True when nothing more can come."""
        return False

    def story(self):
        """What happened so far, for a failed test."""
        raise NotImplementedError


class Heartbeat:
    """Tells whether the machine stood still: a thread that naps, and notes when it overslept.

    It beats while somebody is in its `with`. A virtual machine that was stopped as a whole, or a
    disk that everybody waits for, no process knows of. That a process was ready and had no
    processor Linux counts for each of its threads: it is noted for those that watch() names.
    """

    NAP_S = 0.005
    BEATS = 8  # from one look at the processes to the next
    COUNTED_S = 0.02  # as late as this one gets for the sake of other threads of this process

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0
        self._late = collections.deque(maxlen=1000)  # (from, until): time.monotonic()
        self._waited = {}  # process id -> (time.monotonic(), thread -> ns without a processor)
        self._thread = None

    def __enter__(self):
        with self._lock:
            self._users += 1
            if not self._thread:
                self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self._thread.start()
        return self

    def __exit__(self, *exception):
        with self._lock:
            self._users -= 1

    def watch(self, pid):
        self._waited[pid] = collections.deque(maxlen=10_000)
        self._look()

    def forget(self, pid):
        self._waited.pop(pid, None)

    def _look(self):
        for pid, looks in list(self._waited.items()):
            waited = {}
            try:
                paths = list(pathlib.Path("/proc/%d/task" % pid).glob("*/schedstat"))
            except OSError:  # it has ended
                continue
            for path in paths:
                with contextlib.suppress(OSError, ValueError, IndexError):  # a thread has
                    waited[path.parent.name] = int(path.read_text().split()[1])
            if waited:
                looks.append((time.monotonic(), waited))

    def waited_ms(self, pid, since, until):
        """For how long one of its threads had no processor between two times: at least nearly."""
        looks = list(self._waited.get(pid, ()))
        before = [look for look in looks if look[0] <= since][-1:]
        after = [look for look in looks if look[0] >= until][:1] or looks[-1:]
        if not before or not after:
            return 0
        waits = [ns - before[0][1].get(thread, 0) for thread, ns in after[0][1].items()]
        return round(max(waits, default=0) / 1_000_000)

    def _beat(self):
        for beat in itertools.count():
            due = time.monotonic() + self.NAP_S
            time.sleep(self.NAP_S)
            self.note(due, time.monotonic())
            if beat % self.BEATS == 0:
                self._look()
            with self._lock:
                if not self._users:
                    self._thread = None
                    return

    def note(self, due, now):
        """A nap was over at `due`, and the thread ran again at `now`."""
        if now - due > self.COUNTED_S:
            self._late.append((due, now))

    def still_ms(self, since, until):
        """For how long the machine stood still between two times, as far as is known."""
        overlaps = (min(until, end) - max(since, begin) for begin, end in list(self._late))
        return 1000 * sum(overlap for overlap in overlaps if overlap > 0)


HEARTBEAT = Heartbeat()

SLOW_MS = 50  # as in scenarios/control.py
SLACK_S = 0.1  # for an event to come to us; and the heartbeat may notice later than it


class Events(Waiting):
    """What somebody says in lines of JSON: [name of the event, argument, ...].

    Args:
        on_event: on_event(event) takes part of the events away: those for which it is true.
    """

    pid = None

    def __init__(self, name, on_event=None):
        super().__init__()
        self.name = name
        self._queues = collections.defaultdict(collections.deque)
        self._lines = collections.deque(maxlen=200)
        self._on_event = on_event
        self._is_over = False
        self._watchdog = []  # (when it came, ms, state) of each step() that was too slow

    def __str__(self):
        return self.name

    def take(self, line):
        """Take a line; what is no event is kept for the story."""
        with self._changed:
            try:
                event = json.loads(line)
                if event[0] == "watchdog":
                    self._watchdog.append((time.monotonic(), *event[1:]))
                    self._lines.append(line)
                elif not (self._on_event and self._on_event(event)):
                    self._queues[event[0]].append(event[1:])
                    self._lines.append(line)
            except (ValueError, TypeError, IndexError, KeyError):
                self._lines.append(line)  # a traceback
            self._changed.notify_all()

    def end(self):
        """No more lines will come."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def is_over(self):
        return self._is_over

    def next(self, name, timeout_s=WAIT_S):
        """Return the arguments of the next event of this name, in the order they came."""
        queue = self._queues[name]
        self.wait_until(lambda: queue, "no event %r" % name, timeout_s)
        return queue.popleft()

    def count(self, name):
        """Return how many events of this name have come and were not asked for."""
        return len(self._queues[name])

    def slow_steps(self):
        """Return what the watchdog said of steps while the machine did not stand still."""
        slow = []
        for came, late_ms, state_name in list(self._watchdog):
            since, until = came - late_ms / 1000 - SLACK_S, came + SLACK_S
            still_ms = HEARTBEAT.still_ms(since, until)
            still_ms = max(still_ms, HEARTBEAT.waited_ms(self.pid, since, until))
            if late_ms - still_ms > SLOW_MS:
                slow.append("%d ms in %s (machine: %d ms)" % (late_ms, state_name, still_ms))
        return slow


class Scenario(Events):
    """A script of scenarios/ that runs in an interpreter.

    Args:
        interpreter: of conftest.py. script: file name. arguments: str or what JSON can say.
        board_folder: where the compiled client for BOARD lies.
        on_event: as of Events.
        heap: size of BOARD's heap.
    """

    def __init__(
        self, interpreter, script, arguments, board_folder, on_event=None, heap=BOARD_HEAP
    ):
        super().__init__("%s in %s" % (script, interpreter.name), on_event)
        self._is_closed = False
        self._folder = tempfile.TemporaryDirectory(prefix="mqttpipe-scenario-")
        command = list(interpreter.command)
        environment = dict(os.environ)
        if board_folder:
            command += ["-X", "heapsize=" + heap]
            client_folder = board_folder
        else:
            client_folder = ROOT / "micropython"
        environment["MICROPYPATH"] = "%s:.frozen" % client_folder
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT / "micropython"), str(ROOT / "cpython_shim")]
        )
        environment["PYTHONUNBUFFERED"] = "1"
        # On the ESP32's sockets, 127.0.0.1 would be the board's own (tests/esp32_sockets/).
        environment["HOSTNET_LOOPBACK"] = "host"
        command.append(str(SCENARIOS / script))
        for number, argument in enumerate(arguments):
            command.append(self._to_text(argument, "argument-%d" % number))
        HEARTBEAT.__enter__()  # until close()
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.pid = self.process.pid
        HEARTBEAT.watch(self.pid)
        self._thread = threading.Thread(target=self._read, name=script, daemon=True)
        self._thread.start()

    # As read_argument() of control.py understands it.
    def _to_text(self, argument, file_name):
        text = argument if isinstance(argument, str) else json.dumps(argument)
        if len(text.encode()) <= ARGUMENT_BYTES_MAX:
            return text
        file = pathlib.Path(self._folder.name) / file_name
        file.write_text(text)
        return "@%s" % file

    def _read(self):
        for line in self.process.stdout:
            self.take(line.decode(errors="replace").rstrip("\n"))
        self.end()

    def story(self):
        status = self.process.poll()
        state = "runs" if status is None else "ended with status %d" % status
        return "%s; its last lines:\n%s" % (state, "\n".join(list(self._lines)[-SHOWN:]))

    def tell(self, *order):
        """Give an order."""
        self.process.stdin.write(json.dumps(order, ensure_ascii=False).encode() + b"\n")
        self.process.stdin.flush()

    def finish(self):
        """End it in good order; returns the client's stats."""
        self.tell("quit")
        (stats,) = self.next("bye")
        status = self.process.wait(WAIT_S)
        assert status == 0, self.story()
        return stats

    def kill(self):
        """End it as a power cut would: nothing is sent, the connection just ends."""
        self.process.kill()
        self.process.wait(WAIT_S)

    def close(self):
        """End it, and fail if one of its steps was too slow; see scenarios/control.py."""
        if self._is_closed:
            return
        self._is_closed = True
        self.kill()
        self._thread.join(WAIT_S)
        self.process.stdin.close()
        self.process.stdout.close()
        self._folder.cleanup()
        HEARTBEAT.__exit__()
        slow = self.slow_steps()
        HEARTBEAT.forget(self.pid)
        assert not slow, "%s: step() blocked: %s\n%s" % (self, ", ".join(slow), self.story())


class Received:
    """A message as paho received it."""

    def __init__(self, message):
        self.topic_name = message.topic
        self.payload = message.payload
        self.qos = message.qos
        self.retain = message.retain

    def __repr__(self):
        return "%s %r qos %d%s" % (
            self.topic_name,
            self.payload,
            self.qos,
            " retained" if self.retain else "",
        )


class Peer(Waiting):
    """paho-mqtt, connected to a broker: the independent other end.

    Args:
        uri: of the broker. client_id: with one the session is kept between connections.
        on_message: on_message(Received) instead of the list `messages`.
        tls: an ssl.SSLContext, for mqtts://. protocol: 4 or 5.
    """

    def __init__(self, uri, client_id=None, on_message=None, tls=None, protocol=4):
        super().__init__()
        self.messages = collections.deque()
        self._on_message = on_message
        self._acknowledged = set()
        self._is_connected = False
        self._parts = urllib.parse.urlsplit(uri)
        self._paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id or "",
            clean_session=None if protocol == 5 else not client_id,
            protocol=paho.MQTTv5 if protocol == 5 else paho.MQTTv311,
        )
        self._options = {}  # of connect()
        if protocol == 5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0xFFFFFFFF if client_id else 0
            self._options = {"clean_start": not client_id, "properties": properties}
        if tls:
            self._paho.tls_set_context(tls)
        if self._parts.username is not None:
            self._paho.username_pw_set(self._parts.username, self._parts.password)
        self._paho.on_connect = self._connected
        self._paho.on_disconnect = self._disconnected
        self._paho.on_message = self._received
        self._paho.on_subscribe = lambda c, data, mid, *rest: self._answered(mid)
        self._paho.on_publish = lambda c, data, mid, *rest: self._answered(mid)

    def __str__(self):
        return "paho"

    def story(self):
        return "it has %r" % list(self.messages)[-SHOWN:]

    def _connected(self, client, data, flags, reason, properties):
        with self._changed:
            self._is_connected = not reason.is_failure
            self._changed.notify_all()

    def _disconnected(self, client, data, flags, reason, properties):
        with self._changed:
            self._is_connected = False
            self._changed.notify_all()

    def _received(self, client, data, message):
        with self._changed:
            if self._on_message:
                self._on_message(Received(message))
            else:
                self.messages.append(Received(message))
            self._changed.notify_all()

    def _answered(self, mid):
        with self._changed:
            self._acknowledged.add(mid)
            self._changed.notify_all()

    def _wait_for(self, mid, what, timeout_s=WAIT_S):
        self.wait_until(lambda: mid in self._acknowledged, what, timeout_s)
        self._acknowledged.discard(mid)

    def connect(self):
        """Connect and wait for CONNACK. Returns itself."""
        self._paho.connect(self._parts.hostname, self._parts.port or 1883, **self._options)
        self._paho.loop_start()
        self.wait_until(lambda: self._is_connected, "no CONNACK")
        return self

    def disconnect(self):
        servers.end_paho(self._paho)

    def subscribe(self, *topic_filters, qos=2):
        """Subscribe, and wait for SUBACK."""
        how = SubscribeOptions(qos) if self._options else qos
        _, mid = self._paho.subscribe([(topic_filter, how) for topic_filter in topic_filters])
        self._wait_for(mid, "no SUBACK")

    def publish(self, topic_name, payload, qos=1, retain=False):
        """Publish, and wait until the broker has acknowledged it."""
        mid = self._paho.publish(topic_name, payload, qos, retain).mid
        self._wait_for(mid, "no acknowledgement")

    def publish_all(self, messages, timeout_s=WAIT_S):
        """Publish (topic_name, payload, qos) tuples, and wait until the broker has all."""
        mids = [self._paho.publish(*message).mid for message in messages]
        for mid in mids:
            self._wait_for(mid, "no acknowledgement", timeout_s)

    def next_message(self, timeout_s=WAIT_S):
        """Return the next message."""
        self.wait_until(lambda: self.messages, "no message", timeout_s)
        return self.messages.popleft()

    def make_round_trip(self, topic_name):
        """Have the broker pass a message to ourselves; returns what came before it.

        Twice, because what other connections have sent before is only sure to be dealt with
        when the broker has looked at its connections once more.
        """
        before = []
        for mark in (b"mark 1", b"mark 2"):
            self.publish(topic_name, mark)
            while True:
                message = self.next_message()
                if message.payload == mark and message.topic_name == topic_name:
                    break
                before.append(message)
        return before


def check_both_ways(client, peer, topic):
    """paho publishes, the client receives; the client publishes, paho receives."""
    client.tell("subscribe", topic + "/in", 1)
    client.next("subscribed")
    peer.subscribe(topic + "/out")
    peer.publish(topic + "/in", b"there?")
    assert client.next("message")[:2] == [topic + "/in", b"there?".hex()]
    client.tell("publish", topic + "/out", b"here".hex(), 1, False)
    assert peer.next_message().payload == b"here"
