"""The table of requests, where several threads ask (section 4.10 of MQTT 5.0)."""

from fakes import needs, raises
from test_mqtt5_requests import Asker

import mqttpipe


class Contended:
    """The table of requests: while one looks for a place in it, another thread asks as well."""

    def __init__(self, items, other):
        self.items = items
        self.other = other

    def __len__(self):
        return len(self.items)

    def __contains__(self, value):
        return value in self.items

    def __getitem__(self, at):
        return self.items[at]

    def __setitem__(self, at, value):
        self.items[at] = value

    def index(self, value):
        at = self.items.index(value)
        other, self.other = self.other, None
        if other:
            other()
        return at


def test_two_threads_that_ask_at_once_get_a_place_each():
    asker = Asker()
    asker.ask(b"first")
    accepted = []

    def ask_too():
        try:
            asker.client.request("ask", "2", asker.on_response, 5000)
        except mqttpipe.QueueFull:  # it may say so, but not take the other's place
            return
        accepted.append(1)

    table = asker.client._requests = Contended(asker.client._requests, ask_too)
    asker.client.request("ask", "1", asker.on_response, 5000)
    waiting = [request for request in table.items if request]
    assert len(waiting) == 2 + len(accepted) and not table.other
    assert len(set([request[0] for request in waiting])) == len(waiting)


def test_a_request_that_fails_late_leaves_the_place_to_who_has_it_by_then():
    """Its time was over while it waited for the pipe, and another thread has asked since."""
    asker = Asker()
    asker.ask(b"first")
    client, bench = asker.client, asker.bench
    publish = client.publish

    def refuse(*arguments, **options):
        client.publish = publish
        bench.clock.advance(20)
        client._pipe.has_chores = client._pipe.is_signalled = True  # as by any other call
        bench.steps()
        client.request("ask", "other", asker.on_response, 5000)
        raise mqttpipe.QueueFull("the pipe is in use")

    client.publish = refuse
    raises(mqttpipe.QueueFull, client.request, "ask", "x", asker.on_response, 10)
    assert asker.got == [None], "its time was over"
    bench.clock.advance(6000)
    bench.steps()
    assert asker.got == [None] * 3, "the first, and the other one"


def test_what_comes_before_the_first_request_is_in_the_table_is_passed_over():
    """A retained message, while the first request() has just subscribed in another thread."""
    needs("stats")
    asker = Asker()
    asker.ask(b"first")
    asker.client._requests = ()
    asker.answer(b"123456", b"retained")
    assert asker.got == [] and asker.client.stats["ignored"] == 1
    assert not [event for event in asker.bench.events if event[0] == "error"]
