"""What is given to getaddrinfo() is an address for certain: with a name, it blocks for seconds.

Seen on the ESP32's socket module: `[zz::1]`, `[::1::2]` and "ns.example" are looked up for 7 s,
"010.0.2.2" is 8.0.2.2 and "1.2.3" is 1.2.0.3; an IPv6 address has None for its address, and the
pair (literal, port) serves in its place.
"""

from fakes import CONNACK, EINPROGRESS, Bench, needs, raises

import mqttpipe

ENFILE = 23  # on all ports; MicroPython's errno has no name for it


AF_INET = 2
AF_INET6 = 10


def on_strict_network(**options):
    """A Bench whose network blocks on nothing but an address, and answers IPv6 as the ESP32 does.

    Its network has `asked`, of getaddrinfo(), and `families`, of sockets.
    """
    bench = Bench(**options)
    network = bench.network
    make_socket = network.socket
    network.asked = []
    network.families = []

    def getaddrinfo(host, port, family=0, kind=0, proto=0, flags=0):
        network.asked.append(host)
        if ":" in host:
            return [(AF_INET6, kind, 0, host, None)]
        parts = host.split(".")
        assert len(parts) == 4, "it would block: " + host
        for part in parts:
            assert str(int(part)) == part and int(part) < 256, "it would block: " + host
        return [(AF_INET, kind, 0, host, (host, port))]

    def socket(family=AF_INET, kind=1, proto=0):
        network.families.append(family)
        return make_socket(family, kind, proto)

    network.AF_INET6 = AF_INET6
    network.getaddrinfo = getaddrinfo
    network.socket = socket
    return bench


class Link:
    def __init__(self, *servers):
        self.servers = servers

    def is_up(self):
        return True

    def dns_servers(self):
        return self.servers


def test_an_ipv6_address_without_an_address_is_connected_to_as_a_pair():
    bench = on_strict_network(uri="mqtt://[2001:db8::1]:1884")
    bench.client.connect()
    bench.steps()
    assert bench.network.families == [AF_INET6]
    assert bench.server.address == ("2001:db8::1", 1884)
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_an_ipv6_address_from_dns_is_connected_to_as_a_pair():
    needs("resolver")
    bench = on_strict_network(uri="mqtt://mq.example:1884")
    bench.client.connect()
    address = b"\x20\x01\x0d\xb8" + b"\x00" * 11 + b"\x01"
    for _ in range(6):
        bench.steps()
        if bench.network.connections:
            break
        lookup = bench.network.lookups[-1]
        query = lookup.query
        is_aaaa = query[-3] == 28
        head = query[:2] + b"\x81\x80\x00\x01" + bytes((0, is_aaaa)) + b"\x00\x00\x00\x00"
        record = b"\xc0\x0c\x00\x1c\x00\x01\x00\x00\x00\x3c\x00\x10" + address
        if not lookup.is_closed and not lookup.answers:
            lookup.answers.append(head + query[12:] + (record if is_aaaa else b""))
    host, port = bench.server.address
    assert mqttpipe.is_literal(host) and host.replace("0", "").count("1") == 2, host
    assert port == 1884 and bench.network.families[-1] == AF_INET6
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_what_is_no_ipv6_address_is_refused_in_brackets():
    for host in (
        "zz::1",
        "1::2::3",
        ":",
        ":::",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "12345::",
        "::1.2.3",
        "::1.2.3.456",
        "::1.2.3.4.5",
        "::01.2.3.4",
        "1.2.3.4::",
        "g::",
        "::1 ",
        "[::1]",
    ):
        raises(mqttpipe.LocalError, mqttpipe.MQTTClient, "mqtt://[%s]" % host)


def test_every_form_of_an_ipv6_address_is_taken():
    for host in (
        "::",
        "::1",
        "1::",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "2001:DB8::aBc",
        "::ffff:192.0.2.1",
        "1:2:3:4:5:6:192.0.2.1",
    ):
        bench = on_strict_network(uri="mqtt://[%s]" % host)
        bench.client.connect()
        bench.steps()
        assert bench.server.address == (host, 1883), host


def test_what_is_nearly_an_ipv4_address_is_asked_for_as_a_name_or_refused():
    needs("resolver")
    for host in ("010.0.2.2", "1.2.3", "256.1.1.1", "1.2.3.4.5", "0x7f.1", "127.1", "1.2.3.04"):
        try:
            bench = on_strict_network(uri="mqtt://" + host)
        except mqttpipe.LocalError:
            continue
        bench.client.connect()
        bench.steps()
        assert host not in bench.network.asked and not bench.network.connections, host


def test_a_dns_server_that_is_a_name_is_passed_over_and_told():
    needs("resolver")
    for server in ("ns.example", "", "010.0.2.3", "1.2.3", "localhost", ("ns.example", 5353)):
        bench = on_strict_network(uri="mqtt://mq.example", link=Link(server, "192.0.2.53"))
        bench.client.connect()
        for _ in range(200):
            bench.steps()
            if bench.network.lookups:
                break
            bench.clock.advance(100)
        assert bench.network.lookups[-1].address == ("192.0.2.53", 53), server
        errors = [event[1] for event in bench.events if event[0] == "error"]
        assert errors and isinstance(errors[0], mqttpipe.LocalError), (server, bench.events)


def test_an_error_without_a_name_of_the_port_is_told_in_words():
    needs("hints")
    bench = on_strict_network()
    real = bench.network.socket

    def no_socket(*arguments):
        raise OSError(ENFILE)

    bench.network.socket = no_socket
    bench.client.connect()
    bench.steps()
    error = bench.error()
    assert error.errno == ENFILE
    assert "socket" in str(error) or "file" in str(error), str(error)
    bench.network.socket = real
    bench.clock.advance(60_000)
    bench.steps()
    bench.exchange(CONNACK)
    assert bench.client.is_online()


def test_einprogress_is_no_error_however_often():
    bench = on_strict_network(uri="mqtt://[::1]")
    bench.network.connect_error = EINPROGRESS
    bench.client.connect()
    bench.steps()
    bench.exchange(CONNACK)
    assert bench.client.is_online()
