"""Transitions at the end of a model call: commit the step, retry the attempt, or fail the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from durable_agents.exceptions import ThreadNotFoundError, safe_message
from durable_agents.lifecycle.advance import advance, fail_run
from durable_agents.lifecycle.call_signing import sign_call
from durable_agents.lifecycle.callback_dispatch import dispatch_call
from durable_agents.lifecycle.claims import Claim, held_stream
from durable_agents.lifecycle.rows import (
    USAGE,
    abort,
    add_stream,
    add_usage,
    answer_of_next_attempt,
    close_stream,
    hold,
    note_retry,
)
from durable_agents.lifecycle.transaction import Locked, database, hold_thread, log_transition, transact, transition
from durable_agents.llm import ModelUsage
from durable_agents.models import Stream, StreamState, Thread, ThreadStatus, ToolCall, ToolCallStatus, ToolKind
from durable_agents.parts import Part, text_of
from durable_agents.strictjson import clean
from durable_agents.utc_times import later


@dataclass(frozen=True, kw_only=True)
class ResolvedTool:
    """The options of a tool that the agent's ``tool_resolver`` returned. A transition gets these options as data,
    because a transition must not call the resolver, which is the project's code.
    """

    pool: str | None
    after_crash: str


@dataclass(frozen=True, kw_only=True)
class NewCall:
    """A tool call that the model made in this step. A call with an ``error``, for example an unknown tool or bad
    arguments, is stored as failed.
    """

    tool_call_id: str
    provider_call_id: str
    tool_name: str
    arguments: Mapping[str, object]
    max_attempts: int = 1
    timeout_seconds: float | None = None
    error: str = ""
    kind: str = ToolKind.SYNC.value
    needs_approval: bool = False
    approved_by: str = "owner"
    answered_by: str = "server"
    resolved: ResolvedTool | None = None
    """The tool's options as the agent's ``tool_resolver`` returned them, or None if the tool is declared in the code.
    """

    @property
    def is_due(self) -> bool:
        """Whether a worker can claim the call as soon as it is stored."""
        return not self.error and not self.needs_approval and self.kind != ToolKind.CLIENT


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """The complete result of one model call."""

    parts: Sequence[Part]
    calls: Sequence[NewCall]
    finish_reason: str
    model: str
    usage: ModelUsage | None
    goes_on: bool = False
    """Whether the model has paused its answer. If so, another step continues the answer, with or without tool calls."""


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """The error and the usage of a model call that failed."""

    kind: str
    """An ErrorKind, or the kind that the agent's ``classify`` function returned."""
    detail: str
    model: str = ""
    usage: ModelUsage | None = None


@transition
def commit_step(claim: Claim, outcome: StepOutcome, *, nowait: bool = False) -> None:
    """Store the result of a model call, and decide what the thread does next, in one transaction.

    The model call becomes ``finished``, and its parts, usage and tool calls are stored. Then the thread waits for the
    tool calls, begins the next step, begins the answer to a newer message, or ends the run.

    ``claim`` is the worker's claim on the model call. Workers use ``end_together`` to commit many model calls at once.

    Raises LeaseLostError if the worker no longer holds the model call; nothing is written then. Raises
    ThreadNotFoundError if the thread was deleted. If another transaction has locked the thread, the function waits;
    with ``nowait``, it raises ThreadHeldError instead.
    """
    with hold_thread(claim.thread_id, nowait=nowait) as locked:
        add_step(locked, held_stream(claim), outcome)
    log_commit(claim)


def add_step(locked: Locked, stream: Stream, outcome: StepOutcome) -> None:
    """Store the result of a model call, and decide what the thread does next. The caller holds the thread's lock."""
    thread = locked.thread
    stream.parts = clean(list(outcome.parts))
    stream.text = text_of(stream.parts)
    stream.finish_reason = outcome.finish_reason
    close_stream(locked, stream, StreamState.FINISHED, model=outcome.model, usage=outcome.usage)
    thread.run_steps += 1
    thread.retry = None
    locked.committed_steps.append(stream)
    for call in outcome.calls:
        _add_call(locked, stream, call)
    if any(call.is_due for call in outcome.calls):
        # Some calls need a worker, so the thread waits. ``advance`` would decide the same, but with extra queries.
        locked.set_status(ThreadStatus.AWAITING_TOOL_RESULTS)
    else:
        advance(locked, resumed=outcome.goes_on)


def log_commit(claim: Claim) -> None:
    log_transition("commit_step", thread=claim.thread_id, stream=claim.row_id, attempt=claim.attempt, fence=claim.fence)


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
        is_resolved=call.resolved is not None,
        after_crash=call.resolved.after_crash if call.resolved else "",
        pool=(call.resolved.pool if call.resolved else None) or (agent.pool_of(call.tool_name) if agent else "tools"),
        pending_since=locked.now,
        timeout=None if call.timeout_seconds is None else timedelta(seconds=call.timeout_seconds),
        rev=locked.thread.next_rev(),
        created_at=locked.now,
    )
    if call.error:
        row.status, row.error, row.error_code = ToolCallStatus.FAILED, clean(call.error), "invalid_call"
        row.finished_at = locked.now
    elif call.needs_approval:
        row.status, row.approval_requested_at = ToolCallStatus.APPROVAL_REQUESTED, locked.now
    if not call.is_due and not call.error and row.timeout is not None:
        row.expires_at = later(locked.now, row.timeout)
    # A call that needs approval is signed when a person approves it. No worker runs an unsigned call.
    if not call.needs_approval:
        sign_call(row)
    if call.is_due and locked.hand_over is not None and locked.hand_over.takes_call(row, locked.thread.agent):
        row.status = ToolCallStatus.RUNNING
        row.expires_at = None if row.timeout is None else later(locked.now, row.timeout)
        hold(locked, row, locked.hand_over)
    elif call.is_due:
        locked.pools.add(row.pool)
    locked.writes.insert(row)
    locked.new_calls.append(row)
    if locked.open_calls is not None:
        locked.open_calls.append(row)
    if call.error:
        dispatch_call(row, using=database())


@transition
def retry_step(
    claim: Claim,
    failed: FailedAttempt,
    *,
    delay_seconds: float,
    max_attempts: int,
    next_attempt: int | None = None,
    nowait: bool = False,
) -> None:
    """Abort a failed model call, and add another attempt that is due after ``delay_seconds``.

    ``next_attempt`` is the number of the new attempt. By default, it is the number of the failed attempt plus one.
    """
    with hold_thread(claim.thread_id, nowait=nowait) as locked:
        stream = held_stream(claim)
        _abort_failed(locked, stream, failed)
        message_id = answer_of_next_attempt(locked, stream.answer_id)
        attempt = next_attempt or stream.attempt + 1
        add_stream(locked, message_id, attempt=attempt, delay_seconds=delay_seconds)
        note_retry(
            locked,
            scope="step",
            attempt=attempt,
            max_attempts=max_attempts,
            next_retry_at=later(locked.now, timedelta(seconds=delay_seconds)),
            error=safe_message(failed.kind),
            kind=failed.kind,
        )
    log_transition("retry_step", thread=claim.thread_id, stream=claim.row_id, attempt=claim.attempt, kind=failed.kind)


@transition
def fail_step(claim: Claim, failed: FailedAttempt, *, nowait: bool = False) -> None:
    """Abort a failed model call that is not retried, and fail the thread. ``resume_thread`` can start it again."""
    with hold_thread(claim.thread_id, nowait=nowait) as locked:
        _abort_failed(locked, held_stream(claim), failed)
        fail_run(locked, failed.kind)
    log_transition("fail_step", thread=claim.thread_id, stream=claim.row_id, attempt=claim.attempt, kind=failed.kind)


def _abort_failed(locked: Locked, stream: Stream, failed: FailedAttempt) -> None:
    stream.error_code, stream.error_detail = failed.kind[:64], clean(failed.detail)
    abort(locked, stream, reason="error", model=failed.model, usage=failed.usage)


@transition
def name_thread(thread_id: UUID, title: str, *, nowait: bool = False) -> None:
    """Set the title of a thread, cut to 200 characters. Do nothing if the thread has a title already."""
    with hold_thread(thread_id, nowait=nowait) as locked:
        thread = locked.thread
        if not thread.title and (cleaned := clean(title.strip())[:200]):
            thread.title = cleaned
            thread.next_rev()
            thread.save(using=database(), update_fields=["title"])


@transition
def record_usage(claim: Claim, *, model: str, usage: ModelUsage, nowait: bool = False) -> None:
    """Store the usage of a stopped model call in the call's row. Do nothing if the row is still open or already
    contains a usage.

    If the thread was deleted while ``USAGE_ON_DELETE`` was "drop", the row no longer exists, and nothing is stored.
    """
    try:
        with hold_thread(claim.thread_id, nowait=nowait) as locked:
            if _note_usage(claim, locked.thread, model=model, usage=usage):
                locked.thread.next_rev()
    except ThreadNotFoundError:
        with transact():
            _note_usage(claim, None, model=model, usage=usage)


def _note_usage(claim: Claim, thread: Thread | None, *, model: str, usage: ModelUsage) -> bool:
    rows = Stream.objects.using(database()).select_for_update(no_key=True).filter(pk=claim.row_id)
    # Ending the lease incremented the fence by one. A higher fence means that another worker has held the row since.
    stream = rows.filter(fence=claim.fence + 1, state=StreamState.ABORTED, model="").first()
    if stream is None:
        return False
    stream.model = model
    add_usage(thread, stream, usage)
    stream.save(using=database(), update_fields=["model", *USAGE])
    return True
