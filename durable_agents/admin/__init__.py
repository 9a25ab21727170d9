"""Threads and all that belongs to them in Django's admin, to be read, and what is to be done to threads and calls.

No row can be edited here: whoever may change threads may stop and resume them, whoever may delete them may delete them,
whoever may change tool calls may decide those that wait for a person, each through the function of ``lifecycle`` that
everybody else calls.
"""

from durable_agents.admin.calls import ToolCallAdmin
from durable_agents.admin.rows import AttachmentAdmin, DeltaAdmin, MessageAdmin, PoolAdmin, StreamAdmin
from durable_agents.admin.threads import ThreadAdmin

__all__ = [
    "AttachmentAdmin",
    "DeltaAdmin",
    "MessageAdmin",
    "PoolAdmin",
    "StreamAdmin",
    "ThreadAdmin",
    "ToolCallAdmin",
]
