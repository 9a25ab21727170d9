"""Hides who decides whether a call waits for a person: the tool's declaration, or its function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from durable_agents.agents import Agent, ToolContext
from durable_agents.engine.tools import context_of
from durable_agents.lifecycle import Claim, NewCall, database
from durable_agents.logs import log_error
from durable_agents.models import Stream, Thread

if TYPE_CHECKING:
    from durable_agents.engine.worker import Engine


async def with_approvals(engine: Engine, claim: Claim, agent: Agent, calls: Sequence[NewCall]) -> Sequence[NewCall]:
    """The calls of a step, those marked that a person has to approve."""
    if not any(_has_to_be_asked(agent, call) for call in calls):
        return calls
    thread, message_id = await engine.in_database(_thread_of, claim)
    decided = []
    for call in calls:
        asks = _has_to_be_asked(agent, call)
        needed = asks and await _is_needed(
            engine,
            agent,
            call,
            context_of(thread, call, message_id=message_id, attempt=1, idempotency_key=call.tool_call_id),
        )
        decided.append(replace(call, needs_approval=needed) if asks else call)
    return decided


def _has_to_be_asked(agent: Agent, call: NewCall) -> bool:
    tool = agent.find_tool(call.tool_name)
    return tool is not None and not call.error and callable(tool.needs_approval)


async def _is_needed(engine: Engine, agent: Agent, call: NewCall, context: ToolContext) -> bool:
    """What the tool's function says; one that fails means yes."""
    decide: Any = getattr(agent.find_tool(call.tool_name), "needs_approval", True)
    try:
        return bool(await engine.call_user(decide, context, call.arguments))
    except Exception:
        log_error("needs_approval failed: the call waits for approval", action="approval", thread=context.thread_id)
        return True


def _thread_of(claim: Claim) -> tuple[Thread, UUID]:
    stream = Stream.objects.using(database()).only("message_id").get(pk=claim.row_id)
    return Thread.objects.using(database()).select_related("owner").get(pk=claim.thread_id), stream.answer_id
