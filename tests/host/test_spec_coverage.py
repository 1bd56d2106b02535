"""Every statement of MQTT that binds a client is obeyed somewhere, and tested somewhere.

The tool that says so is tried on a made-up specification of three statements as well.
"""

import pathlib
import subprocess
import sys

import pytest

import list_spec_coverage

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Made-up tags are put together: written out they would be tags of this project.
TAG = "[MQTT-%s]"

STATEMENTS = """\
CLIENT, SERVER, BOTH, TAGS = "client", "server", "both", "code and test"
STATEMENTS = (
    ("8.1.0-1", BOTH, TAGS, "one"),
    ("8.1.0-2", CLIENT, TAGS, "two"),
    ("8.2.0-1", SERVER, "not ours", "three"),
)
"""
COUNTED = "8.1.0:2 8.2.0:1"


@pytest.fixture
def project(tmp_path):
    """A function that makes a project of a few files; the gaps of it are the answer."""

    def make(code="", test="", statements=STATEMENTS, counted=COUNTED, **others):
        files = {"micropython/mqttpipe.py": code, "tests/portable/test_one.py": test}
        files["tests/spec_statements.py"] = statements
        files.update(others.get("files", {}))
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return list_spec_coverage.Coverage(tmp_path, counted)

    return make


def comment(numbers):
    return "# " + TAG % numbers + "\n"


def test_no_statement_lacks_its_code_or_its_test():
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "list_spec_coverage.py"), "--check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        text=True,
    )
    assert ran.returncode == 0, "\n" + ran.stdout


def test_the_table_names_code_and_tests_of_each_statement():
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "list_spec_coverage.py")],
        stdout=subprocess.PIPE,
        timeout=60,
        text=True,
    )
    lines = ran.stdout.splitlines()
    at = lines.index(next(line for line in lines if line.startswith("3.1.2-23 ")))
    assert lines[at + 1].startswith("    code: mqttpipe._Serving._on_ping_time")
    assert "test_connection.test_ping_when_nothing_was_sent" in lines[at + 2]
    assert lines[-2].startswith("MQTT 3.1.1: 141 statements, 72 bind a client: ")
    assert lines[-1].startswith("MQTT 5.0: 251 statements, 134 bind a client: ")


def test_with_all_tags_there_is_no_gap(project):
    coverage = project(code=comment("8.1.0-1, -2"), test=comment("8.1.0-1") + comment("8.1.0-2"))
    assert coverage.gaps == []
    assert coverage.summary() == (
        "3 statements, 2 bind a client: 2 with code and test, 0 by construction, 0 gaps"
    )


def test_a_statement_without_code_or_without_test_is_a_gap(project):
    assert project(code=comment("8.1.0-1"), test=comment("8.1.0-2")).gaps == [
        "8.1.0-1 has no tag in a test: one",
        "8.1.0-2 has no tag in the code: two",
    ]


def test_what_is_kept_by_construction_needs_no_tag(project):
    statements = STATEMENTS.replace(
        'CLIENT, TAGS, "two"', 'CLIENT, "there is no other way", "two"'
    )
    coverage = project(code=comment("8.1.0-1"), test=comment("8.1.0-1"), statements=statements)
    assert coverage.gaps == []
    assert "    by construction: there is no other way" in coverage.table()
    assert "1 by construction" in coverage.summary()


def test_a_tag_that_is_no_statement_is_a_gap_that_names_its_place(project):
    full = comment("8.1.0-1, -2")
    for numbers, wrong in (
        ("8.1.0-3", "8.1.0-3"),  # the section has only two
        ("8.1.0-1, -7", "8.1.0-7"),
        ("8.1.0-1, 8.9.0-1", "8.9.0-1"),
        ("8.1.0.1", "8.1.0.1"),
        ("8.1.0", "8.1.0"),
    ):
        expected = [TAG % wrong + " is no statement: micropython/mqttpipe.py:3"]
        assert project(code=full + "\n" + comment(numbers), test=full).gaps == expected, numbers


def test_a_wrong_tag_beside_the_tests_is_found_too(project):
    full = comment("8.1.0-1, -2")
    files = {"tests/portable/fakes.py": comment("8.1.0-4")}
    assert project(code=full, test=full, files=files).gaps == [
        TAG % "8.1.0-4" + " is no statement: tests/portable/fakes.py:1"
    ]


def test_only_tests_count_as_tests_and_only_the_client_as_code(project):
    full = comment("8.1.0-1, -2")
    files = {"tests/portable/fakes.py": full, "micropython/examples/one.py": full}
    assert len(project(files=files).gaps) == 4


def test_a_statement_that_the_list_lacks_or_has_twice_is_a_gap(project):
    full = comment("8.1.0-1, -2")
    statements = STATEMENTS.replace('"8.2.0-1"', '"8.1.0-2"')
    gaps = project(code=full, test=full, statements=statements).gaps
    assert gaps == [
        "8.2.0-1 is missing in spec_statements.py",
        "8.1.0-2 stands twice in spec_statements.py",
    ]
    gaps = project(code=full, test=full, counted="8.1.0:2").gaps
    assert gaps == ["8.2.0-1 in spec_statements.py is no statement"]


def test_a_row_out_of_form_is_a_gap(project):
    full = comment("8.1.0-1, -2")
    statements = STATEMENTS.replace('CLIENT, TAGS, "two"', '"clients", TAGS, "two"')
    gaps = project(code=full, test=full, statements=statements).gaps
    assert gaps == ["8.1.0-2 is out of form in spec_statements.py"]


def test_a_place_is_the_function_around_it_or_below_its_comment(project):
    code = (
        "class A:\n"
        + "    # "
        + TAG % "8.1.0-1"
        + "\n    # goes on\n    def f(self):\n        pass\n\n"
        + "    def g(self):\n        return 'why "
        + TAG % "8.1.0-2"
        + "'\n\n\n"
        + comment("8.2.0-1")
        + "\n\nNUMBER = 1\n"
    )
    coverage = project(code=code, test='"""%s"""\n' % (TAG % "8.1.0-1, -2"))
    places = {number: [str(place) for place in coverage.code[number]] for number in coverage.code}
    assert places == {
        "8.1.0-1": ["mqttpipe.A.f"],
        "8.1.0-2": ["mqttpipe.A.g"],
        "8.2.0-1": ["mqttpipe.line 11"],
    }
    assert coverage.gaps == []


def test_half_a_tag_in_a_message_is_none(project):
    full = comment("8.1.0-1, -2")
    test = full + "PART = '[MQTT-8.1.0'\nOTHER = [PART, '[MQTT-x.y.z-n]']\n"
    assert project(code=full, test=test).gaps == []
