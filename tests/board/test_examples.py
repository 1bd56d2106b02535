"""The examples run on a board: real MicroPython, the Wi-Fi of boards/, a real mosquitto.

The board is the virtual one; tests/lwip/ runs some of them over a board's network stack. Those for
clouds are in test_examples_clouds.py.
"""

import ast
import contextlib
import hashlib
import io
import itertools
import json
import pathlib
import re
import sys
import time
import tokenize

import ends
import pytest
import virtual_board as virtual
from deploying import ROOT, SERVER_ADDRESS, plug_in, run_command
from time_server import TimeServer

import deploy
import servers
from examples import EXAMPLES, FULL, NAME, TOPIC, WAIT_S, next_on, wait_until
from programs import Program

HELD_S = 0.08  # the program looks at it for so long: more than BOUNCE_MS of relay_and_lamp.py

# Not one of the eleven jobs: an algorithm for docs/mqtt5.md, tests/host/test_scram.py runs it.
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "scram")


# ---------------------------------------------------------------------------
# All of them
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relay_and_lamp", "sleeping_sensor"])
def test_an_example_is_deployed_as_the_page_says(name, virtual_board, broker, secrets):
    board = plug_in(virtual_board(virtual.ESP32), broker)
    path = str(EXAMPLES / (name + ".py"))
    printed = run_command(board, "--secrets", str(secrets), "--main", path)
    assert printed.splitlines()[-1].startswith("deploy: online")
    assert (board.files / "main.py").read_text() == text_of(name)


def test_the_commands_of_the_page_are_those_of_the_tools():
    page = (ROOT / "docs" / "samples.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    python3 tools/deploy\.py (.+)$", page, re.M)
    assert len(commands) >= 6
    for command in commands:
        options = deploy.parse_arguments(command.split())
        name = options.main.stem
        assert (ROOT / options.main) == EXAMPLES / (name + ".py")
        assert options.profile == ("full" if name in FULL else "standard"), command


def text_of(name):
    return (EXAMPLES / (name + ".py")).read_text(encoding="utf-8")


def code_lines(path):
    """How many lines of a file are neither blank nor comment nor its docstring."""
    text = path.read_text(encoding="utf-8")
    aside = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {each.start[0] for each in tokens if each.type not in (*aside, tokenize.ENDMARKER)}
    docstring = ast.parse(text).body[0]
    return len(lines - set(range(docstring.lineno, docstring.end_lineno + 1)))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_less_than_60_lines_of_code_and_says_what_it_is(name):
    path = EXAMPLES / (name + ".py")
    assert code_lines(path) < 60
    assert path.read_text().startswith('"""')


def test_an_example_with_tls_keeps_free_memory_together_before_it_imports_more():
    """By deploy.py and with RSA on the server, the emulated board found no 17 KB otherwise."""
    with_tls = [name for name in NAMES if "secrets.CA" in text_of(name)]
    assert len(with_tls) >= 3
    for name in with_tls:
        imported, called = ast.parse(text_of(name)).body[1:3]
        assert ast.unparse(imported) == "import gc", name
        assert ast.unparse(called) == "gc.threshold(16384)", name


def test_each_example_is_run_by_a_test_and_shown_on_the_page():
    folder = pathlib.Path(__file__).parent
    tests = "".join(path.read_text() for path in folder.glob("test_examples*.py"))
    pages = "".join(
        (ROOT / "docs" / page).read_text(encoding="utf-8")
        for page in ("samples.md", "migration.md")
    )
    for name in NAMES:
        assert name in NOT_RUN or re.search(r'"%s(\.py)?"' % name, tests), name
        assert "<!-- file: %s.py -->\n```python\n%s```\n" % (name, text_of(name)) in pages, name


def test_a_program_that_boot_imports_resets_the_board_when_it_fails(start_example):
    """As the page says for a board that is left alone; by itself it ends at the prompt."""
    page = (ROOT / "docs" / "samples.md").read_text(encoding="utf-8")
    (call,) = re.findall(r"`(boot\(.+?\))`", page)
    app = text_of("relay_and_lamp").replace("wifi.step()", "wifi.step() or 1 / 0")
    main = "from station import boot\n%s\n" % call
    board = start_example("relay_and_lamp", more={"main.py": main, "app.py": app})
    board.wait_for_output("(?s)ZeroDivisionError.*reset in 5 s.*station: starts in", WAIT_S)


# ---------------------------------------------------------------------------
# At home
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("machine", [virtual.ESP32, virtual.PICO_W], ids=["ESP32", "Pico W"])
def test_sleeping_sensor_wakes_publishes_and_sleeps_again(start_example, listener, machine):
    listener.subscribe("sensors/#")
    board = start_example("sleeping_sensor", machine)
    for count in (1, 2):
        assert next_on(listener, "sensors/lamp/temperature") == b"21.5"
        assert board.wait_for_event("deep sleep", count=count, timeout_s=WAIT_S) == (600_000,)
    board.wait_for_output(r"(?s)(acknowledged: True\r?\nawake: \d+ ms\r?\n.*){2}", WAIT_S)
    print("awake, ms:", re.findall(r"^awake: (\d+) ms", board.output, re.M))


def test_sleeping_sensor_sleeps_although_there_is_no_server(start_example):
    def away(board):
        board.world["routes"][SERVER_ADDRESS, 1883] = ("127.0.0.1", servers.free_port())

    board = start_example("sleeping_sensor", changes={"AWAKE_MS_MAX": 1_500}, before=away)
    board.wait_for_event("deep sleep", timeout_s=WAIT_S)
    assert "acknowledged: False\n" in board.output


def test_relay_and_lamp_obey_and_the_button_works_offline(start_example, broker, listener):
    listener.subscribe(TOPIC + "#")
    board = start_example("relay_and_lamp")
    board.world["pins"][14] = 1
    board.wait_for_output("mqtt: online", WAIT_S)
    for name in ("relay", "lamp"):
        assert next_on(listener, TOPIC + name) == b"off"
    for word, state, level in (("on", b"on", 1), ("toggle", b"off", 0), ("nonsense", b"off", 0)):
        listener.publish(TOPIC + "relay/set", word)
        assert next_on(listener, TOPIC + "relay") == state
        assert board.events("pin")[-1] == (26, level)
    board.world["routes"][SERVER_ADDRESS, 1883] = ("127.0.0.1", servers.free_port())
    broker.stop()
    board.wait_for_output("mqtt: offline", WAIT_S)
    for level in (0, 1, 0, 1):  # pressed twice
        hold(board, level)
    board.wait_for_output("(?s)lamp on\n.*lamp off\n", WAIT_S)
    board.world["pins"][14] = 0
    board.wait_for_output("(?s)lamp on\n.*lamp off\n.*lamp on\n", WAIT_S)
    broker.start()
    another = ends.Peer(broker.uri).connect()
    another.subscribe(TOPIC + "lamp")
    board.world["routes"][SERVER_ADDRESS, 1883] = (broker.host, broker.port)
    assert next_on(another, TOPIC + "lamp", 40) == b"on"
    another.disconnect()


def hold(board, level, read=None):
    """Press the button, or let it go, until the program has had time to be sure of that.

    Args: read: function that answers what the program reads meanwhile; None: always `level`.
    """
    looked_s = []

    def look():
        answer = read() if read else level
        if answer == level:
            looked_s.append(time.monotonic())
        else:
            looked_s.clear()
        return answer

    board.world["pins"][14] = look
    wait_until(lambda: looked_s and looked_s[-1] - looked_s[0] > HELD_S, "it reads no button")


def bouncing(level):
    """What a button reads that is pressed or let go: its contacts close and open for 40 ms."""
    end_s = time.monotonic() + 0.04
    looks = itertools.count()
    return lambda: next(looks) % 2 if time.monotonic() < end_s else level


def test_a_button_whose_contacts_bounce_switches_once(start_example, listener):
    listener.subscribe(TOPIC + "lamp")
    board = start_example("relay_and_lamp")
    board.world["pins"][14] = 1
    board.wait_for_output("mqtt: online", WAIT_S)
    assert next_on(listener, TOPIC + "lamp") == b"off"
    before = len(board.events("pin"))
    states = (b"on", b"off", b"on", b"off", b"on")
    for state in states:
        for level in (0, 1):
            hold(board, level, bouncing(level))
        assert next_on(listener, TOPIC + "lamp") == state
    assert len(board.events("pin")) == before + len(states), "each press switches once"


def test_a_button_that_is_pressed_while_the_server_stands_still_tells_the_last_state(
    start_example, broker, listener
):
    listener.subscribe(TOPIC + "lamp")
    board = start_example("relay_and_lamp")
    board.world["pins"][14] = 1
    board.wait_for_output("mqtt: online", WAIT_S)
    assert next_on(listener, TOPIC + "lamp") == b"off"
    with paused(broker):
        for _ in range(41):  # more than the queue holds
            for level in (0, 1):
                hold(board, level)
        board.wait_for_event("pin", count=40, timeout_s=WAIT_S)
    check_state(broker, board, "lamp", 27)
    listener.publish(TOPIC + "lamp/set", "toggle")
    check_state(broker, board, "lamp", 27)


def pins(board, pin):
    """What the board has made of a pin, one after the other."""
    return [event[1] for event in board.events("pin") if event[0] == pin]


@contextlib.contextmanager
def paused(broker):
    broker.pause()
    try:
        yield
    finally:
        broker.go_on()


# What the server keeps is what the pin is.
def check_state(broker, board, name, pin, words=(b"off", b"on")):
    def is_so():
        peer = ends.Peer(broker.uri).connect()
        peer.subscribe(TOPIC + name)
        told = peer.next_message().payload
        peer.disconnect()
        return told == words[pins(board, pin)[-1]]

    wait_until(is_so, "the state was never told")


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("name", ["relay_and_lamp", "home_assistant", "from_umqtt"])
def test_a_burst_of_commands_ends_no_program_and_the_last_state_is_told(
    start_example, broker, listener, name, qos
):
    output, pin = ("lamp", 27) if name == "from_umqtt" else ("relay", 26)
    words = (b"OFF", b"ON") if name == "home_assistant" else (b"off", b"on")
    changes = {} if name == "relay_and_lamp" else {"EVERY_MS": 100}
    board = start_example(name, changes=changes)
    board.wait_for_output("mqtt: online", WAIT_S)
    command = TOPIC + output + "/set"
    for last in (0, 1):
        count = 101 if qos else 1_001
        burst = [(command, words[(number + last) % 2], qos) for number in range(count)]
        listener.publish_all(burst, 40)
        listener.publish(command, words[last])
        deadline_s = time.monotonic() + 40
        done = -1
        # It was so in the midst of the burst, too: it has to stay so for a second.
        while pins(board, pin)[-1] != last or len(pins(board, pin)) > done:
            assert time.monotonic() < deadline_s, "it does not obey"
            done = len(pins(board, pin))
            time.sleep(1)
        check_state(broker, board, output, pin, words)
        assert board.output.count("Traceback") == 0


def test_battery_queue_keeps_what_it_measured_until_it_is_online(start_example, broker, listener):
    listener.subscribe("sensors/#")

    def away(board):
        board.world.switch_off()

    changes = {"PERIOD_MS": 20, "BATCH": 5, "ONLINE_MS_MAX": 3_000}
    board = start_example("battery_queue", changes=changes, before=away)
    board.wait_for_output(r"online: \d+ ms, waiting: 6\n", WAIT_S)
    board.world.switch_on()
    board.wait_for_output(r"online: \d+ ms, waiting: 0\n", WAIT_S)
    came = [next_on(listener, "sensors/lamp/temperature") for _ in range(10)]
    assert all(each.endswith(b" 21.5") for each in came)
    active = [event for event in board.events("wlan") if event[0] == "active"]
    assert ("active", False) in active[2:], "Wi-Fi is off in between"


def test_battery_queue_tells_the_time_of_each_measurement(start_example, listener):
    """What waited is sent hours later: without the time nobody knows when it was."""
    listener.subscribe("sensors/#")
    clock = TimeServer()
    with contextlib.closing(clock):

        def add_clock(board):
            board.world["routes"]["192.168.4.9", 123] = clock.address

        changes = {"PERIOD_MS": 20, "BATCH": 5}
        start_example("battery_queue", changes=changes, before=add_clock, NTP=("192.168.4.9",))
        first, *later = [
            int(next_on(listener, "sensors/lamp/temperature").split()[0]) for _ in range(6)
        ]
    assert min(later) > first + 24 * 365 * 86_400, "it began with a clock that nobody had set"


def test_four_tasks_run_beside_each_other(start_example, listener):
    listener.subscribe(TOPIC + "temperature")
    board = start_example("four_tasks")
    assert next_on(listener, TOPIC + "temperature") == b"21.5"
    listener.publish(TOPIC + "period", "soon")
    board.wait_for_output("no number: b'soon'", WAIT_S)
    listener.publish(TOPIC + "period", "30")
    board.wait_for_output("period: 30", WAIT_S)
    before = len(board.events("pin"))
    wait_until(lambda: len(board.events("pin")) > before + 10, "it does not blink", 5)
    # More than sleep_ms() takes ended the task that blinks.
    for number, taken in (("-1", 20), ("3000000000", 60_000), ("9" * 40, 60_000)):
        listener.publish(TOPIC + "period", number)
        board.wait_for_output(r"period: %d\b" % taken, WAIT_S)


def test_threads_and_interrupts_all_publish(start_example):
    board = start_example(
        "threads_and_interrupts", before=lambda board: board.world["pins"].update({14: 1})
    )
    board.wait_for_output("mqtt: online", WAIT_S)
    board.wait_for_output("boards/lamp/measured b'1'", WAIT_S)
    board.world["pins"][14] = 0
    board.wait_for_output("boards/lamp/bell b'pressed'", WAIT_S)


# ---------------------------------------------------------------------------
# Commands and files
# ---------------------------------------------------------------------------


def test_commands_and_update_answers_each_command_whatever_it_is(start_example, listener):
    listener.subscribe(TOPIC + "answer")
    board = start_example("commands_and_update")
    board.wait_for_output("mqtt: online", WAIT_S)

    def ask(payload):
        listener.publish(TOPIC + "command", payload)
        return json.loads(next_on(listener, TOPIC + "answer"))

    assert ask('{"id": 7, "do": "echo", "text": "hello"}') == {"id": 7, "value": "hello"}
    assert "KeyError" in ask('{"id": 8, "do": "fly"}')["error"]
    assert ask('{"id": 9, "do": "end", "sha256": ""}')["id"] == 9
    assert "error" in ask("no JSON") and "error" in ask("[1, 2]") and "error" in ask(b"\xff")
    for text in ('"%s"' % ("\x01" * 300), '"%s"' % ("x" * 940), "[" * 450 + "]" * 450, "5"):
        assert ask('{"id": 10, "do": "echo", "text": %s}' % text)["id"] == 10, text
    assert "error" in ask(json.dumps({"id": "x" * 930, "do": "echo", "text": "hi"}))
    assert "error" in ask(json.dumps({"id": 12, "do": "\x01" * 150}))
    assert ask('{"id": 13, "do": "echo", "text": "still here"}')["value"] == "still here"


def test_commands_and_update_answers_a_hundred_commands_at_once(start_example, listener):
    listener.subscribe(TOPIC + "answer")
    board = start_example("commands_and_update")
    board.wait_for_output("mqtt: online", WAIT_S)
    command = '{"id": %d, "do": "echo", "text": "hello"}'
    listener.publish_all([(TOPIC + "command", command % number, 1) for number in range(100)])
    answers = [json.loads(next_on(listener, TOPIC + "answer")) for _ in range(100)]
    assert [each["id"] for each in answers] == list(range(100))
    assert {each["value"] for each in answers} == {"hello"}


def test_send_file_brings_a_file_that_the_board_then_runs(start_example, broker, tmp_path):
    board = start_example("commands_and_update")
    board.wait_for_output("mqtt: online", WAIT_S)
    program = tmp_path / "app.py"
    program.write_text("print('the new program')\n" + "# filled up\n" * 800)
    path = "%s:%s" % (ROOT / "micropython", ROOT / "cpython_shim")
    command = [sys.executable, EXAMPLES / "send_file.py", broker.uri, NAME, program]
    with Program(command, {"PYTHONPATH": path}) as sender:
        status, lines = sender.wait_for_end(40)
    assert (status, lines[-1]) == (0, "sent: %d bytes" % program.stat().st_size)
    assert (board.files / "app.py").read_bytes() == program.read_bytes()
    assert not (board.files / "update.part").exists()


def updating(start_example, listener):
    """A board that receives files; a function: topic, payload -> its answer."""
    listener.subscribe(TOPIC + "answer")
    board = start_example("commands_and_update", more={"app.py": "old"})
    board.wait_for_output("mqtt: online", WAIT_S)

    def ask(topic_name, payload):
        listener.publish(TOPIC + topic_name, payload)
        return json.loads(next_on(listener, TOPIC + "answer"))

    return board, ask


BEGIN = '{"id": 1, "do": "begin", "name": "app.py"}'


def end_of(data, name="app.py"):
    digest = hashlib.sha256(data).hexdigest()
    return json.dumps({"id": 2, "do": "end", "name": name, "sha256": digest})


def test_a_damaged_file_changes_nothing(start_example, listener):
    board, ask = updating(start_example, listener)
    assert ask("command", BEGIN) == {"id": 1, "value": 0}
    for at, size in ((0, 3), (0, 3), (9, 3)):  # again, and one that is not its turn
        assert ask("piece/%d" % at, "new") == {"id": -1, "value": size}
    assert "damaged" in ask("command", end_of(b"another"))["error"]
    assert (board.files / "app.py").read_text() == "old"


def test_an_update_that_began_anew_is_not_finished_by_the_end_of_the_one_before(
    start_example, listener
):
    """The sum was right once, and the file empty since."""
    board, ask = updating(start_example, listener)
    ask("command", BEGIN)
    assert ask("piece/0", "new") == {"id": -1, "value": 3}
    ask("command", '{"id": 1, "do": "begin"}')
    assert "error" in ask("command", end_of(b"new"))
    assert (board.files / "app.py").read_text() == "old"


def test_an_update_goes_on_where_it_was_when_the_board_was_reset(start_example, listener):
    board, ask = updating(start_example, listener)
    ask("command", BEGIN)
    assert ask("piece/0", "the new ") == {"id": -1, "value": 8}
    board.reset_button()
    board.wait_for_output("(?s)mqtt: online.*mqtt: online", WAIT_S)
    assert ask("piece/8", "program") == {"id": -1, "value": 15}
    assert "error" not in ask("command", end_of(b"the new program"))
    assert (board.files / "app.py").read_bytes() == b"the new program"
    assert "error" in ask("piece/15", "more"), "no update is under way"


def test_the_end_of_an_update_may_be_asked_for_again(start_example, listener):
    """Its answer may be lost with the sender's connection: the update is in place all the same."""
    board, ask = updating(start_example, listener)
    ask("command", BEGIN)
    ask("piece/0", "new")
    for _ in range(2):
        assert ask("command", end_of(b"new")) == {"id": 2, "value": None}
    assert (board.files / "app.py").read_text() == "new"
    assert "damaged" in ask("command", end_of(b"newer"))["error"]


def test_an_update_takes_no_other_name_and_no_endless_file(start_example, listener):
    board, ask = updating(start_example, listener)
    before = (board.files / "main.py").read_bytes()
    assert "error" in ask("command", end_of(b"")), "nothing has begun"
    assert "error" in ask("piece/0", "new")
    ask("command", BEGIN)
    assert ask("piece/0", "new") == {"id": -1, "value": 3}
    assert ask("piece/x", "new") == {"id": -1, "value": 3}
    for name in ("main.py", "../app.py", "/app.py", "", None, ["app.py"]):
        assert "error" in ask("command", end_of(b"new", name)), name
    assert (board.files / "main.py").read_bytes() == before
    (board.files / "update.part").write_bytes(bytes(100_001))
    assert "too large" in ask("piece/100001", "new")["error"]
    assert (board.files / "app.py").read_text() == "old"


# ---------------------------------------------------------------------------
# From other clients
# ---------------------------------------------------------------------------

UMQTT = ROOT / "micropython" / "compat" / "umqtt"

# Neither PyPI nor Debian has mqtt_as, so no test can get it. It was run by hand, see
# docs/migration.md.
NOT_RUN = {"before_mqtt_as"}


@pytest.mark.parametrize("name", ["before_umqtt", "from_umqtt", "from_mqtt_as"])
def test_before_and_after_do_the_same(start_example, broker, listener, name):
    listener.subscribe(TOPIC + "#")
    drop_in = {}
    if name == "before_umqtt":
        drop_in = {"umqtt/%s" % path.name: path.read_bytes() for path in UMQTT.glob("*.py")}
    board = start_example(name, more=drop_in)
    assert next_on(listener, TOPIC + "status") == b"online"
    for word, level in ((b"on", 1), (b"off", 0)):
        listener.publish(TOPIC + "lamp/set", word)
        assert next_on(listener, TOPIC + "lamp") == word
        assert board.events("pin")[-1] == (27, level)
    board.power_off()
    assert next_on(listener, TOPIC + "status") == b"offline"


@pytest.mark.parametrize("name", ["before_umqtt", "from_umqtt", "from_mqtt_as"])
def test_before_and_after_obey_again_when_the_server_was_away(start_example, broker, name):
    drop_in = {"umqtt/simple.py": (UMQTT / "simple.py").read_bytes()}
    board = start_example(name, more=drop_in)
    board.wait_for_output("connected|mqtt: online", WAIT_S)
    broker.restart()
    again = ends.Peer(broker.uri).connect()
    again.subscribe(TOPIC + "lamp")

    def is_obeyed():
        again.publish(TOPIC + "lamp/set", "on")
        return board.events("pin")[-1] == (27, 1)

    wait_until(is_obeyed, "it does not obey any more", 40)
    again.disconnect()
