"""Transitions of tool calls: store exactly one outcome for each call, and enforce its deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import Error, connections
from django.db.models import F

from durable_agents.crashpoints import crashpoint
from durable_agents.database_connections import discard, is_outage, is_passing, sqlstate
from durable_agents.exceptions import (
    LeaseLostError,
    ThreadNotFoundError,
)
from durable_agents.lifecycle.advance import advance
from durable_agents.lifecycle.claims import Claim, held_call
from durable_agents.lifecycle.rows import (
    MAY_HAVE_RUN,
    NOBODY_ANSWERED,
    give_back,
    note_retry,
    settle,
)
from durable_agents.lifecycle.transaction import (
    Locked,
    database,
    hold_thread,
    log_transition,
    only_row,
    transact,
    transition,
)
from durable_agents.models import ToolCall, ToolCallStatus, next_state
from durable_agents.strictjson import clean
from durable_agents.utc_times import Now, instant, later

_TOOK_TOO_LONG = "The tool call took too long."

EXPIRY_GRACE_SECONDS = 5
"""The number of seconds that a running call is left to its worker after the call's deadline. During these seconds, the
worker can still time the call out and retry it. Afterwards, ``expire`` fails the call.
"""


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """The outcome of a tool call: a result or, if the ``status`` is failed, an error text for the model."""

    status: ToolCallStatus = ToolCallStatus.COMPLETED
    result: object = None
    error: str = ""
    error_code: str = ""
    error_detail: str = ""


@transition
def finish_tool_call(claim: Claim, outcome: CallResult, *, nowait: bool = False) -> None:
    """Store the outcome of a tool call, and decide what the thread does next, in one transaction.

    - If other calls of the same step have no outcome yet, the thread waits.
    - If all calls of the step have an outcome, the next step is due. If ``max_steps`` are used up, the run fails.
    - If the run has continued without waiting for this call's result, the outcome becomes a new message, which the
      model answers.

    ``claim`` is the worker's claim on the tool call. Workers use ``end_together`` to store the outcomes of many calls
    at once.

    Raises LeaseLostError if the worker no longer holds the call; nothing is written then. Raises ThreadNotFoundError if
    the thread was deleted. If another transaction has locked the thread, the function waits; with ``nowait``, it raises
    ThreadHeldError instead.
    """
    with hold_thread(claim.thread_id, nowait=nowait) as locked:
        add_outcome(locked, held_call(claim), outcome)
    log_finish(claim)


def add_outcome(locked: Locked, call: ToolCall, outcome: CallResult) -> None:
    """Store the outcome of a tool call, and decide what the thread does next. The caller holds the thread's lock."""
    call.result = clean(outcome.result)
    call.error_detail = clean(outcome.error_detail)
    settle(locked, call, outcome.status, code=outcome.error_code, error=outcome.error)
    advance(locked)


def log_finish(claim: Claim) -> None:
    log_transition(
        "finish_tool_call", thread=claim.thread_id, tool_call=claim.row_id, attempt=claim.attempt, fence=claim.fence
    )


@transition
def run_atomic(claim: Claim, function: Callable[[], CallResult]) -> None:
    """Call a tool's function and store its outcome in one transaction, so that both take effect or neither does.

    If the function raises an exception, the transaction is rolled back and the exception is raised. If the claim was
    lost, the transaction is rolled back and LeaseLostError is raised. If the transaction conflicts with another one, it
    is rolled back and the function is called again.

    If the database does not confirm the COMMIT, the tool call's row is read to find out whether the transaction was
    committed. Raises AtomicInterruptedError if it was not committed, or if this cannot be found out.
    """
    is_inside, session = False, None
    try:
        with transact(atomic_tool_call=claim.row_id):
            # Remember the database session. If the connection has another session afterwards, the transaction was cut
            # off, whatever error the function raised.
            session = connections[database()].connection
            crashpoint("atomic_begun")
            is_inside = True
            outcome = function()
            is_inside = False
            crashpoint("atomic_ran")
            finish_tool_call(claim, outcome)
            crashpoint("atomic_settled")
    except LeaseLostError:
        raise
    except Exception as error:
        if not _is_interrupted(error, session, is_inside=is_inside):
            raise
        discard(using=database())
        if not _has_outcome(claim):
            raise AtomicInterruptedError(str(claim.row_id)) from error
    crashpoint("atomic_committed")


class AtomicInterruptedError(Exception):
    """The database connection broke during the transaction of an atomic tool. Usually, the transaction was rolled back.
    The transaction took effect only if its COMMIT had reached the database.
    """


def _is_interrupted(error: Exception, session: object, *, is_inside: bool) -> bool:
    """Return whether the transaction was cut off because the database session ended or became read-only.

    ``session`` is the database session in which the transaction began. The first rule that applies is used:

    - The transaction is part of the caller's transaction: False.
    - The connection has another session now: True for every error, because the lost session may be the cause.
    - The error is not a database error, or needs only a retry: False.
    - The tool's function raised the error (``is_inside``): True only if the error's code is in ``SESSION_LOST``.
    - Otherwise: True for every database outage.
    """
    connection = connections[database()]
    if connection.in_atomic_block:
        return False  # the transaction belongs to the caller, who handles the error
    if session is not None and connection.connection is not session:
        # The rollback failed too, so Django has closed the connection.
        return True
    if not isinstance(error, Error) or is_passing(error):
        return False
    return is_outage(error) and (not is_inside or sqlstate(error) in SESSION_LOST)


SESSION_LOST = frozenset({"25006", "57P01", "57P02", "57P03", "57P05"})
"""PostgreSQL's error codes for a read-only transaction, a shutdown by an administrator or after a crash, a server that
is still starting, and a session that was idle for too long.
"""


def _has_outcome(claim: Claim) -> bool:
    """Return whether the outcome of the call was committed. Return False if the database does not answer.

    A wrong False does no harm. The worker then calls ``release``, which does nothing if the outcome was committed.
    """
    settled = ToolCall.objects.using(database()).filter(pk=claim.row_id, status=ToolCallStatus.COMPLETED)
    try:
        # Storing the outcome ended the lease, which incremented the fence by one.
        return settled.filter(fence=claim.fence + 1).exists()
    except Error:
        return False


@transition
def announce_tool_call(claim: Claim, *, nowait: bool = False) -> None:
    """End the worker's lease of a tool call, and start the call's time limit. The call now waits for a result from
    outside.

    Workers call this after the function of a deferred tool has run, and for an approved client tool that the browser
    runs next. Raises LeaseLostError if the claim was lost, for example because the result arrived while the function
    was still running.
    """
    with hold_thread(claim.thread_id, nowait=nowait) as locked:
        call = held_call(claim)
        call.status, call.needs_worker = next_state(call.status, ToolCallStatus.PENDING), False
        call.expires_at = None if call.timeout is None else later(locked.now, call.timeout)
        call.end_lease()
        call.rev = locked.thread.next_rev()
        call.save(
            using=database(),
            update_fields=["status", "needs_worker", "expires_at", "rev", *ToolCall.LEASE_FIELDS],
        )
        advance(locked)
    log_transition("announce_tool_call", thread=claim.thread_id, tool_call=claim.row_id, fence=claim.fence)


@transition
def report_progress(claim: Claim, value: object, *, nowait: bool = False) -> None:
    """Store the progress of a running tool call. Clients see it until the call has an outcome. Raises LeaseLostError if
    the claim was lost.
    """
    with hold_thread(claim.thread_id, nowait=nowait) as locked:
        call = held_call(claim)
        call.progress, call.rev = clean(value), locked.thread.next_rev()
        call.save(using=database(), update_fields=["progress", "rev"])


@transition
def retry_tool_call(claim: Claim, *, delay_seconds: float, detail: str, nowait: bool = False) -> None:
    """Make a failed tool call due again after ``delay_seconds``."""
    with hold_thread(claim.thread_id, nowait=nowait) as locked:
        call = held_call(claim)
        call.error_detail = clean(detail)
        give_back(locked, call, delay_seconds=delay_seconds, attempt=call.attempt + 1)
        note_retry(
            locked,
            scope="tool",
            attempt=call.attempt,
            max_attempts=call.max_attempts,
            next_retry_at=call.available_at or locked.now,
            error="The tool failed.",
            kind="tool_failed",
        )
    log_transition("retry_tool_call", thread=claim.thread_id, tool_call=claim.row_id, attempt=claim.attempt)


def seconds_left(claim: Claim) -> float | None:
    """Return how many seconds a running tool call may still take, or None without a limit. Raises LeaseLostError."""
    rows = ToolCall.objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence)
    times = only_row(rows.annotate(now=Now()).values_list("expires_at", "now"))
    if times is None:
        raise LeaseLostError(f"tool call {claim.row_id}")
    expires_at, now = times
    return None if expires_at is None else float((instant(expires_at) - instant(now)).total_seconds())


def restart_timeout(claim: Claim) -> None:
    """Start the time limit of a tool call again, because the call had to wait before it could begin."""
    rows = ToolCall.objects.using(database()).held().filter(pk=claim.row_id, fence=claim.fence, timeout__isnull=False)
    rows.update(expires_at=Now() + F("timeout"))


def overdue_calls(claims: Sequence[Claim]) -> set[UUID]:
    """Return the row ids of the claimed tool calls that are running although their deadline has passed."""
    ids = [item.row_id for item in claims if item.kind == "tool"]
    if not ids:
        return set()
    overdue = ToolCall.objects.using(database()).held().filter(pk__in=ids, expires_at__lt=Now())
    return set(overdue.values_list("pk", flat=True))


def expire() -> int:
    """Give an outcome to tool calls whose deadline has passed, and return their number.

    A call that waits for an answer becomes ``expired``. A call that a worker still runs becomes ``failed`` after
    another ``EXPIRY_GRACE_SECONDS``.
    """
    overdue = ToolCall.objects.using(database()).expired(EXPIRY_GRACE_SECONDS)
    return sum(_expire_one(row) for row in overdue)


@transition
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
    log_transition("expire", thread=row.thread_id, tool_call=row.pk)
    return True
