"""Topic names and filters: which are legal, and which match, against section 4.7 read by levels.

Case: bit 0: where in its buffer the name stands; then the filter and the name, with b"\\n" between
them. Bytes that are not UTF-8 become lone surrogates, where text is asked for.
"""

import fuzz_streams
from mqtt_reference import is_legal_topic, matches

import mqttpipe

ALLOCATED_MAX = 200_000
LEVELS = ("a", "b", "", "+", "#", "$SYS", "$share", "g", "ab", "a+", "\u00e4", "sport")


def make(draw):
    def text(levels):
        return "/".join(draw.choice(levels) for _ in range(draw.randrange(1, 5)))

    topic_filter = draw.choice(("", "", "", "$share/", "$share/g/")) + text(LEVELS)
    name = text([level for level in LEVELS if "+" not in level and "#" not in level])
    if draw.random() < 0.3:
        name = topic_filter.replace("+", "a").replace("#", draw.choice(("", "b", "b/c")))
    case = topic_filter.encode() + b"\n" + name.encode()
    if draw.random() < 0.2:
        case = fuzz_streams.spoil(draw, case)
    return draw.randbytes(1) + case


def is_taken(text, is_filter):
    try:
        assert mqttpipe._to_topic(text, is_filter) == text.encode()
    except mqttpipe.LocalError:
        return False
    return True


def check(case):
    case = case.ljust(1, b"\0")
    raw_filter, _, raw_name = case[1:].partition(b"\n")
    topic_filter, name = (one.decode(errors="surrogateescape") for one in (raw_filter, raw_name))
    for raw in (raw_filter, raw_name):
        try:
            is_good = "\0" not in raw.decode()
        except UnicodeDecodeError:
            is_good = False
        assert mqttpipe._is_utf8(raw, 0, len(raw)) == is_good, raw
    legal = is_legal_topic(topic_filter, True), is_legal_topic(name, False)
    taken = is_taken(topic_filter, True), is_taken(name, False)
    assert taken == legal, (taken, legal)
    # (A name in $share/ is no server's: there the filter that says the same is found as well.)
    if all(legal) and not name.startswith("$share/"):
        buf = b"x" * (case[0] & 1) + raw_name + b"/tail"
        start = case[0] & 1
        end = start + len(raw_name)
        found = mqttpipe.topic_matches(raw_filter, bytearray(buf), start, end)
        assert found is matches(topic_filter, name), (topic_filter, name, found)
