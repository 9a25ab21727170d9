"""The tests keep rules of their own: fixtures come from plugins, helpers from modules that hold no tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.sources import ROOT, modules

TEXTS = ("durable_agents", "demo_project", "docs", "tests")
SUFFIXES = {".py", ".md", ".html", ".js", ".mjs", ".css", ".json", ".txt", ".yaml"}
BANNED = re.compile(r"\b(hides|arrows?|doorbells?)\b", re.IGNORECASE)
"""Words that this project once used for what has another name: nothing, transition, notification."""
OTHERS = (
    "tests/architecture/test_tests.py",
    "demo_project/static/",
    "tests/js/",
)
"""This list, and JavaScript, which has arrow keys."""


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Yield the name of each module that is imported, and of each name taken from one, as modules may be."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def is_test_or_conftest(module: str) -> bool:
    """Return whether this is the name of a module of tests or of a conftest."""
    *folders, name = module.split(".")
    path = ROOT.joinpath(*folders, f"{name}.py")
    return module.startswith("tests.") and (name == "conftest" or name.startswith("test_")) and path.exists()


def texts() -> Iterator[Path]:
    """Yield the files whose words are checked."""
    yield ROOT / "README.md"
    for folder in TEXTS:
        yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES and path.is_file())


def test_no_module_imports_from_tests_or_a_conftest() -> None:
    """Whoever changes a test need not ask which other tests use it."""
    found = {
        str(path): names
        for path, tree in modules("tests")
        if (names := sorted({name for name in imported_modules(tree) if is_test_or_conftest(name)}))
    }
    assert found == {}


def test_a_test_module_and_a_conftest_are_recognized() -> None:
    assert is_test_or_conftest("tests.architecture.test_tests")
    assert is_test_or_conftest("tests.api.conftest")
    assert not is_test_or_conftest("tests.lifecycle.stage")


def test_old_words_are_not_used() -> None:
    """A reader must not learn a private language first."""
    found = [
        f"{path.relative_to(ROOT)}:{number} {word.group()}"
        for path in texts()
        if not str(path.relative_to(ROOT)).startswith(OTHERS)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word in BANNED.finditer(line.replace("_", " "))
    ]
    assert found == []
