"""A public agent; notifications are noted instead of sent."""

import pytest

from durable_agents import Agent
from tests.lifecycle.stage import Bells, Declare


@pytest.fixture(autouse=True)
def _quiet(bells: Bells) -> None:
    """Send no notifications."""


@pytest.fixture
def agent(declare: Declare) -> Agent:
    """Return a public agent."""
    return declare(public=True, description="Made for a test.")
