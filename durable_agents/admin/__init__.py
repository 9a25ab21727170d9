"""Django admin for threads and their rows.

No row can be edited. Threads and tool calls have actions, and each action calls the same ``lifecycle`` function as the
API. The actions need these permissions:

- Stop or resume threads: the change permission for threads.
- Fork threads: the add permission for threads.
- Export threads: the view permissions for threads, messages, streams and tool calls.
- Delete threads: the delete permission for threads.
- Decide about tool calls: the change permission for tool calls.
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
