"""tools/mqtt.py without a server: what its options mean, and what it says of wrong ones.

tests/broker/test_mqtt_command.py compares it with mosquitto_pub and mosquitto_sub.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import resource
import ssl
import subprocess
import sys
import threading
import types

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
MQTT = TOP / "tools" / "mqtt.py"
sys.path.append(str(TOP / "tools" / "mqtt"))

sys.path[:0] = [str(TOP / "cpython_shim"), str(TOP / "micropython")]

import mqtt_options  # noqa: E402
import mqtt_traffic  # noqa: E402
from mqtt_format import FORMAT_HELP, PERCENT, Format  # noqa: E402
from mqtt_options import (  # noqa: E402
    OPTIONS,
    UsageError,
    client_arguments,
    read_options,
    split_url,
)

import mqttpipe  # noqa: E402

TLS = ("--cafile", "--cert", "--key", "--tls-use-os-certs", "--insecure")
SECRET = "s3cret of the tests"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("MQTT_URL", "MQTT_USERNAME", "MQTT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def uri_of(*words, command="sub"):
    return client_arguments(read_options(command, words))[0]


def test_an_authority_without_a_key_usage_is_one(monkeypatch):
    """From Python 3.13 on its contexts are strict: they refuse the one of boards/README.md."""
    make_strict = ssl.create_default_context

    def create_default_context(**arguments):
        context = make_strict(**arguments)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", create_default_context)
    context = mqtt_options.make_context({})
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname


def test_host_and_port_make_the_uri():
    assert uri_of() == "mqtt://localhost:1883"
    assert uri_of("-h", "broker.example") == "mqtt://broker.example:1883"
    assert uri_of("--host", "::1", "--port", "1884") == "mqtt://[::1]:1884"
    assert uri_of("-L", "mqtt://u:p@broker.example:99/a/b") == "mqtt://broker.example:99"
    assert uri_of("-L", "mqtt://[::1]:1884/a") == "mqtt://[::1]:1884"


def test_a_port_behind_the_host_is_an_error_that_names_p():
    options = read_options("pub", ["-h", "broker.example:1884", "-t", "a", "-n"])
    with pytest.raises(UsageError, match="use -p"):
        client_arguments(options)


def test_tls_is_asked_for_by_its_options_or_its_port():
    assert uri_of("-p", "8883") == "mqtts://localhost:8883"
    assert uri_of("--tls-use-os-certs", "-p", "1") == "mqtts://localhost:1"
    assert uri_of("-L", "mqtts://broker.example/t") == "mqtts://broker.example:8883"
    assert uri_of("-L", "mqtts://broker.example/t", "-p", "1883") == "mqtts://broker.example:1883"
    assert uri_of("-L", "mqtt://broker.example/t", "-p", "8883") == "mqtts://broker.example:8883"
    with pytest.raises(UsageError, match="--cafile"):  # it was left aside without a word
        uri_of("-L", "mqtt://broker.example/t", "--cafile", "/nonexistent/ca")
    assert uri_of("-p", "1883") == "mqtt://localhost:1883"


def test_the_topic_of_a_url_is_all_behind_the_server():
    assert split_url("mqtt://h/a/b") == {"host": "h", "port": 1883, "topic": "a/b"}
    tls = {"port": 1, "tls_use_os_certs": True}
    assert split_url("mqtts://h:1//a") == {"host": "h", "topic": "/a", **tls}
    assert split_url("mqtt://h") == {"host": "h", "port": 1883}
    with pytest.raises(UsageError):
        split_url("ws://h/t")


def test_a_slash_in_user_or_password_is_theirs():
    parts = split_url("mqtt://u:a/b@h/t/u")
    assert (parts["username"], parts["pw"], parts["topic"]) == (b"u", b"a/b", "t/u")
    parts = split_url("mqtts://u/v:/@@h:1")
    assert (parts["username"], parts["pw"], parts["port"]) == (b"u/v", b"/@", 1)
    assert split_url("mqtt://@h/t")["username"] == b""
    words = ["-L", "mqtt://jo/e:s/c@t@broker.example:99/a"]
    uri, arguments = client_arguments(read_options("pub", words))
    assert (uri, arguments["user"], arguments["password"]) == (
        "mqtt://broker.example:99",
        b"jo/e",
        b"s/c@t",
    )


def test_the_next_word_is_the_value_whatever_it_begins_with():
    assert read_options("pub", ["-m", "-x", "-t", "--"]) == {"message": "-x", "topic": "--"}


def test_what_may_be_repeated_becomes_a_list():
    options = read_options("sub", ["-t", "a", "--topic", "b", "-T", "c"])
    assert options == {"topic": ["a", "b"], "filter_out": ["c"]}
    assert read_options("pub", ["-t", "a", "-t", "b"]) == {"topic": "b"}


def test_the_command_line_goes_before_the_file_and_that_before_the_environment(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("MQTT_USERNAME", "environment")
    monkeypatch.setenv("MQTT_PASSWORD", "environment")
    file = tmp_path / "options"
    file.write_text("# a comment\n\n  -u   of the file \n-v\n-k 7\n")
    options = read_options("sub", ["-o", str(file), "-k", "8"])
    assert options["username"] == "of the file" and options["pw"] == "environment"
    assert options["keepalive"] == 8 and options["verbose"] is True


def test_a_file_may_begin_with_the_mark_that_windows_editors_write(tmp_path):
    file = tmp_path / "options"
    file.write_bytes(b"\xef\xbb\xbf-u joe\r\n-k 7\r\n")
    options = read_options("sub", ["-o", str(file)])
    assert options["username"] == "joe" and options["keepalive"] == 7


def test_a_host_goes_before_the_url_of_the_environment(monkeypatch):
    monkeypatch.setenv("MQTT_URL", "mqtt://joe:his@environment.example/t")
    assert uri_of() == "mqtt://environment.example:1883"
    for words in (["-h", "broker.example"], ["-L", "mqtt://broker.example"]):
        options = read_options("sub", words)
        assert client_arguments(options)[0] == "mqtt://broker.example:1883"
        assert not {"username", "pw", "topic"} & set(options), "they are for another server"
    assert uri_of("-p", "1884") == "mqtt://environment.example:1884"


def test_a_url_stands_for_options_of_where_it_stands(monkeypatch, tmp_path):
    """The environment gave the user to any URL, and a host in the file threw a URL away."""
    monkeypatch.setenv("MQTT_USERNAME", "me")
    monkeypatch.setenv("MQTT_PASSWORD", "mine")
    file = tmp_path / "options"
    file.write_text("-h file.example\n-p 99\n-u file\n-t of/file\n")
    url = "mqtts://joe:his@url.example/of/url"
    options = read_options("sub", ["-o", str(file), "-L", url])
    uri, arguments = client_arguments(options)
    assert uri == "mqtts://url.example:8883" and options["topic"] == ["of/url"]
    assert (arguments["user"], arguments["password"]) == (b"joe", b"his")
    file.write_text("-L %s\n" % url)
    options = read_options("pub", ["-o", str(file), "-u", "ann", "-t", "mine"])
    assert client_arguments(options)[0] == "mqtts://url.example:8883"
    assert (options["username"], options["pw"], options["topic"]) == ("ann", b"his", "mine")
    options = read_options("sub", ["-o", str(file), "-h", "other.example"])
    assert client_arguments(options)[0] == "mqtt://other.example:1883"
    assert (options["username"], options["pw"]) == ("me", "mine") and "topic" not in options


def test_an_option_beside_a_url_goes_before_what_the_url_says():
    """-p was left aside without a word, and -h threw the URL away with its topic."""
    url = "mqtt://joe:his@url.example:99/of/url"
    beside = ["-p", "1884", "-h", "broker.example", "-u", "ann", "-P", "hers"]
    for words in ([*beside, "-L", url], ["-L", url, *beside]):
        options = read_options("pub", words)
        uri, arguments = client_arguments(options)
        assert uri == "mqtt://broker.example:1884" and options["topic"] == "of/url"
        assert (arguments["user"], arguments["password"]) == ("ann", b"hers")
    assert read_options("pub", ["-L", url, "-t", "b"])["topic"] == "b"
    assert read_options("sub", ["-L", url, "-t", "b"])["topic"] == ["b", "of/url"]
    assert "topic" not in read_options("shell", ["-L", url])


@pytest.mark.parametrize(
    "line", ("--pw-typo " + SECRET, "-q " + SECRET, "-p " + SECRET, "--password " + SECRET)
)
def test_an_error_in_the_file_names_the_line_and_shows_no_secret(line, tmp_path):
    file = tmp_path / "options"
    file.write_text("-u joe\n%s\n" % line)
    with pytest.raises(UsageError) as raised:
        read_options("pub", ["-o", str(file)])
    assert "line 2" in str(raised.value) and SECRET not in str(raised.value)


def test_a_file_that_can_not_be_read_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="Unable to open"):
        read_options("pub", ["-o", str(tmp_path / "none")])


def test_a_certificate_that_can_not_be_used_is_named(tmp_path):
    empty = tmp_path / "empty.crt"
    empty.touch()
    for name in ("none.crt", "empty.crt"):
        with pytest.raises(UsageError, match="--cafile .*/%s: " % name):
            client_arguments(read_options("pub", ["--cafile", str(tmp_path / name)]))
    words = ["--cert", str(empty), "--key", str(tmp_path / "none.key")]
    with pytest.raises(UsageError, match="--key .*/none.key: "):
        client_arguments(read_options("pub", words))


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option[1] in TLS], ids=lambda option: option[1]
)
def test_an_option_of_tls_never_leaves_the_connection_plain(option):
    """It was plain with --key or --insecure alone, without a word."""
    words = [option[1]] if option[3] == mqtt_options.FLAG else [option[1], "/nowhere/file"]
    try:
        assert uri_of(*words).startswith("mqtts:")
    except UsageError as error:
        assert re.search("--key|TLS|certificate", str(error)), error
    if option[1] == "--insecure":
        for more in (["-p", "8883"], ["-L", "mqtts://h"], ["--tls-use-os-certs"]):
            assert uri_of(*words, *more).startswith("mqtts:")


def test_a_will_has_all_its_parts():
    words = ["--will-topic", "w", "--will-payload", "gone", "--will-qos", "2", "--will-retain"]
    assert client_arguments(read_options("pub", words))[1]["will"] == ("w", b"gone", 2, True)
    assert client_arguments(read_options("pub", words[:2]))[1]["will"] == ("w", b"", 0, False)
    with pytest.raises(UsageError, match="no will topic"):
        client_arguments(read_options("pub", ["--will-retain"]))


def test_the_client_identifier_is_given_or_begins_with_the_prefix():
    def client_id(*words):
        return client_arguments(read_options("pub", words))[1].get("client_id")

    assert client_id() is None
    assert client_id("-i", "me") == "me"
    assert client_id("-I", "me-") == "me-%d" % os.getpid()


@pytest.mark.parametrize("version", ("3", "mqttv6", "31"))
def test_another_version_of_mqtt_is_an_error(version):
    assert read_options("pub", ["-V", "mqttv311"])
    with pytest.raises(UsageError, match="only 311 and 5"):
        read_options("pub", ["-V", version])


def arguments_of(*words):
    options = read_options("pub", ["-V", "5", *words])
    return client_arguments(options)[1], options


def test_properties_go_to_the_packets_that_they_are_for():
    arguments, options = arguments_of(
        *("-D", "connect", "receive-maximum", "7"),
        *("-D", "connect", "session-expiry-interval", "60"),
        *("-D", "connect", "user-property", "a", "b c"),
        *("-D", "publish", "content-type", "text/plain"),
        *("-D", "publish", "user-property", "k", "1"),
        *("-D", "publish", "user-property", "k", "2"),
        *("--will-topic", "w", "-D", "will", "will-delay-interval", "5"),
    )
    assert arguments["protocol"] == 5 and arguments["session_expiry_s"] == 60
    assert arguments["properties"] == {"receive_maximum": 7, "user_property": [("a", "b c")]}
    assert arguments["will"] == ("w", b"", 0, False, {"will_delay_interval": 5})
    assert mqtt_options.properties_of(options, "publish") == {
        "properties": {"content_type": "text/plain", "user_property": [("k", "1"), ("k", "2")]}
    }
    assert mqtt_options.properties_of(options, "subscribe") == {}


def test_packets_and_properties_may_be_written_in_any_case():
    """mosquitto_pub compares them so."""
    arguments, options = arguments_of(
        *("-D", "CONNECT", "Receive-Maximum", "7"),
        *("-D", "Connect", "maximum-packet-size", "500"),
        *("-D", "publish", "USER-PROPERTY", "K", "V"),
    )
    assert arguments["properties"] == {"receive_maximum": 7, "maximum_packet_size": 500}
    assert mqtt_options.properties_of(options, "publish") == {
        "properties": {"user_property": [("K", "V")]}
    }


def test_a_session_that_is_kept_is_kept_for_ever_or_as_long_as_x_says():
    assert arguments_of()[0]["session_expiry_s"] == 0
    assert arguments_of("-c", "-i", "a")[0]["session_expiry_s"] == 0xFFFFFFFF
    assert arguments_of("-c", "-i", "a", "-x", "9")[0]["session_expiry_s"] == 9
    assert arguments_of("-c", "-i", "a", "-x", "0")[0]["session_expiry_s"] == 0
    for word in ("-1", "\u221e", "4294967295"):
        assert arguments_of("-i", "a", "-x", word)[0]["session_expiry_s"] == 0xFFFFFFFF
    words = ["-D", "connect", "session-expiry-interval", "0"]
    assert arguments_of("-c", "-i", "a", *words)[0]["session_expiry_s"] == 0


@pytest.mark.parametrize(
    "words",
    [
        ["-V", "311", "-D", "publish", "content-type", "x"],
        ["-x", "5"],
        ["-V", "311", "-x", "5"],
        ["-V", "5", "-D", "publish"],
        ["-V", "5", "-D", "puback", "reason-string", "x"],
        ["-V", "5", "-D", "publish", "topic-alias", "1"],
        ["-V", "5", "-D", "publish", "content-type"],
        ["-V", "5", "-D", "publish", "user-property", "k"],
        ["-V", "5", "-D", "publish", "message-expiry-interval", "soon"],
        ["-V", "5", "-D", "publish", "content-type", "x", "-D", "publish", "content-type", "y"],
        ["-V", "5", "-x", "4294967296"],
        ["-V", "5", "-x", "-2"],
    ],
)
def test_wrong_properties_are_told(words):
    with pytest.raises(UsageError):
        read_options("pub", words)


def test_who_gives_a_property_and_no_version_gets_mqtt_5(tmp_path):
    words = ["-D", "publish", "content-type", "x"]
    assert client_arguments(read_options("pub", words))[1]["protocol"] == 5
    file = tmp_path / "options"
    file.write_text("-V 311\n")
    with pytest.raises(UsageError, match="-D needs -V 5"):
        read_options("pub", [*words, "-o", str(file)])


def test_properties_of_disconnect_are_looked_at_before_anything_is_sent():
    """It was told at the end, and the status was 0."""
    words = ["-V", "5", "-t", "t", "-n", "-D", "disconnect", "session-expiry-interval", "5"]
    with pytest.raises(UsageError, match="it was 0 in CONNECT"):
        mqtt_traffic.Publish(read_options("pub", words))
    mqtt_traffic.Publish(read_options("pub", [*words, "-x", "9"]))


def test_will_properties_need_a_will():
    options = read_options("pub", ["-V", "5", "-D", "will", "will-delay-interval", "5"])
    with pytest.raises(UsageError, match="no will topic"):
        client_arguments(options)


def test_properties_may_stand_in_a_file(tmp_path):
    path = tmp_path / "options"
    path.write_text("-V 5\n-D publish content-type x; y\n-D publish user-property a b c\n")
    options = read_options("pub", ["-o", str(path)])
    assert options["property"]["publish"] == {
        "content_type": "x; y",
        "user_property": [("a", "b c")],
    }
    path.write_text("-D will content-type a user-property b\n-D Will User-Property a b c\n")
    options = read_options("pub", ["-o", str(path)])
    assert options["property"]["will"] == {
        "content_type": "a user-property b",
        "user_property": [("a", "b c")],
    }
    path.write_text("-D publish user-property\n")
    with pytest.raises(UsageError, match="given but no value"):
        read_options("pub", ["-o", str(path)])


# ---------------------------------------------------------------------------
# Formats
# ---------------------------------------------------------------------------


class Message:
    def __init__(self, payload=b"", qos=0, retain=False, identifier=0):
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self._buf = b"\0\1t" + bytes((identifier >> 8, identifier & 0xFF))
        self._start = 5


def rendered(message, **options):
    return Format(options).render(b"t", message)


def test_a_packet_identifier_is_shown_where_there_is_one():
    assert rendered(Message(b"x", 1, identifier=1234), format="%m %q") == b"1234 1\n"
    assert rendered(Message(b"x", 0, identifier=1234), format="%5m") == b"    0\n"


def test_json_lets_through_what_is_not_utf_8():
    assert b'"payload":"a\xffb"' in rendered(Message(b"a\xffb"), format="%j")


def test_json_of_a_payload_that_is_none_is_told_and_not_raised():
    form = Format({"format": "%J"})
    assert form.render(b"t", Message(b"{")) == b"\n"
    assert form.render(b"t", Message(b"\xff")) == b"\n"
    assert form.render(b"t", Message(b"[" * 100_000)) == b"\n"  # it was RecursionError
    assert [text.endswith("on topic t.") for text in form.take_errors()] == [True] * 3
    assert not form.take_errors()


@pytest.mark.parametrize(
    "payload",
    (rb'"\ud800"', rb'{"\udc80": 1}', b"NaN", b"[-Infinity]", '"\u00e9"'.encode("utf-16")),
)
def test_what_python_alone_takes_for_json_is_told(payload):
    """The first two were UnicodeEncodeError: no line, and not counted for -C."""
    form = Format({"format": "%J"})
    assert form.render(b"t", Message(payload)) == b"\n"
    assert [text.endswith("on topic t.") for text in form.take_errors()] == [True]


def test_a_number_larger_than_any_is_null():
    """As mosquitto_sub prints it. It was Infinity, which is no JSON."""
    line = rendered(Message(b'[1e400, {"a": -1e999}, 1.5e3]'), format="%J")
    assert json.loads(line)["payload"] == [None, {"a": None}, 1500]


def test_a_message_that_can_not_be_printed_is_counted(monkeypatch):
    monkeypatch.setattr(mqtt_traffic.signal, "signal", lambda number, handler: None)
    subscribe = mqtt_traffic.Subscribe({"topic": ["a"], "count": 1})
    monkeypatch.setattr(subscribe.format, "render", lambda name, message: 1 // 0)
    message = mqttpipe.Message(b"\0\1ax")
    message.topic_name, message.qos, message.retain = "a", 0, False
    with pytest.raises(ZeroDivisionError):
        subscribe.on_message(subscribe.client, message)
    assert subscribe.is_done()


def test_a_name_that_stands_twice_is_printed_twice():
    message = Message(b'{"a": 1, "a": {"b": 2, "b": {}}}')
    message.properties = {
        "user_property": [("k", "1"), ("k", "2")],
        "subscription_identifier": [3, 4],
        "correlation_data": b"\xff",
    }
    for options in ({}, {"pretty": True}):
        line = b"".join(rendered(message, format="%J", **options).split())
        assert line.endswith(
            b'"properties":{"user-properties":{"k":"1","k":"2"},"subscription-identifier":3,'
            b'"subscription-identifier":4,"correlation-data":"\xff"},'
            b'"payload":{"a":1,"a":{"b":2,"b":{}}}}'
        ), line


HARMFUL = "\x1b]0;t\x07\r\n\x9b2J\u202e\u2028\x00é".encode() + b"\xff"
HARMLESS = r"\x1b]0;t\x07\r\n\x9b2J\u202e\u2028\x00é\xff".encode()


def on_terminal(message, **options):
    return Format(options, is_terminal=True).render(b"t\x1b\xe2\x80\xae", message)


def test_control_characters_are_escaped_for_a_terminal():
    message = Message(HARMFUL)
    assert on_terminal(message) == HARMLESS + b"\n"
    assert on_terminal(message, verbose=True) == rb"t\x1b\u202e " + HARMLESS + b"\n"
    assert on_terminal(message, format="%t\\t%p") == rb"t\x1b\u202e" + b"\t" + HARMLESS + b"\n"
    assert on_terminal(Message(), verbose=True) == rb"t\x1b\u202e (null)" + b"\n"


def test_control_characters_of_properties_are_escaped_for_a_terminal():
    message = Message()
    message.properties = {
        "content_type": "\x1b",
        "response_topic": "\r",
        "correlation_data": b"\x9b",
        "user_property": [("\x07", "\u202e")],
    }
    line = on_terminal(message, format="%C %R %D %P")
    assert line == rb"\x1b \r \x9b \x07:\u202e" + b"\n"
    assert rendered(message, format="%C%D") == b"\x1b\x9b\n"


def test_what_is_counted_and_what_is_hex_is_of_the_payload_itself():
    assert on_terminal(Message(b"\x1b"), format="%l %x") == b"1 1b\n"


def test_json_for_a_terminal_is_json_still():
    text = on_terminal(Message(HARMFUL[:-1] + "\U000e0001".encode()), format="%j", pretty=True)
    assert all(one.isprintable() or one in "\n\t" for one in text.decode())
    told = json.loads(text)
    assert told["payload"] == HARMFUL[:-1].decode() + "\U000e0001"
    assert told["topic"] == "t\x1b\u202e"


def test_to_a_file_or_with_raw_every_byte_goes_as_it_came():
    assert rendered(Message(HARMFUL)) == HARMFUL + b"\n"
    assert on_terminal(Message(HARMFUL), raw=True) == HARMFUL + b"\n"
    assert b"\x1b" in on_terminal(Message(HARMFUL), raw=True, format="%t")


def test_the_help_names_every_letter_of_a_format():
    for letter in PERCENT:
        assert "%" + letter in FORMAT_HELP, letter


def test_a_byte_of_the_format_that_is_not_utf_8_is_printed_as_it_came():
    """It was UnicodeEncodeError. As the system gives the byte FF of a word: U+DCFF."""
    assert rendered(Message(b"x"), format="\udcff%p") == b"\xffx\n"
    rendered(Message(b"x"), format="%t@\udcff")  # whatever strftime() makes of it


@pytest.mark.parametrize("form", ("%\u00b2p", "%.\u00b2t"))
def test_a_digit_of_another_script_is_no_width(form):
    """It was ValueError: "\u00b2".isdigit() is true, and int() refuses it."""
    with pytest.raises(UsageError, match="Invalid format"):
        Format({"format": form})


@pytest.mark.parametrize(
    "form", ("%999999999l", "%.99999999999999999999t", "%" + "9" * 5000 + "p"), ids=len
)
def test_a_width_that_would_take_all_memory_is_an_error(form):
    with pytest.raises(UsageError, match="at most"):
        Format({"format": form})


# ---------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("word", ("", "a/#/b", "a+", "\udcff"))
def test_what_is_no_filter_can_not_be_filtered_out(word):
    """An empty one was IndexError at each message, one that is not UTF-8 UnicodeEncodeError."""
    with pytest.raises(UsageError):
        mqtt_traffic.Subscribe({"topic": ["a"], "filter_out": [word]})


@pytest.mark.parametrize("topic", ("", "a/#", "+", "\udcff", "a\0"))
def test_no_line_is_read_for_a_topic_that_is_none(topic):
    with pytest.raises(UsageError, match="topic"):
        mqtt_traffic.Publish({"topic": topic, "stdin_line": True})


@pytest.fixture
def lost_publisher(monkeypatch):
    """lost_publisher(options): a Publish that has just lost its connection; .now_s: its clock."""

    def make(**options):
        publish = mqtt_traffic.Publish({"topic": "t", "qos": 1, **options})
        publish.now_s = 0
        clock = types.SimpleNamespace(monotonic=lambda: publish.now_s)
        monkeypatch.setattr(mqtt_traffic, "time", clock)
        publish.on_online(publish.client)
        publish.on_offline(publish.client, mqttpipe.TransportError("closed"))
        return publish

    return make


def test_a_connection_that_comes_back_is_no_progress_for_who_has_to_publish(lost_publisher):
    publish = lost_publisher(message="x")
    publish.now_s = mqtt_traffic.GIVE_UP_S
    publish.check()
    publish.on_online(publish.client)
    publish.now_s += 1
    with pytest.raises(mqtt_traffic.Ended) as ended:
        publish.check()
    assert ended.value.status == 7


def test_each_message_that_goes_through_is_progress(lost_publisher):
    publish = lost_publisher(message="x")
    for end in (publish.on_published, publish.on_dropped):
        publish.now_s += mqtt_traffic.GIVE_UP_S
        publish.on_online(publish.client)
        end(publish.client, 1)
        publish.on_offline(publish.client, mqttpipe.TransportError("closed"))
        publish.check()
    publish.now_s += mqtt_traffic.GIVE_UP_S + 1
    with pytest.raises(mqtt_traffic.Ended):
        publish.check()


def test_who_has_nothing_to_publish_needs_no_more_than_a_connection(monkeypatch, lost_publisher):
    with open(os.devnull) as empty:
        monkeypatch.setattr("sys.stdin", empty)
        publish = lost_publisher(stdin_line=True)
    publish.on_online(publish.client)
    publish.now_s = mqtt_traffic.GIVE_UP_S + 1
    publish.check()


def test_all_of_an_empty_stdin_is_no_message(monkeypatch):
    """A producer that failed took back what the server kept (-r); mosquitto_pub refuses it."""
    with open(os.devnull) as empty:
        monkeypatch.setattr("sys.stdin", empty)
        with pytest.raises(UsageError, match="Zero length"):
            mqtt_traffic.Publish({"topic": "t", "stdin_file": True, "retain": True})


def test_a_password_that_is_not_utf_8_goes_out_as_it_was_given():
    """It went out as three bytes for each such one. As the system gives the byte FF: U+DCFF."""
    options = read_options("pub", ["-u", "u", "-P", "\udcff"])
    options.update(will_topic="t", will_payload="\udcfe")
    _, arguments = client_arguments(options)
    assert arguments["password"] == b"\xff" and arguments["will"][1] == b"\xfe"


def run(*words):
    ran = subprocess.run(
        [sys.executable, str(MQTT), *words], capture_output=True, text=True, timeout=30
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("command", ("pub", "sub", "shell"))
def test_help_tells_every_option_of_a_command(command):
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    for short, long, commands, _, text in OPTIONS:
        if command in commands:
            assert "%s" % long in out and text in out and short in out
    assert "MQTT_PASSWORD" in out and "\n    27 " in out


@pytest.mark.parametrize(
    "url",
    (
        "mqtt://%s:pass@192.0.2.1:0/t",
        "mqtt://user:%s@/t",
        "mqtt://user:%%zz%s@h/t",
        "mqtt://us/er:%s@h:x/t",
        "mqtt://user:a/%s@b/c@[h]/t",
        "ws://user:%s@h/t",
        "mqtt://user:%s@127.0.0.1:1/t",  # nobody listens
    ),
)
def test_nothing_before_the_at_of_a_url_is_printed(url):
    status, out, err = run("pub", "-L", url % SECRET, "-t", "t", "-m", "x", "-d", "-W", "5")
    assert status and err
    assert SECRET not in out + err and "user" not in out + err, err


@pytest.mark.parametrize("option", ("-m", "-t", "-P", "-u", "-i"))
def test_help_behind_an_option_is_its_value(option):
    """`-m --help` printed the help, published nothing, and ended with 0."""
    options = read_options("pub", [option, "--help", "-n"])
    assert "--help" in options.values() and "help" not in options
    assert "help" in read_options("pub", ["-n", "--help", option])


# ---------------------------------------------------------------------------
# Streams
# ---------------------------------------------------------------------------

NO_SERVER = ("pub", "-h", "127.0.0.1", "-p", "1", "-t", "t", "-m", "x")


@contextlib.contextmanager
def bad_stream(kind):
    """A descriptor to which nothing can be written: it is closed or full, or nobody reads it."""
    if kind == "full":
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full here")
        fd = os.open("/dev/full", os.O_WRONLY)
    elif kind == "for reading":
        fd = os.open(os.devnull, os.O_RDONLY)
    else:
        other, fd = os.pipe()
        os.set_blocking(fd, False)
        if kind == "closed":
            os.close(other)
        else:  # it does not block, and is never ready
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(fd, bytes(4096))
    with os.fdopen(fd, "wb", 0) as stream:
        yield stream
    if kind == "stuck":
        os.close(other)


@pytest.mark.parametrize("kind", ("closed", "full", "for reading", "stuck"))
@pytest.mark.parametrize(
    "words", (("pub", "-t", "t"), ("nonsense",), NO_SERVER, (*NO_SERVER, "-d"))
)
def test_where_stderr_can_not_be_written_the_status_is_what_it_is(words, kind):
    """It was 0: any closed pipe was taken for stdout."""
    with bad_stream(kind) as stream:
        ran = subprocess.run(
            [sys.executable, str(MQTT), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
            timeout=30,
        )
    assert (ran.returncode, ran.stdout) == (1, b"")


@pytest.mark.parametrize("buffering", ({}, {"PYTHONUNBUFFERED": "1"}), ids=("", "unbuffered"))
@pytest.mark.parametrize("command", ("pub", "sub", "shell"))
def test_a_help_that_can_not_be_written_is_told_in_one_line(command, buffering):
    for kind in ("closed", "full", "for reading"):
        with bad_stream(kind) as stream:
            ran = subprocess.run(
                [sys.executable, str(MQTT), command, "--help"],
                env=dict(os.environ, **buffering),
                stdout=stream,
                stderr=subprocess.PIPE,
                timeout=30,
            )
        if kind == "closed":
            assert (ran.returncode, ran.stderr) == (0, b"")
        else:
            told = rb"Error: can't write the output: .+\n"
            assert ran.returncode == 1 and re.fullmatch(told, ran.stderr), ran.stderr


@pytest.mark.parametrize("buffering", ({}, {"PYTHONUNBUFFERED": "1"}), ids=("", "unbuffered"))
def test_a_disk_that_becomes_full_at_half_of_it_is_told(buffering, tmp_path):
    """Python writes the first part, says so, and its callers went on without the rest."""
    limit = 1000
    with open(tmp_path / "out", "wb") as file:
        ran = subprocess.run(
            [sys.executable, str(MQTT), "pub", "--help"],
            env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **buffering),
            stdout=file,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            timeout=30,
        )
    assert (ran.returncode, os.path.getsize(file.name)) == (1, limit)
    assert ran.stderr == b"Error: can't write the output: File too large\n"


@pytest.mark.parametrize("buffering", ({}, {"PYTHONUNBUFFERED": "1"}), ids=("", "unbuffered"))
def test_all_is_written_to_a_pipe_that_takes_a_part(buffering):
    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        pytest.skip("the size of a pipe can not be set here")
    words = [sys.executable, str(MQTT), "sub", "--help"]
    whole = subprocess.run(words, stdout=subprocess.PIPE, timeout=30).stdout
    end, fd = os.pipe()
    os.set_blocking(fd, False)
    assert fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 4096) < len(whole)
    process = subprocess.Popen(words, stdout=fd, env=dict(os.environ, **buffering))
    os.close(fd)
    with os.fdopen(end, "rb") as stream:
        assert stream.read() == whole
    assert process.wait(30) == 0


# ---------------------------------------------------------------------------
# Files and stdin
# ---------------------------------------------------------------------------


def run_with(stdin, *words):
    words = [sys.executable, str(MQTT), *words]
    ran = subprocess.run(words, stdin=stdin, capture_output=True, text=True, timeout=30)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("option", ("-s", "-f", "-o"))
def test_w_bounds_the_wait_for_a_writer(option, tmp_path):
    """It waited for ever: the time was looked at with a connection only."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    end, fd = os.pipe()
    words = ["pub", "-t", "t", "-W", "0.5", option, *([] if option == "-s" else [str(fifo)])]
    try:
        assert run_with(end, *words) == (27, "", "Timed out\n")
        assert run_with(end, *words, "--quiet") == (
            27,
            "",
            "" if option != "-o" else "Timed out\n",
        )
    finally:
        os.close(end)
        os.close(fd)


def test_w_bounds_the_wait_for_the_end_of_what_is_written(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR)
    try:
        os.write(fd, b"-h broker.example\n")
        ran = run("pub", "-t", "t", "-n", "-W", "0.5", "-o", str(fifo))
    finally:
        os.close(fd)
    assert ran == (27, "", "Timed out\n")


def test_a_message_may_come_from_a_writer_that_is_late(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    payload = b"x" * 200_000
    writer = threading.Thread(target=fifo.write_bytes, args=(payload,), daemon=True)
    timer = threading.Timer(0.2, writer.start)
    timer.start()
    publish = mqtt_traffic.Publish({"topic": "t", "file": str(fifo), "timeout": 30})
    assert publish.payload == payload
    timer.join(30)
    writer.join(30)


@pytest.mark.parametrize(
    "words, told",
    (
        (["-n", "-o", "/dev/zero"], '"/dev/zero" is longer than 1048576 bytes'),
        (["-f", "/dev/zero"], "The message is longer than 16777216 bytes."),
        (["-s"], "The message is longer than 16777216 bytes."),
    ),
    ids=("-o", "-f", "-s"),
)
def test_what_has_no_end_is_not_read_to_the_end(words, told):
    """It took all memory."""
    if not os.path.exists("/dev/zero"):
        pytest.skip("no /dev/zero here")
    with open("/dev/zero") as stream:
        status, out, err = run_with(stream, "pub", "-t", "t", *words)
    assert (status, out) == (1, "") and err.startswith("Error: " + told), err


@pytest.fixture
def lines_publisher(monkeypatch):
    """lines_publisher(data): a Publish with -l that has read it all."""
    monkeypatch.setattr(mqtt_traffic, "PACKET_BYTES_MAX", 1000)
    monkeypatch.setattr(mqtt_traffic, "READ_BYTES", 64)

    def make(data):
        end, fd = os.pipe()
        with os.fdopen(fd, "wb", 0) as stream:
            stream.write(data)
        with os.fdopen(end) as stream:
            monkeypatch.setattr("sys.stdin", stream)
            publish = mqtt_traffic.Publish({"topic": "t", "stdin_line": True})
            while not publish.is_read:
                publish.read_lines()
                assert len(publish.rest) <= 1000
        return publish

    return make


def test_a_line_that_is_too_long_is_told_and_the_next_one_is_sent(lines_publisher, capsys):
    """All of it was kept until its end came, and /dev/zero has none."""
    for data in (b"short\n%s\nnext\n%s\n", b"short\n%s\nnext\n%s"):
        publish = lines_publisher(data % (b"x" * 5000, b"y" * 1001))
        assert publish.lines == [b"short", b"next"] and publish.status == 1
        told = "Error: a line is longer than 1000 bytes: it is not sent\n"
        assert capsys.readouterr().err == told * 2
    publish = lines_publisher(b"\n%s\n\nend" % (b"x" * 1000))
    assert publish.lines == [b"", b"x" * 1000, b"", b"end"] and publish.status == 0


@pytest.mark.parametrize("option", ("-s", "-f"))
def test_what_can_not_be_read_is_told_in_one_line(option, tmp_path):
    words = [option] if option == "-s" else [option, str(tmp_path)]
    with open(os.devnull, "w") as for_writing:
        status, out, err = run_with(for_writing, "pub", "-t", "t", *words)
    told = "Unable to read stdin: Bad file" if option == "-s" else 'Unable to open file "'
    assert (status, out) == (1, "") and err.startswith("Error: " + told), err


def test_lines_that_can_not_be_read_are_told_in_one_line(monkeypatch):
    with open(os.devnull, "w") as for_writing:
        monkeypatch.setattr("sys.stdin", for_writing)
        publish = mqtt_traffic.Publish({"topic": "t", "stdin_line": True})
        with pytest.raises(mqtt_traffic.Ended, match="unable to read stdin: Bad file") as ended:
            publish.read_lines()
    assert ended.value.status == 1


@pytest.mark.parametrize("between", ("\u2028", "\x1c", "\x0b", "\x85", "\u00a0", "\r"))
def test_nothing_but_an_end_of_line_ends_an_option_of_a_file(between, tmp_path):
    """str.splitlines() has more ends of a line than a file has."""
    file = tmp_path / "options"
    file.write_bytes(("-u a%sb%s\r\n -P c \n" % (between, between)).encode())
    options = read_options("pub", ["-o", str(file)])
    expected = "a%sb%s" % (between, "" if between == "\r" else between)
    assert options == {"username": expected, "pw": "c", "options": str(file)}


@pytest.mark.parametrize(
    "line, told",
    (
        ("-o other", "-o is for the command line only in .*, line 2"),
        ("--options", "--options is for the command line only in .*, line 2"),
        ("--help", "--help is for the command line only in .*, line 2"),
        ("-f a\0b", "can't hold a NUL character in .*, line 2"),
        ("--cafile a\0b", "can't hold a NUL character in .*, line 2"),
        ("-m\0", "can't hold a NUL character in .*, line 2"),
    ),
)
def test_what_a_file_can_not_hold_is_told(line, told, tmp_path):
    file = tmp_path / "options"
    file.write_text("-u joe\n%s\n" % line)
    with pytest.raises(UsageError, match=told):
        read_options("pub", ["-o", str(file)])


def test_correlation_data_that_is_not_utf_8_goes_out_as_it_was_given():
    """As a message does. As the system gives the byte E9: U+DCE9."""
    words = ["-D", "publish", "correlation-data", "caf\udce9x"]
    properties = mqtt_options.properties_of(read_options("pub", words), "publish")
    assert properties == {"properties": {"correlation_data": b"caf\xe9x"}}


def test_without_a_command_it_says_how_to_use_it():
    status, out, _ = run()
    assert status == 1 and "tools/mqtt.py pub" in out
    assert run("--help")[0] == 0
    status, out, err = run("publish")
    assert (status, out) == (1, "") and "pub, sub or shell" in err


def test_each_option_has_one_meaning_in_each_command():
    for command in ("pub", "sub", "shell"):
        names = [
            name
            for short, long, commands, _, _ in OPTIONS
            if command in commands
            for name in (short, long)
            if name
        ]
        assert len(names) == len(set(names)), command
        assert set(mqtt_options.options_of(command)) == set(names)


@pytest.mark.parametrize("command", ["pub", "sub", "shell"])
@pytest.mark.parametrize(
    "words",
    [
        ["mqtt://user:%s@broker.example/t" % SECRET],
        ["-P" + SECRET],
        ["--pw=" + SECRET],
        ["-L=mqtt://user:%s@broker.example" % SECRET],
        ["-P", "two", SECRET],
    ],
    ids=["url", "short", "long", "short url", "word"],
)
def test_what_is_no_option_is_not_shown(command, words):
    """It may be a password that is not where it belongs, or a URL without its -L."""
    with pytest.raises(UsageError) as caught:
        read_options(command, words)
    assert SECRET not in str(caught.value) and "Unknown option" in str(caught.value)


def test_neither_is_what_is_no_option_in_a_file(tmp_path):
    path = tmp_path / "options"
    path.write_text("-t a\nmqtt://user:secret@broker.example\n")
    with pytest.raises(UsageError) as caught:
        read_options("sub", ["-o", str(path)])
    assert "secret" not in str(caught.value) and "line 2" in str(caught.value)


def test_the_name_of_an_unknown_option_is_shown():
    with pytest.raises(UsageError, match="Unknown option '--retian'"):
        read_options("sub", ["--retian=x"])
