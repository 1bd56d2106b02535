"""URIs of servers: taken apart, or refused with the reason and without the password."""

from fakes import needs, raises

import mqttpipe

LocalError = mqttpipe.LocalError


def new(uri="mqtt://h", **options):
    return mqttpipe.MQTTClient(uri, **options)


def test_uris_are_taken_apart():
    needs("tls")
    cases = (
        ("mqtt://broker.example", ("broker.example", 1883, None, None, False)),
        ("MQTT://broker.example", ("broker.example", 1883, None, None, False)),
        ("tcp://broker.example:1884", ("broker.example", 1884, None, None, False)),
        ("mqtt://broker.example/", ("broker.example", 1883, None, None, False)),
        ("mqtt://192.0.2.7:65535", ("192.0.2.7", 65535, None, None, False)),
        ("mqtt://[2001:db8::1]", ("2001:db8::1", 1883, None, None, False)),
        ("mqtt://[::1]:1884", ("::1", 1884, None, None, False)),
        ("mqtt://user@h", ("h", 1883, b"user", None, False)),
        ("mqtt://user:@h", ("h", 1883, b"user", b"", False)),
        ("mqtt://user:se%3Acr%40t@h:1", ("h", 1, b"user", b"se:cr@t", False)),
        ("mqtt://u:line%0A@h", ("h", 1883, b"u", b"line\n", False)),
        ("mqtt://us%C3%A9r:p:q@h", ("h", 1883, b"us\xc3\xa9r", b"p:q", False)),
        ("mqtts://h", ("h", 8883, None, None, True)),
        ("SSL://u@[::1]:1", ("::1", 1, b"u", None, True)),
    )
    for uri, expected in cases:
        assert mqttpipe.parse_uri(uri) == expected, uri


def test_a_bad_uri_is_refused_with_its_reason():
    needs("tls", "failover", "resolver")
    cases = (
        ("broker.example", "'broker.example'"),
        ("localhost:1883", "'localhost:1883'"),
        ("", "''"),
        ("user:word@host", "'***@host'"),
        ("mqtts://", "host"),
        ("http://h", "http://h"),
        ("mqtt://", "host"),
        ("mqtt://:1883", "host"),
        ("mqtt://h:0", "1..65535"),
        ("mqtt://h:65536", "65536"),
        ("mqtt://h:x", "1..65535"),
        ("mqtt://h:", "1..65535"),
        ("mqtt://h/path", "h/path"),
        ("mqtt://a b", "a b"),
        ("mqtt://a..b", "1..63 bytes"),
        ("mqtt://" + "x" * 64, "1..63 bytes"),
        ("mqtt://[::1", "[::1]"),
        ("mqtt://[h]", "[::1]"),
        ("mqtt://[::1]x", "[::1]"),
        ("mqtt://u%4:p@h", "hex"),
        ("mqtt://u%zz@h", "hex"),
        ("mqtt://u%+1@h", "hex"),
        ("mqtt://u% 1@h", "hex"),
        ("mqtt://u:word\n@h", "control character"),  # as read from a file
        ("mqtt://u\x7f@h", "control character"),
        ("mqtt://h:\u0661", "1..65535"),  # digits, but not ours
        ("mqtt://h:+1", "1..65535"),
        ("mqtt://h:1_0", "1..65535"),
        ("mqtt://h\n", "host"),
        ("mqtt://h\x7f", "host"),
        ("mqtt://h\x9b31m", "host"),  # it controls a terminal as ESC [ does
        ("mqtt://h\xa0", "host"),  # a space
        ("mqtt://h\x00", "host"),
        ("mqtt://[zz::1]", "[::1]"),
        ("mqtt://[1::2::3]", "[::1]"),
        ("mqtt://[1:2:3:4:5:6:7]", "[::1]"),
        ("mqtt://[:1]", "[::1]"),
        (b"mqtt://h", "bytes"),
        (None, "NoneType"),
        ([], "empty"),
        (["mqtt://h", "nonsense"], "nonsense"),
    )
    for uri, part in cases:
        message = raises(LocalError, new, uri)
        assert part in message, (uri, message)


def test_no_error_about_a_uri_tells_the_password():
    for uri in (
        "mqtt://me:topsecret@h:99999",
        "http://me:topsecret@h",
        "me:topsecret@h",
        "mqtt://me:topsecret%@h",
        "mqtt://me:topsecret@",
        "mqtt://me:top@secret@h:0",
        "mqtt://me:topsecret%zz@h",
        "mqtt://me:topsecret\n@h",
        "mqtt://me:topsecret%+1@h",
        "mqtt://me%00:topsecret@h",
        "mqtt://me:topsecret@a b",
        "mqtt://me:topsecret@[1::2::3]",
        "mqtts:me:topsecret@h",
    ):
        message = raises(LocalError, new, uri)
        assert "secret" not in message and "me:" not in message, message
