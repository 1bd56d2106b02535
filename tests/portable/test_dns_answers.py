"""Queries and answers of DNS (RFC 1035): what is asked, and what is read from which bytes."""

from dns_records import A1, A2, AAAA, CNAME, QUERY, QUESTION_AAAA, answer, record
from fakes import needs, raises

import mqttpipe


def decoded(datagram, query=QUERY):
    needs("resolver")
    return mqttpipe.decode_answer(datagram, query)


def test_a_query_is_one_question():
    needs("resolver")
    assert mqttpipe.encode_query(0, "mq.example", 1) == QUERY
    assert mqttpipe.encode_query(0, "mq.example.", 1) == QUERY
    assert mqttpipe.encode_query(0, "mq.example", 28)[12:] == QUESTION_AAAA


def test_a_name_that_can_not_be_asked_for_is_refused():
    needs("resolver")
    for host in ("a..b", ".a", "x" * 64 + ".b", ""):
        raises(mqttpipe.LocalError, mqttpipe.encode_query, 1, host, 1)


def test_a_name_has_255_bytes_at_most():
    """RFC 1035, section 2.3.4, with the length before each label and the root's."""
    needs("resolver")
    longest = ".".join(("x" * 63, "y" * 63, "z" * 63, "n" * 61))
    for host in (longest, longest + "."):
        assert len(mqttpipe.encode_query(1, host, 1)) == 12 + 255 + 4
    for host in (longest + "n", longest[:-2] + ".n.n", "a." * 127 + "a"):
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


def test_a_time_to_live_with_its_top_bit_set_is_none():
    """RFC 2181 section 8."""
    for ttl in (b"\x80\x00\x00\x00", b"\x80\x00\x00\x3c", b"\xff\xff\xff\xff"):
        assert decoded(answer([record(b"\xc0\x00\x02\x07", ttl=ttl)])) == (0, ["192.0.2.7"], 0)


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


def test_a_record_of_another_class_is_no_address():
    for high, low, addresses in ((0, 1, ["192.0.2.7"]), (0x80, 1, ["192.0.2.7"]), (0, 3, [])):
        data = answer([A1[:4] + bytes((high, low)) + A1[6:]])
        assert decoded(data) == (0, addresses, 60), (high, low)


def test_every_truncation_and_every_changed_byte_is_survived():
    good = answer([CNAME, A1, A2])
    for size in range(len(good)):
        decoded(good[:size])
    for at in range(len(good)):
        for byte in (0, 0x3F, 0xC0, 0xFF):
            decoded(good[:at] + bytes((byte,)) + good[at + 1 :])


def test_only_an_address_is_taken_for_one():
    needs("resolver")
    for host in ("192.0.2.1", "255.255.255.255", "2001:db8::1", "::"):
        assert mqttpipe.is_literal(host), host
    for host in ("999.1.1.1", "1.2.3", "1.2.3.4.5", "a.b.c.d", "1.2.3.x", "mq.example"):
        assert not mqttpipe.is_literal(host), host
    for host in ("192.0.2.53:53", "mq.example:53", ":"):
        assert not mqttpipe.is_literal(host), host
    # What getaddrinfo() would take for an octal number or a name, and digits of other scripts.
    for host in ("010.0.2.2", "1.2.3.04", "1.2.3.", ".1.2.3", "1.2.3.\u0664", "+1.2.3.4"):
        assert not mqttpipe.is_literal(host), host


def test_an_answer_of_the_wrong_length_for_its_type_is_no_address():
    for data in (b"\xc0\x00\x02", b"\xc0\x00\x02\x07\x00", b"\x20\x01" + b"\x00" * 14):
        assert decoded(answer([record(data)])) == (0, [], 60), data
    query = QUERY[:-3] + b"\x1c\x00\x01"
    assert decoded(answer([record(b"\xc0\x00\x02\x07", kind=28)], query), query)[1] == []
