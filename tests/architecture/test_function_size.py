"""No function is longer or deeper than the house allows; the linter counts statements and branches."""

import ast

from tests.architecture.sizes import Room, comment_lines, length, rooms, uses
from tests.architecture.sources import functions

MAX_LINES = 60
MAX_NESTING = 3
MAX_P90 = 24
MIN_MEDIAN = 7
MAX_USED_ONCE_PERCENT = 12
MIN_COMMENT_PERCENT = 2.5
MAX_ANY = 170
"""The last four are what was reached: tighten them when they are bettered, never the other way."""
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


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


def test_nine_of_ten_functions_are_read_at_a_glance():
    assert whole_package().p90 <= MAX_P90


def test_half_of_the_functions_have_more_than_a_line_or_two():
    """Whoever follows a call reads a body at each step, not one name after the other."""
    assert whole_package().median >= MIN_MEDIAN


def test_private_functions_that_are_used_once_are_few():
    """Such a function belongs inline if its name says no more than its lines."""
    assert whole_package().used_once_percent <= MAX_USED_ONCE_PERCENT


def test_reasons_are_written_down():
    assert whole_package().comment_percent >= MIN_COMMENT_PERCENT


def test_any_is_rare():
    """A value that is only passed on is an `object`."""
    assert whole_package().any_count <= MAX_ANY


def whole_package() -> Room:
    """Return the measures of all rooms together."""
    return rooms()[-1]


def test_a_comment_for_a_tool_or_a_divider_is_no_reason():
    assert comment_lines("x = 1  # noqa: E501\n# ------ part\ny = 2  # because\n# a race\n") == 2


def test_a_name_is_used_where_it_is_read_and_not_where_it_is_defined():
    assert uses(ast.parse("def f(): pass\nf()\nx.f\nfrom a import f\n"))["f"] == 2
