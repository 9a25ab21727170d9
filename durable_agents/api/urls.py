"""Paths of the API. Each answers with and without its trailing slash; the one with it is the name's."""

from collections.abc import Iterator
from importlib.util import find_spec

from django.urls import URLPattern, path

from durable_agents.api import views
from durable_agents.api.base import AgentsView


def _both(route: str, view: type[AgentsView], name: str) -> Iterator[URLPattern]:
    yield path(f"{route}/", view.as_view(), name=name)
    yield path(route, view.as_view(schema=None))


_CALL = "threads/<str:thread_id>/tool-calls/<str:tool_call_id>"

urlpatterns = [
    *_both("agents", views.AgentListView, "agents"),
    *_both("threads", views.ThreadListView, "threads"),
    *_both("threads/<str:thread_id>", views.ThreadView, "thread"),
    *_both("threads/<str:thread_id>/messages", views.MessageListView, "messages"),
    *_both("threads/<str:thread_id>/stop", views.StopView, "stop"),
    *_both("threads/<str:thread_id>/resume", views.ResumeView, "resume"),
    *_both("threads/<str:thread_id>/tool-calls", views.ToolCallListView, "tool-calls"),
    *_both(f"{_CALL}/result", views.ToolResultView, "tool-result"),
    *_both(f"{_CALL}/error", views.ToolErrorView, "tool-error"),
    *_both(f"{_CALL}/approve", views.ApproveView, "approve"),
    *_both(f"{_CALL}/reject", views.RejectView, "reject"),
    *_both(f"{_CALL}/timeout", views.ToolTimeoutView, "tool-timeout"),
]

if find_spec("drf_spectacular"):
    urlpatterns += _both("schema", views.SchemaView, "schema")
