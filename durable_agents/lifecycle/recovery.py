"""Transitions that recover rows whose worker has died or stopped, and rows whose agent or tool no worker knows. Also
deletes rows that are no longer needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from django.db import Error
from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.functions import Now

from durable_agents.agents import registry
from durable_agents.conf import config
from durable_agents.exceptions import ErrorKind, LeaseLostError, ThreadNotFoundError
from durable_agents.lifecycle.advance import advance, fail_run
from durable_agents.lifecycle.attachments import prune_unsent
from durable_agents.lifecycle.claims import Claim, held_call, held_stream
from durable_agents.lifecycle.rows import (
    DID_NOT_RUN,
    MAY_HAVE_RUN,
    Deaths,
    abort,
    add_stream,
    answer_of_next_attempt,
    give_back,
    settle,
)
from durable_agents.lifecycle.transaction import Locked, database, hold_thread, log_transition, transition
from durable_agents.llm import ModelUsage, door
from durable_agents.logs import log_error
from durable_agents.models import (
    Command,
    DeliveryReport,
    Delta,
    Stream,
    StreamState,
    Ticket,
    ToolCall,
    ToolCallStatus,
    WorkerProblem,
    calls_of,
    seconds_from_now,
    streams_of,
)
from durable_agents.notifications import notify_workers
from durable_agents.parts import Chunk, fold, joined, text_of

HeldRow: TypeAlias = Stream | ToolCall


@transition
def release(claim: Claim, *, has_begun: bool = True, crashes: int = 0, nowait: bool = False) -> None:
    """Give up a claimed row, for example because the worker shuts down. If the claim was lost, do nothing.

    - A model call is due again immediately, and this attempt does not count.
    - A tool call that has not begun (``has_begun=False``) is due again immediately, and this attempt does not count.
    - For a tool call that has begun, the tool's ``after_crash`` option decides what happens.

    Pass ``crashes=1`` if the row may be the reason why the worker stops. One crash is then counted for the row. For a
    tool call that has not begun, no crash is counted. A model call that reaches ``CRASH_LIMIT`` fails.
    """
    # Call ``_may_go_on`` before the thread is locked, because ``_may_go_on`` may load the model library. Loading takes
    # long, and other writers would wait for the lock.
    goes_on = claim.kind == "stream" and _may_go_on(Stream.objects.using(database()).get(pk=claim.row_id))
    with hold_thread(claim.thread_id, nowait=nowait) as locked, suppress(LeaseLostError):
        if claim.kind == "stream":
            stream = held_stream(claim)
            deaths = _deaths_of(stream, crashes=crashes)
            if crashes and deaths.are_too_many:
                _reap_stream(locked, stream, in_company=False, goes_on=goes_on, spent=Spent())
            else:
                _supersede(locked, stream, deaths=deaths, reason="released", goes_on=goes_on)
        elif has_begun:
            call = held_call(claim)
            _after_crash(locked, call, deaths=_deaths_of(call, crashes=crashes))
        else:
            call = held_call(claim)
            give_back(locked, call, attempt=call.attempt, deaths=Deaths.of(call))
        log_transition("release", thread=claim.thread_id, fence=claim.fence, **{claim.kind: claim.row_id})


def _deaths_of(row: HeldRow, *, crashes: int) -> Deaths:
    return Deaths.after_one(row, in_company=False) if crashes else Deaths.of(row)


@transition
def begin_again(claim: Claim, *, nowait: bool = False) -> None:
    """Replace a model call by a new one that begins with an empty answer. Workers call this function if the model
    cannot continue the text of an earlier attempt.
    """
    with hold_thread(claim.thread_id, nowait=nowait) as locked:
        stream = held_stream(claim)
        _supersede(locked, stream, deaths=Deaths.of(stream), reason="released")
    log_transition("begin_again", thread=claim.thread_id, stream=claim.row_id, fence=claim.fence)


def _supersede(
    locked: Locked,
    stream: Stream,
    *,
    deaths: Deaths,
    reason: str,
    goes_on: bool = False,
    spent: Spent | None = None,
) -> None:
    """Abort a model call, and add another attempt. Browsers discard the old attempt's text.

    With ``goes_on``, the new attempt begins with the old text, and the model continues it.
    """
    continued_text = _text_to_continue(stream) if goes_on else []
    spent = spent or Spent()
    abort(locked, stream, reason=reason, model=spent.model, usage=spent.usage)
    message_id = answer_of_next_attempt(locked, stream.answer_id)
    continued_text = continued_text if message_id == stream.message_id else []
    add_stream(locked, message_id, attempt=stream.attempt, deaths=deaths, continued_text=continued_text)


def _may_go_on(row: HeldRow) -> bool:
    """Return whether the next attempt can continue the text that this attempt has stored.

    The model library is asked last, because it takes long to load.
    """
    if not isinstance(row, Stream):
        return False
    agent = registry.find(row.agent)
    if agent is None or agent.after_crash != "continue" or not _text_to_continue(row):
        return False
    return door().continues(agent.model_for(row.attempt), agent.model_settings)


def _text_to_continue(stream: Stream) -> list[Chunk]:
    """Return the stored text of an attempt as a few merged chunks. Return an empty list if the attempt has
    produced no text, or other content besides text.
    """
    chunks = joined(Delta.objects.using(database()).chunks_of(stream.pk))
    parts = fold(chunks)
    is_text = all(part["type"] in {"step-start", "text"} for part in parts)
    return chunks if is_text and text_of(parts).strip() else []


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The model usage of an attempt whose worker died before it could report the usage."""

    model: str = ""
    usage: ModelUsage | None = None


def reap(
    is_gone: Callable[[str], bool],
    spent: Callable[[Stream], Spent] = lambda _: Spent(),
    not_begun: Callable[[str], Collection[UUID]] = lambda _: (),
) -> int:
    """Take rows away from dead workers, and retry the rows or give them an outcome. Return the number of rows changed.

    A worker is dead if its lease has expired or ``is_gone`` returns True for it. The arguments are functions:

    - ``is_gone`` gets the name of a worker (``lease_owner``) and returns whether the worker has died.
    - ``spent`` gets a model call and returns its usage.
    - ``not_begun`` gets the name of a dead worker and returns the ids of tool calls that the worker had certainly not
      begun. These calls become due again, as if the worker had never claimed them.

    Rows that another transaction has locked are skipped. A row whose agent or tool this process does not know is
    skipped until its lease has been expired for ``UNKNOWN_CODE_GRACE_SECONDS``.
    """
    expired = ExpressionWrapper(Q(lease_expires_at__lt=Now()), output_field=BooleanField())
    abandoned = Q(lease_expires_at__lt=seconds_from_now(-config().unknown_code_grace_seconds))
    streams = Stream.objects.using(database()).held().filter(streams_of(registry.code()) | abandoned)
    calls = ToolCall.objects.using(database()).held().filter(calls_of(registry.code()) | abandoned)
    held: list[HeldRow] = [*streams.annotate(expired=expired), *calls.annotate(expired=expired)]
    gone = {owner for owner in {row.lease_owner for row in held} if is_gone(owner)}
    dead = [row for row in held if row.lease_owner in gone or vars(row)["expired"]]
    # Begin with the lease that expired first. Each recovering process may die before it reaches the last row. In any
    # other order, the same old row could be left out every time.
    dead.sort(key=lambda row: row.lease_expires_at)
    unbegun = {owner: not_begun(owner) for owner in gone}
    return _run_for_each(
        dead,
        lambda row: _reap_one(
            row,
            is_gone=row.lease_owner in gone,
            in_company=len(gone) > 1,
            has_begun=row.pk not in unbegun.get(row.lease_owner, ()),
            spent=spent,
        ),
    )


def _run_for_each(rows: Iterable[HeldRow], run: Callable[[HeldRow], bool]) -> int:
    """Run a transition for each row, and return the number of rows changed.

    An error in one row, for example in the project's code, does not stop the others. Database errors are raised.
    """
    count = 0
    for row in rows:
        try:
            count += run(row)
        except Error:
            raise
        except Exception:
            log_error("a row was left as it is", action="recovery", thread=row.thread_id, row=row.pk)
    return count


@transition
def _reap_one(
    row: HeldRow, *, is_gone: bool, in_company: bool, has_begun: bool, spent: Callable[[Stream], Spent]
) -> bool:
    goes_on, used = _may_go_on(row), spent(row) if isinstance(row, Stream) else Spent()
    try:
        with hold_thread(_thread_of(row), skip_locked=True) as locked:
            held = type(row).objects.using(database())
            # Check again under the lock. The worker may have sent a heartbeat or finished the row since.
            still_dead = Q(lease_expires_at__lt=Now()) | Q(lease_owner=row.lease_owner if is_gone else "-")
            rows = held.select_for_update(no_key=True).filter(still_dead, pk=row.pk, fence=row.fence)
            current = rows.first()
            if isinstance(current, Stream) and current.state == StreamState.STREAMING:
                _reap_stream(locked, current, in_company=in_company, goes_on=goes_on, spent=used)
            elif isinstance(current, ToolCall) and current.status == ToolCallStatus.RUNNING and not has_begun:
                give_back(locked, current, attempt=current.attempt, deaths=Deaths.of(current))
            elif isinstance(current, ToolCall) and current.status == ToolCallStatus.RUNNING:
                _after_crash(locked, current, deaths=Deaths.after_one(current, in_company=in_company))
            else:
                return False
    except ThreadNotFoundError:
        return False
    log_transition("reap", thread=row.thread_id, fence=row.fence, row=row.pk, lease_owner=row.lease_owner)
    return True


def _thread_of(row: HeldRow) -> UUID:
    """Return the id of the row's thread. Raise ThreadNotFoundError if the thread was deleted; a closed stream can
    remain without its thread.
    """
    if row.thread_id is None:
        raise ThreadNotFoundError(row.pk)
    return row.thread_id


def _reap_stream(locked: Locked, stream: Stream, *, in_company: bool, goes_on: bool, spent: Spent) -> None:
    deaths = Deaths.after_one(stream, in_company=in_company)
    if locked.agent is None:
        _fail_unknown(locked, stream)
    elif deaths.are_too_many:
        stream.error_code = ErrorKind.CRASHED.value
        abort(locked, stream, reason="crashed", model=spent.model, usage=spent.usage)
        fail_run(locked, ErrorKind.CRASHED)
    else:
        _supersede(locked, stream, deaths=deaths, reason="crashed", goes_on=goes_on, spent=spent)


def _after_crash(locked: Locked, call: ToolCall, *, deaths: Deaths) -> None:
    """Handle a tool call whose worker died. The tool's ``after_crash`` option decides: run the call again, fail it, or
    mark it as unknown.
    """
    declared = locked.agent.find_tool(call.name_in_code) if locked.agent else None
    after_crash = call.after_crash or ("unknown" if declared is None else declared.after_death)
    if after_crash == "retry" and not deaths.are_too_many:
        give_back(locked, call, attempt=call.attempt, deaths=deaths)
        return
    status = ToolCallStatus.UNKNOWN if after_crash in {"unknown", "ask"} else ToolCallStatus.FAILED
    error = DID_NOT_RUN if declared is not None and declared.atomic else MAY_HAVE_RUN
    settle(locked, call, status, code="crashed", error=error, asks=after_crash == "ask")
    advance(locked)


def settle_unknown_code() -> int:
    """Fail rows whose agent or tool this process does not know, and which no worker has claimed during the grace
    period. Return the number of rows failed.

    Call this function in a process with the newest code, because older code may not know a new agent or tool. Users see
    that the run or the tool call failed. Rows of a pool that was removed from the settings move to the default pool.
    """
    grace = config().unknown_code_grace_seconds
    Stream.objects.using(database()).overdue(grace).exclude(pool__in=config().pools).update(pool="agents")
    ToolCall.objects.using(database()).overdue(grace).exclude(pool__in=config().pools).update(pool="tools")
    streams = Stream.objects.using(database()).overdue(grace).exclude(streams_of(registry.code()))
    calls = ToolCall.objects.using(database()).overdue(grace).exclude(calls_of(registry.code()))
    return _run_for_each([*streams, *calls], _settle_unknown)


@transition
def _settle_unknown(row: HeldRow) -> bool:
    try:
        with hold_thread(_thread_of(row)) as locked:
            rows = type(row).objects.using(database())
            current = rows.select_for_update(no_key=True).filter(pk=row.pk, fence=row.fence).first()
            if isinstance(current, Stream) and current.state == StreamState.PENDING:
                _fail_unknown(locked, current)
            elif isinstance(current, ToolCall) and current.status == ToolCallStatus.PENDING:
                text = f"The tool {current.tool_name!r} is not available any more."
                settle(locked, current, ToolCallStatus.FAILED, code="tool_not_available", error=text)
                advance(locked)
            else:
                return False
    except ThreadNotFoundError:
        return False
    log_transition("settle_unknown_code", thread=row.thread_id, row=row.pk)
    return True


def _fail_unknown(locked: Locked, stream: Stream) -> None:
    stream.error_detail = f"No worker knows the agent {locked.thread.agent!r}."
    abort(locked, stream, reason="error")
    fail_run(locked, ErrorKind.UNKNOWN)


def notify_overdue(thread_ids: Collection[UUID], *, seconds: float) -> None:
    """Notify workers again about rows of these threads that have been due for more than ``seconds``. The caller passes
    the threads that clients are watching.
    """
    using = database()
    streams = Stream.objects.using(using).overdue(seconds).filter(thread_id__in=thread_ids)
    calls = ToolCall.objects.using(using).overdue(seconds).filter(thread_id__in=thread_ids)
    pools = {*streams.values_list("pool", flat=True), *calls.values_list("pool", flat=True)}
    if pools:
        notify_workers(pools, using=using)


def prune() -> int:
    """Delete rows that are no longer needed. Return the number of deltas deleted.

    - Deltas are deleted a minute after their model call ends.
    - Websocket tickets are deleted when they expire.
    - Stored answers to commands, reports of worker problems, reports of live delivery, and uploaded files that are in
      no message are deleted after a day.
    """
    Command.objects.using(database()).filter(created_at__lt=seconds_from_now(-86_400)).delete()
    Ticket.objects.using(database()).filter(expires_at__lt=Now()).delete()
    for reports in (WorkerProblem.objects, DeliveryReport.objects):
        reports.using(database()).filter(seen_at__lt=seconds_from_now(-86_400)).delete()
    prune_unsent()
    old = Delta.objects.using(database()).disposable().filter(stream__finished_at__lt=seconds_from_now(-60))
    return old.delete()[0]
