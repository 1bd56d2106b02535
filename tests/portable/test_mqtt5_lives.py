"""Random lives with MQTT 5.0, as those of test_random_lives.py: nothing is lost by an alias."""

import test_random_lives as random_lives
from fakes import needs
from model_server_5 import Server5

LIVES = 20


class Life5(random_lives.Life):
    """With topic names for which an alias is worth its bytes, of which there are more than two."""

    def __init__(self, number):
        options = {"protocol": 5, "session_expiry_s": 0xFFFF}
        random_lives.Life.__init__(self, number, Server5, **options)
        publish = self.client.publish

        def by_name(topic_name, payload, *arguments):
            return publish(b"topic%d" % (len(payload) % 3), payload, *arguments)

        self.client.publish = by_name


# The board's heap has no room for two of them.
def run_life(number):
    life = Life5(number)
    random_lives.live(life, number)
    return [len(life.server.accepted), len(life.received)] + life.server.by_alias


def test_nothing_is_lost_in_random_lives():
    needs("mqtt5", "qos2", "offline")
    totals = [0, 0, 0, 0]
    for number in range(LIVES):
        totals = [a + b for a, b in zip(totals, run_life(number))]
    accepted, received, taken, sent = totals
    assert accepted > 5 * LIVES and received > 10 * LIVES, totals
    assert taken > LIVES and sent > LIVES, totals
