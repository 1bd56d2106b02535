"""Put private functions that are called in one place there: a board keeps 50 bytes for each.

    gone = inlining.inline(tree, kept, private_classes)     tools/shrink.py does it

A call is replaced where it is all that a statement does: `f(x)`, `y = f(x)`, `return f(x)`; the
same with a method of an object whose class is known, and with `yield from` of a generator in
another. What `return` does in it must be sayable without: by `else`, or by leaving a loop that
nothing else leaves. Whatever does not fit stays a function; so does what a text or `kept` names.

Arguments and variables become variables of the caller. So its frame grows, and MicroPython takes a
large one from the heap at each call. Nothing is put into the functions in HOT, which are on the
way of a message; generators have their frame on the heap anyway, once.
"""

import ast
import collections
import copy

import trees

# Rule 6 of the client: tests/host/test_list_frames.py sees to it.
HOT = frozenset(
    "_has_happened _known_topic _next_id _on_ack _on_packet _on_ping_time _sleep _step "
    "_watch find find_id flush free ioctl is_done move_head next_deadline_ms publish put_ack "
    "put_publish step topic_matches".split()
)

LOOPS = (ast.For, ast.While)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class Refused(Exception):
    """This call has to stay one."""


class Place:
    """A call that is all that a statement of `caller` does, in `block`."""

    def __init__(self, caller, block, statement, call):
        self.caller = caller
        self.block = block
        self.statement = statement
        self.call = call
        self.is_yielded = isinstance(statement.value, ast.YieldFrom)

    def put(self, statements):
        """Put statements there instead."""
        at = self.block.index(self.statement)
        self.block[at : at + 1] = statements


def inline(tree, kept, private_classes):
    """Inline what can be, again and again. The tree is changed.

    Args:
        tree: each ast.Attribute in it has an `owner`: the name of the class of the object that is
            asked for it, or None. kept: names that must stay. private_classes: all methods of
            these are private.

    Returns:
        The names of the functions that are gone.
    """
    gone = []
    while True:
        more = inline_once(tree, kept, private_classes)
        if not more:
            ast.fix_missing_locations(tree)
            return gone
        gone += more


def inline_once(tree, kept, private_classes):
    waiting = candidates(tree, kept, private_classes)
    places = find_places(tree, waiting)
    spare = collections.defaultdict(list)  # caller -> variables that were inlined, free again
    gone = []

    # Those first that are called in it: then what is put somewhere calls nothing more.
    def settle(name):
        scope, function = waiting[name]
        place = places.pop(name)
        for inner in [other for other in places if places[other].caller is function]:
            if inner in places:
                settle(inner)
        owner = scope.name if isinstance(scope, ast.ClassDef) else None
        try:
            statements = body_at(function, owner, place, spare[id(place.caller)])
        except Refused:
            return
        place.put(statements)
        scope.body.remove(function)
        gone.append(name)

    for name in waiting:
        if name in places:
            settle(name)
    return gone


def candidates(tree, kept, private_classes):
    """Return name -> (module or class, function) of private functions that are named once."""
    defined = collections.Counter()
    named = collections.Counter()
    for node in trees.walk(tree):
        if isinstance(node, DEFINITIONS[:-1]):
            defined[node.name] += 1
        elif isinstance(node, ast.Name):
            named[node.id] += 1
        elif isinstance(node, ast.Attribute):
            named[node.attr] += 1
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named[node.value] += 2  # it is public, or for getattr()
    found = {}
    for scope in scopes_of(tree):
        is_open = scope is tree or scope.name in private_classes
        for node in scope.body:
            if (
                isinstance(node, ast.FunctionDef)
                and (is_open or node.name.startswith("_"))
                and not node.name.endswith("__")
                and defined[node.name] == named[node.name] == 1
                and node.name not in kept
                and is_simple(node)
            ):
                found[node.name] = scope, node
    return found


def is_simple(function):
    arguments = function.args
    is_plain = not (arguments.vararg or arguments.kwarg or arguments.kwonlyargs)
    is_plain = is_plain and not function.decorator_list
    odd = (*DEFINITIONS, ast.Global, ast.Nonlocal, ast.Await)
    inner = [node for statement in function.body for node in trees.walk(statement)]
    return is_plain and not any(isinstance(node, odd) for node in inner)


def scopes_of(tree):
    return [tree, *[node for node in tree.body if isinstance(node, ast.ClassDef)]]


def find_places(tree, waiting):
    """Return name -> Place of those functions whose only call is such a statement."""
    places = {}
    for scope in scopes_of(tree):
        for caller in scope.body:
            if not isinstance(caller, ast.FunctionDef):
                continue
            for block, statement in statements_of(caller):
                call = call_of(statement)
                called = call and call.func
                name = getattr(called, "attr", None) or getattr(called, "id", None)
                if name not in waiting or waiting[name][1] is caller:
                    continue
                owner = getattr(waiting[name][0], "name", None)  # the module has none
                if isinstance(called, ast.Attribute):
                    is_found = owner and called.owner == owner
                else:
                    is_found = not owner
                if is_found:
                    places[name] = Place(caller, block, statement, call)
    return places


def statements_of(function):
    """Yield (block, statement) for each statement of a function, not of functions in it."""
    todo = [function.body]
    while todo:
        block = todo.pop()
        for statement in block:
            yield block, statement
            todo += blocks_of(statement)


def blocks_of(statement):
    if isinstance(statement, DEFINITIONS):
        return []
    blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
    blocks += [handler.body for handler in getattr(statement, "handlers", ())]
    return [block for block in blocks if block]


def call_of(statement):
    """Return the call that is all that a statement does, or None."""
    if not isinstance(statement, (ast.Expr, ast.Return, ast.Assign)):
        return None
    value = statement.value
    if isinstance(value, ast.YieldFrom):
        value = value.value
    return value if isinstance(value, ast.Call) else None


# ---------------------------------------------------------------------------
# One call
# ---------------------------------------------------------------------------


def body_at(function, owner, place, spare):
    """Return the statements to stand at a Place instead of the call, or raise Refused.

    Args:
        owner: name of the class whose method it is, or None. spare: variables of the caller that
            nothing needs any more; those that are new are added.
    """
    statement = place.statement
    is_generator = yields(function)
    if place.caller.name in HOT and not yields(place.caller):
        raise Refused
    if is_generator != place.is_yielded or is_generator and not yields(place.caller):
        raise Refused
    if isinstance(statement, ast.Assign) and len(statement.targets) > 1 or place.call.keywords:
        raise Refused
    function = copy.deepcopy(function)
    variables = variables_of(function)
    in_caller = variables_of(place.caller)
    taken = {
        node.id for node in trees.walk(place.caller) if isinstance(node, ast.Name)
    } | in_caller
    foreign = {node.id for node in trees.walk(function) if isinstance(node, ast.Name)} - variables
    if foreign & in_caller or closes_over(function, variables):
        raise Refused
    body = function.body
    if isinstance(statement, ast.Return):
        if not ends(body):
            body.append(ast.Return(ast.Constant(None)))
    else:
        body = without_returns(body, statement)
    values, bound = arguments_at(function, owner, place, in_caller)
    unused = [name for name in spare if name not in foreign]
    names = {}
    for name in sorted(variables - values.keys()):
        if unused:
            names[name] = unused.pop(0)
            continue
        fresh = name
        while fresh in taken | foreign:
            fresh += "_"
        taken.add(fresh)
        spare.append(fresh)
        names[name] = fresh
    renamer = Renamer(names, values)
    statements = [ast.Assign([ast.Name(names[name], ast.Store())], value) for name, value in bound]
    for each in body:
        # What is assigned, or returned, at the end was the caller's before.
        statements.append(renamer.visit(each))
    return statements or [ast.Pass()]


def yields(function):
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in trees.walk(function))


def variables_of(function):
    """Return the names of a function's arguments and variables."""
    names = set()
    for node in trees.walk(function):
        if isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


# Would a variable become one that a comprehension, a function of its own, needs from outside?
def closes_over(function, variables):
    for node in trees.walk(function):
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            own = variables_of(node)
            inside = {each.id for each in trees.walk(node) if isinstance(each, ast.Name)}
            first = {
                each.id
                for each in trees.walk(node.generators[0].iter)
                if isinstance(each, ast.Name)
            }
            if (inside - own - first) & variables:
                return True
    return False


def arguments_at(function, owner, place, in_caller):
    """Return {argument: what stands for it} and [(argument, value)] of those to be assigned."""
    arguments = [each.arg for each in function.args.args]
    given = list(place.call.args)
    if owner:
        given.insert(0, place.call.func.value)
    defaults = function.args.defaults
    lacking = len(arguments) - len(given)
    if lacking < 0 or lacking > len(defaults) or any(isinstance(a, ast.Starred) for a in given):
        raise Refused
    given += (
        [copy.deepcopy(each) for each in defaults[len(defaults) - lacking :]] if lacking else []
    )
    stored = {
        node.id
        for node in trees.walk(function)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    }
    targets = getattr(place.statement, "targets", [])
    assigned = {
        node.id for each in targets for node in trees.walk(each) if isinstance(node, ast.Name)
    }
    values = {}
    bound = []
    for name, value in zip(arguments, given):
        is_same = isinstance(value, ast.Name) and value.id in in_caller - assigned
        if name not in stored and (is_same or isinstance(value, ast.Constant)):
            values[name] = value
        else:
            bound.append((name, value))
    return values, bound


class Renamer(ast.NodeTransformer):
    """Gives variables other names, or puts what is known of them in their place."""

    def __init__(self, names, values):
        self._names = names
        self._values = values

    def visit_Name(self, node):
        if getattr(node, "is_callers", False):
            node.is_callers = False  # it may be put somewhere else, with the caller
            return node
        if node.id in self._values:
            return copy.deepcopy(self._values[node.id])
        node.id = self._names.get(node.id, node.id)
        return node

    def visit_ExceptHandler(self, node):
        node.name = self._names.get(node.name, node.name)
        return self.generic_visit(node)


# ---------------------------------------------------------------------------
# Without return
# ---------------------------------------------------------------------------


def without_returns(body, statement):
    """Return a function's body that gives what it returned to `statement`, which called it."""

    def given(value):
        if isinstance(statement, ast.Assign):
            target = copy.deepcopy(statement.targets[0])
            for node in trees.walk(target):
                node.is_callers = True
            return [ast.Assign([target], value or ast.Constant(None))]
        is_nothing = value is None or isinstance(value, (ast.Constant, ast.Name))
        return [] if is_nothing else [ast.Expr(value)]

    return converted(body, given, isinstance(statement, ast.Assign))


def converted(body, given, is_wanted):
    """Return statements without `return`: what it returns is `given()`. None at their end, too."""
    done = []
    for at, statement in enumerate(body):
        rest = body[at + 1 :]
        if not returns(statement):
            done.append(statement)
            continue
        if isinstance(statement, ast.Return):
            return done + given(statement.value)
        if isinstance(statement, ast.If):
            if ends(statement.body):
                first, second = statement.body, statement.orelse + rest
            elif ends(statement.orelse):
                first, second = statement.body + rest, statement.orelse
            elif not rest or is_short(rest):
                first, second = statement.body + rest, statement.orelse + copy.deepcopy(rest)
            else:
                raise Refused
            first = converted(first, given, is_wanted)
            second = converted(second, given, is_wanted)
            if not first and not second:
                return [*done, ast.Expr(statement.test)]
            if not first:
                test = ast.UnaryOp(ast.Not(), statement.test)
                return [*done, ast.If(test, second, [])]
            return [*done, ast.If(statement.test, first, second)]
        if isinstance(statement, ast.Try):
            return done + converted_try(statement, rest, given, is_wanted)
        if isinstance(statement, LOOPS):
            return done + converted_loop(statement, rest, given, is_wanted)
        raise Refused
    if is_wanted and not ends(body):
        done += given(None)
    return done


# May it stand there twice?
def is_short(rest):
    value = getattr(rest[0], "value", None)
    is_alone = len(rest) == 1 and isinstance(rest[0], ast.Return)
    return is_alone and (value is None or isinstance(value, (ast.Constant, ast.Name)))


def converted_try(statement, rest, given, is_wanted):
    if rest or statement.orelse or any(map(returns, statement.finalbody)):
        # What follows is outside of the `try`, and must be.
        raise Refused
    statement.body = converted(statement.body, given, is_wanted) or [ast.Pass()]
    for handler in statement.handlers:
        handler.body = converted(handler.body, given, is_wanted) or [ast.Pass()]
    return [statement]


def converted_loop(statement, rest, given, is_wanted):
    is_endless = isinstance(statement, ast.While) and getattr(statement.test, "value", False)
    if statement.orelse:
        raise Refused
    behind = [] if is_endless else converted(rest, given, is_wanted)
    if breaks(statement.body) and (rest or is_wanted):  # leaving it would be something else
        raise Refused
    statement.body = leaving(statement.body, given)
    statement.orelse = behind
    return [statement]


def breaks(body):
    """True if there is a `break` of this loop in its body."""
    for statement in body:
        if isinstance(statement, ast.Break):
            return True
        blocks = blocks_of(statement)
        if isinstance(statement, LOOPS):
            blocks = [statement.orelse]
        if any(map(breaks, blocks)):
            return True
    return False


def leaving(body, given):
    """Return the body of a loop, or of a statement in it, with `break` instead of `return`."""
    done = []
    for statement in body:
        if isinstance(statement, ast.Return):
            return [*done, *given(statement.value), ast.Break()]
        if returns(statement):
            if isinstance(statement, LOOPS):
                raise Refused
            for name in ("body", "orelse", "finalbody"):
                if getattr(statement, name, None):
                    setattr(statement, name, leaving(getattr(statement, name), given))
            for handler in getattr(statement, "handlers", ()):
                handler.body = leaving(handler.body, given)
        done.append(statement)
    return done


def returns(statement):
    return any(isinstance(node, ast.Return) for node in trees.walk(statement))


def ends(body):
    """True if nothing behind these statements is ever reached from within them."""
    if not body:
        return False
    last = body[-1]
    if isinstance(last, (ast.Return, ast.Raise)):
        return True
    if isinstance(last, ast.If):
        return ends(last.body) and ends(last.orelse)
    if isinstance(last, ast.Try):
        is_end = ends(last.body) and all(ends(handler.body) for handler in last.handlers)
        return is_end and not last.orelse or ends(last.finalbody)
    if isinstance(last, ast.While):
        return bool(getattr(last.test, "value", False)) and not breaks(last.body)
    return False
