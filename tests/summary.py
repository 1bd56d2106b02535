"""What the tests of this project say at the end of a run, whichever process they ran in.

    record_property("figure", (who, what, value))    in a test: a figure that no test judges
    record_property("portable", {...})               results of portable tests: record_portable()
    leave_out(config, "many tests (--all)")          in a conftest.py, while tests are collected

`record_property` is pytest's: what it takes goes with the report of the test to the process that
prints, with pytest-xdist too. What is left out goes there in `workeroutput`, which is xdist's.
"""

import pytest

LEFT_OUT = pytest.StashKey()  # in pytest's config: the lines of leave_out()


def leave_out(config, text):
    """Have a line at the end say that something was left out, and what brings it back."""
    lines = config.stash.setdefault(LEFT_OUT, [])
    if text not in lines:
        lines.append(text)


def left_out(config):
    """Return what leave_out() was told."""
    return config.stash.get(LEFT_OUT, [])


def record_portable(record_property, name, version, results, skips=()):
    """Keep the results of a module of portable tests.

    Args:
        record_property: the fixture.
        name, version: of the interpreter, str.
        results: how many passed, failed, were skipped.
        skips: the runner's lines that say why.
    """
    result = {"name": name, "version": version, "results": list(results), "skips": list(skips)}
    record_property("portable", result)


def recorded(terminalreporter, name):
    """Return all that tests have recorded under a name."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    return [
        value
        for report in reports
        if getattr(report, "when", None) == "call"
        for key, value in report.user_properties
        if key == name
    ]


def print_all(terminalreporter, config):
    """Print the sections, those that have something in them."""
    figures = recorded(terminalreporter, "figure")
    if figures:
        terminalreporter.section("figures")
    for who, what, value in figures:
        terminalreporter.write_line("%-18s  %-58s %s" % (who, what, value))
    totals = {}
    for module in recorded(terminalreporter, "portable"):
        total = totals.setdefault(module["name"], dict(module, results=[0, 0, 0], skips=[]))
        total["results"] = [a + b for a, b in zip(total["results"], module["results"])]
        total["skips"] += module["skips"]
    if totals or left_out(config):
        terminalreporter.section("portable tests")
    for name, total in totals.items():
        text = "%d passed, %d failed, %d skipped" % tuple(total["results"])
        terminalreporter.write_line("%-20s %-36s %s" % (name, text, total["version"]))
        for line in total["skips"]:
            terminalreporter.write_line("    " + line)
    for line in left_out(config):
        terminalreporter.write_line("LEFT OUT: " + line)
