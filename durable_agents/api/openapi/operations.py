"""Describe an operation beside its handler: parameters, body and responses, from which the OpenAPI schema is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from django.http.response import HttpResponseBase

from durable_agents.api.request_serializers import Body, Query
from durable_agents.exceptions import DurableAgentsError

Handler = TypeVar("Handler", bound=Callable[..., HttpResponseBase])


@dataclass(frozen=True, kw_only=True)
class Gives:
    """A body of this shape, or with ``paged`` a page of them with the fields of ``beside``. A shape of ``bytes`` is a
    file of any type; one of ``str`` has its own ``media_type``.
    """

    shape: type
    media_type: str = "application/json"
    paged: bool = False
    beside: Mapping[str, type] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path. ``action`` is its name in the policy; ``answers`` are its success statuses with their
    bodies, None for none; ``sends`` says that it starts or steers a run, which creating a thread does only with a
    message; ``raises`` are its errors beside those of its kind of path and body.
    """

    operation_id: str
    action: str
    answers: Mapping[int, Gives | None]
    body: type[Body] | None = None
    query: type[Query] | None = None
    sends: bool = False
    raises: Sequence[type[DurableAgentsError]] = ()

    @property
    def is_paged(self) -> bool:
        """Whether one of its answers is paged."""
        return any(gives and gives.paged for gives in self.answers.values())

    def __call__(self, handler: Handler) -> Handler:
        """Attach the operation to its handler."""
        handler.operation = self  # type: ignore[attr-defined]
        return handler
