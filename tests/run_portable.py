"""Run the portable tests: the same on CPython and on MicroPython, no pytest needed.

    python3 tests/run_portable.py tests/portable [module ...]
    micropython tests/run_portable.py tests/portable [module ...]
    python3 tests/personality_run.py esp32 tests/run_portable.py tests/portable [module ...]

A test is a function `test_...` in a module `test_....py` (or .mpy) of the folder. It
takes no argument and fails by raising; `raise SkipTest("reason")` from `fakes` says
that this interpreter can't do it. Each test prints one line: `ok`, `FAIL` (and the
traceback) or `skip`; the last line counts them. The exit status is 1 if a test
failed or if none ran.

The imports of the tests are found through sys.path: MICROPYPATH on MicroPython; on
CPython the folders that the tests need are added here.
"""

import gc
import os
import sys


def main(folder, names):
    """Run the tests of `folder`, all modules or those in `names`. Returns an exit status."""
    if not are_assertions_on():
        print("FAIL: compiled without assertions (mpy-cross -O1 or higher): nothing is tested")
        return 1
    if folder not in sys.path:
        sys.path.insert(0, folder)
    passed = failed = skipped = 0
    for name in names or module_names(folder):
        module = __import__(name)
        use_board_errno(module)
        for attribute in sorted(dir(module)):
            if not attribute.startswith("test_"):
                continue
            gc.collect()
            title = "%s.%s" % (name, attribute)
            try:
                getattr(module, attribute)()
            except Exception as error:
                if type(error).__name__ == "SkipTest":
                    skipped += 1
                    print("skip %s: %s" % (title, error))
                    continue
                failed += 1
                print("FAIL " + title)
                print_traceback(error)
            else:
                passed += 1
                print("ok " + title)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 0 if passed and not failed else 1


def are_assertions_on():
    try:
        assert not folder_of_this_file  # a name, so that no compiler folds it away
    except AssertionError:
        return True
    return False


def module_names(folder):
    names = set()
    for name in os.listdir(folder):
        stem, _, ending = name.rpartition(".")
        if stem.startswith("test_") and ending in ("py", "mpy"):
            names.add(stem)
    return sorted(names)


def use_board_errno(module):
    """Let `import errno` mean what it means on a board, if personality_run.py has made one."""
    shim_errno = sys.modules.get("shim_errno")
    if shim_errno and hasattr(module, "errno"):
        module.errno = shim_errno


def print_traceback(error):
    if hasattr(sys, "print_exception"):
        sys.print_exception(error)
    else:
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__, file=sys.stdout)


folder_of_this_file = "tests"

if __name__ == "__main__":
    if sys.implementation.name == "cpython":
        top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        for part in ("micropython", "cpython_shim"):
            sys.path.insert(0, os.path.join(top, part))
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0)
    here = __file__.rpartition("/")[0] or "."
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else here + "/portable", sys.argv[2:]))
