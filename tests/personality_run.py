"""Run a script in CPython as one of the personalities of cpython_shim/shim_personality.py.

    python3 tests/personality_run.py NAME[:SEED] SCRIPT [argument ...]

    python3 tests/personality_run.py esp32 tests/run_portable.py tests/portable test_loopback
    python3 tests/personality_run.py hostile:42 tests/broker/scenarios/remote.py '{...}' 60

The client and the shim are on the path. What "hostile" and "faulty" draw begins with SEED; without
it, with MQTTPIPE_SEED of the environment; without either the seed is drawn. It is said on stderr,
so that a failed run can be had again.

A script that says `import errno` gets the module of CPython, which speaks for no board.
run_portable.py gives the tests the board's instead.
"""

import os
import random
import runpy
import sys


def main(arguments):
    if len(arguments) < 2 or arguments[0] in ("-h", "--help"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for part in ("micropython", "cpython_shim"):
        sys.path.insert(1, os.path.join(top, part))
    import shim_personality

    name, _, seed = arguments[0].partition(":")
    seed = int(seed or os.environ.get("MQTTPIPE_SEED") or random.randrange(1 << 30))
    try:
        shim_personality.use(name, seed)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if name in ("hostile", "faulty"):
        print("personality %s:%d" % (name, seed), file=sys.stderr, flush=True)
    sys.argv[:] = arguments[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(arguments[1]))
    runpy.run_path(arguments[1], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
