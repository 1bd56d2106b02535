"""A name with addresses of both families, of which one does not work here."""

from fakes import CONNACK, ECONNREFUSED, Bench, needs

A, AAAA = 1, 28
V4 = b"\xc0\x00\x02\x07"
V6 = b"\x20\x01\x0d\xb8" + b"\x00" * 11 + b"\x01"
ENETUNREACH = 101


class Names:
    """A DNS server for the fakes: kind -> list of addresses; keeps what it was asked for."""

    def __init__(self, bench, records):
        self.bench = bench
        self.records = records
        self.asked = []
        self.done = 0

    def answer(self):
        for lookup in self.bench.network.lookups[self.done :]:
            self.done += 1
            query = lookup.query
            kind = query[-3]
            self.asked.append(kind)
            found = self.records.get(kind, ())
            flags = b"\x81\x83" if found == "no such name" else b"\x81\x80"
            found = () if found == "no such name" else found
            data = query[:2] + flags + b"\x00\x01" + bytes((0, len(found))) + b"\x00\x00\x00\x00"
            data += query[12:]
            for address in found:
                data += b"\xc0\x0c" + bytes((0, kind)) + b"\x00\x01\x00\x00\x00\x3c"
                data += bytes((0, len(address))) + address
            lookup.answers.append(data)


def live(records, prepare, seconds=10, silent=()):
    """Run a client against such a name; returns the bench, and what was asked for.

    silent: addresses that take the connection and answer nothing.
    """
    needs("resolver")
    bench = Bench(uri="mqtt://dual.example", reconnect_min_ms=0, reconnect_max_ms=0)
    names = Names(bench, records)
    bench.client.connect()
    greeted = 0
    for _ in range(seconds * 10):
        prepare(bench.network, names)
        bench.steps()
        names.answer()
        for connection in bench.network.connections[greeted:]:
            greeted += 1
            if connection.address[0] in silent:
                continue
            if not connection.error and not connection.is_closed:
                connection.send(CONNACK)
        bench.steps()
        if bench.client.is_online():
            break
        bench.clock.advance(100)
    return bench, names.asked


def refuse_v4(network, names):
    network.refused = "192.0.2.7"


def test_ipv6_is_tried_when_every_ipv4_address_is_refused():
    bench, asked = live({A: [V4], AAAA: [V6]}, refuse_v4)
    assert bench.client.is_online() and AAAA in asked, asked
    assert ":" in bench.server.address[0]


def test_ipv6_is_tried_when_there_is_no_way_to_an_ipv4_address():
    def unreachable(network, names):
        network.connect_error = 0 if AAAA in names.asked else ENETUNREACH

    bench, asked = live({A: [V4], AAAA: [V6]}, unreachable)
    assert bench.client.is_online() and AAAA in asked, asked


def test_ipv4_is_tried_when_ipv6_does_not_work():
    def refuse_v6(network, names):
        network.refused = "2001:0db8:0000:0000:0000:0000:0000:0001"

    bench, asked = live({A: [V4], AAAA: [V6]}, refuse_v6)
    assert bench.client.is_online() and bench.server.address[0] == "192.0.2.7", asked


def test_a_name_with_ipv6_addresses_only_comes_online():
    bench, asked = live({AAAA: [V6]}, lambda network, names: None)
    assert bench.client.is_online() and AAAA in asked


def test_a_name_without_ipv6_goes_on_with_ipv4_when_that_works_again():
    """The family that is not there must not be kept as the answer."""

    def for_a_while(network, names):
        network.refused = "192.0.2.7" if len(names.asked) < 5 else None

    bench, asked = live({A: [V4]}, for_a_while)
    assert bench.client.is_online() and AAAA in asked, asked


def test_neither_works_and_the_client_tells_and_goes_on():
    def refuse(network, names):
        network.connect_error = ECONNREFUSED

    bench, asked = live({A: [V4], AAAA: [V6]}, refuse, 2)
    assert not bench.client.is_online() and set(asked) == {A, AAAA}
    errors = [event[1] for event in bench.take_events() if event[0] == "offline"]
    assert errors, "it tells"


OTHER_V4 = b"\xc0\x00\x02\x08"
V6_TEXT = "2001:0db8:0000:0000:0000:0000:0000:0001"


def test_ipv6_is_tried_when_every_ipv4_address_takes_us_and_says_nothing():
    for v4 in ([V4], [V4, OTHER_V4]):
        silent = ("192.0.2.7", "192.0.2.8")
        bench, asked = live({A: v4, AAAA: [V6]}, lambda network, names: None, 60, silent)
        assert bench.client.is_online() and bench.server.address[0] == V6_TEXT, asked
        addresses = [connection.address[0] for connection in bench.network.connections]
        assert addresses == ["192.0.2.7", "192.0.2.8"][: len(v4)] + [V6_TEXT], addresses
        bench.server.is_ended = True
        bench.steps()
        assert bench.server.address[0] == V6_TEXT, "what was good stays the first one"


def test_ipv4_is_tried_again_when_ipv6_says_nothing_either():
    def until_the_fourth(network, names):
        if len(network.connections) > 3:
            silent.clear()

    silent = ["192.0.2.7", V6_TEXT]
    bench, asked = live({A: [V4], AAAA: [V6]}, until_the_fourth, 100, silent)
    addresses = [connection.address[0] for connection in bench.network.connections]
    assert bench.client.is_online() and addresses[:3] == ["192.0.2.7", V6_TEXT, "192.0.2.7"], asked


def test_a_server_of_names_that_denies_the_other_family_keeps_nobody_away():
    """Some answer "no such name" where there is only no IPv6 address."""

    def until_the_second(network, names):
        if len(network.connections) > 1:
            silent.clear()

    silent = ["192.0.2.7"]
    bench, asked = live({A: [V4], AAAA: "no such name"}, until_the_second, 60, silent)
    assert bench.client.is_online() and AAAA in asked, asked


def test_no_such_name_holds_for_both_families():
    """RFC 8020: such a name has no record of any type, so the other one is not asked for."""
    bench, asked = live({A: "no such name", AAAA: [V6]}, lambda network, names: None, 0)
    bench.client.connect()
    bench.steps()
    names = Names(bench, {A: "no such name", AAAA: [V6]})
    names.answer()
    bench.client.step()
    error = bench.error()
    assert names.asked == [A] and error.stage == "DNS" and "code 3" in str(error), error


def moved(before, after):
    """A name has had addresses of one family, and has those of another; returns what is asked."""
    bench, _ = live(before, lambda network, names: None)
    assert bench.client.is_online()
    first = bench.server.address[0]
    bench.server.is_ended = True
    bench.network.refused = first  # nobody is there any more
    bench.clock.advance(100_000)  # longer than the name is known for
    names = Names(bench, after)
    names.done = len(bench.network.lookups)
    for _ in range(100):
        bench.steps()
        names.answer()
        if bench.server.address[0] != first and not bench.server.is_closed:
            bench.server.send(CONNACK)
            bench.steps()
        if bench.client.is_online():
            break
        bench.clock.advance(100)
    assert bench.client.is_online() and bench.server.address[0] != first
    return names.asked


def test_a_name_that_has_moved_to_the_other_family_is_found_in_one_attempt():
    """No record of the type that was asked for (NODATA): the other one is asked for at once."""
    assert moved({A: [V4]}, {AAAA: [V6]}) == [A, AAAA]
    assert moved({AAAA: [V6]}, {A: [V4]}) == [AAAA, A]


def test_ipv6_is_tried_where_one_ipv4_address_is_silent_and_the_next_refuses():
    """In either order, and with one more that refuses."""
    v4 = [b"\xc0\x00\x02\x06", V4]
    for found in (v4, v4[::-1], v4 + [V4]):
        bench, asked = live({A: found, AAAA: [V6]}, refuse_v4, 60, silent=("192.0.2.6",))
        assert bench.client.is_online() and ":" in bench.server.address[0], (found, asked)
