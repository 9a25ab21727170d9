"""The decorator that declares the parameters, body and responses of a view's handler. The OpenAPI schema is generated
from these declarations.
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
    """The body of a response.

    - ``shape``: a TypedDict for JSON, ``bytes`` for a file, or ``str`` for text.
    - ``paged``: whether the body is one page of a list of ``shape`` objects.
    - ``beside``: additional fields of a body that is ``paged``.
    """

    shape: type
    media_type: str = "application/json"
    paged: bool = False
    beside: Mapping[str, type] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An HTTP method of a URL path, such as ``POST /threads``.

    - ``action``: the name that policies use for the operation.
    - ``answers``: the response body for each success status; None for an empty response.
    - ``sends``: whether the operation can start or influence a run. If so, the rate ``sends`` of the setting
      ``THROTTLES`` applies.
    - ``raises``: the errors that ``problems_of`` cannot derive from the path and the input.
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
        """Whether one of the responses is a page of a list."""
        return any(gives and gives.paged for gives in self.answers.values())

    def __call__(self, handler: Handler) -> Handler:
        """Attach the operation to the handler, and return the handler."""
        handler.operation = self  # type: ignore[attr-defined]
        return handler
