"""start() and stop(): one check, by its name, against a real server.

    background.py NAME '{"uri": "mqtt://127.0.0.1:1883", "client_id": "a", ...}' TOPIC

Each check is a function below. It ends with ["ok"], or with a traceback. What it needs from the
other side it asks for: ["please", what], and then waits for a line on its standard input.
"""

import _thread
import gc
import sys

from control import error_text, open_files, read_argument, say

import mqttpipe
from mqttpipe import LocalError, MQTTClient, TransportError, sleep_ms, ticks_diff, ticks_ms

WAIT_MS = 10_000


class Case:
    """A client that keeps what it is told."""

    def __init__(self, options, topic):
        self.topic = topic
        self.options = options
        self.messages = []
        self.errors = []
        self.offline = []
        self.make()

    def make(self, **options):
        client = self.client = MQTTClient(**dict(self.options, **options))
        client.on_message = lambda c, message: self.messages.append(message.payload)
        client.on_error = lambda c, error: self.errors.append(error)
        client.on_offline = lambda c, error: self.offline.append(error)
        return client

    def online(self, **options):
        """A client in the background that hears its own messages."""
        client = self.make(**options) if options else self.client
        client.subscribe(self.topic, None, 1)
        client.start()
        assert client.wait_online(WAIT_MS), error_text(self.offline and self.offline[-1])
        return client


def until(condition, what):
    begin_ms = ticks_ms()
    while not condition():
        assert ticks_diff(ticks_ms(), begin_ms) < WAIT_MS, "no " + what
        sleep_ms(5)


def please(what):
    say("please", what)
    sys.stdin.readline()


def raises(function, *arguments):
    try:
        function(*arguments)
    except LocalError as error:
        return error
    raise AssertionError("no LocalError")


def descriptors():
    gc.collect()
    return len(open_files())


# ---------------------------------------------------------------------------
# The checks
# ---------------------------------------------------------------------------


def check_stop_sends_what_is_queued_and_closes(case):
    client = case.online()
    tokens = [client.publish(case.topic, b"%d" % number, 1) for number in range(30)]
    assert client.stop() is True
    assert client.state_name == "DOWN" and client._driver is None
    assert all(client.is_done(token) for token in tokens)
    assert case.offline == [None] and not case.errors
    assert case.messages == [b"%d" % number for number in range(len(case.messages))]


def check_start_works_again_and_again(case):
    client = case.online()
    for number in range(3):
        assert client.wait_for(client.publish(case.topic, b"%d" % number, 1), WAIT_MS)
        until(lambda number=number: len(case.messages) == number + 1, "message")
        assert client.stop() is True
        assert client.stop() is True, "stop() of what is stopped"
        client.start()
        assert client.wait_online(WAIT_MS)
    assert client.stop() is True
    assert case.messages == [b"0", b"1", b"2"] and not case.errors


def check_stop_frees_all(case):
    del case.client
    before = descriptors()
    for _ in range(5):
        client = case.online(client_id="")
        assert client.stop()
        client = case.client = None
    # The thread's stack may hold the last one yet.
    until(lambda: descriptors() <= before + (4 if sys.platform == "linux" else 0), "end")
    assert descriptors() <= before + 4, (before, descriptors())


def check_a_callback_that_raises_is_reported_and_the_thread_goes_on(case):
    client = case.client
    calls = []

    def on_message(client, message):
        calls.append(1)
        raise ValueError("by the test %d" % len(calls))

    client.on_message = on_message
    case.online()
    client.on_message = on_message
    for number in range(3):
        client.publish(case.topic, b"x", 1)
        until(lambda number=number: len(calls) == number + 1, "call")
    until(lambda: len(case.errors) == 3, "error")
    assert [str(error) for error in case.errors] == ["by the test %d" % n for n in (1, 2, 3)]
    assert client.is_online() and client.stop()


def check_what_ends_the_thread_is_reported_and_stop_closes_all_the_same(case):
    """SystemExit of a callback: no Exception, so the thread ends with it."""
    client = case.online()

    def on_message(c, message):
        raise SystemExit(3)

    client.on_message = on_message
    client.publish(case.topic, b"x", 1)
    until(lambda: client._driver is None, "end of the thread")
    assert [type(error) for error in case.errors] == [SystemExit]
    assert client.stop() is True
    assert client.state_name == "DOWN", client.state_name
    client.on_message = None
    client.start()
    assert client.wait_online(WAIT_MS) and client.stop()


def check_stop_in_a_callback_is_refused_and_changes_nothing(case):
    client = case.online()
    refused = []

    def on_message(c, message):
        refused.append(raises(client.stop))

    client.on_message = on_message
    client.publish(case.topic, b"x", 1)
    until(lambda: refused or case.errors, "call")
    assert not case.errors, case.errors
    sleep_ms(50)
    assert client.is_online(), client.state_name
    assert client.wait_for(client.publish(case.topic, b"y", 1), WAIT_MS)
    assert client.stop() and case.offline == [None]


def check_the_waits_in_a_callback_are_refused(case):
    client = case.online()
    refused = []

    def on_message(c, message):
        for call in ((client.wait_online, 1), (client.wait_for, 1, 1), (client.step,)):
            refused.append(str(raises(*call)))

    client.on_message = on_message
    client.publish(case.topic, b"x", 1)
    until(lambda: len(refused) == 3 or case.errors, "call")
    assert not case.errors, case.errors
    assert client.is_online() and client.stop()


def check_nothing_else_may_drive_it_meanwhile(case):
    client = case.online()
    raises(client.step)
    raises(client.step, 100)
    raises(client.start)
    assert client.is_online() and client.stop()
    client.connect()
    begin_ms = ticks_ms()
    while not client.is_online():
        client.step(100)
        assert ticks_diff(ticks_ms(), begin_ms) < WAIT_MS
    client.disconnect()
    while client.state_name != "DOWN":
        client.step(100)


def check_stop_without_start_is_done_at_once(case):
    assert case.client.stop() is True
    assert case.client.state_name == "DOWN" and not case.offline


def check_several_threads_wait_at_once(case):
    client = case.online()
    # A place for each: without a lock around the interpreter (the unix port has none) a list that
    # several threads append to may break.
    answers = [None] * 6

    def work(number):
        mine = []
        try:
            for _ in range(5):
                token = client.publish(case.topic, b"%d" % number, number % 3)
                mine.append(client.wait_for(token, WAIT_MS))
        except Exception as error:
            mine.append(error_text(error))
        answers[number] = mine

    for number in range(6):
        _thread.start_new_thread(work, (number,))
    until(lambda: all(answers), "end of the waits")
    assert answers == [[True] * 5] * 6, answers
    assert client.stop()


def check_several_threads_subscribe_and_unsubscribe_at_once(case):
    client = case.online()
    answers = [None] * 4

    def work(number):
        name = "%s/%d" % (case.topic, number)
        mine = []
        try:
            for _ in range(5):
                mine.append(client.wait_for(client.subscribe(name, None, 1), WAIT_MS))
                mine.append(client.wait_for(client.publish(name, b"x", 1), WAIT_MS))
                mine.append(client.wait_for(client.unsubscribe(name), WAIT_MS))
        except Exception as error:
            mine.append(error_text(error))
        answers[number] = mine

    for number in range(4):
        _thread.start_new_thread(work, (number,))
    until(lambda: all(answers), "end of the work")
    assert answers == [[True] * 15] * 4, answers
    assert client.stop() and not case.errors
    assert case.messages == [b"x"] * 20, case.messages


def check_stop_with_a_time_that_is_too_short_goes_on_by_itself(case):
    client = case.online()
    please("stall")
    client.publish(case.topic, b"x", 1)  # will not be acknowledged
    begin_ms = ticks_ms()
    assert client.stop(50) is False
    assert ticks_diff(ticks_ms(), begin_ms) < 5_000
    assert client.state_name == "CLOSING"
    raises(client.start)
    please("resume")
    assert client.stop() is True and client.state_name == "DOWN"


def check_stop_while_the_server_is_silent_has_an_end(case):
    client = case.online(connect_timeout_ms=300)
    please("stall")
    client.publish(case.topic, b"x", 1)
    assert client.stop() is True and client.state_name == "DOWN"


def check_stop_between_two_attempts_is_done_at_once(case):
    client = case.online(reconnect_min_ms=60_000, reconnect_max_ms=60_000)
    please("refuse")
    until(lambda: client.state_name == "WAITING", "WAITING")
    begin_ms = ticks_ms()
    assert client.stop() is True
    assert ticks_diff(ticks_ms(), begin_ms) < 5_000


def check_disconnect_leaves_the_thread_and_connect_wakes_it(case):
    client = case.online()
    for _ in range(3):
        client.disconnect()
        until(lambda: client.state_name == "DOWN", "DOWN")
        assert client._driver is not None
        client.connect()
        assert client.wait_online(WAIT_MS)
    assert client.stop()


def check_a_thread_that_can_not_start_leaves_the_client_as_it_was(case):
    client = case.client
    real = mqttpipe.start_thread

    def fail(function):
        raise OSError("can't start a thread, by the test")

    mqttpipe.start_thread = fail
    try:
        client.start()
        raise AssertionError("it has started")
    except OSError:
        pass
    finally:
        mqttpipe.start_thread = real
    assert client.step(0) in (True, False), "anybody may drive it"
    assert client.stop() is True
    client.subscribe(case.topic, None, 1)
    client.start()
    assert client.wait_online(WAIT_MS) and client.stop()


def check_offline_is_told_in_the_background_and_it_comes_back(case):
    client = case.online(reconnect_min_ms=1, reconnect_max_ms=20)
    for _ in range(3):
        count = len(case.offline)
        please("cut")
        until(lambda count=count: len(case.offline) > count, "on_offline")
        assert isinstance(case.offline[count], TransportError)
        assert client.wait_online(WAIT_MS)
        assert client.wait_for(client.publish(case.topic, b"x", 1), WAIT_MS)
    assert client.stop()


def check_to_forget_stop_does_not_hang_the_exit(case):
    client = case.online()
    client.publish(case.topic, b"x", 1)


def main(name, options, topic):
    case = Case(read_argument(options), topic)
    globals()["check_" + name](case)
    say("ok")


main(*sys.argv[1:])
