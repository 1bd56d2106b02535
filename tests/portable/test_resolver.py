"""Host names to addresses without waiting (RFC 1035), against a scripted DNS server."""

from fakes import CONNACK, ECONNREFUSED, Bench, needs, raises

import mqttpipe

# The query for "mq.example", type A, identifier 0: header, two labels, A, IN.
QUERY = b"\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02mq\x07example\x00\x00\x01\x00\x01"
QUESTION_AAAA = b"\x02mq\x07example\x00\x00\x1c\x00\x01"
POINTER = b"\xc0\x0c"  # to the question's name


def answer(records, query=QUERY, flags=b"\x81\x80", count=None):
    """The server's datagram: the query's identifier and question, then the records."""
    count = len(records) if count is None else count
    counts = b"\x00\x01" + bytes((count >> 8, count & 0xFF)) + b"\x00\x00\x00\x00"
    return query[:2] + flags + counts + query[12:] + b"".join(records)


def record(data, kind=1, ttl=b"\x00\x00\x00\x3c", name=POINTER):
    return name + bytes((0, kind, 0, 1)) + ttl + bytes((0, len(data))) + data


A1 = record(b"\xc0\x00\x02\x07")  # 192.0.2.7, 60 s
A2 = record(b"\xc0\x00\x02\x08")
CNAME = record(b"\x01x\xc0\x0f", kind=5)
AAAA = record(b"\x20\x01\x0d\xb8" + b"\x00" * 11 + b"\x01", kind=28)


def decoded(datagram, query=QUERY):
    needs("resolver")
    return mqttpipe.decode_answer(datagram, query)


def start(**options):
    """A client that has sent its first query."""
    needs("resolver")
    options.setdefault("uri", "mqtt://mq.example:1884")
    bench = Bench(**options)
    bench.client.connect()
    bench.steps()
    assert bench.client.state_name == "RESOLVING"
    return bench


def test_a_query_is_one_question():
    needs("resolver")
    assert mqttpipe.encode_query(0, "mq.example", 1) == QUERY
    assert mqttpipe.encode_query(0, "mq.example.", 1) == QUERY
    assert mqttpipe.encode_query(0, "mq.example", 28)[12:] == QUESTION_AAAA


def test_a_name_that_can_not_be_asked_for_is_refused():
    needs("resolver")
    for host in ("a..b", ".a", "x" * 64 + ".b", ""):
        raises(mqttpipe.LocalError, mqttpipe.encode_query, 1, host, 1)


def test_answers_are_read_through_aliases_and_with_the_shortest_ttl():
    assert decoded(answer([A1])) == (0, ["192.0.2.7"], 60)
    assert decoded(answer([CNAME, A1, A2])) == (0, ["192.0.2.7", "192.0.2.8"], 60)
    short = record(b"\x01x\xc0\x0f", kind=5, ttl=b"\x00\x00\x00\x05")
    assert decoded(answer([short, A1])) == (0, ["192.0.2.7"], 5)
    long = record(b"\xc0\x00\x02\x07", ttl=b"\x00\xff\xff\xff")
    assert decoded(answer([long])) == (0, ["192.0.2.7"], 86400)
    named = record(b"\xc0\x00\x02\x07", name=b"\x02mq\x07example\x00")
    assert decoded(answer([named])) == (0, ["192.0.2.7"], 60)


def test_an_ipv6_answer_is_an_address():
    needs("resolver")
    query = mqttpipe.encode_query(7, "mq.example", 28)
    code, addresses, ttl_s = decoded(answer([A1, AAAA], query), query)
    assert addresses == ["2001:0db8:0000:0000:0000:0000:0000:0001"], addresses
    assert mqttpipe.is_literal(addresses[0])


def test_what_answers_another_question_is_no_answer():
    good = answer([A1])
    for datagram in (
        b"",
        good[:11],
        b"\x01" + good[1:],  # another identifier
        good[:1] + b"\x01" + good[2:],
        good[:2] + b"\x01" + good[3:],  # a query
        good.replace(b"\x02mq", b"\x02mx"),
        answer([A1], QUERY[:-3] + b"\x1c\x00\x01"),  # another type
        good[:4] + b"\x00\x02" + good[6:],  # two questions
    ):
        assert decoded(datagram) is None, datagram


def test_the_case_of_the_name_does_not_matter():
    assert decoded(answer([A1]).replace(b"mq", b"Mq")) == (0, ["192.0.2.7"], 60)


def test_broken_records_end_the_reading_and_nothing_is_followed():
    loop = b"\xc0\x0c"
    for datagram, expected in (
        (answer([A1], count=65535), ["192.0.2.7"]),  # counts more than it has
        (answer([A1 + A2[:-1]], count=2), ["192.0.2.7"]),  # cut in the second
        (answer([record(b"\xc0\x00\x02")]), []),  # three bytes of address
        (answer([loop * 40], count=9), []),
        (answer([b"\x3f" + b"x" * 10], count=1), []),  # a label past the end
        (answer([record(b"\xc0\x00\x02\x07", name=b"\x01a" * 20 + b"\x00")]), ["192.0.2.7"]),
    ):
        assert decoded(datagram)[1] == expected, datagram


def test_every_truncation_and_every_changed_byte_is_survived():
    good = answer([CNAME, A1, A2])
    for size in range(len(good)):
        decoded(good[:size])
    for at in range(len(good)):
        for byte in (0, 0x3F, 0xC0, 0xFF):
            decoded(good[:at] + bytes((byte,)) + good[at + 1 :])


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


def test_an_address_is_kept_for_its_time_to_live_and_dropped_when_it_fails():
    bench = start(reconnect_min_ms=0)
    bench.network.lookups[0].answers.append(answer([A1]))
    bench.steps()
    bench.exchange(CONNACK)
    for seconds, lookups in ((0, 1), (59, 1), (2, 2)):
        bench.clock.advance(seconds * 1000)
        bench.server.is_ended = True
        bench.steps()
        assert len(bench.network.lookups) == lookups, seconds
        if lookups == 2:
            bench.network.lookups[1].answers.append(answer([A1]))
            bench.steps()
        bench.exchange(CONNACK)
        assert bench.client.is_online()
    bench.server.is_ended = True
    bench.network.connect_error = ECONNREFUSED
    bench.steps()  # the kept address is refused
    assert len(bench.network.lookups) == 3, "so the name is asked for afresh"


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

    for servers in ({"192.0.2.99"}, {"192.0.2.99": 1}, ("192.0.2.99",)):
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


def test_each_address_has_its_share_of_the_time():
    bench = start(connect_timeout_ms=9000)
    bench.network.is_silent = True
    bench.network.lookups[0].answers.append(answer([A1, A2, record(b"\xc0\x00\x02\x09")]))
    bench.steps()
    tried = []
    for _ in range(9):
        tried.append(bench.server.address[0])
        bench.clock.advance(1000)
        bench.steps()
    assert tried == ["192.0.2.7"] * 3 + ["192.0.2.8"] * 3 + ["192.0.2.9"] * 3
    assert type(bench.error()) is mqttpipe.TimedOut
    assert all(connection.is_closed for connection in bench.network.connections)


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
    needs("resolver")

    class Link:
        def is_up(self):
            return True

        def dns_servers(self):
            return [None]

    bench = Bench(uri="mqtt://mq.example", link=Link())
    bench.client.connect()
    bench.steps()
    ((name, error),) = bench.take_events()
    assert name == "error" and type(error) is TypeError
    assert bench.client.state_name == "RESOLVING"


def test_only_an_address_is_taken_for_one():
    needs("resolver")
    for host in ("192.0.2.1", "255.255.255.255", "2001:db8::1", "::"):
        assert mqttpipe.is_literal(host), host
    for host in ("999.1.1.1", "1.2.3", "1.2.3.4.5", "a.b.c.d", "1.2.3.x", "mq.example"):
        assert not mqttpipe.is_literal(host), host
