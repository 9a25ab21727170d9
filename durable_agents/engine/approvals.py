"""Decide whether a tool call needs approval: ``needs_approval`` of the tool is a boolean, or a function of the call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from durable_agents.agents import Tool, ToolContext, find_among
from durable_agents.engine.runtime import Runtime
from durable_agents.engine.tool_context import context_of
from durable_agents.lifecycle import Claim, NewCall, database, is_signed
from durable_agents.logs import log, log_error
from durable_agents.models import Stream, Thread, ToolCall


async def with_approvals(
    runtime: Runtime, claim: Claim, tools: Mapping[str, Tool], calls: Sequence[NewCall]
) -> Sequence[NewCall]:
    """Return the calls of a step, and set ``needs_approval`` of each call. If the tool's ``needs_approval`` is a
    function, the call gets the result of that function.
    """
    if not any(_tool_that_decides(tools, call) for call in calls):
        return calls
    thread, message_id = await runtime.in_database(_thread_of, claim)
    decided: list[NewCall] = []
    for call in calls:
        tool = _tool_that_decides(tools, call)
        if tool is None:
            decided.append(call)
            continue
        context = context_of(thread, call, tool, message_id=message_id, attempt=1, idempotency_key=call.tool_call_id)
        decided.append(replace(call, needs_approval=await _is_needed(runtime, tool, call.arguments, context)))
    return decided


def _tool_that_decides(tools: Mapping[str, Tool], call: NewCall) -> Tool | None:
    """Return the tool of a call if its ``needs_approval`` is a function, or None."""
    tool = None if call.error else find_among(tools, call.tool_name)
    return tool if tool is not None and callable(tool.needs_approval) else None


async def may_run(
    runtime: Runtime, tool: Tool, call: ToolCall, arguments: Mapping[str, object], context: ToolContext
) -> bool:
    """Return whether a call may run: either a person approved exactly these arguments, or the call needs no approval.
    Log an error if the call may not run.

    An approval counts only if the row has a valid signature. An unsigned row was written by an older release. It runs
    only if no approval was requested for it and none is needed now.
    """
    was_requested = call.approval_requested_at is not None
    if not (was_requested or tool.needs_approval) or is_signed(call):
        return True
    if not was_requested and callable(tool.needs_approval) and not await _is_needed(runtime, tool, arguments, context):
        return True
    log(
        logging.ERROR,
        "a call does not run: it has no valid approval",
        action="approval_invalid",
        thread=context.thread_id,
        tool_call=context.tool_call_id,
    )
    return False


async def _is_needed(runtime: Runtime, tool: Tool, arguments: Mapping[str, object], context: ToolContext) -> bool:
    """Return the result of the tool's ``needs_approval`` for the validated arguments, or True if the function fails."""
    decide = tool.needs_approval
    if isinstance(decide, bool):
        return decide
    try:
        validated = await runtime.in_thread(tool.validate, arguments)
        return bool(await runtime.call_user(decide, context, validated))
    except (Exception, SystemExit, KeyboardInterrupt):
        log_error(
            "needs_approval failed: the call waits for approval",
            action="approval",
            thread=context.thread_id,
            tool_call=context.tool_call_id,
        )
        return True


def _thread_of(claim: Claim) -> tuple[Thread, UUID]:
    stream = Stream.objects.using(database()).only("message_id").get(pk=claim.row_id)
    return Thread.objects.using(database()).select_related("owner").get(pk=claim.thread_id), stream.answer_id
