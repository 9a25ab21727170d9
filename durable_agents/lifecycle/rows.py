"""Change single rows (messages, model calls, tool calls) under the thread's lock.

Transitions call these functions. None of them decides what the thread does next; ``advance`` does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from durable_agents.actors import Actor
from durable_agents.conf import config
from durable_agents.lifecycle.attachments import NO_FILES, NewFiles, Sender, bound
from durable_agents.lifecycle.callback_dispatch import dispatch_answer, dispatch_call, dispatch_message
from durable_agents.lifecycle.transaction import HandOver, Locked, database
from durable_agents.llm import ModelUsage
from durable_agents.models import (
    OPEN_STREAM_STATES,
    SUSPECT_CRASHES,
    Delta,
    Held,
    Message,
    Role,
    Stream,
    StreamQuerySet,
    StreamState,
    Thread,
    ThreadStatus,
    ToolCall,
    ToolCallStatus,
    Usage,
    next_state,
)
from durable_agents.parts import LATE_RESULT, Chunk, Part, close, fold, text_of
from durable_agents.strictjson import clean
from durable_agents.utc_times import later, to_iso

USAGE = [field.name for field in Usage._meta.fields]
_CLOSED = [
    *("state", "parts", "text", "model", "finish_reason", "error_code", "error_detail", "rev", "finished_at"),
    *Held.LEASE_FIELDS,
]
_SETTLED = [
    *("status", "result", "error", "error_code", "error_detail", "answered_by_user", "finished_at"),
    *("expires_at", "rev"),
    *Held.LEASE_FIELDS,
]
_GIVEN_BACK = [
    *("status", "attempt", "available_at", "pending_since", "expires_at", "error_detail"),
    *("crashes", "lonely_crashes", "excuses", "clearances"),
    *Held.LEASE_FIELDS,
]
TOOL_CHANGED = "The tool has changed since the call was made, and its arguments do not fit any more."
NOBODY_ANSWERED = "Nobody answered in time."
MAY_HAVE_RUN = "The tool call was interrupted: it may or may not have run."
DID_NOT_RUN = "The tool call was interrupted each time, and left nothing behind."


MOST_EXCUSES = 3
"""How many deaths of its workers a row is excused for. If several workers die at the same time, a row that one of them
held is probably not the cause. There is a limit, because calls of one bad tool can kill several workers at the same
time, again and again.
"""
MORE_EXCUSES_ALONE = 10
"""For a row that runs alone in its worker, the limit ``MOST_EXCUSES`` is higher by this number, because the death of
this worker harms no other row.
"""


@dataclass(frozen=True, kw_only=True)
class Deaths:
    """Counters of how often workers died while they held a row."""

    crashes: int = 0
    lonely_crashes: int = 0
    excuses: int = 0
    clearances: int = 0

    @classmethod
    def of(cls, row: Held) -> Deaths:
        return cls(**{item.name: getattr(row, item.name) for item in fields(cls)})

    @classmethod
    def after_one(cls, row: Held, *, in_company: bool) -> Deaths:
        """Return the counters after one more worker died while it held the row.

        ``in_company`` means that other workers died at the same time, so the row is probably not the cause. The death
        is then excused, up to a limit (see ``MOST_EXCUSES``). An excused death does not make the row a suspect (a row
        whose earlier workers died), and does not count towards ``CRASH_LIMIT``.
        """
        before = cls.of(row)
        if in_company and before.excuses < MOST_EXCUSES + (MORE_EXCUSES_ALONE if row.is_alone else 0):
            crashes = max(row.crashes, min(row.crashes + 1, SUSPECT_CRASHES - 1))
            return replace(before, crashes=crashes, excuses=row.excuses + 1)
        return replace(before, crashes=row.crashes + 1, lonely_crashes=row.lonely_crashes + row.is_alone)

    @property
    def are_too_many(self) -> bool:
        """Whether the number of workers that died while this row was their only row has reached ``CRASH_LIMIT``.

        If a worker held several rows, its death does not count, because another row may have been the cause.
        """
        return self.lonely_crashes >= config().crash_limit


def answer_of_next_attempt(locked: Locked, message_id: UUID) -> UUID:
    """Return the id of the assistant message that the next attempt belongs to.

    Usually, this is ``message_id``, the assistant message of the previous attempt. If a later message needs an answer,
    a new assistant message is added at the end of the thread instead. The previous assistant message is then marked as
    superseded if it is empty.
    """
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
    metadata: Mapping[str, object] | None = None,
    parent: Message | None = None,
    sender: Sender | None = None,
    new_files: NewFiles = NO_FILES,
    by: Actor | None = None,
) -> Message:
    """Store a message, and assign its files to the thread. Raises InvalidPartsError."""
    thread, parts = locked.thread, bound(locked, parts, sender=sender, new_files=new_files)
    message = Message(
        thread=thread,
        parent=parent,
        position=None if queued else next_position(thread),
        queued_at=locked.now if queued else None,
        client_id=client_id,
        role=role,
        sender_id=by.user_id if by else None,
        parts=parts,
        text=text_of(parts),
        metadata=metadata or {},
        rev=thread.next_rev(),
        created_at=locked.now,
    )
    locked.writes.insert(message)
    dispatch_message(message, using=database())
    return message


def add_late_result(locked: Locked, call: ToolCall) -> None:
    """Add the result of a tool call as a new message, because the model did not wait for the result."""
    outcome: Part = {"output": call.result} if call.status == ToolCallStatus.COMPLETED else {"errorText": call.error}
    if call.approved_arguments is not None:
        outcome["changedInput"] = call.approved_arguments
    data = {"toolCallId": call.tool_call_id, "toolName": call.tool_name} | outcome
    put_message(locked, Role.SYSTEM, [{"type": LATE_RESULT, "data": data}])


def next_position(thread: Thread) -> int:
    thread.last_position += 1
    return thread.last_position


def add_finished_stream(locked: Locked, message: Message, parts: Sequence[Part]) -> None:
    """Store parts of an assistant message that no model call produced, for example from an import."""
    stream = Stream(
        message_id=message.pk,
        state=StreamState.FINISHED,
        parts=list(parts),
        text=text_of(parts),
        finish_reason="added",
        finished_at=locked.now,
    )
    _insert_stream(locked, stream)


def text_so_far(stream: Stream) -> list[Part]:
    """Return the text and reasoning that a model call has streamed so far, as parts. Tool calls are left out, because
    they were never committed. Without any text, return an empty list.
    """
    parts = close(fold(Delta.objects.using(database()).chunks_of(stream.pk)))
    kept = [part for part in parts if part["type"] in {"text", "reasoning"}]
    return [{"type": "step-start"}, *kept] if text_of(kept) else []


def streams_of(locked: Locked) -> StreamQuerySet:
    return Stream.objects.using(database()).filter(thread=locked.thread)


def last_message(locked: Locked) -> Message | None:
    """Return the thread's last message, or None. System messages that contain a text are skipped, because the model
    does not answer them. The late result of a tool call is a system message without a text, and is not skipped.
    """
    locked.writes.flush()
    messages = Message.objects.using(database()).filter(thread=locked.thread).in_history()
    return messages.exclude(role=Role.SYSTEM, text__gt="").order_by("-position").first()


def new_answer(locked: Locked, question: Message) -> Message:
    # During a run, ``dispatch_answer`` reads the previous answer from the database. Write all collected rows first.
    if ThreadStatus(locked.previous_status).is_running:
        locked.writes.flush()
    dispatch_answer(locked.thread, previous_status=locked.previous_status, using=database())
    return put_message(locked, Role.ASSISTANT, [], parent=question)


def add_stream(
    locked: Locked,
    message_id: UUID,
    *,
    attempt: int = 1,
    deaths: Deaths | None = None,
    delay_seconds: float = 0,
    continued_text: Sequence[Chunk] = (),
) -> Stream:
    """Add a model call for a worker to claim.

    With ``continued_text``, the model continues that text. The text is stored as the first delta, so that browsers show
    it.
    """
    stream = Stream(
        message_id=message_id,
        pool=locked.agent.pool if locked.agent else "agents",
        attempt=attempt,
        goes_on=bool(continued_text),
    )
    _put_off(locked, stream, delay_seconds=delay_seconds, deaths=deaths)
    _insert_stream(locked, stream, is_due=not delay_seconds and deaths is None and not continued_text)
    if continued_text:
        locked.writes.flush()
        Delta.objects.using(database()).create(stream=stream, seq=0, chunks=list(continued_text))
    if stream.state == StreamState.PENDING:
        locked.pools.add(stream.pool)
    return stream


def _insert_stream(locked: Locked, stream: Stream, *, is_due: bool = False) -> None:
    """Insert a model call, and give it the thread's next number and revision.

    The agent, owner and scope are copied from the thread, because usage reports need them. With ``is_due``, the worker
    that runs this transaction may claim the new row immediately.
    """
    thread = locked.thread
    thread.last_number += 1
    stream.thread, stream.agent = thread, thread.agent
    stream.owner_id, stream.scope = thread.owner_id, thread.scope
    stream.number, stream.rev, stream.created_at = thread.last_number, thread.next_rev(), locked.now
    if is_due and locked.hand_over is not None and locked.hand_over.takes_stream(stream):
        stream.state, stream.started_at = StreamState.STREAMING, locked.now
        hold(locked, stream, locked.hand_over)
    locked.writes.insert(stream)
    locked.has_no_open_stream = locked.has_no_open_stream and stream.state not in OPEN_STREAM_STATES


def hold(locked: Locked, row: Stream | ToolCall, hand_over: HandOver) -> None:
    """Lease a new row to the worker that runs this transaction, so that no separate claim is needed."""
    # Set the same values as ``claim`` does. The first claim of a row changes its fence from 0 to 1.
    row.fence, row.lease_owner = 1, hand_over.holder
    row.lease_expires_at = later(locked.now, timedelta(seconds=config().lease_seconds))
    locked.handed.append(row)


def close_stream(
    locked: Locked, stream: Stream, state: StreamState, *, model: str = "", usage: ModelUsage | None = None
) -> None:
    """End a model call with this state, and add its usage to the thread's totals."""
    stream.state = next_state(stream.state, state)
    stream.model = model or stream.model
    stream.rev = locked.thread.next_rev()
    stream.finished_at = locked.now
    # The UPDATE statement needs the old fence, which the row in the database still has. ``end_lease`` increments only
    # the fence of this object.
    fence = stream.fence
    stream.end_lease()
    if usage is not None:
        add_usage(locked.thread, stream, usage)
    locked.writes.update(stream, _CLOSED if usage is None else [*_CLOSED, *USAGE], fence=fence)
    locked.has_no_open_stream = True


def add_usage(thread: Thread | None, stream: Stream, usage: ModelUsage) -> None:
    """Add usage to a model call and, unless the thread was deleted, to the thread."""
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


def note_retry(locked: Locked, *, next_retry_at: datetime, **details: object) -> None:
    """Store on the thread what failed and when the retry is due, so that clients can show it."""
    locked.thread.retry = details | {"next_retry_at": to_iso(next_retry_at), "retryable": True}
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
    """End a model call without a committed step. The parts in ``kept`` stay in the history."""
    stream.parts, stream.text = list(kept), text_of(kept)
    stream.finish_reason = reason
    close_stream(locked, stream, StreamState.ABORTED, model=model, usage=usage)


def settle(
    locked: Locked, call: ToolCall, status: ToolCallStatus, *, code: str = "", error: str = "", asks: bool = False
) -> None:
    """Store the outcome of a tool call. With ``asks``, the call stays open until a person decides its outcome."""
    call.status = next_state(call.status, status)
    call.error_code, call.error = code, clean(error)
    call.finished_at, call.expires_at = None if asks else locked.now, None if asks else call.expires_at
    if call.attempt > 1 and locked.thread.retry and locked.thread.retry["scope"] == "tool":
        locked.thread.retry = None
    # The UPDATE statement needs the old fence, which the row in the database still has. ``end_lease`` increments only
    # the fence of this object.
    fence = call.fence
    call.end_lease()
    call.rev = locked.thread.next_rev()
    locked.writes.update(call, _SETTLED, fence=fence)
    if not asks:
        dispatch_call(call, using=database())
    # If the run has continued without waiting for this call's result, add the result as a new message. The history that
    # the model has already read must not change.
    if call.passed_at is not None and status != ToolCallStatus.CANCELLED:
        add_late_result(locked, call)


def _put_off(locked: Locked, row: Stream | ToolCall, *, delay_seconds: float, deaths: Deaths | None) -> None:
    """Make a row due after ``delay_seconds``, and set its counters of dead workers. Without ``deaths``, the counters
    are 0.
    """
    # Without a delay, ``available_at`` stays empty, so that the row is due in every process. On SQLite, each process
    # uses its own clock. A process whose clock is behind would wait before it claims the row.
    row.available_at = later(locked.now, timedelta(seconds=delay_seconds)) if delay_seconds > 0 else None
    row.pending_since = locked.now
    for name, value in vars(deaths or Deaths()).items():
        setattr(row, name, value)


def give_back(
    locked: Locked, call: ToolCall, *, delay_seconds: float = 0, attempt: int, deaths: Deaths | None = None
) -> None:
    """End the lease of a tool call, and make it due again. Clients are not notified, because they see no difference."""
    call.status, call.attempt = next_state(call.status, ToolCallStatus.PENDING), attempt
    _put_off(locked, call, delay_seconds=delay_seconds, deaths=deaths)
    call.end_lease()
    call.expires_at = None
    call.save(using=database(), update_fields=_GIVEN_BACK)
    locked.pools.add(call.pool)
