"""The first messages of a resumed session come with CONNACK, before the program has subscribed."""

from fakes import CONNACK_SESSION, Bench, needs
from wire import kinds, publish, serve


def resumed(subscribe, *packets):
    bench = Bench(client_id="pump7", clean_session=False)
    seen = []

    def keep(client, message):
        seen.append(message.payload)

    bench.client.on_connect = lambda client, session_present: subscribe(client, keep)
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.server.to_client += CONNACK_SESSION + b"".join(packets)  # one segment
    wire = serve(bench)
    return bench, seen, wire


def subscribe(client, keep):
    client.subscribe("pump7/command", keep, qos=1)


def test_a_callback_that_on_connect_subscribes_gets_them():
    bench, seen, wire = resumed(subscribe, publish(b"pump7/command", b"stop", 1))
    assert seen == [b"stop"] and bench.client.is_online()
    assert 0x40 in kinds(wire), "PUBACK"
    assert not [event for event in bench.events if event[0] == "message"]


def test_all_of_them_in_order():
    packets = [publish(b"pump7/command", b"%d" % n, 1, bytes((0, n + 1))) for n in range(5)]
    bench, seen, wire = resumed(subscribe, *packets)
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert kinds(wire).count(0x40) == 5


def test_at_qos_2_as_well():
    needs("qos2")
    bench, seen, wire = resumed(
        lambda client, keep: client.subscribe("pump7/#", keep, qos=2),
        publish(b"pump7/command", b"stop", 2),
    )
    assert seen == [b"stop"] and 0x50 in kinds(wire) and bench.client.is_online()


def test_a_handler_for_all_that_on_connect_sets_gets_them():
    bench, seen, _ = resumed(
        lambda client, keep: setattr(client, "on_message", keep),
        publish(b"pump7/command", b"stop", 1),
    )
    assert seen == [b"stop"]


def test_they_are_heard_when_the_bytes_come_one_by_one():
    bench = Bench(clean_session=False)
    seen = []
    bench.client.on_connect = lambda client, present: client.subscribe(
        "a", lambda client, message: seen.append(message.payload), qos=1
    )
    bench.client.connect()
    bench.steps()
    bench.server.received()
    bench.server.read_max = 1
    serve(bench, CONNACK_SESSION + publish(b"a", b"x", 1))
    assert seen == [b"x"]
