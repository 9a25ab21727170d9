"""The types of the functions that a project passes to agents and tools. Type checkers use them to check a project.

Callbacks get all their arguments by name. A callback that needs only some of them takes the others as ``**kwargs``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from django.utils.functional import Promise

from durable_agents.actors import User

JSONObject: TypeAlias = dict[str, Any]
"""A JSON object as a dict. For callbacks, the reference documentation lists the keys."""
Text: TypeAlias = str | Promise
"""A text, which may be a lazy translation."""
Thread: TypeAlias = Any
"""A ``durable_agents.models.Thread``. The type is ``Any``, because this module must not import the models."""
Instructions: TypeAlias = Callable[[Thread], Text | Awaitable[Text]]
Messages: TypeAlias = Sequence[Mapping[str, object]]
"""Messages in the OpenAI format."""
TransformMessages: TypeAlias = Callable[[list[JSONObject], Thread], Messages | Awaitable[Messages]]
Overrides: TypeAlias = Mapping[str, object] | None
Configure: TypeAlias = Callable[[Thread], Overrides | Awaitable[Overrides]]
MakeTitle: TypeAlias = Callable[[Thread], Text | Awaitable[Text | None] | None]
Decider: TypeAlias = Callable[[User, Any], bool]
"""A function (user, call) that returns whether this user may approve or answer the tool call. It cannot be async."""
Who: TypeAlias = str | Decider | Sequence[str | Decider]
"""Who may approve or answer a tool call: a condition, or several conditions. A user must meet all of them."""


class OnStatusChange(Protocol):
    """Called inside the transaction that changes a thread's status. It cannot be async."""

    def __call__(self, *, thread_id: UUID, status: str, previous_status: str) -> None: ...


class OnCommitStep(Protocol):
    """Called inside the transaction that stores a step. It cannot be async."""

    def __call__(self, *, thread_id: UUID, stream_id: UUID) -> None: ...


class OnMessageComplete(Protocol):
    """Called after a step was stored. ``message`` has the form that the REST API returns."""

    def __call__(
        self,
        *,
        thread_id: UUID,
        stream_id: UUID,
        message: JSONObject,
        usage: JSONObject,
        provider_metadata: JSONObject,
    ) -> object: ...


class OnTurnComplete(Protocol):
    """Called when the model has ended its turn."""

    def __call__(
        self, *, thread_id: UUID, stream_id: UUID, finish_reason: str, provider_metadata: JSONObject
    ) -> object: ...


class OnError(Protocol):
    """Called when a run has failed. ``stream_id`` is None if the run has no stream."""

    def __call__(
        self,
        *,
        thread_id: UUID,
        stream_id: UUID | None,
        error: str,
        kind: str,
        retryable: bool,
        attempt: int,
        max_attempts: int,
        requires_explicit_handling: bool,
    ) -> object: ...


class OnRetry(Protocol):
    """Called when an attempt has failed and will be repeated. ``attempt`` is the number of the failed attempt."""

    def __call__(
        self,
        *,
        thread_id: UUID,
        stream_id: UUID,
        scope: str,
        attempt: int,
        max_attempts: int,
        delay_seconds: float,
        kind: str,
        error: str,
    ) -> object: ...
