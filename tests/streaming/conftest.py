"""Threads, workers and doorbells as in the tests of the state machine."""

import pytest

from tests.lifecycle.stage import Bells, agent, bells, declare, worker

__all__ = ["agent", "bells", "declare", "worker"]


@pytest.fixture(autouse=True)
def _quiet(bells: Bells) -> None:
    """Keep the queue out of it."""
