"""What a server sends against the rules, and may be passed over: the connection stays."""

from fakes import Bench, needs
from wire import PASSED_OVER, answers, publish, publishes, split

import mqttpipe


def online(**options):
    return Bench(**options).go_online()


def errors(bench):
    return [event[1] for event in bench.take_events() if event[0] == "error"]


def test_acknowledgements_that_nothing_waits_for_are_counted():
    """Of an earlier life of the device: seen with real servers after CONNACK."""
    for packet in (
        b"\x40\x02\x00\x28",  # PUBACK
        b"\x50\x02\x00\x28",  # PUBREC
        b"\x70\x02\x00\x28",  # PUBCOMP
        b"\x90\x03\x00\x28\x00",  # SUBACK
        b"\xb0\x02\x00\x28",  # UNSUBACK
    ):
        bench = online(clean_session=False)
        before = bench.client.stats[PASSED_OVER] if "stats" not in lacking() else 0
        bench.exchange(packet)
        bench.exchange(packet)
        assert bench.client.is_online(), (packet, bench.take_events())
        if "stats" not in lacking():
            assert bench.client.stats[PASSED_OVER] == before + 2, packet
        token = bench.client.publish("t", "x", 1)
        bench.exchange(answers(bench.exchange()))
        assert bench.client.is_done(token), packet


def lacking():
    return mqttpipe.__version__.partition("+no.")[2].split(".")


def test_puback_for_a_qos_2_message_ends_its_exchange():
    """RabbitMQ 3 does so."""
    needs("qos2")
    bench = online()
    tokens = []
    for n in range(3):
        tokens.append(bench.client.publish("t", b"%d" % n, 2))
        ((_, _, packet_id, _),) = publishes(bench.exchange())
        bench.exchange(b"\x40\x02" + packet_id)
        assert bench.client.is_done(tokens[-1]) and bench.client.is_online()
    told = bench.take_events()
    assert [event for event in told if event[0] == "published"] == [
        ("published", token) for token in tokens
    ]
    texts = [str(event[1]) for event in told if event[0] == "error"]
    assert len(texts) == 1 and "QoS 2" in texts[0], texts


def test_puback_past_pubrec_is_no_answer_to_pubrel():
    """[MQTT-4.3.3-1]"""
    needs("qos2")
    bench = online()
    token = bench.client.publish("t", "x", 2)
    ((_, _, packet_id, _),) = publishes(bench.exchange())
    bench.exchange(b"\x50\x02" + packet_id)
    bench.exchange(b"\x40\x02" + packet_id)
    assert not bench.client.is_done(token)
    bench.exchange(b"\x70\x02" + packet_id)
    assert bench.client.is_done(token) and bench.client.is_online()


def test_dup_at_qos_0_is_ignored():
    """aedes 1.2.0 passes it on [MQTT-3.3.1-2]."""
    bench = online()
    bench.exchange(publish(b"t", b"a", flags=8))
    assert bench.client.is_online()
    assert bench.take_events() == [("message", "t", b"a", 0)]


def test_a_topic_name_with_a_wildcard_is_dropped_and_acknowledged():
    """ActiveMQ's advisories have such names [MQTT-3.3.2-2]."""
    for name in (b"a/#", b"#", b"a/+/b", b"+"):
        bench = online()
        wire = bench.exchange(publish(name, b"hi"), publish(name, b"hi", 1, b"\x00\x05"))
        assert wire == b"\x40\x02\x00\x05", name
        assert bench.client.is_online()
        told = bench.take_events()
        assert told and all(event[0] == "error" for event in told), told
        assert name.decode() in str(told[0][1]), told
        bench.exchange(publish(b"a", b"good"))
        assert bench.take_events() == [("message", "a", b"good", 0)]


def test_such_names_are_told_once_however_many_there_are():
    bench = online()
    for number in range(30):
        bench.exchange(publish(b"a/+/%d" % number, b"hi"))
        bench.exchange(publish(b"a/#", b"hi"))
    assert len(errors(bench)) == 1 and bench.client.is_online()
    if "stats" not in lacking():
        assert bench.client.stats[PASSED_OVER] == 60


def test_what_is_told_of_such_a_name_does_not_control_a_terminal():
    bench = online()
    bench.exchange(publish(b"#\x1b[2J\n", b""))
    (error,) = errors(bench)
    assert all(" " <= one <= "~" for one in str(error)), str(error)


def test_at_qos_2_its_exchange_is_gone_through():
    """[MQTT-4.3.3-2]"""
    needs("qos2")
    bench = online()
    assert bench.exchange(publish(b"a/#", b"hi", 2, b"\x00\x05")) == b"\x50\x02\x00\x05"
    assert bench.exchange(b"\x62\x02\x00\x05") == b"\x70\x02\x00\x05"
    assert bench.client.is_online()
    assert not [event for event in bench.take_events() if event[0] == "message"]


def test_a_flood_of_them_is_told_once():
    bench = online()
    for _ in range(50):
        bench.exchange(publish(b"a/#", b"hi"))
    assert len(errors(bench)) == 1 and bench.client.is_online()


def test_a_second_connack_with_a_code_says_that_code():
    """Cumulocity IoT tells a client so that it is no longer wanted."""
    for code in (1, 4, 5):
        bench = online()
        bench.exchange(bytes((0x20, 2, 0, code)))
        error = bench.error()
        assert type(error) is mqttpipe.Refused and error.return_code == code, error


def test_a_second_connack_without_one_still_breaks_the_protocol():
    """[MQTT-3.1.0-2]"""
    bench = online()
    bench.exchange(b"\x20\x02\x00\x00")
    assert type(bench.error()) is mqttpipe.ServerError


def test_suback_with_another_number_of_codes_still_ends_the_connection():
    """[MQTT-3.9.3-1]"""
    bench = online()
    bench.client.subscribe("a")
    ((_, body),) = split(bench.exchange())
    bench.exchange(b"\x90\x04" + body[:2] + b"\x00\x00")
    assert type(bench.error()) is mqttpipe.ServerError


def test_answers_that_do_not_fit_the_qos_of_a_retained_message_end_nothing():
    needs("qos2")
    bench = online()
    bench.client.publish("t", b"x", 1, True)
    bench.steps()
    bench.server.received()
    assert bench.exchange(b"\x50\x02\x00\x01") == b"\x62\x02\x00\x01"
    assert bench.take_events() == []
    assert bench.exchange(b"\x40\x02\x00\x01") == b""
    assert bench.take_events() == [("published", 1)], "without an error"


def test_an_answer_for_no_message_is_none_for_that_in_the_last_slot():
    bench = online(pipe_slots=1)  # and one is always empty
    for token in (1, 2):
        bench.client.publish("t", b"x", 1)
        bench.steps()
        bench.exchange(b"\x40\x02\x00\x28")
        assert bench.take_events() == [], token
        bench.exchange(b"\x40\x02\x00%c" % token)
        assert bench.take_events() == [("published", token)]


def test_on_error_may_take_back_a_message():
    needs("offline", "qos2")
    bench = online()
    tokens = [bench.client.publish("t", b"x", 2) for _ in range(2)]
    bench.steps()
    taken = []
    bench.client.on_error = lambda client, error: taken.append(client.cancel(tokens[1]))
    bench.exchange(b"\x40\x02\x00\x01")
    assert taken == [True]
    assert bench.take_events() == [("published", tokens[0])]
