"""The two ends of a test with a real broker: our client in a process, and paho-mqtt in a thread.

Both keep what happened in lists that the test waits on; every wait has an end, and says what came
instead when it ends.
"""

import collections
import json
import os
import pathlib
import subprocess
import threading
import time
import urllib.parse

import paho.mqtt.client as paho

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCENARIOS = HERE / "scenarios"

BOARD = "MicroPython 32-bit"  # has a board's width, and a board's heap
BOARD_HEAP = "96k"
INTERPRETERS = ["CPython", "MicroPython 64-bit", BOARD]

WAIT_S = 10  # how long to wait for what takes milliseconds on an idle machine
DEADLINE_S = 60  # of a scenario: it ends by itself if we should forget it
SHOWN = 25  # lines at the end of a log

# Where the order of messages is looked at, mosquitto must not queue them for want of room in its
# window of 20: 2.0.11 lets a new message take a place before the queue's first (seen on the wire
# to paho). And with a window of 1 it never sends some of the queue to a client whose connection
# breaks again and again.
NO_WINDOW = "max_inflight_messages 0"


def tail(text, count=SHOWN):
    """Return the last lines of a text."""
    return "\n".join(text.splitlines()[-count:])


def at_address(uri, host, port):
    """Return the URI with another host and port, and the same user and password."""
    secret, at, _ = urllib.parse.urlsplit(uri).netloc.rpartition("@")
    return "mqtt://%s%s%s:%d" % (secret, at, host, port)


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


class Scenario(Waiting):
    """A script of scenarios/ that runs in an interpreter.

    Args:
        interpreter: of conftest.py. script: file name. arguments: str or what JSON can say.
        board_folder: where the compiled client for BOARD lies.
        on_event: on_event(event) takes part of the events away: those for which it is true.
    """

    def __init__(self, interpreter, script, arguments, board_folder, on_event=None):
        super().__init__()
        self.name = "%s in %s" % (script, interpreter.name)
        self._queues = collections.defaultdict(collections.deque)
        self._lines = collections.deque(maxlen=200)
        self._on_event = on_event
        self._is_over = False
        command = list(interpreter.command)
        environment = dict(os.environ)
        if interpreter.name == BOARD:
            command += ["-X", "heapsize=" + BOARD_HEAP]
            client_folder = board_folder
        else:
            client_folder = ROOT / "micropython"
        environment["MICROPYPATH"] = "%s:.frozen" % client_folder
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT / "micropython"), str(ROOT / "cpython_shim")]
        )
        environment["PYTHONUNBUFFERED"] = "1"
        command.append(str(SCENARIOS / script))
        for argument in arguments:
            command.append(argument if isinstance(argument, str) else json.dumps(argument))
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._thread = threading.Thread(target=self._read, name=script, daemon=True)
        self._thread.start()

    def __str__(self):
        return self.name

    def _read(self):
        for line in self.process.stdout:
            line = line.decode(errors="replace").rstrip("\n")
            with self._changed:
                try:
                    event = json.loads(line)
                    if not (self._on_event and self._on_event(event)):
                        self._queues[event[0]].append(event[1:])
                        self._lines.append(line)
                except (ValueError, TypeError, IndexError, KeyError):
                    self._lines.append(line)  # a traceback
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def is_over(self):
        return self._is_over

    def story(self):
        status = self.process.poll()
        state = "runs" if status is None else "ended with status %d" % status
        return "%s; its last lines:\n%s" % (state, "\n".join(list(self._lines)[-SHOWN:]))

    def tell(self, *order):
        """Give an order."""
        self.process.stdin.write(json.dumps(order, ensure_ascii=False).encode() + b"\n")
        self.process.stdin.flush()

    def next(self, name, timeout_s=WAIT_S):
        """Return the arguments of the next event of this name, in the order they came."""
        queue = self._queues[name]
        self.wait_until(lambda: queue, "no event %r" % name, timeout_s)
        return queue.popleft()

    def count(self, name):
        """Return how many events of this name have come and were not asked for."""
        return len(self._queues[name])

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
        self.kill()
        self._thread.join(WAIT_S)
        self.process.stdin.close()
        self.process.stdout.close()


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
    """

    def __init__(self, uri, client_id=None, on_message=None):
        super().__init__()
        self.messages = collections.deque()
        self._on_message = on_message
        self._acknowledged = set()
        self._is_connected = False
        self._parts = urllib.parse.urlsplit(uri)
        self._paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id or "",
            clean_session=not client_id,
        )
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
        self._paho.connect(self._parts.hostname, self._parts.port or 1883)
        self._paho.loop_start()
        self.wait_until(lambda: self._is_connected, "no CONNACK")
        return self

    def disconnect(self):
        self._paho.disconnect()
        self._paho.loop_stop()

    def subscribe(self, *topic_filters, qos=2):
        """Subscribe, and wait for SUBACK."""
        _, mid = self._paho.subscribe([(topic_filter, qos) for topic_filter in topic_filters])
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
