"""The arrows that bring rows back from dead, leaving or ignorant workers, and what is cleaned up after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import DatabaseError
from django.db.models import BooleanField, ExpressionWrapper, Q
from django.db.models.functions import Now

from durable_agents.agents import AfterCrash, Tool, registry
from durable_agents.conf import config
from durable_agents.exceptions import ErrorKind, LeaseLostError, ThreadNotFoundError
from durable_agents.lifecycle.advance import advance, fail_run
from durable_agents.lifecycle.attachments import prune_unsent
from durable_agents.lifecycle.claims import Claim, held_call, held_stream
from durable_agents.lifecycle.locking import Locked, arrow, database, hold_thread, log_arrow
from durable_agents.lifecycle.moves import (
    DID_NOT_RUN,
    MAY_HAVE_RUN,
    abort,
    add_stream,
    answer_of_next_attempt,
    give_back,
    settle,
)
from durable_agents.llm import ModelUsage, door
from durable_agents.logs import log_error
from durable_agents.models import (
    SUSPECT_CRASHES,
    Command,
    Delta,
    Stream,
    StreamState,
    Ticket,
    ToolCall,
    ToolCallStatus,
    calls_of,
    seconds_from_now,
    streams_of,
)
from durable_agents.outbound import ring_workers
from durable_agents.parts import Chunk, fold, joined, text_of


@arrow
def release(claim: Claim) -> None:
    """Give a held row back, due now, the attempt not counted (drain, deploy). A lost claim: nothing.

    A tool that has begun may have had its effect, so what follows is what follows a crash: its declaration decides.
    """
    goes_on = claim.kind == "stream" and _may_go_on(Stream.objects.using(database()).get(pk=claim.row_id))
    with hold_thread(claim.thread_id) as locked:
        try:
            if claim.kind == "stream":
                stream = held_stream(claim)
                same: dict[str, Any] = {"attempt": stream.attempt, "crashes": stream.crashes}
                _supersede(locked, stream, **same, reason="released", goes_on=goes_on)
            else:
                call = held_call(claim)
                _after_crash(locked, call, crashes=call.crashes)
        except LeaseLostError:
            return
    log_arrow("release", thread=claim.thread_id, fence=claim.fence, **{claim.kind: claim.row_id})


@arrow
def begin_again(claim: Claim) -> None:
    """The model does not go on with what an earlier attempt has said: the same attempt from the beginning."""
    with hold_thread(claim.thread_id) as locked:
        stream = held_stream(claim)
        _supersede(locked, stream, attempt=stream.attempt, crashes=stream.crashes, reason="released")
    log_arrow("begin_again", thread=claim.thread_id, stream=claim.row_id, fence=claim.fence)


def _supersede(
    locked: Locked,
    stream: Stream,
    *,
    attempt: int,
    crashes: int,
    reason: str,
    goes_on: bool = False,
    spent: Spent | None = None,
) -> None:
    """A fresh attempt takes over; browsers are told to drop what the old one showed. With ``goes_on`` the new one
    begins with what is stored of it."""
    said = _text_to_continue(stream) if goes_on else []
    spent = spent or Spent()
    abort(locked, stream, reason=reason, model=spent.model, usage=spent.usage)
    message_id = answer_of_next_attempt(locked, stream.answer_id)
    said = said if message_id == stream.message_id else []
    add_stream(locked, message_id, attempt=attempt, crashes=crashes, said=said)


def _may_go_on(row: Stream | ToolCall) -> bool:
    """Whether the next attempt at this model call can go on with what is stored of it. Asks the model library, which
    may have to be loaded: not for calls that have said nothing yet."""
    if not isinstance(row, Stream):
        return False
    agent = registry.find(row.agent)
    if agent is None or agent.after_crash != "continue" or not _text_to_continue(row):
        return False
    return door().continues(agent.model_for(row.attempt), agent.model_settings)


def _text_to_continue(stream: Stream) -> list[Chunk]:
    """What is stored of an attempt that has said text and nothing else, in as few chunks as can be."""
    chunks = joined(Delta.objects.using(database()).chunks_of(stream.pk))
    parts = fold(chunks)
    is_text = all(part["type"] in {"step-start", "text"} for part in parts)
    return chunks if is_text and text_of(parts).strip() else []


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What an attempt has used whose worker cannot say so any more."""

    model: str = ""
    usage: ModelUsage | None = None


def reap(is_gone: Callable[[str], bool], spent: Callable[[Stream], Spent] = lambda _: Spent()) -> int:
    """End the leases of dead holders, those whose lease ran out or of whom ``is_gone(lease_owner)`` is true, and
    decide what follows; ``spent`` says what a model call has used. Rows that somebody locks are skipped, and for the
    grace period those of agents and tools that only others know. Returns how many were reaped."""
    expired = ExpressionWrapper(Q(lease_expires_at__lt=Now()), output_field=BooleanField())
    abandoned = Q(lease_expires_at__lt=seconds_from_now(-config().unknown_code_grace_seconds))
    streams = Stream.objects.using(database()).held().filter(streams_of(registry.code()) | abandoned)
    calls = ToolCall.objects.using(database()).held().filter(calls_of(registry.code()) | abandoned)
    held: list[Any] = [*streams.annotate(expired=expired), *calls.annotate(expired=expired)]
    gone = {owner for owner in {row.lease_owner for row in held} if is_gone(owner)}
    dead = [row for row in held if row.lease_owner in gone or row.expired]
    return _drawn_for_each(dead, lambda row: _reap_one(row, is_gone=row.lease_owner in gone, spent=spent))


def _drawn_for_each(rows: Iterable[Stream | ToolCall], draw: Callable[[Any], bool]) -> int:
    """Draw an arrow for each row; one that cannot be read, or at which the project's code fails, harms no other.
    Returns for how many something was done. Raises what the database raises."""
    count = 0
    for row in rows:
        try:
            count += draw(row)
        except DatabaseError:
            raise
        except Exception:
            log_error("a row was left as it is", action="recovery", thread=row.thread_id, row=row.pk)
    return count


@arrow
def _reap_one(row: Stream | ToolCall, *, is_gone: bool, spent: Callable[[Stream], Spent]) -> bool:
    goes_on, used = _may_go_on(row), spent(row) if isinstance(row, Stream) else Spent()
    try:
        with hold_thread(_thread_of(row), skip_locked=True) as locked:
            held: Any = row.__class__._default_manager.using(database())
            still_dead = Q(lease_expires_at__lt=Now()) | Q(lease_owner=row.lease_owner if is_gone else "-")
            rows = held.select_for_update(no_key=True).filter(still_dead, pk=row.pk, fence=row.fence)
            current = rows.first()
            if isinstance(current, Stream) and current.state == StreamState.STREAMING:
                _reap_stream(locked, current, goes_on=goes_on, spent=used)
            elif isinstance(current, ToolCall) and current.status == ToolCallStatus.RUNNING:
                _after_crash(locked, current, crashes=current.crashes + 1)
            else:
                return False
    except ThreadNotFoundError:
        return False
    log_arrow("reap", thread=row.thread_id, fence=row.fence, row=row.pk, lease_owner=row.lease_owner)
    return True


def _thread_of(row: Stream | ToolCall) -> UUID:
    """The thread of an open row; only closed streams may have lost theirs."""
    if row.thread_id is None:
        raise ThreadNotFoundError(row.pk)
    return row.thread_id


def _reap_stream(locked: Locked, stream: Stream, *, goes_on: bool, spent: Spent) -> None:
    crashes = stream.crashes + 1
    if locked.agent is None:
        _fail_unknown(locked, stream)
    elif _is_hopeless(crashes):
        stream.error_code = ErrorKind.CRASHED.value
        abort(locked, stream, reason="crashed", model=spent.model, usage=spent.usage)
        fail_run(locked, ErrorKind.CRASHED)
    else:
        facts: dict[str, Any] = {"attempt": stream.attempt, "crashes": crashes}
        _supersede(locked, stream, **facts, reason="crashed", goes_on=goes_on, spent=spent)


def _is_hopeless(crashes: int) -> bool:
    """Whether a row has killed too many of those that ran it alone: bystanders never come here."""
    return crashes - SUSPECT_CRASHES >= config().crash_limit


def _after_crash(locked: Locked, call: ToolCall, *, crashes: int) -> None:
    """A tool whose worker went away in the middle runs again, fails or is unknown, as its declaration says."""
    declared = locked.agent.find_tool(call.tool_name) if locked.agent else None
    after_crash = _declared_for_crash(declared)
    if after_crash == "retry" and not _is_hopeless(crashes):
        give_back(locked, call, attempt=call.attempt, crashes=crashes)
        return
    status = ToolCallStatus.UNKNOWN if after_crash in {"unknown", "ask"} else ToolCallStatus.FAILED
    error = DID_NOT_RUN if declared is not None and declared.atomic else MAY_HAVE_RUN
    settle(locked, call, status, code="crashed", error=error, asks=after_crash == "ask")
    advance(locked)


def _declared_for_crash(tool: Tool | None) -> AfterCrash:
    """Atomic tools left nothing behind; those that only announce a call may announce it again."""
    if tool is None:
        return "unknown"
    announces = tool.kind == "deferred" and tool.after_crash == "unknown"
    return "retry" if tool.atomic or announces else tool.after_crash


def settle_unknown_code() -> int:
    """Settle, visibly, what has been due for the grace period without any worker that knows its agent or tool. What
    waits in a pool that the settings name no more moves to the default one.

    Returns how many rows were settled. Call it where the newest code runs: what this process knows is left alone.
    """
    grace = config().unknown_code_grace_seconds
    Stream.objects.using(database()).overdue(grace).exclude(pool__in=config().pools).update(pool="agents")
    ToolCall.objects.using(database()).overdue(grace).exclude(pool__in=config().pools).update(pool="tools")
    streams = Stream.objects.using(database()).overdue(grace).exclude(streams_of(registry.code()))
    calls = ToolCall.objects.using(database()).overdue(grace).exclude(calls_of(registry.code()))
    return _drawn_for_each([*streams, *calls], _settle_unknown)


@arrow
def _settle_unknown(row: Stream | ToolCall) -> bool:
    try:
        with hold_thread(_thread_of(row)) as locked:
            manager: Any = row.__class__._default_manager.using(database())
            current = manager.select_for_update(no_key=True).filter(pk=row.pk, fence=row.fence).first()
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
    log_arrow("settle_unknown_code", thread=row.thread_id, row=row.pk)
    return True


def _fail_unknown(locked: Locked, stream: Stream) -> None:
    stream.error_detail = f"No worker knows the agent {locked.thread.agent!r}."
    abort(locked, stream, reason="error")
    fail_run(locked, ErrorKind.UNKNOWN)


def ring_overdue(thread_ids: Collection[UUID], *, seconds: float) -> None:
    """Ring for rows of these threads that have been due for so long: somebody is watching, and nobody came."""
    using = database()
    streams = Stream.objects.using(using).overdue(seconds).filter(thread_id__in=thread_ids)
    calls = ToolCall.objects.using(using).overdue(seconds).filter(thread_id__in=thread_ids)
    pools = {*streams.values_list("pool", flat=True), *calls.values_list("pool", flat=True)}
    if pools:
        ring_workers(pools, using=using)


def prune() -> int:
    """Delete the deltas of closed streams, expired tickets, and what is a day old of answers to commands and of files
    that no message carries. Returns how many deltas."""
    Command.objects.using(database()).filter(created_at__lt=seconds_from_now(-86_400)).delete()
    Ticket.objects.using(database()).filter(expires_at__lt=Now()).delete()
    prune_unsent()
    old = Delta.objects.using(database()).disposable().filter(stream__finished_at__lt=seconds_from_now(-60))
    return old.delete()[0]
