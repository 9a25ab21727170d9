"""The only door to models: takes a history, yields this package's own events and errors, whatever the provider.

``types`` has the types, ``provider_messages`` builds what a provider reads. ``litellm`` is the door to every provider;
it imports the library only when a worker makes its first model call. ``direct`` calls some providers itself, and
``auto_door`` chooses between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from durable_agents.conf import config
from durable_agents.llm.auto_door import AutoDoor
from durable_agents.llm.direct.door import DirectDoor
from durable_agents.llm.litellm.door import LiteLLMDoor
from durable_agents.llm.provider_messages import CONTINUE_PROMPT, Step, Turn, openai_messages
from durable_agents.llm.types import (
    CallArguments,
    CallStarted,
    Finished,
    ModelDoor,
    ModelEvent,
    ModelRequest,
    ModelUsage,
    ReasoningDelta,
    ReasoningHidden,
    ReasoningSigned,
    TextDelta,
    TextSigned,
)

__all__ = [
    "CONTINUE_PROMPT",
    "AutoDoor",
    "CallArguments",
    "CallStarted",
    "DirectDoor",
    "Finished",
    "LiteLLMDoor",
    "ModelDoor",
    "ModelEvent",
    "ModelRequest",
    "ModelUsage",
    "ReasoningDelta",
    "ReasoningHidden",
    "ReasoningSigned",
    "Step",
    "TextDelta",
    "TextSigned",
    "Turn",
    "calls_for_real",
    "configured_door",
    "door",
    "door_replaced",
    "openai_messages",
]

DOORS: dict[str, type[AutoDoor | DirectDoor | LiteLLMDoor]] = {
    "auto": AutoDoor,
    "direct": DirectDoor,
    "litellm": LiteLLMDoor,
}
"""Short names of the doors of this package."""

_replacements: list[ModelDoor] = []


def door() -> ModelDoor:
    """Return the door to models: the configured one, unless ``door_replaced`` is active."""
    return _replacements[-1] if _replacements else configured_door()


@cache
def configured_door() -> ModelDoor:
    """Return the door that ``DURABLE_AGENTS["MODEL_DOOR"]`` names, by a short name or the path of a class."""
    name = config().model_door
    made: ModelDoor = DOORS[name]() if name in DOORS else import_string(name)()
    return made


def calls_for_real() -> bool:
    """Return whether the configured door is one of this package, which asks providers."""
    return isinstance(configured_door(), tuple(DOORS.values()))


@contextmanager
def door_replaced(by: ModelDoor) -> Iterator[None]:
    """Replace the configured door within the block, in this process; for tests."""
    _replacements.append(by)
    try:
        yield
    finally:
        _replacements.remove(by)


@receiver(setting_changed)
def _forget(*, setting: str, **_: object) -> None:
    if setting == "DURABLE_AGENTS":
        configured_door.cache_clear()
