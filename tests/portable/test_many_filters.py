"""Many filters, and long ones: what one step does for them stays little."""

import board_heap  # noqa: F401
from fakes import CONNACK, CONNACK_SESSION, Bench, Counted, needs
from mqtt5 import online as online_5
from wire import publish, serve

import mqttpipe

COUNT = 40


class Name:
    """A topic filter that counts how often filters are compared."""

    compared = 0

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        Name.compared += 1
        return self.number == other.number

    def __hash__(self):
        return self.number


def unsubscribed(count):
    """A table in which each of these filters was subscribed to and unsubscribed from."""
    filters = mqttpipe.Filters()
    for qos in (0, -1):
        for n in range(count):
            # By another object, as a program does it.
            filters.put(Name(n), None, qos, 1, True)
    Name.compared = 0
    return filters


def test_a_connection_looks_at_each_filter_once():
    """300 that were unsubscribed offline took CONNACK 1.4 s."""
    for session_present in (False, True):
        filters = unsubscribed(COUNT)
        filters.resume(session_present, session_present)
        assert len(filters.rows) == (2 * COUNT if session_present else 0)
        assert Name.compared < 10 * COUNT, Name.compared


def test_what_was_unsubscribed_offline_is_not_asked_for():
    bench = Bench()
    for name in ("a", "b", "c"):
        bench.client.subscribe(name)
    bench.client.unsubscribe("a")
    bench.client.unsubscribe("c")
    bench.client.subscribe("c", qos=1)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK) == (
        b"\x82\x06\xff\x01\x00\x01b\x00" + b"\x82\x06\xff\x02\x00\x01c\x01"
    )


def test_a_session_is_told_of_what_was_unsubscribed_offline():
    bench = Bench(clean_session=False)
    for name in ("a", "b", "c"):
        bench.client.subscribe(name)
    bench.client.unsubscribe("a")
    bench.client.unsubscribe("c")
    bench.client.subscribe("c", qos=1)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    assert bench.exchange(CONNACK_SESSION) == (
        b"\x82\x06\xff\x01\x00\x01a\x00"
        + b"\x82\x06\xff\x02\x00\x01b\x00"
        + b"\xa2\x05\xff\x03\x00\x01a"
        + b"\xa2\x05\xff\x04\x00\x01c"
        + b"\x82\x06\xff\x05\x00\x01c\x01"
    )


def test_nothing_is_looked_for_while_each_identifier_is_on_its_way():
    """300 filters at a server that is slow to answer: 10 ms a step, for nothing."""
    bench = Bench().go_online()
    filters = bench.client._filters
    filters.asked_count = 254  # a board's heap has no room for that many
    bench.client.unsubscribe("a")
    bench.steps()
    assert bench.server.received() == b"\xa2\x05\xff\x01\x00\x01a"
    look = filters.find_asked
    looked = []

    def find_asked(last_id):
        looked.append(last_id)
        return look(last_id)

    filters.find_asked = find_asked
    bench.client.unsubscribe("b")
    bench.steps()
    assert not looked and not bench.server.received()
    assert bench.exchange(b"\xb0\x02\xff\x01") == b"\xa2\x05\xff\x02\x00\x01b"


def packets_of_a_step(bench):
    before = bench.client.stats["packets_received"]
    bench.client.step()
    return bench.client.stats["packets_received"] - before


def test_an_answer_that_ends_one_of_many_filters_ends_the_step():
    """The table is made anew for each: sixteen of 800 took 13 ms."""
    needs("stats")
    for count, packets in ((16, 5), (COUNT, 1)):
        bench = Bench().go_online()
        for n in range(count):
            bench.client.subscribe("%d" % n)
        serve(bench)
        for n in range(5):
            bench.client.unsubscribe("%d" % n)
        bench.steps()
        sent = bench.server.received()
        if count == 16:
            bench.client._filters.rows[5:16] = []  # its table has no more than 16 rows
        for at in range(0, len(sent), 7):
            bench.server.send(b"\xb0\x02" + sent[at + 2 : at + 4])
        assert packets_of_a_step(bench) == packets, count
        bench.steps()
        assert not bench.server.to_client


def test_a_long_topic_name_ends_the_step_where_filters_are_many_bytes():
    """Sixteen messages of 900 bytes of topic name, and sixteen filters like it, took 43 ms."""
    needs("stats")
    for size, packets in ((4, 3), (60, 3), (100, 1)):
        bench = Bench().go_online()
        for n in range(12):
            bench.client.subscribe("t" * size + "/%d" % n)
        serve(bench)
        for n in range(3):
            bench.server.send(publish(b"t" * size + b"/x%d" % n, b""))
        assert packets_of_a_step(bench) == packets, size
        bench.steps()
        assert not bench.server.to_client


def test_filters_that_share_an_identifier_are_counted_once_a_message():
    """MQTT 5.0: 300 of them took a message 18 ms."""
    needs("mqtt5")
    filters = mqttpipe.Filters()
    for n in range(COUNT):
        filters.put(b"f%d" % n, str, 0, n + 1, True, (0, b"", 7))

    looks = [0]
    filters.rows = [Counted(row, looks) for row in filters.rows]
    assert filters.callbacks(b"f3", 0, 2, [7]) == [str]
    assert looks[0] < 20 * COUNT, looks


def test_a_topic_alias_whose_callbacks_are_found_anew_ends_the_step():
    """MQTT 5.0: eight of them in one step, each compared with all filters."""
    needs("mqtt5", "stats")
    bench = online_5()
    for alias in (1, 2, 3):
        bench.exchange(b"\x30\x07\x00\x01t\x03\x23\x00" + bytes((alias,)))
    bench.client.subscribe("#")
    bench.steps()
    bench.server.received()
    bench.exchange(b"\x90\x04\xff\x01\x00\x00")
    for alias in (1, 2, 3):
        bench.server.send(b"\x30\x07\x00\x00\x03\x23\x00" + bytes((alias,)) + b"x")
    assert packets_of_a_step(bench) == 1
    bench.steps()
    assert not bench.server.to_client


def test_a_server_that_answers_the_newest_first_costs_no_search_through_all_identifiers():
    """Each answer had 255 identifiers looked for in all rows: 14 ms a step with 600 filters."""
    bench = Bench().go_online()
    filters = bench.client._filters
    filters.last_id = 251
    for n in range(4):
        bench.client.subscribe("%d" % n)
    bench.steps()
    sent = bench.server.received()
    assert len(sent) == 32 and sent[26:28] == b"\xff\xff"
    filters.last_id = 251  # as if the 251 others were on their way, too
    look = filters.find_asked
    looked = []

    def find_asked(last_id):
        looked.append(last_id)
        return look(last_id)

    filters.find_asked = find_asked
    bench.client.subscribe("new")
    assert bench.exchange(b"\x90\x03\xff\xff\x00") == b""
    assert len(looked) < 5, looked
    assert bench.exchange(b"\x90\x03\xff\xfc\x00") == b"\x82\x08\xff\xfc\x00\x03new\x00"
