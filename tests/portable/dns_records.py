"""Queries and answers of DNS (RFC 1035), spelled by hand, for tests."""

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
