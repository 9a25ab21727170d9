"""The story of a message in docs/concepts.md names files and functions that exist, in few stops."""

import ast
import re

from tests.architecture.sources import ROOT

STOP = re.compile(r"^\d+\. \*\*`([\w/]+\.py)`, `([\w.]+)`\*\*", re.MULTILINE)
MAX_STOPS = 9


def test_the_story_of_a_message_enters_no_file_twice():
    files = [file for file, _ in stops()]
    assert 5 < len(files) <= MAX_STOPS
    assert len(set(files)) == len(files)


def test_every_stop_of_the_story_is_defined_in_its_file():
    missing = [(file, name) for file, name in stops() if name not in defined_in(file)]
    assert missing == []


def stops() -> list[tuple[str, str]]:
    """Return the file and the function of each stop."""
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    section = text.partition("## One message, eight stops")[2].partition("\n## ")[0]
    return STOP.findall(section)


def defined_in(file: str) -> set[str]:
    """Return the functions and methods of a module, methods with their class."""
    tree = ast.parse((ROOT / "durable_agents" / file).read_text(encoding="utf-8"))
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    names = {node.name for node in tree.body if isinstance(node, functions)}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return names | {f"{node.name}.{item.name}" for node in classes for item in node.body if isinstance(item, functions)}
