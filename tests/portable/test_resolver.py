"""Host names to addresses without waiting (RFC 1035), against a scripted DNS server."""

from dns_records import A1, A2, AAAA, CNAME, QUERY, QUESTION_AAAA, answer
from fakes import CONNACK, ECONNREFUSED, Bench, needs

import mqttpipe


def start(**options):
    """A client that has sent its first query."""
    needs("resolver")
    options.setdefault("uri", "mqtt://mq.example:1884")
    bench = Bench(**options)
    bench.client.connect()
    bench.steps()
    assert bench.client.state_name == "RESOLVING"
    return bench


def test_a_name_is_asked_for_and_its_address_connected_to():
    bench = start()
    (lookup,) = bench.network.lookups
    assert lookup.address == ("192.0.2.53", 53) and lookup.query == QUERY
    assert not bench.network.connections
    lookup.answers.append(answer([A1]))
    bench.steps()
    assert lookup.is_closed
    assert bench.server.address == ("192.0.2.7", 1884)
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_what_this_machine_knows_itself_is_not_asked_for():
    needs("resolver")
    bench = Bench(uri="mqtt://own.example")
    mqttpipe.hosts = lambda name: ["192.0.2.9"] if name == "own.example" else []
    bench.client.connect()
    bench.steps()
    assert not bench.network.lookups and bench.server.address == ("192.0.2.9", 1883)


def test_what_this_machine_knows_in_one_family_is_not_asked_for_in_the_other():
    """Else every second error of a server that refuses us would be about DNS."""
    needs("resolver")
    bench = Bench(uri="mqtt://own.example", reconnect_min_ms=0, reconnect_max_ms=0)
    mqttpipe.hosts = lambda name: ["192.0.2.9"]
    bench.client.connect()
    for count in range(1, 7):
        bench.steps()
        assert len(bench.network.connections) == count
        bench.exchange(b"\x20\x02\x00\x05")
        error = bench.error()
        assert type(error) is mqttpipe.Refused and error.return_code == 5, (count, error)
        bench.clock.advance(1000)
    assert not bench.network.lookups


def test_of_two_families_what_the_one_that_has_an_address_met_is_told():
    needs("resolver")
    bench = Bench(uri="mqtt://own.example", reconnect_min_ms=100, reconnect_max_ms=100)
    mqttpipe.hosts = lambda name: ["192.0.2.9"]
    bench.client.connect()
    bench.steps()
    bench.exchange(b"\x20\x02\x00\x05")
    bench.take_events()
    bench.network.connect_error = ECONNREFUSED
    count = 0
    for _ in range(20):
        bench.clock.advance(1000)
        bench.steps()
        for event in bench.take_events():
            count += 1
            assert event[1].stage == "TCP" and event[1].errno == ECONNREFUSED, event[1]
        if count == 3:
            break
    assert count == 3 and not bench.network.lookups


def test_a_literal_address_is_not_asked_for():
    for uri in ("mqtt://192.0.2.9", "mqtt://[2001:db8::1]"):
        bench = Bench(uri=uri)
        bench.client.connect()
        bench.steps()
        assert not bench.network.lookups and len(bench.network.connections) == 1


def test_a_lost_query_goes_to_the_next_server():
    bench = start()
    bench.clock.advance(1499)
    bench.steps()
    assert len(bench.network.lookups) == 1
    bench.clock.advance(1)
    bench.steps()
    first, second = bench.network.lookups
    assert first.is_closed and second.address == ("192.0.2.54", 53)
    second.answers.append(answer([A1]))
    bench.steps()
    assert bench.server.address == ("192.0.2.7", 1884)


def test_a_server_that_is_not_there_or_fails_is_passed_over_at_once():
    bench = start()
    bench.network.lookups[-1].error = ECONNREFUSED
    bench.steps()
    bench.network.lookups[-1].answers.append(answer([], flags=b"\x81\x82"))  # SERVFAIL
    bench.steps()
    bench.network.lookups[-1].answers.append(answer([], flags=b"\x83\x80"))  # truncated
    bench.steps()
    bench.network.lookups[-1].answers.append(answer([A1]))
    bench.steps()
    assert [lookup.address[0] for lookup in bench.network.lookups] == [
        "192.0.2.53",
        "192.0.2.54",
        "192.0.2.53",
        "192.0.2.54",
    ]
    assert bench.server.address == ("192.0.2.7", 1884)


def test_wrong_answers_before_the_right_one_change_nothing():
    bench = start()
    bench.network.lookups[0].answers += [
        b"",
        b"junk",
        answer([A2], b"\x00\x01" + QUERY[2:]),
        answer([A1]),
    ]
    for _ in range(5):
        bench.client.step()
    assert bench.server.address == ("192.0.2.7", 1884)


def test_no_such_name_is_an_error_that_names_it():
    bench = start()
    bench.network.lookups[0].answers.append(answer([], flags=b"\x81\x83"))
    bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TransportError and error.stage == "DNS"
    assert "mq.example" in str(error) and bench.client.state_name == "WAITING"
    assert bench.network.lookups[0].is_closed


def test_answers_that_all_are_cut_off_are_told_as_code_0():
    """There is no DNS over TCP here; the other family is not asked for: this one may have more."""
    bench = start()
    for _ in range(4):
        bench.network.lookups[-1].answers.append(answer([CNAME], flags=b"\x83\x80"))
        bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TransportError and error.stage == "DNS", error
    assert "mq.example" in str(error) and "code 0" in str(error), error
    assert [lookup.query[-3] for lookup in bench.network.lookups] == [1] * 4


def test_an_answer_that_is_cut_off_behind_an_address_will_do():
    bench = start()
    bench.network.lookups[-1].answers.append(answer([CNAME, A1], flags=b"\x83\x80", count=9))
    bench.steps()
    assert bench.server.address == ("192.0.2.7", 1884)


def test_what_the_last_server_answered_is_told():
    bench = start()
    for _ in range(4):
        bench.network.lookups[-1].answers.append(answer([], flags=b"\x81\x82"))  # SERVFAIL
        bench.steps()
    error = bench.error()
    assert type(error) is mqttpipe.TransportError and error.stage == "DNS", error
    assert "mq.example" in str(error) and "code 2" in str(error), error
    assert len(bench.network.lookups) == 4


def test_a_name_that_is_no_more_is_not_taken_for_the_last_good_address():
    bench = start(reconnect_min_ms=0)
    bench.network.lookups[0].answers.append(answer([A1]))
    bench.steps()
    bench.exchange(CONNACK)
    bench.clock.advance(61_000)
    bench.server.is_ended = True
    bench.steps()
    bench.take_events()
    bench.network.lookups[1].answers.append(answer([], flags=b"\x81\x83"))
    bench.steps()
    assert bench.error().stage == "DNS" and len(bench.network.connections) == 1


def test_an_address_that_the_port_does_not_know_ends_the_attempt():
    bench = start()
    getaddrinfo = bench.network.getaddrinfo

    def refuse(host, *others):
        if ":" in host:
            raise OSError(-9, "family not supported")
        return getaddrinfo(host, *others)

    bench.network.getaddrinfo = refuse
    bench.network.lookups[0].answers.append(answer([]))
    bench.steps()
    bench.network.lookups[1].answers.append(answer([AAAA], bench.network.lookups[1].query))
    bench.steps()
    assert bench.error().stage == "DNS" and len(bench.network.lookups) == 2


def test_a_name_without_ipv4_address_is_asked_for_its_ipv6_one():
    bench = start()
    bench.network.lookups[0].answers.append(answer([CNAME]))
    bench.steps()
    second = bench.network.lookups[1]
    assert second.query[12:] == QUESTION_AAAA and second.address[0] == "192.0.2.53"
    second.answers.append(answer([AAAA], second.query))
    bench.steps()
    assert bench.server.address == ("2001:0db8:0000:0000:0000:0000:0000:0001", 1884)


def test_silence_ends_in_timed_out_with_stage_dns():
    bench = start()
    for _ in range(10):
        bench.clock.advance(1500)
        bench.steps()
        if bench.events:
            break
    error = bench.error()
    assert type(error) is mqttpipe.TimedOut and error.stage == "DNS"
    assert len(bench.network.lookups) == 4
    assert all(lookup.is_closed for lookup in bench.network.lookups)


def test_each_server_has_its_turn_however_little_time_there_is():
    for timeout_ms in (1500, 900):
        bench = start(connect_timeout_ms=timeout_ms)
        for _ in range(timeout_ms // 100 - 1):
            bench.clock.advance(100)
            bench.steps()
            lookup = bench.network.lookups[-1]
            if lookup.address[0] == "192.0.2.54" and not lookup.is_closed:
                lookup.answers.append(answer([A1]))
        bench.steps()
        assert bench.server.address == ("192.0.2.7", 1884), bench.take_events()


def test_a_server_alone_has_all_the_time_of_its_question():
    class Link:
        def is_up(self):
            return True

        def dns_servers(self):
            return ["192.0.2.53"]

    bench = start(connect_timeout_ms=1600, link=Link())
    bench.clock.advance(1499)
    bench.steps()
    bench.network.lookups[0].answers.append(answer([A1]))
    bench.steps()
    assert bench.server.address == ("192.0.2.7", 1884)


def test_an_answer_that_takes_three_seconds_comes_in_time():
    """Over NB-IoT or a satellite each does; what comes too late comes to a closed socket."""
    bench = start()
    for _ in range(99):
        bench.clock.advance(100)
        bench.steps()
        lookup = bench.network.lookups[-1]
        if lookup.is_closed:
            break
        lookup.age_ms = getattr(lookup, "age_ms", 0) + 100
        if lookup.age_ms == 3000:
            lookup.answers.append(answer([A1]))
    assert bench.server.address == ("192.0.2.7", 1884), bench.take_events()


def test_who_has_more_time_waits_longer_for_it():
    bench = start(connect_timeout_ms=30_000)
    for _ in range(3):
        bench.clock.advance(1500)
        bench.steps()
    assert len(bench.network.lookups) == 4
    for _ in range(99):
        bench.clock.advance(100)
        bench.steps()
    assert not bench.network.lookups[-1].is_closed and not bench.take_events()


def test_an_address_is_kept_for_its_time_to_live_and_dropped_when_it_fails():
    bench = start(reconnect_min_ms=0)
    bench.network.lookups[0].answers.append(answer([A1]))  # for 60 s
    bench.steps()
    bench.exchange(CONNACK)
    for turn in range(8):  # connections of 9 s: none of them is stable
        bench.clock.advance(9000 if turn else 0)
        bench.server.is_ended = True
        bench.steps()
        assert len(bench.network.lookups) == (2 if turn == 7 else 1), turn
        if turn == 7:
            bench.network.lookups[1].answers.append(answer([A1]))
            bench.steps()
        bench.exchange(CONNACK)
        assert bench.client.is_online()
    bench.server.is_ended = True
    bench.network.connect_error = ECONNREFUSED
    bench.steps()  # the kept address is refused, and there is no other
    bench.network.lookups[2].answers.append(answer([], bench.network.lookups[2].query))
    bench.steps()
    bench.clock.advance(1000)
    bench.steps()
    assert len(bench.network.lookups) == 4, "so the name is asked for afresh"
    assert bench.network.lookups[3].query == QUERY


def test_without_an_answer_the_last_good_address_is_used():
    bench = start(reconnect_min_ms=0)
    bench.network.lookups[0].answers.append(answer([A1]))
    bench.steps()
    bench.exchange(CONNACK)
    bench.clock.advance(61_000)
    bench.server.is_ended = True
    bench.steps()
    for _ in range(6):
        bench.clock.advance(1500)
        bench.steps()
    assert len(bench.network.lookups) == 5
    assert bench.server.address == ("192.0.2.7", 1884)
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_there_is_time_left_for_the_last_good_address_however_little_an_attempt_has():
    bench = start(reconnect_min_ms=0, connect_timeout_ms=3000)
    bench.network.lookups[0].answers.append(answer([A1]))
    bench.steps()
    bench.exchange(CONNACK)
    bench.clock.advance(61_000)
    bench.server.is_ended = True
    bench.steps()
    bench.take_events()
    for _ in range(28):
        bench.clock.advance(100)
        bench.steps()
    assert len(bench.network.connections) == 2 and not bench.events, bench.take_events()
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_no_address_is_good_for_ever_because_the_clock_has_come_round():
    """Down for days: ticks_ms() cannot tell 8 days ago from 4 days ahead."""
    bench = start()
    bench.network.lookups[0].answers.append(answer([A1]))  # for 60 s
    bench.steps()
    bench.exchange(CONNACK)
    bench.client.disconnect()
    bench.steps()
    bench.steps()
    for _ in range(8 * 24):
        bench.clock.advance(3_600_000)
        bench.steps()
    bench.client.connect()
    bench.steps()
    assert len(bench.network.lookups) == 2 and len(bench.network.connections) == 1


def test_the_next_address_of_a_name_is_tried_when_one_fails():
    bench = start()
    bench.network.is_silent = True
    bench.network.lookups[0].answers.append(answer([A1, A2]))
    bench.steps()
    first = bench.server
    first.error = ECONNREFUSED
    bench.network.is_silent = False
    bench.steps()
    assert first.is_closed and bench.server.address == ("192.0.2.8", 1884)
    assert bench.take_events() == [], "one attempt, not two"
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_without_any_dns_server_the_error_says_so():
    needs("resolver")
    bench = Bench(uri="mqtt://mq.example")
    mqttpipe.dns_servers = list
    bench.client.connect()
    bench.steps()
    error = bench.error()
    assert error.stage == "DNS" and "no DNS server" in str(error)


def test_a_link_may_name_its_own_servers():
    class Link:
        def is_up(self):
            return True

        def dns_servers(self):
            return [("192.0.2.99", 5353)]

    bench = start(link=Link())
    assert bench.network.lookups[0].address == ("192.0.2.99", 5353)


def test_a_link_may_name_them_in_any_collection():
    class Link:
        servers = ()

        def is_up(self):
            return True

        def dns_servers(self):
            return self.servers

    for servers in ({"192.0.2.99"}, {"192.0.2.99": 1}, (["192.0.2.99", 53],)):
        Link.servers = servers
        bench = start(link=Link())
        assert bench.network.lookups[0].address == ("192.0.2.99", 53), servers
    for servers, reported in ((set(), 0), (None, 0), (7, 1)):
        Link.servers = servers
        bench = Bench(uri="mqtt://mq.example", link=Link())
        bench.client.connect()
        bench.steps()
        events = bench.take_events()
        assert [name for name, _ in events] == ["error"] * reported + ["offline"], servers
        assert "no DNS server" in str(events[-1][1]), servers


def test_disconnect_while_resolving_closes_the_lookup():
    bench = start()
    bench.client.disconnect()
    bench.steps()
    assert bench.client.state_name == "DOWN" and bench.network.lookups[0].is_closed


def test_an_address_is_asked_for_afresh_after_a_connection_of_days():
    bench = start(reconnect_min_ms=0, keep_alive_s=0)
    bench.network.lookups[0].answers.append(answer([A1]))
    bench.steps()
    bench.exchange(CONNACK)
    bench.clock.advance(10_000)
    bench.steps()
    bench.clock.advance(1000)  # well inside the time to live
    bench.server.is_ended = True
    bench.steps()
    assert len(bench.network.lookups) == 2


def test_an_interface_that_raises_is_reported_and_no_dns_server():
    needs("resolver")

    class Link:
        def is_up(self):
            return True

        def dns_servers(self):
            raise RuntimeError("not ready")

    bench = Bench(uri="mqtt://mq.example", link=Link())
    bench.client.connect()
    bench.steps()
    (name, error), (_, reason) = bench.take_events()
    assert name == "error" and type(error) is RuntimeError
    assert "no DNS server" in str(reason)


def test_what_a_link_names_and_is_no_address_is_reported():
    """A name would be looked up by getaddrinfo(), which blocks."""
    needs("resolver")

    class Link:
        def is_up(self):
            return True

        def dns_servers(self):
            return self.servers

    for server, kind, word in (
        (None, mqttpipe.LocalError, "None"),
        (("192.0.2.53",), mqttpipe.LocalError, "192.0.2.53"),
        (53, mqttpipe.LocalError, "53"),
        ("dns.example", mqttpipe.LocalError, "dns.example"),
        (("dns.example", 53), mqttpipe.LocalError, "dns.example"),
        ("010.0.2.2", mqttpipe.LocalError, "010.0.2.2"),
        ("192.0.2.53:53", mqttpipe.LocalError, "192.0.2.53:53"),
    ):
        for others in ([], ["192.0.2.99"]):
            link = Link()
            link.servers = [server] + others
            bench = Bench(uri="mqtt://mq.example", link=link)
            bench.client.connect()
            bench.steps()
            name, error = bench.events.pop(0)
            assert name == "error" and type(error) is kind and word in str(error), error
            if others:
                assert bench.network.lookups[0].address == ("192.0.2.99", 53)
                assert bench.client.state_name == "RESOLVING" and bench.take_events() == []
            else:
                assert "no DNS server" in str(bench.error())
