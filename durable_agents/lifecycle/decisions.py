"""Transitions for people, browsers and services: approve, reject and answer tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from durable_agents.actors import Actor, User
from durable_agents.exceptions import (
    ApprovalExpiredError,
    InvalidPartsError,
    PermissionDeniedError,
    ToolCallNotFoundError,
    ToolCallNotPendingError,
    ToolChangedError,
)
from durable_agents.lifecycle.advance import advance
from durable_agents.lifecycle.audit import record
from durable_agents.lifecycle.call_signing import sign_call
from durable_agents.lifecycle.rows import NOBODY_ANSWERED, TOOL_CHANGED, give_back, settle
from durable_agents.lifecycle.transaction import (
    Locked,
    database,
    hold_thread,
    id_of,
    log_transition,
    only_row,
    transition,
)
from durable_agents.models import Thread, ToolCall, ToolCallStatus, ToolKind, next_state
from durable_agents.strictjson import clean
from durable_agents.tool_call_permissions import may_decide, whom
from durable_agents.utc_times import instant, later

MAX_TIMEOUT_SECONDS = 366 * 86_400
_DENIED = "A person refused this call."
_APPROVAL = ["approval_decided_by", "approval_decided_at", "approval_reason"]
_APPROVED = [
    *("status", "available_at", "pending_since", "expires_at", "needs_worker"),
    *("approved_arguments", "approval_digest", "rev"),
]


@transition
def add_tool_result(
    thread: Thread | UUID | str, tool_call_id: str, result: object, *, by: Actor | User | None = None
) -> ToolCall:
    """Store ``result`` as the outcome of a deferred or client call, and return the call.

    ``result`` can be any JSON value. Adding the same result again changes nothing. ``by`` is the user who adds the
    result, and is stored with the call.

    Raises ToolCallNotFoundError. Raises ToolCallNotPendingError if the call has another outcome already, waits for an
    approval, or gets its result from a worker.
    """
    return _answer(thread, tool_call_id, ToolCallStatus.COMPLETED, result=clean(result), by=by)


@transition
def add_tool_error(
    thread: Thread | UUID | str, tool_call_id: str, error: str, *, by: Actor | User | None = None
) -> ToolCall:
    """Fail a deferred or client call. ``error`` is a text that the model gets instead of a result.

    The rules and exceptions are those of ``add_tool_result``.
    """
    return _answer(thread, tool_call_id, ToolCallStatus.FAILED, error=clean(error), by=by)


def _answer(
    thread: Thread | UUID | str,
    tool_call_id: str,
    status: ToolCallStatus,
    *,
    result: object = None,
    error: str = "",
    by: Actor | User | None,
) -> ToolCall:
    with hold_thread(id_of(thread)) as locked:
        call = _call(locked, tool_call_id)
        if call.finished_at is not None and (call.status, call.result, call.error) == (status, result, error):
            return call
        is_answered_outside = call.kind in {ToolKind.DEFERRED, ToolKind.CLIENT}
        waits = call.status in {ToolCallStatus.PENDING, ToolCallStatus.RUNNING}
        if call.finished_at is not None or not is_answered_outside or not waits:
            raise ToolCallNotPendingError(tool_call_id, call.status)
        call.result = result
        call.answered_by_user = Actor.of(by).user
        settle(locked, call, status, code="tool_error" if error else "", error=error)
        advance(locked)
        action, answer = ("add_tool_error", error) if error else ("add_tool_result", result)
        record(action, locked.thread.pk, by, subject=tool_call_id, arguments=answer)
    log_transition("add_tool_result", thread=call.thread_id, tool_call=call.pk)
    return call


def approve_tool_call(
    thread: Thread | UUID | str,
    tool_call_id: str,
    *,
    by: Actor | User | None,
    arguments: Mapping[str, object] | None = None,
    reason: str = "",
) -> ToolCall:
    """Approve a tool call, so that it runs. Return the call.

    With ``arguments``, the tool gets these instead of the model's arguments. The row keeps both versions, and the
    result for the model mentions the change. ``by`` is a user, or None for the project's own code. The row keeps who
    decided, when and why, and a signature of the approved arguments. A second decision is refused.

    Raises ToolCallNotFoundError. Raises ToolCallNotPendingError. Raises PermissionDeniedError if ``by`` is not allowed
    to decide. Raises InvalidPartsError if ``arguments`` do not fit the tool.

    Two errors also change the call:

    - ApprovalExpiredError: the deadline has passed, and the call becomes expired.
    - ToolChangedError: the model's own arguments no longer fit the tool, and the call becomes failed.

    If the caller rolls back its transaction after such an error, this change is lost. The call then expires later.
    """
    return _as_decided(_approve(thread, tool_call_id, by=by, arguments=arguments, reason=reason))


@transition
def _approve(
    thread: Thread | UUID | str,
    tool_call_id: str,
    *,
    by: Actor | User | None,
    arguments: Mapping[str, object] | None,
    reason: str,
) -> ToolCall:
    with hold_thread(id_of(thread)) as locked:
        call = _call_to_decide(locked, tool_call_id, by=by)
        if call.status == ToolCallStatus.EXPIRED:
            return call
        if arguments is not None:
            call.approved_arguments = clean(arguments)
            if problem := _problem(locked, call, call.approved_arguments):
                raise InvalidPartsError(problem)
        _note_decision(locked, call, by=by, reason=reason)
        decision = {"arguments": arguments, "reason": reason}
        record("approve_tool_call", locked.thread.pk, by, subject=tool_call_id, arguments=decision)
        if arguments is None and (problem := _problem(locked, call, call.arguments)):
            settle(locked, call, ToolCallStatus.FAILED, code="tool_changed", error=f"{TOOL_CHANGED} {problem}")
            advance(locked)
            return call
        sign_call(call)
        call.status = next_state(call.status, ToolCallStatus.PENDING)
        call.available_at, call.pending_since = None, locked.now
        # If the agent has a ``configure`` function, a worker must first check that the tool is still offered.
        call.needs_worker |= locked.agent is not None and locked.agent.configure is not None
        waits_outside = call.timeout is not None and not call.needs_worker
        call.expires_at = later(locked.now, call.timeout) if call.timeout is not None and waits_outside else None
        call.rev = locked.thread.next_rev()
        call.save(using=database(), update_fields=_APPROVED)
        if call.needs_worker:
            locked.pools.add(call.pool)
    log_transition("approve_tool_call", thread=call.thread_id, tool_call=call.pk)
    return call


def reject_tool_call(
    thread: Thread | UUID | str, tool_call_id: str, *, by: Actor | User | None, reason: str = ""
) -> ToolCall:
    """Reject a tool call, and give the model the reason. Return the call.

    The rules and exceptions are those of ``approve_tool_call``.
    """
    return _as_decided(_reject(thread, tool_call_id, by=by, reason=reason))


@transition
def _reject(thread: Thread | UUID | str, tool_call_id: str, *, by: Actor | User | None, reason: str) -> ToolCall:
    with hold_thread(id_of(thread)) as locked:
        call = _call_to_decide(locked, tool_call_id, by=by)
        if call.status == ToolCallStatus.EXPIRED:
            return call
        _note_decision(locked, call, by=by, reason=reason)
        record("reject_tool_call", locked.thread.pk, by, subject=tool_call_id, arguments={"reason": reason})
        settle(locked, call, ToolCallStatus.DENIED, code="denied", error=f"{_DENIED} {clean(reason)}".strip())
        advance(locked)
    log_transition("reject_tool_call", thread=call.thread_id, tool_call=call.pk)
    return call


def _call_to_decide(locked: Locked, tool_call_id: str, *, by: Actor | User | None) -> ToolCall:
    """Return the tool call that ``by`` wants to approve or reject. If its deadline has passed, mark it as expired
    first.

    Raises ToolCallNotFoundError. Raises ToolCallNotPendingError if the call waits for no decision. Raises
    PermissionDeniedError if ``by`` is not allowed to decide.
    """
    call = _call(locked, tool_call_id)
    if call.status == ToolCallStatus.EXPIRED and call.approval_requested_at and not call.approval_decided_at:
        return call
    if call.status != ToolCallStatus.APPROVAL_REQUESTED:
        raise ToolCallNotPendingError(tool_call_id, call.status)
    call.thread = locked.thread
    if not may_decide(Actor.of(by), call, option="approved_by"):
        raise PermissionDeniedError(f"Tool call {tool_call_id!r} waits for the decision of {whom(call.approved_by)}.")
    if call.expires_at is not None and instant(call.expires_at) <= instant(locked.now):
        settle(locked, call, ToolCallStatus.EXPIRED, code="expired", error=NOBODY_ANSWERED)
        advance(locked)
    return call


def _as_decided(call: ToolCall) -> ToolCall:
    """Return the call. Raise ApprovalExpiredError if the call has expired, and ToolChangedError if it has failed.

    The caller calls this function after the commit, so that the error does not roll back the outcome.
    """
    if call.status == ToolCallStatus.EXPIRED:
        raise ApprovalExpiredError(call.tool_call_id)
    if call.status == ToolCallStatus.FAILED:
        raise ToolChangedError(call.tool_call_id, call.error)
    return call


def _problem(locked: Locked, call: ToolCall, arguments: Mapping[str, object]) -> str:
    """Check arguments against the current definition of the tool. Return the error as a text, or an empty string if the
    arguments are valid or this process does not know the tool.
    """
    tool = locked.agent.find_tool(call.name_in_code) if locked.agent else None
    try:
        if tool is not None:
            tool.validate(arguments)
    except ValueError as error:
        return str(error)
    return ""


def _note_decision(locked: Locked, call: ToolCall, *, by: Actor | User | None, reason: str) -> None:
    call.approval_decided_by, call.approval_decided_at = Actor.of(by).user, locked.now
    call.approval_reason = clean(reason)
    call.save(using=database(), update_fields=_APPROVAL)


@transition
def set_tool_call_timeout(
    thread: Thread | UUID | str, tool_call_id: str, seconds: float | None, *, by: Actor | User | None = None
) -> ToolCall:
    """Change how many seconds an unfinished call may take, and return the call. None means no limit.

    If the call is running or waits for an answer, the time starts now. Otherwise, it starts with the next attempt.

    Raises ToolCallNotFoundError. Raises ToolCallNotPendingError if the call already has an outcome. Raises ValueError
    if ``seconds`` is out of range.
    """
    if seconds is not None and not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise ValueError(f"A timeout is more than 0 and at most {MAX_TIMEOUT_SECONDS} seconds, or None.")
    with hold_thread(id_of(thread)) as locked:
        call = _open_call(locked, tool_call_id)
        call.timeout = None if seconds is None else timedelta(seconds=seconds)
        is_due = call.status == ToolCallStatus.PENDING and call.needs_worker
        call.expires_at = None if call.timeout is None or is_due else later(locked.now, call.timeout)
        call.rev = locked.thread.next_rev()
        call.save(using=database(), update_fields=["timeout", "expires_at", "rev"])
        record("set_tool_call_timeout", locked.thread.pk, by, subject=tool_call_id, arguments={"seconds": seconds})
    log_transition("set_tool_call_timeout", thread=call.thread_id, tool_call=call.pk)
    return call


@transition
def settle_tool_call(
    thread: Thread | UUID | str,
    tool_call_id: str,
    *,
    result: object = None,
    error: str | None = None,
    run_again: bool = False,
    by: Actor | User | None = None,
    reason: str = "",
) -> ToolCall:
    """Decide the outcome of a tool call whose worker died, and return the call.

    It is unknown whether the tool call has run. The tool's option ``after_crash="ask"`` lets a person decide. Pass one
    of these: the ``result`` of the call, an ``error`` text for the model, or ``run_again=True``. ``by`` and ``reason``
    are stored with the call.

    Raises ToolCallNotFoundError. Raises ToolCallNotPendingError if nobody has to decide the call's outcome.
    """
    with hold_thread(id_of(thread)) as locked:
        call = _open_call(locked, tool_call_id)
        if call.status != ToolCallStatus.UNKNOWN:
            raise ToolCallNotPendingError(tool_call_id, call.status)
        _note_decision(locked, call, by=by, reason=reason)
        decision = {"result": result, "error": error, "run_again": run_again, "reason": reason}
        record("settle_tool_call", locked.thread.pk, by, subject=tool_call_id, arguments=decision)
        if not run_again:
            call.answered_by_user = Actor.of(by).user
        if run_again:
            give_back(locked, call, attempt=call.attempt)
            call.error = call.error_code = ""
            call.rev = locked.thread.next_rev()
            call.save(using=database(), update_fields=["error", "error_code", "rev"])
        elif error is not None:
            settle(locked, call, ToolCallStatus.FAILED, code="settled", error=error)
        else:
            call.result = clean(result)
            settle(locked, call, ToolCallStatus.COMPLETED)
        advance(locked)
    log_transition("settle_tool_call", thread=call.thread_id, tool_call=call.pk)
    return call


def _open_call(locked: Locked, tool_call_id: str) -> ToolCall:
    call = _call(locked, tool_call_id)
    if call.finished_at is not None:
        raise ToolCallNotPendingError(tool_call_id, call.status)
    return call


def _call(locked: Locked, tool_call_id: str) -> ToolCall:
    calls = ToolCall.objects.using(database()).filter(thread=locked.thread, tool_call_id=tool_call_id)
    call = only_row(calls.select_for_update(no_key=True))
    if call is None:
        raise ToolCallNotFoundError(tool_call_id)
    return call
