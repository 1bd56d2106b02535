"""What the REPL's commands count and show, without a terminal and without a server.

What a person sees is in tests/broker/test_repl.py.
"""

import sys

from fakes import SkipTest, needs

import mqttpipe

try:
    import mqttpipe_repl as repl
except ImportError:
    repl = None  # it is a second file, not on every board


def skip_without_it():
    needs("background")
    if repl is None:
        raise SkipTest("mqttpipe_repl is not here")


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
        test.histogram[repl._bucket(value)] += 1
        test.received += 1
    assert abs(test.median_us() - 5000) <= 300, test.median_us()
    assert repl._bucket(1 << 60) == len(test.histogram) - 1, "the last one takes all the rest"


def test_what_is_shown_of_a_payload_can_not_control_the_terminal():
    skip_without_it()
    for data, shown in (
        (b"on", "on"),
        (b"", ""),
        ("caf\u00e9 \u65e5".encode(), "caf\u00e9 \u65e5"),
        (b"\x1b[2J", "b'\\x1b[2J'"),
        (b"a\nb", "b'a\\nb'"),
        (b"\x7f", "b'\\x7f'"),
        ("\x9b1m".encode(), "b'\\xc2\\x9b1m'"),
        (b"\xff\xfe", "b'\\xff\\xfe'"),
        ("a\u202eb".encode(), "b'a\\xe2\\x80\\xaeb'"),
        ("\u2028".encode(), "b'\\xe2\\x80\\xa8'"),
        ("\u2066".encode(), "b'\\xe2\\x81\\xa6'"),
        ("\u200f".encode(), "b'\\xe2\\x80\\x8f'"),
        ("\u2027\u202f\u2065\u206a".encode(), "\u2027\u202f\u2065\u206a"),
        ("\U0001f642".encode(), "\U0001f642"),
    ):
        assert repl._shown(data) == shown, (data, repl._shown(data))
    assert repl._shown(b"x" * 300) == "x" * 200 + "... (300 bytes)"
    assert repl._shown(b"x" + "\u65e5".encode() * 99) == "x" + "\u65e5" * 66 + "... (298 bytes)"
    assert repl._shown(memoryview(b"abc")) == "abc"


def test_what_an_error_says_of_a_server_can_not_control_the_terminal():
    skip_without_it()
    assert repl._error_text(OSError("refused")) == "refused"
    assert repl._error_text("topic \x1b[2J") == "b'topic \\x1b[2J'"
    assert repl._error_text("topic \u202e") == "b'topic \\xe2\\x80\\xae'"


class Online:
    """A client as mqtt_start() makes it; `given` has what it was made with."""

    given = None
    state_name = "WAITING"
    client_id = b"c"

    def __init__(self, uri, **options):
        Online.given = (uri, options)

    def is_online(self):
        return False

    def start(self):
        pass

    def wait_online(self, timeout_ms):
        return True

    def publish(self, topic_name, payload, qos, retain):
        raise mqttpipe.LocalError("the server says: \x1b[2J")


class Desk:
    """The commands with a client of this file; `lines` has what was printed."""

    def __init__(self, secrets=None, wifi=None):
        skip_without_it()
        self.lines = []
        self.modules = {"secrets": secrets, "wifi": wifi}

    def __enter__(self):
        repl.print = lambda *words: self.lines.append(" ".join(map(str, words)))
        self.kept = repl._MQTTClient, mqttpipe.WLAN, getattr(mqttpipe, "STA_IF", None)
        repl._MQTTClient = Online
        for name in list(self.modules):
            new = self.modules[name]
            self.modules[name] = sys.modules.pop(name, None)
            if new is not None:
                sys.modules[name] = new
        return self

    def __exit__(self, *_):
        del repl.print
        repl._MQTTClient, mqttpipe.WLAN, mqttpipe.STA_IF = self.kept
        for name in self.modules:
            sys.modules.pop(name, None)
            if self.modules[name] is not None:
                sys.modules[name] = self.modules[name]
        repl._client = repl._last_error = None


class Settings:
    SERVER = "mqtt://localhost"


def test_what_a_server_says_can_not_control_the_terminal_by_way_of_a_command():
    with Desk() as desk:
        repl._client = Online("mqtt://localhost")
        repl._last_error = mqttpipe.TransportError("not authorized: \x1b[2J", "CONNACK")
        repl.mqtt_status()
        repl.mqtt_publish("t", "x")
        text = "\n".join(desk.lines)
        assert "not authorized" in text and "the server says" in text, text
        assert "\x1b" not in text, text


def test_mqtt_start_connects_as_secrets_py_says():
    settings = Settings()
    settings.CLIENT_ID = "lamp-1"
    settings.USER = "u"
    settings.PASSWORD = "p"
    settings.CA = "ca.der"
    settings.CERT = "cert.der"
    settings.KEY = "key.der"
    settings.TLS = None
    with Desk(secrets=settings) as desk:
        repl.mqtt_start(key="other.der")
        assert Online.given == (
            "mqtt://localhost",
            {
                "client_id": "lamp-1",
                "user": "u",
                "password": "p",
                "ca": "ca.der",
                "cert": "cert.der",
                "key": "other.der",
                "link": None,
            },
        ), Online.given
        repl._client = None
        repl.mqtt_start("mqtt://elsewhere")  # another server gets nothing of it
        assert Online.given == ("mqtt://elsewhere", {"link": None}), Online.given
        assert desk.lines[-1].startswith("online after"), desk.lines


class NoWifi:
    """A driver that has not joined."""

    def __init__(self, interface):
        pass

    def isconnected(self):
        return False


class WifiModule:
    """A wifi.py that finds its settings wrong. Never made: its function is taken from it."""

    def Wifi(networks, **_):
        raise ValueError("a network's password must have 8..64 characters, or be None")


def test_a_wrong_wifi_in_secrets_py_is_told_in_one_line():
    settings = Settings()
    settings.WIFI = [("home", "short")]
    with Desk(secrets=settings, wifi=WifiModule) as desk:
        mqttpipe.WLAN, mqttpipe.STA_IF = NoWifi, 0
        repl.mqtt_start()
        assert desk.lines == [
            "mqtt_start: a network's password must have 8..64 characters, or be None"
        ], desk.lines
        assert repl._client is None
