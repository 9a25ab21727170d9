"""A plugin for mypy that lets a client tool have ``...`` as its body, whatever the tool returns.

The browser runs a client tool, so its function is never called. mypy cannot know this, and reports a body without a
return statement (``empty-body``). Pyright accepts the body without a plugin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mypy.nodes import CallExpr, ClassDef, Decorator, FuncDef, IfStmt, MypyFile, RefExpr, Statement, StrExpr
from mypy.plugin import Plugin
from mypy.semanal import is_trivial_body


class DurableAgentsPlugin(Plugin):
    """See the module's docstring."""

    def get_additional_deps(self, file: MypyFile) -> list[tuple[int, str, int]]:
        """Mark the client tools of a file, before mypy checks the file. Add no dependencies."""
        for decorated in _decorated(file.defs):
            if is_trivial_body(decorated.func.body) and any(map(_is_client_tool, decorated.original_decorators)):
                # The mark says that the function is never called at run time. mypy then accepts ``...`` as its body.
                decorated.func.is_mypy_only = True
        return []


def _decorated(statements: Sequence[Statement]) -> Iterator[Decorator]:
    """Yield the decorated functions in these statements, also inside functions, classes and ``if`` statements."""
    for statement in statements:
        if isinstance(statement, Decorator):
            yield statement
        if isinstance(statement, FuncDef):
            yield from _decorated(statement.body.body)
        elif isinstance(statement, ClassDef):
            yield from _decorated(statement.defs.body)
        elif isinstance(statement, IfStmt):
            for block in (*statement.body, *filter(None, [statement.else_body])):
                yield from _decorated(block.body)


def _is_client_tool(decorator: object) -> bool:
    if not (isinstance(decorator, CallExpr) and isinstance(decorator.callee, RefExpr)):
        return False
    kind = dict(zip(decorator.arg_names, decorator.args, strict=True)).get("kind")
    is_tool = getattr(decorator.callee, "name", "") == "tool"  # ``tool`` or ``durable_agents.tool``
    return is_tool and isinstance(kind, StrExpr) and kind.value == "client"


def plugin(version: str) -> type[Plugin]:
    """Return the plugin. mypy calls this function."""
    return DurableAgentsPlugin
