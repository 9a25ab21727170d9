"""The only door to models: a history goes in, this package's own events and errors come out, whatever the provider.

``calls`` has the words for it, ``history`` says what a provider gets to read. Behind ``litellm_door`` is litellm, which
is imported by ``loading`` alone, and only when a worker makes its first model call: ``asking`` knows its arguments,
``reading`` its answers, ``failures`` its errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from durable_agents.conf import config
from durable_agents.llm.calls import (
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
from durable_agents.llm.history import CONTINUE_PROMPT, Step, Turn, openai_messages
from durable_agents.llm.litellm_door import LiteLLMDoor

__all__ = [
    "CONTINUE_PROMPT",
    "CallArguments",
    "CallStarted",
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
    "configured_door",
    "door",
    "door_replaced",
    "openai_messages",
]

_replacements: list[ModelDoor] = []


def door() -> ModelDoor:
    """The door to models: the configured one, unless another stands in for it."""
    return _replacements[-1] if _replacements else configured_door()


@cache
def configured_door() -> ModelDoor:
    """The door that ``DURABLE_AGENTS["MODEL_DOOR"]`` names."""
    made: ModelDoor = import_string(config().model_door)()
    return made


@contextmanager
def door_replaced(by: ModelDoor) -> Iterator[None]:
    """A block in which another door stands in for the configured one, in this process; for tests."""
    _replacements.append(by)
    try:
        yield
    finally:
        _replacements.remove(by)


def _forget(*, setting: str, **_: object) -> None:
    if setting == "DURABLE_AGENTS":
        configured_door.cache_clear()


setting_changed.connect(_forget)
