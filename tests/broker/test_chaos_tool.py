"""tools/chaos.py: a short run in each place, and that it can't be deceived.

With `--long`: ten minutes in each place, and a seed that is drawn. A seed that failed:

    python3 tools/chaos.py --seed 12345 --minutes 10 --on micropython32
"""

import contextlib
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
import types

import pytest

import mqttpipe
import servers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOL = ROOT / "tools" / "chaos.py"

sys.path.append(str(ROOT / "tools" / "chaos"))

import chaos_books as books  # noqa: E402
import chaos_client  # noqa: E402
import chaos_run  # noqa: E402
import chaos_schedule as schedule  # noqa: E402

import chaos  # noqa: E402
import setup_env  # noqa: E402
from proxy import DOWN, UP  # noqa: E402

# place -> its name for get_interpreter()
PLACES = {
    "cpython": "CPython",
    "micropython": "MicroPython 64-bit",
    "micropython32": "MicroPython 32-bit",
    "lwip": None,
}
SHORT = ("cpython", "micropython32", "lwip")
LONG_MINUTES = 10

# Seconds. The first run may have to install what tools/requirements-chaos.txt has.
RUN_TIMEOUT_S = 300
pytestmark = pytest.mark.timeout(RUN_TIMEOUT_S + 10)


def run_tool(*options, timeout_s=RUN_TIMEOUT_S):
    """Run the tool to its end; return its exit status and the lines of its stdout."""
    try:
        ran = subprocess.run(
            [sys.executable, str(TOOL), *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            cwd=ROOT,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        for output in (error.stdout, error.stderr):  # bytes, whatever was asked for
            print((output or b"").decode(errors="replace"))
        raise
    print(ran.stdout, ran.stderr, sep="\n")
    return ran.returncode, ran.stdout.splitlines()


def test_the_list_has_the_faults_of_the_place():
    status, lines = run_tool("--short", "--seed", "7", "--list", "--on", "cpython", "--on", "lwip")
    assert status == 0
    at = lines.index("emulated board, TCP:")
    assert lines[0] == "TCP:" and any(" cable out " in line for line in lines[at:])
    assert not any(" cable out " in line for line in lines[:at])


def test_a_file_that_can_not_be_written_is_refused_before_the_run(tmp_path):
    for option in ("--json", "--markdown"):
        for wrong in (tmp_path, tmp_path / "none" / "x"):
            status, lines = run_tool("--short", option, str(wrong))
            assert status == 2 and lines == []


@pytest.fixture
def check_place(request, get_interpreter):
    """A function that skips or fails the test if this place is not here."""
    if request.config.getoption("--no-broker"):
        pytest.skip("--no-broker")
    try:
        servers.choose("mosquitto")
    except servers.BrokerError as error:
        pytest.skip("it starts a mosquitto of its own: %s" % error)

    def check(name):
        if name:
            get_interpreter(name)
        elif request.config.getoption("--no-lwip"):
            pytest.skip("--no-lwip")

    return check


@pytest.mark.parametrize("place", SHORT)
def test_a_client_lives_through_the_chaos(place, check_place, tmp_path):
    check_place(PLACES[place])
    file = tmp_path / "chaos.json"
    status, lines = run_tool("--short", "--seed=1", "--on=" + place, "--json=%s" % file)
    wrong = [line for line in lines if line.startswith("WRONG")]
    assert (status, lines[0], lines[-1]) == (0, "seed: 1", "chaos: ok"), wrong
    check_figures(json.loads(file.read_text(encoding="utf-8")))
    assert str(tmp_path) not in file.read_text(encoding="utf-8")


def test_a_client_of_mqtt_5_lives_through_the_chaos(check_place, tmp_path):
    check_place(PLACES["micropython32"])
    file = tmp_path / "chaos.json"
    arguments = "--short", "--seed=1", "--protocol=5", "--on=micropython32", "--json=%s" % file
    status, lines = run_tool(*arguments)
    wrong = [line for line in lines if line.startswith("WRONG")]
    assert (status, lines[-1]) == (0, "chaos: ok"), wrong
    figures = json.loads(file.read_text(encoding="utf-8"))
    check_figures(figures)
    # Topic aliases were used.
    assert all(link["by_alias"] > 20 for link in figures["places"][0]["legs"][0]["links"])


def check_figures(figures):
    """The short run had each fault once, and the messages flowed."""
    ((tcp, tls),) = [place["legs"] for place in figures["places"]]
    assert (tcp["leg"], tls["leg"]) == ("TCP", "TLS")
    for leg in (tcp, tls):
        assert leg["wrong"] == [] and set(leg["faults"].values()) == {1}
        for link in leg["links"]:
            assert all(book["accepted"] for book in link["books"])


@pytest.mark.timeout(60 * LONG_MINUTES + 900)
@pytest.mark.parametrize("place", PLACES)
def test_a_client_lives_through_ten_minutes_of_chaos(place, check_place, request):
    if not request.config.getoption("--long"):
        pytest.skip("takes minutes: --long runs it")
    check_place(PLACES[place])
    options = "--seed=%d" % random.randrange(1 << 30), "--minutes=%d" % LONG_MINUTES
    status, lines = run_tool(*options, "--on=" + place, timeout_s=60 * LONG_MINUTES + 800)
    wrong = [line for line in lines if line.startswith("WRONG")]
    assert (status, lines[-1]) == (0, "chaos: ok"), wrong


# ---------------------------------------------------------------------------
# It is ended
# ---------------------------------------------------------------------------


def commands_of(session_id):
    """Return the command lines of the processes of a session, by what Linux tells."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if int(fields[3]) == session_id and fields[0] != "Z":
                found.append(command)
    return found


def wait_for(condition, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.parametrize("how", ("SIGTERM", "SIGINT", "SIGKILL"))
@pytest.mark.parametrize("tool", ("chaos", "soak"))
def test_whoever_ends_it_no_process_is_left(tool, how, check_place, get_interpreter, tmp_path):
    check_place("CPython")
    if how == "SIGKILL" and not setup_env.dying_with_us([])[1:]:
        pytest.skip("no setpriv that knows --pdeathsig")
    options = ["--short", "--on=cpython"] if tool == "chaos" else ["--wraps=9"]
    if tool == "soak":
        get_interpreter("MicroPython 32-bit")
    with subprocess.Popen(
        [sys.executable, str(TOOL.with_name(tool + ".py")), *options],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            begun = wait_for(lambda: "mosquitto -c" in str(commands_of(process.pid)), 120)
            assert begun and len(commands_of(process.pid)) > 1
            time.sleep(1)
            process.send_signal(getattr(signal, how))
            status = process.wait(30)
            assert wait_for(lambda: not commands_of(process.pid), 10), commands_of(process.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert status == (-signal.SIGKILL if how == "SIGKILL" else 130)
    if how != "SIGKILL":
        assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------
# The schedule
# ---------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_faults_and_another_one_others():
    kinds = chaos_run.kinds_of(None, None)
    first, same, other = ([repr(f) for f in schedule.draw(seed, 90, kinds)] for seed in (5, 5, 6))
    assert first == same != other and len(first) > 20
    # Byte positions of cuts, too.
    assert any(re.search(r"Cut\((up|down), \d+, \w+\)", text) for text in first)


def test_the_list_has_the_faults_and_runs_nothing():
    status, lines = run_tool("--list", "--seed=5", "--minutes=2")
    assert status == 0 and {"TCP:", "TLS:"} < set(lines)
    first = schedule.draw("5 TCP", 90, chaos_run.kinds_of(None, None))[0]
    assert "  %r" % first in lines


@pytest.mark.parametrize("made, board", [(None, None), ("TLS", None), (None, "board")])
def test_each_kind_of_fault_comes_before_any_comes_again(made, board):
    kinds = chaos_run.kinds_of(made, board)
    names = [fault.name for fault in schedule.draw(1, 600, kinds)]
    assert len(names) > 4 * len(kinds)
    for begin in range(0, len(names) - len(kinds), len(kinds)):
        assert sorted(names[begin : begin + len(kinds)]) == sorted(kinds)


def test_a_short_run_has_every_fault_of_its_place():
    for board in (None, "board"):
        kinds = chaos_run.kinds_of(None, board)
        faults = schedule.draw(1, None, kinds)
        assert sorted(fault.name for fault in faults) == sorted(kinds)
        assert all(fault.duration_s == kinds[fault.name][0] for fault in faults)


# ---------------------------------------------------------------------------
# It can't be deceived
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("place", SHORT)
def test_a_short_run_that_loses_a_message_tells_it_before_it_is_given_up(place, monkeypatch):
    asked = []

    class Run:
        def __init__(self, *arguments, settle_timeout_s, **more):
            asked.append(settle_timeout_s)

        def run(self):
            return {}

        def close(self):
            pass

    monkeypatch.setattr(chaos_run, "Run", Run)
    options = types.SimpleNamespace(short=True, seed=1, minutes=1)
    where = types.SimpleNamespace(
        name=place, start=None, options={}, switched_on=lambda: contextlib.nullcontext(None)
    )
    for leg in ("TCP", "TLS"):
        chaos.run_leg(options, where, leg, None, print)
    assert 0 < sum(asked) < RUN_TIMEOUT_S / 2


def test_what_a_run_said_that_took_too_long_is_shown(tmp_path, monkeypatch, capsys):
    tool = tmp_path / "tool.py"
    tool.write_text("import time\nprint('lost: 7', flush=True)\ntime.sleep(60)\n")
    monkeypatch.setitem(globals(), "TOOL", tool)
    with pytest.raises(subprocess.TimeoutExpired):
        run_tool(timeout_s=2)
    assert "lost: 7" in capsys.readouterr().out


def test_all_places_are_looked_for_before_the_first_takes_its_time(monkeypatch):
    pytest.importorskip("rich")
    run = []

    def find_interpreter(name):
        if name != "cpython":
            raise chaos.Unavailable(name)
        return types.SimpleNamespace(name=name, version="", command=[]), ""

    monkeypatch.setattr(chaos, "find_interpreter", find_interpreter)
    monkeypatch.setattr(chaos, "run_leg", lambda *arguments, **more: run.append(arguments))
    options = types.SimpleNamespace(
        on=["cpython", "micropython32"], seed=1, minutes=1, short=False, protocol=4, peer=[]
    )
    with pytest.raises(chaos.Unavailable):
        chaos.run_all(options)
    assert run == []


@pytest.mark.parametrize("error", [OSError("no route"), servers.BrokerError("no mosquitto")])
def test_a_run_whose_world_fails_tells_it_beside_its_figures(error):
    def fail(*arguments):
        raise error

    run = object.__new__(chaos_run.Run)
    run.is_checked, run.links, run.faults, run._wait = True, [], [], fail
    run._samples, run._last_words, run._resets, run._wrongs = [], [], 0, []
    run.client = types.SimpleNamespace(slow_steps=list)
    assert run.run()["wrong"] == [str(error)]


def make_link(session="persistent"):
    """A Link to no broker, with books that are in order: three messages each way and QoS."""
    link = object.__new__(chaos_run.Link)
    link.session = session
    link.topic = "chaos/0"
    link.is_encrypted = False
    link.ours = books.Reader(link.topic)
    link.not_owed = [0, 0, 0]
    link.books = {(way, qos): books.Book() for way in ("out", "in") for qos in range(3)}
    for book in link.books.values():
        book.grow(3)
        for number in (1, 2, 3):
            book.enter(number)
    return link


def test_books_in_order_are_not_wrong():
    for session in ("persistent", "clean"):
        assert list(make_link(session).wrongs()) == []


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("way", ["out", "in"])
def test_a_lost_message_is_wrong_unless_the_broker_had_it(way, qos):
    link = make_link()
    link.books[way, qos].grow(4)
    (wrong,) = link.wrongs()
    assert "persistent session, %s, QoS %d: lost" % (way, qos) in wrong
    link.books[way, qos].charge_broker([3, 4, 5])
    assert list(link.wrongs()) == []
    assert link.books[way, qos].as_dict()["lost_by_broker"] == 2


@pytest.mark.parametrize("qos", [1, 2])
def test_what_the_client_has_acknowledged_is_its_own_loss_whatever_becomes_of_the_broker(qos):
    link = make_link()
    link.theirs = books.Reader(link.topic)
    link.books["in", qos].grow(5)
    topic = b"chaos/0/in/"
    link.ours.on_bytes(1, DOWN, publish(qos, 8, 4, topic) + publish(qos, 9, 5, topic))
    link.ours.on_bytes(1, UP, bytes((0x40 if qos == 1 else 0x50, 2, 0, 8)))
    for _ in range(2):  # it may be killed more than once
        link.charge_broker()
    (wrong,) = link.wrongs()
    assert "lost: [4]" in wrong
    assert link.books["in", qos].as_dict()["lost_by_broker"] == 1


def test_the_identifier_of_an_acknowledgement_is_that_of_the_message_sent_last():
    reader = books.Reader("chaos/0")
    sent = publish(1, 8, 4, b"chaos/0/in/") + publish(1, 8, 4, b"chaos/0/toggle")
    reader.on_bytes(1, DOWN, sent)
    reader.on_bytes(1, UP, b"\x40\x02\x00\x08")
    assert reader.taken[1] == set()


def test_a_message_published_after_unsuback_is_wrong_wherever_it_comes():
    run = object.__new__(chaos_run.Run)
    run._wrongs = []
    link = make_link()
    run.links = [link]
    link.toggle_number = 7
    run.on_event(["off", 0])
    link.toggle_number = 9
    run.on_event(["stray", 0, 7])  # it was on its way
    assert run._wrongs == []
    run.on_event(["stray", 0, 8])
    assert run._wrongs == ["client 0: a message published after UNSUBACK"]


def test_a_message_of_qos_2_that_comes_twice_is_wrong_unless_the_broker_repeated_it():
    link = make_link()
    link.books["out", 1].enter(3)  # at least once
    assert list(link.wrongs()) == []
    link.books["out", 2].enter(3)
    (wrong,) = link.wrongs()
    assert "QoS 2: came twice" in wrong
    link.books["out", 2].repeated = {3: 1}
    assert list(link.wrongs()) == []
    assert list(make_link("clean").wrongs()) == []


def test_a_publish_after_pubrel_is_wrong_unless_the_broker_has_lost_the_session():
    link = make_link()
    first = publish(2, 8, 3) + b"\x62\x02\x00\x08"
    link.ours.on_bytes(1, UP, first + publish(2, 8, 3))
    (wrong,) = link.wrongs()
    assert wrong == "PUBLISH after PUBREL: [3]"
    link.books["out", 2].anew = {3}
    assert list(link.wrongs()) == []


def test_without_a_session_what_comes_to_us_twice_at_qos_2_is_wrong_too():
    link = make_link("clean")
    link.books["out", 2].enter(3)  # the exchange may have begun anew
    assert list(link.wrongs()) == []
    link.books["in", 2].enter(3)
    (wrong,) = link.wrongs()
    assert "clean session, in, QoS 2: came twice" in wrong


def test_a_message_that_comes_at_another_qos_is_wrong():
    link = make_link()
    for qos in (2, 1):
        message = types.SimpleNamespace(
            topic_name="chaos/0/out/2", payload=chaos_run.payload_of(4), qos=qos
        )
        assert list(link.wrongs()) == []
        link.on_message(message)
    (wrong,) = link.wrongs()
    assert "out, QoS 2: broken" in wrong


def test_a_run_that_fails_before_its_end_has_lost_nothing_in_a_clean_session():
    class Broker:
        uri, host, port = "mqtt://127.0.0.1:1", "127.0.0.1", 1

    run = types.SimpleNamespace(protocol=4)
    with contextlib.closing(chaos_run.Link(0, "clean", Broker, 1, run)) as link:
        link.books["in", 1].grow(5)
        assert list(link.wrongs()) == []


def make_traffic():
    """What the program knows of a client that has unsubscribed from its toggle."""
    traffic = object.__new__(chaos_client.Traffic)
    traffic.number, traffic.happened, traffic.tokens = 0, [], {}
    traffic.toggle_token, traffic.is_wanted, traffic.is_off = 7, False, False
    traffic.is_answered = False
    traffic.in_topics, traffic.came, traffic.fresh = ["in/0", "in/1"], [[], []], set()
    traffic.client = types.SimpleNamespace(
        is_online=lambda: True, is_done=lambda token: traffic.is_answered
    )
    return traffic


def test_a_callback_just_behind_unsuback_is_wrong():
    traffic = make_traffic()
    traffic.on_toggle(traffic.client, None)
    assert traffic.happened == []
    traffic.is_answered = True
    traffic.on_toggle(traffic.client, None)
    assert traffic.happened == [("wrong", 0, "a callback after UNSUBACK")]


def come_in(traffic, qos):
    payload = chaos_run.payload_of(1)
    message = types.SimpleNamespace(qos=qos, view=memoryview(payload), topic_name="in/%d" % qos)
    traffic.on_in(traffic.client, message)


def test_it_is_not_quiet_before_the_token_of_unsubscribe_has_ended():
    traffic = make_traffic()
    for _ in range(2):
        assert not traffic.has_settled()
        come_in(traffic, 0)
        come_in(traffic, 1)
    traffic.is_answered = True
    assert traffic.has_settled()


def test_it_is_not_quiet_before_a_message_has_come_to_each_filter():
    traffic = make_traffic()
    come_in(traffic, 0)
    assert not traffic.has_settled()
    traffic.is_answered = True
    come_in(traffic, 0)
    assert not traffic.has_settled()
    come_in(traffic, 1)
    assert traffic.has_settled()


SIZES = """\
import sys
sys.path[:0] = %r
import chaos_client
traffic = chaos_client.Traffic(0, "mqtt://127.0.0.1:1", "chaos", 20, {})
traffic.forget_sizes()
before = chaos_client.memory()
for number in range(500):
    traffic.tokens[number] = number
    traffic.happened.append(number)
    traffic.came[1].append(number)
traffic.tokens.clear()
del traffic.happened[:]
del traffic.came[1][:]
kept = chaos_client.memory() - before
traffic.forget_sizes()
print(kept, chaos_client.memory() - before)
"""


def test_what_the_program_s_own_lists_once_held_is_not_taken_for_growth(micropython):
    folders = [str(ROOT / name) for name in ("micropython", "tools/chaos")]
    command = [*micropython.command, "-c", SIZES % folders]
    kept, left = map(int, subprocess.check_output(command, timeout=60).split())
    assert kept > 4000 and -200 < left < 200, (kept, left)


def test_of_the_messages_that_expire_only_each_second_one_is_taken_back():
    traffic = make_traffic()
    traffic.turn = traffic.spares = traffic.due_ms = traffic.every_ms = 0
    traffic.accepted, traffic.out_topics, traffic.spare_topic = [0] * 3, [b"0", b"1", b"2"], b"s"
    expiring, cancelled = [], []

    def publish(topic, payload, qos, expiry_s=None):
        token = traffic.turn + len(expiring) + 1
        if expiry_s:
            expiring.append(token)
        return token

    traffic.client = types.SimpleNamespace(publish=publish, cancel=cancelled.append)
    for _ in range(8 * chaos_client.SPARE_EVERY):
        traffic.publish(0)
    assert len(expiring) > 4 and cancelled == expiring[1::2]


def test_it_is_told_which_tokens_have_no_end():
    traffic = make_traffic()
    traffic.tokens = dict.fromkeys(range(30, 10, -1))
    assert traffic.endless() == [7, *range(11, 19)]
    run = object.__new__(chaos_run.Run)
    run._settle_timeout_s, run._samples, run._wrongs = 0, [], []
    run.links = [None, None]
    told = []
    answers = iter([[0, "ONLINE", [7, 11]], [1, "ONLINE", []]])

    def next_event(name, timeout_s):
        if name == "quiet":
            raise AssertionError("no event 'quiet'")
        return next(answers)

    run.client = types.SimpleNamespace(
        tell=told.append, is_over=lambda: False, next=next_event, slow_steps=list
    )
    with pytest.raises(chaos_run.Failed, match="no event"):
        run._sample()
    assert told == ["quiet", "why"]
    assert run._wrongs == [
        "client 0 does not come to rest: ONLINE, without an end: tokens [7, 11]"
    ]


def test_an_error_of_python_s_that_ends_a_connection_is_wrong():
    traffic = make_traffic()
    reset = mqttpipe.MQTTError("ONLINE: [Errno 104] Connection reset by peer")
    traffic.on_offline(traffic.client, reset)
    traffic.on_offline(traffic.client, None)
    assert [event[0] for event in traffic.happened] == ["offline"] * 2
    traffic.on_offline(traffic.client, mqttpipe.MQTTError("ONLINE: TypeError of ours, h"))
    assert traffic.happened[3] == (
        "wrong",
        0,
        "it ended a connection: MQTTError: ONLINE: TypeError of ours, h",
    )


def test_what_the_client_reports_is_wrong_and_told_once():
    traffic = make_traffic()
    for _ in range(3):
        traffic.on_error(traffic.client, mqttpipe.MQTTError("nonsense"))
    run = object.__new__(chaos_run.Run)
    run._wrongs, said = [], []
    run.say = said.append
    for event in traffic.happened:
        run.on_event(event)
    assert run._wrongs == ["client 0: on_error: MQTTError: nonsense"] and len(said) == 1


def test_a_message_of_qos_0_that_comes_twice_is_wrong():
    link = make_link("clean")
    link.books["in", 0].enter(2)
    (wrong,) = link.wrongs()
    assert "QoS 0: came twice" in wrong


def test_messages_out_of_order_are_wrong():
    link = make_link()
    link.books["in", 1].grow(5)
    link.books["in", 1].enter(5)
    link.books["in", 1].enter(4)
    (wrong,) = link.wrongs()
    assert "QoS 1: out of order" in wrong


def test_without_a_session_what_was_missed_is_not_owed_but_the_last_messages_are():
    link = make_link("clean")
    link.books["in", 1].grow(5)
    link.not_owed[1] = 5
    assert list(link.wrongs()) == []
    link.not_owed[1] = 4
    (wrong,) = link.wrongs()
    assert "lost with nothing in its way: [5]" in wrong


def publish(qos, packet_id, number, topic=b"chaos/0/out/"):
    topic += b"%d" % qos
    body = len(topic).to_bytes(2, "big") + topic + bytes((0, packet_id)) + b"%d x" % number
    return bytes((0x30 | qos << 1, len(body))) + body


def test_the_reader_knows_what_the_broker_has_acknowledged():
    reader = books.Reader("chaos/0")
    reader.on_bytes(1, UP, publish(1, 7, 40) + publish(2, 8, 50) + publish(2, 9, 51))
    reader.on_bytes(1, UP, publish(1, 10, 99, b"chaos/0/spare"))
    assert reader.acknowledged == {1: set(), 2: set()}
    reader.on_bytes(1, DOWN, b"\x40\x02\x00\x07" + b"\x40\x02\x00\x0a" + b"\x50\x02\x00\x08")
    assert reader.acknowledged == {1: {40}, 2: set()}
    reader.on_bytes(1, UP, b"\x62\x02\x00\x08")
    reader.on_bytes(2, DOWN, b"\x70\x02\x00\x08")
    assert reader.acknowledged == {1: {40}, 2: {50}}


def test_the_reader_knows_which_filters_the_broker_has():
    reader = books.Reader("chaos/0")
    reader.on_bytes(1, UP, b"\x82\x08\xff\x01\x00\x03a/b\x01")
    assert reader.filters == set()
    reader.on_bytes(1, DOWN, b"\x90\x03\xff\x01\x01")
    assert reader.filters == {"a/b"}
    reader.start_anew()
    assert reader.filters == set()


def test_a_second_copy_is_the_broker_s_only_if_it_is_marked_as_such():
    reader = books.Reader("chaos/0")
    first = publish(2, 8, 3) + b"\x62\x02\x00\x08"
    reader.on_bytes(1, DOWN, first + publish(2, 9, 3))
    assert not reader.repeated[DOWN]
    marked = publish(2, 8, 3)
    reader.on_bytes(2, DOWN, bytes((marked[0] | 0x08,)) + marked[1:])
    assert reader.repeated[DOWN] == {3: 1}


@pytest.mark.parametrize("samples", [[[1000, 6], [4000, 6]], [[1000, 6], [1000, 7]]])
def test_growth_is_wrong(samples):
    run = object.__new__(chaos_run.Run)
    run._samples = samples
    (wrong,) = run._growth()
    assert str([pair[0] for pair in samples]) in wrong or str([6, 7]) in wrong


@pytest.mark.parametrize(
    "option", ["--minutes=0", "--on=jython", "--peer=paho=.", "--peer=mqtt_as=no/such/folder"]
)
def test_a_wrong_option_is_refused(option):
    status, _ = run_tool(option)
    assert status == 2
