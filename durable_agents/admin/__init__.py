"""Threads and all that belongs to them in Django's admin, to be read, and a few things to be done to threads.

Nothing can be typed in here: whoever may change threads may stop and resume them, whoever may delete them may delete
them, each through the function of ``lifecycle`` that everybody else calls.
"""

from durable_agents.admin.rows import DeltaAdmin, MessageAdmin, PoolAdmin, StreamAdmin, ToolCallAdmin
from durable_agents.admin.threads import ThreadAdmin

__all__ = ["DeltaAdmin", "MessageAdmin", "PoolAdmin", "StreamAdmin", "ThreadAdmin", "ToolCallAdmin"]
