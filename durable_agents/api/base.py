"""Define the base class of all views, which fixes every REST framework setting except authentication and throttling.

The authentication and throttle classes are those of the project. The renderer, the parser, the pagination, the error
format and all other settings are fixed here, so that the API is the same in every project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import connections
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.schemas.inspectors import ViewInspector
from rest_framework.views import APIView

from durable_agents import throttles
from durable_agents.actors import Actor
from durable_agents.api.csrf import check_visitor, send_token, token_before_body
from durable_agents.api.errors import answer
from durable_agents.api.json_bodies import AlwaysJSON, BoundedParser, StrictRenderer
from durable_agents.api.openapi.operations import Operation
from durable_agents.conf import config
from durable_agents.models import Thread, ToolCall
from durable_agents.policies import actor, public_agents, public_thread, public_tool_call


class Door(BasePermission):
    """Admits signed-in callers. Other callers are admitted only if the policy allows the action with some
    public agent.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the caller may use the view at all. The policy is checked again for the agent or the
        thread.
        """
        if request.user.is_authenticated:
            return True
        action = view.action if isinstance(view, AgentsView) else None
        return action is not None and bool(public_agents(request, action))


_SCHEMA: ViewInspector | None = None
if find_spec("drf_spectacular"):  # an optional dependency
    from durable_agents.api.openapi.schema import OperationSchema

    _SCHEMA = OperationSchema()


class AgentsView(APIView):
    """A view of this API: each handler is an ``Operation``."""

    renderer_classes = (StrictRenderer,)
    parser_classes: Sequence[type[BaseParser]] = (BoundedParser,)
    permission_classes: Sequence[type[BasePermission]] = (Door,)
    content_negotiation_class = AlwaysJSON
    metadata_class = None
    versioning_class = None
    via = "rest"
    schema = _SCHEMA

    @classmethod
    def as_view(cls, **options: object) -> Any:
        """Return the view, exempt from the ``ATOMIC_REQUESTS`` of every database."""
        view: Callable[..., HttpResponseBase] = super().as_view(**options)
        # A transition can be retried after a conflict only if it owns its transaction. Also, with ATOMIC_REQUESTS the
        # commit could fail after the response was built, outside the code that turns database errors into responses. A
        # router may keep threads in any database, so every database is exempt.
        for alias in connections:
            view = non_atomic_requests(using=alias)(view)
        return view

    @property
    def operation(self) -> Operation | None:
        """The requested operation; None for an HTTP method that the view does not have."""
        handler = getattr(self, str(self.request.method).lower(), None)
        operation: Operation | None = getattr(handler, "operation", None)
        return operation

    @property
    def action(self) -> str | None:
        """The policy's name for the requested action; None for an HTTP method that the view does not have."""
        return self.operation.action if self.operation else None

    def check_throttles(self, request: Request) -> None:
        """Count the request with the project's throttle classes and with ``THROTTLES``."""
        super().check_throttles(request)
        throttles.count("requests", request)
        if self.operation is None or not self.operation.sends:
            return
        if self.action == "create":
            # A thread that is created without a message begins no run. Only this action needs the parsed body for the
            # decision.
            body = request.data
            if not isinstance(body, Mapping) or (body.get("prompt") is None and body.get("parts") is None):
                return
        throttles.count("sends", request)

    def thread(self, request: Request, thread_id: str) -> Thread:
        """Return the thread that the path names, if the policy allows the caller this view's action on it."""
        return public_thread(request, thread_id, str(self.action))

    def actor(self, request: Request, thread: Thread | None = None) -> Actor:
        """Return the actor to record for what the caller does to this thread."""
        return actor(request, via=self.via, thread=thread)

    def tool_call(self, request: Request, thread_id: str, tool_call_id: str, *, left_to: str | None = None) -> ToolCall:
        """Return the tool call that the path names, if the caller may decide it in this way."""
        return public_tool_call(request, thread_id, tool_call_id, str(self.action), left_to=left_to)

    def get_exception_handler(self) -> Callable[[Exception, Mapping[str, object]], Response | None]:
        """Return the exception handler of this API."""
        return answer

    def initialize_request(self, request: HttpRequest, *args: object, **kwargs: object) -> Request:
        """Return the request. If the client sends the body in chunks, set a length for it."""
        # A chunked body has no Content-Length, and REST framework would take the request for one without a body.
        if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
            request.META["CONTENT_LENGTH"] = str(config().max_body_bytes)
        return super().initialize_request(request, *args, **kwargs)

    def perform_authentication(self, request: Request) -> None:
        """Authenticate the caller, so that policies always get a user."""
        with token_before_body(request):
            user: object = request.user
            if user is None:  # a project may set REST framework's UNAUTHENTICATED_USER to None
                request.user = AnonymousUser()
            if not request.user.is_authenticated:
                check_visitor(request)

    def check_permissions(self, request: Request) -> None:
        """Admit the caller or raise an error. A visitor gets the CSRF token that the next request needs."""
        super().check_permissions(request)
        if not request.user.is_authenticated:
            send_token(request)
