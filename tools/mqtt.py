"""The client as a command: publish, subscribe, or talk to a server by hand.

    python3 tools/mqtt.py pub -h broker.example -t lamp/hall -m on
    producer | python3 tools/mqtt.py pub -t lines -l -q 1
    python3 tools/mqtt.py sub -h broker.example -t 'lamp/#' -v
    python3 tools/mqtt.py sub -t lamp/hall -C 1 -W 10
    python3 tools/mqtt.py pub -V 5 -t lamp/hall -m on -D publish message-expiry-interval 60
    python3 tools/mqtt.py shell -h broker.example
    python3 tools/mqtt.py pub --help

The options of `pub` and `sub` are those of mosquitto_pub and mosquitto_sub, with MQTT 5.0 (-V 5)
the properties (-D), too, and so are the exit status and what is printed. These are not there: -A,
-S, --unix, --proxy, --random-filter, MQTT 3.1 (-V 31), of -D what the client gives by itself
(topic-alias) or not as a command (authentication-method and -data), and of TLS --capath,
--ciphers, --keyform, --psk, --psk-identity, --tls-alpn, --tls-engine and --tls-version. A message
has at most 16 MiB, -x without -V 5 is an error, and the topic of a URL may be left out. And what
others publish can not control your terminal. `sub` escapes control characters, and those that end
a line or turn the direction of writing, where its output is a terminal; --raw has them printed as
they are, which mosquitto_sub always does. To a file or a pipe every byte goes as it came.

    0         done; also after Ctrl-C in `sub`
    1         wrong options, the server can't be reached, or a message could not be sent or was
              refused (with mosquitto_pub the latter is 0)
    1 to 5    the server refused the connection: its return code (MQTT 3.1.1, section 3.2.2.3);
              with -V 5 it is its reason code, 128 or more
    7         the connection was lost, and no message went through for 30 s after that (`pub` only:
              `sub` goes on trying)
    8         TLS: the server's certificate is not good, or it speaks no TLS
    27        the time of -W is over, or the server does not answer

Secrets. What stands on a command line everybody on the machine can read. So the password may also
come from a file, `-o FILE`, one option a line (`--pw secret`; blanks around a value do not count),
or from the environment: MQTT_URL, MQTT_USERNAME, MQTT_PASSWORD. The command line goes before the
file, and that before the environment. A URL stands for the options that it holds: one that stands
beside it goes before it, and below another host it counts for nothing. User and password of a URL
may have any "/" in them, and reach to the last "@"; no message shows them.

It is the client of micropython/mqttpipe.py on CPython, and needs nothing but the standard library.
"""

import pathlib
import sys

import commands

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMAND = commands.name_of("mqtt.py")
sys.path[:0] = [str(ROOT / "cpython_shim"), str(ROOT / "micropython")]
sys.path.append(str(ROOT / "tools" / "mqtt"))

from mqtt_format import FORMAT_HELP  # noqa: E402
from mqtt_options import FLAG, OPTIONS, read_options  # noqa: E402
from mqtt_shell import run_shell  # noqa: E402
from mqtt_streams import Ended, UsageError, open_streams  # noqa: E402
from mqtt_traffic import Publish, Subscribe  # noqa: E402


def print_help(command):
    print("Usage: %s %s [option ...]\n" % (COMMAND, command))
    for short, long, takers, kind, text in OPTIONS:
        if command in takers:
            names = "%s, %s" % (short, long) if short else "    " + long
            print("  %-34s %s" % (names + ("" if kind == FLAG else " " + kind), text))
    if command == "sub":
        print(FORMAT_HELP, end="")
    print("\n" + commands.said(__doc__).split("\n\n", 3)[3].rstrip())


def main(words):
    if not words or words[0] in ("--help", "help"):
        print(commands.said(__doc__))
        return 0 if words else 1
    command, words = words[0], words[1:]
    if command not in ("pub", "sub", "shell"):
        print("Error: the command is pub, sub or shell, not '%s'." % command, file=sys.stderr)
        return 1
    options = {}
    try:
        options = read_options(command, words)
        if "help" in options:
            print_help(command)
            return 0
        if command == "shell":
            return run_shell(options)
        made = Publish(options) if command == "pub" else Subscribe(options)
    except UsageError as error:
        text = "Error: %s\n\nUse '%s %s --help' to see usage."
        print(text % (error, COMMAND, command), file=sys.stderr)
        return 1
    except Ended as ended:  # the time of -W was over while the message was read
        if "quiet" in options:
            return ended.status
        raise
    return made.run()


def run(words):
    """Do what the words ask for, and tell how it ended; return the exit status."""
    try:
        status = main(words)
        sys.stdout.flush()
        return status
    except Ended as ended:
        if ended.args[0]:
            print(ended.args[0], file=sys.stderr)
        return ended.status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    open_streams()
    sys.exit(run(sys.argv[1:]))
