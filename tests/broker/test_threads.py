"""Many threads publish through one client, while its connection is cut again and again.

On CPython, where one thread at a time is in the interpreter, and in MicroPython's unix port, where
all of them are (its Makefile has MICROPY_PY_THREAD_GIL=0): what holds there holds on an rp2's two
cores, as far as the memory of a PC is one for the other.

Each thread publishes 2,000 messages on CPython and in the 64-bit unix port, half of them at QoS 1,
half at QoS 2, and fewer in the 32-bit one, with a board's heap. With `--long` it is 10,000
in all of them, and fewer on the ESP32's sockets: its poll() looks at the network every 10 ms, and
in that time no more than in_flight_max messages can be acknowledged.
"""

import collections

import ends
import pytest
from traffic import Ledger

from proxy import random_cuts

THREADS = 8
# Messages of each thread at each QoS, cuts of the connection meanwhile, and the most bytes that go
# through one.
WORK = {
    "CPython": (1000, 20, 20_000),
    "MicroPython 64-bit": (1000, 20, 20_000),
    ends.BOARD: (250, 12, 6000),
    ends.ESP32_SOCKETS: (120, 12, 3000),
}
LONG_WORK = (5000, 100, 20_000)

# Personalities have no threads of their own.
REPLS = ["CPython", "MicroPython 64-bit", ends.BOARD, ends.ESP32_SOCKETS]


@pytest.fixture(params=REPLS)
def interpreter(request, get_interpreter):
    return get_interpreter(request.param)


class Books:
    """What arrived of each thread at each QoS."""

    def __init__(self, topic, count):
        self.topic = topic
        self.ledgers = {
            (thread, qos): Ledger(count) for thread in range(THREADS) for qos in (1, 2)
        }
        self.strangers = []

    def on_message(self, message):
        parts = message.topic_name[len(self.topic) + 1 :].split("/")
        if len(parts) == 2 and message.payload.isdigit() and int(parts[1]) == message.qos:
            self.ledgers[int(parts[0]), message.qos].enter(int(message.payload))
        else:
            self.strangers.append(message)

    def is_complete(self):
        return all(not ledger.lost for ledger in self.ledgers.values())


def publish_from_threads(start, add_peer, add_proxy, broker, topic, count, cuts, deadline_s):
    books = Books(topic, count)
    client_id = topic.replace("/", "-")
    peer = add_peer(broker.uri, client_id=client_id + "-paho", on_message=books.on_message)
    peer.subscribe(topic + "/#", qos=2)
    proxy = add_proxy(cuts, broker)
    client = start(
        "threads.py",
        {
            "uri": proxy.uri,
            "client_id": client_id,
            "clean_session": False,
            "reconnect_min_ms": 2,
            "reconnect_max_ms": 10,
        },
        topic,
        str(THREADS),
        str(count),
        str(deadline_s),
    )
    bye = collections.deque()
    client.wait_until(lambda: client._queues["bye"], "not at its end", deadline_s + 10)
    bye.append(client.next("bye"))
    peer.wait_until(books.is_complete, "messages are missing", ends.WAIT_S)
    assert client.next("stopped") == [True]
    assert client.count("done") == THREADS and not client.count("failed"), client.story()
    assert not client.count("error"), client.story()
    assert not books.strangers, books.strangers[:5]
    for (thread, qos), ledger in books.ledgers.items():
        case = "thread %d, QoS %d: %r" % (thread, qos, ledger)
        assert not ledger.lost and not ledger.broken, case
        assert not ledger.late, case  # first arrivals in the order of the thread's calls
        assert qos == 1 or not ledger.duplicated, case
    (stats,) = bye[0]
    assert stats["acknowledged"] == THREADS * count * 2
    refusals = sum(client.next("done")[1] for _ in range(THREADS))
    print("%d cuts, %d times QueueFull" % (proxy.cuts, refusals))
    assert proxy.cuts, "nothing was cut"  # how many fit depends on the machine


def test_8_threads_lose_nothing_and_keep_their_order_through_cuts(
    interpreter, start, add_peer, add_proxy, wide_broker, topic
):
    count, cut_count, position_max = WORK[interpreter.name]
    cuts = random_cuts(20, cut_count, position_max)
    publish_from_threads(start, add_peer, add_proxy, wide_broker, topic, count, cuts, 90)


@pytest.mark.timeout(400)
def test_8_threads_of_10000_messages_each(
    request, interpreter, start, add_peer, add_proxy, wide_broker, topic
):
    if not request.config.getoption("--long"):
        pytest.skip("takes minutes: --long runs it")
    count, cut_count, position_max = LONG_WORK
    if interpreter.name == ends.ESP32_SOCKETS:
        count //= 5
    cuts = random_cuts(21, cut_count, position_max)
    publish_from_threads(start, add_peer, add_proxy, wide_broker, topic, count, cuts, 300)
