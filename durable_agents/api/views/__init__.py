"""The API's views."""

from durable_agents.api.views.general import AgentListView, SchemaView, TicketView
from durable_agents.api.views.messages import MessageListView, MessageView, RegenerateView
from durable_agents.api.views.threads import (
    ExportView,
    ForkView,
    ResumeView,
    StopView,
    ThreadListView,
    ThreadView,
    UsageView,
)
from durable_agents.api.views.tool_calls import (
    ApproveView,
    RejectView,
    ToolCallListView,
    ToolErrorView,
    ToolResultView,
    ToolTimeoutView,
)

__all__ = [
    "AgentListView",
    "ApproveView",
    "ExportView",
    "ForkView",
    "MessageListView",
    "MessageView",
    "RegenerateView",
    "RejectView",
    "ResumeView",
    "SchemaView",
    "StopView",
    "ThreadListView",
    "ThreadView",
    "TicketView",
    "ToolCallListView",
    "ToolErrorView",
    "ToolResultView",
    "ToolTimeoutView",
    "UsageView",
]
