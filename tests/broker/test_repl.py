"""The REPL's commands at a terminal: what a person types, and what the screen shows.

On CPython and in both MicroPythons, the 32-bit one with a board's heap.
tests/board/test_repl_tool.py does the like with a virtual board and tools/repl.py.
"""

import contextlib
import os
import re
import subprocess
import sys
import time

import ends
import pytest

import build
from proxy import UP, Cut
from terminal import Terminal

# The profile full, the commands, and what a person types: more than a program needs.
REPL_HEAP = "128k"
PROMPT = ">>>"
REPLS = ["CPython", "MicroPython 64-bit", ends.BOARD]
COMMANDS = (
    "mqtt_start",
    "mqtt_stop",
    "mqtt_publish",
    "mqtt_subscribe",
    "mqtt_unsubscribe",
    "mqtt_status",
    "mqtt_test",
)


@pytest.fixture(scope="session")
def repl_folder(tmp_path_factory, compile_mpy):
    """A folder with what is on a board that has the commands."""
    folder = tmp_path_factory.mktemp("repl")
    (folder / "mqttpipe.mpy").write_bytes(build.compile_mpy(build.read_source()))
    commands = ends.ROOT / "micropython" / "mqttpipe_repl.py"
    compile_mpy(commands, folder / "mqttpipe_repl.mpy", "-O2")
    return folder


@pytest.fixture(params=REPLS)
def repl_command(request, get_interpreter, repl_folder):
    """(command, environment) of an interactive interpreter."""
    interpreter = get_interpreter(request.param)
    command = list(interpreter.command)
    client = ends.ROOT / "micropython"
    if interpreter.name == ends.BOARD:
        command += ["-X", "heapsize=" + REPL_HEAP]
        client = repl_folder
    if interpreter.name == "CPython":
        command += ["-q", "-i"]
    environment = dict(os.environ, MICROPYPATH="%s:.frozen" % client, PYTHON_BASIC_REPL="1")
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ends.ROOT / "micropython"), str(ends.ROOT / "cpython_shim")]
    )
    return command, environment


@pytest.fixture
def open_repl(repl_command, closing):
    """open_repl(): a Terminal with the commands loaded."""
    command, environment = repl_command

    def run(**options):
        terminal = Terminal(command, environment, **options)
        closing(terminal, "the terminal", terminal.story)
        terminal.wait_for_line(PROMPT)
        enter(terminal, "from mqttpipe_repl import *")
        return terminal

    return run


@pytest.fixture
def repl(open_repl):
    return open_repl()


@pytest.fixture
def online(repl, broker):
    start(repl, broker.uri)
    return repl


# The prompt is waited for: what is typed ahead would be echoed in the middle of the output.
def enter(terminal, line, answer=""):
    """Type a line, and wait for its answer, and until the prompt has come back."""
    terminal.wait_for_line(PROMPT)
    before = len(terminal.raw())
    terminal.ask(line, answer)
    terminal.wait_until(lambda _: b">>> " in terminal.raw()[before:], "prompt after " + line)
    terminal.wait_for_line(PROMPT)


def start(terminal, uri):
    enter(terminal, "mqtt_start(%r)" % uri, "online after")


# ---------------------------------------------------------------------------
# Typing while messages come
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("rows", (24, 6), ids=("room below", "at the foot of the screen"))
def test_messages_come_while_a_line_is_typed_and_leave_it_whole(
    rows, open_repl, broker, peer, topic
):
    repl = open_repl(rows=rows)
    start(repl, broker.uri)
    enter(repl, "mqtt_subscribe('%s/#')" % topic, ": done after")
    repl.type("print('half a li")
    repl.wait_for_line(">>> print('half a li")
    for number in range(3):
        peer.publish(topic + "/in", b"message %d" % number)
        repl.wait_for("<- %s/in: message %d" % (topic, number))
        repl.wait_for_line(">>> print('half a li")
    repl.type("ne', 1)")
    repl.wait_for_line(">>> print('half a line', 1)")
    repl.type("\x1b[D\x1b[D")  # two to the left: before the 1
    column = len(">>> print('half a line', ")
    repl.wait_until(lambda rows: repl.column() == column, "cursor before the 1")
    peer.publish(topic + "/in", b"in the middle")
    repl.wait_for("<- %s/in: in the middle" % topic)
    repl.wait_for_line(">>> print('half a line', 1)")
    assert repl.column() == column
    repl.type("4")
    repl.wait_for_line(">>> print('half a line', 41)")
    repl.type("\r")
    repl.wait_for("half a line 41")


def test_a_long_message_takes_several_rows_above_the_line(online, peer, topic):
    enter(online, "mqtt_subscribe('%s')" % topic, ": done after")
    online.type("12345")
    online.wait_for_line(">>> 12345")
    peer.publish(topic, b"x" * 150 + b"<end>")
    online.wait_for("<end>")
    online.wait_for_line(">>> 12345")
    rows = online.lines()
    first = next(at for at, row in enumerate(rows) if row.startswith("<- "))
    assert "".join(rows[first : first + 3]).startswith("<- %s: %s<end>" % (topic, "x" * 150))
    peer.publish(topic, b"y" * 900)
    # Where a row of the screen ends depends on the topic's length.
    online.wait_until(lambda rows: "... (900 bytes)" in "".join(rows), "what was cut off")
    online.wait_for_line(">>> 12345")


def test_a_message_can_do_nothing_to_the_terminal(online, peer, topic):
    enter(online, "mqtt_subscribe('%s')" % topic, ": done after")
    online.type("12345")
    for payload in (
        b"\x1b[2J\x1b]0;title\x07",
        b"\x9b2J",
        "\x9b2J".encode(),
        b"\r\n\x08",
        b"\xff",
    ):
        peer.publish(topic, payload)
    peer.publish(topic, "caf\u00e9 \u65e5\u672c".encode())
    online.wait_for("caf\u00e9")
    online.wait_for_line(">>> 12345")
    raw = online.raw()
    assert b"\x1b[2J" not in raw and b"\x07" not in raw and b"\xc2\x9b" not in raw
    assert len([row for row in online.lines() if row.startswith("<- %s: b'" % topic)]) == 5


def test_a_flood_is_counted_and_not_all_shown(online, peer, topic):
    enter(online, "mqtt_subscribe('%s')" % topic, ": done after")
    online.type("12345")
    peer.publish_all([(topic, b"%d" % number, 1) for number in range(200)])
    # What comes a second later is shown again, and says how many were not.
    deadline = time.monotonic() + ends.WAIT_S
    while not any("more came too fast" in row for row in online.lines()):
        assert time.monotonic() < deadline, online.story()
        peer.publish(topic, b"later")
        time.sleep(0.05)
    online.wait_for_line(">>> 12345")
    online.type("\x03")
    enter(online, "mqtt_status()", "received")


# ---------------------------------------------------------------------------
# The commands
# ---------------------------------------------------------------------------


def test_import_brings_the_commands_and_nothing_public_besides(repl):
    enter(
        repl, "print('=', [n for n in dir() if n[0] != '_' and not n.startswith('mqtt_')])", "= []"
    )
    for name in COMMANDS:
        enter(repl, "%s" % name, "<function %s at" % name)


def test_every_command_does_its_work(repl, broker, peer, topic):
    enter(repl, "mqtt_status()", "not started: mqtt_start(uri)")
    for command in ("mqtt_stop()", "mqtt_publish('x')", "mqtt_test()", "mqtt_subscribe('x')"):
        enter(repl, command, "not started")
    start(repl, broker.uri)
    enter(repl, "mqtt_start()", "already started")
    peer.subscribe(topic + "/out", "mqttpipe/+")

    enter(repl, "mqtt_publish('%s/out', 'text')" % topic, "-> %s/out: done after" % topic)
    enter(repl, "mqtt_publish('%s/out', 21.5, qos=2)" % topic, "-> %s/out: done after" % topic)
    enter(repl, "mqtt_publish('%s/out', b'\\x00\\xff', qos=0)" % topic, "-> %s/out" % topic)
    enter(repl, "mqtt_publish('alone')", "-> mqttpipe/mqtt")
    seen = {each.payload: each for each in [peer.next_message() for _ in range(4)]}
    assert {payload: each.qos for payload, each in seen.items()} == {
        b"text": 1,
        b"21.5": 2,
        b"\x00\xff": 0,
        b"alone": 1,
    }
    assert re.fullmatch(r"mqttpipe/mqtt[0-9a-f]+", seen[b"alone"].topic_name)

    enter(repl, "mqtt_subscribe('%s/a')" % topic, "subscribe %s/a: done after" % topic)
    enter(repl, "mqtt_subscribe('%s/b', qos=2)" % topic, "subscribe %s/b: done after" % topic)
    enter(repl, "mqtt_status()", "ONLINE for")
    assert "%s/a (QoS 1), %s/b (QoS 2)" % (topic, topic) in repl.wait_for("subscribed ")
    enter(repl, "mqtt_unsubscribe('%s/a')" % topic, "unsubscribe %s/a: done after" % topic)
    enter(repl, "mqtt_unsubscribe('%s/a')" % topic, "not subscribed")
    peer.publish(topic + "/a", b"to nobody")
    peer.publish(topic + "/b", b"to us")
    repl.wait_for("<- %s/b: to us" % topic)
    assert not any("to nobody" in row for row in repl.lines())

    enter(repl, "mqtt_stop()", "stopped")
    enter(repl, "mqtt_stop()", "not started")
    start(repl, broker.uri)  # again
    enter(repl, "mqtt_stop()", "stopped")


def test_a_retained_message_is_marked(online, peer, topic):
    peer.publish(topic, b"old", retain=True)
    enter(online, "mqtt_subscribe('%s')" % topic, "<- %s: old (retained)" % topic)
    peer.publish(topic, b"", retain=True)


@pytest.mark.parametrize(
    "line, answer",
    (
        ("mqtt_publish('a/#', 'x')", "mqtt_publish: topic name holds a wildcard"),
        ("mqtt_publish('', 'x')", "mqtt_publish: topic name is empty"),
        ("mqtt_publish('a', 'x', qos=3)", "mqtt_publish: qos is 3"),
        ("mqtt_publish('a', 'x' * 2000)", "message of 2008 bytes does not fit: raise"),
        ("mqtt_publish('a', 'b', 'c')", "mqtt_publish([topic,] message)"),
        ("mqtt_subscribe('a/#/b')", "mqtt_subscribe: topic filter has # before its last level"),
        ("mqtt_test('start', 1000)", "rate_hz is 1000"),
        ("mqtt_test('start', 'x')", "rate_hz is 'x'"),
        ("mqtt_test('start', 1, 1, None)", "payload_bytes is None"),
        ("mqtt_test('stop')", "no test runs"),
    ),
)
def test_what_is_wrong_is_told_in_one_line(line, answer, online):
    enter(online, line, answer)
    assert not any("Traceback" in row for row in online.lines())
    enter(online, "mqtt_status()", "ONLINE for")


@pytest.mark.parametrize(
    "uri, answer",
    (
        ("http://localhost", "mqtt_start: URI must begin with"),
        ("mqtt://user:secret@", "mqtt_start: URI has no host"),
    ),
)
def test_a_wrong_uri_is_told_without_its_secrets(uri, answer, repl):
    enter(repl, "mqtt_start(%r)" % uri, answer)
    shown = "\n".join(repl.lines()).replace(uri, "")
    assert "Traceback" not in shown and "secret" not in shown
    enter(repl, "mqtt_status()", "not started")


def test_without_a_uri_it_says_what_to_do_or_reads_the_secrets(open_repl, broker, tmp_path):
    repl = open_repl(cwd=str(tmp_path))
    enter(repl, "mqtt_start()", 'mqtt_start("mqtt://host"), or put SERVER')
    (tmp_path / "secrets.py").write_text("SERVER = %r\nUSER = PASSWORD = CA = None\n" % broker.uri)
    enter(repl, "import sys; sys.modules.pop('secrets', 0); sys.path.insert(0, '')")
    enter(repl, "mqtt_start()", "online after")


# ---------------------------------------------------------------------------
# Ctrl-C, and a broker that goes and comes
# ---------------------------------------------------------------------------


def test_ctrl_c_gives_up_the_line_and_nothing_else(online, peer, topic):
    enter(online, "mqtt_subscribe('%s')" % topic, ": done after")
    online.type("print('never")
    online.wait_for_line(">>> print('never")
    online.type("\x03")
    online.wait_for_line(PROMPT)
    peer.publish(topic, b"still there")
    online.wait_for("<- %s: still there" % topic)
    enter(online, "mqtt_status()", "ONLINE for")


def test_ctrl_c_ends_a_program_and_leaves_the_client(online, peer, topic):
    enter(online, "mqtt_subscribe('%s')" % topic, ": done after")
    # Between its prompt and the program the unix port has no handler for Ctrl-C.
    online.type("exec(\"print('it ' + 'runs')\\nwhile True: pass\")\r")
    online.wait_for("it runs")
    peer.publish(topic, b"while it runs")
    online.wait_for("<- %s: while it runs" % topic)
    # The unix port gives the signal to any thread now and then; a person presses again.
    for _ in range(5):
        online.type("\x03")
        with contextlib.suppress(AssertionError):
            online.wait_for_line(PROMPT, 2)
            break
    online.wait_for("KeyboardInterrupt")
    online.wait_for_line(PROMPT)
    peer.publish(topic, b"and after")
    online.wait_for("<- %s: and after" % topic)
    enter(online, "mqtt_stop()", "stopped")


def test_ctrl_c_ends_the_wait_of_mqtt_start_and_not_its_attempts(repl, add_proxy, broker):
    proxy = add_proxy()
    proxy.stall()  # the server seems to be there, and says nothing
    repl.type("mqtt_start(%r)\r" % proxy.uri)
    repl.wait_for("connecting to 127.0.0.1 port %d" % proxy.port)
    deadline = time.monotonic() + ends.WAIT_S
    while not proxy.connections and time.monotonic() < deadline:
        time.sleep(0.01)
    repl.type("\x03")
    repl.wait_for("not online yet; it goes on trying")
    proxy.resume()
    deadline = time.monotonic() + ends.WAIT_S
    while not any("ONLINE for" in row for row in repl.lines()):
        assert time.monotonic() < deadline, repl.story()
        enter(repl, "mqtt_status()", "attempts")
    enter(repl, "mqtt_stop()", "stopped")


def test_a_server_that_refuses_is_told_and_tried_again(repl, add_proxy):
    proxy = add_proxy()
    proxy.refuse()
    repl.type("mqtt_start(%r, reconnect_min_ms=10, reconnect_max_ms=50)\r" % proxy.uri)
    repl.wait_for("mqtt: offline: ")
    proxy.resume()
    repl.wait_for("online after")
    repl.wait_for_line(PROMPT)
    said = [row for row in repl.lines() if row.startswith("mqtt: offline")]
    assert 1 <= len(said) <= 3, said  # not one for each attempt


def wait_for_times(repl, text, times):
    repl.wait_until(lambda rows: sum(text in row for row in rows) >= times, "%s, again" % text)


def test_the_broker_goes_and_comes_back_while_a_line_is_typed(
    open_repl, add_broker, add_peer, topic
):
    own = add_broker()
    repl = open_repl()
    enter(
        repl, "mqtt_start(%r, reconnect_min_ms=10, reconnect_max_ms=50)" % own.uri, "online after"
    )
    enter(repl, "mqtt_subscribe('%s')" % topic, ": done after")
    repl.type("1234")
    for number in range(1, 3):
        own.stop()
        wait_for_times(repl, "mqtt: offline: ", number)
        repl.wait_for_line(">>> 1234")
        own.start()
        wait_for_times(repl, "mqtt: online", number)
        repl.wait_for_line(">>> 1234")
    peer = add_peer(own.uri)
    peer.publish(topic, b"here again")
    repl.wait_for("<- %s: here again" % topic)
    repl.type(" + 1\r")
    repl.wait_for("1235")
    own.stop()
    wait_for_times(repl, "mqtt: offline: ONLINE", 3)
    enter(repl, "mqtt_publish('%s', 'kept')" % topic, "waits, as it is offline")
    own.start()
    repl.wait_for("<- %s: kept" % topic)
    enter(repl, "mqtt_status()", "reconnected  3 times")


def test_stopping_while_the_server_is_away_ends_soon(open_repl, add_broker):
    own = add_broker()
    repl = open_repl()
    start(repl, own.uri)
    own.stop()
    repl.wait_for("mqtt: offline: ")
    enter(repl, "mqtt_publish('x')", "waits, as it is offline")
    enter(repl, "mqtt_stop()", "stopped")


# ---------------------------------------------------------------------------
# The stability test
# ---------------------------------------------------------------------------


def numbers_of(repl):
    """What mqtt_test has printed last: {name: first number}."""
    shown = {}
    for row in repl.lines():
        found = re.match(r"([a-z]+) +(\d+)", row)
        if found:
            shown[found.group(1)] = int(found.group(2))
            if "on the way" in row:
                shown["on the way"] = int(row.split(",")[1].split()[0])
    return shown


# One that has left just before the end may be on the way; lost is what should be here by now.
def has_all(numbers):
    arrived = numbers["received"] + numbers.get("on the way", 0)
    return arrived == numbers["published"] and numbers.get("on the way", 0) <= 5


def wait_for_published(repl, count):
    deadline = time.monotonic() + ends.WAIT_S
    while True:
        enter(repl, "mqtt_test()", "published")
        if numbers_of(repl)["published"] >= count:
            return
        assert time.monotonic() < deadline, repl.story()
        time.sleep(0.1)


def test_the_stability_test_counts_what_it_publishes(online, topic):
    enter(online, "mqtt_test('start', 100, 1, 10)", "100 messages/s to mqttpipe/test/")
    wait_for_published(online, 50)
    enter(online, "mqtt_test('start')", "duration")  # it runs already: shown
    enter(online, "mqtt_status()", "test         runs")
    before = len(online.raw())
    enter(online, "mqtt_test('stop')", "reconnections")
    numbers = numbers_of(online)
    assert has_all(numbers) and numbers["published"] >= 50
    assert numbers["lost"] == numbers["duplicated"] == numbers["reconnections"] == 0
    text = online.raw()[before:].decode()
    times = re.search(r"min ([\d.]+) ms, median ([\d.]+) ms, max ([\d.]+) ms", text)
    low, median, high = (float(each) for each in times.groups())
    assert 0 < low <= median <= high * 1.06
    enter(online, "mqtt_test()", "no test runs")


def test_the_stability_test_loses_nothing_with_a_session_through_lost_connections(
    repl, add_proxy, topic
):
    proxy = add_proxy([Cut(UP, 3000), Cut(UP, 2000)])
    session = "client_id=%r, clean_session=False" % topic.replace("/", "-")
    options = "reconnect_min_ms=10, reconnect_max_ms=50, " + session
    enter(repl, "mqtt_start(%r, %s)" % (proxy.uri, options), "online after")
    enter(repl, "mqtt_test('start', 100)", "100 messages/s")
    repl.wait_until(lambda rows: proxy.cuts == 2, "second cut")
    wait_for_published(repl, 100)
    enter(repl, "mqtt_test('stop')", "reconnections")
    numbers = numbers_of(repl)
    assert numbers["reconnections"] == 2
    assert numbers["lost"] == 0 and has_all(numbers)
    enter(repl, "mqtt_test('start', 100)", "100 messages/s")
    enter(repl, "mqtt_stop()", "stopped")  # ends the test as well
    assert any(row.startswith("duration") for row in repl.lines())


# ---------------------------------------------------------------------------
# Without a terminal
# ---------------------------------------------------------------------------


def test_output_that_is_no_terminal_gets_plain_lines(repl_command, broker, peer, topic, tmp_path):
    command, environment = repl_command
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "from mqttpipe_repl import *\n"
        "mqtt_start(%r)\n"
        "mqtt_subscribe(%r)\n"
        "mqtt_publish(%r, 'plain')\n"
        "time.sleep(0.5)\n"
        "mqtt_stop()\n" % (broker.uri, topic, topic)
    )
    command = [word for word in command if word not in ("-q", "-i")]
    ran = subprocess.run(
        [*command, str(program)],
        env=dict(environment, TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
    )
    assert ran.returncode == 0 and b"\x1b" not in ran.stdout, ran.stdout
    assert b"<- %s: plain\n" % topic.encode() in ran.stdout.replace(b"\r\n", b"\n")


def test_a_dumb_terminal_gets_plain_lines(open_repl, broker, peer, topic):
    repl = open_repl(term="dumb")
    start(repl, broker.uri)
    enter(repl, "mqtt_subscribe('%s')" % topic, ": done after")
    peer.publish(topic, b"plain")
    repl.wait_for("<- %s: plain" % topic)
    assert b"\x1b[L" not in repl.raw()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="only CPython 3.13 and later have it")
def test_the_new_repl_of_cpython_keeps_its_line_too(broker, peer, topic, closing):
    environment = dict(os.environ)
    environment.pop("PYTHON_BASIC_REPL", None)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ends.ROOT / "micropython"), str(ends.ROOT / "cpython_shim")]
    )
    repl = Terminal([sys.executable, "-q"], environment)
    closing(repl, "the terminal", repl.story)
    repl.wait_for_line(PROMPT)
    repl.type("from mqttpipe_repl import *\r")
    repl.type("mqtt_start(%r)\r" % broker.uri)
    repl.wait_for("online after")
    repl.type("mqtt_subscribe('%s')\r" % topic)
    repl.wait_for(": done after")
    repl.wait_for_line(PROMPT)
    repl.type("1234")
    repl.wait_for_line(">>> 1234")
    peer.publish(topic, b"while typing")
    repl.wait_for("<- %s: while typing" % topic)
    repl.wait_for_line(">>> 1234")
    repl.type(" + 1\r")
    repl.wait_for("1235")
