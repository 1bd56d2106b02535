"""Run portable tests with a function of the client changed; used by tools/mutate.py.

    mutate_worker.py           a line of JSON in stdin for each mutant: its function, the text of
                               that, [[test, seconds of processor time], ...]; a line of stdout
                               answers: "killed", "timed out", "survived" or "not run"
    mutate_worker.py RESULT    all tests without a change; RESULT, a file, tells their times, and
                               which lines of the client each has run

A test is "module.function". Everything is imported once. Each mutant has a process of its own,
forked from that, where the function gets other code. A test that takes longer than its limit ends
that process by a signal: nothing that a mutant catches.
"""

import gc
import importlib
import json
import os
import pathlib
import resource
import signal
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CLIENT = ROOT / "micropython" / "mqttpipe.py"
PORTABLE = ROOT / "tests" / "portable"
# The one is of the shim, not of the client; the other runs on this machine's clock: where it is
# busy, every mutant would be killed.
WITHOUT = {"test_board_semantics", "test_loopback"}
MEMORY_MAX = 1 << 30  # bytes: a mutant may append for ever
NOT_RUN = 2  # an exit status
SLEEP_MAX_S = 120  # for all tests of one, if it sleeps: who turns in circles is ended before


def run_test(test):
    """Run one; return its error, or None: it has passed or was skipped."""
    module, _, name = test.partition(".")
    try:
        getattr(importlib.import_module(module), name)()
    except BaseException as error:
        if type(error).__name__ != "SkipTest":
            return error
    return None


def change(function, text):
    """Give a function of the client, "Class.name", the code of another text of it."""
    import mqttpipe

    *names, name = function.split(".")
    owner = mqttpipe
    for one in names:
        owner = vars(owner)[one]
    made = {}
    exec(text, vars(mqttpipe), made)
    old = vars(owner)[name]
    old.__code__, old.__defaults__ = made[name].__code__, made[name].__defaults__


def run_mutant(function, text, tests):
    """Change the client and run tests. Returns an exit status: 1 at the first that fails.

    NOT_RUN: what is in another function, or has been taken out of its class, can't be changed.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    signal.setitimer(signal.ITIMER_REAL, SLEEP_MAX_S)
    try:
        change(function, text)
    except (KeyError, AttributeError, ValueError):
        return NOT_RUN
    for test, limit_s in tests:
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        if run_test(test) is not None:
            return 1
    return 0


def serve():
    import run_portable

    for module in sorted(set(run_portable.module_names(str(PORTABLE))) - WITHOUT):
        importlib.import_module(module)
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what tests print
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = 1
            try:
                status = run_mutant(*json.loads(line))
            finally:
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        word = "timed out" if os.WIFSIGNALED(status) else "killed" if status else "survived"
        if status == NOT_RUN << 8:
            word = "not run"
        os.write(answers, word.encode() + b"\n")
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


def main(result=None):
    sys.path[:0] = [str(ROOT / "cpython_shim"), str(CLIENT.parent), str(PORTABLE)]
    sys.path.append(str(ROOT / "tests"))
    gc.collect = lambda: 0  # it would take six times as long as all the rest
    return run_all(str(CLIENT), result) if result else serve()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
