"""A storage for each test, and a public agent."""

from pathlib import Path
from typing import Any

import pytest

from durable_agents import Agent
from tests.lifecycle.stage import Bells, Declare


@pytest.fixture(autouse=True)
def root(tmp_path: Path, settings: Any, bells: Bells) -> Path:
    """Return the directory in which files are stored."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return tmp_path / "media"


@pytest.fixture
def agent(declare: Declare) -> Agent:
    """Return a public agent."""
    return declare(public=True, description="Made for a test.")
