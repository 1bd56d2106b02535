"""Let a client live for months, in minutes, and see that its heap is the same at the end.

    python3 tools/soak.py                             ten wraps of ticks_ms(): 124 days
    python3 tools/soak.py --wraps 2 --heap-kib 96
    python3 tools/soak.py --json soak.json --plot docs

The client, compiled as for a board, runs in the 32-bit MicroPython, whose words and ticks_ms() are
a board's, in a heap of --heap-kib. `time` is another module there (tools/soak/soak_clock.py): its
clock passes as ever while an answer may be under way, and is put forward while nothing can happen
before the client's next deadline. So the server is a real mosquitto, behind a proxy; it sees a
client that pings more often than it has to.

In each hour (tools/soak/soak_board.py): 60 pings; messages at QoS 0, 1 and 2, each sent back by
the server; filters that never were before, and are taken back; and by turns connections that are
cut, a server that falls silent, refuses, or is restarted, a DNS server that says nothing of use,
messages that wait, expire or are taken back while offline, and a night off. The wraps fall into
such faults. paho-mqtt subscribes to the same, as an independent observer.

Sampled each hour, when all is quiet and behind a gc.collect(): the free bytes of the heap, and its
largest free block. The exit status is 1, and the last line says why, when

- the median of either is lower in the last quarter than in the first by more than the tolerance,
  or lower between two wraps than before the first;
- a token never ends, a message is lost or comes out of order, or one at QoS 2 comes twice (unless
  the server was seen to send it twice), at the client or at the observer; a server that is
  silent is not noticed, or pings are missing;
- a step raises, or an error is reported, or a connection ends, that no fault explains.
"""

import argparse
import collections
import contextlib
import datetime
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading

import build
import get_micropython
import outputs
import setup_env

ROOT = setup_env.ROOT
PARTS = ROOT / "tools" / "soak"
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "broker")]

PERIOD_MS = 1 << 30
BLOCK_BYTES = 16  # of the 32-bit MicroPython's heap
HEAP_KIB = 96
WRAPS = 10

# How much lower a median may be: the collector takes whatever looks like an address for one, so
# now and then something stays that nobody needs. A leak of one block a day is 1,984 bytes in ten
# wraps.
FREE_TOLERANCE_BYTES = 512
LARGEST_TOLERANCE_BYTES = 1024
WARM_UP = 2  # samples that do not count: the lists and names of all that happens are made then

LINE_TIMEOUT_S = 90  # the board's own deadlines are shorter
OBSERVER_TIMEOUT_S = 30
QUERIES_MAX = 100_000

PERSISTENCE = "persistence true\npersistence_location {data}\nmax_inflight_messages 0\n"

Sample = collections.namedtuple("Sample", "minutes wraps free largest connections")


class SoakError(Exception):
    """What can't be had, in one line."""


# ---------------------------------------------------------------------------
# The other side
# ---------------------------------------------------------------------------


class Names:
    """A DNS server that knows one name, or says what it is told to say."""

    def __init__(self):
        import dns_server

        self.mode = "answer"
        self._answers = dns_server
        self._server = dns_server.NameServer([[self._make]] * QUERIES_MAX)
        self.port = self._server.port
        self.close = self._server.close

    def _make(self, query):
        if self.mode == "answer":
            if query[-3] == 1:
                record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01"
                return self._answers.answer(query, record, 1)
            return self._answers.answer(query)
        return getattr(self._answers, self.mode)(query)

    @property
    def query_count(self):
        return len(self._server.queries)


class World:
    """The broker, the proxy, the DNS server and the observer, and what they are asked for."""

    def __init__(self, stack, broker):
        import ends
        import traffic

        import proxy
        import servers

        broker = (broker or servers.choose("mosquitto")).another(PERSISTENCE)
        self.broker = stack.enter_context(broker)
        self.witness = traffic.Witness()  # of what is sent a second time, at QoS 2
        self.observers = traffic.Witness()  # the same on the observer's link
        self.proxy, observers_proxy = (
            stack.enter_context(proxy.Proxy(broker.host, broker.port, on_bytes=witness.on_bytes))
            for witness in (self.witness, self.observers)
        )
        self.names = stack.enter_context(contextlib.closing(Names()))
        self.seen = collections.defaultdict(collections.Counter)  # topic -> number -> times
        self.peer = ends.Peer(
            observers_proxy.uri, client_id="observer", on_message=self._on_message
        )
        stack.callback(self.peer.disconnect)
        self.peer.connect()
        self.peer.subscribe("soak/out/+")
        self.ways = proxy
        self.asked = collections.Counter()
        self._ended = 0

    def _on_message(self, message):
        self.seen[message.topic_name][int(message.payload.split(b" ")[0])] += 1

    @property
    def uri(self):
        return "mqtt://broker.soak.test:%d" % self.proxy.port

    def obey(self, word, *arguments):
        self.asked[word] += 1
        if word in ("stall", "refuse"):
            getattr(self.proxy, word)()
        elif word == "cut":
            how, *then = arguments
            if then:
                direction = self.ways.DOWN if then[0] else self.ways.UP
                self.proxy.plan([self.ways.Cut(direction, then[1], how)])
            self.proxy.cut(how)
        elif word == "dns":
            self.names.mode = arguments[0]
        elif word == "resume":
            self.names.mode = "answer"
            self.proxy.resume()
        elif word == "publish":
            numbers = range(arguments[0], arguments[1] + 1)
            self.peer.publish_all(
                [
                    ("soak/in/%d" % qos, b"%d there" % number, qos)
                    for number in numbers
                    for qos in (1, 2)
                ]
            )
        elif word == "restart":
            self.peer.disconnect()
            self.broker.restart()
            self.peer.connect()
        else:
            raise AssertionError(word)

    def has_ended_it(self):
        """Has the proxy or the broker ended a connection since this was asked last?"""
        before = self._ended
        self._ended = self.proxy.cuts + self.asked["restart"]
        return self._ended > before

    def ask_witnesses(self, out, again):
        """Wait until the observer has all of QoS 1 and 2. Returns what is wrong, a list.

        Args: out: the last number of each QoS. again: what came to us once more at QoS 2.
        """
        wrongs = []
        for qos in (1, 2):
            seen = self.seen["soak/out/%d" % qos]
            with contextlib.suppress(AssertionError):
                self.peer.wait_until(
                    lambda seen=seen, qos=qos: len(seen) >= out[qos], "", OBSERVER_TIMEOUT_S
                )
            if len(seen) != out[qos]:
                text = "the observer has %d of %d messages at QoS %d"
                wrongs.append(text % (len(seen), out[qos], qos))
            if list(seen) != sorted(seen):
                wrongs.append("out of order at the observer, QoS %d" % qos)
        # At the end: a witness hears of a packet when it has been passed on.
        observer_again = {number: times - 1 for number, times in seen.items()}
        for who, witness, found in (
            ("the client", self.witness, again),
            ("the observer", self.observers, observer_again),
        ):
            sent_twice = witness.repeated[self.ways.DOWN]
            twice = [number for number, times in found.items() if times > sent_twice[number]]
            if twice:
                wrongs.append("%s has twice, at QoS 2: %r" % (who, twice))
        if self.witness.repeated[self.ways.UP]:
            wrongs.append("published behind PUBREL: %r" % self.witness.repeated[self.ways.UP])
        return wrongs


# ---------------------------------------------------------------------------
# A run
# ---------------------------------------------------------------------------


class Result:
    def __init__(self):
        self.samples = []
        self.wraps = []  # what went on at each
        self.errors = collections.Counter()  # of on_offline, by class and stage
        self.again = collections.Counter()  # message at QoS 2 -> how often it came once more
        self.wrongs = []  # why it has failed
        self.counts = {}
        self.asked = {}
        self.version = ""


def prepare(folder):
    """Compile what the board has, into a folder."""
    mpy = build.compile_mpy(build.read_source())
    (folder / "mqttpipe.mpy").write_bytes(mpy)
    for source, name in (("soak_clock.py", "time"), ("soak_board.py", "soak_board")):
        text = (PARTS / source).read_text(encoding="utf-8")
        (folder / (name + ".mpy")).write_bytes(build.cross_compile(name, text))


def run(
    rounds=0, wraps=WRAPS, first_ms=0, heap_kib=HEAP_KIB, leak_bytes=0, broker=None, tell=None
):
    """Run it, and return a Result.

    Args:
        rounds, wraps: as many of both at least. first_ms: what ticks_ms() is at the begin.
        leak_bytes: that the program on the board loses in each round: it must fail then.
        broker: of tests/servers.py, to have another one of. tell: called with each Sample.
    """
    command = get_micropython.ensure(32)
    if not command:
        raise SoakError("no 32-bit MicroPython")
    result = Result()
    result.version = get_micropython.version(command)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mqttpipe-soak-"))
        prepare(pathlib.Path(folder))
        world = World(stack, broker)
        arguments = world.uri, world.names.port, rounds, wraps, first_ms, leak_bytes
        process = subprocess.Popen(
            [
                *command,
                *("-X", "heapsize=%dk" % heap_kib),
                *("-c", "import soak_board; soak_board.main%r" % (arguments,)),
            ],
            env={"PATH": "/usr/bin:/bin", "MICROPYPATH": folder + ":.frozen"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            _listen(process, world, result, tell)
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        if result.counts:
            result.wrongs += world.ask_witnesses(result.counts["out"], result.again)
            for name, witness in (("us", world.witness), ("the observer", world.observers)):
                count = sum(witness.repeated[world.ways.DOWN].values())
                result.counts["QoS 2 sent twice to %s by the server" % name] = count
            result.counts["dns_queries"] = world.names.query_count
        result.asked = dict(world.asked)
    if result.samples or not result.wrongs:  # else that it ended says it all
        result.wrongs += judge(result.samples)
    return result


def _listen(process, world, result, tell):
    last = []  # lines that are no events: a traceback

    def give_up():
        last.append("silent for %d s" % LINE_TIMEOUT_S)
        process.kill()

    sample = None
    while True:
        timer = threading.Timer(LINE_TIMEOUT_S, give_up)
        timer.daemon = True  # else it would outlive Ctrl-C
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if not line:
            break
        found = re.search(r"max free sz: (\d+)", line)
        if found:
            sample = Sample(*sample[:3], int(found.group(1)) * BLOCK_BYTES, sample[3])
            result.samples.append(sample)
            if tell:
                tell(sample)
            continue
        try:
            name, *values = json.loads(line)
        except ValueError:
            last = [*last[-9:], line.strip()]
            continue
        if name == "ask":
            world.obey(*values)
            process.stdin.write("done\n")
            process.stdin.flush()
        elif name == "sample":
            sample = values
        elif name == "wrap":
            result.wraps.append(values[1])
        elif name == "error":
            text, doing = values
            result.errors[":".join(text.split(":")[:2])] += 1
            wrong = "no fault explains %s" % text
            if not world.has_ended_it() and doing is None and wrong not in result.wrongs:
                result.wrongs.append(wrong)
        elif name == "again":
            topic, number = values
            if topic.endswith("/2"):
                result.again[number] += 1
        elif name == "failed":
            result.wrongs.append(values[0])
        elif name == "end":
            result.counts = values[0]
    if not result.counts and not result.wrongs:
        result.wrongs.append("MicroPython ended (%s): %s" % (process.wait(10), " / ".join(last)))


# ---------------------------------------------------------------------------
# The verdict
# ---------------------------------------------------------------------------


def judge(samples):
    """Return what is wrong with these Samples, a list of str: does either figure go down?"""
    wrongs = []
    samples = samples[WARM_UP:]
    quarter = len(samples) // 4
    if not quarter:
        return ["%d samples are too few" % len(samples)]
    by_wrap = collections.defaultdict(list)
    for sample in samples:
        by_wrap[sample.wraps].append(sample)
    # Some samples behind the last wrap are no quarter of anything.
    parts = [("after wrap %d" % n, part) for n, part in by_wrap.items() if n and len(part) > 9]
    parts.append(("in the last quarter", samples[-quarter:]))
    base = by_wrap.get(0, []) if len(by_wrap) > 2 else []
    for name, tolerance in (("free", FREE_TOLERANCE_BYTES), ("largest", LARGEST_TOLERANCE_BYTES)):
        for title, part in parts:
            first = samples[:quarter] if part is parts[-1][1] or not base else base
            before, after = (
                statistics.median(getattr(sample, name) for sample in some)
                for some in (first, part)
            )
            if after < before - tolerance:
                wrongs.append("%s: %d bytes %s, %d before" % (name, after, title, before))
    return wrongs


def describe(result):
    """Return lines that say what came out."""
    samples = result.samples[WARM_UP:]
    counts = result.counts
    lines = [
        "%s, %d samples in %.1f simulated days, %d wraps of ticks_ms()"
        % (
            result.version,
            len(result.samples),
            result.samples[-1].minutes / 1440 if samples else 0,
            len(result.wraps),
        )
    ]
    quarter = max(1, len(samples) // 4)
    for name in ("free", "largest") if samples else ():
        values = [getattr(sample, name) for sample in samples]
        lines.append(
            "%s: first quarter %d, last quarter %d, least %d, most %d bytes"
            % (
                name,
                statistics.median(values[:quarter]),
                statistics.median(values[-quarter:]),
                min(values),
                max(values),
            )
        )
    for name in sorted(counts):
        lines.append("%s: %s" % (name, counts[name]))
    lines.append("faults: " + ", ".join("%s %d" % pair for pair in sorted(result.asked.items())))
    lines.append(
        "ends of connections: " + ", ".join("%s %d" % pair for pair in result.errors.most_common())
    )
    lines.append("at the wraps: " + ", ".join(str(what) for what in result.wraps))
    return lines


def write_plot(path, samples, heap_kib):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mqttpipe"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 3.2), layout="constrained")
    days = [sample.minutes / 1440 for sample in samples]
    for name, label in (("free", "free"), ("largest", "largest free block")):
        values = [getattr(sample, name) / 1024 for sample in samples]
        axis.plot(days, values, linewidth=0.8, label=label)
    for wrap in range(1, samples[-1].wraps + 1):
        at = next(s.minutes for s in samples if s.wraps >= wrap) / 1440
        axis.axvline(
            at,
            color="0.8",
            linewidth=0.6,
            zorder=0,
            label="ticks_ms() wraps" if wrap == 1 else None,
        )
    axis.set_ylim(bottom=0)
    axis.set_xlabel("simulated days")
    axis.set_ylabel("KiB of a heap of %d" % heap_kib)
    axis.legend(fontsize="small", loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--wraps",
        type=outputs.positive_int,
        default=WRAPS,
        metavar="N",
        help="of ticks_ms() (default: %(default)s)",
    )
    parser.add_argument(
        "--heap-kib",
        type=outputs.positive_int,
        default=HEAP_KIB,
        metavar="KIB",
        help="default: %(default)s",
    )
    parser.add_argument("--json", type=outputs.new_file, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--plot", type=outputs.new_folder, metavar="DIR", help="write soak.svg there"
    )
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    setup_env.reexec_in_venv("requirements-bench.txt")

    def tell(sample):
        if len(told) % 24 == 0:
            print(
                "day %5.1f: %6d bytes free, largest block %6d, %d connections"
                % (sample.minutes / 1440, sample.free, sample.largest, sample.connections),
                flush=True,
            )
        told.append(sample)

    told = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is ended
    try:
        result = run(wraps=options.wraps, heap_kib=options.heap_kib, tell=tell)
    except (SoakError, setup_env.SetupError, build.BuildError) as error:
        print("soak: failed: %s" % error)
        return 1
    print("\n".join(describe(result)))
    if options.json:
        report = {"date": datetime.date.today().isoformat(), **vars(result)}
        report["samples"] = [sample._asdict() for sample in result.samples]
        text = json.dumps(report, indent=1) + "\n"
        result.wrongs += outputs.attempt(outputs.write, options.json, text)
    if options.plot and result.samples:
        result.wrongs += outputs.attempt(
            write_plot, options.plot / "soak.svg", result.samples, options.heap_kib
        )
    if result.wrongs:
        print("soak: failed: " + "; ".join(result.wrongs))
        return 1
    print("soak: ok")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
