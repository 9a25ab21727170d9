"""A door to models as a project may write it."""

import time

from durable_agents.llm import LiteLLMDoor, ModelRequest, ModelUsage


class SlowEstimates(LiteLLMDoor):
    """Takes a minute to estimate."""

    def estimate(self, request: ModelRequest, answered: str) -> ModelUsage:
        """Sleep."""
        time.sleep(60)
        raise AssertionError("nobody waits for this")
