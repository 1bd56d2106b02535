"""A time server that has a name: of whom its address is asked, and what is no name."""

# First: it needs the largest pieces of a board's heap.
import mqttpipe

# isort: split
import wifi_core
from board_fakes import SkipTest, raises
from clock_fakes import DAY_MS, Bench, answer, never_set
from wifi_core import Sntp


def need_resolver():
    if not hasattr(mqttpipe, "encode_query"):
        raise SkipTest("a build without resolver")


def dns_answer(query):
    """A DNS server's datagram: the name has the address 192.0.2.10."""
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x0a"
    return query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + query[12:] + record


def test_a_name_is_asked_of_the_dns_server_and_then_the_server_of_that_name():
    need_resolver()
    bench = Bench("time.example")
    bench.step()
    assert bench.socket.where[1] == 53
    query = bench.socket.sent
    assert query[12:26] == b"\x04time\x07example\x00"
    bench.socket.answers.append(dns_answer(query))
    bench.step()
    assert bench.socket.where == ("192.0.2.10", 123)
    bench.socket.answers.append(answer(bench.socket.sent))
    assert bench.step()


def test_of_several_addresses_each_has_its_chance():
    """One that is silent would else keep the clock from being set for ever."""
    need_resolver()
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x0b"
    asked = []
    for draw in range(4):
        bench = Bench("time.example")
        wifi_core.urandom = lambda count, draw=draw: bytes((draw,)) * count
        bench.step()
        data = dns_answer(bench.socket.sent) + record
        bench.socket.answers.append(data[:7] + b"\x02" + data[8:])
        bench.step()
        asked.append(bench.socket.where)
    assert sorted(set(asked)) == [("192.0.2.10", 123), ("192.0.2.11", 123)], asked


def test_what_is_nearly_an_address_is_asked_for_as_a_name():
    """getaddrinfo() would do so, too, and wait for the answer."""
    need_resolver()
    bench = Bench("192.0.2.256")
    bench.step()
    assert bench.socket.where[1] == 53, bench.socket.where


def test_so_is_what_has_too_many_or_too_few_numbers():
    need_resolver()
    for name in ("192.0.2.1.5", "192.0.2", "7"):
        bench = Bench(name)
        bench.step()
        assert bench.socket.where[1] == 53, bench.socket.where


def test_a_port_behind_a_server_is_told_at_once():
    """With its colon it would pass for an address of IPv6, and getaddrinfo() would block."""
    need_resolver()
    for name in ("time.example:123", "192.0.2.1:123", "[2001:db8::1]", "cafe:123"):
        raises(ValueError, Sntp, (name,), list)
    Sntp(("2001:DB8::1", "::ffff:192.0.2.1"), list)


def test_each_name_is_asked_of_each_dns_server():
    """The first server may know one name alone, and the second none."""
    need_resolver()
    for count in (1, 2, 3, 4):
        names = ["time%d.example" % i for i in range(count)]
        bench = Bench(*names)
        asked = []
        for _ in range(4 * 120):
            before = len(bench.network.sockets)
            bench.step()
            if len(bench.network.sockets) > before:
                asked.append((bench.socket.sent[13:18], bench.socket.where[0]))
                bench.network.sockets = bench.network.sockets[-1:]
            bench.clock.advance(250)
        for i in range(count):
            name = b"time%d" % i
            assert (name, "192.0.2.53") == asked[i], asked
            assert (name, "192.0.2.54") == asked[count + i], asked


def test_links_that_last_for_one_question_ask_each_dns_server():
    need_resolver()
    bench = Bench("time.example")
    wifi_core.gmtime = never_set
    for _ in range(4):
        bench.step()
        bench.sntp.close()
        bench.sntp.hurry(bench.clock.now_ms)
        bench.clock.advance(20_000)
    assert bench.hosts() == ["192.0.2.53", "192.0.2.54"] * 2


def test_the_dns_server_that_has_answered_is_asked_the_next_day_too():
    need_resolver()
    for silent_ms, wanted in ((0, "53"), (15_250, "54"), (45_250, "53")):
        bench = Bench("time.example")
        bench.run(silent_ms)
        for _ in range(2):
            bench.step()
            dns_server, query = bench.socket.where[0], bench.socket.sent
            assert dns_server == "192.0.2." + wanted
            bench.socket.answers.append(dns_answer(query))
            bench.step()
            bench.socket.answers.append(answer(bench.socket.sent))
            assert bench.step()
            bench.clock.advance(DAY_MS)


def test_a_name_needs_a_client_that_can_resolve_it():
    found = getattr(mqttpipe, "encode_query", None)
    if found:
        del mqttpipe.encode_query
    try:
        raises(ValueError, Sntp, ("time.example",), list)
        Sntp(("192.0.2.1", "2001:db8::1"), list)
    finally:
        if found:
            mqttpipe.encode_query = found


def test_a_name_that_nobody_can_have_is_told_at_once():
    for name in ("time..example", "", "n" * 64):
        raises(ValueError, Sntp, ("192.0.2.1", name), list)


def test_a_server_that_is_no_text_is_told_with_its_value():
    need_resolver()
    for servers in (5, [5], True, ("192.0.2.1", 5), [("192.0.2.1", 123)]):
        text = raises(ValueError, Sntp, servers, list)
        assert text.startswith("ntp: ") and "is neither a name nor an address" in text, text
