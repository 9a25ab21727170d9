"""What a handler takes and gives, said beside it: the OpenAPI schema is made from this."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from durable_agents.api.inputs import Body, Query
from durable_agents.exceptions import DurableAgentsError

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Gives:
    """A body of this shape, or with ``paged`` a page of them with what ``beside`` names as well. A shape of ``bytes``
    is a file of any type; one of ``str`` has its own ``media_type``."""

    shape: type
    media_type: str = "application/json"
    paged: bool = False
    beside: Mapping[str, type] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path. ``action`` is its name in the words of the policy; ``answers`` are the statuses of
    success with what they carry, None for nothing; ``sends`` says that it starts or steers a run, which creating a
    thread does where it comes with a message; ``raises`` are the errors that its kind of path and body does not
    say already."""

    operation_id: str
    action: str
    answers: Mapping[int, Gives | None]
    body: type[Body] | None = None
    query: type[Query] | None = None
    sends: bool = False
    raises: Sequence[type[DurableAgentsError]] = ()

    @property
    def is_paged(self) -> bool:
        """Whether what it answers comes in pages."""
        return any(gives and gives.paged for gives in self.answers.values())

    def __call__(self, handler: Handler) -> Handler:
        """Say it of a handler."""
        handler.operation = self  # type: ignore[attr-defined]
        return handler
