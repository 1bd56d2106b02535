"""List where each conformance statement of MQTT is obeyed and where that is tested.

    python3 tools/list_spec_coverage.py            the table: statement, places in code, tests
    python3 tools/list_spec_coverage.py --check    only what is amiss; exit status 1 if anything is

The statements are those of tests/spec_statements.py (MQTT 3.1.1) and tests/spec_statements_5.py
(MQTT 5.0, whose tags are [MQTT5-x.y.z-n], as the same numbers say something else). What connects
them with the code and the tests are tags in comments, docstrings and messages: [MQTT-x.y.z-n], or
several in one bracket as in [MQTT-x.y.z-1, -2]. Code is micropython/*.py, a test is a
tests/**/test_*.py. Amiss is:

    a statement that binds a client without a tag in the code, or without one in a test, unless
        its row says that it is kept by construction
    a tag in micropython/ or tests/ that is no statement of the standard's final text
    a statement that is missing in the list, or stands in it twice or out of form
"""

import argparse
import ast
import pathlib
import re
import runpy
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# How many statements each section has, counted in appendix B of the standard: it is what the list
# is checked against, so it is not made from the list.
COUNTED_4 = (
    "1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3 "
    "3.3.4:1 3.3.5:2 3.6.1:1 3.8.1:1 3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1 "
    "3.14.1:1 3.14.4:3 4.1.0:2 4.3.1:1 4.3.2:2 4.3.3:2 4.4.0:1 4.5.0:2 4.6.0:6 4.7.1:3 4.7.2:1 "
    "4.7.3:4 4.8.0:2 6.0.0:4 7.0.0:2 7.1.1:1 7.1.2:1"
)

# Section 2.2.1 begins with 2: that of 5.0 has no 2.2.1-1.
COUNTED_5 = (
    "1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2 "
    "3.2.2:22 3.3.1:13 3.3.2:20 3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5 "
    "3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.11.2:2 3.11.3:2 3.12.4:1 3.14.0:1 "
    "3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2 4.2.0:1 4.3.1:1 4.3.2:5 4.3.3:13 "
    "4.4.0:2 4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 4.12.0:7 4.12.1:2 "
    "4.13.1:1 4.13.2:1 6.0.0:4"
)
NO_STATEMENTS = ("2.2.1-1",)


class Standard:
    """A version: `name`, `mark` of its tags, `list` of its statements, how many are `counted`."""

    def __init__(self, name, mark, file, counted):
        self.name = name
        self.mark = mark
        self.list = pathlib.PurePath("tests", file)
        self.counted = counted


MQTT_4 = Standard("MQTT 3.1.1", "MQTT", "spec_statements.py", COUNTED_4)
MQTT_5 = Standard("MQTT 5.0", "MQTT5", "spec_statements_5.py", COUNTED_5)

# A bracket begun with a digit is meant as a tag, even if it then turns out to be none. Quotes end
# it: an error message may hold the begin of a tag only.
BRACKET = r"\[%s-(\d[^\]\"'\n]*)\]"
TAG = re.compile(r"(\d+\.\d+\.\d+)-(\d+)")


class Place:
    """Where a tag stands: `file`, `line`, and `owner`, the function or class around it, or ""."""

    def __init__(self, file, line, owner):
        self.file = file
        self.line = line
        self.owner = owner

    def __str__(self):
        return "%s.%s" % (self.file.stem, self.owner or "line %d" % self.line)


def read_statements(root, standard=MQTT_4):
    """Return the rows (number, binds, kept, paraphrase) of the list, and the names in it."""
    names = runpy.run_path(str(root / standard.list))
    return names["STATEMENTS"], names


def numbers_of(bracket, mark="MQTT"):
    """Take the inside of a bracket apart: "1.5.3-1, -2" gives ["1.5.3-1", "1.5.3-2"].

    What has not the form of a tag is returned as it is; it will be no statement.
    """
    numbers = []
    section = ""
    for part in bracket.split(","):
        part = part.strip()
        part = part[len(mark) + 1 :] if part.startswith(mark + "-") else part
        if section and re.fullmatch(r"-\d+", part):
            part = section + part
        matched = TAG.fullmatch(part)
        section = matched.group(1) if matched else ""
        numbers.append(part)
    return numbers


def owners_of(text):
    """Return a function: line number -> name of the innermost function or class, or "".

    A comment just above a function belongs to it, as in this project it tells what it does.
    """
    lines = text.splitlines()
    spans = []

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = prefix + child.name
                first = min([child.lineno] + [one.lineno for one in child.decorator_list])
                while first > 1 and lines[first - 2].lstrip().startswith("#"):
                    first -= 1
                spans.append((first, child.end_lineno, name))
                visit(child, name + ".")
            else:
                visit(child, prefix)

    visit(ast.parse(text), "")

    def owner(line):
        around = [span for span in spans if span[0] <= line <= span[1]]
        return max(around)[2] if around else ""

    return owner


def find_tags(folder, mark="MQTT"):
    """Return number -> list of Place, for all Python files below `folder`, in order."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "[%s-" % mark not in text:
            continue
        owner = owners_of(text)
        for at, line in enumerate(text.splitlines(), 1):
            for bracket in re.findall(BRACKET % mark, line):
                for number in numbers_of(bracket, mark):
                    found.setdefault(number, []).append(Place(file, at, owner(at)))
    return found


def is_test(file):
    return file.name.startswith("test_")


class Coverage:
    """What was found under `root`: `statements`, `code` and `tests` (number -> places), `gaps`."""

    def __init__(self, root, counted=None, standard=MQTT_4):
        self.standard = standard
        self.statements, names = read_statements(root, standard)
        self.clients = (names["CLIENT"], names["BOTH"])
        self.servers = names["SERVER"]
        self.with_tags = names["TAGS"]
        in_code = find_tags(root / "micropython", standard.mark)
        in_tests = find_tags(root / "tests", standard.mark)
        self.code = {
            number: [place for place in places if place.file.parent == root / "micropython"]
            for number, places in in_code.items()
        }
        self.tests = {
            number: [place for place in places if is_test(place.file)]
            for number, places in in_tests.items()
        }
        self.gaps = self._gaps_of_list(counted or standard.counted)
        for row in self.statements:
            self.gaps += self._gaps_of_row(row)
        numbers = {row[0] for row in self.statements}
        for found in (in_code, in_tests):
            for number in sorted(set(found) - numbers):
                for place in found[number]:
                    where = "%s:%d" % (place.file.relative_to(root).as_posix(), place.line)
                    tag = "[%s-%s]" % (standard.mark, number)
                    self.gaps.append("%s is no statement: %s" % (tag, where))

    def _gaps_of_list(self, counted):
        gaps = []
        numbers = [row[0] for row in self.statements]
        expected = []
        for part in counted.split():
            section, _, count = part.partition(":")
            expected += ["%s-%d" % (section, at + 1) for at in range(int(count))]
        if self.standard is MQTT_5:
            expected = [number for number in expected if number not in NO_STATEMENTS]
        for number in expected:
            if number not in numbers:
                gaps.append("%s is missing in %s" % (number, self.standard.list.name))
        for number in sorted(set(numbers)):
            if number not in expected:
                gaps.append("%s in %s is no statement" % (number, self.standard.list.name))
            if numbers.count(number) > 1:
                gaps.append("%s stands twice in %s" % (number, self.standard.list.name))
        return gaps

    def _gaps_of_row(self, row):
        number, binds, kept, paraphrase = row
        if binds not in (*self.clients, self.servers) or not kept or not paraphrase:
            return ["%s is out of form in %s" % (number, self.standard.list.name)]
        gaps = []
        if binds in self.clients and kept == self.with_tags:
            if not self.code.get(number):
                gaps.append("%s has no tag in the code: %s" % (number, paraphrase))
            if not self.tests.get(number):
                gaps.append("%s has no tag in a test: %s" % (number, paraphrase))
        return gaps

    def table(self):
        """Return the table as lines of text."""
        lines = []
        for number, binds, kept, paraphrase in self.statements:
            lines.append("%-9s %-7s %s" % (number, binds, paraphrase))
            if binds in self.clients and kept != self.with_tags:
                lines.append("    by construction: " + kept)
            for title, found in (("code", self.code), ("test", self.tests)):
                # Each place once, however often the tag stands there.
                places = dict.fromkeys(str(place) for place in found.get(number, ()))
                if places:
                    lines.append("    %s: %s" % (title, ", ".join(places)))
        return lines

    def summary(self):
        bound = [row for row in self.statements if row[1] in self.clients]
        tagged = [row for row in bound if row[2] == self.with_tags]
        covered = [row for row in tagged if self.code.get(row[0]) and self.tests.get(row[0])]
        return (
            "%d statements, %d bind a client: %d with code and test, %d by construction, %d gaps"
            % (
                len(self.statements),
                len(bound),
                len(covered),
                len(bound) - len(tagged),
                len(self.gaps),
            )
        )


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="print what is amiss, not the table")
    options = parser.parse_args(arguments)
    found = [Coverage(ROOT, standard=standard) for standard in (MQTT_4, MQTT_5)]
    if not options.check:
        for coverage in found:
            print(coverage.standard.name)
            print("\n".join(coverage.table()))
            print()
    for coverage in found:
        for gap in coverage.gaps:
            print(gap)
        print("%s: %s" % (coverage.standard.name, coverage.summary()))
    return 1 if any(coverage.gaps for coverage in found) else 0


if __name__ == "__main__":
    sys.exit(main())
