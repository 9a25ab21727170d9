"""A running demo and a real Chromium, which keeps the site's own Content-Security-Policy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.visits import Visit
from tests.demo.running import RunningDemo


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the demo of the browser tests keeps its database, `demo.sqlite3`."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="session")
def demo(chromium: Any, folder: Path) -> Iterator[RunningDemo]:
    """Return a running demo on a database of its own; the browser tests share it."""
    with RunningDemo(folder, "--port", "0") as running:
        yield running


@pytest.fixture
def visit(chromium: Any, demo: RunningDemo) -> Iterator[Visit]:
    """Return what opens pages. The test fails where one of them throws or breaks the policy."""
    visit = Visit(chromium, demo.url)
    yield visit
    visit.close()
    assert visit.complaints == []
