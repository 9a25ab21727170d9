"""The Python of the documentation can be pasted: it is Python, and what it imports from the package is there."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from durable_agents.llm.model_catalog import listed
from tests.architecture.sources import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODEL = re.compile(r'model="([^"]+)"')
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def imported(tree: ast.Module) -> list[tuple[str, str]]:
    """What a block imports from the package: module and name."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    ours = [node for node in found if str(node.module).partition(".")[0] == "durable_agents"]
    return [(str(node.module), alias.name) for node in ours for alias in node.names]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_can_be_pasted(page: Path):
    """Whatever a reader copies imports what there is."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for module, name in imported(ast.parse(block)):
            assert hasattr(importlib.import_module(module), name), f"{module} has no {name}: {block}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_models_of_a_page_exist(page: Path):
    """A model string that litellm does not know is probably misspelled."""
    named = {name for block in BLOCK.findall(page.read_text(encoding="utf-8")) for name in MODEL.findall(block)}
    assert [name for name in named if not listed(name)] == []
