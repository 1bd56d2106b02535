"""What a server says just before it resets the connection counts."""

import mqtt5
from fakes import CONNACK_SESSION, ECONNRESET, Bench, needs

import mqttpipe


def say_and_reset(bench, packets):
    """Send packets, and a reset behind the last of them."""
    bench.server.send(packets)
    bench.server.error_behind = ECONNRESET
    bench.steps()
    assert bench.server.is_closed
    (error,) = [event[1] for event in bench.take_events() if event[0] == "offline"]
    return error


def test_a_second_connack_with_a_code_says_why():
    error = say_and_reset(Bench().go_online(), b"\x20\x02\x00\x05")
    assert type(error) is mqttpipe.Refused and error.return_code == 5


def test_a_good_bye_of_mqtt_5_says_why():
    error = say_and_reset(mqtt5.online(), b"\xe0\x02\x8b\x00")
    assert error.reason == "server shutting down"


def test_an_acknowledgement_ends_its_message():
    bench = Bench(clean_session=False).go_online()
    client = bench.client
    tokens = [client.publish("t", b"%d" % number, 1) for number in range(4)]
    bench.steps()
    bench.server.received()
    say_and_reset(bench, b"\x40\x02\x00\x01\x40\x02\x00\x02")
    assert [client.is_done(token) for token in tokens] == [True, True, False, False]
    needs("qos2")
    bench = Bench(clean_session=False).go_online()
    client = bench.client
    client.publish("t", b"x", 2)
    bench.steps()
    say_and_reset(bench, b"\x50\x02\x00\x01")
    bench.clock.advance(60_000)
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK_SESSION) == b"\x62\x02\x00\x01", "past PUBREC"


def test_an_answer_to_a_filter_holds():
    bench = Bench().go_online()
    token = bench.client.subscribe("f", qos=1)
    bench.steps()
    say_and_reset(bench, b"\x90\x03\xff\x01\x80")
    assert bench.client.was_refused(token)


def test_closed_again_and_again_the_messages_go_one_at_a_time_until_it_lasts():
    """A server that closes at one of many takes back the answers to those before it, each time."""
    needs("hints")
    bench = Bench(clean_session=False, in_flight_max=8, keep_alive_s=0).go_online()
    client = bench.client
    tokens = [client.publish("t", b"%d" % number, 1) for number in range(4)]
    for _ in range(2):
        bench.steps()
        bench.server.received()
        bench.server.error = ECONNRESET
        bench.steps()
        bench.clock.advance(60_000)
        bench.steps()
        bench.server.received()
        bench.server.send(CONNACK_SESSION)
    bench.steps()
    assert bench.server.received() == b"\x3a\x06\x00\x01t\x00\x010"
    assert bench.exchange(b"\x40\x02\x00\x01") == b"\x3a\x06\x00\x01t\x00\x021"
    for number in (b"\x02", b"\x03", b"\x04"):
        bench.exchange(b"\x40\x02\x00" + number)
    bench.clock.advance(10_000)  # it lasts
    bench.steps()
    bench.client.publish("t", b"4", 1)
    bench.client.publish("t", b"5", 1)
    bench.steps()
    assert bench.server.received() == b"\x32\x06\x00\x01t\x00\x054\x32\x06\x00\x01t\x00\x065"
    assert all(client.is_done(token) for token in tokens)
