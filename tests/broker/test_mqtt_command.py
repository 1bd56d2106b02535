"""tools/mqtt.py beside mosquitto_pub and mosquitto_sub: same options, same output, same status.

In each comparison both subscribers listen at once, and both publishers publish the same: so every
message goes each of the four ways. What is compared is stdout, byte by byte, and the exit status;
the words on stderr are our own.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import ends
import pytest

import servers
import setup_env
from proxy import Cut, UP
from terminal import Terminal

MQTT = str(pathlib.Path(__file__).resolve().parents[2] / "tools" / "mqtt.py")
OURS, THEIRS = "mqtt.py", "mosquitto"
BOTH = (OURS, THEIRS)
TIMEOUT_S = 20
FIELD_SEPARATOR = "|"


@pytest.fixture(scope="session")
def mosquitto_clients():
    """{"pub": path, "sub": path} of the real ones."""
    try:
        return {
            name: setup_env.ensure_debian_package("mosquitto_" + name, "mosquitto-clients")
            for name in ("pub", "sub")
        }
    except setup_env.SetupError as error:
        pytest.fail("no mosquitto_pub and mosquitto_sub: %s" % error, pytrace=False)


@pytest.fixture(scope="module")
def loud_broker(broker):
    """A broker whose log tells of each packet, so that nobody need guess when one has come."""
    try:
        another = broker.another("log_type all")
    except servers.NotOurs as error:
        pytest.skip("needs a broker with settings of its own: %s" % error)
    with another:
        yield another


class Run:
    """A client's process."""

    def __init__(self, command, environment=None, stdin=subprocess.DEVNULL):
        self.process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ, **(environment or {})),
        )

    def finish(self, given=None):
        """Wait for its end; return (status, stdout, stderr)."""
        try:
            out, err = self.process.communicate(given, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError("did not end: %r %r" % (out, err)) from None
        return self.process.returncode, out, err

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def launch(mosquitto_clients):
    """launch(whose, "pub" or "sub", broker, *options): a Run; broker: None: no -h and -p."""
    with contextlib.ExitStack() as stack:

        def run(whose, command, broker, *options, **more):
            words = [mosquitto_clients[command]]
            if whose == OURS:
                words = [sys.executable, MQTT, command]
            if broker is not None:
                words += ["-h", broker.host, "-p", str(broker.port)]
            started = Run([*words, *(str(option) for option in options)], **more)
            stack.callback(started.close)
            return started

        yield run


def wait_for_log(broker, text, timeout_s=TIMEOUT_S):
    deadline = time.monotonic() + timeout_s
    while text not in broker.log():
        if time.monotonic() > deadline:
            raise AssertionError("not in the log: %r\n%s" % (text, ends.tail(broker.log(), 40)))
        time.sleep(0.01)


def publish_all(launch, broker, topic, messages):
    """Each publisher publishes the same messages, one process each.

    Args:
        messages: (topic below `topic` or "", options, stdin or None) of each.
    """
    for whose in BOTH:
        for below, options, given in messages:
            name = topic + below
            run = launch(whose, "pub", broker, "-t", name, *options, stdin=subprocess.PIPE)
            status, out, err = run.finish(given)
            assert (status, out) == (0, b""), (whose, options, err)


# The options of the subscriber, the messages, and what one publisher's part of the output is; "T"
# stands for the topic.
TEXT = [("", ["-m", "on"], None)]
SEVERAL = [
    ("/a", ["-m", "one"], None),
    ("/b", ["-m", "two", "-q", "1"], None),
    ("/b/c", ["-m", "three", "-q", "2"], None),
]
BINARY = [("", ["-s"], b"\x00\xff \x1b[2J\r\n\xc3\xa9 \\")]
HEX = b"00ff201b5b324a0d0ac3a9205c"
CASES = {
    "payload": ([], TEXT, b"on\n"),
    "verbose": (["-v"], TEXT, b"T on\n"),
    "two filters": (["-t", "T/+"], SEVERAL, b"one\ntwo\n"),
    "wildcard, QoS 2": (["-t", "T/#", "-q", "2", "-v"], SEVERAL, b"T/a one\nT/b two\nT/b/c three\n"),
    "filtered out": (["-t", "T/#", "-T", "T/b/#", "-v"], SEVERAL, b"T/a one\n"),
    "empty": ([], [("", ["-n"], None)], b""),
    "empty, verbose": (["-v"], [("", ["-n"], None)], b"T (null)\n"),
    "no end of line": (["-N"], TEXT + TEXT, b"onon"),
    "no end of line, empty, verbose": (["-N", "-v"], [("", ["-n"], None)], b""),
    "binary": ([], BINARY, BINARY[0][2] + b"\n"),
    "empty text": ([], [("", ["-m", ""], None)], b""),
    "a text like an option": ([], [("", ["-m", "-t"], None)], b"-t\n"),
    "lines": ([], [("", ["-l"], b"one\n\nthree\r\nfour")], b"one\nthree\r\nfour\n"),
    "lines, verbose": (["-v"], [("", ["-l", "-q", "1"], b"a\n\nb\n")], b"T a\nT (null)\nT b\n"),
    "no lines": ([], [("", ["-l"], b"")], b""),
    "all of stdin": ([], [("", ["-s"], b"one\ntwo\n")], b"one\ntwo\n\n"),
    "repeated": ([], [("", ["-m", "x", "--repeat", "3", "-q", "2"], None)], b"x\nx\nx\n"),
    "utf-8": (["-v", "-t", "T/é"], [("/é", ["-m", "日本"], None)], "T/é 日本\n".encode()),
    "long": ([], [("", ["-s", "-q", "1"], b"x" * 100_000)], b"x" * 100_000 + b"\n"),
    "format": (
        ["-t", "T/#", "-q", "1", "-F", "%t|%p|%l|%q|%r|%x|%X|%%|@@|\\t\\e\\\\\\0\\n"],
        SEVERAL[1:2],
        b"T/b|two|3|1|0|74776f|74776F|%|@|\t\x1b\\\0\n\n",
    ),
    "format of binary": (["-F", "%x %X"], BINARY, HEX + b" " + HEX.upper() + b"\n"),
    "widths": (
        ["-F", "%6p|%-6p|%06l|%-5l|%6x|%3l|%.3t|%5.2t|%-5.2t|%2p|%03x"],
        [("", ["-m", "abc"], None)],
        None,
    ),
    "retained is not set for who was there": (["-F", "%r %p"], [("", ["-r", "-n"], None)], b"0 \n"),
}


def fill_in(case, topic):
    options, messages, expected = case
    options = [option.replace("T", topic) if "T" in option else option for option in options]
    if expected is not None:
        expected = re.sub(rb"\bT\b", topic.encode(), expected)
    return options, messages, expected


@pytest.mark.parametrize("name", CASES)
def test_both_subscribers_print_the_same_of_both_publishers(name, loud_broker, launch, topic):
    options, messages, expected = fill_in(CASES[name], topic)
    # A mark ends it, as not every message is printed.
    options = ["-t", topic, "-t", topic + "end", *options]
    subscribers = {}
    for whose in BOTH:
        client_id = "%s %s" % (topic, whose)
        subscribers[whose] = launch(whose, "sub", loud_broker, "-i", client_id, "-W", TIMEOUT_S, *options)
        wait_for_log(loud_broker, "Sending SUBACK to %s" % client_id)
    publish_all(launch, loud_broker, topic, messages)
    publish_all(launch, loud_broker, topic, [("end", ["-m", "<end>"], None)])
    printed = {}
    for whose, run in subscribers.items():
        for _ in range(2):
            # Terminated when both marks have come: as a person would, with Ctrl-C.
            pass
        printed[whose] = read_until(run, b"<end>", 2)
        run.process.send_signal(signal.SIGINT)
        status, rest, err = run.finish()
        assert (status, rest) == (0, b""), (whose, err)
    assert printed[OURS] == printed[THEIRS]
    if expected is not None:
        assert printed[OURS].startswith(expected * 2), printed[OURS]


def read_until(run, mark, count):
    """Return what a process prints, up to the line with the last of `count` marks."""
    out = b""
    timer = threading.Timer(TIMEOUT_S, run.process.kill)
    timer.start()
    try:
        while out.count(mark) < count or out.endswith(mark) and not out.endswith(mark * count):
            data = os.read(run.process.stdout.fileno(), 65536)
            assert data, "it has ended after %r" % out
            out += data
    finally:
        timer.cancel()
    return out
