"""Hides what makes a view ours: everything is pinned but who the caller is and how often they may come.

Authentication and throttle classes are the project's; renderer, parser, pagination, error format and the rest of
REST framework's settings are not, so that the API is the same wherever it is mounted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from durable_agents import limits
from durable_agents.api.errors import answer
from durable_agents.api.operations import Operation
from durable_agents.api.wire import AlwaysJSON, BoundedParser, StrictRenderer
from durable_agents.conf import config
from durable_agents.models import Thread, ToolCall
from durable_agents.policies import public_agents, public_thread, public_tool_call


class Door(BasePermission):
    """Lets signed-in callers in, and others only where the policy allows what they came for with some public agent."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether the caller may come in at all; the policy is asked again about the agent or the thread."""
        if request.user.is_authenticated:
            return True
        action = view.action if isinstance(view, AgentsView) else None
        return action is not None and bool(public_agents(request, action))


def _schema() -> Any:
    """What describes a view to drf-spectacular; None where that extra is not installed."""
    if not find_spec("drf_spectacular"):
        return None
    from durable_agents.api.schema import OperationSchema  # noqa: PLC0415 - an extra

    return OperationSchema()


def _brings_message(body: Any) -> bool:
    return isinstance(body, Mapping) and any(body.get(name) is not None for name in ("prompt", "parts"))


class AgentsView(APIView):
    """A view of this API: each handler is an ``Operation``."""

    renderer_classes = (StrictRenderer,)
    parser_classes: Sequence[type[BaseParser]] = (BoundedParser,)
    permission_classes: Sequence[type[BasePermission]] = (Door,)
    content_negotiation_class = AlwaysJSON
    metadata_class = None
    versioning_class = None
    schema = _schema()

    @classmethod
    def as_view(cls, **options: Any) -> Any:
        """The view, outside ``ATOMIC_REQUESTS``: an arrow that owns its transaction can be drawn again when the
        database refused it for another one's sake."""
        return non_atomic_requests(super().as_view(**options))

    @property
    def operation(self) -> Operation | None:
        """What the request asks for; None for a method that there is not."""
        handler = getattr(self, str(self.request.method).lower(), None)
        operation: Operation | None = getattr(handler, "operation", None)
        return operation

    @property
    def action(self) -> str | None:
        """What the request is about to do, in the words of the policy; None for a method that there is not."""
        return self.operation.action if self.operation else None

    def check_throttles(self, request: Request) -> None:
        """Count the request, by the project's own throttle classes and by ``THROTTLES``."""
        super().check_throttles(request)
        limits.count("requests", request)
        if self.operation and self.operation.sends and (self.action != "create" or _brings_message(request.data)):
            limits.count("sends", request)

    def thread(self, request: Request, thread_id: str) -> Thread:
        """The thread that the path names, where the caller may do to it what the request is about to do."""
        return public_thread(request, thread_id, str(self.action))

    def tool_call(self, request: Request, thread_id: str, tool_call_id: str, *, left_to: str | None = None) -> ToolCall:
        """The call that the path names, where the caller is one to whom what the request is about to do is left."""
        return public_tool_call(request, thread_id, tool_call_id, str(self.action), left_to=left_to)

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """Ours."""
        return answer

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """The request; one whose body comes in chunks has no length, which REST framework would take for no body."""
        if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
            request.META["CONTENT_LENGTH"] = str(config().max_body_bytes)
        return super().initialize_request(request, *args, **kwargs)

    def perform_authentication(self, request: Request) -> None:
        """Authenticate; a project may have nobody stand for anonymous callers, but policies are shown somebody."""
        user: Any = request.user
        if user is None:
            request.user = AnonymousUser()
