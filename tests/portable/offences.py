"""What a server may never send, for tests: the connection is closed at once."""

from fakes import Bench

import mqttpipe


def publish_of(topic_name, first_byte=0x30):
    return bytes((first_byte, 2 + len(topic_name), 0, len(topic_name))) + topic_name


# The server sends `wire`, an offence: the connection is closed at once, with a ServerError,
# nothing is answered and nothing is delivered.
def check_closes(wire):
    bench = Bench().go_online()
    assert bench.exchange(wire) == b"", wire
    events = bench.take_events()
    assert [event[0] for event in events] == ["offline"], (wire, events)
    assert type(events[0][1]) is mqttpipe.ServerError, (wire, events)
    assert bench.server.is_closed and bench.client.state_name == "WAITING", wire
