"""Change the client in one place at a time, and see whether a portable test notices.

    python3 tools/mutate.py                            pipe, session, decoder, answers, timers
    python3 tools/mutate.py --section session          one of them
    python3 tools/mutate.py --section 'Pipe.resume'    one function; or a pattern: 'Filters.*'
    python3 tools/mutate.py --jobs 2 --report F        two at once; the report goes to the file F

A change is a mutant: `<` becomes `<=`, a number one more, a statement goes, and so on. The
operators are cosmic-ray's, and one of our own, which takes statements away. A mutant is killed if
a test of tests/portable fails on CPython; it is timed out if one takes ten times its time; else it
survives. Only those tests are asked that run a changed line (coverage.py says which), those of the
fastest modules first. Mutants are made in memory: nothing is written.

A mutant that does nothing wrong is an equivalent one. Those that were examined stand in
tools/mutate/equivalent.txt with the reason, in the manner of the report, and are left out; so what
the report shows is new. The exit status is 1 if there is such a one, or an entry without a mutant.
"""

import argparse
import ast
import collections
import concurrent.futures
import contextlib
import difflib
import fnmatch
import json
import pathlib
import queue
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import outputs
import setup_env

ROOT = setup_env.ROOT
CLIENT = ROOT / "micropython" / "mqttpipe.py"
HELPERS = ROOT / "tools" / "mutate"
WORKER = HELPERS / "mutate_worker.py"
EQUIVALENT = HELPERS / "equivalent.txt"
REQUIREMENTS = "requirements-mutate.txt"

# Section: patterns of its functions. A function belongs to the first one that has it.
SECTIONS = {
    "session": "Pipe.find Pipe.free Pipe.move_head Pipe.find_id Pipe.rewind"
    " Pipe.resume Filters.* topic_matches",
    "pipe": "Pipe.*",
    "decoder": "Decoder.*",
    "answers": "_Receiving._on_ack _Receiving._put_not_found _Receiving._on_failed"
    " _Receiving._on_suback _Sending._next_id",
    "timers": "_Serving._allow _Serving._arm _Serving._on_due _Serving._on_ping_time"
    " _Serving._put_ping _Serving._is_too_early"
    " _Serving._write_to_lwip _Serving._ping_meanwhile",
}

# Of cosmic-ray's operators those whose mutants differ in kind: of a `<` that became `!=` a test
# would tell nothing that it does not tell of `<=` and `>=`.
OPERATORS = """
AddNot NumberReplacer ReplaceAndWithOr ReplaceOrWithAnd ReplaceTrueWithFalse ReplaceFalseWithTrue
ReplaceBreakWithContinue ReplaceContinueWithBreak ZeroIterationForLoop
ReplaceUnaryOperator_Delete_Not ReplaceUnaryOperator_Delete_USub ReplaceUnaryOperator_Delete_Invert
ReplaceComparisonOperator_Eq_NotEq ReplaceComparisonOperator_NotEq_Eq
ReplaceComparisonOperator_Is_IsNot ReplaceComparisonOperator_IsNot_Is
ReplaceComparisonOperator_Lt_LtE ReplaceComparisonOperator_Lt_GtE
ReplaceComparisonOperator_LtE_Lt ReplaceComparisonOperator_LtE_Gt
ReplaceComparisonOperator_Gt_GtE ReplaceComparisonOperator_Gt_LtE
ReplaceComparisonOperator_GtE_Gt ReplaceComparisonOperator_GtE_Lt
ReplaceBinaryOperator_Add_Sub ReplaceBinaryOperator_Sub_Add ReplaceBinaryOperator_Mul_FloorDiv
ReplaceBinaryOperator_FloorDiv_Mul ReplaceBinaryOperator_Mod_FloorDiv
ReplaceBinaryOperator_LShift_RShift ReplaceBinaryOperator_RShift_LShift
ReplaceBinaryOperator_BitAnd_BitOr ReplaceBinaryOperator_BitOr_BitAnd
""".split()

CLEAN_TIMEOUT_S = 1800  # on a busy machine; alone it takes 15
WORKER_TIMEOUT_S = 150  # until it has ended; the worker bounds what a mutant takes
TIMES = 10  # so many times its own time may a test take, and
EXTRA_S = 1  # so much more; of processor time, whatever else the machine does
REPORT_EVERY = 100

# A condition of build constants alone: CPython has all parts, tests/host/test_build.py the others.
SWITCHES_ONLY = re.compile(r"if (not )?_[A-Z]+2?( (and|or) _[A-Z]+2?)*:")


class MutateError(Exception):
    """Why there is no result, in one line."""


def say(text):
    print("mutate: " + text, flush=True)


# ---------------------------------------------------------------------------
# Mutants
# ---------------------------------------------------------------------------


class Mutant:
    """One change of one function.

    Attributes:
        function: its name, with that of its class. nth: 1, or more if the same line was changed in
        the same way before in this function. old, new: the changed lines, in one. lines: set of
        numbers, of the statement's lines. text: of the function, with the change.
    """

    def __init__(self, function, old, new, lines, text):
        self.function = function
        self.old = old
        self.new = new
        self.nth = 1
        self.lines = lines
        self.text = text

    @property
    def key(self):
        return self.function, self.nth, self.old, self.new

    def __str__(self):
        name = self.function if self.nth == 1 else "%s #%d" % (self.function, self.nth)
        return "%s\n- %s\n+ %s\n" % (name, self.old, self.new)


def one_line(lines):
    """Return code as one line, without its comments: these may change."""
    return " ".join(" ".join(re.sub(r"(^|  )\s*# .*", "", line) for line in lines).split())


def functions_of(tree):
    """Yield (name, node) of each function of a module and of its classes."""

    def walk(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                yield prefix + child.name, child
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, prefix + child.name + ".")
            elif isinstance(child, ast.If):
                yield from walk(child, prefix)

    return walk(tree, "")


def spans_of(node):
    """Yield (first, last) line of each statement in a function; of one with a body, its head.

    What runs is noted at any line of a statement. The head of the function itself runs at import:
    all of the function stands for it.
    """
    for child in ast.walk(node):
        if isinstance(child, ast.stmt):
            body = getattr(child, "body", None) if child is not node else None
            yield child.lineno, body[0].lineno - 1 if body else child.end_lineno


def section_of(function):
    for section, patterns in SECTIONS.items():
        if any(fnmatch.fnmatchcase(function, pattern) for pattern in patterns.split()):
            return section
    return None


def make_operators():
    import parso
    from cosmic_ray.operators.operator import Operator
    from cosmic_ray.plugins import get_operator

    class DeleteStatement(Operator):
        """`pass` in the place of a statement that is no keyword and no docstring."""

        def mutation_positions(self, node):
            if node.type == "simple_stmt" and node.children[0].type not in ("keyword", "string"):
                yield node.start_pos, node.end_pos

        def mutate(self, node, index):
            node.children[0] = parso.parse(node.children[0].get_first_leaf().prefix + "pass")
            return node

        @classmethod
        def examples(cls):
            return ()

    return [get_operator("core/" + name)() for name in OPERATORS] + [DeleteStatement()]


def count_mutations(operator, tree):
    from cosmic_ray.ast import ast_nodes

    return sum(len(list(operator.mutation_positions(node))) for node in ast_nodes(tree))


def mutants_of(source, function, node):
    """Yield the Mutants of one function that compile and differ from it and from each other."""
    from cosmic_ray.ast import get_ast
    from cosmic_ray.mutating import mutate_code

    lines = source.splitlines(True)
    indented = lines[node.lineno - 1 : node.end_lineno]
    text = textwrap.dedent("".join(indented))
    margin = " " * node.col_offset
    seen = {ast.dump(ast.parse(text))}
    keys = collections.Counter()
    spans = sorted(spans_of(node), reverse=True)  # the innermost comes first
    for operator in make_operators():
        for number in range(count_mutations(operator, get_ast(text))):
            mutated = mutate_code(text, operator, number)
            try:
                meaning = ast.dump(ast.parse(mutated))
                compile(mutated, function, "exec")
            except SyntaxError:
                continue
            if meaning in seen:
                continue
            seen.add(meaning)
            changed = textwrap.indent(mutated, margin).splitlines(True)
            matcher = difflib.SequenceMatcher(None, indented, changed, autojunk=False)
            blocks = [block for block in matcher.get_opcodes() if block[0] != "equal"]
            old, new, numbers = [], [], set()
            for _, old_from, old_to, new_from, new_to in blocks:
                old += indented[old_from:old_to]
                new += changed[new_from:new_to]
                for line in range(node.lineno + old_from, node.lineno + max(old_to, old_from + 1)):
                    first, last = next(span for span in spans if span[0] <= line <= span[1])
                    numbers.update(range(first, last + 1))
            if SWITCHES_ONLY.match(one_line(old)):
                continue
            mutant = Mutant(function, one_line(old), one_line(new), numbers, mutated)
            keys[mutant.key] += 1
            mutant.nth = keys[function, 1, mutant.old, mutant.new]
            yield mutant


# ---------------------------------------------------------------------------
# Those that were examined
# ---------------------------------------------------------------------------


def read_equivalent(text):
    """Return key -> reason, of paragraphs: a function, lines `- old` and `+ new`, the reason."""
    reasons = {}
    for paragraph in filter(str.strip, re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n", "", text))):
        name, *lines = paragraph.strip().splitlines()
        function, _, nth = name.partition(" #")
        changes = [line for line in lines if line.startswith(("- ", "+ "))]
        reason = " ".join(lines[len(changes) :])
        if not reason or len(changes) % 2 or changes != lines[: len(changes)]:
            raise MutateError("%s: no reason, or half a change: %s" % (EQUIVALENT.name, name))
        for old, new in zip(changes[::2], changes[1::2]):
            reasons[function, int(nth or 1), old[2:], new[2:]] = reason
    return reasons


# ---------------------------------------------------------------------------
# Running
# ---------------------------------------------------------------------------


class Worker:
    """A process that tries mutants, one after the other."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, function, text, tests):
        """Return "killed", "timed out", "survived" or "not run"."""
        print(json.dumps([function, text, tests]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise MutateError("a worker has ended")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait(WORKER_TIMEOUT_S)


def run_clean(folder):
    """Run all tests on the client as it is; return {test: seconds}, {line: [test, ...]}."""
    result = folder / "clean.json"
    try:
        ran = subprocess.run(
            [sys.executable, str(WORKER), str(result)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CLEAN_TIMEOUT_S,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        raise MutateError("the tests do not end:\n" + (error.stdout or b"").decode()[-1000:])
    if ran.returncode:
        raise MutateError("the tests fail without any change:\n" + ran.stdout[-3000:])
    found = json.loads(result.read_text())
    return found["seconds"], {int(line): tests for line, tests in found["lines"].items()}


def tests_of(mutant, seconds, covering):
    """Return [test, limit in s] of each test that runs a changed line, fastest modules first."""
    found = {test for line in mutant.lines for test in covering.get(line, ())}
    modules = collections.Counter()
    for test in found:
        modules[test.partition(".")[0]] += seconds[test]
    order = sorted(found, key=lambda test: (modules[test.partition(".")[0]], test))
    return [[test, TIMES * seconds[test] + EXTRA_S] for test in order]


def try_all(mutants, jobs):
    """Yield each mutant with its outcome."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seconds, covering = run_clean(pathlib.Path(folder))
    say("%d tests pass unchanged, %.0f s" % (len(seconds), time.monotonic() - began_s))
    idle = queue.SimpleQueue()

    def try_one(mutant):
        tests = tests_of(mutant, seconds, covering)
        if not tests:
            return mutant, "not run"
        worker = idle.get()
        try:
            return mutant, worker.ask(mutant.function, mutant.text, tests)
        finally:
            idle.put(worker)

    with contextlib.ExitStack() as stack:
        for _ in range(jobs):
            worker = Worker()
            stack.callback(worker.close)
            idle.put(worker)
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            try:
                yield from pool.map(try_one, mutants)
            finally:
                pool.shutdown(cancel_futures=True)


def report(outcomes, equivalent, stale):
    """Return the report: a table, what has survived, and what is in vain in the list."""
    words = "killed", "timed out", "survived", "not run", "equivalent"
    counts = collections.defaultdict(collections.Counter)
    for mutant, outcome in [*outcomes.items(), *((mutant, words[-1]) for mutant in equivalent)]:
        counts[section_of(mutant.function) or "other"][outcome] += 1
    text = "| section | mutants | %s |\n|---|%s\n" % (" | ".join(words), "---|" * (len(words) + 1))
    for name in sorted(counts):
        cells = [name, sum(counts[name].values()), *(counts[name][word] for word in words)]
        text += "| %s |\n" % " | ".join(map(str, cells))
    rare = collections.Counter(
        m.function for m, outcome in outcomes.items() if outcome == "not run"
    )
    if rare:
        text += "\nNot run: %s\n" % ", ".join("%s (%d)" % item for item in rare.items())
    survivors = [str(mutant) for mutant, outcome in outcomes.items() if outcome == "survived"]
    if survivors:
        text += "\nSurvived, and not examined yet:\n\n" + "\n".join(survivors)
    if stale:
        text += "\nIn equivalent.txt, but there is no such mutant:\n\n"
        text += "\n".join("%s #%d\n- %s\n+ %s\n" % key for key in stale)
    return text


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--section", action="append", help=", ".join(SECTIONS) + ", or a pattern")
    parser.add_argument(
        "--jobs", type=outputs.positive_int, default=1, help="how many at once (default: 1)"
    )
    parser.add_argument("--report", type=outputs.new_file, help="a file for the report")
    options = parser.parse_args(arguments)
    setup_env.reexec_in_venv(REQUIREMENTS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: all is ended
    wanted = options.section or list(SECTIONS)
    source = CLIENT.read_text(encoding="utf-8")
    try:
        reasons = read_equivalent(EQUIVALENT.read_text(encoding="utf-8"))
        found = [
            mutant
            for function, node in functions_of(ast.parse(source))
            if any(
                section_of(function) == one or fnmatch.fnmatchcase(function, one) for one in wanted
            )
            for mutant in mutants_of(source, function, node)
        ]
        if not found:
            parser.error("no function of the client is meant by " + ", ".join(wanted))
        equivalent = [mutant for mutant in found if mutant.key in reasons]
        mutants = [mutant for mutant in found if mutant.key not in reasons]
        functions = {mutant.function for mutant in found}
        keys = {mutant.key for mutant in found}
        stale = [key for key in reasons if key[0] in functions and key not in keys]
        say("%d mutants, %d of them equivalent" % (len(found), len(equivalent)))
        outcomes = {}
        for mutant, outcome in try_all(mutants, options.jobs):
            outcomes[mutant] = outcome
            if outcome == "survived":
                print("\n%s" % mutant, flush=True)
            if len(outcomes) % REPORT_EVERY == 0:
                say("... %d of %d" % (len(outcomes), len(mutants)))
    except MutateError as error:
        say("failed: %s" % error)
        return 2
    text = report(outcomes, equivalent, stale)
    print(text)
    if options.report:
        for wrong in outputs.attempt(outputs.write, options.report, text):
            say("failed: %s" % wrong)
            return 2
    return 1 if stale or "survived" in outcomes.values() else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
