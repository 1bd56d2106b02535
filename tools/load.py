"""Two thousand clients in one process, all cut at once: the storm in which they come back.

    python3 tools/load.py                           2,000 clients, with their jitter, and without
    python3 tools/load.py --clients 500 --down-s 10
    python3 tools/load.py --json load.json --plot docs

One CPython process (tools/load/load_worker.py) has all the clients in one loop around one epoll;
the server is a real mosquitto with persistence. All connect; each publishes --messages at QoS 1 to
its neighbour; all are idle for some seconds. Then mosquitto is stopped, which cuts all at once,
and is started again after --down-s, while each client goes on publishing every two seconds. It
runs twice. The second time the client's random pauses are neutralised, by a constant in the place
of what urandom() draws: half of the longest, so that the pauses are the same on the average.

The storm's rate is how many attempts to connect are due in each 100 ms: an attempt is due when all
pauses of the client before it are over. So it is that of two thousand devices with a processor
each; the one here is late, and would smooth it. Beside it: how many CONNACKs came. Every message
at QoS 1 that publish() took must arrive: the exit status is 1, and the last line says why, if one
does not, if not all come back, or if of 50 clients or more half as many are due at once with
jitter as without, or more.

mosquitto is stopped and not killed: it writes what it has to keep as it ends, and after a SIGKILL
it would have lost what it had acknowledged.

The limit of open files (`ulimit -n`) is raised to what is needed, a file and a little for each
client, as far as the hard limit (`ulimit -Hn`) allows; mosquitto gets the same.
"""

import argparse
import collections
import contextlib
import datetime
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time

import outputs
import setup_env

ROOT = setup_env.ROOT
WORKER = ROOT / "tools" / "load" / "load_worker.py"
sys.path += [str(ROOT / "tests")]

CLIENTS = 2000
MESSAGES = 10
DOWN_S = 5.0
BIN_S = 0.1  # of the storm's rate
SPARE_FILES = 100
JUDGED_CLIENTS = 50  # of fewer many may knock at once by chance

PERSISTENCE = "persistence true\npersistence_location {data}\n"
DEADLINE_S = 60  # of a run: the client's longest pause; and
DEADLINE_PER_CLIENT_S = 0.1
HANGS_S = 60  # behind that the clients are ended: they could not do it themselves
DRAIN_S = 20  # a message may come so late, when all else is done
IDLE_S = 3

KINDS = {"jitter": "with jitter, as it is", "no jitter": "without jitter"}


class LoadError(Exception):
    """What can't be done, in one line."""


def allow_files(count):
    """Raise this process's limit of open files, which its children inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise LoadError(
            "%d open files are needed, the hard limit is %d: raise it (ulimit -Hn, "
            "/etc/security/limits.conf), or take fewer --clients" % (count, hard)
        )
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def run(
    clients,
    messages,
    down_s,
    jitter=True,
    idle_s=IDLE_S,
    drain_s=DRAIN_S,
    broker=None,
    settings=PERSISTENCE,
):
    """Run it once; returns name of a phase -> figures, and "bye" -> figures.

    Args:
        clients, messages, down_s: as on the command line. jitter: that of the client, or none.
        idle_s: for how long to look at idle clients. drain_s: for how long a message may lack.
        broker: of tests/servers.py, to have another one of. settings: lines for it.
    """
    import servers

    allow_files(clients + SPARE_FILES)
    deadline_s = DEADLINE_S + DEADLINE_PER_CLIENT_S * clients
    phases = {}
    with (broker or servers.choose("mosquitto")).another(settings) as server:
        options = {
            "uri": server.uri,
            "clients": clients,
            "messages": messages,
            "jitter": jitter,
            "deadline_s": deadline_s,
            "drain_s": drain_s,
            "idle_s": idle_s,
        }
        path = os.pathsep.join([str(ROOT / "micropython"), str(ROOT / "cpython_shim")])
        process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(options)],
            env=dict(os.environ, PYTHONPATH=path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        timer = threading.Timer(2 * deadline_s + HANGS_S, process.kill)
        timer.start()
        last = collections.deque(maxlen=5)
        try:
            for line in process.stdout:
                last.append(line.strip())
                try:
                    name, *values = json.loads(line)
                except ValueError:
                    continue
                if name == "cut":
                    server.stop()
                    time.sleep(down_s)
                    server.start()
                    with contextlib.suppress(BrokenPipeError):  # it has ended, and said why
                        process.stdin.write("%r\n" % time.monotonic())
                        process.stdin.flush()
                elif name == "phase":
                    phases[values[0]] = values[1]
                else:
                    phases[name] = values[0]
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
    if "bye" not in phases:
        raise LoadError("the clients ended: " + " / ".join(last))
    return phases


# ---------------------------------------------------------------------------
# What came out
# ---------------------------------------------------------------------------


def rates(moments):
    """Return how many of these moments (seconds) fall into each 100 ms, a list from 0 on."""
    bins = collections.Counter(int(max(0, moment) / BIN_S) for moment in moments)
    return [bins[at] for at in range(max(bins, default=-1) + 1)]


def due_rates(phases):
    return rates([due for due, _ in phases["storm"]["attempts"]])


def judge(phases):
    """Return what is wrong, a list of str."""
    bye = phases["bye"]
    wrongs = []
    if bye["lost"]:
        wrongs.append("%d of %d messages are lost" % (bye["lost"], bye["accepted"]))
    return wrongs


def judge_jitter(runs, clients):
    """The same of both runs together: does the client's jitter spread the storm?"""
    with_it, without = (max(due_rates(runs[name])) for name in ("jitter", "no jitter"))
    if clients >= JUDGED_CLIENTS and 2 * with_it > without:
        return ["its jitter spreads nothing: %d due in 100 ms, %d without" % (with_it, without)]
    return []


def figures_of(phases, clients):
    """Return (what, value) pairs for people."""
    connecting, messages = phases["connecting"], phases["messages"]
    idle, storm, bye = phases["idle"], phases["storm"], phases["bye"]
    due = due_rates(phases)
    count = messages["count"]
    milliseconds = 1000 * connecting["processor_s"] / clients
    idle_percent = 100 * idle["processor_s"] / idle["seconds"]
    return [
        ("all online after, s", "%.2f" % connecting["seconds"]),
        ("processor for a client and its connection, ms", "%.2f" % milliseconds),
        ("memory for a client, KB", "%.1f" % (connecting["kb"] / clients)),
        ("open files", connecting["files"]),
        ("messages/s, QoS 1, published and received", "%.0f" % (count / messages["seconds"])),
        ("processor for one of them, us", "%.0f" % (1e6 * messages["processor_s"] / count)),
        ("processor while all are idle, %", "%.2f" % idle_percent),
        ("server back after, s", "%.2f" % storm["back_s"]),
        ("all online again after, s", "%.2f" % storm["online_s"]),
        ("attempts to connect", len(storm["attempts"])),
        ("most due in 100 ms", max(due)),
        ("most CONNACKs in 100 ms", max(rates(storm["accepted"]))),
        ("messages accepted", bye["accepted"]),
        ("refused meanwhile (QueueFull)", bye["refused"]),
        ("received again", bye["again"]),
        ("lost", bye["lost"]),
    ]


def write_plot(path, runs):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mqttpipe"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(runs), 1, figsize=(9, 5), layout="constrained", sharex=True, sharey=True, squeeze=False
    )
    for axis, (name, phases) in zip(axes[:, 0], runs.items()):
        storm = phases["storm"]
        due, accepted = due_rates(phases), rates(storm["accepted"])
        starts = [at * BIN_S for at in range(max(len(due), len(accepted)))]
        axis.bar(starts[: len(due)], due, BIN_S, align="edge", label="attempts due")
        axis.step(starts[: len(accepted)], accepted, where="post", color="C1", label="CONNACKs")
        axis.axvline(storm["back_s"], color="0.6", linestyle="--", label="server is back")
        axis.set_yscale("symlog", linthresh=10)
        axis.set_ylabel("in 100 ms")
        axis.set_title(KINDS[name])
    axes[0, 0].legend(fontsize="small")
    axes[-1, 0].set_xlabel("seconds since all were cut")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kind, default, what in (
        ("clients", int, CLIENTS, "how many"),
        ("messages", int, MESSAGES, "of each client before the cut"),
        ("down-s", float, DOWN_S, "seconds until the server is started again"),
    ):
        parser.add_argument(
            "--" + name, type=kind, default=default, help=what + " (default: %(default)s)"
        )
    parser.add_argument("--json", type=outputs.new_file, metavar="FILE", help="write all figures")
    parser.add_argument(
        "--plot", type=outputs.new_folder, metavar="DIR", help="write load.svg there"
    )
    options = parser.parse_args(arguments)
    if options.clients < 2 or options.messages < 1 or not 0 <= options.down_s <= DEADLINE_S:
        parser.error(
            "--clients must be 2 or more, --messages 1 or more, --down-s 0 to %d" % DEADLINE_S
        )
    return options


def main(arguments):
    options = parse(arguments)
    setup_env.reexec_in_venv("requirements-bench.txt")
    import servers

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is ended
    runs = {}
    wrongs = []
    try:
        for name in KINDS:
            runs[name] = run(options.clients, options.messages, options.down_s, name == "jitter")
            print("%d clients, %s" % (options.clients, KINDS[name]))
            for what, value in figures_of(runs[name], options.clients):
                print("    %-44s %s" % (what, value))
            wrongs += ["%s: %s" % (name, wrong) for wrong in judge(runs[name])]
        wrongs += judge_jitter(runs, options.clients)
    except (LoadError, setup_env.SetupError, servers.BrokerError) as error:
        print("load: failed: %s" % error)
        return 1
    if options.json:
        report = {"date": datetime.date.today().isoformat(), "python": platform.python_version()}
        report.update(clients=options.clients, runs=runs)
        wrongs += outputs.attempt(outputs.write, options.json, json.dumps(report) + "\n")
    if options.plot:
        wrongs += outputs.attempt(write_plot, options.plot / "load.svg", runs)
    if wrongs:
        print("load: failed: " + "; ".join(wrongs))
        return 1
    print("load: ok")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
