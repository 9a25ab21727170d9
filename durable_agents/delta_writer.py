"""Write deltas in groups: all streams of a worker share one transaction per tick."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import Error, IntegrityError

from durable_agents.databases import is_outage
from durable_agents.lifecycle import Append, Claim, append_deltas
from durable_agents.logs import log_error
from durable_agents.parts import Chunk, joined
from durable_agents.strictjson import clean

RunInDatabase = Callable[
    [Callable[[Sequence[Append]], tuple[set[UUID], set[UUID]]], Sequence[Append]],
    Awaitable[tuple[set[UUID], set[UUID]]],
]
"""Runs ``append_deltas`` in a thread that may use the database."""

MAX_TICK_SECONDS = 0.25
"""How long a flush waits at most for the next, however slow the database is."""

Frame = dict[str, Any]
"""A stored delta as browsers get it."""


@dataclass(kw_only=True)
class DeltaBuffer:
    """The chunks of one stream that are not stored yet."""

    claim: Claim
    message: str
    throttle_seconds: float
    on_lost: Callable[[], None]
    seq: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    flushed_at: float = 0.0

    def add(self, chunk: Chunk) -> None:
        """Buffer a chunk, cleaned; text that continues the last one is joined to it."""
        self.chunks[-1:] = joined([*self.chunks[-1:], clean(chunk)])

    def is_due(self, now: float) -> bool:
        """Whether there is something to store and the throttle interval has passed."""
        return bool(self.chunks) and now - self.flushed_at >= self.throttle_seconds

    def take(self, now: float) -> Append:
        """Return everything so far, as the next delta; what is added from now on belongs to the one after it."""
        chunks, self.chunks, self.flushed_at = self.chunks, [], now
        return Append(claim=self.claim, seq=self.seq, chunks=chunks)

    def put_back(self, append: Append) -> None:
        """Return a delta that was not stored to the buffer, before what came meanwhile."""
        self.chunks = [*append.chunks, *self.chunks]

    def frame(self, append: Append) -> Frame:
        """Return the stored delta as browsers get it."""
        return {
            "type": "delta",
            "thread": str(self.claim.thread_id),
            "stream": str(self.claim.row_id),
            "message": self.message,
            "seq": append.seq,
            "chunks": list(append.chunks),
        }


class DeltaWriter:
    """Group commit of the deltas of all streams of one worker process."""

    def __init__(self, *, run: RunInDatabase, publish: Callable[[UUID, Frame], None], flush_seconds: float) -> None:
        self._run = run
        self._publish = publish
        self._flush_seconds = flush_seconds
        self._buffers: dict[UUID, DeltaBuffer] = {}

    def open(self, buffer: DeltaBuffer) -> None:
        """Add a stream to the group commits."""
        self._buffers[buffer.claim.row_id] = buffer

    def close(self, claim: Claim) -> None:
        """Drop the deltas that are not stored yet. Called once the step is committed, failed or lost."""
        if self._writes(claim):
            del self._buffers[claim.row_id]

    def _writes(self, claim: Claim) -> bool:
        # Not by the row's id alone: this process may have claimed the row again, after it had lost it.
        buffer = self._buffers.get(claim.row_id)
        return buffer is not None and buffer.claim is claim

    async def run(self) -> None:
        """Flush in an endless loop, every ``flush_seconds`` or twice the duration of the last flush."""
        while True:
            started = time.monotonic()
            await self.flush()
            took = time.monotonic() - started
            # Twice as long as the database took: when it is slow, fewer and longer deltas are written.
            await asyncio.sleep(min(max(self._flush_seconds, 2 * took), MAX_TICK_SECONDS))

    async def flush(self) -> None:
        """Store what is due of every stream, in one transaction."""
        now = time.monotonic()
        due = [buffer for buffer in self._buffers.values() if buffer.is_due(now)]
        if not due:
            return
        batch = [buffer.take(now) for buffer in due]
        stored, lost = await self._store(batch)
        for buffer, append in zip(due, batch, strict=True):
            if append.claim.row_id in stored:
                # Published only once it is stored: a reader that misses the frame finds it after its cursor.
                buffer.seq += 1
                self._publish(append.claim.thread_id, buffer.frame(append))
            elif append.claim.row_id in lost and self._writes(append.claim):
                self.close(append.claim)
                buffer.on_lost()
            else:  # goes with the next flush, under the same ``seq``: a repeated write is noticed
                buffer.put_back(append)

    async def _store(self, batch: Sequence[Append]) -> tuple[set[UUID], set[UUID]]:
        """Store the group in one transaction; if that fails, each delta alone, so that only the failing one waits."""
        try:
            return await self._run(append_deltas, batch)
        except Exception as error:
            if len(batch) == 1 and isinstance(error, IntegrityError):
                return {batch[0].claim.row_id}, set()  # already stored: only the reply to its COMMIT was lost
            if len(batch) == 1 or (isinstance(error, Error) and is_outage(error)):
                log_error("deltas were not stored", action="append_deltas")
                return set(), set()
        results = [await self._store([append]) for append in batch]
        return set().union(*(stored for stored, _ in results)), set().union(*(lost for _, lost in results))
