"""Each test has a storage of its own, people with clients, and an agent that they may talk to."""

from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import agent, api, me, stranger
from tests.lifecycle.stage import Bells, bells, declare, worker

__all__ = ["agent", "api", "bells", "declare", "me", "stranger", "worker"]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, settings: Any, bells: Bells) -> Path:
    """Return the directory in which files are stored."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return tmp_path / "media"
