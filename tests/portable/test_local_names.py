"""Names that end in .local are asked for by multicast, those of two labels never of a server.

RFC 6762, section 5.1.
"""

from fakes import CONNACK, Bench, needs

GROUP = ("224.0.0.251", 5353)
ADDRESS = b"\xc0\x00\x02\x21"


def start(host, **options):
    needs("resolver")
    bench = Bench(uri="mqtt://%s:1884" % host, **options)
    bench.client.connect()
    bench.steps()
    assert bench.client.state_name == "RESOLVING"
    return bench


def answer(query, name=b"\xc0\x0c", data=ADDRESS, records=1, cls=b"\x80\x01"):
    """As a responder sends it to a one-shot query: the query's identifier and question, too."""
    head = query[:2] + b"\x84\x00\x00\x01" + bytes((0, records)) + b"\x00\x00\x00\x00"
    record = name + b"\x00\x01" + cls + b"\x00\x00\x00\x0a" + bytes((0, len(data))) + data
    return head + query[12:] + record * records


def test_it_is_asked_for_in_the_group_and_its_address_connected_to():
    bench = start("homehub.local")
    (lookup,) = bench.network.lookups
    assert lookup.address == GROUP
    assert lookup.query == (
        b"\x00\x00\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07homehub\x05local\x00\x00\x01\x00\x01"
    )
    lookup.answers.append(answer(lookup.query))
    bench.steps()
    assert lookup.is_closed and bench.server.address == ("192.0.2.33", 1884)
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_no_server_is_asked_for_it_in_any_case_or_with_a_dot_at_its_end():
    for host in ("Hub.LOCAL", "hub.local."):
        bench = start(host)
        for _ in range(100):
            bench.clock.advance(100)
            bench.steps()
        assert bench.network.lookups
        for lookup in bench.network.lookups:
            assert lookup.address == GROUP, (host, lookup.address)


def test_a_longer_name_that_nobody_has_is_asked_of_the_server_next():
    """Companies and Kubernetes have names under .local that only their DNS servers know."""
    for host in ("mqtt.company.local", "MQTT.default.svc.cluster.local."):
        bench = start(host)
        assert bench.network.lookups[0].address == GROUP
        bench.clock.advance(1500)
        bench.steps()
        lookup = bench.network.lookups[1]
        assert lookup.address == ("192.0.2.53", 53)
        lookup.answers.append(answer(lookup.query))
        bench.steps()
        assert bench.server.address == ("192.0.2.33", 1884)
        bench = start(host)
        bench.network.lookups[0].answers.append(answer(bench.network.lookups[0].query))
        bench.steps()
        assert bench.server.address == ("192.0.2.33", 1884) and len(bench.network.lookups) == 1
        bench = start(host)
        for _ in range(150):
            bench.clock.advance(100)
            bench.steps()
        servers = [lookup.address[0] for lookup in bench.network.lookups[:4]]
        assert servers == [GROUP[0], "192.0.2.53", "192.0.2.54", GROUP[0]]


def test_other_names_go_to_the_server_as_ever():
    for host in ("local.example", "mylocal", "a.localdomain", "local"):
        bench = start(host)
        assert bench.network.lookups[0].address == ("192.0.2.53", 53), host


def test_a_lost_question_is_asked_again():
    bench = start("hub.local")
    for _ in range(40):
        bench.clock.advance(100)
        bench.steps()
        if len(bench.network.lookups) > 1:
            break
    lookup = bench.network.lookups[-1]
    assert len(bench.network.lookups) > 1 and lookup.address == GROUP
    lookup.answers.append(answer(lookup.query))
    bench.steps()
    assert bench.server.address == ("192.0.2.33", 1884)


def test_a_name_that_nobody_has_is_told_and_asked_for_again_later():
    bench = start("nobody.local", connect_timeout_ms=5000, reconnect_min_ms=0)
    for _ in range(80):
        bench.clock.advance(100)
        bench.steps()
    errors = [what for name, what in bench.take_events() if name == "offline"]
    assert errors and errors[0].stage == "DNS", errors
    assert len(bench.network.lookups) > 1


def test_what_others_say_in_the_group_is_no_answer():
    bench = start("hub.local")
    lookup = bench.network.lookups[-1]
    query = lookup.query
    lookup.answers += [
        b"",
        query,  # somebody asks the same
        answer(query[:12] + b"\x05other\x05local\x00\x00\x01\x00\x01"),
        answer(query, data=b"\xc0\x00"),
    ]
    bench.steps()
    assert bench.client.state_name == "RESOLVING" and not bench.network.connections


def test_who_only_says_that_there_was_an_error_is_not_heard():
    """A router, say, that takes the question for its DNS server's. RFC 6762, section 18.11."""
    for code in (1, 2, 3, 5):
        bench = start("hub.local")
        lookup = bench.network.lookups[-1]
        wire = answer(lookup.query, records=0)
        lookup.answers.append(wire[:3] + bytes((0x80 | code,)) + wire[4:])
        bench.steps()
        assert bench.client.state_name == "RESOLVING" and not lookup.is_closed, code
        lookup.answers.append(answer(lookup.query))
        bench.steps()
        assert bench.server.address == ("192.0.2.33", 1884)


def test_an_answer_with_many_addresses_is_used_whole():
    bench = start("hub.local")
    lookup = bench.network.lookups[-1]
    bench.network.refused = "192.0.2.33"
    both = answer(lookup.query)
    both = both[:7] + b"\x02" + both[8:]
    lookup.answers.append(
        both + b"\xc0\x0c\x00\x01\x80\x01\x00\x00\x00\x0a\x00\x04\xc0\x00\x02\x22"
    )
    bench.steps()
    assert bench.server.address == ("192.0.2.34", 1884)


def test_the_link_names_no_server_and_it_is_found_all_the_same():
    class Link:
        def is_up(self):
            return True

        def dns_servers(self):
            return []

    bench = start("hub.local", link=Link())
    assert bench.network.lookups[0].address == GROUP


def test_a_device_with_an_ipv6_address_only_is_found():
    """Nobody says in the group that there is no IPv4 address: there is silence."""
    for timeout_ms in (10_000, 5_000):
        bench = start("hub.local", connect_timeout_ms=timeout_ms)
        for _ in range(timeout_ms // 100):
            bench.clock.advance(100)
            bench.steps()
            lookup = bench.network.lookups[-1]
            if lookup.query[-3] == 28 and not bench.network.connections:
                wire = answer(lookup.query, data=b"\xfd" + b"\x00" * 14 + b"\x07")
                at = len(lookup.query) + 3
                lookup.answers.append(wire[:at] + b"\x1c" + wire[at + 1 :])
        assert bench.server.address == ("fd00:0000:0000:0000:0000:0000:0000:0007", 1884)


def test_an_answer_without_an_address_keeps_nobody_from_the_right_one():
    """Anybody in the network may send one: another device, without records or with broken ones."""
    for records, data in ((0, ADDRESS), (1, ADDRESS[:3]), (1, b"")):
        bench = start("hub.local")
        (lookup,) = bench.network.lookups
        lookup.answers.append(answer(lookup.query, data=data, records=records))
        bench.steps()
        assert bench.client.state_name == "RESOLVING", (records, data)
        lookup.answers.append(answer(lookup.query))
        bench.steps()
        assert bench.server.address == ("192.0.2.33", 1884)
