"""Write a client's source so that a board compiles it in little memory: piece by piece.

    text = self_compiling.write(stripped, version)      a module's text; tools/build.py strips it

While MicroPython compiles a file, all of it is in memory as a tree: two KB and more for each KB of
text. Here the file is a loader, and behind it the text in pieces of some KB, as comments, which
cost nothing. The loader reads its own file, and compiles and executes each piece in the module's
namespace. A class that is too large for a piece comes as a class without methods, which then get
their place in it, the largest first; and methods that are themselves too large come before those
of all other classes.

A constant `_NAME = const(...)` is known in one piece only, so it is written where it is used; text
and bytes that several pieces use become variables of the module.

Line numbers are left out, as in a .mpy: a line of a piece would tell nobody anything, and they
cost 2 KB. A traceback still names the functions.
"""

import ast
import builtins

import trees

# Larger pieces need a larger heap, smaller ones more time and, as they share less, more RAM.
# Measured with 1,500, 2,000 and 3,000 when this was written, standard: 53, 53 and 54 KiB of heap,
# 38.4, 37.8 and 37.3 KB of RAM; tiny: 44, 42 and 48 KiB.
PIECE_BYTES_MAX = 2000

HEAD = """\
"mqttpipe %s: the pieces below are compiled one after the other, in little memory."
"""

# A line `##` ends a piece, `##Name` one with methods of that class. The name of the function is
# one that each firmware has.
LOADER = """\
def _(path):
    from gc import collect
    try:
        from micropython import opt_level
        level = opt_level()
        opt_level(3)
    except ImportError:
        level = None
    scope = globals()
    lines = []
    with open(path) as file:
        for line in file:
            if line[:2] != "##":
                if line[0] == "#":
                    lines.append(line[1:])
                continue
            text = "".join(lines)
            lines.clear()
            name = line[2:-1]
            names = {} if name else scope
            collect()
            exec(text, scope, names)
            if name:
                for key in names:
                    setattr(scope[name], key, names[key])
    if level is not None:
        opt_level(level)
_(__file__)
del _
"""


class Piece:
    """Statements, and the name of the class that they belong to, or an empty text.

    Attributes: is_shell: a class without methods.
    """

    def __init__(self, owner="", is_shell=False):
        self.owner = owner
        self.is_shell = is_shell
        self.nodes = []

    def size(self):
        return sum(map(size_of, self.nodes))

    def needs(self):
        return {name for node in self.nodes for name in names_needed(node)}

    def text(self):
        """The statements, indented by single blanks."""
        tree = ast.Module(body=self.nodes, type_ignores=[])
        written = ast.unparse(ast.fix_missing_locations(tree))
        lines = []
        for line in written.split("\n"):
            code = line.lstrip(" ")
            lines.append(" " * ((len(line) - len(code)) // 4) + code)
        same = "\n".join(lines) + "\n"
        if ast.dump(ast.parse(same)) != ast.dump(ast.parse(written)):
            raise ValueError("a text of several lines can't be indented anew: %r" % written)
        return same


def write(stripped, version):
    """Return the text of a module that compiles itself.

    Args:
        stripped: text from build.strip(). version: what the first line says.
    """
    pieces = divide(ast.parse(stripped).body)
    inline_constants(pieces)
    lines = [(HEAD % version) + LOADER]
    for piece in pieces:
        if piece.nodes:
            text = piece.text()
            lines.append("#" + text[:-1].replace("\n", "\n#") + "\n##%s\n" % piece.owner)
    text = "".join(lines)
    if not text.isascii():
        raise ValueError("there is a letter in it that is not ASCII")  # a character is a byte
    return text


def size_of(node):
    return len(ast.unparse(node))


def divide(statements):
    """Return the Piece list for the statements of a module."""
    pieces = [Piece()]
    for node in statements:
        if isinstance(node, ast.ClassDef) and size_of(node) > PIECE_BYTES_MAX:
            pieces += divide_class(node)
            pieces.append(Piece())
            continue
        if pieces[-1].size() + size_of(node) > PIECE_BYTES_MAX:
            pieces.append(Piece())
        pieces[-1].nodes.append(node)
    return giants_first(largest_first([piece for piece in pieces if piece.nodes]))


def giants_first(pieces):
    """Put what is too large for a piece before all methods: the largest methods, and long texts.

    They need the largest heap of all. What needs more than there is by then, in a default value or
    in its class, stays where it is.
    """
    begin = next((at for at, piece in enumerate(pieces) if piece.is_shell), 0)
    known = set(dir(builtins)) | {
        name for piece in pieces[:begin] for node in piece.nodes for name in names_made(node)
    }
    shells = {piece.nodes[0].name: piece for piece in pieces if piece.is_shell}
    moved = []
    for piece in sorted(pieces[begin:], key=lambda one: -one.size()):
        parts = [shells[piece.owner], piece] if piece.owner else [piece]
        is_giant = piece.size() > PIECE_BYTES_MAX and not piece.is_shell
        if is_giant and all(part.needs() <= known for part in parts):
            moved += [part for part in parts if part not in moved]
    rest = [piece for piece in pieces[begin:] if piece not in moved]
    return [*pieces[:begin], *moved, *rest]


def names_made(node):
    """Return the names that a statement of a module gives something to."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return {node.id}
    return {name for each in ast.iter_child_nodes(node) for name in names_made(each)}


def names_needed(node):
    """Return the names that are looked up when a statement is executed, not when it is called."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        parts = [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
        return {name for each in parts for name in names_needed(each)}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        return {node.id}
    return {name for each in ast.iter_child_nodes(node) for name in names_needed(each)}


def largest_first(pieces):
    """Put the largest methods of classes that follow each other first.

    A method can't be divided. While little else is in memory, a large one fits.
    """
    ordered = []
    shells = []
    methods = []
    for piece in [*pieces, Piece()]:
        if piece.owner:
            methods.append(piece)
        elif piece.is_shell:
            shells.append(piece)
        else:
            methods.sort(key=lambda one: -one.size())
            ordered += [*shells, *methods, piece]
            shells, methods = [], []
    return ordered[:-1]


def divide_class(node):
    """Return the Pieces for a class: itself up to its first method, then the methods."""
    if any(isinstance(each, ast.Name) and each.id == "super" for each in trees.walk(node)):
        raise ValueError("class %s is too large for a piece, and uses super()" % node.name)
    methods = [isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) for each in node.body]
    first = methods.index(True)
    shell = ast.ClassDef(
        name=node.name,
        bases=node.bases,
        keywords=node.keywords,
        decorator_list=node.decorator_list,
        body=node.body[:first] or [ast.Pass()],
    )
    alone = Piece(is_shell=True)
    alone.nodes.append(shell)
    pieces = [alone, Piece(node.name)]
    for each in node.body[first:]:
        if pieces[-1].size() + size_of(each) > PIECE_BYTES_MAX:
            pieces.append(Piece(node.name))
        pieces[-1].nodes.append(each)
    return pieces


class Inliner(ast.NodeTransformer):
    def __init__(self, values):
        self._values = values

    def visit_Name(self, node):
        is_known = isinstance(node.ctx, ast.Load) and node.id in self._values
        return self._values[node.id] if is_known else node


def is_private_constant(node):
    """True for `_NAME = const(...)`, which MicroPython folds and forgets."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "const"
        and getattr(node.targets[0], "id", "").startswith("_")
    )


def inline_constants(pieces):
    """Write constants where they are used, or make them variables of the module."""
    found = {}
    for piece in pieces:
        for node in piece.nodes:
            if is_private_constant(node):
                found[node.targets[0].id] = node.value.args[0]
    users = {name: [] for name in found}
    for piece in pieces:
        for name in found.keys() & names_used(piece):
            users[name].append(piece)
    for piece in pieces:
        kept = []
        for node in piece.nodes:
            if is_private_constant(node):
                name = node.targets[0].id
                if len(users[name]) < 2:
                    continue
                node.value = found[name]
            kept.append(node)
        values = {name: found[name] for name in found if users[name] == [piece]}
        piece.nodes = [Inliner(values).visit(node) for node in kept]


def names_used(piece):
    return {
        each.id
        for node in piece.nodes
        for each in trees.walk(node)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)
    }
