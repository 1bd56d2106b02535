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
            data = query[:2] + b"\x81\x80\x00\x01" + bytes((0, len(found))) + b"\x00\x00\x00\x00"
            data += query[12:]
            for address in found:
                data += b"\xc0\x0c" + bytes((0, kind)) + b"\x00\x01\x00\x00\x00\x3c"
                data += bytes((0, len(address))) + address
            lookup.answers.append(data)


def live(records, prepare, seconds=10):
    """Run a client against such a name; returns the bench, and what was asked for."""
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
