"""The arrows of tool calls: how each comes to its one outcome, and by when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import OperationalError, connections
from django.db.models.functions import Now

from durable_agents.crashpoints import crashpoint
from durable_agents.exceptions import (
    LeaseLostError,
    ThreadNotFoundError,
)
from durable_agents.lifecycle.advance import advance
from durable_agents.lifecycle.claims import Claim, held_call
from durable_agents.lifecycle.locking import (
    arrow,
    database,
    hold_thread,
    is_passing,
    log_arrow,
    only_row,
    transact,
)
from durable_agents.lifecycle.moves import (
    MAY_HAVE_RUN,
    NOBODY_ANSWERED,
    give_back,
    note_retry,
    running_atomically,
    settle,
)
from durable_agents.models import ToolCall, ToolCallStatus
from durable_agents.strictjson import clean

_TOOK_TOO_LONG = "The tool call took too long."

EXPIRY_GRACE_SECONDS = 5
"""A worker that runs a call gives it up itself, and tries again where the tool says so: this long it may take."""


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """How a tool ended: a result, or with ``status`` failed an error text for the model."""

    status: ToolCallStatus = ToolCallStatus.COMPLETED
    result: Any = None
    error: str = ""
    error_code: str = ""
    error_detail: str = ""


@arrow
def finish_tool_call(claim: Claim, outcome: CallResult) -> None:
    """The tool ended: store its one outcome; the last one of a step makes the next step due.

    Raises LeaseLostError, having written nothing, where the claim does not hold any more.
    """
    with hold_thread(claim.thread_id) as locked:
        call = held_call(claim)
        call.result = clean(outcome.result)
        call.error_detail = clean(outcome.error_detail)
        settle(locked, call, outcome.status, code=outcome.error_code, error=outcome.error)
        advance(locked)
    log_arrow(
        "finish_tool_call", thread=claim.thread_id, tool_call=claim.row_id, attempt=claim.attempt, fence=claim.fence
    )


@arrow
def run_atomic(claim: Claim, function: Callable[[], CallResult]) -> None:
    """Call a tool's function and store its outcome in one transaction: both happen, or neither.

    Whatever the function raises rolls everything back and is raised. Raises LeaseLostError, everything rolled back,
    where the claim does not hold any more. Where the answer to COMMIT is lost, the row is read again: it tells.
    """
    try:
        with transact():
            crashpoint("atomic_begun")
            token = running_atomically.set(claim.row_id)
            try:
                outcome = function()
            finally:
                running_atomically.reset(token)
            crashpoint("atomic_ran")
            finish_tool_call(claim, outcome)
            crashpoint("atomic_settled")
    except OperationalError as error:
        if not is_passing(error):
            connections[database()].close()
        if not _has_outcome(claim):
            raise
    crashpoint("atomic_committed")


def _has_outcome(claim: Claim) -> bool:
    settled = ToolCall.objects.using(database()).filter(pk=claim.row_id, status=ToolCallStatus.COMPLETED)
    return settled.filter(fence=claim.fence + 1).exists()


@arrow
def announce_tool_call(claim: Claim) -> None:
    """The function of a deferred tool has been told of the call: from now on its result may come, from outside.

    Raises LeaseLostError where the claim does not hold any more; the result may be there already.
    """
    with hold_thread(claim.thread_id) as locked:
        call = held_call(claim)
        call.status, call.needs_worker = ToolCallStatus.PENDING, False
        call.lease_owner, call.lease_expires_at = "", None
        call.expires_at = None if call.timeout is None else locked.now + call.timeout
        call.fence += 1
        call.rev = locked.thread.next_rev()
        call.save(
            using=database(),
            update_fields=[
                *("status", "needs_worker", "lease_owner", "lease_expires_at", "expires_at", "fence", "rev"),
            ],
        )
        advance(locked)
    log_arrow("announce_tool_call", thread=claim.thread_id, tool_call=claim.row_id, fence=claim.fence)


@arrow
def report_progress(claim: Claim, value: Any) -> None:
    """A running tool says how far it is: shown until its outcome. Raises LeaseLostError."""
    with hold_thread(claim.thread_id) as locked:
        call = held_call(claim)
        call.progress, call.rev = clean(value), locked.thread.next_rev()
        call.save(using=database(), update_fields=["progress", "rev"])


@arrow
def retry_tool_call(claim: Claim, *, delay_seconds: float, detail: str) -> None:
    """The attempt at the call failed and another may succeed: due again after ``delay_seconds``."""
    with hold_thread(claim.thread_id) as locked:
        call = held_call(claim)
        call.error_detail = clean(detail)
        give_back(locked, call, delay_seconds=delay_seconds, attempt=call.attempt + 1)
        note_retry(
            locked,
            scope="tool",
            attempt=call.attempt,
            max_attempts=call.max_attempts,
            next_retry_at=call.available_at,
            error="The tool failed.",
            kind="tool_failed",
        )
    log_arrow("retry_tool_call", thread=claim.thread_id, tool_call=claim.row_id, attempt=claim.attempt)


def seconds_left(claim: Claim) -> float | None:
    """How long a running call may still take; None is without limit. Raises LeaseLostError."""
    rows = ToolCall.objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
    found = only_row(rows.annotate(now=Now()).values_list("expires_at", "now"))
    if found is None:
        raise LeaseLostError(f"tool call {claim.row_id}")
    expires_at, now = found
    return None if expires_at is None else float((expires_at - now).total_seconds())


def overdue_calls(claims: Sequence[Claim]) -> set[UUID]:
    """Row ids of those running calls among these whose time is over."""
    ids = [item.row_id for item in claims if item.kind == "tool"]
    if not ids:
        return set()
    overdue = ToolCall.objects.using(database()).held().filter(pk__in=ids, expires_at__lt=Now())
    return set(overdue.values_list("pk", flat=True))


def expire() -> int:
    """Give the calls whose time is over their outcome: ``expired`` where somebody's answer was awaited, ``failed``
    where a worker runs them and does not say so itself. Returns how many."""
    overdue = ToolCall.objects.using(database()).expired(EXPIRY_GRACE_SECONDS)
    return sum(_expire_one(row) for row in overdue)


@arrow
def _expire_one(row: ToolCall) -> bool:
    try:
        with hold_thread(row.thread_id, skip_locked=True) as locked:
            calls = ToolCall.objects.using(database()).expired(EXPIRY_GRACE_SECONDS)
            call = only_row(calls.filter(pk=row.pk).select_for_update(no_key=True))
            if call is None:
                return False
            if call.status == ToolCallStatus.RUNNING:
                settle(locked, call, ToolCallStatus.FAILED, code="timeout", error=f"{_TOOK_TOO_LONG} {MAY_HAVE_RUN}")
            else:
                settle(locked, call, ToolCallStatus.EXPIRED, code="expired", error=NOBODY_ANSWERED)
            advance(locked)
    except ThreadNotFoundError:
        return False
    log_arrow("expire", thread=row.thread_id, tool_call=row.pk)
    return True
