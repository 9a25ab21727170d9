"""`docs/proof/faults.md` names a test for each fault, and only tests that exist."""

import ast
import re
from collections.abc import Iterator

from tests.architecture.sources import ROOT

FAULTS = [
    f"{group}{number}"
    for group, count in {"A": 14, "B": 6, "C": 3, "D": 19, "E": 8}.items()
    for number in range(1, count + 1)
]
ROW = re.compile(r"^\| (\w+) \| .+ \| (`.+`) \|$", re.MULTILINE)


def rows() -> dict[str, list[str]]:
    """Return the tests of each fault, by full ids."""
    page = (ROOT / "docs/proof/faults.md").read_text(encoding="utf-8")
    return {fault: list(full_ids(re.findall("`([^`]+)`", tests))) for fault, tests in ROW.findall(page)}


def full_ids(tests: list[str]) -> Iterator[str]:
    """Yield ids with the file that the page leaves out where it is the one before."""
    path = ""
    for test in tests:
        path = test.partition("::")[0] or path
        yield f"{path}::{test.partition('::')[2]}"


def exists(test: str) -> bool:
    """Whether the file has a test of this name, or, in JavaScript, with these words in it."""
    path, _, name = test.partition("::")
    file = ROOT / "tests" / path
    if not name or not file.exists():
        return False
    source = file.read_text(encoding="utf-8")
    if file.suffix == ".mjs":
        return name in source
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return name in {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, functions)}


def test_every_fault_has_a_test() -> None:
    assert list(rows()) == FAULTS


def test_every_test_that_is_named_exists() -> None:
    assert [test for tests in rows().values() for test in tests if not exists(test)] == []


def test_a_test_that_does_not_exist_is_noticed() -> None:
    assert not exists("crash/test_kills.py::test_nothing")
    assert not exists("crash/test_nothing.py::test_nothing")
