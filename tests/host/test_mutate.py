"""tools/mutate.py: a change is noticed, and what was examined once is still there."""

import ast
import fnmatch

import pytest

import mutate

SOURCE = mutate.CLIENT.read_text(encoding="utf-8")
FUNCTIONS = dict(mutate.functions_of(ast.parse(SOURCE)))
TIMEOUT_S = 60

# A test that looks for tokens.
TEST = "test_pipe.test_what_was_given_up_is_found_by_nobody_and_rests_until_its_end"


def run_worker(folder, text, limit_s=60):
    (folder / "mqttpipe.py").write_text(text, encoding="utf-8")
    ran = mutate.run_worker([folder], [[TEST, limit_s]], TIMEOUT_S)
    return ran.returncode, ran.stdout


def test_each_pattern_of_a_section_means_a_function():
    for patterns in mutate.SECTIONS.values():
        for pattern in patterns.split():
            assert fnmatch.filter(FUNCTIONS, pattern), pattern
    assert mutate.section_of("Pipe.find") == "session" and mutate.section_of("Pipe.put") == "pipe"


def test_a_test_fails_with_a_mutant_and_passes_without(tmp_path):
    assert run_worker(tmp_path, SOURCE) == (0, "")
    line = "            if self.tokens[at] == token and"
    assert line in SOURCE
    status, output = run_worker(tmp_path, SOURCE.replace(line, line.replace("==", "!=")))
    assert status == 1 and output.startswith(TEST)


def test_a_mutant_that_turns_in_circles_is_ended(tmp_path):
    line = "            at = (at + 1) % self.size\n        return -1\n"
    assert line in SOURCE
    text = SOURCE.replace(line, line.replace("(at + 1)", "(at + 0)"))
    assert run_worker(tmp_path, text, limit_s=0.5)[0] < 0


def test_what_is_equivalent_has_a_reason_and_stands_in_the_client():
    """Who changes such a line has to look again: its entries go, or are written anew."""
    reasons = mutate.read_equivalent(mutate.EQUIVALENT.read_text(encoding="utf-8"))
    lines = SOURCE.splitlines()
    for function, _, old, _ in reasons:
        node = FUNCTIONS[function]
        text = mutate.one_line(lines[node.lineno - 1 : node.end_lineno])
        assert old in text, "%s: %s" % (function, old)


@pytest.mark.parametrize("text", ["f\n- a\n+ b\n", "f\n- a\nnone\n", "f\n- a\nnone\n+ b\n"])
def test_an_entry_without_a_reason_is_refused(text):
    with pytest.raises(mutate.MutateError):
        mutate.read_equivalent(text)


def test_an_entry_may_have_many_changes_and_a_number():
    text = "# note\nf #2\n- a\n+ b\n- c\n+ d\nIt is\nthe same.\n\ng\n- e\n+ f\nAs well.\n"
    assert mutate.read_equivalent(text) == {
        ("f", 2, "a", "b"): "It is the same.",
        ("f", 2, "c", "d"): "It is the same.",
        ("g", 1, "e", "f"): "As well.",
    }
