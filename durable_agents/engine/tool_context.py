"""Build the context of a tool call. Tools and functions such as ``needs_approval`` receive it."""

from __future__ import annotations

from uuid import UUID

from durable_agents.actors import User
from durable_agents.agents import Tool, ToolContext, registry
from durable_agents.lifecycle import NewCall
from durable_agents.models import Thread, ToolCall


def context_of(
    thread: Thread,
    call: ToolCall | NewCall,
    tool: Tool,
    *,
    sender: User,
    message_id: UUID,
    attempt: int,
    idempotency_key: str,
) -> ToolContext:
    """Return the context of a tool call of this thread.

    The context has the current names of the agent and the tool, even if the stored rows have earlier names.
    """
    return ToolContext(
        thread_id=thread.pk,
        tool_call_id=call.tool_call_id,
        tool_name=tool.name,
        agent=registry.names_of(thread.agent)[0],
        owner=thread.owner,
        sender=sender,
        scope=thread.scope,
        context=thread.context,
        metadata=thread.metadata,
        max_attempts=call.max_attempts,
        message_id=message_id,
        attempt=attempt,
        idempotency_key=idempotency_key,
    )
