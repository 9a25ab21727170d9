"""The doors whose promises are tested, and which of them serves a model."""

import pytest

from durable_agents.llm import DirectDoor, LiteLLMDoor, ModelDoor
from durable_agents.llm.direct.request import NotDirectError, target_of

DOORS: dict[str, ModelDoor] = {"litellm": LiteLLMDoor(), "direct": DirectDoor()}


def skip_if_not_served(door: ModelDoor, model: str) -> None:
    """Skip the test for the direct door if the model's provider is not in its table."""
    if isinstance(door, DirectDoor):
        try:
            target_of(model)
        except NotDirectError as error:
            pytest.skip(f"The direct door leaves {model} to litellm: {error}.")
