"""tools/mqtt.py beside mosquitto_pub and mosquitto_sub: same options, same output, same status.

In each comparison both subscribers listen at once, and both publishers publish the same: so every
message goes each of the four ways. What is compared is stdout, byte by byte, and the exit status;
the words on stderr are our own.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import resource
import select
import shlex
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import types
import urllib.parse

import ends
import pytest

import servers
import setup_env
from proxy import UP, Cut
from terminal import Terminal

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools" / "mqtt"))

import mqtt_options  # noqa: E402
import mqtt_traffic  # noqa: E402

MQTT = str(pathlib.Path(__file__).resolve().parents[2] / "tools" / "mqtt.py")
OURS, THEIRS = "mqtt.py", "mosquitto"
BOTH = (OURS, THEIRS)
TIMEOUT_S = 60
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


# Options of the subscriber, messages, how many of these count for -C, and what is printed of one
# publisher's part. "TOPIC" stands for the topic.
TEXT = [("", ["-m", "on"], None)]
SEVERAL = [
    ("/a", ["-m", "one"], None),
    ("/b", ["-m", "two", "-q", "1"], None),
    ("/b/c", ["-m", "three", "-q", "2"], None),
]
BINARY = [("", ["-s"], b"\x00\xff \x1b[2J\r\n\xc3\xa9 \\")]
HEX = b"00ff201b5b324a0d0ac3a9205c"
EMPTY = [("", ["-n"], None)]
ABC = [("", ["-m", "abc"], None)]
CASES = {
    "payload": ([], TEXT, 1, b"on\n"),
    "verbose": (["-v"], TEXT, 1, b"TOPIC on\n"),
    "two filters": (["-t", "TOPIC/+"], SEVERAL, 2, b"one\ntwo\n"),
    "wildcard, QoS 2": (
        ["-t", "TOPIC/#", "-q", "2", "-v"],
        SEVERAL[1:],
        2,
        b"TOPIC/b two\nTOPIC/b/c three\n",
    ),
    "filtered out": (["-t", "TOPIC/#", "-T", "TOPIC/b/#", "-v"], SEVERAL, 1, b"TOPIC/a one\n"),
    "empty": ([], EMPTY, 1, b""),
    "empty, verbose": (["-v"], EMPTY, 1, b"TOPIC (null)\n"),
    "no end of line": (["-N"], TEXT + TEXT, 2, b"onon"),
    "no end of line, empty, verbose": (["-N", "-v"], EMPTY, 1, b""),
    "binary": ([], BINARY, 1, BINARY[0][2] + b"\n"),
    "empty text": (["-v"], [("", ["-m", ""], None)], 1, b"TOPIC (null)\n"),
    "a text like an option": ([], [("", ["-m", "-t"], None)], 1, b"-t\n"),
    "lines": ([], [("", ["-l"], b"one\n\nthree\r\nfour")], 4, b"one\nthree\r\nfour\n"),
    "lines, QoS 1": (["-v"], [("", ["-l", "-q", "1"], b"a\n\nb\n")], 3, None),
    "all of stdin": ([], [("", ["-s"], b"one\ntwo\n")], 1, b"one\ntwo\n\n"),
    "repeated": ([], [("", ["-m", "x", "--repeat", "3", "-q", "2"], None)], 3, b"x\nx\nx\n"),
    "utf-8": (["-v"], [("", ["-m", "\u65e5\u672c"], None)], 1, "TOPIC \u65e5\u672c\n".encode()),
    "long": ([], [("", ["-s", "-q", "1"], b"x" * 100_000)], 1, b"x" * 100_000 + b"\n"),
    "format": (
        ["-t", "TOPIC/#", "-F", "%t|%p|%l|%q|%r|%m|%x|%X|%%|@@|\\t\\e\\\\\\0\\n\\a\\v\\r"],
        SEVERAL[1:2],
        1,
        b"TOPIC/b|two|3|0|0|0|74776f|74776F|%|@|\t\x1b\\\0\n\a\v\r\n",
    ),
    "format of binary": (["-F", "%x %X"], BINARY, 1, HEX + b" " + HEX.upper() + b"\n"),
    "widths of a payload": (["-F", "%6p|%-6p|%6x|%-9X|%2p|%5x|%.1p"], ABC, 1, None),
    "widths of a topic": (["-F", "%.3t|%5.2t|%-5.2t|%99t|%-99t|"], ABC, 1, None),
    "widths of a number": (["-F", "%06l|%-5l|%3l|%5m|%5q"], ABC, 1, None),
    "not retained for who was there": (["-F", "%r"], [("", ["-r", "-m", ""], None)], 1, b"0\n"),
}


def fill_in(case, topic):
    options, messages, count, expected = case
    options = [option.replace("TOPIC", topic) for option in options]
    if expected is not None:
        expected = expected.replace(b"TOPIC", topic.encode())
    return options, messages, count, expected


@pytest.fixture
def subscribe_both(launch, loud_broker, topic):
    """subscribe_both(*options): {OURS: Run, THEIRS: Run}, both subscribed."""

    def subscribe(*options):
        runs = {}
        for whose in BOTH:
            client_id = "%s-%s" % (topic.replace("/", "-"), whose)
            words = ["-i", client_id, "-W", TIMEOUT_S, "-t", topic, *options]
            runs[whose] = launch(whose, "sub", loud_broker, *words)
            wait_for_log(loud_broker, "Sending SUBACK to %s" % client_id)
        return runs

    return subscribe


def finish_both(runs):
    """Return what the two have printed; both must have ended well."""
    printed = {}
    for whose, run in runs.items():
        status, printed[whose], err = run.finish()
        assert status == 0, (whose, status, printed[whose], err)
    return printed


@pytest.mark.parametrize("name", CASES)
def test_both_subscribers_print_the_same_of_both_publishers(
    name, loud_broker, launch, subscribe_both, topic
):
    options, messages, count, expected = fill_in(CASES[name], topic)
    runs = subscribe_both("-C", 2 * count, *options)
    publish_all(launch, loud_broker, topic, messages)
    printed = finish_both(runs)
    assert printed[OURS] == printed[THEIRS]
    if expected is not None:
        assert printed[OURS] == expected * 2


def without_time(printed):
    """The lines of JSON as dicts; mosquitto 2.0.11 writes its time stamp wrong."""
    lines = [json.loads(line) for line in printed.splitlines()]
    for line in lines:
        stamp = line.pop("tst")
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", stamp), stamp
    return lines


@pytest.mark.parametrize("form", ("%j", "%J"))
def test_both_print_the_same_json(form, loud_broker, launch, subscribe_both, topic):
    texts = ['{"a": 1.50, "b": [1, "\u00e9"]}', "21.5", '"text"', "null"]
    if form == "%j":
        texts += ['a "quoted" \\ text\t\n', "\x01"]
    runs = subscribe_both("-C", 2 * len(texts) + 2, "-q", "1", "-F", form)
    messages = [("", ["-q", "1", "-m", text], None) for text in texts] + [("", ["-n"], None)]
    publish_all(launch, loud_broker, topic, messages)
    printed = finish_both(runs)
    ours, theirs = without_time(printed[OURS]), without_time(printed[THEIRS])
    assert [json.dumps(line) for line in ours] == [
        json.dumps(line) for line in theirs
    ]  # order, too
    stamp = json.loads(printed[OURS].splitlines()[0])["tst"]
    assert re.fullmatch(r"[-0-9]+T[0-9:.]+[+-]\d{4}", stamp), stamp


def test_both_print_pretty_json_on_the_same_lines(loud_broker, launch, subscribe_both, topic):
    runs = subscribe_both("-C", 2, "-F", "%j", "--pretty")
    publish_all(launch, loud_broker, topic, TEXT)
    printed = {whose: out.splitlines() for whose, out in finish_both(runs).items()}
    assert len(printed[OURS]) == len(printed[THEIRS]) > 10
    for ours, theirs in zip(printed[OURS], printed[THEIRS]):
        assert ours == theirs or b'"tst"' in ours and b'"tst"' in theirs


def test_what_is_no_json_is_told_and_leaves_a_line_as_with_mosquitto(
    loud_broker, launch, subscribe_both, topic
):
    runs = subscribe_both("-C", 2, "-F", "%J")
    publish_all(launch, loud_broker, topic, TEXT)
    ended = {whose: run.finish() for whose, run in runs.items()}
    assert ended[OURS] == ended[THEIRS]
    assert b"not valid JSON" in ended[OURS][2]


def test_times_are_those_of_the_clock(loud_broker, launch, subscribe_both, topic):
    runs = subscribe_both("-C", 2, "-F", "%U|@s|@N|%I|@Y-@m-@d")
    before = time.time()
    publish_all(launch, loud_broker, topic, TEXT)
    printed = finish_both(runs)
    for out in printed.values():
        for line in out.decode().splitlines():
            stamp, seconds, nanoseconds, iso, day = line.split("|")
            assert before - 1 <= float(stamp) <= time.time() + 1
            assert abs(float(stamp) - int(seconds)) < 2 and len(nanoseconds) == 9
            assert iso.startswith(day + "T")
    shapes = [re.sub(rb"\d", b"9", out) for out in printed.values()]
    assert shapes[0] == shapes[1]


# ---------------------------------------------------------------------------
# Retained messages, sessions, wills
# ---------------------------------------------------------------------------


def test_both_take_retained_messages_alike(loud_broker, launch, topic):
    ways = ([], ["-R"], ["--retained-only"], ["-F", "%r %p"], ["-v"])
    for publisher in BOTH:
        launch(publisher, "pub", loud_broker, "-t", topic, "-r", "-m", "old").finish()
        runs = {
            whose: [launch(whose, "sub", loud_broker, "-t", topic, "-W", 4, *way) for way in ways]
            for whose in BOTH
        }
        seen = {whose: [run.finish()[:2] for run in runs[whose]] for whose in BOTH}
        assert seen[OURS] == seen[THEIRS], publisher
        printed = [b"old\n", b"", b"old\n", b"1 old\n", topic.encode() + b" old\n"]
        assert seen[OURS] == [(27, each) for each in printed], publisher
        launch(publisher, "pub", loud_broker, "-t", topic, "-r", "-n").finish()
        run = launch(OURS, "sub", loud_broker, "-t", topic, "-W", 0.2, "-v")
        assert run.finish()[:2] == (27, b""), "the empty message removes it"


def test_retained_only_ends_with_the_first_new_message(loud_broker, launch, topic):
    for whose in BOTH:
        launch(OURS, "pub", loud_broker, "-t", topic, "-r", "-m", "old").finish()
        words = ["-t", topic, "-W", TIMEOUT_S, "--retained-only", "-i", topic.replace("/", "-")]
        run = launch(whose, "sub", loud_broker, *words)
        assert run.process.stdout.readline() == b"old\n"
        launch(OURS, "pub", loud_broker, "-t", topic, "-m", "new").finish()
        assert run.finish()[:2] == (0, b""), whose
    launch(OURS, "pub", loud_broker, "-t", topic, "-r", "-n").finish()


def test_remove_retained_removes_them(loud_broker, launch, topic):
    for whose in BOTH:
        for name in ("/a", "/b"):
            launch(OURS, "pub", loud_broker, "-t", topic + name, "-r", "-m", name).finish()
        # (With -C in the place of -W mosquitto_sub 2.0.11 does not end.)
        options = ["-t", topic + "/#", "--remove-retained", "-W", 1, "-T", topic + "/none"]
        status, out, err = launch(whose, "sub", loud_broker, *options).finish()
        assert (status, sorted(out.split())) == (27, [b"/a", b"/b"]), (whose, err)
        status, out, _ = launch(OURS, "sub", loud_broker, "-t", topic + "/#", "-W", 0.3).finish()
        assert (status, out) == (27, b""), whose


def test_a_session_keeps_what_comes_while_nobody_is_there(loud_broker, launch, topic):
    """-c, -i, -E: subscribed, gone, and back."""
    ids = {whose: "%s-%s" % (topic.replace("/", "-"), whose) for whose in BOTH}
    for whose in BOTH:
        options = ["-i", ids[whose], "-c", "-q", "1", "-t", topic]
        assert launch(whose, "sub", loud_broker, *options, "-E").finish()[:2] == (0, b"")
    publish_all(launch, loud_broker, topic, [("", ["-q", "1", "-m", "waits"], None)])
    printed = {}
    for whose in BOTH:
        options = ["-i", ids[whose], "-c", "-q", "1", "-t", topic, "-C", 2]
        printed[whose] = launch(whose, "sub", loud_broker, *options).finish()[:2]
        assert (
            launch(whose, "sub", loud_broker, "-i", ids[whose], "-t", topic, "-E").finish()[0] == 0
        )
    assert printed[OURS] == printed[THEIRS] == (0, b"waits\nwaits\n")


def offline_session(launch, broker, topic, whose, messages):
    """Return the options of a session for which these wait at the server, at QoS 1."""
    client_id = "%s-%s" % (topic.replace("/", "-"), whose)
    options = ["-i", client_id, "-c", "-q", "1", "-t", topic]
    assert launch(whose, "sub", broker, *options, "-E").finish()[:2] == (0, b"")
    lines = b"".join(b"%d\n" % number for number in range(messages))
    run = launch(THEIRS, "pub", broker, "-t", topic, "-q", "1", "-l", stdin=subprocess.PIPE)
    assert run.finish(lines)[0] == 0
    return options


def forget_session(launch, broker, options):
    erase = [each for each in options if each != "-c"]
    assert launch(OURS, "sub", broker, *erase, "-E").finish()[0] == 0


@pytest.mark.parametrize(
    "words", (["-U", "TOPIC"], ["-U", "TOPIC", "-t", "TOPIC/b", "-U", "none"])
)
def test_what_is_subscribed_and_unsubscribed_ends_with_e(words, loud_broker, launch, topic):
    """It never ended. And the session has what is left."""
    words = [word.replace("TOPIC", topic) for word in words]
    for whose in BOTH:
        who = ["-i", "%s-%s" % (topic.replace("/", "-"), whose), "-c", "-q", "1"]
        run = launch(whose, "sub", loud_broker, *who, "-t", topic, *words, "-E")
        assert run.finish()[:2] == (0, b""), whose
        for name in (topic, topic + "/b"):
            launch(THEIRS, "pub", loud_broker, "-t", name, "-q", "1", "-m", name).finish()
        if whose == OURS:  # (mosquitto_sub does not wait for UNSUBACK.)
            run = launch(OURS, "sub", loud_broker, *who, "-t", topic + "/x", "-W", 0.5)
            left = topic.encode() + b"/b\n" if "none" in words else b""
            assert run.finish()[:2] == (27, left)
        forget_session(launch, loud_broker, [*who, "-t", topic])


def test_what_c_does_not_print_stays_with_the_server(loud_broker, launch, topic):
    """Ours acknowledged it, and it was gone: each run but the first found nothing.

    One may come twice: mosquitto, when it finds the connection closed, forgets what it has not
    read, PUBACKs among it.
    """
    for whose in BOTH:
        options = offline_session(launch, loud_broker, topic, whose, 10)
        printed = b""
        for _ in range(4):
            run = launch(whose, "sub", loud_broker, *options, "-C", 1, "-W", TIMEOUT_S)
            select.select([run.process.stdout], [], [], TIMEOUT_S)  # a busy machine starts it late
            printed_s = time.monotonic()
            status, out, _ = run.finish()
            assert status == 0 and out.count(b"\n") == 1, (whose, status, out)
            assert time.monotonic() - printed_s < 4, "it waits for an answer that it won't read"
            printed += out
        printed += launch(whose, "sub", loud_broker, *options, "-W", 1).finish()[1]
        assert sorted(set(printed.split())) == [b"%d" % number for number in range(10)], whose
        forget_session(launch, loud_broker, options)


@pytest.mark.parametrize("how", (signal.SIGTERM, signal.SIGINT, "-W"))
def test_what_is_acknowledged_while_it_ends_is_printed(how, loud_broker, launch, topic):
    messages = 900  # mosquitto keeps 1,000
    options = offline_session(launch, loud_broker, topic, OURS, messages)
    run = launch(OURS, "sub", loud_broker, *options, "-W", 0.5 if how == "-W" else TIMEOUT_S)
    printed = b""
    if how != "-W":
        printed = os.read(run.process.stdout.fileno(), 10)
        run.process.send_signal(how)
    status, out, err = run.finish()
    assert status == (27 if how == "-W" else 0), err
    printed += out
    printed += launch(OURS, "sub", loud_broker, *options, "-W", 3).finish()[1]
    assert sorted(set(map(int, printed.split()))) == list(range(messages))
    forget_session(launch, loud_broker, options)


def test_c_ends_when_it_removes_what_is_retained(loud_broker, launch, topic):
    names = ["%s/%03d" % (topic, number) for number in range(60)]
    peers = [launch(THEIRS, "pub", loud_broker, "-t", each, "-r", "-m", "x") for each in names]
    assert [peer.finish()[0] for peer in peers] == [0] * len(names)
    options = ["-t", topic + "/#", "-q", "1", "--remove-retained", "-W", TIMEOUT_S]
    for count in (50, 10):
        run = launch(OURS, "sub", loud_broker, *options, "-C", count)
        status, out, err = run.finish()
        assert (status, out) == (0, b"x\n" * count), err
    run = launch(OURS, "sub", loud_broker, "-t", topic + "/#", "-W", 0.3)
    assert run.finish()[:2] == (27, b"")


@pytest.mark.parametrize("how", (signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
def test_the_will_is_published_when_it_is_killed_and_not_when_it_is_asked_to_end(
    how, loud_broker, launch, peer_of, topic
):
    peer = peer_of(loud_broker)
    peer.subscribe(topic + "/will")
    will = ["--will-topic", topic + "/will", "--will-payload", "gone", "--will-qos", "1"]
    for whose in BOTH:
        client_id = "%s-%s" % (topic.replace("/", "-"), whose)
        run = launch(whose, "sub", loud_broker, "-i", client_id, "-t", topic, *will)
        wait_for_log(loud_broker, "Sending SUBACK to %s" % client_id)
        run.process.send_signal(how)
        status = run.finish()[0]
        assert status == (-9 if how == signal.SIGKILL else 0), whose
        seen = [
            (message.payload, message.qos) for message in peer.make_round_trip(topic + "/will")
        ]
        assert seen == ([(b"gone", 1)] if how == signal.SIGKILL else []), whose


@pytest.fixture
def peer_of(add_peer):
    return lambda broker: add_peer(broker.uri)


# ---------------------------------------------------------------------------
# Exit status, errors
# ---------------------------------------------------------------------------

PUB = ["-t", "t", "-m", "x"]
WRONG = {
    "no topic": ("pub", ["-m", "x"]),
    "no message": ("pub", ["-t", "t"]),
    "two messages": ("pub", [*PUB, "-n"]),
    "a wildcard": ("pub", ["-t", "a/#", "-m", "x"]),
    "a wildcard, for lines": ("pub", ["-t", "a/+", "-l"]),
    "a QoS there is not": ("pub", [*PUB, "-q", "3"]),
    "no number": ("pub", [*PUB, "-k", "x"]),
    "a port there is not": ("pub", ["-t", "t", "-m", "x", "-p", "70000"]),
    "an option there is not": ("pub", [*PUB, "--nonsense"]),
    "an option of sub": ("pub", [*PUB, "-C", "1"]),
    "an option without its value": ("pub", ["-t", "t", "-m"]),
    "a file there is not": ("pub", ["-t", "t", "-f", "/nonexistent/file"]),
    "no scheme of ours": ("pub", ["-L", "http://localhost/t", "-m", "x"]),
    "a will without a topic": ("pub", [*PUB, "--will-payload", "x"]),
    "a session without an identifier": ("pub", [*PUB, "-c"]),
    "a session of a process's number": ("pub", [*PUB, "-c", "-I", "a"]),
    "a session for ever, and nobody's": ("pub", [*PUB, "-V", "5", "-x", "-1"]),
    "a session for less than ever": ("pub", [*PUB, "-V", "5", "-x", "-2"]),
    "two identifiers": ("pub", [*PUB, "-i", "a", "-I", "b"]),
    "repeat 0": ("pub", [*PUB, "--repeat", "0"]),
    "no filter": ("sub", []),
    "nothing but a filter to unsubscribe from": ("sub", ["-U", "t", "-E"]),
    "a wrong filter": ("sub", ["-t", "a/#/b"]),
    "count 0": ("sub", ["-t", "t", "-C", "0"]),
    "time 0": ("sub", ["-t", "t", "-W", "0"]),
    "a wrong format": ("sub", ["-t", "t", "-F", "%Z"]),
    "a wrong escape": ("sub", ["-t", "t", "-F", "\\q"]),
    "half a format": ("sub", ["-t", "t", "-F", "abc%"]),
    "neither old nor new": ("sub", ["-t", "t", "-R", "--retained-only"]),
    "a certificate there is not": ("sub", ["-t", "t", "--cafile", "/nonexistent/ca"]),
    "a certificate without its key": ("sub", ["-t", "t", "--cert", "/nonexistent/c"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_end_with_status_1_and_a_reason(name, broker, launch):
    command, options = WRONG[name]
    for whose in BOTH:
        status, out, err = launch(whose, command, broker, *options).finish()
        assert status == 1 and err.strip(), (whose, status, out, err)
        if whose == OURS:
            assert out == b"" and err.startswith(b"Error: ") and b"Traceback" not in err, err


def test_a_server_that_is_not_there_is_status_1(broker, launch):
    class Nobody:
        host = "127.0.0.1"
        port = servers.free_port()

    for whose in BOTH:
        for command, options in (("pub", PUB), ("sub", ["-t", "t"])):
            status, out, err = launch(whose, command, Nobody, *options).finish()
            assert (status, out) == (1, b""), (whose, command)
            assert b"Connection refused" in err


def test_a_name_that_is_not_known_is_status_1(broker, launch):
    class Unknown:
        host = "no-such-host.invalid"
        port = 1883

    for whose in BOTH:
        status, out, err = launch(whose, "pub", Unknown, *PUB).finish()
        assert (status, out) == (1, b"") and err, whose


def test_the_time_of_w_is_status_27(broker, launch, topic):
    for whose in BOTH:
        status, out, err = launch(whose, "sub", broker, "-t", topic, "-W", "1").finish()
        assert (status, out, err) == (27, b"", b"Timed out\n"), whose


def test_a_server_that_says_nothing_is_status_27(add_proxy, broker, launch):
    """mosquitto_pub would wait for ever."""
    proxy = add_proxy()
    proxy.stall()
    proxy.host = "127.0.0.1"
    status, _, err = launch(OURS, "pub", proxy, *PUB, "-W", "1").finish()
    assert status == 27 and err == b"Timed out\n"


@pytest.fixture
def silent_server():
    """A server that answers CONNECT with CONNACK, and nothing else; `.received` is what it got."""
    with server_that_says(b"\x20\x02\0\0") as server:
        yield server


@contextlib.contextmanager
def server_that_says(connack):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(TIMEOUT_S)
                server.received += connection.recv(1000)
                connection.sendall(connack)
                while data := connection.recv(1000):
                    server.received += data

        server = types.SimpleNamespace(received=bytearray(), host="127.0.0.1")
        server.port = listener.getsockname()[1]
        server.thread = threading.Thread(target=serve, daemon=True)
        server.thread.start()
        yield server


@pytest.mark.parametrize("how", ("-W", signal.SIGTERM))
def test_it_says_goodbye_to_a_server_that_answers_nothing(how, silent_server, launch):
    """It waited 5 s for SUBACK, and left without DISCONNECT: the server published the will."""
    words = ["-t", "t", "-i", "me", "--will-topic", "w", "-W", 1 if how == "-W" else TIMEOUT_S]
    run = launch(OURS, "sub", silent_server, *words)
    deadline_s = time.monotonic() + TIMEOUT_S
    while b"\x82" not in silent_server.received:  # SUBSCRIBE
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    subscribed_s = time.monotonic()
    if how != "-W":
        run.process.send_signal(how)
    status = run.finish()[0]
    assert status == (27 if how == "-W" else 0) and time.monotonic() - subscribed_s < 4
    silent_server.thread.join(TIMEOUT_S)
    assert silent_server.received.endswith(b"\xe0\0")


@pytest.mark.parametrize("more", ((), ("-E",)), ids=("waits", "-E"))
def test_filters_that_the_server_can_not_do_are_denied(more, launch):
    """The client tells it, and asks for none: no SUBACK would ever come."""
    with server_that_says(b"\x20\x05\0\0\x02\x28\0") as server:
        words = ["-V", "5", "-t", "a/#", "-t", "+/b", "-W", TIMEOUT_S // 2, *more]
        status, out, err = launch(OURS, "sub", server, *words).finish()
        server.thread.join(TIMEOUT_S)
    assert (status, out) == (1, b""), err
    assert err.count(b"wildcard subscriptions not supported") == 2, err
    assert err.endswith(b"All subscription requests were denied.\n"), err
    assert b"\x82" not in server.received


def test_quiet_says_nothing(broker, launch, topic):
    for whose in BOTH:
        run = launch(whose, "sub", broker, "-t", topic, "-W", "1", "--quiet")
        assert run.finish() == (27, b"", b""), whose


def test_the_url_says_it_all(broker, launch, topic):
    url = "%s/%s" % (broker.uri, topic)
    for whose in BOTH:
        assert launch(whose, "pub", None, "-L", url, "-r", "-m", whose).finish() == (0, b"", b"")
        for subscriber in BOTH:
            status, out, err = launch(subscriber, "sub", None, "-L", url, "-C", 1).finish()
            assert (status, out) == (0, whose.encode() + b"\n"), err
    launch(OURS, "pub", None, "-L", url, "-r", "-n").finish()


def test_a_port_and_a_host_go_before_those_of_the_url(broker, launch, topic):
    url = "mqtt://no-such-host.invalid:1/" + topic
    for whose in BOTH:
        words = ["-L", url, "-p", broker.port, "-h", broker.host, "-r", "-m", whose]
        assert launch(whose, "pub", None, *words).finish() == (0, b"", b"")
        words = ["-L", "mqtt://%s/%s" % (broker.host, topic), "-p", broker.port, "-C", 1]
        assert launch(whose, "sub", None, *words).finish()[:2] == (0, whose.encode() + b"\n")
    launch(OURS, "pub", broker, "-t", topic, "-r", "-n").finish()


def test_the_commands_of_the_user_guide_do_what_they_say(broker):
    guide = (ends.ROOT / "docs" / "user-guide.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    python3 (tools/mqtt\.py (?:pub|sub) .+)$", guide, re.M)
    assert len(lines) == 2
    printed = []
    for line in lines:
        words = [sys.executable, *shlex.split(line), "-p", str(broker.port)]
        words[words.index("localhost")] = broker.host
        ran = subprocess.run(words, cwd=ends.ROOT, stdout=subprocess.PIPE, timeout=TIMEOUT_S)
        assert ran.returncode == 0, line
        printed.append(ran.stdout)
    assert printed == [b"", b"lamp/hall on\n"]
    erase = ["pub", "-h", broker.host, "-p", str(broker.port), "-t", "lamp/hall", "-r", "-n"]
    subprocess.run([sys.executable, MQTT, *erase], check=True, timeout=TIMEOUT_S)


def test_who_closes_our_output_ends_us_with_status_0(loud_broker, launch, topic):
    """As with `| head -1`."""
    for whose in BOTH:
        client_id = "%s-%s" % (topic.replace("/", "-"), whose)
        run = launch(whose, "sub", loud_broker, "-t", topic, "-i", client_id, "-W", TIMEOUT_S)
        wait_for_log(loud_broker, "Sending SUBACK to %s" % client_id)
        run.process.stdout.close()
        for _ in range(2):
            launch(THEIRS, "pub", loud_broker, "-t", topic, "-m", "x").finish()
        assert run.process.wait(TIMEOUT_S) == 0, whose
        assert run.process.stderr.read() == b"", whose
        run.process.stderr.close()


@pytest.mark.parametrize("closed", ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"))
def test_streams_that_our_caller_has_closed_are_no_fault(broker, topic, closed):
    def run(command, *options):
        words = [sys.executable, MQTT, command, "-h", broker.host, "-p", str(broker.port)]
        text = shlex.join([*words, "-t", topic, *options]) + " " + closed
        return subprocess.run(["sh", "-c", text], capture_output=True, timeout=TIMEOUT_S)

    if closed.startswith("<&-"):  # nothing to send: refused, as for every empty input
        ended = run("pub", "-s", "-r")
        assert (ended.returncode, ended.stdout) == (1, b""), ended
        first = ended.stderr.partition(b"\n")[0]
        assert first == (b"" if "2>&-" in closed else b"Error: Zero length input."), ended
    for options in (["-l"], ["-m", "kept", "-r", "-q", "1"]):
        if closed.startswith("<&-") or "-m" in options:
            ended = run("pub", *options)
            assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b""), options
    ended = run("sub", "-C", "1")
    assert (ended.returncode, ended.stderr) == (0, b""), ended
    assert ended.stdout == (b"" if " >&-" in " " + closed else b"kept\n")
    run("pub", "-n", "-r")


def test_output_that_can_not_be_written_is_told_in_one_line(broker, launch, topic):
    """As when a disk is full."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    launch(OURS, "pub", broker, "-t", topic, "-m", "x", "-r", "-q", "1").finish()
    words = [sys.executable, MQTT, "sub", "-h", broker.host, "-p", str(broker.port), "-t", topic]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT_S)
    launch(OURS, "pub", broker, "-t", topic, "-n", "-r").finish()
    assert ended.returncode == 1
    assert ended.stderr == b"Error: can't write the output: No space left on device\n"


@pytest.mark.parametrize("buffering", ({}, {"PYTHONUNBUFFERED": "1"}), ids=("", "unbuffered"))
def test_what_is_printed_is_whole_or_is_told(buffering, broker, launch, topic, tmp_path):
    """To a full disk, and to a pipe that does not block: the first part was printed, and that was
    it, with status 0."""
    payload = b"x" * 200_000
    options = ["-t", topic, "-r", "-q", "1"]
    run = launch(OURS, "pub", broker, *options, "-s", stdin=subprocess.PIPE)
    assert run.finish(payload)[0] == 0
    words = [sys.executable, MQTT, "sub", "-h", broker.host, "-p", str(broker.port)]
    how = {
        "args": [*words, "-t", topic, "-C", "1"],
        "stderr": subprocess.PIPE,
        "env": dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **buffering),
    }
    end, fd = os.pipe()
    os.set_blocking(fd, False)
    with subprocess.Popen(stdout=fd, **how) as process:
        os.close(fd)
        with os.fdopen(end, "rb") as stream:
            assert stream.read() == payload + b"\n"
        assert (process.stderr.read(), process.wait(TIMEOUT_S)) == (b"", 0)
    limits = (100_000, 100_000)
    with open(tmp_path / "out", "wb") as file:
        ended = subprocess.run(
            stdout=file,
            timeout=TIMEOUT_S,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
            **how,
        )
    assert ended.returncode == 1
    assert ended.stderr == b"Error: can't write the output: File too large\n"
    launch(OURS, "pub", broker, *options, "-n").finish()


@pytest.mark.parametrize("how", ("-W", signal.SIGINT, signal.SIGTERM))
def test_a_reader_that_has_stopped_does_not_hold_it(how, broker, launch, topic):
    """The write to its pipe blocked, whatever came: only SIGKILL ended it."""
    options = ["-t", topic, "-r", "-q", "1"]
    run = launch(OURS, "pub", broker, *options, "-s", stdin=subprocess.PIPE)
    assert run.finish(b"x" * 200_000)[0] == 0
    run = launch(OURS, "sub", broker, "-t", topic, "-W", 1 if how == "-W" else TIMEOUT_S)
    deadline_s = time.monotonic() + TIMEOUT_S
    while pending_bytes(run.process.stdout) < 65_536:  # it is full
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    if how != "-W":
        run.process.send_signal(how)
    assert run.process.wait(10) == 1
    assert run.process.stderr.read() == b"Error: can't write the output: nobody reads it\n"
    launch(OURS, "pub", broker, *options, "-n").finish()


def pending_bytes(pipe):
    number = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, number)
    return int.from_bytes(number, sys.byteorder)


# ---------------------------------------------------------------------------
# Users, secrets
# ---------------------------------------------------------------------------

SECRET = "s3cret of the tests"


@pytest.fixture(scope="module")
def guarded_broker(broker):
    """A broker that lets in `joe` with SECRET, and nobody else."""
    try:
        program = setup_env.find_program("mosquitto_passwd")
        if not program:
            pytest.skip("needs mosquitto_passwd, which comes with mosquitto")
        users = make_users(program)
        another = broker.another(
            "allow_anonymous false\npassword_file {folder}/users\nlog_type all", {"users": users}
        )
    except servers.NotOurs as error:
        pytest.skip("needs a broker with settings of its own: %s" % error)
    with another:
        yield another


def make_users(program):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "users")
        command = [program, "-b", "-c", path, "joe", SECRET]
        subprocess.run(command, check=True, timeout=TIMEOUT_S, capture_output=True)
        return pathlib.Path(path).read_bytes()


def test_who_is_refused_gets_the_return_code_as_status(guarded_broker, launch):
    for whose in BOTH:
        for user in ([], ["-u", "joe", "-P", "wrong"], ["-u", "nobody", "-P", SECRET]):
            for command, options in (("pub", PUB), ("sub", ["-t", "t"])):
                status, out, err = launch(whose, command, guarded_broker, *options, *user).finish()
                assert (status, out) == (5, b""), (whose, user)
                assert err.startswith(b"Connection error: "), err
                assert b"wrong" not in err and SECRET.encode() not in err


def test_who_gives_user_and_password_is_let_in(guarded_broker, launch, topic):
    who = ["-u", "joe", "-P", SECRET]
    for whose in BOTH:
        options = ["-t", topic, "-r", "-m", whose, "-q", "1", "-k", "10"]
        assert launch(whose, "pub", guarded_broker, *options, *who).finish() == (0, b"", b"")
        for subscriber in BOTH:
            run = launch(subscriber, "sub", guarded_broker, "-t", topic, "-C", 1, *who)
            assert run.finish() == (0, whose.encode() + b"\n", b""), (whose, subscriber)
    launch(OURS, "pub", guarded_broker, "-t", topic, "-r", "-n", *who).finish()


def test_the_keep_alive_is_what_k_says(loud_broker, launch, topic):
    for whose in BOTH:
        client_id = "%s-%s" % (topic.replace("/", "-"), whose)
        words = ["-t", topic, "-n", "-k", "17", "-i", client_id]
        assert launch(whose, "pub", loud_broker, *words).finish() == (0, b"", b"")
        assert re.search(r"as %s \(.*k17[,)]" % re.escape(client_id), loud_broker.log()), whose


def command_line_of(process):
    return pathlib.Path("/proc/%d/cmdline" % process.pid).read_bytes()


@pytest.mark.parametrize("way", ("environment", "file", "url in the environment"))
def test_a_password_need_not_stand_in_the_process_list(
    way, guarded_broker, launch, tmp_path, topic
):
    environment, options = {}, []
    where = guarded_broker
    if way == "environment":
        environment = {"MQTT_USERNAME": "joe", "MQTT_PASSWORD": SECRET}
    elif way == "file":
        file = tmp_path / "options"
        file.write_text("# who\n-u joe\n\n--pw %s\n" % SECRET)
        options = ["-o", file]
    else:
        quoted = urllib.parse.quote(SECRET)
        address = "%s:%d" % (guarded_broker.host, guarded_broker.port)
        environment = {"MQTT_URL": "mqtt://joe:%s@%s" % (quoted, address)}
        where = None
    client_id = topic.replace("/", "-")
    words = ["-t", topic, "-C", 1, "-W", TIMEOUT_S, "-i", client_id, *options]
    run = launch(OURS, "sub", where, *words, environment=environment)
    wait_for_log(guarded_broker, "Sending SUBACK to %s" % client_id)
    shown = command_line_of(run.process)
    assert SECRET.encode() not in shown and b"joe" not in shown
    published = launch(
        OURS, "pub", where, "-t", topic, "-m", "in", *options, environment=environment
    )
    assert published.finish() == (0, b"", b"")
    assert run.finish() == (0, b"in\n", b"")


# ---------------------------------------------------------------------------
# TLS
# ---------------------------------------------------------------------------


def test_tls_with_a_ca_file_goes_both_ways(tls_broker, made, launch, topic):
    class Where:
        host = "localhost"
        port = tls_broker.port

    tls = ["--cafile", made.ca.cert_pem_file]
    for publisher in BOTH:
        options = ["-t", topic, "-r", "-m", publisher, "-q", "1"]
        assert launch(publisher, "pub", Where, *options, *tls).finish() == (0, b"", b"")
        for subscriber in BOTH:
            run = launch(subscriber, "sub", Where, "-t", topic, "-C", 1, *tls)
            assert run.finish() == (0, publisher.encode() + b"\n", b""), (publisher, subscriber)


def test_a_certificate_that_is_not_good_is_an_error_for_both(tls_broker, made, launch, topic):
    class Where:
        host = "localhost"
        port = tls_broker.port

    seen = {}
    for whose in BOTH:
        tls = ["--cafile", made.other_ca.cert_pem_file, "--quiet"]
        seen[whose] = launch(whose, "pub", Where, *PUB, *tls).finish()
    assert seen[OURS] == (8, b"", b"")
    # MOSQ_ERR_TLS is 8; mosquitto_pub 2.0.11 answers 1 as well, now this and now that.
    assert seen[THEIRS] in ((8, b"", b""), (1, b"", b""))


def test_what_may_mend_an_error_of_tls_is_told(tls_broker, broker, made, launch):
    class Where:
        host = "localhost"
        port = tls_broker.port

    other = ["--cafile", made.other_ca.cert_pem_file]
    for words, hint in (
        (other, b"not signed with what --cafile names"),
        (["--tls-use-os-certs"], b"--cafile FILE names what an authority of your own"),
        ([], b"does the server want TLS at this port (--cafile)?"),
    ):
        status, printed, told = launch(OURS, "pub", Where, *PUB, *words).finish()
        assert status in (1, 8) and not printed and hint in told, told
    status, printed, told = launch(OURS, "pub", broker, *PUB, *other).finish()
    assert status == 8 and b"does the server speak TLS at this port?" in told, told


def test_insecure_leaves_out_the_name_and_nothing_else(add_broker, made, launch):
    own = add_broker(tls=servers.Tls(made.wrong_name))

    class Where:
        host = "localhost"
        port = own.port

    for whose in BOTH:
        good = ["--cafile", made.ca.cert_pem_file]
        wrong = ["--cafile", made.other_ca.cert_pem_file]
        assert launch(whose, "pub", Where, *PUB, *good).finish()[0] != 0, whose
        assert launch(whose, "pub", Where, *PUB, *good, "--insecure").finish()[0] == 0, whose
        assert launch(whose, "pub", Where, *PUB, *wrong, "--insecure").finish()[0] != 0, whose


def test_a_certificate_of_our_own_opens_the_door_for_both(add_broker, made, launch, topic):
    own = add_broker(tls=servers.Tls(made.server, client_ca=made.ca))

    class Where:
        host = "localhost"
        port = own.port

    tls = ["--cafile", made.ca.cert_pem_file]
    ours = ["--cert", made.client.cert_pem_file, "--key", made.client.key_pem_file]
    for whose in BOTH:
        options = ["-t", topic, "-r", "-m", whose, "-q", "1"]
        assert launch(whose, "pub", Where, *options, *tls, "--quiet").finish()[0] != 0, whose
        assert launch(whose, "pub", Where, *options, *tls, *ours).finish() == (0, b"", b"")
        for subscriber in BOTH:
            run = launch(subscriber, "sub", Where, "-t", topic, "-C", 1, *tls, *ours)
            assert run.finish() == (0, whose.encode() + b"\n", b""), (whose, subscriber)


# ---------------------------------------------------------------------------
# Lost connections, slow input
# ---------------------------------------------------------------------------


def test_lines_at_qos_1_survive_cut_connections(add_proxy, broker, launch, add_peer, topic):
    lines = [b"line %d" % number for number in range(500)]
    proxy = add_proxy([Cut(UP, 2000), Cut(UP, 5000), Cut(UP, 700)])
    proxy.host = "127.0.0.1"
    peer = add_peer(broker.uri)
    peer.subscribe(topic)
    run = launch(OURS, "pub", proxy, "-t", topic, "-l", "-q", "1", stdin=subprocess.PIPE)
    status, out, err = run.finish(b"\n".join(lines))
    assert (status, out) == (0, b""), err
    assert err.count(b"The connection was lost") == 3
    seen = dict.fromkeys(message.payload for message in peer.make_round_trip(topic))
    assert list(seen) == lines


def test_lines_are_published_as_they_come(broker, launch, add_peer, topic):
    peer = add_peer(broker.uri)
    peer.subscribe(topic)
    for whose in BOTH:
        run = launch(whose, "pub", broker, "-t", topic, "-l", stdin=subprocess.PIPE)
        for number in range(3):
            run.process.stdin.write(b"line %d\n" % number)
            run.process.stdin.flush()
            assert peer.next_message().payload == b"line %d" % number, whose
        assert run.finish()[:2] == (0, b""), whose


def test_a_line_that_can_not_be_sent_is_status_1(broker, launch, add_peer, topic):
    peer = add_peer(broker.uri)
    peer.subscribe(topic)
    run = launch(OURS, "pub", broker, "-t", topic, "-l", "-q", "1", stdin=subprocess.PIPE)
    status, out, err = run.finish(b"x" * (17 << 20) + b"\nshort\n")
    told = b"Error: a line is longer than 16777216 bytes: it is not sent\n"
    assert (status, err) == (1, told)
    assert peer.next_message().payload == b"short"


def test_a_subscriber_comes_back_to_a_restarted_broker(add_broker, launch, topic):
    own = add_broker("log_type all")
    run = launch(OURS, "sub", own, "-t", topic, "-C", 2, "-i", "back", "-W", TIMEOUT_S)
    wait_for_log(own, "Sending SUBACK to back")
    launch(THEIRS, "pub", own, "-t", topic, "-m", "before").finish()
    assert run.process.stdout.readline() == b"before\n"
    before = len(own.log())
    own.restart()
    deadline = time.monotonic() + TIMEOUT_S
    while "Sending SUBACK to back" not in own.log()[before:]:
        assert time.monotonic() < deadline, own.log()[before:]
        time.sleep(0.01)
    launch(THEIRS, "pub", own, "-t", topic, "-m", "after").finish()
    status, out, err = run.finish()
    assert (status, out) == (0, b"after\n") and b"The connection was lost" in err


def test_a_publisher_gives_up_when_its_time_is_over(add_broker, add_proxy, launch, topic):
    own = add_broker()
    proxy = add_proxy([Cut(UP, 60)], own)
    proxy.host = "127.0.0.1"
    run = launch(
        OURS, "pub", proxy, "-t", topic, "-l", "-q", "1", "-W", "2", stdin=subprocess.PIPE
    )
    run.process.stdin.write(b"x" * 100 + b"\n")
    run.process.stdin.flush()
    while not proxy.cuts:
        time.sleep(0.01)
    proxy.refuse()
    status, out, err = run.finish()
    assert (status, out) == (27, b"") and err.endswith(b"Timed out\n"), err


@contextlib.contextmanager
def server_that_closes(answers):
    """A server of any number of connections; it closes one where answers(packet) is None."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):  # the listener is closed
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.settimeout(TIMEOUT_S)
                        answer_packets(connection)

        def answer_packets(connection):
            with connection.makefile("rb") as stream:
                while header := stream.read(2):  # all of them are short
                    packet = header + stream.read(header[1])
                    server.received.append(packet)
                    answer = answers(packet)
                    if answer is None:
                        return
                    connection.sendall(answer)

        server = types.SimpleNamespace(received=[], port=listener.getsockname()[1])
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server


CONNACK = b"\x20\x02\0\0"


GIVE_UP_S = 3


def test_who_is_closed_at_each_message_gives_up(monkeypatch, capsys):
    """It never ended: the time began anew with each connection."""

    def answer(packet):
        return CONNACK if packet[0] == 0x10 else None

    monkeypatch.setattr(mqtt_traffic, "GIVE_UP_S", GIVE_UP_S)
    monkeypatch.setattr(mqtt_options, "RECONNECT_MAX_MS", mqtt_options.RECONNECT_MIN_MS)
    with server_that_closes(answer) as server:
        words = ["-h", "127.0.0.1", "-p", str(server.port), "-t", "a/b", "-q", "1", "-m", "x"]
        options = mqtt_options.read_options("pub", [*words, "-W", str(TIMEOUT_S)])
        assert mqtt_traffic.Publish(options).run() == 7
    assert [packet[0] for packet in server.received].count(0x10) >= 3, "it came back"
    told = capsys.readouterr().err
    last = "Error: The connection was lost, and nothing went through for %d s.\n" % GIVE_UP_S
    assert told.endswith(last), told
    assert "is it message 1 to b'a/b'?\n" in told and "cancel" not in told, told


# ---------------------------------------------------------------------------
# At a terminal
# ---------------------------------------------------------------------------

HARMFUL = "\x1b]0;title\x07\x1b[2J\u202e\u2028é".encode() + b"\x9b1m"


def test_what_others_publish_does_nothing_to_a_terminal(broker, peer, topic):
    peer.publish(topic + "/\u202e", HARMFUL, 1, retain=True)
    command = [sys.executable, MQTT, "sub", "-L", broker.uri, "-t", topic + "/#", "-v", "-C", "1"]
    with Terminal(command, columns=200) as terminal:
        terminal.wait_for(topic + r"/\u202e \x1b]0;title\x07\x1b[2J\u202e\u2028é\x9b1m")
    with Terminal([*command, "--raw"], columns=200) as terminal:
        terminal.wait_until(lambda rows: HARMFUL in terminal.raw(), "raw payload")
    peer.publish(topic + "/\u202e", b"", 1, retain=True)


# ---------------------------------------------------------------------------
# shell
# ---------------------------------------------------------------------------


@pytest.fixture
def shell(broker):
    with Terminal([sys.executable, MQTT, "shell", "-L", broker.uri]) as terminal:
        terminal.wait_for("online after")
        terminal.wait_for_line("mqtt>")
        yield terminal


def test_messages_come_while_a_command_is_typed(shell, peer, topic):
    shell.type("subscribe %s/#\r" % topic)
    shell.wait_for("subscribe %s/#: done" % topic)
    shell.wait_for_line("mqtt>")
    shell.type("publish %s/out 'half a" % topic)
    shell.wait_for_line("mqtt> publish %s/out 'half a" % topic)
    peer.subscribe(topic + "/out")
    peer.publish(topic + "/in", b"meanwhile")
    shell.wait_for("<- %s/in: meanwhile" % topic)
    shell.wait_for_line("mqtt> publish %s/out 'half a" % topic)
    shell.type(" line'\r")
    assert peer.next_message().payload == b"half a line"
    shell.wait_for("-> %s/out: done" % topic)


def test_every_command_of_the_shell(shell, peer, topic):
    peer.subscribe(topic + "/#")
    for typed, answer in (
        ("publish %s/a one two" % topic, "-> %s/a: done" % topic),
        ("publish -q 2 -r %s/b 'x  y'" % topic, "-> %s/b: done" % topic),
        ("publish alone", "-> mqttpipe/"),
        ("pub %s/x three" % topic, "-> %s/x: done" % topic),
        ("sub %s/y" % topic, "subscribe %s/y: done" % topic),
        ("unsub %s/y" % topic, "unsubscribe %s/y: done" % topic),
        ("mqtt_subscribe %s/c" % topic, "subscribe %s/c: done" % topic),
        ("status", "%s/c (QoS 1)" % topic),
        ("unsubscribe %s/c" % topic, "unsubscribe %s/c: done" % topic),
        ("test", "no test runs"),
        ("publish %s/# wrong" % topic, "wildcard"),
        ("nonsense", "unknown: nonsense"),
        ("publish 'not closed", "error: "),
        ("help publish", "publish [-q QOS]"),
        ("stop", "stopped"),
        ("start", "online after"),
    ):
        shell.ask(typed, answer)
        shell.wait_for_line("mqtt>")
    messages = [(each.payload, each.qos) for each in (peer.next_message() for _ in range(3))]
    # The server may send on one of QoS 2 later: there is one answer more to wait for.
    assert sorted(messages) == [(b"one two", 1), (b"three", 1), (b"x  y", 2)]
    shell.type("\x04")
    assert shell.wait_for_end() == 0
    peer.publish(topic + "/b", b"", retain=True)


def test_the_shell_takes_commands_as_the_prompt_of_a_board_does(shell, peer, topic):
    """The page on the commands shows them so, and the commands name each other so."""
    peer.subscribe(topic + "/#")
    for typed, answer in (
        ("mqtt_publish('%s/a', \"it's on\", qos=2)" % topic, "-> %s/a: done" % topic),
        ('publish("%s/a", 21.5)' % topic, "-> %s/a: done" % topic),
        ('mqtt_subscribe("%s/c")' % topic, "subscribe %s/c: done" % topic),
        ("mqtt_status()", "%s/c (QoS 1)" % topic),
        ('mqtt_unsubscribe("%s/c")' % topic, "unsubscribe %s/c: done" % topic),
        ('mqtt_test("stop")', "no test runs"),
        ("mqtt_publish('%s/a', 'on'" % topic, "error: "),
        ("mqtt_publish('%s/a') or 1" % topic, "error: one command"),
        ("mqtt_publish('%s/a', one)" % topic, "error: "),
        ("mqtt_publish(1, 2, colour=3)", "error: "),
        ("print('x')", "unknown: print"),
        ("mqtt_stop()", "stopped"),
        ("mqtt_start()", "online after"),
    ):
        shell.ask(typed, answer)
        shell.wait_for_line("mqtt>")
    messages = [(each.payload, each.qos) for each in (peer.next_message() for _ in range(2))]
    assert sorted(messages) == [(b"21.5", 1), (b"it's on", 2)]
    shell.type("quit()\r")
    assert shell.wait_for_end() == 0


def test_ctrl_c_gives_the_line_up_and_keeps_the_connection(shell):
    shell.type("publish some")
    shell.wait_for_line("mqtt> publish some")
    shell.type("\x03")
    shell.wait_for_line("mqtt>")
    shell.type("status\r")
    shell.wait_for("ONLINE for")
    shell.type("quit\r")
    assert shell.wait_for_end() == 0


def test_commands_may_come_from_a_file(broker, peer, topic):
    peer.subscribe(topic)
    script = "publish %s 'from a file'\nstatus\n" % topic
    ran = subprocess.run(
        [sys.executable, MQTT, "shell", "-L", broker.uri],
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ran.returncode == 0 and "ONLINE for" in ran.stdout, ran.stdout
    assert "\x1b" not in ran.stdout and "mqtt>" not in ran.stdout
    assert ran.stdout.endswith("stopped\n")
    assert peer.next_message().payload == b"from a file"


@pytest.mark.parametrize("locale", ("C", "C.UTF-8"))
def test_the_shell_publishes_the_bytes_that_it_was_given(locale, broker, peer, topic):
    """It was three bytes for each one that is not UTF-8, or a traceback."""
    peer.subscribe(topic)
    name = topic.encode()
    script = b"publish %s \xff \xfe\npublish -q 2 %s 'caf\xe9'\n" % (name, name)
    script += b"publish \xff x\npublish('%s', '\xfd')\n" % name
    script += b"publish(%s)\n" % (b"[" * 5000) + b"publish(%s)\nstatus\n" % (b"-" * 50000)
    ran = subprocess.run(
        [sys.executable, MQTT, "shell", "-L", broker.uri],
        input=script,
        capture_output=True,
        env=dict(os.environ, LC_ALL=locale),
        timeout=TIMEOUT_S,
    )
    assert (ran.returncode, ran.stderr) == (0, b""), ran
    assert {peer.next_message().payload for _ in range(2)} == {b"\xff \xfe", b"caf\xe9"}
    assert ran.stdout.count(b"error: ") == 3 and b"ONLINE for" in ran.stdout, ran.stdout


@pytest.mark.parametrize("locale", ("C", "C.UTF-8"))
def test_correlation_data_goes_out_as_it_was_given(locale, launch, broker, add_peer, topic):
    data = b"caf\xe9\xffx"
    words = ["-V", "5", "-C", "1", "-t", topic, "-F", "%D", "-W", TIMEOUT_S]
    options = ["-t", topic, "-m", "x", "-r", "-D", "publish", "correlation-data"]
    run = launch(OURS, "pub", broker, *options, os.fsdecode(data), environment={"LC_ALL": locale})
    assert run.finish()[0] == 0
    assert launch(OURS, "sub", broker, *words).finish()[:2] == (0, data + b"\n")
    launch(OURS, "pub", broker, "-t", topic, "-n", "-r").finish()


@pytest.mark.parametrize("qos", ("0", "2"))
def test_with_mqtt_5_properties_go_each_of_the_four_ways(launch, loud_broker, topic, qos):
    form = "%t %q %p %l %j"
    subscribers = {}
    for whose in BOTH:
        name = whose + topic.replace("/", "-")
        options = ["-V", "5", "-t", topic, "-q", qos, "-C", "2", "-F", form, "-i", name]
        subscribers[whose] = launch(whose, "sub", loud_broker, *options)
        wait_for_log(loud_broker, "Sending SUBACK to " + name)
    for whose in BOTH:
        options = ["-V", "5", "-t", topic, "-m", whose, "-q", qos]
        options += ["-D", "publish", "content-type", "text/plain"]
        options += ["-D", "publish", "user-property", "from", "both"]
        status, _, err = launch(whose, "pub", loud_broker, *options).finish()
        assert status == 0, err
    lines = {}
    for whose, run in subscribers.items():
        status, out, err = run.finish()
        assert status == 0, err
        lines[whose] = out.splitlines()
        for line in lines[whose]:
            fields = json.loads(line[line.index(b"{") :])
            assert fields["properties"]["content-type"] == "text/plain", line
    assert [one[: one.index(b"{")] for one in lines[OURS]] == [
        one[: one.index(b"{")] for one in lines[THEIRS]
    ]


def test_a_refusal_of_mqtt_5_is_the_status(launch, loud_broker, topic):
    run = launch(OURS, "pub", loud_broker, "-V", "5", "-t", topic, "-m", "x", "--quiet")
    assert run.finish()[0] == 0
    refusing = loud_broker.another("max_qos 1")
    with refusing:
        options = ["-V", "5", "-t", topic, "-m", "x", "--will-topic", "w", "--will-qos", "2"]
        status, _, err = launch(OURS, "pub", refusing, *options).finish()
        assert status == 0x9B and b"QoS not supported" in err, (status, err)


@pytest.mark.parametrize("qos", (0, 1, 2))
def test_a_message_that_is_refused_or_too_large_is_status_1(qos, launch, broker, topic):
    """It was told, and the status was 0. mosquitto_pub has 0, and says nothing if it is too large.

    One that is refused at QoS 0 is one that nobody tells of.
    """
    try:
        another = broker.another(
            "acl_file {folder}/acl\nmax_packet_size 1000", {"acl": b"topic read #\n"}
        )
    except servers.NotOurs as error:
        pytest.skip("needs a broker with settings of its own: %s" % error)
    with another:
        for payload, told in ((b"x", b"not authorized"), (b"x" * 5000, b"packet too large")):
            options = ["-V", "5", "-t", topic, "-q", qos]
            run = launch(OURS, "pub", another, *options, "-s", stdin=subprocess.PIPE)
            status, out, err = run.finish(payload)
            is_told = qos > 0 or len(payload) > 1000
            assert (status, out) == (int(is_told), b""), err
            assert not is_told or err.startswith(b"Error: ") and told in err, err
            run = launch(OURS, "pub", another, *options, "-l", stdin=subprocess.PIPE)
            assert run.finish(payload + b"\nx\n")[0] == int(is_told)


@pytest.mark.parametrize("more", (["-q", "2"], ["-r"]), ids=" ".join)
def test_what_the_server_does_not_do_is_an_error_each_time(more, loud_broker, launch, topic):
    """The second message of --repeat was refused by the client itself: it ended in a traceback."""
    with loud_broker.another("log_type all\nmax_qos 1\nretain_available false") as refusing:
        options = ["-V", "5", "-t", topic, "-m", "x", "--repeat", "2", *more]
        status, out, err = launch(OURS, "pub", refusing, *options).finish()
        assert (status, out) == (1, b"") and b"Traceback" not in err, err
        assert all(line.startswith(b"Error: ") for line in err.splitlines()) and err
        wait_for_log(refusing, "Received DISCONNECT")


def test_what_can_not_be_removed_is_an_error_and_is_printed(launch):
    """A server without QoS 1, and a retained message: --remove-retained asks with QoS 1."""

    def answer(packet):
        if packet[0] == 0x82:
            return b"\x90\x04" + packet[2:4] + b"\0\0" + b"\x31\x05\0\x01t\0x"
        return b"\x20\x05\0\0\x02\x24\0"  # Maximum QoS 0

    with server_that_closes(answer) as server:
        words = ["-V", "5", "-h", "127.0.0.1", "-p", server.port, "-t", "t", "-W", TIMEOUT_S]
        status, out, err = launch(OURS, "sub", None, *words, "--remove-retained").finish()
    assert (status, out) == (1, b"x\n") and err.startswith(b"Error: ") and b"QoS" in err, err
    assert server.received[-1][0] == 0xE0, "DISCONNECT"


def test_both_print_the_same_properties(launch, loud_broker, subscribe_both, topic):
    form = "%A|%5C|%-20C|%.3C|%D|%E|%08E|%3F|%-3F|%P|%R|%20R|%S|%05S|%p"
    options = ["-V", "5", "-C", "6", "-D", "subscribe", "subscription-identifier", "7"]
    runs = subscribe_both(*options, "-F", form + "@@%j")
    words = "content-type text/plain correlation-data co message-expiry-interval 77 "
    words = (words + "payload-format-indicator 1 response-topic re/sp").split()
    most = [["-D", "publish", *words[at : at + 2]] for at in range(0, len(words), 2)]
    most += [["-D", "publish", "user-property", *pair] for pair in ("ab", "cd", "ae")]
    for whose in BOTH:
        for given in ([], sum(most, []), ["-D", "publish", "user-property", "a", "b"]):
            run = launch(whose, "pub", loud_broker, "-t", topic, "-m", "x", "-V", "5", *given)
            assert run.finish()[0] == 0
    printed = finish_both(runs)
    ours, theirs = (
        [re.sub(rb'"tst":"[^"]*"', b"", line) for line in printed[whose].splitlines()]
        for whose in BOTH
    )
    assert ours == theirs and len(ours) == 6
    assert ours[0].startswith(b"|     |" + b" " * 20 + b"||||00000000|   |   ||||7|00007|x@{"), (
        ours
    )


def test_retain_may_come_as_it_was_published(launch, loud_broker, subscribe_both, topic):
    runs = subscribe_both("-V", "5", "-C", "2", "--retain-as-published", "-F", "%r %p")
    publish_all(launch, loud_broker, topic, [("", ["-r", "-m", "x"], None)])
    assert finish_both(runs) == dict.fromkeys(BOTH, b"1 x\n" * 2)
    launch(OURS, "pub", loud_broker, "-t", topic, "-r", "-n").finish()


def test_a_property_alone_is_mqtt_5(launch, loud_broker, topic):
    for whose in BOTH:
        name = "%s-%s" % (topic.replace("/", "-"), whose)
        words = ["-t", topic, "-n", "-i", name, "-D", "publish", "content-type", "x"]
        assert launch(whose, "pub", loud_broker, *words).finish() == (0, b"", b"")
        assert re.search(r"as %s \(p5" % re.escape(name), loud_broker.log()), whose
