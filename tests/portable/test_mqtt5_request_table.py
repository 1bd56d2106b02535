"""The table of requests, where several threads ask (section 4.10 of MQTT 5.0)."""

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
