"""Several servers with names: what one of them met does not keep the others from being tried."""

import mqtt5
from dns_records import answer, record
from fakes import CONNACK, Bench, needs

FIRST = b"\xc0\x00\x02\x01"
SECOND = b"\xc0\x00\x02\x02"
MOVED = b"\xc0\x00\x02\x09"
A_DAY = b"\x00\x01\x51\x80"


class World:
    """A client of first.example and second.example, and what DNS says of these two."""

    def __init__(self, **options):
        needs("resolver", "failover")
        self.bench = Bench(
            uri=["mqtt://first.example", "mqtt://second.example"],
            reconnect_min_ms=100,
            reconnect_max_ms=1000,
            **options,
        )
        self.addresses = {b"first": FIRST, b"second": SECOND}
        self.asked = []  # first labels
        self.tried = []  # last bytes of the addresses
        self.bench.client.connect()

    def answer_of(self, label, query):
        if query[-3] == 1:
            return answer([record(self.addresses[label], ttl=A_DAY)], query)
        return answer([], query)

    def turn(self):
        """100 ms. Returns the connections that are new."""
        bench = self.bench
        bench.steps()
        for lookup in bench.network.lookups:
            if not lookup.is_closed:
                query = lookup.query
                label = bytes(query[13 : 13 + query[12]])
                self.asked.append(label)
                data = self.answer_of(label, query)
                if data:
                    lookup.answers.append(data)
        bench.network.lookups.clear()
        bench.steps()
        fresh = [one for one in bench.network.connections if not hasattr(one, "is_known")]
        del bench.network.connections[:-1]
        for connection in fresh:
            connection.is_known = True
            self.tried.append(int(connection.address[0].split(".")[-1]))
        bench.clock.advance(100)
        return fresh


def test_one_that_says_nothing_does_not_keep_the_other_from_a_dns_server_that_fails_at_aaaa():
    """RFC 4074: the question for AAAA is answered by a failure, "no such name", or never."""
    for flags in (b"\x81\x82", b"\x81\x83", None):
        world = World()
        usual = world.answer_of

        def fail_at_aaaa(label, query, usual=usual, flags=flags):
            if query[-3] == 1:
                return usual(label, query)
            return answer([], query, flags=flags) if flags else None

        world.answer_of = fail_at_aaaa
        for _ in range(1200):
            for connection in world.turn():
                if connection.address[0] == "192.0.2.2":
                    connection.send(CONNACK)
            if world.bench.client.is_online():
                break
        assert world.bench.client.is_online(), (flags, world.tried)


def test_the_one_that_failed_is_asked_for_anew_and_not_the_next():
    """It has moved, and its old address holds for a day; the other sends everybody away."""
    world = World()
    world.bench.network.refused = "192.0.2.1"
    for _ in range(200):
        for connection in world.turn():
            if not connection.is_closed:
                connection.send(CONNACK)
                world.bench.steps()
                connection.is_ended = connection.address[0] == "192.0.2.2"
        if world.tried[-1:] == [9]:
            break
        if world.tried[-1:] == [2]:
            world.addresses[b"first"] = MOVED
    assert world.tried[-1] == 9 and world.bench.client.is_online(), world.tried


def test_one_that_names_a_server_that_is_away_does_not_keep_the_other_from_being_tried():
    """[5: 4.11]"""
    needs("failover", "mqtt5")
    bench = Bench(
        uri=["mqtt://192.0.2.1", "mqtt://192.0.2.2"],
        protocol=5,
        reconnect_min_ms=0,
        reconnect_max_ms=0,
    )
    bench.network.refused = "192.0.2.3"
    bench.client.connect()
    bench.steps()
    bench.exchange(b"\x20\x0f\x00\x9c\x0c\x1c\x00\x09192.0.2.3")
    bench.clock.advance(1)
    bench.steps()
    tried = [connection.address[0] for connection in bench.network.connections]
    assert tried == ["192.0.2.1", "192.0.2.3", "192.0.2.2"], tried
    bench.exchange(mqtt5.connack())
    assert bench.client.is_online()


def test_of_servers_that_are_named_only_the_last_one_is_kept():
    needs("resolver", "mqtt5")
    bench = Bench(uri="mqtt://192.0.2.1", protocol=5, reconnect_min_ms=0, reconnect_max_ms=0)
    bench.client.connect()
    kept = bench.client._known
    for number in range(20):
        bench.steps()
        bench.exchange(b"\x20\x0a\x00\x9c\x07\x1c\x00\x04" + b"n.%02d" % number)
        lookup = bench.network.lookups[-1]
        assert lookup.query[15:17] == b"%02d" % number
        lookup.answers.append(answer([record(SECOND)], lookup.query))
        bench.steps()
        assert bench.server.address[0] == "192.0.2.2"
        bench.exchange(b"\x20\x03\x00\x88\x00")
        bench.clock.advance(1)
    assert len(kept) == 1, kept


def test_each_server_has_its_turn_of_addresses():
    """Three of four addresses take us and say nothing. None keeps the good one from its turn."""
    for good in (1, 2, 3, 4):
        world = World()
        addresses = {b"first": (1, 2), b"second": (3, 4)}
        world.answer_of = lambda label, query, addresses=addresses: answer(
            [record(b"\xc0\x00\x02" + bytes((one,)), ttl=A_DAY) for one in addresses[label]]
            if query[-3] == 1
            else [],
            query,
        )
        for _ in range(1500):
            world.turn()
            if world.tried and world.tried[-1] == good:
                break
        assert world.tried[-1] == good, (good, world.tried)
