"""No function is longer or deeper than the house allows; the linter counts statements and branches."""

import ast

from tests.architecture.sources import Function, functions

MAX_LINES = 60
MAX_NESTING = 3
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def length(function: Function) -> int:
    """Return the lines of a function, its docstring not counted."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def nesting(node: ast.AST) -> int:
    """Return how many blocks deep the statements below `node` go; an `elif` is as deep as its `if`."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, SCOPES):
            deepest = max(deepest, nesting(child) + (isinstance(child, BLOCKS) and not is_elif(node, child)))
    return deepest


def is_elif(parent: ast.AST, child: ast.AST) -> bool:
    """Return whether `child` is the `elif` of the `if` that `parent` is."""
    return isinstance(parent, ast.If) and isinstance(child, ast.If) and parent.orelse == [child]


def test_every_function_is_short():
    """A reader sees a function at once."""
    assert {place: length(f) for place, f in functions() if length(f) > MAX_LINES} == {}


def test_every_function_is_shallow():
    """A reader keeps three conditions in mind, not more."""
    assert {place: nesting(f) for place, f in functions() if nesting(f) > MAX_NESTING} == {}


def test_nesting_counts_blocks_but_not_elif():
    """The measure itself measures right."""
    tree = ast.parse("def f():\n if a:\n  pass\n elif b:\n  for x in y:\n   with z:\n    pass\n")
    assert nesting(tree.body[0]) == 3
