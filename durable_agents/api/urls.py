"""URLs of the API. Each URL works with and without a trailing slash; ``reverse()`` returns the URL with the slash."""

from collections.abc import Iterator
from importlib.util import find_spec

from django.urls import URLPattern, path

from durable_agents.api import views
from durable_agents.api.base import AgentsView
from durable_agents.api.views import ai_sdk, attachments, forms


def _both(route: str, view: type[AgentsView], name: str) -> Iterator[URLPattern]:
    yield path(f"{route}/", view.as_view(), name=name)
    yield path(route, view.as_view(schema=None))


_CALL = "threads/<str:thread_id>/tool-calls/<str:tool_call_id>"

urlpatterns = [
    *_both("agents", views.AgentListView, "agents"),
    *_both("threads", views.ThreadListView, "threads"),
    *_both("threads/<str:thread_id>", views.ThreadView, "thread"),
    *_both("threads/<str:thread_id>/messages", views.MessageListView, "messages"),
    *_both("threads/<str:thread_id>/messages/<str:message_id>", views.MessageView, "message"),
    *_both("threads/<str:thread_id>/regenerate", views.RegenerateView, "regenerate"),
    *_both("threads/<str:thread_id>/fork", views.ForkView, "fork"),
    *_both("threads/<str:thread_id>/stop", views.StopView, "stop"),
    *_both("threads/<str:thread_id>/resume", views.ResumeView, "resume"),
    *_both("threads/<str:thread_id>/tool-calls", views.ToolCallListView, "tool-calls"),
    *_both(f"{_CALL}/result", views.ToolResultView, "tool-result"),
    *_both(f"{_CALL}/error", views.ToolErrorView, "tool-error"),
    *_both(f"{_CALL}/approve", views.ApproveView, "approve"),
    *_both(f"{_CALL}/reject", views.RejectView, "reject"),
    *_both(f"{_CALL}/timeout", views.ToolTimeoutView, "tool-timeout"),
    *_both("threads/<str:thread_id>/usage", views.UsageView, "usage"),
    *_both("threads/<str:thread_id>/export", views.ExportView, "export"),
    *_both("attachments", attachments.AttachmentListView, "attachments"),
    *_both("attachments/<str:attachment_id>", attachments.AttachmentView, "attachment"),
    *_both("ws-ticket", views.TicketView, "ws-ticket"),
]

if find_spec("drf_spectacular"):
    urlpatterns += _both("schema", views.SchemaView, "schema")

streams = [
    *_both("threads/<str:thread_id>/events", ai_sdk.EventsView, "events"),
    *_both("chat", ai_sdk.ChatView, "chat"),
    *_both("chat/<str:agent>", ai_sdk.ChatView, "chat-with"),
    *_both("chat/<str:thread_id>/stream", ai_sdk.ChatStreamView, "chat-stream"),
    *_both("chat/<str:agent>/<str:thread_id>/stream", ai_sdk.ChatStreamView, "chat-with-stream"),
    *_both("chat/<str:thread_id>/stop", ai_sdk.ChatStopView, "chat-stop"),
    *_both("chat/<str:agent>/<str:thread_id>/stop", ai_sdk.ChatStopView, "chat-with-stop"),
]
"""The URLs whose responses are streams, and the URLs that stop an answer."""

without_scripts = [
    *_both("forms/threads", forms.ThreadForm, "form-threads"),
    *_both("forms/threads/<str:thread_id>/messages", forms.MessageForm, "form-messages"),
    *_both("forms/threads/<str:thread_id>/stop", forms.StopForm, "form-stop"),
    *_both("forms/threads/<str:thread_id>/resume", forms.ResumeForm, "form-resume"),
    *_both("forms/threads/<str:thread_id>/tool-calls/approve", forms.ApproveForm, "form-approve"),
    *_both("forms/threads/<str:thread_id>/tool-calls/reject", forms.RejectForm, "form-reject"),
]
"""The URLs of the chat's forms for browsers without scripts."""
