"""Measure the rooms of the package: `python -m tests.architecture.sizes` prints a line for each and one for all.

A room is a folder of `durable_agents`, or the modules beside them. For each: how many functions there are, how long
they are (from `def` to the end, docstring included), how many of them are private and used once, how many lines are or
have comments, and how often `Any` is written.
"""

import ast
import functools
import io
import re
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.architecture.sources import ROOT, Function, modules

PACKAGE = "durable_agents"
NO_REASON = re.compile(r"#\s*(noqa|type:|pragma|-{3,})")
"""Comments that are for tools, or that only divide a module."""


@dataclass(kw_only=True)
class Room:
    """What was counted in some modules."""

    name: str
    lengths: list[int] = field(default_factory=list)
    used_once: list[str] = field(default_factory=list)
    """The private functions that are named in one place of their module."""
    lines: int = 0
    comment_lines: int = 0
    any_count: int = 0

    @property
    def median(self) -> float:
        """Return the median of the lengths."""
        return statistics.median(self.lengths)

    @property
    def p90(self) -> int:
        """Return the length that nine of ten functions do not exceed."""
        return sorted(self.lengths)[int(0.9 * (len(self.lengths) - 1))]

    @property
    def used_once_percent(self) -> float:
        """Return how many of the functions are private and used once."""
        return 100 * len(self.used_once) / len(self.lengths)

    @property
    def comment_percent(self) -> float:
        """Return how many of the lines that are not blank have a comment with a reason."""
        return 100 * self.comment_lines / self.lines


def length(function: Function) -> int:
    """Return the lines of a function, from `def` to its end."""
    return (function.end_lineno or 0) - function.lineno + 1


@functools.cache
def rooms() -> list[Room]:
    """Return the rooms of the package, the whole package last."""
    counted: dict[str, Room] = {}
    whole = Room(name="all")
    for path, tree in modules(PACKAGE):
        name = path.parts[1] if len(path.parts) > 2 else "(root)"
        for room in (counted.setdefault(name, Room(name=name)), whole):
            measure(room, path, tree)
    return [room for _, room in sorted(counted.items()) if room.lengths] + [whole]


def measure(room: Room, path: Path, tree: ast.Module) -> None:
    """Add what is in a module to its room."""
    text = (ROOT / path).read_text(encoding="utf-8")
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    names = uses(tree)
    room.lengths += [length(function) for function in functions]
    private = [function.name for function in functions if is_private(function.name)]
    room.used_once += [f"{path} {name}" for name in private if names[name] == 1]
    room.lines += sum(1 for line in text.splitlines() if line.strip())
    room.comment_lines += comment_lines(text)
    room.any_count += names["Any"]


def is_private(name: str) -> bool:
    """Return whether a name has one leading underscore."""
    return name.startswith("_") and not name.startswith("__")


def uses(tree: ast.Module) -> Counter[str]:
    """Return how often each name is used, as a variable or an attribute; imports and definitions do not count."""
    nodes = list(ast.walk(tree))
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    return Counter(names + [node.attr for node in nodes if isinstance(node, ast.Attribute)])


def comment_lines(text: str) -> int:
    """Return how many lines have a comment for readers."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(1 for token in tokens if token.type == tokenize.COMMENT and not NO_REASON.match(token.string))


def table(measured: Iterable[Room]) -> str:
    """Return the measures as text, a line for each room."""
    lines = [f"{'room':<14} functions  median  p90  longest  used once  comments   Any"]
    lines += [
        f"{room.name:<14} {len(room.lengths):>9}  {room.median:>6g}  {room.p90:>3}  {max(room.lengths):>7}"
        f"  {room.used_once_percent:>7.1f} %  {room.comment_percent:>6.2f} %  {room.any_count:>4}"
        for room in measured
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(rooms()))
