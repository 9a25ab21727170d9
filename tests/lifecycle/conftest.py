"""Every test here notes notifications instead of sending them."""

import pytest

from tests.lifecycle.stage import Bells


@pytest.fixture(autouse=True)
def _quiet(bells: Bells) -> None:
    """Keep the queue out of it."""
