"""Run portable tests in this process, with the client of a folder; used by tools/mutate.py.

    mutate_worker.py FOLDER           stdin: JSON, [[test, seconds of processor time], ...]
    mutate_worker.py FOLDER RESULT    all tests; RESULT, a file, tells their times and lines

A test is "module.function". The exit status is 1 at the first that fails. One that takes longer
than its limit ends the process by a signal: nothing that a mutant catches.
"""

import gc
import importlib
import json
import pathlib
import resource
import signal
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PORTABLE = ROOT / "tests" / "portable"
WITHOUT = {"test_board_semantics"}  # of the shim, not of the client
MEMORY_MAX = 1 << 30  # bytes: a mutant may append for ever


def run_test(test):
    """Run one; return its error, or None: it has passed or was skipped."""
    module, _, name = test.partition(".")
    try:
        getattr(importlib.import_module(module), name)()
    except BaseException as error:
        if type(error).__name__ != "SkipTest":
            return error
    return None


def run_some(tests):
    for test, limit_s in tests:
        importlib.import_module(test.partition(".")[0])
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        error = run_test(test)
        if error is not None:
            print("%s: %r" % (test, error))
            return 1
    return 0


def run_all(client, result):
    """Run each test, and note for how long, and for each line of the client which run it."""
    import coverage

    import run_portable

    cover = coverage.Coverage(data_file=None, include=[client], config_file=False)
    seconds = {}
    cover.start()
    for module in sorted(set(run_portable.module_names(str(PORTABLE))) - WITHOUT):
        for name in sorted(dir(importlib.import_module(module))):
            if name.startswith("test_"):
                test = "%s.%s" % (module, name)
                cover.switch_context(test)
                print(test, flush=True)
                began_s = time.process_time()
                error = run_test(test)
                seconds[test] = time.process_time() - began_s
                if error is not None:
                    traceback.print_exception(type(error), error, error.__traceback__)
                    return 1
    cover.stop()
    lines = cover.get_data().contexts_by_lineno(client)
    lines = {line: [test for test in tests if test] for line, tests in lines.items()}
    pathlib.Path(result).write_text(json.dumps({"seconds": seconds, "lines": lines}))
    return 0


def main(folder, result=None):
    sys.path[:0] = [folder, str(ROOT / "cpython_shim"), str(ROOT / "micropython"), str(PORTABLE)]
    sys.path.append(str(ROOT / "tests"))
    gc.collect = lambda: 0  # it would take six times as long as all the rest
    if result:
        return run_all(str(pathlib.Path(folder) / "mqttpipe.py"), result)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    tests = json.load(sys.stdin)
    return run_some(tests)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
