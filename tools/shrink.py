"""Rewrite a client's tree so that the same program takes less of a board's memory.

    tree = shrink.shrink(tree, kept)        of a stripped tree; tools/build.py does it

A name that is new to a board costs 14 to 24 bytes there, a class 107 and a function 60. None of
what follows changes what an application sees, or the name of a function or class that is left.

merge_attributes(): attributes of different classes share one name, and one that is there anyway.
merge_classes(): a private class whose only use is to be the base of another becomes part of it.
make_plain_classes(): a class without a body is made by type(), which needs no code of its own.
make_dicts(): a dict with many keys has one text for them all.
number_variables(): those that a function uses most are named first, which makes its code shorter.
tools/inlining.py: functions that are called in one place stand there.

An attribute is renamed everywhere at once. That is sound if each object that is asked for it is
known to be one of ours, so a simple inference of types looks at each place; where it does not know
the object, the name stays. Public attributes stay, those that a text names (for getattr()), and
those in `kept`. Objects that an application has, and may give attributes of its own, get only
names with an underscore, and those of classes and constants.
"""

import ast
import collections
import functools
import io

import inlining
import trees
from self_compiling import is_private_constant

# Nobody but the client makes objects of these, so that all of their attributes are private.
PRIVATE_CLASSES = ("Outbox", "Decoder", "Filters", "Pipe")

# The names on the way of a message. MicroPython remembers for each name where it was found last,
# in 64 places that all objects share; a name's place is its number in the table of names, modulo
# 64. Two names of one place, or one name in two kinds of objects, send each other back to
# searching: four times as long, and most of a client's hash table is full. So each of these
# attributes gets a name of its own, and build.arrange() numbers them in a row. Where the row
# begins was tried: some places belong to names of the firmware (append, __getattr__).
HOT = (
    "at _ping_mark _sent_ms end _packets_left _is_quiet _full _has_said_bye part _outbox "
    "_counts extras view tail head pending sent _now_ms bytes_left _unproven is_signalled "
    "left sent_count firsts room is_looking marks tokens last_token _has_marks length "
    "byte_count _len _pipe payloads topics on_published _flying _driver _advance is_dropping "
    "has_chores _last _bytes _interrupt _acquire easy_bytes _release is_changed _is_enough "
    "_is_held after _EVERYTHING packet_count _timers have state"
).split()

# What an interpreter asks of an object derived from io.IOBase.
STREAM_NAMES = frozenset(dir(io.RawIOBase)) | {"ioctl"}

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def shrink(tree, kept=frozenset(), is_inlined=True, keeps_names=False):
    """Return the tree of the same module, with fewer names and objects.

    Args:
        tree: of a stripped client; it is changed. kept: names of attributes and functions that
            others use: they stay, and nothing else gets them. is_inlined: functions may grow.
        keeps_names: all functions and attributes stay.
    """
    if not keeps_names:
        merge_classes(tree)  # those without a body, too
    make_plain_classes(tree)
    make_dicts(tree)
    if not keeps_names:
        find_owners(tree)
        if is_inlined:
            inlining.inline(tree, kept, PRIVATE_CLASSES)
        merge_attributes(tree, kept)
    if is_inlined:
        number_variables(tree)
    return ast.fix_missing_locations(tree)


def classes_of(tree):
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


# ---------------------------------------------------------------------------
# Classes
# ---------------------------------------------------------------------------


def merge_classes(tree):
    """Put a private class that is nothing but the base of one other into that."""
    uses = collections.Counter(n.id for n in trees.walk(tree) if isinstance(n, ast.Name))
    calls_super = uses["super"]
    classes = {node.name: node for node in classes_of(tree)}
    for derived in classes.values():
        base = classes.get(getattr(derived.bases[0], "id", "")) if derived.bases else None
        if (
            base is None
            or not base.name.startswith("_")
            or base.bases
            or len(derived.bases) > 1
            or uses[base.name] != 1
            or names_in_class(base) & names_in_class(derived)
            or calls_super
            and any(
                getattr(n, "id", "") == "super" for n in [*trees.walk(base), *trees.walk(derived)]
            )
        ):
            continue
        derived.body[:0] = base.body
        derived.bases = []
        tree.body.remove(base)


def names_in_class(node):
    """Return the names that the body of a class defines."""
    names = {each.name for each in node.body if hasattr(each, "name")}
    for each in node.body:
        if not isinstance(each, (*FUNCTIONS, ast.ClassDef)):
            names |= {
                n.id
                for n in trees.walk(each)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
    return names


def make_plain_classes(tree):
    """Have type() make the classes that have no body."""
    for at, node in enumerate(tree.body):
        if isinstance(node, ast.ClassDef) and node.bases and not node.keywords:
            if not node.decorator_list and all(isinstance(n, ast.Pass) for n in node.body):
                call = ast.Call(
                    func=ast.Name("type", ast.Load()),
                    args=[
                        ast.Constant(node.name),
                        ast.Tuple(node.bases, ast.Load()),
                        ast.Dict([], []),
                    ],
                    keywords=[],
                )
                tree.body[at] = ast.Assign([ast.Name(node.name, ast.Store())], call, lineno=0)


# A dict of so many keys has one text with all of them, and not one object for each.
KEYS_MIN = 8


def make_dicts(tree):
    """Have a dict with many keys made of one text: dict(zip("a b".split(), (1, 2)))."""

    class Maker(ast.NodeTransformer):
        def visit_Dict(self, node):
            self.generic_visit(node)
            keys = [getattr(key, "value", None) for key in node.keys]
            words = [key for key in keys if isinstance(key, str) and key.isidentifier()]
            if len(words) < KEYS_MIN or len(words) < len(keys):
                return node
            text = ast.Constant(" ".join(words))
            split = ast.Call(ast.Attribute(text, "split", ast.Load()), [], [])
            values = ast.Tuple(node.values, ast.Load())
            pairs = ast.Call(ast.Name("zip", ast.Load()), [split, values], [])
            return ast.Call(ast.Name("dict", ast.Load()), [pairs], [])

    Maker().visit(tree)


# ---------------------------------------------------------------------------
# Variables
# ---------------------------------------------------------------------------

# An instruction that uses one of the first 16 variables of a function, arguments included, is a
# byte shorter. They are numbered as they are named first.
SHORT_VARIABLES = 16
NUMBERING_BYTES = 4  # what it costs to name them


def number_variables(tree):
    """Have large functions name first the variables that they use most.

    They stand behind a `break`: mpy-cross numbers them, and drops the code.
    """
    for function in trees.walk(tree):
        if not isinstance(function, FUNCTIONS):
            continue
        first = [each.arg for each in inner_nodes(function.args) if isinstance(each, ast.arg)]
        local = {}  # each variable in the order in which it is named now
        count = collections.Counter()
        for node in inner_nodes(function):
            name = getattr(node, "id", None)
            if isinstance(node, ast.ExceptHandler):
                name = node.name
            if name:
                local.setdefault(name, False)
                count[name] += 1
                if isinstance(node, ast.ExceptHandler) or not isinstance(node.ctx, ast.Load):
                    local[name] = True
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                count[node.target.id] += 1
        shared = {
            each
            for node in trees.walk(function)
            if isinstance(node, (ast.Global, ast.Nonlocal))
            for each in node.names
        }
        now = [name for name in local if local[name] and name not in first and name not in shared]
        room = SHORT_VARIABLES - len(first)
        if room <= 0 or len(now) <= room:
            continue
        best = sorted(now, key=lambda name: (-count[name], name))[:room]
        if sum(count[name] for name in best) - sum(count[name] for name in now[:room]) > (
            NUMBERING_BYTES
        ):
            named = [ast.Assign([ast.Name(name, ast.Store())], ast.Constant(0)) for name in best]
            loop = ast.While(ast.Constant(True), [ast.Break(), *named], [])
            function.body.insert(0, loop)


# ---------------------------------------------------------------------------
# Attributes
# ---------------------------------------------------------------------------


def find_owners(tree):
    """Give each ast.Attribute an `owner`: the class of the object that is asked for it, its name.

    None: it is not known.
    """
    Owners(tree)


class Owners:
    """Which objects are of which class of the module, as far as that is plain.

    Known are `self`, what a class has just made, and what keeps nothing else: an attribute, or a
    variable that is assigned once.
    """

    def __init__(self, tree):
        self._classes = {node.name for node in classes_of(tree)}
        self._attributes = {}  # (class, attribute) -> class, or None
        self._steps = []  # what has to be done each time, in the order of the text: functions
        for node in tree.body:
            self._visit(node, [], None)
        while True:
            self._assigned = collections.defaultdict(set)  # (class, attribute) -> classes or None
            for step in self._steps:
                step()
            found = {}
            for key, classes in self._assigned.items():
                found[key] = classes.pop() if len(classes) == 1 else None
            if found == self._attributes:
                break
            self._attributes = found

    # `scopes`: of each function around it name -> class or None, the innermost last. `owner`: the
    # class whose body it stands in.
    def _visit(self, node, scopes, owner):
        if isinstance(node, SCOPES):
            scopes = [*scopes, self._scope(node, scopes, owner)]
            owner = None
        elif isinstance(node, ast.ClassDef):
            owner = node.name if not scopes else None
        elif isinstance(node, ast.Attribute):
            self._steps.append(functools.partial(self._own, node, scopes))
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._steps.append(functools.partial(self._note, target, node.value, scopes))
        elif isinstance(node, (ast.AugAssign, ast.For)):
            self._steps.append(functools.partial(self._note, node.target, None, scopes))
        for child in trees.children(node):
            self._visit(child, scopes, owner)

    def _own(self, node, scopes):
        node.owner = self._type_of(node.value, scopes)

    def _note(self, target, value, scopes):
        if isinstance(target, (ast.Tuple, ast.List)):
            for each in target.elts:
                self._note(each, None, scopes)
        elif isinstance(target, ast.Attribute):
            owner = self._type_of(target.value, scopes)
            if owner and not (isinstance(value, ast.Constant) and value.value is None):
                kind = value and self._type_of(value, scopes)
                self._assigned[owner, target.attr].add(kind)

    def _type_of(self, node, scopes):
        if isinstance(node, ast.Name):
            for scope in reversed(scopes):
                if node.id in scope:
                    return scope[node.id]
        elif isinstance(node, ast.Attribute):
            owner = self._type_of(node.value, scopes)
            return owner and self._attributes.get((owner, node.attr))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            is_class = node.func.id in self._classes
            is_class = is_class and not any(node.func.id in scope for scope in scopes)
            return node.func.id if is_class else None
        return None

    # The local names of a function, each with its class if it has just one. Filled by a step.
    def _scope(self, node, scopes, owner):
        given = set()
        stores = collections.Counter()
        caught = set()
        shared = set()
        assigned = []
        for each in inner_nodes(node):
            if isinstance(each, ast.arg):
                given.add(each.arg)
            elif isinstance(each, ast.Name):
                if not isinstance(each.ctx, ast.Load):
                    stores[each.id] += 1
            elif isinstance(each, ast.ExceptHandler):
                caught.add(each.name)
            elif isinstance(each, (ast.Global, ast.Nonlocal)):
                shared.update(each.names)
            elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name):
                if len(each.targets) == 1:
                    assigned.append((each.targets[0].id, each.value))
        plain = dict.fromkeys([*given, *stores, *(caught - {None})])
        arguments = getattr(node, "args", None)
        if isinstance(node, FUNCTIONS) and owner and arguments.args:
            if not node.decorator_list or getattr(node.decorator_list[0], "id", "") == "property":
                plain[arguments.args[0].arg] = owner
        known = [each for each in assigned if stores[each[0]] == 1 and each[0] not in given]
        scope = {}

        def fill():
            scope.update(plain)
            for name, value in known:
                scope[name] = self._type_of(value, [*scopes, scope])
            if isinstance(node, FUNCTIONS):
                scope.update(dict.fromkeys(shared))

        self._steps.append(fill)
        return scope


def inner_nodes(function):
    """Return the nodes of a function, but for those of functions and classes in it."""
    found = []
    todo = trees.children(function)[::-1]
    while todo:
        node = todo.pop()
        found.append(node)
        if not isinstance(node, (*SCOPES, ast.ClassDef)):
            todo += trees.children(node)[::-1]
    return found


def merge_attributes(tree, kept=frozenset()):
    """Give private attributes names that are there anyway, as far as the classes allow it.

    Returns:
        Old name -> new name.
    """
    if asks_for_any(tree):
        return {}
    asked = [node for node in trees.walk(tree) if isinstance(node, ast.Attribute)]
    classes = {node.name: node for node in classes_of(tree)}
    # A class and its base have one set of attributes: all of them stay.
    tied = {getattr(base, "id", "") for node in classes.values() for base in node.bases}
    tied |= {
        node.name for node in classes.values() if any(id_of(b) in classes for b in node.bases)
    }
    members = {name: names_in_class(node) for name, node in classes.items()}
    for name, node in classes.items():
        if node.bases:
            members[name] |= STREAM_NAMES
    owners = collections.defaultdict(set)
    uses = collections.Counter()
    stored = set()
    for node in asked:
        owners[node.attr].add(node.owner)
        uses[node.attr] += 1
        if not isinstance(node.ctx, ast.Load):
            stored.add(node.attr)

    def is_private(name, owner):
        is_ours = owner in classes and owner not in tied and name not in members[owner]
        return is_ours and (owner in PRIVATE_CLASSES or is_underscored(name))

    lasting = lasting_names(tree) - kept
    merged = [
        name
        for name in sorted(stored - lasting - kept)
        if all(is_private(name, owner) for owner in owners[name])
    ]
    for name in sorted(owners):
        if name not in merged:
            lasting |= {name} - kept
            for owner in owners[name] & classes.keys():
                members[owner].add(name)
    for node in trees.walk(tree):
        if isinstance(node, ast.Name) and node.id in lasting:
            uses[node.id] += 1
    renamed = {}
    lasting -= set(HOT)
    # No firmware has these, so that they are numbered one after the other.
    ours = {
        n.name for n in trees.walk(tree) if hasattr(n, "name") and is_underscored(n.name or "")
    }
    # The hot ones first; then those that have the least choice, and of these the longest.
    merged.sort(
        key=lambda name: (
            name not in HOT,
            owners[name] <= set(PRIVATE_CLASSES),
            -len(name),
            name,
        )
    )
    for name in merged:
        is_hot = name in HOT
        for other in sorted(lasting, key=lambda o: (is_hot and o not in ours, -uses[o], o)):
            if all(
                other not in members[owner] and (owner in PRIVATE_CLASSES or is_unlikely(other))
                for owner in owners[name]
            ):
                if is_hot:
                    lasting.remove(other)
                renamed[name] = other
                uses[other] += uses[name]
                break
        else:
            lasting.add(name)
        for owner in owners[name]:
            members[owner].add(renamed.get(name, name))
    for node in asked:
        node.was = node.attr
        node.attr = renamed.get(node.attr, node.attr)
    return renamed


def hot_names(tree):
    """Return what those in HOT are called after shrink(), in the same order."""
    now = {node.was: node.attr for node in trees.walk(tree) if hasattr(node, "was")}
    return [now.get(name, name) for name in HOT]


def asks_for_any(tree):
    """True if some attribute is asked for by a name that is known at run time only."""
    for node in trees.walk(tree):
        if isinstance(node, ast.Call) and id_of(node.func) in ("getattr", "setattr", "hasattr"):
            if not isinstance(node.args[1], ast.Constant):
                return True
        if id_of(node) in ("vars", "delattr") or getattr(node, "attr", "") == "__dict__":
            return True
    return False


def id_of(node):
    return getattr(node, "id", "")


def is_underscored(name):
    return name.startswith("_") and not name.endswith("__")


def is_unlikely(name):
    """True for a name that no application gives to an attribute of its own."""
    return is_underscored(name) or name[0].isupper()


def lasting_names(tree):
    """Return the names that a compiled module has in any case: of no variable, no attribute."""
    local = set()
    for node in trees.walk(tree):
        if isinstance(node, SCOPES):
            for each in inner_nodes(node):
                if isinstance(each, ast.arg):
                    local.add(each.arg)
                elif isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load):
                    local.add(each.id)
    names = set()
    # mpy-cross folds a constant, and forgets its name.
    local |= {node.targets[0].id for node in tree.body if is_private_constant(node)}
    for node in trees.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and node.id not in local:
            names.add(node.id)
        elif isinstance(node, ast.keyword):
            names.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.isidentifier():
                names.add(node.value)
    return names - {None}
