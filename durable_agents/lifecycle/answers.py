"""The arrows by which calls are answered from outside: by people, browsers and services."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from durable_agents.exceptions import (
    ApprovalExpiredError,
    InvalidPartsError,
    PermissionDeniedError,
    ToolCallNotFoundError,
    ToolCallNotPendingError,
)
from durable_agents.lifecycle.advance import advance
from durable_agents.lifecycle.locking import Locked, arrow, database, hold_thread, id_of, log_arrow, only_row
from durable_agents.lifecycle.moves import NOBODY_ANSWERED, give_back, settle
from durable_agents.lifecycle.steps import digest
from durable_agents.models import Thread, ToolCall, ToolCallStatus, ToolKind
from durable_agents.strictjson import clean

MAX_TIMEOUT_SECONDS = 366 * 86_400
_DENIED = "A person refused this call."
_APPROVAL = ["approval_decided_by", "approval_decided_at", "approval_reason"]


@arrow
def add_tool_result(thread: Thread | UUID | str, tool_call_id: str, result: Any) -> ToolCall:
    """The result of a deferred or client call, any JSON value. The same result again changes nothing. Returns the call.

    Raises ToolCallNotFoundError, and ToolCallNotPendingError for a call that has another outcome, that waits for an
    approval, or whose result comes from a worker.
    """
    return _answer(thread, tool_call_id, ToolCallStatus.COMPLETED, result=clean(result))


@arrow
def add_tool_error(thread: Thread | UUID | str, tool_call_id: str, error: str) -> ToolCall:
    """A deferred or client call failed; the model is told ``error``. Otherwise as ``add_tool_result``."""
    return _answer(thread, tool_call_id, ToolCallStatus.FAILED, error=clean(error))


def _answer(
    thread: Thread | UUID | str, tool_call_id: str, status: ToolCallStatus, *, result: Any = None, error: str = ""
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
        settle(locked, call, status, code="tool_error" if error else "", error=error)
        advance(locked)
    log_arrow("add_tool_result", thread=call.thread_id, tool_call=call.pk)
    return call


def approve_tool_call(
    thread: Thread | UUID | str,
    tool_call_id: str,
    *,
    by: Any,
    arguments: dict[str, Any] | None = None,
    reason: str = "",
) -> ToolCall:
    """A person lets a call run, with ``arguments`` in place of the model's where they are given: both are kept, and the
    model is told. ``by`` is a user, or None for the project itself; who, when, why and the digest of what was approved
    stay with the call, which is returned. The first decision counts.

    Raises ToolCallNotFoundError, ToolCallNotPendingError, ApprovalExpiredError, PermissionDeniedError where the tool
    wants somebody else, and InvalidPartsError for arguments that do not fit. With ApprovalExpiredError the call is
    settled as expired; inside a caller's transaction only if that one is committed in spite of the error, else the
    sweep settles it.
    """
    return _in_time(_approve(thread, tool_call_id, by=by, arguments=arguments, reason=reason))


@arrow
def _approve(
    thread: Thread | UUID | str, tool_call_id: str, *, by: Any, arguments: dict[str, Any] | None, reason: str
) -> ToolCall:
    with hold_thread(id_of(thread)) as locked:
        call = _call_to_decide(locked, tool_call_id, by=by)
        if call.status == ToolCallStatus.EXPIRED:
            return call
        if arguments is not None:
            call.approved_arguments = _checked_arguments(locked, call, arguments)
        _note_decision(locked, call, by=by, reason=reason)
        run_with = call.arguments if call.approved_arguments is None else call.approved_arguments
        call.approval_digest = digest(call.tool_name, run_with)
        call.status, call.available_at = ToolCallStatus.PENDING, locked.now
        waits_outside = call.timeout is not None and not call.needs_worker
        call.expires_at = locked.now + call.timeout if call.timeout is not None and waits_outside else None
        call.rev = locked.thread.next_rev()
        changed = ["status", "available_at", "expires_at", "approved_arguments", "approval_digest", "rev"]
        call.save(using=database(), update_fields=changed)
        if call.needs_worker:
            locked.pools.add(call.pool)
    log_arrow("approve_tool_call", thread=call.thread_id, tool_call=call.pk)
    return call


def reject_tool_call(thread: Thread | UUID | str, tool_call_id: str, *, by: Any, reason: str = "") -> ToolCall:
    """A person refuses a call: it is settled as denied, and the model is told so, with the reason. Otherwise as
    ``approve_tool_call``."""
    return _in_time(_reject(thread, tool_call_id, by=by, reason=reason))


@arrow
def _reject(thread: Thread | UUID | str, tool_call_id: str, *, by: Any, reason: str) -> ToolCall:
    with hold_thread(id_of(thread)) as locked:
        call = _call_to_decide(locked, tool_call_id, by=by)
        if call.status == ToolCallStatus.EXPIRED:
            return call
        _note_decision(locked, call, by=by, reason=reason)
        settle(locked, call, ToolCallStatus.DENIED, code="denied", error=f"{_DENIED} {clean(reason)}".strip())
        advance(locked)
    log_arrow("reject_tool_call", thread=call.thread_id, tool_call=call.pk)
    return call


def _call_to_decide(locked: Locked, tool_call_id: str, *, by: Any) -> ToolCall:
    """A call that waits for a decision of this person; one whose time is over is settled as expired."""
    call = _call(locked, tool_call_id)
    if call.status == ToolCallStatus.EXPIRED and call.approval_requested_at and not call.approval_decided_at:
        return call
    if call.status != ToolCallStatus.APPROVAL_REQUESTED:
        raise ToolCallNotPendingError(tool_call_id, call.status)
    if not _may_decide(locked.thread, call, by):
        raise PermissionDeniedError(f"Tool call {tool_call_id!r} waits for the decision of somebody else.")
    if call.expires_at is not None and call.expires_at <= locked.now:
        settle(locked, call, ToolCallStatus.EXPIRED, code="expired", error=NOBODY_ANSWERED)
        advance(locked)
    return call


def _may_decide(thread: Thread, call: ToolCall, by: Any) -> bool:
    """The project itself, and staff, may decide everything; the owner what the tool leaves to them."""
    if by is None or getattr(by, "is_staff", False):
        return True
    return call.approved_by == "owner" and by.pk is not None and by.pk == thread.owner_id


def _in_time(call: ToolCall) -> ToolCall:
    """After the commit that settled it: a decision that came too late is an error."""
    if call.status == ToolCallStatus.EXPIRED:
        raise ApprovalExpiredError(call.tool_call_id)
    return call


def _checked_arguments(locked: Locked, call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a person's, cleaned, as the tool takes them."""
    tool = locked.agent.find_tool(call.tool_name) if locked.agent else None
    cleaned: dict[str, Any] = clean(arguments)
    try:
        if tool is not None:
            tool.validate(cleaned)
    except ValueError as error:
        raise InvalidPartsError(str(error)) from error
    return cleaned


def _note_decision(locked: Locked, call: ToolCall, *, by: Any, reason: str) -> None:
    call.approval_decided_by, call.approval_decided_at, call.approval_reason = by, locked.now, clean(reason)
    call.save(using=database(), update_fields=_APPROVAL)


@arrow
def set_tool_call_timeout(thread: Thread | UUID | str, tool_call_id: str, seconds: float | None) -> ToolCall:
    """Change how long an open call may take: from now on where it runs or somebody's answer is awaited, else from the
    beginning of its next attempt. None is without limit. Returns the call.

    Raises ToolCallNotFoundError, ToolCallNotPendingError for a call that has its outcome, and ValueError.
    """
    if seconds is not None and not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise ValueError(f"A timeout is more than 0 and at most {MAX_TIMEOUT_SECONDS} seconds, or None.")
    with hold_thread(id_of(thread)) as locked:
        call = _open_call(locked, tool_call_id)
        call.timeout = None if seconds is None else timedelta(seconds=seconds)
        is_due = call.status == ToolCallStatus.PENDING and call.needs_worker
        call.expires_at = None if call.timeout is None or is_due else locked.now + call.timeout
        call.rev = locked.thread.next_rev()
        call.save(using=database(), update_fields=["timeout", "expires_at", "rev"])
    log_arrow("set_tool_call_timeout", thread=call.thread_id, tool_call=call.pk)
    return call


@arrow
def settle_tool_call(
    thread: Thread | UUID | str,
    tool_call_id: str,
    *,
    result: Any = None,
    error: str | None = None,
    run_again: bool = False,
    by: Any = None,
    reason: str = "",
) -> ToolCall:
    """Answer for a call of which nobody knows whether it ran, and whose tool asks (``after_crash="ask"``): give its
    ``result``, or an ``error`` that the model is told, or let it ``run_again``. Returns the call.

    ``by`` and ``reason`` are kept with it. Raises ToolCallNotFoundError, and ToolCallNotPendingError for a call that
    asks nothing (any more).
    """
    with hold_thread(id_of(thread)) as locked:
        call = _open_call(locked, tool_call_id)
        if call.status != ToolCallStatus.UNKNOWN:
            raise ToolCallNotPendingError(tool_call_id, call.status)
        _note_decision(locked, call, by=by, reason=reason)
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
    log_arrow("settle_tool_call", thread=call.thread_id, tool_call=call.pk)
    return call


def _open_call(locked: Locked, tool_call_id: str) -> ToolCall:
    call = _call(locked, tool_call_id)
    if call.finished_at is not None:
        raise ToolCallNotPendingError(tool_call_id, call.status)
    return call


def _call(locked: Locked, tool_call_id: str) -> ToolCall:
    calls = ToolCall.objects.using(database()).filter(thread=locked.thread, tool_call_id=tool_call_id)
    call: ToolCall | None = only_row(calls.select_for_update(no_key=True))
    if call is None:
        raise ToolCallNotFoundError(tool_call_id)
    return call
