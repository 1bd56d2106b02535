"""Payloads: bytes, text and numbers; anything else is refused with what to do instead."""

from fakes import Bench, SkipTest, has_memory, raises
from wire import publishes

import mqttpipe


def sent(payload, qos=0):
    bench = Bench().go_online()
    bench.client.publish("t", payload, qos)
    ((_, _, _, data),) = publishes(bench.exchange())
    return data


def test_a_number_is_sent_as_str_writes_it():
    for number in (0, 21, -7, 1 << 40, 21.5, -0.25, 1e30):
        assert sent(number) == str(number).encode(), number
    assert sent(21, 1) == b"21"


def test_bytes_and_text_are_sent_as_they_are():
    assert sent("21 °C") == b"21 \xc2\xb0C"
    for payload in (b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")):
        assert sent(payload) == b"\x00\xff"
    assert sent("") == b"" and sent(b"") == b""


def test_anything_else_is_refused_with_what_to_do():
    client = Bench().client
    for payload in ({"a": 1}, [1], (1,), None, object()):
        text = raises(mqttpipe.LocalError, client.publish, "t", payload)
        assert "json.dumps" in text and "str" in text, text


def test_a_packet_that_is_too_large_says_which_option_to_raise():
    client = Bench(packet_bytes_max=64).client
    text = raises(mqttpipe.LocalError, client.publish, "t", b"x" * 100)
    assert "packet_bytes_max" in text and "raise" in text, text


def test_a_number_beyond_all_measure_is_a_local_error():
    """CPython refuses to write an int of so many digits; elsewhere the packet is too large."""
    if not has_memory(100_000):
        raise SkipTest("needs more than a board's memory")
    raises(mqttpipe.LocalError, Bench().client.publish, "t", 10**5000)
