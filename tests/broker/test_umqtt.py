"""micropython/compat/umqtt: programs for umqtt.simple and umqtt.robust run on it, and gain by it.

The programs are in umqtt_programs/, written in the way that micropython-lib documents. Those of
micropython-lib itself were run by hand, see docs/migration.md.
"""

import pathlib
import time

import pytest
from ends import ROOT

import servers
from programs import WAIT_S, Program
from proxy import FIN, RST

PROGRAMS = pathlib.Path(__file__).resolve().parent / "umqtt_programs"
PATH = "%s:%s:.frozen" % (ROOT / "micropython" / "compat", ROOT / "micropython")


@pytest.fixture
def run(micropython, closing):
    """A function: name of a program, its arguments -> the Program."""

    def start(name, *arguments):
        command = [*micropython.command, PROGRAMS / (name + ".py"), *arguments]
        program = Program(command, {"MICROPYPATH": PATH})
        return closing(program, name, program.story)

    return start


def test_a_program_publishes_at_each_qos_and_ends(run, broker, peer, topic):
    peer.subscribe(topic)
    status, lines = run("publish", broker.host, broker.port, topic).wait_for_end()
    assert (status, lines) == (0, ["session 0", "done"])
    came = [peer.next_message() for _ in range(3)]
    assert [each.payload for each in came] == [b"hello", b"as text", b"third, fourth argument"]
    assert [each.qos for each in came] == [0, 0, 1]
    peer.publish(topic, b"", retain=True)


def test_a_program_answers_in_its_callback_and_topics_are_bytes(run, broker, peer, topic):
    program = run("receive", broker.host, broker.port, topic)
    program.wait_for("subscribed")
    peer.subscribe(topic + "/answer", topic + "/will")
    for text in ("one", "two"):
        peer.publish(topic + "/in", text, qos=1)
        program.wait_for(r"\(b'%s/in', b'%s'\)" % (topic, text))
        program.wait_for("first byte 50")  # PUBLISH, QoS 1
        assert peer.next_message().payload == text.encode()
    program.process.kill()
    assert peer.next_message().payload == b"gone"


def test_a_program_looks_for_messages_and_goes_on(run, broker, peer, topic):
    program = run("look", broker.host, broker.port, topic)
    program.wait_for("None")
    program.wait_for("ready")
    for text in ("a", "b", "c"):
        peer.publish(topic + "/one", text)
    program.wait_for("unsubscribed")
    deadline = time.monotonic() + 10
    while "two" not in program.story() and time.monotonic() < deadline:
        peer.publish(topic + "/one", "not for it")
        peer.publish(topic + "/two", "for it")
    status, lines = program.wait_for_end()
    assert status == 0 and lines[-2:] == ["after disconnect(): OSError", "at once True"]
    shown = [line for line in lines if line.startswith("(")]
    expected = [("one", text) for text in "abc"] + [("two", "for it")]
    assert shown == ["(b'%s/%s', b'%s')" % (topic, *each) for each in expected]


def test_a_callback_that_publishes_is_not_called_within_itself(run, broker, peer, topic):
    """Each message that waited was one more call deep, until there was no stack left."""
    program = run("nest", broker.host, broker.port, topic, 200)
    program.wait_for("subscribed")
    peer.publish_all([(topic + "/in", "%d" % number, 0) for number in range(200)])
    status, lines = program.wait_for_end(40)
    assert (status, lines[-1]) == (0, "deepest 1"), lines


def test_a_ping_is_answered_and_pings_go_on_while_messages_wait(run, broker, peer, topic):
    """wait_msg() behind ping() waited for a message; check_msg() was silent while some waited."""
    peer.subscribe(topic + "/will", topic + "/end")
    program = run("pings", broker.host, broker.port, topic)
    program.wait_for("pong None")
    program.wait_for("waits")
    time.sleep(0.5)
    peer.publish(topic + "/in", "no pong")
    program.wait_for("subscribed 50")
    peer.publish_all([(topic + "/in", "%d" % number, 0) for number in range(60)])
    status, lines = program.wait_for_end(30)
    assert (status, lines[-1]) == (0, "done"), lines
    assert peer.make_round_trip(topic + "/end") == [], "the server has seen no ping for 3 s"


def test_what_a_socket_takes_is_taken(run, broker, topic):
    status, lines = run("loose", broker.host, broker.port, topic).wait_for_end()
    assert (status, lines) == (0, ["session 0", "[b'at QoS 1']"]), lines


@pytest.mark.parametrize(
    "piece, sizes, end",
    [
        (5000, [4096], "got 900"),
        (1500, [4096, 2048, 1024], "got 900"),
        (1000, [4096, 2048, 1024], "MemoryError"),
    ],
)
def test_a_heap_in_pieces_gives_a_smaller_buffer(run, broker, topic, piece, sizes, end):
    """On a board that compiles the source, a connect() failed for 4,096 bytes in one piece."""
    status, lines = run("pieces", broker.host, broker.port, topic, piece).wait_for_end()
    assert (status, lines) == (0, ["asks for %d" % size for size in sizes] + [end]), lines


def test_tls_verifies_what_the_parameters_say(run, tls_broker, made, topic):
    """With cert_reqs=CERT_NONE, too, a certificate for another name was refused."""
    arguments = "localhost", tls_broker.port, topic, made.ca.cert_der_file
    status, lines = run("tls", *arguments).wait_for_end()
    lines = [line for line in lines if "insecure" not in line]
    assert (status, lines) == (0, ["told"] * 3 + ["OSError"]), lines


@pytest.mark.parametrize("end", ["disconnect", "reset"])
def test_what_the_server_keeps_is_lost_by_no_sleep(run, broker, peer, topic, end):
    """16 messages were read and acknowledged, one was delivered, and the rest forgotten."""
    program = run("jobs", broker.host, broker.port, topic, end)
    program.wait_for("asleep")
    for number in range(10):
        peer.publish(topic, "%d" % number, qos=1)
    status, lines = program.wait_for_end(40)
    assert (status, lines[-1]) == (0, "done 1"), lines
    came = [line for line in lines if line.startswith("came")]
    assert sorted(set(came)) == ["came %d" % number for number in range(10)], lines


def test_each_connect_begins_with_no_subscription_but_the_program_s(run, broker, topic):
    """A retained message came twice, and messages for what it had subscribed to before."""
    status, lines = run("anew", broker.host, broker.port, topic).wait_for_end()
    assert (status, lines) == (0, ["kept"] * 3 + ["for it"])


def test_a_timer_s_function_publishes_while_the_program_waits(run, broker, peer, topic):
    """It raised LocalError in the middle of step(), and wait_msg() IndexError behind it."""
    peer.subscribe(topic + "/tick")
    program = run("timers", broker.host, broker.port, topic)
    program.wait_for("subscribed")
    for text in "0123":
        peer.publish(topic + "/in", text)
        assert peer.next_message().payload == text.encode()
    peer.publish(topic + "/in", "4")
    status, lines = program.wait_for_end()
    expected = ["came %d" % number for number in range(5)] + ["disconnected 5"]
    assert (status, lines[1:]) == (0, expected), lines


def test_a_timer_s_function_that_connects_ends_no_attempt(run, broker, add_proxy, peer, topic):
    proxy = add_proxy()
    program = run("hasty", "127.0.0.1", proxy.port, topic)
    program.wait_for("subscribed")
    proxy.cut(RST)
    program.wait_for("not now")
    for _ in range(50):
        peer.publish(topic, "again")
        time.sleep(0.1)
        if "came again" in program.story():
            break
    program.wait_for("came again")


def test_a_second_connect_makes_the_subscriptions_that_stood_and_no_others(
    run, broker, peer, topic
):
    program = run("again", broker.host, broker.port, topic)
    program.wait_for("wrong LocalError")
    program.wait_for("again 1")
    peer.publish(topic + "/left", "not for it")
    peer.publish(topic + "/right", "for it")
    status, lines = program.wait_for_end()
    assert (status, lines[-1]) == (0, "(b'%s/right', b'for it')" % topic), lines


@pytest.mark.parametrize("end", ["disconnect", "no disconnect"])
@pytest.mark.parametrize("how", ["gone", "silent"])
def test_a_program_goes_to_another_server(run, broker, add_proxy, topic, how, end):
    """connect() asked the old one once more, as long as that was not given up."""
    proxy = add_proxy()
    program = run("other", "127.0.0.1", proxy.port, topic, broker.port, end)
    program.wait_for("came")
    if how == "gone":
        proxy.refuse()
        proxy.cut(RST)
    else:
        proxy.stall()
    status, lines = program.wait_for_end()
    assert (status, lines[-2:]) == (0, ["session 0", "came here"]), lines


def test_a_program_goes_to_another_server_though_the_first_one_is_there(
    run, broker, add_proxy, topic
):
    """connect() with a connection did nothing: a server that had just fallen silent was kept."""
    proxy = add_proxy()
    program = run("other", "127.0.0.1", proxy.port, topic, broker.port, "at once")
    status, lines = program.wait_for_end()
    assert (status, lines) == (0, ["connected", "session 0", "came here"])
    ends = ["Client %s disconnected." % name for name in (topic, topic + "/2")]
    deadline = time.monotonic() + WAIT_S
    while not all(end in broker.log() for end in ends):
        assert time.monotonic() < deadline, "without DISCONNECT: there comes its will"
        time.sleep(0.05)


def test_a_ping_without_a_connection_raises(run, add_proxy, peer, topic):
    """It returned None for ever: a program that connects when ping() fails never did."""
    proxy = add_proxy()
    proxy.refuse()
    peer.subscribe(topic)
    program = run("health", "127.0.0.1", proxy.port, topic)
    program.wait_for("not yet")
    proxy.resume()
    assert peer.next_message().payload == b"here", program.story()


ACCESS = """\
allow_anonymous false
password_file {folder}/users
acl_file {folder}/access
"""


def test_what_is_raised_is_what_was_raised(run, broker):
    files = {
        "users": servers.password_line("lamp", "secret"),
        "access": "user lamp\ntopic readwrite own/#\n",
    }
    try:
        another = broker.another(ACCESS, files)
    except servers.NotOurs as error:
        pytest.skip(str(error))
    with another:
        status, lines = run("fail", another.host, another.port, "lamp", "secret").wait_for_end()
    # mosquitto 2.0 grants a filter that matches nothing it may read.
    assert (status, [line for line in lines if not line.startswith("filter")]) == (
        0,
        ["refused (5,)", "0", "nobody True"],
    )


@pytest.mark.parametrize("how", [RST, FIN])
def test_robust_goes_on_through_cuts_and_loses_nothing_at_qos_1(
    run, broker, add_proxy, topic, how
):
    proxy = add_proxy()
    program = run("go_on", "127.0.0.1", proxy.port, topic, 20, 10_000)
    program.wait_for("new session")
    program.wait_for("came 3$")
    proxy.cut(how)
    program.wait_for("mqtt: TransportError")
    program.wait_for("all published", 30)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        came = {line for line in program.story().splitlines() if line.startswith("came")}
        if len(came) == 20:
            return
        time.sleep(0.05)
    raise AssertionError(program.story())


def test_a_subclass_of_robust_says_that_it_is_online_after_each_reconnection(
    run, broker, add_proxy, peer, topic
):
    proxy = add_proxy()
    peer.subscribe(topic)
    run("say_online", "127.0.0.1", proxy.port, topic)
    assert peer.next_message().payload == b"online 1"
    for number in (2, 3):
        proxy.cut(RST)
        said = [peer.next_message().payload for _ in range(2)]
        assert said == [b"offline", b"online %d" % number]
    peer.publish(topic, b"", retain=True)


def test_what_a_subclass_subscribes_to_again_brings_retained_messages_once(
    run, broker, add_proxy, peer, topic
):
    """mqttpipe had made the subscriptions again, and the program did so once more."""
    proxy = add_proxy()
    peer.publish(topic + "/kept", "kept", retain=True)
    program = run("resubscribe", "127.0.0.1", proxy.port, topic)
    for number in range(3):
        program.wait_for("connected")
        peer.publish(topic + "/in", "%d" % number)
        program.wait_for("came %d" % number)
        if number < 2:
            proxy.cut(RST)
    peer.publish(topic + "/kept", b"", retain=True)
    assert program.story().count("came kept") == 3, program.story()


@pytest.mark.parametrize("begin", ["connect", "reconnect", "disconnect"])
def test_reconnect_connects_whatever_was_before(run, broker, add_proxy, peer, topic, begin):
    """After a connect() that has failed, without one, and after disconnect()."""
    proxy = add_proxy()
    if begin != "disconnect":
        proxy.refuse()
    peer.subscribe(topic)
    program = run("late", "127.0.0.1", proxy.port, topic, begin)
    if begin == "disconnect":
        program.wait_for("not yet")
        proxy.refuse()
        program.wait_for("none None True")
    else:
        program.wait_for("soon")
        time.sleep(1.5)
    proxy.resume()
    status, lines = program.wait_for_end(20)
    assert (status, lines[-2:]) == (0, ["reconnected 0", "done"]), lines
    assert peer.next_message().payload == b"here"


def test_reconnect_asks_a_subclass_until_it_has_connected(run, broker, topic):
    status, lines = run("no_wifi", broker.host, broker.port, topic).wait_for_end(20)
    failed = ["mqtt reconnect: OSError('no Wi-Fi',)"] * 2
    assert (status, lines) == (0, [*failed, "reconnected 0", *failed, "reconnected 1"]), lines


def test_what_waits_in_robust_s_queue_outlives_disconnect_and_connect(
    run, broker, add_proxy, peer, topic
):
    proxy = add_proxy()
    peer.subscribe(topic)
    program = run("keep", "127.0.0.1", proxy.port, topic)
    program.wait_for("connected")
    proxy.refuse()
    proxy.cut(RST)
    program.wait_for("disconnected")
    program.wait_for("not yet")
    proxy.resume()
    assert program.wait_for_end()[0] == 0
    assert [peer.next_message().payload for _ in range(2)] == [b"fire", b"out"]


def test_a_dead_connection_ends_no_call_after_its_time(run, broker, add_proxy, topic):
    """The bytes go nowhere and nobody tells: umqtt.simple waits for ever there."""
    proxy = add_proxy()
    program = run("go_on", "127.0.0.1", proxy.port, topic, 100, 1_000)
    program.wait_for("came 3$")
    proxy.stall()
    program.wait_for("mqtt: TimedOut", 25)
    proxy.resume()
    program.wait_for("came", 25)
