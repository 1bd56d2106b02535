"""MQTT 5.0: request and response (section 4.10)."""

from fakes import ECONNRESET, Bench, needs, raises
from mqtt5 import CONNACK_SESSION, asked, connack, online

import mqttpipe


class Asker:
    """A client online, and what its requests have brought."""

    def __init__(self, **options):
        self.bench = online(**options)
        self.client = self.bench.client
        self.got = []

    def on_response(self, client, message):
        self.got.append(message and (message.topic_name, message.payload))

    def ask(self, payload, timeout_ms=5000, **options):
        """Returns the correlation data of the request, as on the wire."""
        self.client.request("ask", payload, self.on_response, timeout_ms, **options)
        self.bench.steps()
        wire = self.bench.server.received()
        if wire[0] == 0x82:
            assert wire[:19] == b"\x82\x10\xff\x01\x00\x00\x0aresponse/c\x00\x30", wire
            wire = wire[18:]
            self.bench.exchange(b"\x90\x04\xff\x01\x00\x00")
        assert wire[:7] == b"\x30" + wire[1:2] + b"\x00\x03ask", wire
        for part in (b"\x08\x00\x0aresponse/c", b"\x09\x00\x06"):
            assert wire.count(part) == 1, wire
        at = wire.find(b"\x09\x00\x06") + 3
        return wire[at : at + 6]

    def answer(self, mark, payload):
        properties = b"\x09\x00" + bytes((len(mark),)) + mark
        body = b"\x00\x0aresponse/c" + bytes((len(properties),)) + properties + payload
        self.bench.exchange(bytes((0x30, len(body))) + body)


def test_a_response_finds_its_request():
    asker = Asker()
    marks = [asker.ask(b"%d" % number) for number in range(8)]
    assert len(set(marks)) == 8
    for number in (3, 0, 7, 1):
        asker.answer(marks[number], b"answer %d" % number)
        assert asker.got.pop() == ("response/c", b"answer %d" % number)
    asker.answer(marks[3], b"once more")
    asker.answer(b"unknown", b"x")
    assert asker.got == []
    assert asker.bench.client.is_online()


def test_only_eight_wait_at_once():
    asker = Asker()
    marks = [asker.ask("x") for _ in range(8)]
    raises(mqttpipe.QueueFull, asker.client.request, "ask", "x", print, 1000)
    asker.answer(marks[5], b"y")
    asker.ask("x")
    raises(mqttpipe.QueueFull, asker.client.request, "ask", "x", print, 1000)


def test_none_in_time_is_told_with_none():
    asker = Asker()
    late = asker.ask("x", 2000)
    asker.ask("x", 1000)
    soon = asker.ask("x", 5000)
    assert asker.client.next_deadline_ms() == 1000
    for ms, count in ((999, 0), (1, 1), (999, 1), (1, 2)):
        asker.bench.clock.advance(ms)
        asker.bench.steps()
        assert asker.got == [None] * count, ms
    asker.answer(late, b"too late")
    asker.answer(soon, b"in time")
    assert asker.got == [None, None, ("response/c", b"in time")]


def test_a_request_that_timed_out_is_not_sent_any_more():
    """Whoever asked may have asked again, and a lamp would be switched twice."""
    needs("mqtt5", "offline", "qos2")
    bench = Bench(protocol=5)
    told = []
    bench.client.on_dropped = lambda client, token: told.append(token)
    answered = lambda client, message: told.append(message)  # noqa: E731
    for qos in range(3):
        bench.client.request("lamp", "toggle", answered, 200, qos)
    late = bench.client.request("lamp", "on", answered, 10_000, 1)
    bench.clock.advance(200)
    bench.steps()
    assert sorted(told, key=repr) == [late - 3, late - 2, late - 1, None, None, None]
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.exchange(connack())
    wire = bench.server.received() + bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    assert b"toggle" not in wire and wire.count(b"\x00\x04lamp") == 1 and wire[-2:] == b"on"


def test_nor_is_it_if_its_way_becomes_free_in_the_same_step():
    needs("offline")
    asker = Asker(in_flight_max=1)
    client, server = asker.client, asker.bench.server
    asker.ask("first", 10_000)
    token = client.publish("t", "x", 1)
    client.request("ask", "late", asker.on_response, 200, 1)
    asker.bench.steps()
    server.received()
    asker.bench.clock.advance(200)
    client.step()  # it is due now
    server.send(b"\x40\x02\x00" + bytes((token,)))
    asker.bench.steps()
    assert asker.got == [None] and b"late" not in server.received()


def test_what_was_sent_at_qos_2_is_sent_again_as_it_was():
    """[MQTT5-4.3.3-7] Its request has timed out."""
    needs("offline", "qos2")
    bench = online(clean_session=False, session_expiry_s=60)
    for properties in (None, {"message_expiry_interval": 300_000}):
        bench.client.request("ask", "x", lambda client, message: None, 200, 2, properties)
        bench.steps()
        bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    first = bench.exchange()
    bench.server.received()
    bench.clock.advance(200)
    bench.steps()
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    again = bench.exchange(CONNACK_SESSION)
    assert again.count(b"\x00\x03ask") == 2 and again.count(b"\x02\x00\x04\x93\xe0") == 1
    assert b"\x02\x00\x00\x00\x01" not in again, (first, again)


def test_slow_callbacks_without_a_response_do_not_keep_the_pings_back():
    asker = Asker(keep_alive_s=10)
    bench = asker.bench
    silent_s = []

    def on_response(client, message):
        asker.got.append(message)
        silent_s.append(0 if bench.server.received() else silent_s[-1] + 3 if silent_s else 5)
        bench.clock.advance(3000)

    asker.on_response = on_response
    for _ in range(8):
        asker.ask("x")
    bench.clock.advance(5000)
    bench.steps()
    assert asker.got == [None] * 8
    assert max(silent_s) < 15, silent_s


def test_its_time_goes_on_without_a_connection():
    asker = Asker()
    asker.ask("x", 2000)
    asker.bench.server.error = ECONNRESET
    asker.bench.steps()
    asker.client.disconnect()
    asker.bench.clock.advance(2000)
    asker.bench.steps()
    assert asker.got == [None]


def test_a_request_before_the_connection_waits_for_it():
    needs("mqtt5")
    bench = Bench(protocol=5)
    bench.client.request("ask", "x", print, 5000)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert bench.exchange(connack())[:1] == b"\x82"
    wire = bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    assert wire[:1] == b"\x30", "the subscription was there before it"


def test_without_a_client_id_responses_have_a_topic_of_their_own():
    """The server assigns one later: "response/" alone would be every such client's."""
    topics = set()
    for drawn in (0, 0x1234):
        bench = asked(client_id="")
        bench.random = drawn
        bench.client.request("ask", b"?", lambda client, message: None, 5000)
        topics.add(bench.client.response_topic)
        bench.server.received()
        sent = bench.exchange(connack(b"\x12\x00\x05srv-1"))
        assert bench.client.response_topic in sent
    assert len(topics) == 2 and b"response/" not in topics


def test_with_a_client_id_that_no_topic_name_can_hold_they_have_one_as_well():
    for client_id in ("#", "x+y", "a/#"):
        bench = online(client_id=client_id)
        bench.random = 0x1234
        bench.client.request("ask", "?", print, 5000)
        assert bench.client.response_topic == b"response/1234"
        assert bench.exchange().count(b"\x00\x0dresponse/1234") == 2, "filter and property"
    bench = online(client_id="a/b")
    bench.client.request("ask", "?", print, 5000)
    assert bench.client.response_topic == b"response/a/b"


def test_a_response_topic_with_a_wildcard_is_not_subscribed_to():
    bench = online()
    bench.client.response_topic = "mine/#"
    raises(mqttpipe.LocalError, bench.client.request, "a", "x", print, 1000)
    assert bench.exchange() == b""


def test_an_answer_whose_callback_raises_is_reported():
    asker = Asker()

    def fail(client, message):
        raise ValueError("of the test")

    asker.on_response = fail
    mark = asker.ask("x")
    asker.bench.take_events()
    asker.answer(mark, b"")
    ((name, error),) = asker.bench.take_events()
    assert name == "error" and type(error) is ValueError


def test_properties_and_another_response_topic_are_sent_with_it():
    bench = online()
    bench.client.response_topic = "mine"
    bench.client.request("a", "x", print, 1000, 1, {"content_type": "c"})
    bench.steps()
    wire = bench.server.received()
    assert wire[:10] == b"\x82\x0a\xff\x01\x00\x00\x04min" and wire[11:12] == b"\x01"
    wire = wire[12:]
    assert wire[:1] == b"\x32" and b"\x08\x00\x04mine" in wire and b"\x03\x00\x01c" in wire


def test_wrong_requests_leave_nothing_behind():
    bench = online(pipe_slots=1)
    request = bench.client.request
    for arguments in (("a/+", "x", print, 1), ("a", "x", 5, 1), ("a", "x", print, 0)):
        raises(mqttpipe.LocalError, request, *arguments)
    for properties in ({"no": 1}, 5, "x", "", [1], [("content_type", "c")]):
        raises(mqttpipe.LocalError, request, "a", "x", print, 1, 0, properties)
    bench.server.write_credit = 0
    bench.client.publish("t", "x")
    for _ in range(9):
        raises(mqttpipe.QueueFull, request, "a", "x", print, 1000)
    bench.server.write_credit = 1 << 20
    bench.steps()
    request("a", "x", print, 1000)
    raises(mqttpipe.LocalError, Bench().client.request, "a", "x", print, 1)


def test_someone_else_answers():
    """What stands in a message is all that the one who answers needs."""
    bench = online()

    def on_ask(client, message):
        properties = {"correlation_data": message.properties["correlation_data"]}
        client.publish(message.properties["response_topic"], "21.5", properties=properties)

    bench.client.on_message = on_ask
    wire = bench.exchange(b"\x30\x0e\x00\x01q\x09\x08\x00\x01r\x09\x00\x02id" + b"?")
    assert wire == b"\x30\x0d\x00\x01r\x05\x09\x00\x02id21.5"


def test_a_first_request_that_fails_does_no_harm_to_the_next():
    """Whatever ends it half way: here it is memory, and Ctrl-C does the same."""
    asker = Asker()
    urandom = mqttpipe.urandom

    def fail(count):
        raise MemoryError

    mqttpipe.urandom = fail
    raises(MemoryError, asker.client.request, "ask", "x", print, 1000)
    mqttpipe.urandom = urandom
    asker.answer(asker.ask("x"), b"y")
    assert asker.got == [("response/c", b"y")]


def test_a_request_that_is_refused_or_taken_back_is_told_at_once_and_leaves_its_place():
    """A responder that is not allowed kept all eight places taken, each for its whole time."""
    needs("offline")
    asker = Asker()
    asker.ask("x", 60_000)
    for at in range(7):
        token = asker.client.request("ask", "x", asker.on_response, 60_000, qos=1)
        asker.bench.steps()
        if at % 2:
            asker.bench.exchange(b"\x40\x03\x00" + bytes((token,)) + b"\x87")
        else:
            assert asker.client.cancel(token)
            asker.bench.steps()
        assert asker.got == [None] * (at + 1)
    for _ in range(7):  # beside the first
        asker.client.request("ask", "x", asker.on_response, 60_000)
    raises(mqttpipe.QueueFull, asker.client.request, "ask", "x", print, 1000)


def test_a_request_that_the_server_can_not_take_is_told_at_once():
    needs("offline")
    bench = asked()
    got = []
    client = bench.client
    token = client.request("ask", "x" * 90, lambda client, message: got.append(message), 9000)
    bench.exchange(connack(b"\x27\x00\x00\x00\x40"))
    assert got == [None]
    events = bench.take_events()
    texts = [str(one[1]) for one in events if one[0] == "error"]
    assert len(texts) == 1 and "too large" in texts[0] and "message %d" % token in texts[0], texts
