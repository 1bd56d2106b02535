"""A name with two or three addresses: how long each is tried, and which is the first next time."""

from dns_records import A1, A2, AAAA, QUESTION_AAAA, answer, record
from fakes import CONNACK, ECONNREFUSED, Bench, needs

import mqttpipe


def start(**options):
    """A client that has sent its first query."""
    needs("resolver")
    bench = Bench(uri="mqtt://mq.example:1884", **options)
    bench.client.connect()
    bench.steps()
    assert bench.client.state_name == "RESOLVING"
    return bench


def test_each_address_has_its_share_of_the_time_and_one_is_left_for_the_other_family():
    bench = start(connect_timeout_ms=8000)
    bench.network.is_silent = True
    bench.network.lookups[0].answers.append(answer([A1, A2, record(b"\xc0\x00\x02\x09")]))
    bench.steps()
    tried = []
    for _ in range(6):
        assert bench.client.state_name == "TCP_CONNECTING"
        tried.append(bench.server.address[0])
        bench.clock.advance(1000)
        bench.steps()
    assert tried == ["192.0.2.7"] * 2 + ["192.0.2.8"] * 2 + ["192.0.2.9"] * 2
    assert bench.client.state_name == "RESOLVING" and bench.take_events() == []
    lookup = bench.network.lookups[1]
    assert lookup.query[12:] == QUESTION_AAAA
    lookup.answers.append(answer([AAAA], lookup.query))
    bench.steps()
    assert bench.server.address[0] == "2001:0db8:0000:0000:0000:0000:0000:0001"
    bench.clock.advance(1999)
    bench.steps()
    assert bench.take_events() == []
    bench.clock.advance(1)
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "TCP", error
    assert all(connection.is_closed for connection in bench.network.connections)


def test_where_there_is_no_other_family_the_first_reason_is_told():
    for flags in (b"\x81\x80", b"\x81\x83"):
        bench = start()
        bench.network.refused = "192.0.2.7"
        bench.network.lookups[0].answers.append(answer([A1]))
        bench.steps()
        lookup = bench.network.lookups[1]
        lookup.answers.append(answer([], lookup.query, flags))
        bench.steps()
        error = bench.error()
        assert (error.stage, error.errno) == ("TCP", ECONNREFUSED), error


def test_an_address_that_takes_us_and_says_nothing_is_not_the_first_one_next_time():
    bench = start(connect_timeout_ms=3000, reconnect_min_ms=0)
    bench.network.lookups[-1].answers.append(answer([A1, A2]))
    bench.steps()
    assert bench.server.address[0] == "192.0.2.7"
    assert bench.client.state_name == "AWAITING_CONNACK"
    bench.clock.advance(3000)
    bench.steps()
    assert bench.error().stage == "CONNACK"
    bench.network.lookups[-1].answers.append(answer([A1, A2]))
    bench.steps()
    assert bench.server.address[0] == "192.0.2.8"
    bench.exchange(CONNACK)
    assert bench.client.is_online()
    bench.server.is_ended = True  # it was good: it stays the first one
    bench.steps()
    assert len(bench.network.connections) == 3 and bench.server.address[0] == "192.0.2.8"


def test_a_dns_server_that_turns_the_order_round_keeps_no_address_from_its_turn():
    """As round-robin DNS does at each answer (RFC 1794): the first one takes us, says nothing."""
    bench = start(connect_timeout_ms=3000, reconnect_min_ms=0)
    tried = []
    for order in ([A1, A2], [A2, A1], [A1, A2]):
        bench.network.lookups[-1].answers.append(answer(order))
        bench.steps()
        tried.append(bench.server.address[0])
        if tried[-1] == "192.0.2.8":
            break
        bench.clock.advance(3000)
        bench.steps()
    assert tried == ["192.0.2.7", "192.0.2.8"], tried
    bench.exchange(CONNACK)
    assert bench.client.is_online()
    bench.clock.advance(11_000)
    bench.steps()
    bench.server.is_ended = True  # after so long the name is looked up anew
    bench.steps()
    bench.network.lookups[-1].answers.append(answer([A2, A1]))
    bench.steps()
    assert len(bench.network.connections) == 3 and bench.server.address[0] == "192.0.2.8"


def test_an_address_that_accepts_us_and_closes_again_and_again_gives_way_to_the_next():
    needs("hints")
    bench = start(reconnect_min_ms=0, reconnect_max_ms=0)
    bench.network.lookups[0].answers.append(answer([A1, A2]))
    tried = []
    for _ in range(40):
        bench.steps()
        if bench.client.state_name == "AWAITING_CONNACK":
            tried.append(bench.server.address[0])
            bench.server.send(CONNACK)
            bench.steps()
            if tried[-1] == "192.0.2.8":
                break
            bench.server.is_ended = True
        bench.clock.advance(100)
    assert bench.client.is_online() and 3 <= tried.count("192.0.2.7") <= 4, tried


def test_an_answer_of_no_use_does_not_keep_the_next_server_from_being_asked():
    """Its records are broken. Where each server has answered so, that is told."""
    for data in (A1[:-1], b"\xc0", b"", b"\xc0\x0c" * 60):
        bench = start()
        first = bench.network.lookups[0]
        first.answers.append(answer([data], first.query, count=1))
        bench.steps()
        assert bench.take_events() == []
        second = bench.network.lookups[-1]
        assert (first.address[0], second.address[0]) == ("192.0.2.53", "192.0.2.54")
        second.answers.append(answer([A1], second.query))
        bench.steps()
        assert bench.server.address[0] == "192.0.2.7"
        bench = start()
        for lookup in range(2):
            lookup = bench.network.lookups[-1]
            lookup.answers.append(answer([data], lookup.query, count=1))
            bench.steps()
        assert bench.network.lookups[-1].query[12:] == QUESTION_AAAA
