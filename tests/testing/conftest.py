"""Every test here may open the shop."""

import pytest

from tests.testing.shop import opened


@pytest.fixture
def shop():
    """Return the shop's agent, forgotten after the test."""
    with opened() as agent:
        yield agent
