"""A server that closes the connection at one message, or at one filter: the others get through."""

from fakes import CONNACK, CONNACK_SESSION, Bench, needs
from wire import answers, kinds

CONNECT = 0x10


def bench_of(**options):
    options.setdefault("clean_session", False)
    options.setdefault("reconnect_min_ms", 0)
    bench = Bench(**options)
    bench.client.on_dropped = lambda client, token: bench.events.append(("dropped", token))
    bench.told = []  # all events, whoever has taken them
    return bench


def endings(bench):
    """The errors that on_offline has told since the last call."""
    bench.steps()
    told = bench.take_events()
    bench.told += told
    return [event[1] for event in told if event[0] == "offline"]


def pause(bench):
    while bench.client.state_name == "WAITING":
        bench.clock.advance(bench.client.next_deadline_ms() or 1)
        bench.client.step()


def live(bench, word, seconds, limit=60):
    """A server that closes at a packet with `word` in it, and answers what came before.

    The clock goes on by `seconds` before each closing. Returns the errors of the closings.
    """
    errors = []
    for _ in range(limit):
        pause(bench)
        bench.steps()
        connection = bench.server
        wire = connection.received()
        if kinds(wire) == [CONNECT]:
            connection.send(CONNACK_SESSION if errors else CONNACK)
        elif word in wire:
            connection.send(answers_before(wire, word))
            bench.clock.advance(seconds * 1000)
            connection.is_ended = True
        elif wire:
            connection.send(answers(wire))
        elif bench.client.is_online():
            break
        errors += endings(bench)
    return errors


def answers_before(wire, word):
    at = 0
    for packet in whole_packets(wire):
        if word in packet:
            return answers(wire[:at])
        at += len(packet)


def whole_packets(wire):
    """All of them are shorter than 128 bytes."""
    while wire:
        yield wire[: wire[1] + 2]
        wire = wire[wire[1] + 2 :]


def test_a_message_that_has_expired_is_not_sent_again_at_the_next_connection():
    needs("offline")
    bench = bench_of()
    bad = bench.client.publish("forbidden", "x", 1, expiry_s=3)
    good = bench.client.publish("allowed", "y", 1)
    bench.client.connect()
    errors = live(bench, b"forbidden", 1)
    assert errors and bench.client.is_done(good) and bench.client.is_online(), errors
    assert ("dropped", bad) in bench.told and ("published", bad) not in bench.told
    assert ("published", good) in bench.told


def test_a_message_that_expires_while_its_answer_is_awaited_stays():
    needs("offline")
    bench = bench_of().go_online()
    token = bench.client.publish("t", "x", 1, expiry_s=1)
    wire = bench.exchange()
    bench.clock.advance(2000)
    bench.steps()
    bench.exchange(answers(wire))
    assert bench.take_events() == [("published", token)]


def test_a_qos_2_exchange_past_pubrec_does_not_expire():
    """[MQTT-4.3.3-1]"""
    needs("offline", "qos2")
    bench = bench_of().go_online()
    token = bench.client.publish("t", "x", 2, expiry_s=1)
    bench.exchange(answers(bench.exchange()))
    bench.clock.advance(2000)
    bench.server.is_ended = True
    bench.steps()
    bench.server.received()
    wire = bench.exchange(CONNACK_SESSION)
    assert kinds(wire) == [0x60]
    bench.exchange(answers(wire))
    assert ("published", token) in bench.take_events()


def test_the_third_closing_behind_one_message_names_it_and_the_way_out():
    needs("offline", "hints")
    bench = bench_of()
    token = bench.client.publish("plant/forbidden", "x", 1)
    bench.client.connect()
    texts = [str(error) for error in live(bench, b"forbidden", 0, 16)]
    assert len(texts) >= 3
    assert "plant/forbidden" not in texts[0], "once is no pattern"
    assert "plant/forbidden" in texts[2] and str(token) in texts[2], texts[2]
    assert "cancel(" in texts[2] and "another client" not in texts[2], texts[2]
    assert bench.client.cancel(token) is True
    assert not live(bench, b"forbidden", 0)
    assert bench.client.is_online()


def test_the_third_closing_behind_one_filter_names_it():
    needs("hints")
    bench = bench_of()
    bench.client.subscribe("good/#")
    bench.client.subscribe("secret/#")
    bench.client.connect()
    texts = [str(error) for error in live(bench, b"secret/#", 0, 16)]
    assert len(texts) >= 3 and "secret/#" in texts[2], texts
    assert "another client" not in texts[2], texts[2]


def test_with_no_suspect_another_client_of_that_name_is_thought_of():
    needs("hints")
    bench = bench_of(client_id="pump")
    bench.client.connect()
    texts = []
    for _ in range(4):
        pause(bench)
        bench.steps()
        bench.server.received()
        bench.exchange(CONNACK)
        bench.server.is_ended = True
        texts += [str(error) for error in endings(bench)]
    assert "another client" in texts[3] and "client_id" in texts[3], texts


def test_the_third_ill_formed_topic_name_points_at_a_retained_message():
    """[MQTT-1.5.3-1]"""
    needs("hints")
    bench = bench_of()
    bench.client.subscribe("a/#")
    bench.client.connect()
    texts = []
    for _ in range(3):
        pause(bench)
        bench.steps()
        bench.server.received()
        wire = bench.exchange(CONNACK)
        bench.exchange(answers(wire))
        bench.exchange(b"\x31\x06\x00\x02\xff\xfehi")
        texts += [str(error) for error in endings(bench)]
    assert len(texts) == 3 and all("1.5.3" in text for text in texts), texts
    assert "retained" not in texts[0] and "retained" in texts[2], texts
