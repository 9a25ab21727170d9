"""Follow a thread by polling its rows until it is at rest, which means that no run is in progress.

Each read yields the new chunks. Each chunk comes with a cursor, from which a client can continue later. The synchronous
and the asynchronous functions share one generator. It yields the results of the reads and the pauses between them.
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
from durable_agents.lifecycle import database, id_of, notify_overdue
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
from durable_agents.reading.ui_chunks import BEGINNING, Place, PlacedChunk, call_chunks, placed, step_chunks, unsent
from durable_agents.transcript import stream_open_at

POLL_SECONDS = 0.1
MAX_POLL_SECONDS = 0.5
HEAL_SECONDS = 5
"""If a row of a followed thread has been due for this many seconds, workers are notified again."""

T = TypeVar("T")
Reads: TypeAlias = Iterator[list[T] | float]
"""An iterator that yields two kinds of items: a list has the results of a read, and a float is the number of seconds to
wait before the next read.
"""

_CURSOR = re.compile(r"(\d{1,18})\.(\d{1,18})\.(\d{1,18})\.(\d{1,18})\.([0-3])\.([0-9a-f]{32}|)", re.ASCII)
FINISH_REASONS = {"stop", "length", "content-filter", "tool-calls"}
_WHOLE_STEP = Place(2**31, 0)


def stream_thread(thread: Thread | UUID | str, cursor: str | None = None) -> Iterator[tuple[str, Chunk]]:
    """Follow a thread until no run is in progress. Yield each new UI message chunk as a pair of cursor and chunk.

    Without a cursor, the stream begins at the start of the latest answer. With the cursor of a chunk, the stream
    continues right after that chunk, and first yields everything that was committed in the meantime. A cursor works in
    every process and at any later time. If no run is in progress and nothing is new, the stream ends immediately.

    The chunks are those of the AI SDK's UI message stream. The first is ``start``, with the message's id. Each step
    consists of ``start-step``, the text, reasoning and tool chunks, and ``finish-step``. The last chunk is ``finish``,
    ``abort`` (the run was stopped) or ``error`` (the run failed).

    ``reset-step`` tells the client to remove the content of the current step, because another attempt begins the step
    again. Clients need version 7 of the SDK for ``reset-step`` and ``tool-approval-response``.

    Raises InvalidCursorError, and ThreadNotFoundError (also if the thread is deleted while it is followed). Inside a
    transaction, the stream yields what is stored. Where it would have to wait, it raises RuntimeError.
    """
    return _sleeping(_reads(Follower(id_of(thread), _position(cursor))))


def astream_thread(thread: Thread | UUID | str, cursor: str | None = None) -> AsyncIterator[tuple[str, Chunk]]:
    """Follow a thread as ``stream_thread`` does, in a coroutine: ``async for cursor, chunk in astream_thread(thread)``.
    While it waits, no operating-system thread is blocked.
    """
    return _awaiting(_reads(Follower(id_of(thread), _position(cursor))))


def wait_for_thread(thread: Thread | UUID | str, timeout_seconds: float | None = 30) -> Thread:
    """Wait until no run of the thread is in progress, and return the thread's current row.

    With ``timeout_seconds=None``, there is no time limit.

    Raises:

    - WaitTimeoutError if the time is over. The run continues.
    - ThreadNotFoundError if the thread does not exist, or is deleted in the meantime.
    - RuntimeError inside a transaction, because workers do not see uncommitted rows. In the transaction of a Django
      TestCase, the error is raised only if a run is in progress.
    """
    [row] = _sleeping(_reads_until_rest(id_of(thread), timeout_seconds))
    return row


async def await_for_thread(thread: Thread | UUID | str, timeout_seconds: float | None = 30) -> Thread:
    """Wait as ``wait_for_thread`` does, in a coroutine. While it waits, no operating-system thread is blocked."""
    [row] = [row async for row in _awaiting(_reads_until_rest(id_of(thread), timeout_seconds))]
    return row


class Phase(IntEnum):
    """The part of a run that a position is in. The phase decides which chunks may follow."""

    BETWEEN_STEPS = 0
    IN_STEP = 1
    # In a step that is not committed but already contains a tool call.
    IN_CALLS = 2
    AT_REST = 3


@dataclass(kw_only=True)
class Position:
    """A client's position in a thread.

    The client has received all committed changes up to revision ``rev``, and the content of stream ``number`` up to
    ``place``.
    """

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
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidCursorError(cursor)
    rev, number, part, offset, phase = map(int, match.groups()[:5])
    return Position(
        rev=rev,
        phase=Phase(phase),
        number=number,
        place=Place(part, offset),
        message_id=UUID(match[6]) if match[6] else None,
    )


class Follower:
    """Turns the changes of one thread into chunks. The methods use the ORM and are synchronous."""

    def __init__(self, thread_id: UUID, position: Position | None, *, knows_7: bool = True) -> None:
        self.thread_id = thread_id
        self._knows_7 = knows_7
        self._thread: Thread | None = None
        self._start = position
        self._at = position or Position(rev=0, phase=Phase.AT_REST)
        self._has_begun = False
        self._deltas_of: UUID | None = None
        self._last_seq = -1
        self._read = BEGINNING
        """How far the stored deltas of the open stream were read."""

    def read(self) -> Iterator[tuple[str, Chunk]]:
        """Yield each new chunk, together with the cursor from which a client can continue after the chunk.

        Raises ThreadNotFoundError. The first read raises InvalidCursorError if the initial position is not a position
        in this thread.
        """
        self._thread = thread = row_of(self.thread_id)
        if not self._has_begun:
            self._begin(thread)
        # Yield committed changes first, because they may end the step that the deltas belong to.
        for chunks in (self._changes(thread), self._open_step(thread)):
            for chunk in chunks:
                yield str(self._at), chunk
        if thread.is_running or self._at.phase == Phase.AT_REST:
            return
        for chunk in self._finish_step():
            yield str(self._at), chunk
        self._at.phase = Phase.AT_REST
        yield str(self._at), last_chunk(thread)

    @property
    def thread(self) -> Thread:
        """The thread as of the last read. Raises ValueError before the first read."""
        if self._thread is None:
            raise ValueError(f"Thread {self.thread_id} was not read yet.")
        return self._thread

    @property
    def is_over(self) -> bool:
        """Whether the thread was at rest at the last read."""
        return not self.thread.is_running

    def _begin(self, thread: Thread) -> None:
        """Check the cursor. Without a cursor, begin right before the latest answer."""
        self._has_begun = True
        start = self._start
        if start is None:
            latest = latest_answer_of(thread)
            begun = beginning_of(latest.pk) if latest else None
            self._at = begun or Position(rev=thread.rev, phase=Phase.AT_REST)
        elif start.rev > thread.rev or start.number > thread.last_number:
            raise InvalidCursorError(start)
        elif start.message_id is not None:
            messages = Message.objects.using(database()).filter(thread=thread)
            if not messages.filter(pk=start.message_id).exists():
                raise InvalidCursorError(start)

    def _changes(self, thread: Thread) -> Iterator[Chunk]:
        """Yield the chunks of finished steps and of changed tool calls, ordered by revision number (``rev``)."""
        if thread.rev == self._at.rev:
            return
        # Ignore changes after ``thread.rev``. Otherwise, the query for tool calls could find changes that are newer
        # than the result of the query for streams.
        changed = {"thread": thread, "rev__gt": self._at.rev, "rev__lte": thread.rev}
        streams = Stream.objects.using(database()).filter(**changed).exclude(state__in=OPEN_STREAM_STATES)
        calls = ToolCall.objects.using(database()).filter(**changed)
        for row in sorted([*streams.select_related("message"), *calls], key=lambda row: row.rev):
            if isinstance(row, Stream):
                yield from self._closed_step(row)
            elif row.message_id == self._at.message_id:
                chunks = list(call_chunks(row, knows_7=self._knows_7))
                # A changed tool call can have several chunks, but only the last chunk advances the cursor. A client
                # that resumes from an earlier cursor gets all chunks of the tool call again.
                yield from chunks[:-1]
                self._at.rev = row.rev
                yield from chunks[-1:]
            self._at.rev = row.rev
        self._at.rev = thread.rev

    def _closed_step(self, stream: Stream) -> Iterator[Chunk]:
        if stream.answer.superseded_at is not None and stream.message_id != self._at.message_id:
            # The answer was superseded before any part of it was sent.
            return
        yield from self._switch_to(stream)
        is_taken_back = not stream.parts or (self._at.phase == Phase.IN_CALLS and stream.state == StreamState.ABORTED)
        if is_taken_back and self._at.place > BEGINNING:
            self._at.place, self._at.phase = BEGINNING, Phase.BETWEEN_STEPS
            yield {"type": "reset-step"}
        yield from self._advance(placed(step_chunks(stream.parts), number=stream.number))

    def _open_step(self, thread: Thread) -> Iterator[Chunk]:
        stream = stream_open_at(thread)
        if stream is None:
            return
        yield from self._switch_to(stream)
        # Read a new stream from its first delta, even if the client already has a part of the stream. ``_advance``
        # skips the chunks that the client has.
        if stream.pk != self._deltas_of:
            self._deltas_of, self._last_seq, self._read = stream.pk, -1, BEGINNING
        deltas = list(Delta.objects.using(database()).after(stream.pk, self._last_seq).values_list("seq", "chunks"))
        chunks = list(placed((chunk for _, chunks in deltas for chunk in chunks), number=stream.number, at=self._read))
        if chunks:
            self._last_seq, self._read = deltas[-1][0], chunks[-1][0]
        yield from self._advance(chunks)

    def _switch_to(self, stream: Stream) -> Iterator[Chunk]:
        """Make this stream the current one. Yield chunks that end the previous step and start a new message, if any."""
        at = self._at
        if (stream.number, stream.message_id) == (at.number, at.message_id):
            return
        yield from self._finish_step()
        if stream.message_id != at.message_id:
            at.message_id, at.phase = stream.message_id, Phase.BETWEEN_STEPS
            yield {"type": "start", "messageId": stream.answer.shown_id}
        at.number, at.place, at.phase = stream.number, BEGINNING, Phase.BETWEEN_STEPS

    def _advance(self, chunks: Iterable[PlacedChunk]) -> Iterator[Chunk]:
        """Yield the chunks that were not sent yet, and move the position past them. If a part of a text was already
        sent, yield only the rest.
        """
        for place, chunk in unsent(chunks, self._at.place):
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


def row_of(thread_id: UUID) -> Thread:
    """Return the current row of the thread. Raises ThreadNotFoundError."""
    row = Thread.objects.using(database()).filter(pk=thread_id).first()
    if row is None:
        raise ThreadNotFoundError(thread_id)
    return row


def latest_answer_of(thread: Thread) -> Message | None:
    """Return the answer with the newest stream, or None. Superseded answers are left out."""
    streams = Stream.objects.using(database()).filter(thread=thread, message__superseded_at=None)
    last = streams.order_by("-number").select_related("message").only("message").first()
    return last.message if last else None


def beginning_of(message_id: UUID) -> Position | None:
    """Return the position right before an answer. Return None if no attempt at the answer is in progress or
    committed.
    """
    streams = Stream.objects.using(database()).filter(message_id=message_id)
    first: int | None = streams.aggregate(rev=Min("rev"))["rev"]
    return None if first is None else Position(rev=first - 1, phase=Phase.BETWEEN_STEPS)


def position_after(answer: Message, *, steps: int) -> Position | None:
    """Return the position after the first ``steps`` committed steps of an answer, or None if no step is committed."""
    shown = list(Stream.objects.using(database()).in_transcript().filter(message=answer).order_by("number")[:steps])
    if not shown:
        return None
    last = shown[-1]
    return Position(
        rev=last.rev, phase=Phase.BETWEEN_STEPS, number=last.number, place=_WHOLE_STEP, message_id=answer.pk
    )


def last_chunk(thread: Thread) -> Chunk:
    """Return the last chunk of a stream, for a thread whose run is over."""
    if thread.status == ThreadStatus.STOPPED:
        return {"type": "abort"}
    if thread.status == ThreadStatus.FAILED:
        return {"type": "error", "errorText": thread.error_message}
    streams = Stream.objects.using(database()).filter(thread=thread, number=thread.last_number)
    reason = streams.values_list("finish_reason", flat=True).first()
    return {"type": "finish", "finishReason": reason if reason in FINISH_REASONS else "other"}


def _reads(follower: Follower) -> Reads[tuple[str, Chunk]]:
    """Read a thread until no run is in progress. Yield a list of new chunks per read, and the seconds between reads."""
    pace = _Pace(follower.thread_id)
    while True:
        news = list(follower.read())
        yield news
        if follower.is_over:
            return
        yield pace.pause(is_quiet=not news)


def _reads_until_rest(thread_id: UUID, timeout_seconds: float | None) -> Reads[Thread]:
    """Poll a thread until no run is in progress. Yield the seconds to wait between two reads. Finally, yield a list
    with the thread's row.
    """
    pace = _Pace(thread_id)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    # The transaction that Django's TestCase opens for each test is allowed, because ``run_until_idle`` may already have
    # finished the run within that transaction.
    blocks: list[Any] = connections[database()].atomic_blocks
    if _is_in_transaction() and not (blocks and all(block._from_testcase for block in blocks)):
        raise _never_at_rest(thread_id)
    while (thread := row_of(thread_id)).is_running:
        pause = pace.pause(is_quiet=True)
        left = pause if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(f"Thread {thread_id} is not at rest after {timeout_seconds} s. The run goes on.")
        yield min(pause, left)
    yield [thread]


class _Pace:
    """The pauses between the reads of a thread. The pause is short after a read that found changes, and grows with each
    read that found none.
    """

    def __init__(self, thread_id: UUID) -> None:
        self._thread_id = thread_id
        self._seconds = POLL_SECONDS
        self._notified_at = time.monotonic()

    def pause(self, *, is_quiet: bool) -> float:
        """Return the seconds until the next read. Raises RuntimeError inside a transaction."""
        if _is_in_transaction():
            raise _never_at_rest(self._thread_id)
        if time.monotonic() - self._notified_at > HEAL_SECONDS:
            self._notified_at = time.monotonic()
            notify_overdue([self._thread_id], seconds=HEAL_SECONDS)
        self._seconds = min(self._seconds * 1.2, MAX_POLL_SECONDS) if is_quiet else POLL_SECONDS
        return self._seconds


def _is_in_transaction() -> bool:
    connection = connections[database()]
    return connection.in_atomic_block or not connection.get_autocommit()


def _never_at_rest(thread_id: UUID) -> RuntimeError:
    return RuntimeError(
        f"Cannot wait for thread {thread_id} inside a transaction: workers do not see uncommitted rows, and on SQLite "
        "they wait until the transaction ends. Wait after the transaction; in a TestCase, call run_until_idle() first."
    )


def _sleeping(reads: Reads[T]) -> Iterator[T]:
    for news in reads:
        if isinstance(news, list):
            yield from news
        else:
            time.sleep(news)


async def _awaiting(reads: Reads[T]) -> AsyncIterator[T]:
    # A coroutine cannot raise StopIteration, so None marks the end. With ``thread_sensitive``, all coroutines use the
    # ORM in the same OS thread, as in Django's own async methods.
    read_next = sync_to_async(lambda: next(reads, None), thread_sensitive=True)
    while (news := await read_next()) is not None:
        if isinstance(news, list):
            for item in news:
                yield item
        else:
            await asyncio.sleep(news)
