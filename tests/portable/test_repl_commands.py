"""What the stability test of the REPL's commands counts, without terminal and server."""

from fakes import needs
from repl_commands import repl, skip_without_it

import mqttpipe


def test_what_the_commands_take_from_the_client_is_there():
    needs("background")
    for name in (
        "LocalError",
        "MQTTClient",
        "MQTTError",
        "QueueFull",
        "parse_uri",
        "WLAN",
        "Timer",
    ):
        assert hasattr(mqttpipe, name), name
    for name in ("sleep_ms", "ticks_add", "ticks_diff", "ticks_ms", "start_thread"):
        assert callable(getattr(mqttpipe, name)), name


class Client:
    """What the stability test asks of a client; `published` has what was published of late."""

    client_id = b"c"

    def __init__(self):
        self.published = []
        self.is_full = False
        self.is_subscribed = True

    def subscribe(self, topic_filter, callback, qos):
        self.topic = topic_filter
        self.callback = callback
        return 1

    def unsubscribe(self, topic_filter):
        assert topic_filter == self.topic
        return 2

    def is_done(self, token):
        return self.is_subscribed

    def is_online(self):
        return False  # so that stop() does not wait

    def publish(self, topic_name, payload, qos):
        assert topic_name == self.topic
        if self.is_full:
            raise mqttpipe.QueueFull("by the test")
        self.published.append(payload)
        return 3


class Message:
    def __init__(self, payload):
        self.payload = payload


class FakeTimer:
    PERIODIC = 1

    def __init__(self, period, mode, callback):
        self.period = period
        self.callback = callback
        self.is_running = True

    def deinit(self):
        self.is_running = False


class Bench:
    """A stability test whose timer ticks when the test says so."""

    def __init__(self, rate_hz=10):
        skip_without_it()
        self.client = Client()
        self.timer = mqttpipe.Timer
        mqttpipe.Timer = FakeTimer
        try:
            self.test = repl._Test(self.client, rate_hz, 1, 4)
        finally:
            mqttpipe.Timer = self.timer

    def publish(self, count):
        """Publish so many, and return their payloads."""
        self.client.published = []  # 257 of them would fill a board's heap
        for _ in range(count):
            self.test.timer.callback(self.test.timer)
        return self.client.published

    def deliver(self, payloads):
        for payload in payloads:
            self.client.callback(self.client, Message(payload))

    def counts(self):
        test = self.test
        received = test.received + test.late
        return test.published, received, test.on_the_way(), test.lost(), test.duplicated


def test_what_comes_back_is_received():
    bench = Bench(rate_hz=20)
    assert bench.test.timer.period == 50
    payloads = bench.publish(10)
    assert bench.counts() == (10, 0, 10, 0, 0)
    bench.deliver(payloads)
    assert bench.counts() == (10, 10, 0, 0, 0)


def test_what_comes_twice_is_a_duplicate():
    bench = Bench()
    payloads = bench.publish(3)
    bench.deliver(payloads + payloads[1:])
    assert bench.counts() == (3, 3, 0, 0, 2)


def test_what_is_missing_for_256_messages_is_lost_and_found_again_if_it_comes_late():
    bench = Bench()
    first, second = bench.publish(2)
    for _ in range(255):
        bench.deliver(bench.publish(1))
    assert bench.counts() == (257, 255, 1, 1, 0)  # the first one's place was needed
    bench.deliver(bench.publish(1))
    assert bench.counts() == (258, 256, 0, 2, 0)
    bench.deliver([first])
    assert bench.counts() == (258, 257, 0, 1, 0)
    bench.deliver([second, second])
    assert bench.counts() == (258, 258, 0, 0, 1)


def test_what_the_full_queue_refuses_is_not_published():
    bench = Bench()
    bench.publish(2)
    bench.client.is_full = True
    assert bench.publish(3) == [] and bench.test.refused == 3
    bench.client.is_full = False
    bench.deliver(bench.publish(2))
    assert bench.counts() == (4, 2, 2, 0, 0)


def test_nothing_is_published_before_the_subscription_stands():
    bench = Bench()
    bench.client.is_subscribed = False
    assert bench.publish(3) == []
    bench.client.is_subscribed = True
    assert len(bench.publish(3)) == 3


def test_messages_of_an_earlier_run_and_of_others_do_not_count():
    bench = Bench()
    payloads = bench.publish(1)
    bench.deliver([b"", b"x", b"1 2", b"999 1 0 0 ....", payloads[0] + b"more"])
    assert bench.counts() == (1, 1, 0, 0, 0)


def test_what_has_not_come_at_the_end_is_lost():
    bench = Bench()
    bench.deliver(bench.publish(3)[:2])
    bench.test.stop()
    assert bench.counts() == (3, 2, 0, 1, 0)
    assert not bench.test.timer.is_running
    assert bench.publish(1) == []


def test_the_median_is_within_6_percent_and_minimum_and_maximum_are_exact():
    skip_without_it()
    value = 0
    while value < 1 << 28:
        about = repl._value(repl._bucket(value))
        assert abs(about - value) * 16 <= value, (value, about)
        value += 1 + value // 37
    bench = Bench()
    test = bench.test
    for value in [1000] * 10 + [5000] * 11 + [90_000] * 9:
        bucket = repl._bucket(value)
        test.histogram[bucket // 8][bucket % 8] += 1
        test.received += 1
    assert abs(test.median_us() - 5000) <= 300, test.median_us()
    assert repl._bucket(1 << 60) == 8 * len(test.histogram) - 1, "the last one takes all the rest"
