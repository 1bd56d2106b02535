"""Figures that tests measure and that no test judges: shown at the end of the run.

    figures.add(config, "CPython", "worst delay of the loop, ms", 3)

conftest.py prints them.
"""

import pytest

FIGURES = pytest.StashKey()  # in pytest's config: [(who, what, value)]


def add(config, who, what, value):
    """Keep a figure: str, str, and a number or a str."""
    config.stash.setdefault(FIGURES, []).append((who, what, value))


def print_all(terminalreporter, config):
    """Print a line for each figure."""
    kept = config.stash.get(FIGURES, [])
    if kept:
        terminalreporter.section("figures")
    for who, what, value in kept:
        terminalreporter.write_line("%-18s  %-58s %s" % (who, what, value))
