"""One tool call: load, check, run the developer's function, report its outcome."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from durable_agents import lifecycle
from durable_agents.agents import Tool, ToolContext, registry
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.engine.cancelling import is_cancelled
from durable_agents.engine.moments import tell_retry
from durable_agents.exceptions import LeaseLostError, ToolError
from durable_agents.lifecycle import CallResult, Claim, NewCall
from durable_agents.logs import log, log_error
from durable_agents.models import Thread, ToolCall, ToolCallStatus
from durable_agents.redaction import described

if TYPE_CHECKING:
    from durable_agents.engine.worker import Engine

MASKED = "The tool failed."
NOT_AVAILABLE = "The tool is not available any more."


async def run_tool(engine: Engine, claim: Claim) -> None:
    """Run one attempt at a tool call to its end, whatever that is."""
    job = _tool_job(engine, claim, await engine.load(load_calls, claim))
    if job is None:
        gone = CallResult(status=ToolCallStatus.FAILED, error=NOT_AVAILABLE, error_code="tool_not_available")
        await engine.in_database(lifecycle.finish_tool_call, claim, gone)
        return
    ended = await _ended(engine, claim, job)
    engine.tool_ended(claim)
    if ended.settled:
        return
    if ended.error is not None and await _may_retry(engine, job, ended.error):
        delay = job.tool.retry.delay_seconds(claim.attempt)
        engine.put_off(delay)
        detail = described(ended.error)
        await engine.in_database(lifecycle.retry_tool_call, claim, delay_seconds=delay, detail=detail)
        _tell_retry(engine, job, delay_seconds=delay, error=detail)
        return
    crashpoint("tool_ended")
    if ended.error is None and job.tool.kind == "deferred":
        await engine.in_database(lifecycle.announce_tool_call, claim)
        return
    await engine.in_database(lifecycle.finish_tool_call, claim, _call_result(job, ended))
    crashpoint("tool_committed")


async def _ended(engine: Engine, claim: Claim, job: _ToolJob) -> _Ended:
    """Run the tool to its end or its timeout. Raises only our own cancellation, and LeaseLostError."""
    began, left = time.monotonic(), job.timeout_seconds
    run = asyncio.create_task(_run(engine, claim, job), name=str(claim.row_id))
    run.add_done_callback(_look_at)
    overdue = asyncio.ensure_future(engine.overdue(claim))
    try:
        while left is None or left > 0:
            await asyncio.wait({run, overdue}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                return run.result()
            if overdue.done():
                overdue = asyncio.ensure_future(engine.overdue(claim))
            left = await engine.in_database(lifecycle.seconds_left, claim)  # it may have been changed meanwhile
    finally:
        overdue.cancel()
        run.cancel()  # nobody waits for it: a function that does not heed this is left behind
    return _Ended(error=ToolError(f"The tool took longer than {time.monotonic() - began:.3g} seconds."))


def _tell_retry(engine: Engine, job: _ToolJob, **facts: Any) -> None:
    context = job.context
    facts |= {"thread_id": context.thread_id, "stream_id": job.stream_id, "kind": "tool_failed"}
    facts |= {"attempt": context.attempt, "max_attempts": context.max_attempts}
    tell_retry(engine, registry.get(context.agent), scope="tool", **facts)


def _look_at(run: asyncio.Future[_Ended]) -> None:
    """Take the error of a run that nobody waits for any more, so that asyncio does not complain of it."""
    if not run.cancelled():
        run.exception()


async def _run(engine: Engine, claim: Claim, job: _ToolJob) -> _Ended:
    if job.tool.is_async:
        return await _run_async_tool(job)
    ended: _Ended
    if job.tool.atomic:
        ended = await engine.in_thread(_run_atomic_tool, claim, job)
    else:
        ended = await engine.in_thread(_run_sync_tool, job)
    return ended


@dataclass(frozen=True, kw_only=True)
class _ToolJob:
    """What a tool call needs from the database."""

    tool: Tool
    stream_id: UUID
    arguments: dict[str, Any]
    context: ToolContext
    timeout_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """How a tool's function ended: a JSON result, or an error."""

    result: Any = None
    error: BaseException | None = None
    settled: bool = False
    """The outcome is stored already, in the tool's own transaction."""


def load_calls(claims: Sequence[Claim]) -> dict[UUID, ToolCall]:
    """By row id; rows that others hold by now are left out. One query, however many rows."""
    fences = {claim.row_id: claim.fence for claim in claims}
    rows = ToolCall.objects.using(lifecycle.database()).filter(pk__in=fences).select_related("thread__owner").order_by()
    return {row.pk: row for row in rows if row.fence == fences[row.pk]}


def _tool_job(engine: Engine, claim: Claim, call: ToolCall) -> _ToolJob | None:
    """None where the code of the tool is gone, or what a person approved is not what would run."""
    thread = call.thread
    agent = registry.find(thread.agent)
    tool = agent.find_tool(call.tool_name) if agent else None
    arguments = call.arguments if call.approved_arguments is None else call.approved_arguments
    is_altered = call.approval_decided_at is not None and lifecycle.digest(call.tool_name, arguments) != (
        call.approval_digest
    )
    if tool is None or is_altered:
        return None
    context = context_of(
        thread,
        call,
        message_id=call.message_id,
        attempt=call.attempt,
        idempotency_key=str(call.pk),
        report=partial(_report, engine, claim),
        is_stopped=partial(engine.is_stopped, claim),
    )
    timeout = None if call.timeout is None else call.timeout.total_seconds()
    return _ToolJob(tool=tool, stream_id=call.stream_id, arguments=arguments, context=context, timeout_seconds=timeout)


def context_of(thread: Thread, call: ToolCall | NewCall, **facts: Any) -> ToolContext:
    """What a function may know of a call of this thread; ``facts`` are the fields that neither tells."""
    return ToolContext(
        thread_id=thread.pk,
        tool_call_id=call.tool_call_id,
        tool_name=call.tool_name,
        agent=thread.agent,
        owner=thread.owner,
        scope=thread.scope,
        context=thread.context,
        metadata=thread.metadata,
        max_attempts=call.max_attempts,
        **facts,
    )


def _report(engine: Engine, claim: Claim, value: Any) -> None:
    """What is no JSON is the tool's error, here and now."""
    json.dumps(value)
    engine.report(claim, value)


def _keywords(job: _ToolJob) -> dict[str, Any]:
    values = job.tool.validate(job.arguments)
    name = job.tool.context_parameter
    return values if name is None else values | {name: job.context}


def _run_sync_tool(job: _ToolJob) -> _Ended:
    """In a pool thread. SystemExit and its like end the call, never the worker."""
    try:
        return _Ended(result=job.tool.to_json(job.tool.function(**_keywords(job))))
    except BaseException as error:
        return _Ended(error=error)


def _run_atomic_tool(claim: Claim, job: _ToolJob) -> _Ended:
    """In a pool thread: the function and its outcome in one transaction; an error of the function rolls it back."""
    began = time.monotonic()
    try:
        lifecycle.run_atomic(claim, lambda: CallResult(result=job.tool.to_json(job.tool.function(**_keywords(job)))))
    except LeaseLostError:
        raise
    except BaseException as error:
        return _Ended(error=error)
    finally:
        _warn_when_slow(job, time.monotonic() - began)
    return _Ended(settled=True)


def _warn_when_slow(job: _ToolJob, seconds: float) -> None:
    """On SQLite an atomic tool keeps everybody else from writing."""
    if seconds > config().atomic_warn_seconds:
        context = job.context
        facts: dict[str, Any] = {"thread": context.thread_id, "tool_call": context.tool_call_id, "seconds": seconds}
        log(logging.WARNING, "an atomic tool held its transaction for long", action="atomic_slow", **facts)


async def _run_async_tool(job: _ToolJob) -> _Ended:
    try:
        return _Ended(result=job.tool.to_json(await job.tool.function(**_keywords(job))))
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise
        return _Ended(error=error)


async def _may_retry(engine: Engine, job: _ToolJob, error: BaseException) -> bool:
    """Whether the call is tried again; a ``retry_if`` that fails says no."""
    if job.context.attempt >= job.context.max_attempts or not isinstance(error, Exception):
        return False
    if job.tool.retry.retry_if is None:
        return True
    try:
        return bool(await engine.call_user(job.tool.retry.retry_if, error, job.context, job.arguments))
    except Exception:
        log_error("retry_if failed", action="retry_if", thread=job.context.thread_id)
        return False


def _call_result(job: _ToolJob, ended: _Ended) -> CallResult:
    """The outcome: a ToolError's text goes to the model, any other error is masked and logged once."""
    error = ended.error
    if error is None:
        return CallResult(result=ended.result)
    detail = described(error)
    if isinstance(error, ToolError):
        return CallResult(status=ToolCallStatus.FAILED, error=str(error), error_code=error.code, error_detail=detail)
    facts = {"thread": job.context.thread_id, "tool_call": job.context.tool_call_id}
    log(logging.ERROR, "tool failed", action="tool_failed", error=error, **facts)
    return CallResult(status=ToolCallStatus.FAILED, error=MASKED, error_code="tool_failed", error_detail=detail)
