"""publish_isr() at 1 kHz, from signal handlers and scheduled functions, beside step().

What an interrupt was told is true: each message that got True arrives once, in order, and each
that got False does not. (That publish_isr() allocates nothing is in tests/portable/test_isr.py.)
"""

import ends
import pytest

from proxy import random_cuts

COUNT = 800
INTERPRETERS = ["CPython", "MicroPython 64-bit", ends.BOARD, ends.ESP32_SOCKETS]


@pytest.fixture(params=INTERPRETERS)
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


@pytest.mark.parametrize("cuts", (0, 8), ids=("a good connection", "cut 8 times"))
@pytest.mark.parametrize("how", ("signal", "schedule"))
def test_interrupts_publish_1000_times_a_second(
    how, cuts, start, add_peer, add_proxy, wide_broker, topic
):
    peer = add_peer(wide_broker.uri)
    peer.subscribe(topic + "/#", qos=1)
    proxy = add_proxy(random_cuts(30, cuts, 8000), wide_broker)
    options = {"uri": proxy.uri, "client_id": topic.replace("/", "-"), "clean_session": False}
    options.update(reconnect_min_ms=2, reconnect_max_ms=10)
    # More heap than a board has: all the payloads are made before the first interrupt.
    client = start("interrupts.py", options, topic, how, str(COUNT), "30", heap="256k")
    fired, refused, dropped, unscheduled, published = client.next("fired", 40)
    (stats,) = client.next("bye", 15)
    print("%d refused, %d not scheduled" % (refused, unscheduled))
    assert not client.count("error") and not client.count("late"), client.story()
    assert fired == COUNT and refused == dropped
    assert stats["acknowledged"] == COUNT - refused + published
    seen = {"isr": [], "main": []}
    for message in peer.make_round_trip(topic + "/end"):
        seen[message.topic_name.rpartition("/")[2]].append(int(message.payload))
    # QoS 1: after a cut a message may come again; the first arrivals are in order.
    first = {name: list(dict.fromkeys(numbers)) for name, numbers in seen.items()}
    assert first["main"] == list(range(1, published + 1))
    assert first["isr"] == sorted(first["isr"]) and len(first["isr"]) == COUNT - refused
    if not cuts:
        assert first == seen, "without a cut nothing comes twice"
