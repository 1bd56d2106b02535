"""tools/shrink.py and tools/inlining.py: the same program, with fewer names and functions."""

import ast
import io
import subprocess
import sys

import pytest

import build
import inlining
import list_frames
import shrink
import trees

TEXT = build.read_source()
SWITCHES = build.find_switches(TEXT)


def small(text, kept=frozenset(), **options):
    """Return the text after shrink()."""
    return ast.unparse(shrink.shrink(ast.parse(text), kept, **options)) + "\n"


def outcome(text, call):
    """Return what `call` gives in a module of this text, or what it raises."""
    names = {}
    exec(compile(text, "client", "exec"), names)
    try:
        return eval(call, names)
    except Exception as error:
        return type(error).__name__, str(error)


def configured(profile):
    return build.configure(TEXT, SWITCHES, build.parts_of(profile, SWITCHES))


# ---------------------------------------------------------------------------
# The nodes of a tree
# ---------------------------------------------------------------------------


def test_a_walk_has_the_nodes_of_pythons_own_in_the_same_order():
    bare = (ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop)
    for path in (build.SOURCE, build.ROOT / "tools" / "build.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        expected = [node for node in ast.walk(tree) if not isinstance(node, bare)]
        assert len(expected) > 3000 and trees.walk(tree) == expected


# ---------------------------------------------------------------------------
# Attributes
# ---------------------------------------------------------------------------

CLIENT = """\
class Pipe:
    def __init__(self, size):
        self.amount = size
        self.first_byte = self.longer_name = 0

    def put(self, value):
        self.first_byte += value
        self.longer_name = self.first_byte * self.amount
        return self.longer_name

class MQTTClient:
    def __init__(self, size):
        self._pipe = Pipe(size)
        self._a_private_name = size
        self.public_name = size

    def put(self, value):
        pipe = self._pipe
        self._a_private_name += pipe.first_byte + _helper(value)
        return pipe.put(value), pipe.longer_name, self._a_private_name, self.public_name

def _helper(value):
    return value + 1

def play():
    client = MQTTClient(3)
    return [client.put(value) for value in range(5)], sorted(vars_of(client))

def vars_of(thing):
    return [thing.public_name]
"""


def test_private_attributes_get_names_that_are_there_anyway():
    text = small(CLIENT, is_inlined=False)
    assert outcome(text, "play()") == outcome(CLIENT, "play()")
    for gone in ("_a_private_name", "first_byte", "longer_name", "amount"):
        assert "." + gone not in text, text
    for kept in ("self.public_name", "class Pipe", "def put", "def _helper"):
        assert kept in text, text
    names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    assert names <= shrink.lasting_names(ast.parse(CLIENT)) | {"public_name", "_pipe", "put"}


def test_what_an_application_has_gets_no_name_that_it_may_give_itself():
    tree = ast.parse(small(CLIENT, is_inlined=False))
    client = [n for n in tree.body if getattr(n, "name", "") == "MQTTClient"][0]
    for node in ast.walk(client):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self":
            assert node.attr == "public_name" or shrink.is_unlikely(node.attr), node.attr


def test_a_private_base_of_which_a_build_has_left_nothing_is_gone():
    text = "class _A: pass\nclass _B(_A): pass\nclass C(_B):\n    def f(self): return 1\n"
    tree = ast.parse(small(text))
    assert [node.name for node in tree.body if hasattr(node, "name")] == ["C"]
    assert "type(" not in ast.unparse(tree) and not tree.body[0].bases


def test_two_attributes_of_a_class_never_share_a_name():
    for profile in build.PROFILES:
        tree = ast.parse(build.strip(configured(profile)))
        shrink.merge_classes(tree)
        shrink.find_owners(tree)
        before = attributes_by_class(tree)
        members = {node.name: shrink.names_in_class(node) for node in shrink.classes_of(tree)}
        renamed = shrink.merge_attributes(tree)
        assert len(renamed) > 50
        for owner, names in before.items():
            after = [renamed.get(name, name) for name in sorted(names)]
            assert len(set(after)) == len(after), owner
            for name in names:
                assert renamed.get(name, name) == name or renamed[name] not in members[owner]


def test_a_name_on_the_way_of_a_message_is_no_other_objects_too():
    tree = ast.parse(build.strip(configured("full")))
    shrink.merge_classes(tree)
    shrink.find_owners(tree)
    names = {getattr(n, "attr", getattr(n, "id", "")) for n in ast.walk(tree)}
    assert set(shrink.HOT) <= names, set(shrink.HOT) - names
    renamed = shrink.merge_attributes(tree)
    hot = shrink.hot_names(tree)
    assert len(set(hot)) == len(hot) <= 64 and len(set(hot) - set(shrink.HOT)) > 25
    assert not set(hot) & {new for old, new in renamed.items() if old not in shrink.HOT}


@pytest.mark.parametrize("profile", build.PROFILES)
def test_the_names_on_the_way_of_a_message_stand_in_a_row(profile):
    text = configured(profile)
    tree = shrink.shrink(
        ast.parse(build.strip(text)), build.names_kept(*build.COMPANIONS), is_inlined=True
    )
    names = list_frames.Reader(build.compile_mpy(text)).names
    hot = [name for name in shrink.hot_names(tree) if name in names]
    assert len(hot) > 45 and names[2 : 2 + len(hot)] == hot


def attributes_by_class(tree):
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.owner:
            found.setdefault(node.owner, set()).add(node.attr)
    return found


REFUSED = [
    ("a foreign object", "def other(thing):\n    return thing.first_byte\n"),
    ("an object of two classes", "def other(x):\n    p = Pipe(1)\n    p = x\n    p.first_byte\n"),
    ("a text", "def other(thing):\n    return getattr(thing, 'first_byte')\n"),
    ("any text", "def other(thing, name):\n    return getattr(thing, name)\n"),
    ("a dict", "def other(thing):\n    return thing.__dict__\n"),
    ("a subclass", "class Other(Pipe):\n    def get(self):\n        return self.first_byte\n"),
    ("a method", "class Filters:\n    def first_byte(self):\n        pass\n"),
]


@pytest.mark.parametrize("more", [more for _, more in REFUSED], ids=[name for name, _ in REFUSED])
def test_an_attribute_that_something_else_may_ask_for_keeps_its_name(more):
    text = small(CLIENT + more, is_inlined=False)
    assert "self.first_byte" in text, text
    assert outcome(text, "play()") == outcome(CLIENT, "play()")


def test_what_is_to_be_kept_is_kept_and_nothing_else_gets_the_name():
    text = small(CLIENT, frozenset(["first_byte", "_helper"]), is_inlined=False)
    assert "self.first_byte" in text and "._helper" not in text, text


def test_a_stream_gets_no_name_that_the_interpreter_asks_for():
    text = "from io import IOBase\n" + CLIENT.replace("class Pipe", "class Pipe(IOBase)")
    text += "def close():\n    pass\ndef flush():\n    pass\n"
    attributes = {n.attr for n in ast.walk(ast.parse(small(text))) if isinstance(n, ast.Attribute)}
    assert not attributes & set(dir(io.IOBase)) - {"__init__"}, attributes
    assert outcome(small(text), "play()") == outcome(CLIENT, "play()")


def test_what_boards_and_tools_ask_for_keeps_its_name():
    kept = build.names_kept(*build.COMPANIONS)
    assert {"is_signalled", "_is_ready", "encode_query", "start_thread"} <= kept
    tree = shrink.shrink(ast.parse(build.strip(configured("full"))), kept)
    functions = {n.name for n in ast.walk(tree) if isinstance(n, shrink.FUNCTIONS)}
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert {"_is_ready", "encode_query", "start_thread"} <= functions
    assert "is_signalled" in attributes


def test_everything_public_is_as_in_the_file():
    def public(text):
        tree = ast.parse(text)
        shrink.merge_classes(tree)
        found = {}
        for scope in [tree, *shrink.classes_of(tree)]:
            for node in scope.body:
                if isinstance(node, shrink.FUNCTIONS) and not node.name.startswith("_"):
                    name = "%s.%s" % (getattr(scope, "name", ""), node.name)
                    found[name] = ast.dump(node.args)
        return {k: v for k, v in found.items() if k.split(".")[0] not in shrink.PRIVATE_CLASSES}

    for profile in build.PROFILES:
        text = build.strip(configured(profile))
        before, after = public(text), public(small(text))
        gone = before.keys() - after.keys()
        assert all(name.startswith(".") for name in gone), gone  # functions of the module
        module = {}
        exec("__all__ = " + TEXT.split("__all__ = ")[1].split(")")[0] + ")", module)
        assert not {name[1:] for name in gone} & set(module["__all__"])
        assert {name: before[name] for name in after} == after


# ---------------------------------------------------------------------------
# Classes, dicts, variables
# ---------------------------------------------------------------------------


def test_a_private_base_becomes_part_of_its_only_class():
    text = """\
class _Life:
    here = 1

    def one(self):
        return self.here

class Client(_Life):
    def two(self):
        return self.one() + 1
"""
    merged = small(text)
    assert "_Life" not in merged and outcome(merged, "Client().two()") == 2
    for other in ("_Life()\n", "class Another(_Life):\n    pass\n"):
        assert "class _Life" in small(text + other)
    assert "class _Life" in small(text.replace("two", "one"))
    assert "class _Life" in small(text.replace("self.one() +", "super().one() +"))


def test_a_class_without_a_body_is_the_same():
    text = (
        "class Base(Exception):\n    pass\nclass Other(Base):\n    pass\nclass Alone:\n    pass\n"
    )
    made = small(text)
    assert "class Base" not in made and "class Alone" in made
    for call in ("Other.__name__", "Other.__mro__[1].__name__", "repr(Other(1))"):
        assert outcome(made, call) == outcome(text, call)


def test_a_dict_of_many_words_is_the_same():
    text = "def many(x):\n    return {%s}\n" % ", ".join(
        "'k%d': x + %d" % (n, n) for n in range(9)
    )
    made = small(text)
    assert "k1 k2" in made and outcome(made, "many(1)") == outcome(text, "many(1)")
    for other in (text.replace("'k1'", "'k 1'"), text.replace("'k1'", "x"), "a = {'b': 1}\n"):
        assert small(other) == ast.unparse(ast.parse(other)) + "\n"


def test_the_variables_that_are_used_most_are_named_first(tmp_path, compile_mpy):
    text = "def f(a):\n%s    z = a\n%s    return z\n" % (
        "".join("    v%d = %d\n" % (n, n) for n in range(20)),
        "    z = z + v19\n" * 20,
    )
    made = small(text)
    assert outcome(made, "f(1)") == outcome(text, "f(1)") == 381
    sizes = []
    for name, each in (("before", text), ("after", made)):
        (tmp_path / (name + ".py")).write_text(each)
        compile_mpy(tmp_path / (name + ".py"), tmp_path / (name + ".mpy"), "-O3", "-s", "x.py")
        sizes.append(len((tmp_path / (name + ".mpy")).read_bytes()))
    assert sizes[1] < sizes[0] - 30, sizes
    assert small("def f(a):\n    b = a\n    return b\n").count("while") == 0


# ---------------------------------------------------------------------------
# Functions
# ---------------------------------------------------------------------------

# What a private function does, behind how it is called: each is inlined and gives the same.
INLINED = """\
# nothing is returned: _f(a)
def _f(x):
    log.append(x)

# a sum: r = _f(a)
def _f(x):
    return x + 1

# a default: r = _f(a)
def _f(x, y=5):
    return x + y

# an argument that changes: a = _f(a)
def _f(x):
    x += 1
    return x

# one of two: r = _f(a)
def _f(x):
    if x:
        return 1
    return 2

# one or nothing: r = _f(a)
def _f(x):
    if x:
        return 1
    log.append(x)

# an early end: _f(a)
def _f(x):
    if x:
        return
    log.append(x)

# an error: r = _f(a)
def _f(x):
    if not x:
        raise ValueError
    return x

# found in a loop: r = _f(a)
def _f(x):
    for i in range(9):
        if i > x:
            return i

# found in a loop, or not: r = _f(a)
def _f(x):
    for i in range(3):
        if i > x:
            return i
    return -1

# an endless loop: r = _f(a)
def _f(x):
    while True:
        x += 1
        if x > 5:
            return x

# in a try: r = _f(a)
def _f(x):
    try:
        return 9 // x
    except ZeroDivisionError as e:
        return str(e)
    finally:
        log.append(x)

# in an if in an if: r = _f(a)
def _f(x):
    if x:
        if x > 1:
            return 1
    return 2

# variables of the same names: r, b = _f(b, a)
def _f(x, y):
    r = x
    a = y
    return r, a

# returned: return _f(a)
def _f(x):
    if x:
        return 1
    return 2

# nothing, returned: return _f(a)
def _f(x):
    log.append(x)

# a comprehension of its own: r = _f(a)
def _f(x):
    return [i for i in range(x)]

# one in the other: r = _f(a)
def _g(x):
    a = x + 1
    return a
def _f(x):
    a = _g(x)
    return a

# one in a loop of the other: r = _f(a)
def _g(x):
    if x:
        return x
    return None
def _f(x):
    for r in range(4):
        r = _g(x - r)
        if r is None:
            return r, x
    return x
"""
CALLER = """\
log = []

{function}
def caller(a, b=7):
    r = 0
    for i in range(2):
        {call}
        log.append((a, b, r, i))
    return r, a, b

def play():
    del log[:]
    return [caller(value) for value in (3, 1, 2)], log
"""


def cases(texts):
    """Return a parameter (function, call) for each of the texts."""
    found = []
    for text in texts[2:].split("\n# "):
        head, _, function = text.partition("\n")
        name, call = head.split(": ", 1)
        found.append(pytest.param(function.rstrip() + "\n", call, id=name))
    return found


@pytest.mark.parametrize(("function", "call"), cases(INLINED))
def test_a_function_that_is_called_once_stands_there_and_does_the_same(function, call):
    text = CALLER.format(function=function, call=call)
    made = small(text)
    assert "def _f" not in made and "def _g" not in made, made
    assert outcome(made, "play()") == outcome(text, "play()"), made
    zero = text.replace("(3, 1, 2)", "(3, 0)")
    assert outcome(small(zero), "play()") == outcome(zero, "play()"), made


STAYING = """\
# two calls: r = _f(a) + _f(b)
def _f(x):
    return x

# a part of an expression: r = 1 + _f(a)
def _f(x):
    return x

# no call: r = _f
def _f(x):
    return x

# two loops deep: r = _f([[a]])
def _f(x):
    for i in x:
        for j in i:
            return j

# a loop that is left: r = _f(a)
def _f(x):
    for i in range(x):
        if i:
            break
        return 1
    return 2

# a part that goes on: r = _f(a)
def _f(x):
    if x:
        if x > 1:
            return 1
        x = 4
    log.append(x)
    return 2

# a try that goes on: r = _f(a)
def _f(x):
    try:
        return x
    except OSError:
        pass
    return 2

# a variable of the caller: r = _f(a)
def _f(x):
    return b(x)
def b(x):
    return x

# a closure: r = _f(a)()
def _f(x):
    return lambda: x

# a comprehension: r = _f(a)
def _f(x):
    y = 2
    return [i + y for i in range(x)]

# a keyword: r = _f(x=a)
def _f(x):
    return x

# many arguments: r = _f(a)
def _f(*x):
    return x

# a generator: r = _f(a)
def _f(x):
    yield x

# a text: r = _f(a)
def _f(x):
    return x
NAME = '_f'
"""


@pytest.mark.parametrize(("function", "call"), cases(STAYING))
def test_what_can_not_be_put_elsewhere_stays(function, call):
    text = CALLER.format(function=function, call=call)
    made = small(text)
    assert "def _f" in made, made
    if "yield" not in text and call != "r = _f":
        assert outcome(made, "play()") == outcome(text, "play()"), made


def test_a_hot_function_and_one_that_is_kept_stay_as_they_are():
    text = CALLER.format(function="def _f(x):\n    return x\n", call="r = _f(a)")
    assert "def _f" in small(text, frozenset(["_f"]))
    assert "def _f" in small(text.replace("caller", "publish"))


def test_a_method_is_put_where_its_object_is_known():
    text = """\
class Pipe:
    def __init__(self):
        self.size = 1

    def grow(self, by):
        self.size += by
        return self.size

class Client:
    def __init__(self):
        self._pipe = Pipe()

    def play(self, by):
        size = self._pipe.grow(by)
        return size, self._pipe.size

def other(thing):
    return {}
"""
    made = small(text.format("1"))
    assert "def grow" not in made and outcome(made, "Client().play(4)") == (5, 5), made
    made = small(text.format("thing.grow(1)").replace("self._pipe.grow(by)", "1"))
    assert "def grow" in made, "whose method is it?"
    assert "def play" in small(text.format("1") + "def f():\n    c = Client()\n    c.play(1)\n")


def test_a_generator_is_put_into_another():
    text = """\
def _inner(count):
    for i in range(count):
        got = yield i
        if got:
            return got
    return "end"

def outer(count):
    result = yield from _inner(count)
    yield result

def play(value):
    generator = outer(3)
    return [next(generator), generator.send(value), next(generator, None)]
"""
    made = small(text)
    assert "def _inner" not in made, made
    for call in ("play(0)", "play(5)", "list(outer(2))", "list(outer(0))"):
        assert outcome(made, call) == outcome(text, call)


@pytest.mark.parametrize("profile", build.PROFILES)
def test_a_traceback_names_functions_of_the_file_only(profile):
    names = {frame.name.split(".")[-1] for frame in list_frames.frames_of(profile)}
    tree = ast.parse(TEXT)
    there = {node.name for node in ast.walk(tree) if hasattr(node, "name")}
    assert names - there <= {
        build.TEXT_FUNCTION,
        "<module>",
        "<listcomp>",
        "<lambda>",
        "<genexpr>",
    }
    gone = inlining.inline(prepared(profile), frozenset(), shrink.PRIVATE_CLASSES)
    assert len(gone) >= 10 and not names & set(gone)


def prepared(profile):
    tree = ast.parse(build.strip(configured(profile)))
    shrink.merge_classes(tree)
    shrink.find_owners(tree)
    return tree


def test_it_is_the_same_whatever_order_sets_have():
    code = "import sys; sys.path.insert(0, %r); import build, hashlib; " % str(
        build.ROOT / "tools"
    )
    code += "print(hashlib.sha256(build.compile_mpy(build.read_source())).hexdigest())"
    made = set()
    for seed in ("1", "2", "3"):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            timeout=100,
            text=True,
            check=True,
        )
        made.add(ran.stdout)
    assert len(made) == 1
