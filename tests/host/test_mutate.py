"""tools/mutate.py: a change is noticed, and what was examined once is still there."""

import ast
import fnmatch

import pytest

import mutate

SOURCE = mutate.CLIENT.read_text(encoding="utf-8")
FUNCTIONS = dict(mutate.functions_of(ast.parse(SOURCE)))
# A test that looks for tokens.
TEST = "test_pipe.test_what_was_given_up_is_found_by_nobody_and_rests_until_its_end"


@pytest.fixture(scope="module")
def ask():
    """A function that changes Pipe.find, and returns what TEST makes of it."""
    worker = mutate.Worker()
    node = FUNCTIONS["Pipe.find"]
    lines = SOURCE.splitlines()[node.lineno - 1 : node.end_lineno]

    def ask(old, new, limit_s=60):
        assert sum(old in line for line in lines) == 1
        text = "\n".join(line[node.col_offset :].replace(old, new) for line in lines)
        return worker.ask("Pipe.find", text, [[TEST, limit_s]])

    yield ask
    worker.close()


def test_each_pattern_of_a_section_means_a_function():
    for patterns in mutate.SECTIONS.values():
        for pattern in patterns.split():
            assert fnmatch.filter(FUNCTIONS, pattern), pattern
    assert (
        mutate.section_of("Pipe.find") == "session" and mutate.section_of("Pipe.place") == "pipe"
    )


def test_a_mutant_is_killed_by_a_test_that_fails_or_survives(ask):
    assert ask("self.tokens[at] == token", "self.tokens[at] != token") == "killed"
    assert ask("return -1", "return -2") == "survived"


def test_a_mutant_that_turns_in_circles_is_ended(ask):
    assert ask("self.size) - 1", "self.size) - 0", limit_s=0.5) == "timed out"
    assert ask("self.size) - 1", "self.size) - 1") == "survived", "each has a process of its own"


def test_a_function_that_can_not_be_changed_is_not_said_to_be_killed():
    node = FUNCTIONS["MQTTError.__init__"]  # it has super() in it
    lines = SOURCE.splitlines()[node.lineno - 1 : node.end_lineno]
    text = "\n".join(line[node.col_offset :] for line in lines)
    worker = mutate.Worker()
    assert worker.ask("MQTTError.__init__", text, [[TEST, 60]]) == "not run"
    worker.close()


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
