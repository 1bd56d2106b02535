"""MQTT 5.0: DISCONNECT of both, and another server that one names (sections 3.14, 4.11, 4.13)."""

from fakes import DISCONNECT, ECONNRESET, Bench, needs, raises
from mqtt5 import asked, connack, online, refused, take_apart

import mqttpipe


def said(bench, *arguments, **options):
    bench.client.disconnect(*arguments, **options)
    bench.steps()
    assert bench.server.is_closed and bench.client.state_name == "DOWN"
    return bench.server.received()


def test_good_bye_with_each_reason_code():
    """[MQTT5-3.14.2-1] [MQTT5-3.14.4-1, -2]"""
    assert said(online()) == DISCONNECT
    assert said(online(), 0) == DISCONNECT
    for code in (0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99):
        assert said(online(), code) == b"\xe0\x01" + bytes((code,))
    bench = online()
    for code in (1, 0x87, 0x8B, 0x9C, 256, -1, "4", 3.0, 0.0, "", None, False, True):
        raises(mqttpipe.LocalError, bench.client.disconnect, code)
    assert bench.client.is_online()
    raises(mqttpipe.LocalError, Bench().client.disconnect, 4)


def test_good_bye_with_properties():
    """[MQTT5-3.14.2-1]"""
    wire = said(online(session_expiry_s=5), properties={"session_expiry_interval": 9})
    assert wire == b"\xe0\x07\x00\x05\x11\x00\x00\x00\x09"
    wire = said(online(), 0x04, {"reason_string": "r", "user_property": []})
    assert wire == b"\xe0\x06\x04\x04\x1f\x00\x01r"
    assert (
        said(online(), properties={"session_expiry_interval": 0})[3:]
        == b"\x05\x11\x00\x00\x00\x00"
    )
    bench = online()
    for properties in (
        {"session_expiry_interval": 1},
        {"server_reference": "h"},
        {"content_type": ""},
        [],
        "",
    ):
        raises(mqttpipe.LocalError, bench.client.disconnect, 0, properties)
    assert bench.client.is_online()


def test_a_session_expiry_is_checked_against_what_connect_said_not_what_is_wanted_now():
    """[MQTT5-3.14.2-2]: a protocol error, if it was 0 there."""
    bench = online()
    bench.client.session_expiry_s = 60
    properties = {"session_expiry_interval": 60}
    raises(mqttpipe.LocalError, bench.client.disconnect, 0, properties)
    bench = online(session_expiry_s=60)
    bench.client.session_expiry_s = 0
    properties["session_expiry_interval"] = 30
    assert said(bench, properties=properties) == b"\xe0\x07\x00\x05\x11\x00\x00\x00\x1e"


def test_good_bye_is_no_larger_than_the_server_takes():
    """[MQTT5-3.14.2-3, -4]"""
    bench = online(b"\x27\x00\x00\x00\x20")
    properties = {"reason_string": "x" * 25}
    for more in ({"reason_string": "x" * 26}, {"user_property": [("a", "x" * 25)]}):
        raises(mqttpipe.LocalError, bench.client.disconnect, 0x80, more)
    assert len(said(bench, 0x80, properties)) == 0x20


def test_the_next_good_bye_is_a_plain_one():
    bench = online()
    said(bench, 0x04)
    bench.client.connect()
    bench.steps()
    bench.exchange(connack())
    bench.server.received()
    assert said(bench) == DISCONNECT


def test_a_good_bye_is_said_as_asked_for_also_if_connect_is_called_meanwhile():
    bench = online()
    bench.client.publish("t", b"x", 1)
    bench.steps()
    bench.server.received()
    bench.client.disconnect(0x04)
    bench.steps()  # it waits for PUBACK
    bench.client.connect()
    server = bench.server
    server.send(b"\x40\x02\x00\x01")
    bench.steps()
    assert server.received() == b"\xe0\x01\x04"


def test_a_good_bye_that_was_taken_back_is_not_that_of_the_next():
    bench = online()
    bench.client.disconnect(0x04)
    bench.client.connect()
    bench.steps()
    assert said(bench) == DISCONNECT


# What a server may say (table 3-13), in the words of the error.
REASONS = (
    (0x00, "normal disconnection"),
    (0x04, "disconnect with will message"),
    (0x80, "unspecified error"),
    (0x81, "malformed packet"),
    (0x82, "protocol error"),
    (0x83, "implementation specific error"),
    (0x87, "not authorized"),
    (0x89, "server busy"),
    (0x8B, "server shutting down"),
    (0x8D, "keep alive timeout"),
    (0x8E, "session taken over"),
    (0x8F, "topic filter invalid"),
    (0x90, "topic name invalid"),
    (0x93, "receive maximum exceeded"),
    (0x94, "topic alias invalid"),
    (0x95, "packet too large"),
    (0x96, "message rate too high"),
    (0x97, "quota exceeded"),
    (0x98, "administrative action"),
    (0x99, "payload format invalid"),
    (0x9A, "retain not supported"),
    (0x9B, "QoS not supported"),
    (0x9C, "use another server"),
    (0x9D, "server moved"),
    (0x9E, "shared subscriptions not supported"),
    (0x9F, "connection rate exceeded"),
    (0xA0, "maximum connect time"),
    (0xA1, "subscription identifiers not supported"),
    (0xA2, "wildcard subscriptions not supported"),
)


def test_what_the_server_says_at_the_end_is_told_in_words():
    """[MQTT5-4.13.2-1]"""
    for code, words in REASONS:
        for tail in (b"", b"\x00", b"\x05\x1f\x00\x02ok"):
            packet = bytes((0xE0, 1 + len(tail), code)) + tail
            error, answer = refused(online(), packet)
            assert type(error) is mqttpipe.Refused and error.stage == "ONLINE", code
            assert error.reason_code == code and words in str(error), str(error)
            assert error.reason == ("ok" if len(tail) > 1 else words) and answer == b""
    error, _ = refused(online(), b"\xe0\x00")
    assert (error.reason_code, error.reason) == (0, "normal disconnection")
    bench = online()
    refused(bench, b"\xe0\x01\x8b")
    assert bench.client.state_name == "WAITING", "it comes back later"


def test_a_good_bye_that_is_malformed_is_that():
    for packet, code in (
        (b"\xe0\x03\x00\x01\x00", 0x81),
        (b"\xe0\x07\x00\x05\x11\x00\x00\x00\x01", 0x81),  # no session expiry from a server
        (b"\xe0\x03\x00\x00\x00", 0x81),
    ):
        error, answer = refused(online(), packet)
        assert type(error) is mqttpipe.ServerError and answer == b"\xe0\x01" + bytes((code,))


def test_an_error_of_the_server_has_the_reason_code_that_the_server_is_told():
    """[MQTT5-4.13.1-1]"""
    malformed, breach = (0x81, "malformed packet"), (0x82, "protocol error")
    for begin, packet, reason in (
        (online, b"\x00\x00", malformed),  # no type
        (online, b"\x30\x80\x80\x80\x80", malformed),  # remaining length
        (online, b"\x30\x04\x00\x01\xff\x00", malformed),  # topic name
        (online, b"\x32\x06\x00\x01t\x00\x00\x00", breach),  # packet identifier 0
        (online, b"\x20\x03\x00\x00\x00", breach),  # a second CONNACK
        (online, b"\x82\x02\x00\x00", breach),  # SUBSCRIBE
        (asked, b"\xd0\x00", breach),
        (asked, b"HTTP/1.1 400", malformed),
    ):
        error, answer = refused(begin(), packet)
        assert type(error) is mqttpipe.ServerError, packet
        assert answer == b"\xe0\x01" + bytes((reason[0],)), packet
        assert (error.reason_code, error.reason) == reason, packet


def test_our_own_good_bye_is_the_last_word():
    """[MQTT5-3.14.4-1]"""
    bench = online()
    bench.client.disconnect()
    bench.client.step()
    bench.server.send(b"\x30\x00")
    bench.steps()
    assert bench.server.received() == DISCONNECT


def follow(bench, packet, properties):
    """The server names another one; returns where the next CONNECT goes, and after which pause."""
    count = len(bench.network.connections)
    bench.connect_wire = bench.exchange(
        packet[:1] + bytes((packet[1] + len(properties),)) + packet[2:] + properties
    )
    at_ms = bench.clock.now_ms
    for _ in range(2000):
        bench.steps()
        if len(bench.network.connections) > count:
            return bench.server.address, bench.clock.now_ms - at_ms
        bench.clock.advance(100)
    raise AssertionError("it does not come back")


def moved(name):
    return bytes((len(name) + 3,)) + b"\x1c\x00" + bytes((len(name),)) + name


HOME = ("192.0.2.1", 1883)


def test_another_server_is_gone_to_at_once_and_once():
    for code in (0x9C, 0x9D):
        for packet in (bytes((0xE0, 1, code)), bytes((0x20, 2, 0, code))):
            bench = asked() if packet[0] == 0x20 else online()
            bench.take_events()
            assert follow(bench, packet, moved(b"192.0.2.9:1999")) == (("192.0.2.9", 1999), 0)
            ((name, error),) = bench.take_events()
            assert (
                name == "offline" and "192.0.2.9:1999" in str(error) and error.reason_code == code
            )
            # That one sends us on: no further, but home, after a pause.
            packet = bytes((0x20, 2, 0, code))
            address, pause_ms = follow(bench, packet, moved(b"192.0.2.8"))
            assert address == HOME and pause_ms >= 1000
            address, _ = follow(bench, packet, moved(b"192.0.2.8"))
            assert address == ("192.0.2.8", 1883), "home may do it again"


def test_only_what_is_a_server_is_gone_to():
    for name in (
        b"",
        b"user:secret@192.0.2.9",
        b"192.0.2.9:0",
        b"a/b",
        b"h" * 120 + b"#",
    ):
        bench = online()
        address, pause_ms = follow(bench, b"\xe0\x01\x9c", moved(name))
        assert address == HOME and pause_ms >= 1000, name
    bench = online()
    assert follow(bench, b"\xe0\x01\x8b", moved(b"192.0.2.9"))[0] == HOME, "that reason names none"
    bench = online()
    assert follow(bench, b"\xe0\x01\x9c", moved(b"192.0.2.9:1 192.0.2.8"))[0] == ("192.0.2.9", 1)
    bench = online()
    assert follow(bench, b"\xe0\x01\x9c", moved(b"[::1]:1884"))[0] == ("::1", 1884)
    bench = online()
    bench.server.send(b"\xe0\x01\x9c")
    assert follow(bench, b"\xd0\x00", b"")[0] == HOME, "it names none"


def test_of_several_servers_the_first_that_can_be_gone_to_is():
    """Section 4.11: a list, with blanks between."""
    for names in (b"bad//x 192.0.2.9", b" 192.0.2.9", b"a@b  # 192.0.2.9 192.0.2.8"):
        bench = online()
        assert follow(bench, b"\xe0\x01\x9c", moved(names))[0] == ("192.0.2.9", 1883), names
        assert [one[0] for one in bench.take_events()] == ["offline"], names
    bench = online()
    assert follow(bench, b"\xe0\x01\x9c", moved(b"x// y//"))[0] == HOME
    assert [one[0] for one in bench.take_events()].count("error") == 1
    for names in (b"// " * 20, b"// " * 8 + b"192.0.2.9"):  # eight are looked at
        bench = online()
        assert follow(bench, b"\xe0\x01\x9c", moved(names))[0] == HOME
        (error,) = [one[1] for one in bench.take_events() if one[0] == "error"]
        assert "mqtt:////'" in str(error), error


def test_after_disconnect_at_the_other_server_the_next_life_begins_at_home():
    needs("failover")
    for uri in ("mqtt://192.0.2.1", ["mqtt://192.0.2.1", "mqtt://192.0.2.7"]):
        for is_early in (False, True):  # connect() while it waits for PUBACK
            bench = online(uri=uri)
            follow(bench, b"\xe0\x01\x9c", moved(b"192.0.2.9"))
            bench.exchange(connack())
            assert bench.client.is_online() and bench.server.address[0] == "192.0.2.9"
            if is_early:
                bench.client.publish("t", "x", 1)
                bench.steps()
            bench.client.disconnect()
            bench.steps()
            bench.client.connect()
            bench.exchange(b"\x40\x02\x00\x01")
            bench.steps()
            assert bench.server.address == HOME, (uri, is_early)


def test_with_the_same_user_and_the_session_is_that_of_the_other_server():
    bench = online(user="u", password="p", clean_session=False, session_expiry_s=60)
    bench.client.publish("t", "x", 1)
    bench.steps()
    follow(bench, b"\xe0\x01\x9d", moved(b"192.0.2.9"))
    assert take_apart(bench.connect_wire)[3] == b"\x00\x01c\x00\x01u\x00\x01p"
    assert bench.exchange(connack(flags=1)) == b"\x32\x07\x00\x01t\x00\x01\x00x", (
        "not this session"
    )
    bench.server.error = ECONNRESET
    bench.steps()
    bench.clock.advance(60_000)
    bench.steps()
    assert bench.server.address == HOME
    bench.server.received()
    follow(bench, bytes((0x20, 2, 0, 0x9D)), moved(b"192.0.2.9"))
    bench.server.received()
    assert bench.exchange(connack(flags=1)) == b"\x3a\x07\x00\x01t\x00\x01\x00x", "now it is"


def test_a_server_that_names_itself_goes_on_with_the_session():
    """As one of a cluster does behind one address. Else what it has had would come once more."""
    bench = online(clean_session=False, session_expiry_s=60)
    bench.client.publish("t", "x", 1)
    bench.steps()
    assert follow(bench, b"\xe0\x01\x9c", moved(b"192.0.2.1"))[0] == HOME
    assert bench.exchange(connack(flags=1)) == b"\x3a\x07\x00\x01t\x00\x01\x00x"


def test_a_server_of_the_list_is_the_same_where_another_one_has_named_it():
    needs("failover")
    bench = online(uri=["mqtt://192.0.2.1", "mqtt://192.0.2.9"], session_expiry_s=60)
    bench.client.publish("t", "x", 1)
    bench.steps()
    assert follow(bench, b"\xe0\x01\x9c", moved(b"192.0.2.9"))[0] == ("192.0.2.9", 1883)
    assert bench.exchange(connack()) == b"\x32\x07\x00\x01t\x00\x01\x00x"
    assert follow(bench, b"\xe0\x01\x8b", b"")[0] == ("192.0.2.9", 1883), "the next of the list"
    assert bench.exchange(connack(flags=1)) == b"\x3a\x07\x00\x01t\x00\x01\x00x"


def test_a_good_bye_is_heard_where_nothing_more_can_leave():
    """A server that does not read any more says why (section 4.13.2)."""
    for packet, code in (
        (b"\xe0\x01\x97", 0x97),
        (b"\xe0\x0f\x9c\x0d\x1c\x00\x0a192.0.2.77", 0x9C),
    ):
        bench = online(packet_bytes_max=2048, keep_alive_s=0)
        server = bench.server
        server.write_credit = 0
        bench.client.publish("t", bytes(1500))
        bench.steps()
        server.send(packet)
        bench.steps()
        assert server.is_closed, "held"
        error = bench.error()
        assert type(error) is mqttpipe.Refused and error.reason_code == code
