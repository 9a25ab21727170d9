"""Run one tool call: load it, check it, call the developer's function, and commit the outcome."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from django.contrib.auth import get_user_model

from durable_agents import lifecycle
from durable_agents.agents import Tool, ToolContext, find_among, registry
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.engine.approvals import may_run
from durable_agents.engine.call_options import resolved_tool, tools_for
from durable_agents.engine.cancellation_source import is_cancelled
from durable_agents.engine.environment import Environment
from durable_agents.engine.resource_errors import WorkerLimitError
from durable_agents.engine.runtime import Runtime
from durable_agents.engine.tool_context import context_of
from durable_agents.engine.tool_progress import ProgressReports
from durable_agents.exceptions import LeaseLostError, ModelError, ToolError
from durable_agents.lifecycle import CallResult, Claim, Handed
from durable_agents.logs import log, log_error
from durable_agents.models import ToolCall, ToolCallStatus, ToolKind
from durable_agents.redaction import described
from durable_agents.strictjson import clean

MASKED = "The tool failed."
LONG_WAIT = 0.02
"""How long a tool call may wait for a slot before the wait counts as long, as a share of the call's time limit. After a
long wait, the time limit starts again when the call gets its slot.
"""
_NOT_AVAILABLE = CallResult(
    status=ToolCallStatus.FAILED, error="The tool is not available any more.", error_code="tool_not_available"
)
_NOT_APPROVED = CallResult(
    status=ToolCallStatus.FAILED,
    error="The approval of this call is not valid, so it did not run. Make the call again if it is still wanted.",
    error_code="approval_invalid",
)


async def run_tool(env: Environment, claim: Claim, handed: Handed | None = None) -> None:
    """Run one attempt at a tool call and store its outcome.

    If the commit that made the row due also claimed it for this process, ``handed`` contains the row. Otherwise, the
    row is read from the database.
    """
    row = handed.row if handed else None
    call = row if isinstance(row, ToolCall) else await env.runtime.load(load_calls, claim)
    job, refusal, ended = None, None, None
    try:
        began_to_wait = time.monotonic()
        if not await env.slots.take(claim, call.tool_name):
            # All slots have been taken for a long time. The call has not begun, so another process can run it.
            await env.runtime.in_transition(lifecycle.release, claim, has_begun=False)
            return
        env.held.begin(claim)
        if call.timeout and time.monotonic() - began_to_wait > LONG_WAIT * call.timeout.total_seconds():
            await env.runtime.in_database(lifecycle.restart_timeout, claim)
        job, refusal = await _checked_job(env, claim, call)
        if job is not None and refusal is None and call.kind != ToolKind.CLIENT:
            ended = await _ended(env, claim, job)
    except lifecycle.AtomicInterruptedError:
        # The connection broke during the transaction. If the transaction was rolled back, ``release`` makes the tool
        # call run again, as after a crash. If it was committed, ``release`` does nothing, because the claim is no
        # longer valid.
        log(logging.WARNING, "an atomic tool was cut off", action="atomic_cut", thread=claim.thread_id)
        await env.runtime.in_transition(lifecycle.release, claim, crashes=1)
        return
    finally:
        env.slots.free(claim)
        env.held.end_function(claim)
    if refusal is not None:
        await env.endings.end(claim, refusal)
        return
    if job is None or ended is None:  # a person has just approved this call, and the browser will run its tool
        await env.runtime.in_transition(lifecycle.announce_tool_call, claim)
        return
    if ended.settled:
        return
    if ended.error is not None and await _may_retry(env.runtime, job, ended.error):
        await _retry_later(env, claim, call, job.tool.retry.delay_seconds(claim.attempt), described(ended.error))
        return
    crashpoint("tool_ended")
    if ended.error is None and job.tool.kind == "deferred":
        await env.runtime.in_transition(lifecycle.announce_tool_call, claim)
        return
    await env.endings.end(claim, _call_result(job, ended))
    crashpoint("tool_committed")


async def _retry_later(env: Environment, claim: Claim, call: ToolCall, delay_seconds: float, detail: str) -> None:
    """Make the call due again after the delay. Schedule the agent's ``on_retry``. ``detail`` describes the error."""
    env.put_off(delay_seconds)
    await env.runtime.in_transition(lifecycle.retry_tool_call, claim, delay_seconds=delay_seconds, detail=detail)
    env.callbacks.dispatch_retry(
        registry.get(call.thread.agent),
        scope="tool",
        thread_id=claim.thread_id,
        stream_id=call.stream_id,
        attempt=claim.attempt,
        max_attempts=call.max_attempts,
        delay_seconds=delay_seconds,
        kind="tool_failed",
        error=detail,
    )


async def _checked_job(env: Environment, claim: Claim, call: ToolCall) -> tuple[_ToolJob | None, CallResult | None]:
    """Find the tool of a call, and check whether the call may run. Return the call's data and the call's outcome.

    - If the call may run, the outcome is None, because it is not known yet.
    - If the tool cannot be found or has changed its kind, the data is None.
    """
    agent = registry.find(call.thread.agent)
    if agent is None:
        return None, _NOT_AVAILABLE
    tool = agent.find_tool(call.name_in_code)
    if call.is_resolved:
        try:
            tool = await resolved_tool(env.runtime, agent, call.thread, call.tool_name)
        except ModelError as error:
            return None, _failed(error)
    if tool is None or tool.kind != call.kind:
        return None, _NOT_AVAILABLE
    job = _tool_job(env, claim, call, tool)
    return job, await _refusal(env.runtime, job, call)


def _failed(error: ModelError) -> CallResult:
    return CallResult(status=ToolCallStatus.FAILED, error=MASKED, error_code="tool_failed", error_detail=str(error))


async def _refusal(runtime: Runtime, job: _ToolJob, call: ToolCall) -> CallResult | None:
    """Return the outcome of a call that must not run, or None if the call is allowed to run.

    A call must not run if it needs an approval and has no valid one, if ``configure`` no longer returns its tool, or if
    ``configure`` fails.
    """
    if not await may_run(runtime, job.tool, call, job.arguments, job.context):
        return _NOT_APPROVED
    try:
        tools = await tools_for(runtime, registry.get(call.thread.agent), call.thread)
    except ModelError as error:
        return _failed(error)
    available = find_among(tools, call.tool_name)
    # ``find_among`` also matches aliases. It may have found a different tool whose alias equals the name in the
    # call.
    return None if available is not None and available.name == job.tool.name else _NOT_AVAILABLE


async def _ended(env: Environment, claim: Claim, job: _ToolJob) -> _Ended:
    """Run the tool until it ends or times out. Return its error instead of raising it.

    Raises:

    - CancelledError if the engine cancels this task.
    - LeaseLostError if this process has lost the lease of the call.
    - AtomicInterruptedError if the transaction of an atomic tool was cut off.
    """
    began, left = time.monotonic(), job.timeout_seconds
    if job.tool.is_async:
        function = _run_async_tool(job)
    elif job.tool.atomic:
        function = env.runtime.in_thread(_run_atomic_tool, claim, job)
    else:
        function = env.runtime.in_thread(_run_sync_tool, job)
    run = asyncio.create_task(function, name=str(claim.row_id))
    run.add_done_callback(_consume_error)
    overdue = asyncio.ensure_future(env.held.overdue(claim))
    try:
        while left is None or left > 0:
            await asyncio.wait({run, overdue}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                return run.result()
            if overdue.done():
                overdue = asyncio.ensure_future(env.held.overdue(claim))
            left = await env.runtime.in_database(lifecycle.seconds_left, claim)  # the deadline may have changed
    finally:
        overdue.cancel()
        run.cancel()  # do not wait for the task, because the tool may ignore the cancellation
    return _Ended(error=ToolError(f"The tool took longer than {time.monotonic() - began:.3g} seconds."))


def _consume_error(run: asyncio.Future[_Ended]) -> None:
    """Read the error of a tool run that nothing awaits any more. Otherwise, asyncio would log the error."""
    if not run.cancelled():
        run.exception()


@dataclass(frozen=True, kw_only=True)
class _ToolJob:
    """The data that a tool call needs from the database."""

    tool: Tool
    stream_id: UUID
    arguments: Mapping[str, object]
    context: ToolContext
    timeout_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """How a tool's function ended: a JSON result, or an error."""

    result: object = None
    error: BaseException | None = None
    settled: bool = False
    """Whether the outcome is stored already, in the tool's own transaction."""


class _ToolChangedError(Exception):
    """The stored arguments were valid for an older version of the tool, but are not valid now."""


def load_calls(claims: Sequence[Claim]) -> dict[UUID, ToolCall]:
    """Load the tool calls of these claims, and return them by row id.

    Rows that other processes have claimed are left out.

    One query loads the calls and the owners of their threads. If a user who does not own the thread has caused a call,
    a second query loads this user.
    """
    fences = {claim.row_id: claim.fence for claim in claims}
    using = lifecycle.database()
    calls = ToolCall.objects.using(using).filter(pk__in=fences).with_asker_pk().select_related("thread__owner")
    rows = [row for row in calls.order_by() if row.fence == fences[row.pk]]
    others = {row.asker_id() for row in rows if row.asker_id() != row.thread.owner_id} - {None}
    # Use the base manager, because a project's default manager might leave out users.
    found = get_user_model()._base_manager.using(using).in_bulk(others) if others else {}
    for row in rows:
        row.asker = row.thread.owner if row.asker_id() == row.thread.owner_id else found.get(row.asker_id())
    return {row.pk: row for row in rows}


def _tool_job(env: Environment, claim: Claim, call: ToolCall, tool: Tool) -> _ToolJob:
    arguments = call.arguments if call.approved_arguments is None else call.approved_arguments
    context = context_of(
        call.thread,
        call,
        tool,
        sender=call.asker,
        message_id=call.message_id,
        attempt=call.attempt,
        idempotency_key=str(call.pk),
    )
    context = replace(
        context, report=partial(_report, env.progress, claim), is_stopped=partial(env.held.is_stopped, claim)
    )
    timeout = None if call.timeout is None else call.timeout.total_seconds()
    return _ToolJob(tool=tool, stream_id=call.stream_id, arguments=arguments, context=context, timeout_seconds=timeout)


def _report(progress: ProgressReports, claim: Claim, value: object) -> None:
    """Store a copy of a tool's progress. If the value is not JSON, the tool's function gets an error."""
    progress.report(claim, clean(value))


def _keywords(job: _ToolJob) -> dict[str, object]:
    """Return the keyword arguments for the tool's function.

    Raises _ToolChangedError if the stored arguments do not fit the tool.
    """
    try:
        values = job.tool.validate(job.arguments)
    except ValueError as error:
        raise _ToolChangedError(f"{lifecycle.TOOL_CHANGED} {error}") from error
    name = job.tool.context_parameter
    return values if name is None else values | {name: job.context}


def _run_sync_tool(job: _ToolJob) -> _Ended:
    """Run a synchronous tool. Exceptions such as SystemExit end only the call, not the worker."""
    try:
        return _Ended(result=job.tool.to_json(job.tool.function(**_keywords(job))))
    except BaseException as error:
        return _Ended(error=error)


def _run_atomic_tool(claim: Claim, job: _ToolJob) -> _Ended:
    """Run the function and store its outcome in one transaction. Roll the transaction back if the function fails."""
    began = time.monotonic()
    try:
        lifecycle.run_atomic(claim, lambda: CallResult(result=job.tool.to_json(job.tool.function(**_keywords(job)))))
    except (LeaseLostError, lifecycle.AtomicInterruptedError):
        raise
    except BaseException as error:
        return _Ended(error=error)
    finally:
        seconds = time.monotonic() - began
        if seconds > config().atomic_warn_seconds:  # on SQLite, the transaction blocks all other writes
            log(
                logging.WARNING,
                "an atomic tool held its transaction for long",
                action="atomic_slow",
                thread=job.context.thread_id,
                tool_call=job.context.tool_call_id,
                seconds=seconds,
            )
    return _Ended(settled=True)


async def _run_async_tool(job: _ToolJob) -> _Ended:
    try:
        return _Ended(result=job.tool.to_json(await job.tool.function(**_keywords(job))))
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        return _Ended(error=error)


async def _may_retry(runtime: Runtime, job: _ToolJob, error: BaseException) -> bool:
    """Return whether to retry the call. If the tool's ``retry_if`` function fails, return False."""
    if job.context.attempt >= job.context.max_attempts or not isinstance(error, Exception):
        return False
    if isinstance(error, _ToolChangedError):
        return False
    if job.tool.retry.retry_if is None:
        return True
    try:
        arguments = await runtime.in_thread(job.tool.validate, job.arguments)
        return bool(await runtime.call_user(job.tool.retry.retry_if, error, job.context, arguments))
    except WorkerLimitError:
        log(logging.WARNING, "retry_if was not called: no thread", action="worker_limit", thread=job.context.thread_id)
        return job.tool.after_crash == "retry"
    except (Exception, SystemExit, KeyboardInterrupt):
        log_error(
            "retry_if failed: the call is not retried",
            action="retry_if",
            thread=job.context.thread_id,
            tool_call=job.context.tool_call_id,
        )
        return False


def _call_result(job: _ToolJob, ended: _Ended) -> CallResult:
    """Return the outcome of the call. The text of a ToolError goes to the model. Other errors are logged, and the model
    gets only a general text.
    """
    error = ended.error
    if error is None:
        return CallResult(result=ended.result)
    detail = described(error)
    if isinstance(error, _ToolChangedError):
        return CallResult(status=ToolCallStatus.FAILED, error=str(error), error_code="tool_changed")
    if isinstance(error, ToolError):
        return CallResult(status=ToolCallStatus.FAILED, error=str(error), error_code=error.code, error_detail=detail)
    log(
        logging.ERROR,
        "tool failed",
        action="tool_failed",
        error=error,
        thread=job.context.thread_id,
        tool_call=job.context.tool_call_id,
    )
    return CallResult(status=ToolCallStatus.FAILED, error=MASKED, error_code="tool_failed", error_detail=detail)
