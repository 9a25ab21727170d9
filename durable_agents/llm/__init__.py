"""Model calls. Other packages call models only through the interface ``ModelDoor``.

An implementation takes a history. For every provider, it yields the same types of events and raises the same types of
errors.

- ``types`` contains the interface and the other types.
- ``provider_messages`` builds the messages that a provider reads.
- ``litellm`` calls any provider through the library litellm, which is imported late.
- ``direct`` calls the HTTP APIs of some providers without litellm.
- ``auto_door`` chooses between ``litellm`` and ``direct`` for each call.
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
    MANY_MESSAGES,
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
    "MANY_MESSAGES",
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
"""The implementations of ``ModelDoor`` in this package, by the short names that the setting ``MODEL_DOOR`` accepts."""

_replacements: list[ModelDoor] = []


def door() -> ModelDoor:
    """Return the configured ModelDoor or, within a ``door_replaced`` block, the replacement."""
    return _replacements[-1] if _replacements else configured_door()


@cache
def configured_door() -> ModelDoor:
    """Return an instance of the class in ``DURABLE_AGENTS["MODEL_DOOR"]``.

    The setting is a short name from ``DOORS`` or the import path of a class.
    """
    name = config().model_door
    made: ModelDoor = DOORS[name]() if name in DOORS else import_string(name)()
    return made


def calls_for_real() -> bool:
    """Return whether ``MODEL_DOOR`` names a class of this package. Other classes might not call real providers."""
    return isinstance(configured_door(), tuple(DOORS.values()))


@contextmanager
def door_replaced(by: ModelDoor) -> Iterator[None]:
    """Within the block, use ``by`` in this process instead of the configured ModelDoor. Meant for tests."""
    _replacements.append(by)
    try:
        yield
    finally:
        _replacements.remove(by)


@receiver(setting_changed)
def _forget(*, setting: str, **_: object) -> None:
    if setting == "DURABLE_AGENTS":
        configured_door.cache_clear()
