"""Every test here notes the doorbells instead of ringing them."""

import pytest

from tests.lifecycle.stage import Bells, agent, bells, declare, worker
from tests.proof import proof_versions, prove, rounds

__all__ = ["agent", "bells", "declare", "proof_versions", "prove", "rounds", "worker"]


@pytest.fixture(autouse=True)
def _quiet(bells: Bells) -> None:
    """Keep the queue out of it."""
