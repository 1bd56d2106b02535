"""What the REPL's commands show and take, without a terminal and without a server.

What a person sees is in tests/broker/test_repl.py.
"""

import sys

from repl_commands import repl, skip_without_it

import mqttpipe


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
        repl._client = repl._last_error = repl._link = repl._own_id = None


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


def test_what_was_answered_while_nobody_waited_is_shown_by_mqtt_status():
    """Such as all that is subscribed to while it is offline."""
    with Desk() as desk:
        client = repl._client = Online("mqtt://localhost")
        refused, done = [], []
        client.subscribe = lambda topic_filter, callback, qos: int(topic_filter)
        client.was_refused = lambda token: token in refused
        client.is_done = lambda token: token in done
        repl._filters.clear()
        for topic_filter in "123":
            repl.mqtt_subscribe(topic_filter)
        done.extend((2, 3))
        refused.append(3)
        repl.mqtt_status()
        repl._filters.clear()
    words = [line for line in desk.lines if line.startswith("subscribed ")]
    assert words == ["subscribed   1 (not answered), 2 (granted), 3 (refused)"], words


def test_a_subscription_that_the_server_refuses_can_be_taken_back():
    """The client asks for it again with each connection, and it may be granted then."""
    with Desk() as desk:
        client = repl._client = Online("mqtt://localhost")

        def wait_for(token, timeout_ms):
            repl._on_subscribed(client, token, b"\x80")
            repl._on_subscribed(client, 2, b"\0")  # another one, late: it hid the answer
            return True

        client.is_online = client.was_refused = client.is_done = lambda token=0: True
        client.subscribe = lambda topic_filter, callback, qos: 1
        client.unsubscribe = lambda topic_filter: desk.lines.append("UNSUBSCRIBE " + topic_filter)
        client.wait_for = wait_for
        repl._filters.clear()
        repl.mqtt_subscribe("lamp")
        repl.mqtt_status()
        repl.mqtt_unsubscribe("lamp")
        assert not repl._filters
    for line in "the server refuses it", "subscribed   lamp (refused)", "UNSUBSCRIBE lamp":
        assert line in desk.lines, (line, desk.lines)


def test_a_topic_of_bytes_is_the_same_as_one_of_text():
    """Taken back as one, it stayed in mqtt_status() as the other; a bytearray was an exception."""
    with Desk() as desk:
        client = repl._client = Online("mqtt://localhost")
        client.publish = client.subscribe = client.unsubscribe = lambda *arguments: 1
        client.was_refused = client.is_done = lambda token: False
        repl._filters.clear()
        for topic_filter in "lamp", b"lamp", bytearray(b"lamp"):
            repl.mqtt_subscribe(topic_filter)
        repl.mqtt_status()
        repl.mqtt_unsubscribe(bytearray(b"lamp"))
        for wrong in ["lamp"], ("lamp", "hall"), b"\xff", b"lamp":
            repl.mqtt_unsubscribe(wrong)
        repl.mqtt_publish(bytearray(b"lamp"), "on")
    lines = [
        line for line in desk.lines if line.startswith(("subscribed ", "not subscribed", "->"))
    ]
    assert lines == [
        "subscribed   lamp (not answered)",
        "not subscribed: ['lamp']",
        "not subscribed: ('lamp', 'hall')",
        "not subscribed: b'\\xff'",
        "not subscribed: lamp",
        "-> lamp: waits, as it is offline (WAITING)",
    ], lines


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
        raise ValueError("a network's password must have 8..64 bytes, or be None")


def test_a_wrong_wifi_in_secrets_py_is_told_in_one_line():
    settings = Settings()
    settings.WIFI = [("home", "short")]
    with Desk(secrets=settings, wifi=WifiModule) as desk:
        mqttpipe.WLAN, mqttpipe.STA_IF = NoWifi, 0
        repl.mqtt_start()
        assert desk.lines == [
            "mqtt_start: a network's password must have 8..64 bytes, or be None"
        ], desk.lines
        assert repl._client is None


class Joining:
    """A wifi.py; what it has joined the driver does not join again by itself."""

    class Wifi:
        def __init__(self, networks, **_):
            self.starts = self.steps = 0
            self.state_name = "OFF"

        def start(self):
            self.starts += 1
            self.state_name = "JOINING"

        def dns_servers(self):
            return ["192.0.2.99"]

        def step(self):
            self.steps += 1

        def is_up(self):
            return self.steps > 0


class Joined(NoWifi):
    def isconnected(self):
        return True


def test_a_wifi_that_mqtt_start_has_joined_is_kept_by_the_next_one_too():
    settings = Settings()
    settings.WIFI = [("home", "password")]
    with Desk(secrets=settings, wifi=Joining):
        mqttpipe.WLAN, mqttpipe.STA_IF = NoWifi, 0
        repl.mqtt_start()
        link = Online.given[1]["link"]
        assert link.is_up()
        for driver in (Joined, NoWifi):
            repl._client = None
            mqttpipe.WLAN = driver
            repl.mqtt_start()
            assert Online.given[1]["link"] is link, driver
        assert link._wifi.starts == 1


def test_so_is_one_that_stood_before_when_it_breaks():
    """That of a main.py which was stopped: a Pico W's driver does not join again."""
    settings = Settings()
    settings.WIFI = [("home", "password")]
    kept = getattr(mqttpipe, "dns_servers", None)
    with Desk(secrets=settings, wifi=Joining):
        mqttpipe.WLAN, mqttpipe.STA_IF = Joined, 0
        repl.mqtt_start()
        link = Online.given[1]["link"]
        wifi = link._wifi
        assert link.is_up() and wifi.starts == wifi.steps == 0
        mqttpipe.dns_servers = lambda: ["192.0.2.53"]
        assert link.dns_servers() == ["192.0.2.53"]
        mqttpipe.dns_servers = kept
        mqttpipe.WLAN = NoWifi
        assert link.is_up() and wifi.starts == wifi.steps == 1
        assert link.dns_servers() == ["192.0.2.99"]


def test_each_start_without_a_client_id_has_the_same():
    """Else the session that the server keeps is lost, and the topic of mqtt_publish() another."""
    with Desk():
        for options, expected in (
            ({}, None),
            ({"clean_session": False}, b"c"),
            ({"client_id": "other"}, "other"),
            ({}, b"c"),
        ):
            repl.mqtt_start("mqtt://localhost", **options)
            assert Online.given[1].get("client_id") == expected, options
            repl._client = None


def test_one_that_stands_needs_no_setting_to_be_right():
    settings = Settings()
    settings.WIFI = [("home", "short")]
    for module in (WifiModule, None):
        with Desk(secrets=settings, wifi=module) as desk:
            mqttpipe.WLAN, mqttpipe.STA_IF = Joined, 0
            repl.mqtt_start()
            assert Online.given[1]["link"] is None
            assert desk.lines[-1].startswith("online after"), desk.lines
