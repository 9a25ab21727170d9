"""Django admin for threads and their rows: read-only, with actions for threads and tool calls.

No row can be edited here. Stopping and resuming threads need the change permission for threads. Deleting threads needs
the delete permission for threads. Deciding tool calls needs the change permission for tool calls. Each action calls the
same ``lifecycle`` function as the API.
"""

from durable_agents.admin.audit import AuditEntryAdmin
from durable_agents.admin.read_only_admins import (
    AttachmentAdmin,
    DeltaAdmin,
    MessageAdmin,
    PoolAdmin,
    StreamAdmin,
    WorkerProblemAdmin,
)
from durable_agents.admin.threads import ThreadAdmin
from durable_agents.admin.tool_calls import ToolCallAdmin

__all__ = [
    "AttachmentAdmin",
    "AuditEntryAdmin",
    "DeltaAdmin",
    "MessageAdmin",
    "PoolAdmin",
    "StreamAdmin",
    "ThreadAdmin",
    "ToolCallAdmin",
    "WorkerProblemAdmin",
]
