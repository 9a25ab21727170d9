"""The arrows at the end of a model call: a step is committed, or the attempt at it failed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from durable_agents.exceptions import ThreadNotFoundError, safe_message
from durable_agents.lifecycle.advance import advance, fail_run
from durable_agents.lifecycle.claims import Claim, held_stream
from durable_agents.lifecycle.locking import Locked, arrow, database, hold_thread, log_arrow, transact
from durable_agents.lifecycle.moves import (
    USAGE,
    _close,
    abort,
    add_stream,
    add_usage,
    answer_of_next_attempt,
    note_retry,
)
from durable_agents.lifecycle.telling import tell_call, tell_step
from durable_agents.llm import ModelUsage
from durable_agents.models import Stream, StreamState, Thread, ThreadStatus, ToolCall, ToolCallStatus, ToolKind
from durable_agents.parts import Part, text_of
from durable_agents.strictjson import clean


@dataclass(frozen=True, kw_only=True)
class NewCall:
    """A tool call that a step made; with ``error`` it is settled as failed at once (unknown tool, bad arguments)."""

    tool_call_id: str
    provider_call_id: str
    tool_name: str
    arguments: Any
    max_attempts: int = 1
    timeout_seconds: float | None = None
    error: str = ""
    kind: str = ToolKind.SYNC.value
    needs_approval: bool = False
    approved_by: str = "owner"
    answered_by: str = "server"

    @property
    def is_due(self) -> bool:
        """For a worker, as soon as it is stored."""
        return not self.error and not self.needs_approval and self.kind != ToolKind.CLIENT


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """A whole answer of the model to one call."""

    parts: Sequence[Part]
    calls: Sequence[NewCall]
    finish_reason: str
    model: str
    usage: ModelUsage | None


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """How an attempt at a model call failed, and what it has used."""

    kind: str
    """An ErrorKind, or what the agent's ``classify`` calls it."""
    detail: str
    model: str = ""
    usage: ModelUsage | None = None


@arrow
def commit_step(claim: Claim, outcome: StepOutcome) -> None:
    """The model answered: store the step with its parts and calls, in one transaction, and go on.

    Raises LeaseLostError, having written nothing, where the claim does not hold any more.
    """
    with hold_thread(claim.thread_id) as locked:
        stream = held_stream(claim)
        thread = locked.thread
        stream.parts = clean(list(outcome.parts))
        stream.text = text_of(stream.parts)
        stream.finish_reason = outcome.finish_reason
        _close(locked, stream, StreamState.FINISHED, model=outcome.model, usage=outcome.usage)
        thread.run_steps += 1
        thread.retry = None
        locked.steps.append(partial(tell_step, locked, stream, using=database()))
        for call in outcome.calls:
            _add_call(locked, stream, call)
        if any(call.is_due for call in outcome.calls):
            locked.move(ThreadStatus.AWAITING_TOOL_RESULTS)
        else:
            advance(locked)
    log_arrow("commit_step", thread=claim.thread_id, stream=claim.row_id, attempt=claim.attempt, fence=claim.fence)


def _add_call(locked: Locked, stream: Stream, call: NewCall) -> None:
    agent = locked.agent
    row = ToolCall(
        thread=locked.thread,
        message_id=stream.answer_id,
        stream=stream,
        tool_call_id=call.tool_call_id,
        provider_call_id=clean(call.provider_call_id),
        tool_name=clean(call.tool_name),
        kind=call.kind,
        needs_worker=call.kind != ToolKind.CLIENT,
        answered_by=call.answered_by,
        approved_by=call.approved_by,
        arguments=clean(call.arguments),
        max_attempts=call.max_attempts,
        pool=agent.pool_of(call.tool_name) if agent else "tools",
        available_at=locked.now,
        timeout=None if call.timeout_seconds is None else timedelta(seconds=call.timeout_seconds),
        approval_digest=digest(call.tool_name, call.arguments),
        rev=locked.thread.next_rev(),
        created_at=locked.now,
    )
    if call.error:
        row.status, row.error, row.error_code = ToolCallStatus.FAILED, clean(call.error), "invalid_call"
        row.finished_at = locked.now
    elif call.needs_approval:
        row.status, row.approval_requested_at = ToolCallStatus.APPROVAL_REQUESTED, locked.now
    if not call.is_due and not call.error and row.timeout is not None:
        row.expires_at = locked.now + row.timeout
    row.save(using=database(), force_insert=True)
    if call.error:
        tell_call(row, using=database())
    if call.is_due:
        locked.pools.add(row.pool)


def digest(tool_name: str, arguments: Any) -> str:
    """SHA-256 of a call, in hex: what an approval is bound to."""
    canonical = json.dumps([tool_name, arguments], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "replace")).hexdigest()


@arrow
def retry_step(claim: Claim, ended: FailedAttempt, *, delay_seconds: float, max_attempts: int) -> None:
    """The attempt failed and another may succeed: abort it and leave a new one due after ``delay_seconds``."""
    with hold_thread(claim.thread_id) as locked:
        stream = held_stream(claim)
        _abort_failed(locked, stream, ended)
        message_id = answer_of_next_attempt(locked, stream.answer_id)
        add_stream(locked, message_id, attempt=stream.attempt + 1, delay_seconds=delay_seconds)
        note_retry(
            locked,
            scope="step",
            attempt=stream.attempt + 1,
            max_attempts=max_attempts,
            next_retry_at=locked.now + timedelta(seconds=delay_seconds),
            error=safe_message(ended.kind),
            kind=ended.kind,
        )
    log_arrow("retry_step", thread=claim.thread_id, stream=claim.row_id, attempt=claim.attempt, kind=ended.kind)


@arrow
def fail_step(claim: Claim, ended: FailedAttempt) -> None:
    """The attempt failed for good: the thread is failed, and a resume tries again."""
    with hold_thread(claim.thread_id) as locked:
        _abort_failed(locked, held_stream(claim), ended)
        fail_run(locked, ended.kind)
    log_arrow("fail_step", thread=claim.thread_id, stream=claim.row_id, attempt=claim.attempt, kind=ended.kind)


def _abort_failed(locked: Locked, stream: Stream, ended: FailedAttempt) -> None:
    stream.error_code, stream.error_detail = ended.kind[:64], clean(ended.detail)
    abort(locked, stream, reason="error", model=ended.model, usage=ended.usage)


@arrow
def name_thread(thread_id: UUID, title: str) -> None:
    """A title for a thread that has none, 200 characters at most; one that it has meanwhile stays."""
    with hold_thread(thread_id) as locked:
        thread = locked.thread
        if not thread.title and (cleaned := clean(title.strip())[:200]):
            thread.title = cleaned
            thread.next_rev()
            thread.save(using=database(), update_fields=["title"])


@arrow
def record_usage(claim: Claim, *, model: str, usage: ModelUsage) -> None:
    """What an attempt had used when it was stopped: only that is added to its row, once. A row that is not closed, or
    that knows its usage, stays as it is. One whose thread was deleted may be there all the same (``USAGE_ON_DELETE``).
    """
    try:
        with hold_thread(claim.thread_id) as locked:
            if _note_usage(claim, locked.thread, model=model, usage=usage):
                locked.thread.next_rev()
    except ThreadNotFoundError:
        with transact():
            _note_usage(claim, None, model=model, usage=usage)


def _note_usage(claim: Claim, thread: Thread | None, *, model: str, usage: ModelUsage) -> bool:
    rows = Stream.objects.using(database()).select_for_update(no_key=True).filter(pk=claim.row_id)
    stream = rows.filter(fence=claim.fence + 1, state=StreamState.ABORTED, model="").first()
    if stream is None:
        return False
    stream.model = model
    add_usage(thread, stream, usage)
    stream.save(using=database(), update_fields=["model", *USAGE])
    return True
