"""The command line of tools/mqtt.py: wrong options end in a UsageError, never in a traceback.

And what they are taken for is used: the client is made, a message is printed as -F says. Nothing
is connected. Case: the command (one byte), then the words, each behind a zero byte, as a shell
gives them: bytes that are not UTF-8 come through as lone surrogates.
"""

import os
import signal
import sys

import fuzz_streams
import mqtt_traffic
from mqtt_options import (
    FLAG,
    NUMBER,
    OPTIONS,
    TEXT,
    UsageError,
    client_arguments,
    options_of,
    read_options,
    shown_name,
)

import mqttpipe

ALLOCATED_MAX = 2_000_000
COMMANDS = ("pub", "sub", "shell")
NAMES = sorted({name for option in OPTIONS for name in option[:2] if name})
FOLDER = os.path.dirname(os.path.abspath(__file__))
FILE = os.path.join(FOLDER, "fuzz_mqtt_options.txt")
VALUES = (
    "0 1 2 3 -1 1.5 nan inf 1e9 65535 65536 8883 1_0 99999999999999999999 \u0661 \u00b2 a a/b # + "
    "a/# a+b $SYS/# $share/g/a localhost ::1 256.1.1.1 mqtt://h/t mqtts://u:s3cret@h:1/t ws://h "
    "mqtt://h:0/t %t %p %j %J %x %5.3t %-020l %\u00b2p %@Y @N @ % \\ \\n \\q %99999p %U %I 311 5 "
    "%A%C%D%E%F %03S%5P%R /nowhere c\u00e4fe"
).split() + [FILE, "", " ", "-t", "--", "\udcff", "x" * 300, "9" * 5000, "%" + "9" * 20 + "l"]
PAYLOADS = (b"", b"on", b"\xff\0\x1b[2J", b'{"a":1}', b"nan", b"[" * 3000)

PROPERTIES = {
    "content_type": "\u00e4\x1b",
    "correlation_data": b"\xff\0",
    "subscription_identifier": [1, 2],
    "user_property": [("a", "b"), ("a", "\u202e")],
}

PACKET_BYTES_MAX = 1024  # the command takes 16 MiB, at once


def make(draw):
    number = draw.randrange(3)
    table = options_of(COMMANDS[number])
    words = []
    if draw.random() < 0.8:  # what each needs
        words = [["-t", "a", "-m", "x"], ["-t", "a"], []][number]
    for _ in range(draw.randrange(1, 5)):
        name = draw.choice(NAMES if draw.random() < 0.05 else sorted(table))
        kind = table.get(name, (None, TEXT))[1]
        words.append(name)
        if kind == NUMBER and draw.random() < 0.8:
            words.append(draw.choice(("0", "1", "2", "5")))
        elif kind != FLAG or draw.random() < 0.05:
            words.append(draw.choice(VALUES))
    case = b"".join(b"\0" + word.encode(errors="surrogateescape") for word in words)
    if draw.random() < 0.2:
        case = fuzz_streams.spoil(draw, case)
    return bytes((number,)) + case


class Input:
    """Stands for sys.stdin: empty."""

    file = open(os.devnull)

    def fileno(self):
        return self.file.fileno()


# A device may have no end.
def is_harmless(words):
    return not any(word.startswith(("/dev", "/proc", "/sys")) for word in words)


def check(case):
    case = case.ljust(1, b"\0")
    command = COMMANDS[case[0] % 3]
    # As the system gives them.
    words = [word.decode(errors="surrogateescape") for word in case[1:].split(b"\0")[1:]]
    if not is_harmless(words):
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    kept = sys.stdin, mqtt_traffic.PACKET_BYTES_MAX
    sys.stdin, mqtt_traffic.PACKET_BYTES_MAX = Input(), PACKET_BYTES_MAX
    try:
        options = read_options(command, words)
        if command == "shell":
            uri, arguments = client_arguments(options)
            mqttpipe.MQTTClient(uri, **arguments)
        elif command == "pub":
            mqtt_traffic.Publish(options)
        else:
            print_some(mqtt_traffic.Subscribe(options))
    except UsageError as error:
        assert str(error) and "\n" not in shown_name(str(error)), error
        str(error).encode(errors="backslashreplace")  # as it is printed
    except mqttpipe.LocalError:
        assert command == "shell"
    finally:
        sys.stdin, mqtt_traffic.PACKET_BYTES_MAX = kept
        for number, handler in handlers.items():
            signal.signal(number, handler)


def print_some(subscribe):
    for payload in PAYLOADS:
        for qos in range(3):
            subscribe.on_message(subscribe.client, message_of(payload, qos))
    subscribe.format.take_errors()


def message_of(payload, qos):
    message = mqttpipe.Message(b"\x00\x01a\x00\x07" + payload)
    message._start, message._end = 5, 5 + len(payload)
    message.topic_name = "a/\u00e4\x1b" if qos else "$SYS/x"
    message.properties = PROPERTIES if qos else {}
    message.qos = qos
    message.retain = qos == 1
    return message
