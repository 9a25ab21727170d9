"""The moves that arrows are made of, each under the thread's lock: a message, an attempt or a call changes its state.

None of them decides what follows: that is for ``advance``."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from durable_agents.lifecycle.attachments import Sender, bound
from durable_agents.lifecycle.locking import Locked, database
from durable_agents.lifecycle.telling import tell_answer, tell_call, tell_message
from durable_agents.llm import ModelUsage
from durable_agents.models import Delta, Message, Role, Stream, StreamState, Thread, ToolCall, ToolCallStatus, Usage
from durable_agents.parts import LATE_RESULT, Chunk, Part, close, fold, text_of
from durable_agents.strictjson import clean

USAGE = [field.name for field in Usage._meta.fields]
_CLOSED = [
    *("state", "parts", "text", "model", "finish_reason", "error_code", "error_detail", "rev", "finished_at"),
    *("lease_owner", "lease_expires_at", "fence"),
]
_SETTLED = [
    *("status", "result", "error", "error_code", "error_detail", "finished_at", "expires_at", "rev"),
    *("lease_owner", "lease_expires_at", "fence"),
]
_GIVEN_BACK = [
    *("status", "attempt", "crashes", "available_at", "expires_at", "error_detail"),
    *("lease_owner", "lease_expires_at", "fence"),
]
NOBODY_ANSWERED = "Nobody answered in time."
MAY_HAVE_RUN = "The tool call was interrupted: it may or may not have run."
DID_NOT_RUN = "The tool call was interrupted each time, and left nothing behind."


def answer_of_next_attempt(locked: Locked, message_id: UUID) -> UUID:
    """The assistant message that the next attempt belongs to: a new one where a user has spoken since. An old one
    that never got any parts is taken back."""
    last = last_message(locked)
    if last is None or not last.asks:
        return message_id
    if not Stream.objects.using(database()).in_transcript().filter(message_id=message_id).exists():
        old = Message.objects.using(database()).filter(pk=message_id)
        old.update(superseded_at=locked.now, rev=locked.thread.next_rev())
    return new_answer(locked, last).pk


def put_message(
    locked: Locked,
    role: Role,
    parts: list[Part],
    *,
    queued: bool = False,
    client_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    parent: Message | None = None,
    sender: Sender | None = None,
) -> Message:
    thread, parts = locked.thread, bound(locked, parts, sender=sender)
    message = Message(
        thread=thread,
        parent=parent,
        position=None if queued else next_position(thread),
        queued_at=locked.now if queued else None,
        client_id=client_id,
        role=role,
        parts=parts,
        text=text_of(parts),
        metadata=metadata or {},
        rev=thread.next_rev(),
        created_at=locked.now,
    )
    message.save(using=database(), force_insert=True)
    tell_message(message, using=database())
    return message


def tell_late(locked: Locked, call: ToolCall) -> None:
    """The model went on without the result of this call: it gets it as a message of its own."""
    told = {"toolCallId": call.tool_call_id, "toolName": call.tool_name}
    part = call.outcome().part()
    outcome = {name: part[name] for name in ("output", "errorText") if name in part}
    put_message(locked, Role.SYSTEM, [{"type": LATE_RESULT, "data": told | outcome}])


def next_position(thread: Thread) -> int:
    thread.last_position += 1
    return thread.last_position


def add_finished_stream(locked: Locked, message: Message, parts: Sequence[Part]) -> None:
    """The parts of an assistant message that no model of ours has said."""
    _insert_stream(
        locked,
        message_id=message.pk,
        state=StreamState.FINISHED,
        parts=list(parts),
        text=text_of(parts),
        finish_reason="added",
        finished_at=locked.now,
    )


def text_so_far(stream: Stream) -> list[Part]:
    """What the stored deltas say, without calls that were never committed; nothing where no text was stored."""
    parts = close(fold(Delta.objects.using(database()).chunks_of(stream.pk)))
    kept = [part for part in parts if part["type"] in {"text", "reasoning"}]
    return [{"type": "step-start"}, *kept] if text_of(kept) else []


def streams_of(locked: Locked) -> Any:
    return Stream.objects.using(database()).filter(thread=locked.thread)


def last_message(locked: Locked) -> Message | None:
    rows = Message.objects.using(database()).filter(thread=locked.thread, superseded_at=None, position__isnull=False)
    return rows.exclude(role=Role.SYSTEM, text__gt="").order_by("-position").first()


def new_answer(locked: Locked, question: Message) -> Message:
    tell_answer(locked, using=database())
    return put_message(locked, Role.ASSISTANT, [], parent=question)


def add_stream(
    locked: Locked,
    message_id: UUID,
    *,
    attempt: int = 1,
    crashes: int = 0,
    delay_seconds: float = 0,
    said: Sequence[Chunk] = (),
) -> Stream:
    """A pending attempt; with ``said`` it goes on with that text, which browsers get as its first delta."""
    stream = _insert_stream(
        locked,
        message_id=message_id,
        pool=locked.agent.pool if locked.agent else "agents",
        attempt=attempt,
        crashes=crashes,
        available_at=locked.now + timedelta(seconds=delay_seconds),
        goes_on=bool(said),
    )
    if said:
        Delta.objects.using(database()).create(stream=stream, seq=0, chunks=list(said))
    locked.pools.add(stream.pool)
    return stream


def _insert_stream(locked: Locked, **facts: Any) -> Stream:
    """The thread's next stream, by number and rev, with what the ledger has to know of the thread."""
    thread = locked.thread
    thread.last_number += 1
    stream = Stream(
        thread=thread,
        agent=thread.agent,
        owner_id=thread.owner_id,
        scope=thread.scope,
        number=thread.last_number,
        rev=thread.next_rev(),
        created_at=locked.now,
        **facts,
    )
    stream.save(using=database(), force_insert=True)
    return stream


def _close(
    locked: Locked, stream: Stream, state: StreamState, *, model: str = "", usage: ModelUsage | None = None
) -> None:
    """Write the end of an attempt and add its usage to the thread's totals."""
    stream.state = state
    stream.model = model or stream.model
    stream.rev = locked.thread.next_rev()
    stream.finished_at = locked.now
    stream.lease_owner, stream.lease_expires_at = "", None
    stream.fence += 1
    if usage is not None:
        add_usage(locked.thread, stream, usage)
    stream.save(using=database(), update_fields=_CLOSED if usage is None else [*_CLOSED, *USAGE])


def add_usage(thread: Thread | None, stream: Stream, usage: ModelUsage) -> None:
    """Note what an attempt has used, with it and with its thread, where it still has one."""
    names = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
    for name in names:
        setattr(stream, name, getattr(usage, name))
    stream.cost, stream.usage_estimated = usage.cost, usage.estimated
    if thread is None:
        return
    for name in names:
        setattr(thread, name, getattr(thread, name) + getattr(usage, name))
    if usage.cost is not None:
        thread.cost = (thread.cost or Decimal(0)) + usage.cost


def note_retry(locked: Locked, *, next_retry_at: datetime, **facts: Any) -> None:
    """Tell clients that something failed and is tried again."""
    locked.thread.retry = facts | {"next_retry_at": next_retry_at.isoformat(), "retryable": True}
    locked.thread.next_rev()


def abort(
    locked: Locked,
    stream: Stream,
    *,
    reason: str,
    kept: Sequence[Part] = (),
    model: str = "",
    usage: ModelUsage | None = None,
) -> None:
    """End an attempt without a step; ``kept`` parts stay in the transcript."""
    stream.parts, stream.text = list(kept), text_of(kept)
    stream.finish_reason = reason
    _close(locked, stream, StreamState.ABORTED, model=model, usage=usage)


running_atomically: ContextVar[UUID | None] = ContextVar("running_atomically", default=None)
"""The tool call whose atomic function runs here: a stop from inside it must not fence it."""


def settle(
    locked: Locked, call: ToolCall, status: ToolCallStatus, *, code: str = "", error: str = "", asks: bool = False
) -> None:
    """Give a call its outcome; one that ``asks`` waits for a person's."""
    call.status, call.error_code, call.error = status, code, clean(error)
    call.finished_at, call.expires_at = None if asks else locked.now, None if asks else call.expires_at
    if call.attempt > 1 and locked.thread.retry and locked.thread.retry["scope"] == "tool":
        locked.thread.retry = None
    call.lease_owner, call.lease_expires_at = "", None
    call.fence += 1
    call.rev = locked.thread.next_rev()
    call.save(using=database(), update_fields=_SETTLED)
    if not asks:
        tell_call(call, using=database())
    if call.passed_at is not None and status != ToolCallStatus.CANCELLED:
        tell_late(locked, call)


def give_back(locked: Locked, call: ToolCall, *, delay_seconds: float = 0, attempt: int, crashes: int = 0) -> None:
    """Make a held call due again; the change is no news to clients, who see it as not finished either way."""
    call.status, call.attempt, call.crashes = ToolCallStatus.PENDING, attempt, crashes
    call.available_at = locked.now + timedelta(seconds=delay_seconds)
    call.lease_owner, call.lease_expires_at, call.expires_at = "", None, None
    call.fence += 1
    call.save(using=database(), update_fields=_GIVEN_BACK)
    locked.pools.add(call.pool)
