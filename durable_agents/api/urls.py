"""Paths of the API. Each answers with and without its trailing slash; the one with it is the name's."""

from collections.abc import Iterator
from importlib.util import find_spec

from django.urls import URLPattern, path

from durable_agents.api import views
from durable_agents.api.base import AgentsView


def _both(route: str, view: type[AgentsView], name: str) -> Iterator[URLPattern]:
    yield path(f"{route}/", view.as_view(), name=name)
    yield path(route, view.as_view(schema=None))


urlpatterns = [
    *_both("agents", views.AgentListView, "agents"),
    *_both("threads", views.ThreadListView, "threads"),
    *_both("threads/<str:thread_id>", views.ThreadView, "thread"),
    *_both("threads/<str:thread_id>/messages", views.MessageListView, "messages"),
    *_both("threads/<str:thread_id>/stop", views.StopView, "stop"),
    *_both("threads/<str:thread_id>/resume", views.ResumeView, "resume"),
    *_both("threads/<str:thread_id>/tool-calls", views.ToolCallListView, "tool-calls"),
]

if find_spec("drf_spectacular"):
    urlpatterns += _both("schema", views.SchemaView, "schema")
