"""Every operation of the REST API, and how to call it."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern

from durable_agents.api.base import AgentsView
from durable_agents.api.openapi.operation_decorator import Operation
from durable_agents.api.urls import urlpatterns
from tests.api.calls import Api


def operations(patterns: Sequence[URLPattern] = urlpatterns) -> Iterator[tuple[str, str, Operation]]:
    """Yield method, path and operation of each endpoint with its trailing slash."""
    for pattern in patterns:
        view: type[AgentsView] = pattern.callback.cls
        route = str(pattern.pattern)
        if route.endswith("/") and route != "schema/":
            for method in ("get", "post", "put", "patch", "delete"):
                if hasattr(view, method):
                    yield method.upper(), route, getattr(view, method).operation


OPERATIONS = list(operations())
CALL = "threads/<str:thread_id>/tool-calls/<str:tool_call_id>/"
BODIES: dict[str, Any] = {
    "POST threads/": {"agent": "tested"},
    "POST threads/<str:thread_id>/messages/": {"prompt": "Hi there"},
    "PATCH threads/<str:thread_id>/": {"title": "mine now"},
    "PUT threads/<str:thread_id>/messages/<str:message_id>/": {"prompt": "Hi there"},
}


def call(api: Api, method: str, route: str, thread_id: object = "", tool_call_id: str = "call_x") -> Any:
    """Send a request that would do something if it were allowed."""
    path = route.replace("<str:thread_id>", str(thread_id)).replace("<str:tool_call_id>", tool_call_id)
    path = path.replace("<str:message_id>", "asked")
    if route == "attachments/":
        return api.upload(b"Notes.")
    return api.send(method, path, BODIES.get(f"{method} {route}"))


def queries(api, path, *, method="GET"):
    """Return how many queries a request makes."""
    with CaptureQueriesContext(connection) as captured:
        assert api.send(method, path).status_code == 200
    return len(captured)
