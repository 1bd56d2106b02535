"""parse_uri() against a reference: one regular expression, ipaddress and urllib.

Case: the URI in UTF-8; bytes that are not UTF-8 become lone surrogates.
"""

import ipaddress
import re
import urllib.parse

import fuzz_streams

import mqttpipe

ALLOCATED_MAX = 200_000
# User and password reach to the last @, whatever they hold.
FORM = re.compile(
    r"(?P<scheme>mqtts?|tcp|ssl)://(?:(?P<secret>.*)@)?"
    r"(?:\[(?P<literal>[^][@]*)\]|(?P<host>[^][@:/]+))(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII | re.DOTALL | re.IGNORECASE,
)
NO_HOST = re.compile(r'[\x00-\x20/\\"<>?#%\x7f-\xa0]')
NO_SECRET = re.compile(r"[\x00-\x1f\x7f]|%(?![0-9A-Fa-f]{2})")

PARTS = (
    ("mqtt", "mqtts", "tcp", "ssl", "MQTT", "ws", "", "http"),
    ("://", "://", "://", ":", "//"),
    (
        "",
        "",
        "u@",
        "u:p@",
        ":@",
        "u%20:%ff@",
        "%00@",
        "%f@",
        "a/b:c@d@",
        "u:p:q@",
        "%ff@",
        "us3r:s3cret@",
    ),
    ("broker.example", "h", "192.0.2.1", "[::1]", "[fe80::1%eth0]", "[1:2:3:4:5:6:7:8]", "a b")
    + ("", "::1", "[]", "[::1", "010.0.0.1", "1.2.3", "a..b", "a.", ".", "n" * 64, "\u00e4.b")
    + ("[::192.0.2.1]", "[1::2::3]", "h?q", "h#f", "[12345::]", "[::256.0.0.1]"),
    ("", "", ":1883", ":0", ":65535", ":65536", ":", ":-1", ":\u0661", ":1 ", ":00080"),
    ("", "", "/", "//", "/topic"),
)


def make(draw):
    text = "".join(draw.choice(part) for part in PARTS).encode()
    return fuzz_streams.spoil(draw, text) if draw.random() < 0.5 else text


def expect(uri):
    """(host, port, user, password, is_tls), or None."""
    found = FORM.fullmatch(uri)
    if not found:
        return None
    scheme = found["scheme"].lower()
    is_tls = scheme in ("mqtts", "ssl")
    port = int(found["port"] or (8883 if is_tls else 1883))
    if not 1 <= port <= 65535:
        return None
    host = found["literal"]
    if host is not None:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return None
        if "%" in host:  # a zone: of no use to another machine
            return None
    else:
        host = found["host"]
        if NO_HOST.search(host) or not is_name(host):
            return None
    user = password = None
    if found["secret"] is not None:
        if NO_SECRET.search(found["secret"]):
            return None
        fields = [urllib.parse.unquote_to_bytes(one) for one in found["secret"].split(":", 1)]
        user, password = fields[0], fields[1] if fields[1:] else None
        try:
            if "\0" in user.decode():
                return None
        except UnicodeDecodeError:
            return None
    return host, port, user, password, is_tls


def is_name(host):
    """An IPv4 address, or labels of 1 to 63 bytes, 253 with the dots."""
    name = (host[:-1] if host.endswith(".") else host).encode(errors="surrogatepass")
    return len(name) < 254 and all(0 < len(label) < 64 for label in name.split(b"."))


def check(case):
    uri = case.decode(errors="surrogateescape")
    has_surrogates = any(0xD800 <= ord(one) < 0xE000 for one in uri)
    found = None
    try:
        found = mqttpipe.parse_uri(uri)
    except mqttpipe.LocalError as error:
        secret, _, rest = uri.rpartition("@")
        is_shown = "s3cret" in secret and "s3cret" in str(error) and "s3cret" not in rest
        assert not is_shown, error
    if not has_surrogates:
        assert found == expect(uri), (found, expect(uri))
