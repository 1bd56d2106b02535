"""Walk a tree of `ast` in a fraction of the time that ast.walk() takes: most of a build is that.

for node in trees.walk(tree):           the nodes as they were when it was called

And take somebody's text apart, whatever is in it: quietly().
"""

import ast
import warnings

# What ast.parse() and ast.literal_eval() raise for a text, whatever is in it.
NO_PYTHON = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)

# What these hold is a text or a number, or a node with nothing in it (Load, Add): it is left out.
BARE = frozenset(
    "arg asname attr conversion ctx id kind level module op ops simple type_comment".split()
)


class Fields(dict):
    """A node's class -> its fields that may have nodes."""

    def __missing__(self, kind):
        fields = () if kind is ast.Constant else tuple(n for n in kind._fields if n not in BARE)
        self[kind] = fields
        return fields


FIELDS = Fields()


def children(node):
    """Return the nodes in a node, as ast.iter_child_nodes(), but for the bare ones."""
    found = []
    for name in FIELDS[type(node)]:
        value = getattr(node, name, None)
        if type(value) is list:
            found += [each for each in value if isinstance(each, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def walk(node):
    """Return a node and all nodes in it, in the order of ast.walk(), but for the bare ones."""
    found = [node]
    for each in found:  # it grows meanwhile
        if FIELDS[type(each)]:
            found += children(each)
    return found


def quietly(function, text):
    """Return function(text) without its warnings, which show a part of the text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(text)
