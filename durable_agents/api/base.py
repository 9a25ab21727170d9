"""The base class of all API views. It fixes their REST framework settings, except for authentication and throttling.

The project's own authentication and throttle classes apply. The renderer, the parser, the pagination, the error format
and all other settings are fixed here, so that the API is the same in every project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import connections
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.parsers import BaseParser
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.schemas.inspectors import ViewInspector
from rest_framework.views import APIView

from durable_agents import throttles
from durable_agents.actors import Actor
from durable_agents.api.errors import answer
from durable_agents.api.json_bodies import AlwaysJSON, BoundedParser, StrictRenderer
from durable_agents.api.openapi.operation_decorator import Operation
from durable_agents.api.visitor_csrf import check_visitor, send_token, token_before_body
from durable_agents.conf import config
from durable_agents.models import Thread, ToolCall
from durable_agents.policies import actor, public_agents, public_thread, public_tool_call


class Door(BasePermission):
    """Decide who may use the API. Signed-in callers may. Anonymous callers may if the policy permits the action for at
    least one public agent.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the caller may use this view at all. Later, the view asks the policy about the agent or thread
        of the request.
        """
        if request.user.is_authenticated:
            return True
        action = view.action if isinstance(view, AgentsView) else None
        return action is not None and bool(public_agents(request, action))


_SCHEMA: ViewInspector | None = None
# drf-spectacular is an optional dependency.
if find_spec("drf_spectacular"):
    from durable_agents.api.openapi.schema import OperationSchema

    _SCHEMA = OperationSchema()


class AgentsView(APIView):
    """The base class of this API's views. Each handler method is decorated with an ``Operation``."""

    renderer_classes: Sequence[type[BaseRenderer]] = (StrictRenderer,)
    parser_classes: Sequence[type[BaseParser]] = (BoundedParser,)
    permission_classes: Sequence[type[BasePermission]] = (Door,)
    content_negotiation_class = AlwaysJSON
    metadata_class = None
    versioning_class = None
    via = "rest"
    has_token_in_body = False
    """Whether the CSRF token may be in the body, as in an HTML form. Otherwise, it must be in a header. If the header
    is missing and the body is invalid, the error is about the missing token.
    """
    schema = _SCHEMA

    @classmethod
    def as_view(cls, **options: object) -> Any:
        """Return the view function, exempt from ``ATOMIC_REQUESTS`` for every database."""
        view: Callable[..., HttpResponseBase] = super().as_view(**options)
        # Every state change opens its own transaction, so that it can be retried after a conflict. With
        # ``ATOMIC_REQUESTS``, the whole view would be one transaction, and an error at the commit would not reach the
        # exception handler of this API. Exempt every database, because a router may store threads in any of them.
        for alias in connections:
            view = non_atomic_requests(using=alias)(view)
        return view

    @property
    def operation(self) -> Operation | None:
        """The ``Operation`` of the handler for this request; None for an HTTP method that the view does not have."""
        handler = getattr(self, str(self.request.method).lower(), None)
        operation: Operation | None = getattr(handler, "operation", None)
        return operation

    @property
    def action(self) -> str | None:
        """The name that policies use for this request's action; None for an HTTP method that the view does not have."""
        return self.operation.action if self.operation else None

    def check_throttles(self, request: Request) -> None:
        """Apply the project's throttle classes and the ``THROTTLES`` setting to the request."""
        super().check_throttles(request)
        throttles.count("requests", request)
        if self.operation is None or not self.operation.sends:
            return
        if self.action == "create":
            # Creating a thread without a message starts no run, so the rate ``sends`` does not apply.
            body = request.data
            if not isinstance(body, Mapping) or (body.get("prompt") is None and body.get("parts") is None):
                return
        throttles.count("sends", request)

    def thread(self, request: Request, thread_id: str) -> Thread:
        """Return the thread with this id. Raises ThreadNotFoundError if the caller may not view it, and
        PermissionDeniedError if the policy does not allow this view's action on it.
        """
        return public_thread(request, thread_id, str(self.action))

    def actor(self, request: Request, thread: Thread | None = None) -> Actor:
        """Return the actor for the audit log: the caller of this request, and the interface (``rest`` or ``chat``)."""
        return actor(request, via=self.via, thread=thread)

    def tool_call(self, request: Request, thread_id: str, tool_call_id: str, *, left_to: str | None = None) -> ToolCall:
        """Return the tool call with this id. Raises PermissionDeniedError if the caller may not perform this view's
        action on it.

        ``left_to`` names who may perform the action ("owner", "staff", ...). Without it, the tool's ``approved_by`` or
        ``answered_by`` decides.
        """
        return public_tool_call(request, thread_id, tool_call_id, str(self.action), left_to=left_to)

    def get_exception_handler(self) -> Callable[[Exception, Mapping[str, object]], Response | None]:
        """Return the exception handler of this API."""
        return answer

    def initialize_request(self, request: HttpRequest, *args: object, **kwargs: object) -> Request:
        """Return the REST framework request. For a body that is sent in chunks, set a Content-Length first."""
        # A chunked body has no Content-Length. REST framework would then assume that there is no body.
        if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
            request.META["CONTENT_LENGTH"] = str(config().max_body_bytes)
        return super().initialize_request(request, *args, **kwargs)

    def perform_authentication(self, request: Request) -> None:
        """Authenticate the caller, so that policies always get a user."""
        with nullcontext() if self.has_token_in_body else token_before_body(request):
            user: object = request.user
            # A project may set REST framework's ``UNAUTHENTICATED_USER`` to None.
            if user is None:
                request.user = AnonymousUser()
            if not request.user.is_authenticated:
                check_visitor(request)

    def check_permissions(self, request: Request) -> None:
        """Check the view's permissions. An anonymous caller who passes gets the CSRF cookie, which the next request
        needs.
        """
        super().check_permissions(request)
        if not request.user.is_authenticated:
            send_token(request)
