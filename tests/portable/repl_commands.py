"""The REPL's commands, where they are: a second file, not on every board."""

from fakes import SkipTest, needs

try:
    import mqttpipe_repl as repl
except ImportError:
    repl = None  # it is a second file, not on every board


def skip_without_it():
    needs("background")
    if repl is None:
        raise SkipTest("mqttpipe_repl is not here")
