"""Store streamed text in groups: each flush writes the new chunks of all model calls of a worker in one transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import Error, IntegrityError

from durable_agents.database_connections import is_outage
from durable_agents.lifecycle import Append, Claim, append_deltas
from durable_agents.logs import log_error
from durable_agents.parts import Chunk, joined
from durable_agents.strictjson import clean

RunInDatabase = Callable[
    [Callable[[Sequence[Append]], tuple[set[UUID], set[UUID]]], Sequence[Append]],
    Awaitable[tuple[set[UUID], set[UUID]]],
]
"""A function that runs ``append_deltas`` in an OS thread for database work."""

MAX_PAUSE_SECONDS = 0.35
"""The longest pause between two flushes, however slow the database is and however many streams are open."""

SECONDS_PER_STREAM = 0.0035
"""With many open streams, the interval between two flushes is this time for each stream. Each delta then contains
several tokens, which costs less than a delta for each token.
"""

FEW_STREAMS = 8
"""While at most this many streams are open, chunks are stored as soon as they arrive."""

Frame = dict[str, Any]
"""A stored delta as it is sent to browsers."""


@dataclass(kw_only=True)
class DeltaBuffer:
    """The chunks of one model call that are not stored yet."""

    claim: Claim
    message: str
    throttle_seconds: float
    on_lost: Callable[[], None]
    seq: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    unconfirmed: Append | None = None
    """The last delta, if it is not known whether the database has stored it. Later chunks come after this delta."""
    flushed_at: float = 0.0
    on_added: Callable[[], object] = lambda: None

    @property
    def has_text(self) -> bool:
        """Whether anything is left to store."""
        return bool(self.chunks) or self.unconfirmed is not None

    def add(self, chunk: Chunk) -> None:
        """Clean a chunk and add it to the buffer. If it continues the buffer's last chunk, merge the two chunks."""
        self.chunks[-1:] = joined([*self.chunks[-1:], clean(chunk)])
        self.on_added()

    def is_due(self, now: float) -> bool:
        """Return whether there is text to store and the throttle interval is over."""
        return self.has_text and now - self.flushed_at >= self.throttle_seconds

    def take(self, now: float) -> Append:
        """Return the next delta to store: an unconfirmed delta again, or a new delta with the chunks of the buffer."""
        self.flushed_at = now
        if self.unconfirmed is not None:
            append, self.unconfirmed = self.unconfirmed, None
            return append
        chunks, self.chunks = self.chunks, []
        return Append(claim=self.claim, seq=self.seq, chunks=chunks)

    def put_back(self, append: Append) -> None:
        """Keep a delta that may not be stored, to store it again.

        Despite the error, the delta may be in the database. The database then refuses the second try. Therefore, no
        chunk is added to the delta, because the chunk would be lost.
        """
        self.unconfirmed = append

    def frame(self, append: Append) -> Frame:
        """Return the stored delta as a frame for browsers."""
        return {
            "type": "delta",
            "thread": str(self.claim.thread_id),
            "stream": str(self.claim.row_id),
            "message": self.message,
            "seq": append.seq,
            "chunks": list(append.chunks),
        }


class DeltaWriter:
    """Stores the streamed text of all model calls of a worker process at short intervals."""

    def __init__(self, *, run: RunInDatabase, publish: Callable[[UUID, Frame], None], flush_seconds: float) -> None:
        self._run = run
        self._publish = publish
        self._flush_seconds = flush_seconds
        self._buffers: dict[UUID, DeltaBuffer] = {}
        self._added = asyncio.Event()

    def open(self, buffer: DeltaBuffer) -> None:
        """From now on, store the chunks of this buffer."""
        buffer.on_added = self._added.set
        self._buffers[buffer.claim.row_id] = buffer

    def close(self, claim: Claim) -> None:
        """Stop storing the chunks of a model call. Drop the chunks that are not stored yet.

        Call this method when the model call has ended, or when this process has lost the call's row.
        """
        if self._writes(claim):
            del self._buffers[claim.row_id]

    def _writes(self, claim: Claim) -> bool:
        # Compare claims, not only row ids: this process might have lost the row and claimed it again.
        buffer = self._buffers.get(claim.row_id)
        return buffer is not None and buffer.claim is claim

    async def run(self) -> None:
        """Flush in an endless loop. While few model calls are running, flush as soon as there are chunks.

        ``pause_seconds`` decides how long to wait between two flushes.
        """
        while True:
            # With many model calls, do not flush at the first chunk. The flush would store only little text, and the
            # chunks of the other model calls would have to wait for the next flush.
            if len(self._buffers) <= FEW_STREAMS:
                await self._added.wait()
            self._added.clear()
            started = time.monotonic()
            await self.flush()
            await asyncio.sleep(self.pause_seconds(time.monotonic() - started))
            # Some chunks may be left, because they were throttled or could not be stored. Flush them next time.
            if any(buffer.has_text for buffer in self._buffers.values()):
                self._added.set()

    def pause_seconds(self, took: float) -> float:
        """Return how long to pause after a flush that took ``took`` seconds.

        Flushes begin ``flush_seconds`` apart. The interval is longer if many streams are open, or if the database is
        slow. Each flush then stores more text.
        """
        interval = max(self._flush_seconds, SECONDS_PER_STREAM * len(self._buffers))
        return min(max(interval - took, 2 * took), MAX_PAUSE_SECONDS)

    async def flush(self) -> None:
        """Store the chunks of all buffers that are due, in one transaction."""
        now = time.monotonic()
        due = [buffer for buffer in self._buffers.values() if buffer.is_due(now)]
        if not due:
            return
        batch = [buffer.take(now) for buffer in due]
        stored, lost = await self._store(batch)
        for buffer, append in zip(due, batch, strict=True):
            if append.claim.row_id in stored:
                # Publish only stored deltas. A client that misses the frame can then get the delta from the database.
                buffer.seq += 1
                self._publish(append.claim.thread_id, buffer.frame(append))
            elif append.claim.row_id in lost and self._writes(append.claim):
                self.close(append.claim)
                buffer.on_lost()
            else:
                # Try again with the next flush.
                buffer.put_back(append)

    async def _store(self, batch: Sequence[Append]) -> tuple[set[UUID], set[UUID]]:
        """Store the deltas in one transaction. If the transaction fails, store each delta in a transaction of its own,
        so that one bad delta does not stop the others.

        Return two sets of stream ids: the streams whose deltas are stored, and the streams that this process has lost.
        """
        try:
            return await self._run(append_deltas, batch)
        except Exception as error:
            if len(batch) == 1 and isinstance(error, IntegrityError):
                # The delta is stored already: an earlier COMMIT succeeded, but its confirmation was lost.
                return {batch[0].claim.row_id}, set()
            if len(batch) == 1 or (isinstance(error, Error) and is_outage(error)):
                log_error("deltas were not stored", action="append_deltas")
                return set(), set()
        results = [await self._store([append]) for append in batch]
        return set().union(*(stored for stored, _ in results)), set().union(*(lost for _, lost in results))
