"""Declare the operation of each handler: its parameters, body and responses. The OpenAPI schema is generated
from them.
"""

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
    """A response body of this shape. With ``paged``, the body is a page of such rows, and has the fields of ``beside``
    too. The shape ``bytes`` is a file of any type; the shape ``str`` is a text of this ``media_type``.
    """

    shape: type
    media_type: str = "application/json"
    paged: bool = False
    beside: Mapping[str, type] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    ``action`` is the policy's name for the operation. ``answers`` maps each success status to its body, or to None if
    it has none. ``sends`` says that the operation starts or steers a run; creating a thread does so only with a
    message. ``raises`` lists the errors that do not follow from the path and the body.
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
        """Whether one of the responses is a page."""
        return any(gives and gives.paged for gives in self.answers.values())

    def __call__(self, handler: Handler) -> Handler:
        """Attach the operation to its handler."""
        handler.operation = self  # type: ignore[attr-defined]
        return handler
