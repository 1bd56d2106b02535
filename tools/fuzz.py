"""Feed the parts of the project that read what others send with what nobody should send.

    python3 tools/fuzz.py                                   2,000 cases of each target
    python3 tools/fuzz.py decoder client --runs 1000000 --jobs 2
    python3 tools/fuzz.py client --seed 4711 --runs 1       one case again
    python3 tools/fuzz.py client --case 80006403            these bytes (hex), with the traceback
    python3 tools/fuzz.py uri --coverage-guided --runs 100000

A target is a file of tools/fuzz/: fuzz_NAME.py. It has make(draw), which returns a case (bytes)
drawn from a random.Random, and check(case), which compares what the project makes of it with what
a reference makes of it, written in another manner from the specification. Cases are structured
packets, valid ones spoiled, and noise, divided at random places.

What is a failure: a difference, an exception that is not documented, more than 10 s of processor
time, and for each 200th case, which is measured, more memory than the target allows.

Case number N has seed N, counted from --seed; without that the first is drawn and printed. The
first failures are shown shrunk, as bytes to be kept in tests/host/test_fuzz.py. The exit status
is 1 if there were any.

With --coverage-guided the cases are those that atheris finds by itself: it looks which lines each
one reaches (requirements-fuzz.txt; Linux, CPython 3.11 to 3.13). It ends at the first failure.
What reached something new is kept in .cache/fuzz/, and is where the next run begins.
"""

import argparse
import concurrent.futures
import importlib
import os
import random
import signal
import sys
import time
import traceback
import tracemalloc

import setup_env

ROOT = setup_env.ROOT
FOLDER = ROOT / "tools" / "fuzz"
TARGETS = sorted(path.stem[len("fuzz_") :] for path in FOLDER.glob("fuzz_*.py"))
TARGETS = [name for name in TARGETS if not name.startswith("streams")]

RUNS = 2000
CHUNK = 2000  # cases that one job of a pool has
HANG_S = 10  # of processor time: a busy machine changes nothing
GUIDED_HANG_S = 300  # by the clock, as libFuzzer does it
MEASURED = 200  # one case in so many
SHOWN = 3  # failures of a target
SHRINK_TRIES = 2000
SEEDS = 300  # cases that coverage guidance begins with


class Hang(Exception):
    """A case takes too long."""


def use_project():
    """Let the targets find the project, its fakes and its tools."""
    parts = ("cpython_shim", "micropython", "tests/portable", "boards/common", "tools")
    folders = [str(ROOT / part) for part in parts] + [str(FOLDER), str(FOLDER.parent / "mqtt")]
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]


def load(name):
    """Return the module of a target."""
    use_project()
    return importlib.import_module("fuzz_" + name)


def on_hang(number, frame):
    raise Hang("%d s of processor time" % HANG_S)


def try_case(target, case, is_measured=False):
    """Return what is wrong with a case, an exception; or None."""
    before = signal.signal(signal.SIGVTALRM, on_hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_S)
    try:
        if is_measured:
            tracemalloc.start()
        target.check(case)
        if is_measured:
            peak = tracemalloc.get_traced_memory()[1]
            assert peak <= target.ALLOCATED_MAX, "%d bytes allocated" % peak
    except (
        Exception,
        SystemExit,
    ) as error:  # who ends the program ends the run, and it would pass
        return error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        if is_measured:
            tracemalloc.stop()
    return None


def make_case(target, seed):
    return target.make(random.Random(seed))


def run_some(name, first, count):
    """Try the cases of some seeds; return {seed: text} of those that fail."""
    target = load(name)
    failures = {}
    for seed in range(first, first + count):
        error = try_case(target, make_case(target, seed), not seed % MEASURED)
        if error:
            failures[seed] = "%s: %s" % (type(error).__name__, str(error)[:300])
    return failures


def shrink(target, case, is_measured=False):
    """Return a shorter case that fails in the same way: with the same exception, there.

    One that does not fail again, alone, stays as it is.
    """
    wanted = sign_of(try_case(target, case, is_measured))
    tries = SHRINK_TRIES if wanted else 0
    size = len(case)
    while size:
        at = 0
        while at < len(case) and tries:
            tries -= 1
            shorter = case[:at] + case[at + size :]
            if sign_of(try_case(target, shorter, is_measured)) == wanted:
                case = shorter
            else:
                at += size
        size //= 2
    return case


def sign_of(error):
    if error is None:
        return None
    where = traceback.extract_tb(error.__traceback__)[-1]
    return type(error), where.filename, where.lineno


def run_target(name, first, runs, jobs):
    """Run a target; print what came of it. Returns how many cases failed."""
    began_s = time.monotonic()
    failures = {}
    if jobs == 1:
        failures = run_some(name, first, runs)
    else:
        with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
            starts = range(first, first + runs, CHUNK)
            end = first + runs
            futures = [pool.submit(run_some, name, at, min(CHUNK, end - at)) for at in starts]
            for future in concurrent.futures.as_completed(futures):
                failures.update(future.result())
    took_s = time.monotonic() - began_s
    print(
        "%-8s seeds from %d, %d cases in %.0f s: %s"
        % (name, first, runs, took_s, "%d FAILED" % len(failures) if failures else "ok"),
        flush=True,
    )
    for seed in sorted(failures)[:SHOWN]:
        target = load(name)
        case = shrink(target, make_case(target, seed), not seed % MEASURED)
        print("  seed %d: %s\n    %r" % (seed, failures[seed], case))
        print("    python3 tools/fuzz.py %s --case %s" % (name, case.hex()), flush=True)
    return len(failures)


def run_guided(name, first, runs):
    """Let atheris make the cases. It ends this process."""
    import atheris

    use_project()
    with atheris.instrument_imports():
        target = load(name)
    folder = setup_env.CACHE / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + SEEDS):
        (folder / ("seed-%d" % seed)).write_bytes(make_case(target, seed))
    words = ["-runs=%d" % runs, "-seed=%d" % (1 + first % 0x7FFFFFFF)]
    words += ["-max_len=600", "-timeout=%d" % GUIDED_HANG_S, "-artifact_prefix=%s-" % folder]
    atheris.Setup([sys.argv[0], *words, str(folder)], target.check)
    atheris.Fuzz()


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seed", type=int, metavar="N", help="of the first case")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help="cases of each target")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--case", type=bytes.fromhex, metavar="HEX", help="this one alone")
    parser.add_argument("--coverage-guided", action="store_true", help="with atheris; one target")
    options = parser.parse_args(arguments)
    for name in options.targets:
        if name not in TARGETS:
            parser.error("there is no target %r: %s" % (name, ", ".join(TARGETS)))
    if (options.coverage_guided or options.case is not None) and len(options.targets) != 1:
        parser.error("name one target")
    if options.runs < 1 or options.jobs < 1 or (options.seed or 0) < 0:
        parser.error("--runs and --jobs must be 1 or more, --seed 0 or more")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    return options


def main(arguments):
    options = parse_arguments(arguments)
    names = options.targets or TARGETS
    if options.case is not None:
        target = load(names[0])
        target.check(options.case)
        error = try_case(target, options.case, is_measured=True)
        if error:
            raise error
        print("%s: ok" % names[0])
        return 0
    if options.coverage_guided:
        import setup_env

        setup_env.reexec_in_venv("requirements-fuzz.txt")
        run_guided(names[0], options.seed, options.runs)
        return 0
    print("seed: %d" % options.seed, flush=True)  # before anything can go wrong
    failed = [run_target(name, options.seed, options.runs, options.jobs) for name in names]
    return 1 if any(failed) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # nobody reads what we print: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)  # what was not run is not known to be well
