"""MQTT 5.0: enhanced authentication, in CONNECT and while online (section 4.12)."""

from fakes import CONNACK as CONNACK_4
from fakes import ECONNRESET, Bench, needs, raises
from mqtt5 import asked, connack, refused, take_apart

import mqttpipe

METHOD = b"\x15\x00\x01m"


def data(text):
    return b"\x16" + bytes((len(text) >> 8, len(text) & 0xFF)) + text


def auth(reason_code, properties):
    return bytes((0xF0, 2 + len(properties), reason_code, len(properties))) + properties


class Teller:
    """An application's function: says what it is told to, and remembers what it heard."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.heard = []

    def __call__(self, heard):
        self.heard.append(heard)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_method_and_the_first_data_are_in_connect():
    """[MQTT5-4.12.0-5] [MQTT5-3.1.2-30]"""
    for answer, parts in (
        (b"hi", [METHOD, data(b"hi")]),
        ("hi", [METHOD, data(b"hi")]),
        (None, [METHOD]),
    ):
        teller = Teller(answer)
        bench = asked(auth=("m", teller))
        properties = take_apart(bench.server.received())[2]
        assert [one for one in properties if one[0] in (0x15, 0x16)] == parts
        assert teller.heard == [None]
        bench.client.publish("t", "x")
        bench.steps()
        assert bench.server.received() == b"", "nothing else before CONNACK"


def test_questions_and_answers_until_the_server_consents():
    """[MQTT5-4.12.0-2, -3, -5] [MQTT5-3.15.2-1] [MQTT5-3.15.1-1]"""
    teller = Teller(b"1", b"2", None, b"")
    bench = asked(auth=("m", teller))
    bench.server.received()
    assert bench.exchange(auth(0x18, METHOD + data(b"a"))) == auth(0x18, METHOD + data(b"2"))
    assert bench.exchange(auth(0x18, METHOD)) == auth(0x18, METHOD)
    assert bench.exchange(auth(0x18, data(b"c") + METHOD)) == auth(0x18, METHOD + data(b""))
    assert not bench.client.is_online()
    bench.exchange(connack(METHOD + data(b"end")))
    assert bench.client.is_online()
    assert teller.heard == [None, b"a", b"", b"c", b"end"]


def test_each_connection_begins_anew_and_the_end_is_heard_without_data():
    teller = Teller()
    bench = asked(auth=("m", teller))
    bench.exchange(connack(METHOD))
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.exchange(connack(METHOD))
    assert bench.client.is_online() and teller.heard == [None, b"", None, b""]


def test_the_function_may_publish_and_no_lock_is_in_its_way():
    def publish(heard):
        bench.client.publish("t", heard or "")

    needs("mqtt5")
    bench = Bench(protocol=5, auth=("m", publish))
    bench.client.connect()
    bench.steps()
    bench.exchange(auth(0x18, METHOD + data(b"1")))
    bench.server.received()
    wire = bench.exchange(connack(METHOD + data(b"2")))
    assert wire == b"\x30\x04\x00\x01t\x00" + b"\x30\x05\x00\x01t\x001\x30\x05\x00\x01t\x002"


def test_a_function_that_raises_ends_the_attempt():
    for answers, packets in (
        ([ValueError("begin")], ()),
        ([b"", ValueError("then")], (auth(0x18, METHOD),)),
        ([b"", ValueError("last")], (connack(METHOD + data(b"v")),)),
        ([b"", 5], (auth(0x18, METHOD),)),
    ):
        needs("mqtt5")
        bench = Bench(protocol=5, auth=("m", Teller(*answers)))
        bench.client.connect()
        bench.steps()
        for packet in packets:
            bench.exchange(packet)
        error = bench.error()
        assert type(error) is mqttpipe.LocalError and "auth" in str(error), error
        assert bench.client.state_name == "WAITING", "it is tried again later"
        for connection in bench.network.connections:
            assert connection.is_closed


def test_another_method_or_none_is_a_protocol_error():
    """[MQTT5-4.12.0-5, -6, -7] [MQTT5-4.13.1-1]"""
    for options, packet in (
        (dict(auth=("m", Teller())), auth(0x18, b"\x15\x00\x01n")),
        (dict(auth=("m", Teller())), auth(0x18, data(b"x"))),
        (dict(auth=("m", Teller())), b"\xf0\x00"),
        (dict(auth=("m", Teller())), auth(0x19, METHOD)),
        (dict(auth=("m", Teller())), auth(0x00, METHOD)),
        (dict(auth=("m", Teller())), auth(0x80, METHOD)),
        (dict(auth=("m", Teller())), connack()),
        (dict(auth=("m", Teller())), connack(b"\x15\x00\x01n")),
        (dict(), auth(0x18, METHOD)),
        (dict(), connack(METHOD)),
    ):
        error, answer = refused(asked(**options), packet)
        assert type(error) is mqttpipe.ServerError and answer == b"\xe0\x01\x82", (packet, error)
    bench = asked()
    assert b"\xf0" not in bench.server.received()


def test_a_refused_method_is_told():
    """[MQTT5-4.12.0-1, -4]"""
    bench = asked(auth=("m", Teller()))
    bench.exchange(auth(0x18, METHOD))
    error, _ = refused(bench, connack(reason_code=0x8C))
    assert error.reason == "bad authentication method" and error.stage == "CONNACK"


def online(teller, **options):
    bench = asked(auth=("m", teller), **options)
    bench.exchange(connack(METHOD))
    bench.take_events()
    bench.server.received()
    bench.client.on_authenticated = lambda client: bench.events.append(("authenticated",))
    return bench


def test_once_more_while_online():
    """[MQTT5-4.12.1-1] [MQTT5-3.15.2-1]"""
    teller = Teller(b"1", None, b"again", b"2")
    bench = online(teller)
    bench.client.reauthenticate()
    bench.steps()
    assert bench.server.received() == auth(0x19, METHOD + data(b"again"))
    bench.client.publish("t", "x")
    assert bench.exchange(auth(0x18, METHOD + data(b"q"))) == (
        auth(0x18, METHOD + data(b"2")) + b"\x30\x05\x00\x01t\x00x"
    ), "messages go on meanwhile"
    bench.take_events()
    assert bench.exchange(auth(0x00, METHOD + data(b"v"))) == b""
    assert bench.take_events() == [("authenticated",)] and bench.client.is_online()
    assert teller.heard == [None, b"", None, b"q", b"v"]
    bench.client.reauthenticate()
    bench.steps()
    assert bench.server.received() == auth(0x19, METHOD)
    bench.exchange(b"\xf0\x06\x00\x04" + METHOD)
    assert bench.take_events() == [("authenticated",)]


def test_on_lwip_a_large_packet_waits_until_few_segments_are_on_their_way():
    """AUTH, and a message that is large by its properties: see test_unproven_writes.py."""
    before = mqttpipe._linger_ms
    mqttpipe._linger_ms = 10_500
    try:
        bench = online(Teller(b"1", None, b"a" * 1_500), packet_bytes_max=2_048)
        client, server = bench.client, bench.server
        for is_auth in (True, False):
            for _ in range(7):
                client.publish("t", "x")
                client.step()
            server.received()
            if is_auth:
                client.reauthenticate()
            else:
                client.publish("t", "x", properties={"user_property": [("n", "a" * 1_500)]})
            bench.steps()
            assert server.received() == b"\xc0\x00", is_auth
            assert b"a" * 1_500 in bench.exchange(b"\xd0\x00"), is_auth
            bench.exchange(b"\xf0\x00")
    finally:
        mqttpipe._linger_ms = before


def test_an_auth_without_anything_is_success():
    """[5: 3.15.2.1] Remaining length 0: no reason code, no properties."""
    teller = Teller(b"1", None, b"again")
    bench = online(teller)
    bench.client.reauthenticate()
    bench.exchange()
    assert bench.exchange(b"\xf0\x00") == b"" and bench.client.is_online()
    assert bench.take_events() == [("authenticated",)]
    assert teller.heard == [None, b"", None, b""]
    error, answer = refused(bench, b"\xf0\x00")
    assert answer == b"\xe0\x01\x82", "once"
    for packet in (b"\xf0\x01\x00", b"\xf0\x02\x00\x00"):
        bench = online(Teller())
        bench.client.reauthenticate()
        bench.exchange()
        error, answer = refused(bench, packet)
        assert answer == b"\xe0\x01\x82", packet


def test_asked_for_between_connect_and_online_it_begins_with_online():
    teller = Teller(b"1", None, b"again")
    bench = asked(auth=("m", teller))
    bench.client.subscribe("a")
    bench.client.reauthenticate()  # CONNECT has left
    bench.server.received()
    bench.exchange(connack(METHOD))
    assert teller.heard == [None, b""], "not before ONLINE"
    assert bench.exchange(b"\x90\x04\xff\x01\x00\x00") == auth(0x19, METHOD + data(b"again"))


def test_asked_for_before_connect_it_is_done_by_that():
    needs("mqtt5")
    teller = Teller()
    bench = Bench(protocol=5, auth=("m", teller))
    bench.client.reauthenticate()
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert bench.exchange(connack(METHOD)) == b""
    bench.client.subscribe("a")  # a chore
    bench.steps()
    assert bench.server.received()[:1] == b"\x82" and teller.heard == [None, b""]


def test_asked_for_while_it_goes_on_it_is_done_once_more_at_once():
    """Not when something else wakes the client: that may be the next ping."""
    teller = Teller(b"1", None, b"again", None, b"more")
    bench = online(teller)
    for _ in range(2):
        bench.client.reauthenticate()
        bench.steps()
    assert bench.server.received() == auth(0x19, METHOD + data(b"again"))
    assert bench.exchange(auth(0x00, METHOD)) == auth(0x19, METHOD + data(b"more"))
    assert bench.exchange(auth(0x00, METHOD)) == b""
    assert bench.take_events() == [("authenticated",)] * 2


def test_it_fails_by_the_servers_good_bye_or_by_our_function():
    """[MQTT5-4.12.1-2]"""
    bench = online(Teller())
    bench.client.reauthenticate()
    bench.steps()
    error, _ = refused(bench, b"\xe0\x01\x87")
    assert error.reason == "not authorized"
    bench = online(Teller(None, None, None, ValueError("no")))
    bench.client.reauthenticate()
    bench.steps()
    bench.server.received()
    assert bench.exchange(auth(0x18, METHOD)) == b"\xe0\x01\x83"
    assert type(bench.error()) is mqttpipe.LocalError and bench.server.is_closed


def behind_a_large_message(bench):
    """The socket has taken a part of it; nothing fits behind it yet."""
    bench.server.write_credit = 5
    bench.client.publish("t", b"x" * 2000)
    bench.steps()
    assert bench.server.received() == b"\x30\xd4\x0f\x00\x01"


LARGE_REST = b"t\x00" + b"x" * 2000


def test_it_waits_behind_a_large_message():
    bench = online(Teller(b"1", None, b"again", b"2"), packet_bytes_max=2200)
    behind_a_large_message(bench)
    bench.client.reauthenticate()
    bench.steps()
    assert bench.client.is_online() and bench.server.received() == b""
    bench.server.write_credit = 1 << 30
    bench.steps()
    assert bench.server.received() == LARGE_REST + auth(0x19, METHOD + data(b"again"))
    behind_a_large_message(bench)
    assert bench.exchange(auth(0x18, METHOD + data(b"q"))) == b""
    bench.server.write_credit = 1 << 30
    bench.steps()
    assert bench.server.received() == LARGE_REST + auth(0x18, METHOD + data(b"2"))
    bench.exchange(auth(0x00, METHOD))
    assert bench.client.is_online() and ("authenticated",) in bench.take_events()


def test_nothing_of_it_follows_disconnect():
    """[MQTT5-3.14.4-1] Neither what waits behind a large message, nor what is asked for late."""
    bench = online(Teller(b"1", None, b"again"), packet_bytes_max=2200)
    behind_a_large_message(bench)
    bench.client.reauthenticate()
    bench.steps()
    bench.client.disconnect()
    bench.client.reauthenticate()
    bench.server.write_credit = 1 << 30
    bench.steps()
    assert bench.client.state_name == "DOWN"
    sent = bench.server.received()
    assert sent.startswith(LARGE_REST) and sent.endswith(b"\xe0\x00"), sent[-40:]


def test_a_server_that_does_not_answer_it_is_left():
    """It counts from when AUTH has left, whatever else comes."""
    bench = online(Teller(), keep_alive_s=0, connect_timeout_ms=1000)
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.write_credit = 3
    bench.client.reauthenticate()
    bench.steps()
    bench.clock.advance(900)
    bench.server.write_credit = 1 << 30
    bench.steps()
    assert bench.server.received() == auth(0x19, METHOD)
    for _ in range(9):
        bench.clock.advance(100)
        bench.exchange(b"\x30\x05\x00\x01t\x00x")
    assert bench.client.is_online()
    bench.take_events()
    for _ in range(12):
        bench.clock.advance(100)
        if not bench.server.is_closed:
            bench.server.send(b"\x30\x05\x00\x01t\x00x")
        bench.steps()
    errors = [event[1] for event in bench.take_events() if event[0] == "offline"]
    assert type(errors[0]) is mqttpipe.TimedOut and errors[0].stage == "ACK"


def test_each_answer_in_time_is_enough():
    bench = online(Teller(), keep_alive_s=0, connect_timeout_ms=1000)
    bench.client.reauthenticate()
    for _ in range(5):
        bench.steps()
        bench.clock.advance(900)
        bench.exchange(auth(0x18, METHOD))
    bench.exchange(auth(0x00, METHOD))
    bench.clock.advance(5000)
    bench.steps()
    assert bench.client.is_online()


def test_the_time_that_our_function_takes_is_not_the_servers():
    """A key made of a password takes seconds on a board."""
    slow_ms = 0

    def answer(heard):
        if slow_ms:
            bench.clock.advance(slow_ms)

    bench = asked(auth=("m", answer), keep_alive_s=0, connect_timeout_ms=1000)
    slow_ms = 1500
    for _ in range(2):
        bench.server.received()
        assert bench.exchange(auth(0x18, METHOD)) == auth(0x18, METHOD)
        bench.clock.advance(400)
        bench.steps()
    bench.exchange(connack(METHOD))
    assert bench.client.is_online(), "the attempt may take 200 ms more"
    bench.client.publish("t", "x", 1)
    bench.steps()
    bench.server.received()
    bench.client.reauthenticate()
    sent = bench.exchange()
    for packet_id in (1, 2):
        assert sent[:1] == b"\xf0", sent
        bench.clock.advance(900)
        bench.steps()
        assert bench.client.is_online(), "AUTH and PUBACK may take 100 ms more"
        bench.exchange(bytes((0x40, 2, 0, packet_id)))
        bench.client.publish("t", "x", 1)
        bench.exchange()
        sent = bench.exchange(auth(0x18, METHOD))
    bench.exchange(auth(0x00, METHOD))
    assert bench.client.is_online()


def test_an_answer_that_is_larger_than_a_packet_may_be_says_so():
    bench = online(Teller(None, None, b"x" * 2000))
    bench.client.reauthenticate()
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.LocalError and "AUTH" in str(error), error
    assert "packet_bytes_max" in str(error)


def test_what_was_not_asked_for_is_a_protocol_error():
    for packet in (auth(0x18, METHOD), auth(0x00, METHOD), auth(0x19, METHOD)):
        error, answer = refused(online(Teller()), packet)
        assert type(error) is mqttpipe.ServerError and answer == b"\xe0\x01\x82"


def test_it_is_not_asked_for_by_the_next_connection():
    bench = online(Teller())
    bench.server.error = ECONNRESET
    bench.client.reauthenticate()
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(connack(METHOD)) == b""
    needs("mqtt5")
    raises(mqttpipe.LocalError, Bench(protocol=5).client.reauthenticate)
    bench = Bench().go_online(CONNACK_4)
    raises(mqttpipe.LocalError, bench.client.reauthenticate)


def test_it_is_never_larger_than_the_server_allows_also_behind_disconnect():
    """[MQTT5-3.2.2-15]"""
    bench = asked(auth=("m", Teller(b"1", None, b"a", b"x" * 100)))
    bench.exchange(connack(METHOD + b"\x27\x00\x00\x00\x40"))
    bench.client.publish("t", "x", 1)
    bench.steps()
    bench.client.reauthenticate()
    bench.steps()
    bench.server.received()
    bench.client.disconnect()
    bench.client.step()  # it waits for PUBACK
    assert len(bench.exchange(auth(0x18, METHOD))) <= 64
