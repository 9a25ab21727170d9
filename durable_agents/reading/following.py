"""Hides how a thread is followed until it is at rest: looked at again and again, since rows are the truth.

Each look tells what was not told yet, and the cursor that comes with a chunk says how far that is. One generator of
looks serves both the function that sleeps between them and the one that awaits.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.models import Min

from durable_agents.exceptions import InvalidCursorError, ThreadNotFoundError, WaitTimeoutError
from durable_agents.lifecycle import database, id_of, ring_overdue
from durable_agents.models import (
    OPEN_STREAM_STATES,
    Delta,
    Message,
    Stream,
    StreamState,
    Thread,
    ThreadStatus,
    ToolCall,
)
from durable_agents.parts import Chunk
from durable_agents.reading.chunks import BEGINNING, Place, Told, beyond, call_chunks, placed, step_chunks
from durable_agents.streaming import stream_open_at

POLL_SECONDS = 0.1
MAX_POLL_SECONDS = 0.5
HEAL_SECONDS = 5
"""A row that has been due for so long while somebody follows is rung for again."""

T = TypeVar("T")
Looks: TypeAlias = Iterator[list[T] | float]
"""What each look has found, and between the looks the seconds to wait."""

_CURSOR = re.compile(r"(\d{1,18})\.(\d{1,18})\.(\d{1,18})\.(\d{1,18})\.([0-3])\.([0-9a-f]{32}|)", re.ASCII)
FINISH_REASONS = {"stop", "length", "content-filter", "tool-calls"}


def stream_thread(thread: Thread | UUID | str, cursor: str | None = None) -> Iterator[tuple[str, Chunk]]:
    """Follow a thread until it is at rest: pairs of a cursor and a UI message chunk, as they come.

    Without a cursor it begins with the latest answer, from its start. With the cursor of any chunk it goes on right
    after that one, in whatever process and however much later: what was committed meanwhile comes first. A thread that
    is at rest and has nothing new ends at once.

    The chunks are those of the AI SDK's UI message stream: ``start`` (with the message's id), for each step
    ``start-step``, text, reasoning and tool chunks and ``finish-step``, and at the end ``finish``, ``abort`` (stopped)
    or ``error`` (failed). ``reset-step`` takes back what the current step has said: another attempt begins it anew.
    That chunk and ``tool-approval-response`` came with version 7 of the SDK; older clients do not understand them.

    Raises InvalidCursorError, and ThreadNotFoundError also when the thread is deleted meanwhile. Inside a transaction
    it tells what there is and raises RuntimeError where it would have to wait.
    """
    return _sleeping(_looks(Follower(id_of(thread), _position(cursor))))


def astream_thread(thread: Thread | UUID | str, cursor: str | None = None) -> AsyncIterator[tuple[str, Chunk]]:
    """``stream_thread`` for coroutines: ``async for cursor, chunk in astream_thread(thread)``. It holds no thread
    while it waits."""
    return _awaiting(_looks(Follower(id_of(thread), _position(cursor))))


def wait_for_thread(thread: Thread | UUID | str, timeout_seconds: float | None = 30) -> Thread:
    """Wait until the thread is at rest, and return it as it is then; None waits without limit.

    Raises WaitTimeoutError when it is not at rest in time (the run goes on), and ThreadNotFoundError also when it is
    deleted meanwhile. Raises RuntimeError inside a transaction, where it would wait for ever: no worker sees what is
    not committed. In a test's own transaction it returns a thread that is at rest already.
    """
    [found] = _sleeping(_looks_for_rest(id_of(thread), timeout_seconds))
    return found


async def await_for_thread(thread: Thread | UUID | str, timeout_seconds: float | None = 30) -> Thread:
    """``wait_for_thread`` for coroutines: await it. It holds no thread while it waits."""
    [found] = [found async for found in _awaiting(_looks_for_rest(id_of(thread), timeout_seconds))]
    return found


# ---------------------------------------------------------------------------------------------------------- cursors


class Phase(IntEnum):
    """What the next chunk follows on."""

    BETWEEN_STEPS = 0
    IN_STEP = 1
    IN_CALLS = 2  # in a step that is not committed and has begun a call
    AT_REST = 3


@dataclass(kw_only=True)
class Position:
    """How far a thread was told: durable changes up to ``rev``, the step of stream ``number`` up to ``place``, all
    within one answer."""

    rev: int
    phase: Phase
    number: int = 0
    place: Place = BEGINNING
    message_id: UUID | None = None

    def __str__(self) -> str:
        message = self.message_id.hex if self.message_id else ""
        return f"{self.rev}.{self.number}.{self.place.part}.{self.place.offset}.{self.phase:d}.{message}"


def _position(cursor: str | None) -> Position | None:
    if cursor is None:
        return None
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidCursorError(cursor)
    rev, number, part, offset, phase = map(int, found.groups()[:5])
    return Position(
        rev=rev,
        phase=Phase(phase),
        number=number,
        place=Place(part, offset),
        message_id=UUID(found[6]) if found[6] else None,
    )


# ------------------------------------------------------------------------------------------------------------ looks


class Follower:
    """Tells one thread in chunks. Synchronous: call it where the ORM may be called."""

    def __init__(self, thread_id: UUID, position: Position | None, *, knows_7: bool = True) -> None:
        self.thread_id = thread_id
        self._knows_7 = knows_7
        self._thread: Thread | None = None
        self._given = position
        self._at = position or Position(rev=0, phase=Phase.AT_REST)
        self._has_begun = False
        self._deltas_of: UUID | None = None
        self._last_seq = -1
        self._read = BEGINNING
        """How far the stored deltas of the open stream were read."""

    def look(self) -> Iterator[tuple[str, Chunk]]:
        """What was not told yet, each chunk with the cursor after it. Raises ThreadNotFoundError, and
        InvalidCursorError for the cursor of another thread."""
        self._thread = thread = row_of(self.thread_id)
        if not self._has_begun:
            self._begin(thread)
        for told in (self._changes(thread), self._open_step(thread), self._end(thread)):
            for chunk in told:
                yield str(self._at), chunk

    @property
    def seen_thread(self) -> Thread:
        """The thread as it was when last looked at. Raises ValueError before the first look."""
        if self._thread is None:
            raise ValueError(f"Nobody has looked at thread {self.thread_id} yet.")
        return self._thread

    @property
    def is_over(self) -> bool:
        """Whether the thread was at rest when last looked at."""
        return not self.seen_thread.is_running

    def _begin(self, thread: Thread) -> None:
        self._has_begun = True
        if self._given is None:
            self._at = _before_latest_answer(thread)
        elif not _can_have_given(thread, self._given):
            raise InvalidCursorError(self._given)

    def _changes(self, thread: Thread) -> Iterator[Chunk]:
        """Steps that were closed and calls that changed, in the order of their revs."""
        if thread.rev == self._at.rev:
            return
        for row in _changed_rows(thread, after_rev=self._at.rev):
            if isinstance(row, Stream):
                yield from self._closed_step(row)
                self._at.rev = row.rev
            else:
                yield from self._call(row)
                self._at.rev = row.rev
        self._at.rev = thread.rev

    def _closed_step(self, stream: Stream) -> Iterator[Chunk]:
        if stream.answer.superseded_at is not None and stream.message_id != self._at.message_id:
            return  # of an answer that was replaced before anybody heard of it
        yield from self._turn_to(stream)
        is_taken_back = not stream.parts or (self._at.phase == Phase.IN_CALLS and stream.state == StreamState.ABORTED)
        if is_taken_back and self._at.place > BEGINNING:
            self._at.place, self._at.phase = BEGINNING, Phase.BETWEEN_STEPS
            yield {"type": "reset-step"}
        yield from self._tell(placed(step_chunks(stream.parts), number=stream.number))

    def _call(self, call: ToolCall) -> Iterator[Chunk]:
        if call.message_id != self._at.message_id:
            return
        chunks = list(call_chunks(call, knows_7=self._knows_7))
        yield from chunks[:-1]  # whoever goes on from one of these hears all of them again
        self._at.rev = call.rev
        yield from chunks[-1:]

    def _open_step(self, thread: Thread) -> Iterator[Chunk]:
        stream = stream_open_at(thread)
        if stream is None:
            return
        yield from self._turn_to(stream)
        if stream.pk != self._deltas_of:
            self._deltas_of, self._last_seq, self._read = stream.pk, -1, BEGINNING
        deltas = list(Delta.objects.using(database()).after(stream.pk, self._last_seq).values_list("seq", "chunks"))
        told = list(placed((chunk for _, chunks in deltas for chunk in chunks), number=stream.number, at=self._read))
        if told:
            self._last_seq, self._read = deltas[-1][0], told[-1][0]
        yield from self._tell(told)

    def _turn_to(self, stream: Stream) -> Iterator[Chunk]:
        """End the step before and begin the message, where this stream is of another one."""
        at = self._at
        if (stream.number, stream.message_id) == (at.number, at.message_id):
            return
        yield from self._finish_step()
        if stream.message_id != at.message_id:
            at.message_id, at.phase = stream.message_id, Phase.BETWEEN_STEPS
            yield {"type": "start", "messageId": stream.answer.shown_id}
        at.number, at.place, at.phase = stream.number, BEGINNING, Phase.BETWEEN_STEPS

    def _tell(self, told: Iterable[Told]) -> Iterator[Chunk]:
        for place, chunk in beyond(told, self._at.place):
            self._at.place = place
            if chunk["type"] == "tool-input-start":
                self._at.phase = Phase.IN_CALLS
            elif self._at.phase != Phase.IN_CALLS:
                self._at.phase = Phase.IN_STEP
            yield chunk

    def _finish_step(self) -> Iterator[Chunk]:
        if self._at.phase in {Phase.IN_STEP, Phase.IN_CALLS}:
            self._at.phase = Phase.BETWEEN_STEPS
            yield {"type": "finish-step"}

    def _end(self, thread: Thread) -> Iterator[Chunk]:
        if thread.is_running or self._at.phase == Phase.AT_REST:
            return
        yield from self._finish_step()
        self._at.phase = Phase.AT_REST
        yield last_chunk(thread)


def row_of(thread_id: UUID) -> Thread:
    """The thread as it is now. Raises ThreadNotFoundError."""
    row = Thread.objects.using(database()).filter(pk=thread_id).first()
    if row is None:
        raise ThreadNotFoundError(thread_id)
    return row


def latest_answer_of(thread: Thread) -> Message | None:
    """The answer that was begun last and still stands."""
    streams = Stream.objects.using(database()).filter(thread=thread, message__superseded_at=None)
    last = streams.order_by("-number").select_related("message").only("message").first()
    return last.message if last else None


def beginning_of(message_id: UUID) -> Position | None:
    """Right before an answer; None for one that nobody works at any more, or ever did."""
    streams = Stream.objects.using(database()).filter(message_id=message_id)
    first: int | None = streams.aggregate(rev=Min("rev"))["rev"]
    return None if first is None else Position(rev=first - 1, phase=Phase.BETWEEN_STEPS)


def _before_latest_answer(thread: Thread) -> Position:
    """Where to begin without a cursor."""
    latest = latest_answer_of(thread)
    begun = latest and beginning_of(latest.pk)
    return begun or Position(rev=thread.rev, phase=Phase.AT_REST)


def _can_have_given(thread: Thread, position: Position) -> bool:
    """Whether a position may be one of this thread."""
    if position.rev > thread.rev or position.number > thread.last_number:
        return False
    if position.message_id is None:
        return True
    return Message.objects.using(database()).filter(thread=thread, pk=position.message_id).exists()


def _changed_rows(thread: Thread, *, after_rev: int) -> list[Stream | ToolCall]:
    """The closed streams and the calls whose last change came after that rev, the earliest first. Two queries."""
    changed = {"thread": thread, "rev__gt": after_rev, "rev__lte": thread.rev}
    streams = Stream.objects.using(database()).filter(**changed).exclude(state__in=OPEN_STREAM_STATES)
    calls = ToolCall.objects.using(database()).filter(**changed)
    return sorted([*streams.select_related("message"), *calls], key=lambda row: row.rev)


def last_chunk(thread: Thread) -> Chunk:
    """How the run of a thread at rest has ended."""
    if thread.status == ThreadStatus.STOPPED:
        return {"type": "abort"}
    if thread.status == ThreadStatus.FAILED:
        return {"type": "error", "errorText": thread.error_message}
    streams = Stream.objects.using(database()).filter(thread=thread, number=thread.last_number)
    reason = streams.values_list("finish_reason", flat=True).first()
    return {"type": "finish", "finishReason": reason if reason in FINISH_REASONS else "other"}


def _looks(follower: Follower) -> Looks[tuple[str, Chunk]]:
    """News of a thread until it is at rest."""
    pace = _Pace(follower.thread_id)
    while True:
        news = list(follower.look())
        yield news
        if follower.is_over:
            return
        yield pace.pause(is_quiet=not news)


def _looks_for_rest(thread_id: UUID, timeout_seconds: float | None) -> Looks[Thread]:
    """The seconds to wait between looks, and at the end the thread."""
    pace = _Pace(thread_id)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    if _is_in_transaction() and not _is_in_transaction_of_a_test():
        raise _never_at_rest(thread_id)
    while (thread := row_of(thread_id)).is_running:
        pause = pace.pause(is_quiet=True)
        left = pause if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(f"Thread {thread_id} is not at rest after {timeout_seconds} s. The run goes on.")
        yield min(pause, left)
    yield [thread]


class _Pace:
    """How long to wait between two looks at a thread: shortly while there is news, longer when it is quiet."""

    def __init__(self, thread_id: UUID) -> None:
        self._thread_id = thread_id
        self._seconds = POLL_SECONDS
        self._rung_at = time.monotonic()

    def pause(self, *, is_quiet: bool) -> float:
        """Seconds until the next look. Raises RuntimeError inside a transaction."""
        if _is_in_transaction():
            raise _never_at_rest(self._thread_id)
        if time.monotonic() - self._rung_at > HEAL_SECONDS:
            self._rung_at = time.monotonic()
            ring_overdue([self._thread_id], seconds=HEAL_SECONDS)
        self._seconds = min(self._seconds * 1.2, MAX_POLL_SECONDS) if is_quiet else POLL_SECONDS
        return self._seconds


def _is_in_transaction() -> bool:
    connection = connections[database()]
    return connection.in_atomic_block or not connection.get_autocommit()


def _is_in_transaction_of_a_test() -> bool:
    """Whether the only transaction is the one in which Django's ``TestCase`` wraps a test."""
    blocks: list[Any] = connections[database()].atomic_blocks
    return bool(blocks) and all(block._from_testcase for block in blocks)


def _never_at_rest(thread_id: UUID) -> RuntimeError:
    return RuntimeError(
        f"Thread {thread_id} cannot be waited for inside a transaction: workers do not see what is not committed, and "
        "on SQLite they wait for its end. Wait after the transaction; in a TestCase, call run_until_idle() before."
    )


def _sleeping(looks: Looks[T]) -> Iterator[T]:
    for found in looks:
        if isinstance(found, list):
            yield from found
        else:
            time.sleep(found)


async def _awaiting(looks: Looks[T]) -> AsyncIterator[T]:
    look = sync_to_async(_next, thread_sensitive=True)
    while (found := await look(looks)) is not None:
        if isinstance(found, list):
            for news in found:
                yield news
        else:
            await asyncio.sleep(found)


def _next(looks: Looks[T]) -> list[T] | float | None:
    return next(looks, None)
