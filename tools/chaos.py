"""Put a client through every fault that a network has, and count what it loses.

    python3 tools/chaos.py                              a minute for each interpreter
    python3 tools/chaos.py --minutes 20 --on micropython32 --on lwip
    python3 tools/chaos.py --seed 7 --on cpython --json chaos.json
    python3 tools/chaos.py --short                      each fault once, some seconds each place
    python3 tools/chaos.py --protocol 5                 all clients speak MQTT 5.0
    python3 tools/chaos.py --seed 7 --list              the faults; nothing runs
    python3 tools/chaos.py --peer umqtt.robust=PATH --peer mqtt_as=PATH --peer chumicro-mqtt=PATH

Two clients, one with a persistent session and one without, publish and receive at every QoS.
Before mosquitto stands a proxy for each, which cuts, delays, throttles, splits, half closes,
swallows and resets; mosquitto is frozen, restarted, and killed with all it knew; DNS fails and the
Wi-Fi goes down; in the last quarter of the time, over TLS, the certificate is a bad one until it
is renewed. paho-mqtt watches from behind the broker. What is looked at: QoS 1 loses nothing; QoS 2
comes exactly once with a persistent session; the order; no callback after UNSUBACK; every token
ends; no error of Python's own ends a connection, and none is reported; no step waits; neither heap
nor open files grow. A loss or a repetition that is the broker's own is counted apart: what it was
seen to acknowledge before it was killed, and what it was seen to send again after PUBREL.

A seed and a number of minutes always give the same faults in the same order, of the same length
and with the same details, byte positions of cuts included. On which message a fault falls depends
on the machine. The last line is `chaos: ok` (status 0) or `chaos: N things are wrong` (status 1).

--peer compares instead: the same faults, less those that only our client can be told of, for one
client with a persistent session, ours and each that is given. PATH is the folder that it is
imported from: what `mip` or `pip --target` has installed.

Set up, once: `.venv` with tools/requirements-chaos.txt (tools/setup_env.py), mosquitto,
MicroPython (tools/get_micropython.py), the emulated board (tools/get_lwip_board.py).
"""

import argparse
import contextlib
import json
import pathlib
import platform
import random
import re
import signal
import sys
import tempfile
import types

import get_micropython
import outputs
import setup_env

ROOT = setup_env.ROOT
sys.path += [
    str(ROOT / "tools" / "chaos"),
    str(ROOT / "tests"),
    str(ROOT / "tests" / "broker"),
]

import chaos_report  # noqa: E402

CPYTHON, BOARD = "cpython", "lwip"
PLACES = (CPYTHON, "micropython", "micropython32", BOARD)
TLS_SHARE = 0.25  # of the time
EVERY_MS = {CPYTHON: 15, "micropython": 15, "micropython32": 20, BOARD: 60}

# name -> (the interpreter it runs in, the highest QoS that it can do)
PEERS = {
    "umqtt.robust": ("micropython", 1),
    "mqtt_as": ("micropython", 1),
    "chumicro-mqtt": (CPYTHON, 1),
}
STAND_INS = ROOT / "tools" / "bench" / "stand_ins"  # what mqtt_as imports and a PC lacks


class Unavailable(Exception):
    """What has to run it is not here; get_...py has said why."""


def find_interpreter(place):
    """Return what a Process needs: (.name, .command, .version), heap."""
    import chaos_ends

    if place == CPYTHON:
        version = "CPython " + platform.python_version()
        return types.SimpleNamespace(name="CPython", command=[sys.executable], version=version), ""
    name, bits, heap = chaos_ends.MICROPYTHONS[place]
    command = get_micropython.ensure(bits)
    if command is None:
        raise Unavailable(name)
    version = get_micropython.version(command)
    return types.SimpleNamespace(name=name, command=command, version=version), heap


class Place:
    """Where our client runs: start() starts it, as Run wants it. A context manager.

    Attributes: title; options for Run.
    """

    def __init__(self, name, protocol=4):
        self.name = name
        self.protocol = protocol
        self.options = {"every_ms": EVERY_MS[name], "protocol": protocol}
        self._stack = contextlib.ExitStack()
        self._folder = self._board = None

    def __enter__(self):
        import chaos_ends
        import chaos_run

        self._folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        if self.name == BOARD:
            import get_lwip_board

            if not get_lwip_board.ensure():
                raise Unavailable("the emulated board")
            self.title = "emulated board, " + get_lwip_board.describe()
            import emulated_board

            self.options.update(host=emulated_board.HOST, options=chaos_run.BOARD_OPTIONS)
            return self
        self._interpreter, self._heap = find_interpreter(self.name)
        self.title = "%s, %s" % (self._interpreter.name, self._interpreter.version)
        if self.protocol == 5:
            self._heap = chaos_ends.MORE_HEAP_5.get(self._heap, self._heap)
        if self._heap:
            self.title += ", a heap of %s, the client compiled" % self._heap
            self._script = chaos_ends.write_client(self._folder, self.protocol)
        else:
            self._script = chaos_ends.PARTS / "chaos_client.py"
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def start(self, config, on_event):
        import chaos_ends

        if self.name == BOARD:
            return chaos_ends.OnBoard(self._board, config, on_event)
        folder = self._folder if self._heap else None
        return chaos_ends.Process(
            self._interpreter, self._script, config, folder, self._heap, on_event
        )

    @contextlib.contextmanager
    def switched_on(self):
        """The board is on meanwhile; a process is started by start() alone."""
        import chaos_ends

        if self.name != BOARD:
            yield None
            return
        with chaos_ends.board_with_client(self._folder, self.protocol) as self._board:
            yield self._board


def draw(options, leg, made, board, is_compared=False):
    """Return the faults of a leg."""
    import chaos_run
    import chaos_schedule

    kinds = chaos_run.kinds_of(made, board, is_compared)
    share = 1 if is_compared else TLS_SHARE if made else 1 - TLS_SHARE
    seconds = 60 * options.minutes * share
    if options.short:
        seconds = None
        kinds = chaos_schedule.SHORT_TLS if made else kinds
    pause_s = chaos_schedule.SLOW_PAUSE_S if made and board else chaos_schedule.PAUSE_S
    return chaos_schedule.draw("%d %s" % (options.seed, leg), seconds, kinds, pause_s)


def run_leg(options, place, leg, made, say, **more):
    """Run one leg at a Place and return its figures."""
    import chaos_run

    if options.short:
        more["settle_timeout_s"] = chaos_run.SHORT_SETTLE_TIMEOUTS_S[place.name == BOARD]
    with place.switched_on() as board:
        faults = draw(options, leg, made, board)
        with contextlib.closing(
            chaos_run.Run(
                place.start, faults, say, made=made, board=board, **place.options, **more
            )
        ) as run:
            return {"leg": leg, **run.run()}


def run_place(options, place, say, folder):
    """Run both legs at a place; return its figures."""
    import certificates

    legs = [run_leg(options, place, "TCP", None, say)]
    made = certificates.make(folder)
    more = {}
    if place.name in (BOARD, "micropython32"):
        more["sessions"] = ("persistent",)  # two clients with TLS are too much for the heap
    legs.append(run_leg(options, place, "TLS", made, say, **more))
    return {"on": place.name, "title": place.title, "legs": legs}


# ---------------------------------------------------------------------------
# Beside other clients
# ---------------------------------------------------------------------------


def compare(options, say):
    """Run ours and each peer through the same faults; return their figures."""
    import chaos_ends
    import chaos_run

    figures = []
    clients = []
    for place in dict.fromkeys(PEERS[name][0] for name, _ in options.peer):
        clients.append(("mqttpipe", place, 2, []))
    clients += [(name, *PEERS[name], [path, str(STAND_INS)]) for name, path in options.peer]
    faults = draw(options, "TCP", None, None, is_compared=True)
    for name, place, qos_max, paths in clients:
        interpreter, _ = find_interpreter(place)

        def start(config, on_event, name=name, interpreter=interpreter, paths=paths):
            script = chaos_ends.PARTS / ("chaos_peers.py" if paths else "chaos_client.py")
            config = {**config, "client": name, "paths": paths}
            return chaos_ends.Process(interpreter, script, config, None, "", on_event)

        def say_of(text, name=name):
            say("%s: %s" % (name, text))

        with contextlib.closing(
            chaos_run.Run(
                start,
                faults,
                say_of,
                sessions=("persistent",),
                every_ms=EVERY_MS[place],
                qos_max=qos_max,
                is_checked=not paths,
            )
        ) as run:
            result = run.run()
        about = {"client": name, "interpreter": interpreter.name, "qos_max": qos_max}
        figures.append({**about, "is_ours": not paths, **result})
    return figures


# ---------------------------------------------------------------------------
# What is said of it
# ---------------------------------------------------------------------------


def table(columns, rows, title):
    from rich import box
    from rich.table import Table

    shown = Table(title=title, box=box.SIMPLE, title_justify="left")
    for name in columns:
        is_text = name in ("session", "way", "client", "interpreter")
        shown.add_column(name, justify="left" if is_text else "right")
    for row in rows:
        shown.add_row(*row)
    return shown


def print_place(console, place):
    for leg in place["legs"]:
        title = "%s, %s" % (place["title"], leg["leg"])
        console.print(table(chaos_report.BOOK_COLUMNS, chaos_report.book_rows(leg), title))
        for line in chaos_report.summary(leg):
            console.print(line, markup=False, highlight=False)


def client_version():
    text = (ROOT / "micropython" / "mqttpipe.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.*)"', text, re.M).group(1)


# ---------------------------------------------------------------------------
# Start and end
# ---------------------------------------------------------------------------


def peer(text):
    name, equals, path = text.partition("=")
    if name not in PEERS or not equals:
        raise argparse.ArgumentTypeError(
            "%r: NAME=PATH, NAME one of %s" % (text, ", ".join(PEERS))
        )
    if not pathlib.Path(path).is_dir():
        raise argparse.ArgumentTypeError("%s is no folder" % path)
    return name, str(pathlib.Path(path).absolute())


def minutes(text):
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 24 * 60:
            return float(text)
    raise argparse.ArgumentTypeError("%r: must be a number above 0, at most a day" % text)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="of the faults (default: a new one, told)")
    parser.add_argument(
        "--minutes", type=minutes, default=1.0, help="for each place (default: %(default)s)"
    )
    parser.add_argument(
        "--on",
        action="append",
        choices=PLACES,
        help="where our client runs; may be given again (default: all but lwip)",
    )
    parser.add_argument(
        "--peer", action="append", type=peer, default=[], metavar="NAME=PATH", help="see above"
    )
    parser.add_argument(
        "--protocol", type=int, choices=(4, 5), default=4, help="of MQTT (default: %(default)s)"
    )
    parser.add_argument("--short", action="store_true", help="each fault once, for a moment")
    parser.add_argument("--list", action="store_true", help="print the faults, run nothing")
    parser.add_argument(
        "--json", type=outputs.new_file, metavar="FILE", help="write all figures there"
    )
    parser.add_argument(
        "--markdown", type=outputs.new_file, metavar="FILE", help="write tables for a page there"
    )
    options = parser.parse_args()
    if options.peer and options.protocol == 5:
        parser.error("--peer: these speak MQTT 3.1.1 only")
    if options.seed is None:
        options.seed = random.randrange(1 << 30)
    return options


def print_schedules(options):
    """The board has other faults than the interpreters, and so have clients that are compared."""
    places = options.on or PLACES[:-1]
    for is_board in sorted({name == BOARD for name in places}):
        for leg, made in (("TCP", None), ("TLS", True)):
            if options.peer and (made or is_board):
                continue
            print("%s%s:" % ("emulated board, " if is_board else "", leg))
            for fault in draw(options, leg, made, is_board, bool(options.peer)):
                print("  %r" % fault)


def run_all(options):
    from rich.console import Console

    console = Console(soft_wrap=not sys.stdout.isatty())
    if not sys.stdout.isatty():
        console.width = 140

    def say(text):
        if console.is_terminal:
            console.print(text, markup=False, highlight=False)

    print("seed: %d" % options.seed, flush=True)
    result = {
        "seed": options.seed,
        "minutes": None if options.short else options.minutes,
        "protocol": options.protocol,
        "mqttpipe": client_version(),
        "places": [],
    }
    wrongs = []
    if options.peer:
        result["compared"] = compare(options, say)
        rows = chaos_report.peer_rows(result["compared"])
        console.print(table(chaos_report.PEER_COLUMNS, rows, "beside other clients"))
        for each in result["compared"]:
            if each["is_ours"]:
                wrongs += each["wrong"]
            else:  # how a peer fares is a figure
                for text in each["wrong"]:
                    print("%s: %s" % (each["client"], text))
    else:
        with contextlib.ExitStack() as stack:
            names = options.on or PLACES[:-1]  # all must be there, before the first takes its time
            places = [stack.enter_context(Place(name, options.protocol)) for name in names]
            for each in places:
                with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
                    place = run_place(options, each, say, folder)
                result["places"].append(place)
                print_place(console, place)
                for leg in place["legs"]:
                    at = "%s, %s: " % (each.name, leg["leg"])
                    wrongs += [at + text for text in leg["wrong"]]
    if options.json:
        text = json.dumps(result, indent=1) + "\n"
        wrongs += outputs.attempt(outputs.write, options.json, text)
    if options.markdown:
        text = chaos_report.markdown(result)
        wrongs += outputs.attempt(outputs.write, options.markdown, text)
    for wrong in wrongs:
        print("WRONG  " + wrong)
    if wrongs:
        length = "--short" if options.short else "--minutes %g" % options.minutes
        again = "--seed %d --protocol %d %s" % (options.seed, options.protocol, length)
        again += "".join(" --on " + name for name in options.on or ())
        again += "".join(" --peer %s=%s" % pair for pair in options.peer)
        print("chaos: %d things are wrong; the same faults again: %s" % (len(wrongs), again))
        return 1
    print("chaos: ok")
    return 0


def main():
    options = parse_arguments()
    setup_env.reexec_in_venv("requirements-chaos.txt")
    if options.list:
        print_schedules(options)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is ended
    try:
        return run_all(options)
    except Unavailable as error:
        print("chaos: failed: no %s" % error)
        return 1
    except OSError as error:
        print("chaos: failed: %s" % error)
        return 1
    except KeyboardInterrupt:
        print("\nchaos: stopped; everything is ended")
        return 130


if __name__ == "__main__":
    sys.exit(main())
