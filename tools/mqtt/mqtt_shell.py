"""`shell` of tools/mqtt.py: the commands of the board's REPL at a prompt of their own."""

import ast
import cmd
import re
import shlex
import sys

from mqtt_options import client_arguments

import mqttpipe_repl

# What else one types, and what is meant.
ALIASES = {"pub": "publish", "sub": "subscribe", "unsub": "unsubscribe", "exit": "quit"}


class Shell(cmd.Cmd):
    """The commands of micropython/mqttpipe_repl.py at a prompt of their own."""

    prompt = "mqtt> "
    intro = "help tells the commands; Ctrl-D ends. Messages appear while you type."

    def __init__(self, uri, arguments):
        super().__init__()
        sys.stdin.reconfigure(errors="surrogateescape")
        self._uri = uri
        self._arguments = arguments
        if not sys.stdin.isatty():
            self.use_rawinput = False
            self.prompt = self.intro = ""

    def onecmd(self, line):
        # As on a board: mqtt_publish is publish.
        line = line.strip()
        if line.startswith("mqtt_"):
            line = line[len("mqtt_") :]
        call = re.fullmatch(r"(\w+)(\(.*)", line)
        word, blank, rest = line.partition(" ")
        line = ALIASES.get(word, word) + blank + rest
        try:
            if call:
                return self._call(ALIASES.get(call[1], call[1]), call[2])
            return super().onecmd(line)
        except (ValueError, SyntaxError, TypeError) as error:  # a quote is not closed
            print("error: %s" % error)
        except (RecursionError, MemoryError):  # Python's parser, of brackets in brackets
            print("error: too many brackets in brackets")
        except KeyboardInterrupt:
            print("^C")

    # As on a board, and as the commands themselves say it: mqtt_publish("lamp", "on", qos=2).
    def _call(self, word, brackets):
        call = ast.parse("f" + brackets, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("one command at a time")
        values = [ast.literal_eval(one) for one in call.args]
        options = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
        if "mqtt_" + word not in mqttpipe_repl.__all__ or not (values or options):
            return super().onecmd(word)
        getattr(mqttpipe_repl, "mqtt_" + word)(*values, **options)

    def emptyline(self):
        pass  # cmd would repeat the last command

    def default(self, line):
        print("unknown: %s; help tells the commands" % line.split(" ")[0])

    def _words(self, line):
        """Return (words, qos, retain): -q N and -r may stand anywhere."""
        qos, retain, words = 1, False, []
        given = shlex.split(line)
        while given:
            word = given.pop(0)
            if word == "-q" and given and given[0].isdigit():
                qos = int(given.pop(0))
            elif word == "-r":
                retain = True
            else:
                words.append(word)
        return words, qos, retain

    def do_start(self, line):
        """start [URI]: connect, and stay connected; without a URI to the server of the options"""
        if line:
            mqttpipe_repl.mqtt_start(line)
        else:
            mqttpipe_repl.mqtt_start(self._uri, **self._arguments)

    def do_stop(self, line):
        """stop: send what is queued, and disconnect"""
        mqttpipe_repl.mqtt_stop()

    def do_publish(self, line):
        """publish [-q QOS] [-r] [TOPIC] MESSAGE: with -r the server keeps it"""
        words, qos, retain = self._words(line)
        words = words[:1] + [" ".join(words[1:])] if len(words) > 1 else words
        # The bytes that were typed, which need not be UTF-8.
        words[-1:] = [word.encode(errors="surrogateescape") for word in words[-1:]]
        mqttpipe_repl.mqtt_publish(*words, qos=qos, retain=retain)

    def do_subscribe(self, line):
        """subscribe [-q QOS] FILTER...: what comes is printed"""
        words, qos, _ = self._words(line)
        for topic_filter in words or [""]:
            mqttpipe_repl.mqtt_subscribe(topic_filter, qos)

    def do_unsubscribe(self, line):
        """unsubscribe FILTER...: take it back"""
        for topic_filter in shlex.split(line) or [""]:
            mqttpipe_repl.mqtt_unsubscribe(topic_filter)

    def do_status(self, line):
        """status: how the connection is, and what went over it"""
        mqttpipe_repl.mqtt_status()

    def do_test(self, line):
        """test start [MESSAGES PER SECOND] | stop | show: the stability test"""
        words = line.split()
        numbers = [int(word) for word in words[1:2] if word.isdigit()]
        mqttpipe_repl.mqtt_test(words[0] if words else "show", *numbers)

    def do_quit(self, line):
        """quit: stop, and end"""
        if mqttpipe_repl._client is not None:
            mqttpipe_repl.mqtt_stop()
        return True

    def do_EOF(self, line):
        """Ctrl-D: as quit"""
        if sys.stdin.isatty():
            print()
        return self.do_quit(line)


def run_shell(options):
    uri, arguments = client_arguments(options)
    shell = Shell(uri, arguments)
    mqttpipe_repl.mqtt_start(uri, **arguments)
    while True:
        try:
            shell.cmdloop()
            return 0
        except KeyboardInterrupt:  # at the prompt: the line is given up
            print("^C")
            shell.intro = ""
