"""Hides how deltas travel: written in groups by workers, read after a cursor by everyone else.

Writing: all streams of a worker share one transaction per tick, so that a hundred answers cost what one does.
Reading: a cursor (rev, stream, seq) says what a client has seen; ``ThreadReader`` gives exactly what is missing, as
the frames of the websocket protocol. Doorbells only say when to look.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import IntegrityError
from django.db.models import Max

from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.lifecycle import Append, Claim, append_deltas
from durable_agents.logs import log_error
from durable_agents.models import OPEN_STREAM_STATES, Delta, Message, Stream, StreamState, Thread, ToolCall
from durable_agents.parts import Chunk, Part, fold, joined
from durable_agents.strictjson import clean
from durable_agents.transcript import UIMessage, step_parts, ui_message, ui_messages

Frame = dict[str, Any]
RunInDatabase = Callable[..., Awaitable[Any]]

MAX_TICK_SECONDS = 0.25
SNAPSHOT_BYTES = 1_000_000
"""The messages of one snapshot, or of one page of older ones, as JSON."""
MAX_TAIL = 200
MAX_CATCH_UP_ROWS = 500
"""A cursor further behind than this gets a snapshot: cheaper than replaying every change."""


# --------------------------------------------------------------------------------------------------------- writing


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
        """Whether there is something to store and the last time is long enough ago."""
        return bool(self.chunks) and now - self.flushed_at >= self.throttle_seconds

    def take(self, now: float) -> Append:
        """Everything so far, as the next delta; what is added from now on belongs to the one after it."""
        chunks, self.chunks, self.flushed_at = self.chunks, [], now
        return Append(claim=self.claim, seq=self.seq, chunks=chunks)

    def put_back(self, append: Append) -> None:
        """A delta that was not stored is offered again, with what came meanwhile."""
        self.chunks = [*append.chunks, *self.chunks]

    def frame(self, append: Append) -> Frame:
        """The stored delta as browsers get it."""
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
        """Begin to take part in the group commits."""
        self._buffers[buffer.claim.row_id] = buffer

    def close(self, claim: Claim) -> None:
        """Drop what is not stored: the step is committed, failed or lost."""
        if self._writes(claim):
            del self._buffers[claim.row_id]

    def _writes(self, claim: Claim) -> bool:
        buffer = self._buffers.get(claim.row_id)
        return buffer is not None and buffer.claim is claim

    async def run(self) -> None:
        """Flush for ever, a tick apart: ``flush_seconds`` or twice what the last flush took."""
        while True:
            started = time.monotonic()
            await self.flush()
            took = time.monotonic() - started
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
                buffer.seq += 1
                self._publish(append.claim.thread_id, buffer.frame(append))
            elif append.claim.row_id in lost and self._writes(append.claim):
                self.close(append.claim)
                buffer.on_lost()
            else:
                buffer.put_back(append)

    async def _store(self, batch: Sequence[Append]) -> tuple[set[UUID], set[UUID]]:
        """The group in one transaction; where that fails, each alone, so that only the culprit waits."""
        try:
            return await self._run(append_deltas, batch)  # type: ignore[no-any-return]
        except Exception as error:
            if len(batch) == 1 and isinstance(error, IntegrityError):
                return {batch[0].claim.row_id}, set()  # the answer to its COMMIT was lost: it is stored
            if len(batch) == 1:
                log_error("deltas were not stored", action="append_deltas")
                return set(), set()
        results = [await self._store([append]) for append in batch]
        return set().union(*(stored for stored, _ in results)), set().union(*(lost for _, lost in results))


# --------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """What a client has seen: durable changes up to ``rev``, and deltas of ``stream`` up to ``seq`` (-1: none)."""

    rev: int = 0
    stream: str = ""
    seq: int = -1


def stream_open_at(thread: Thread) -> Stream | None:
    """The attempt that was open at the thread's rev: still open, or closed by a change that comes as news."""
    streams = Stream.objects.using(thread._state.db).filter(thread_id=thread.pk, number=thread.last_number)
    last = streams.select_related("message").first()
    if last is None or (last.state not in OPEN_STREAM_STATES and last.rev <= thread.rev):
        return None
    return last


class ThreadReader:
    """Follows one thread for one client: a snapshot or nothing first, then exactly what is new, each time asked.

    Synchronous: call it where the ORM may be called. Raises ThreadNotFoundError once the thread is gone.
    """

    def __init__(self, thread_id: UUID, cursor: Cursor | None = None) -> None:
        self.thread_id = thread_id
        self.cursor = cursor or Cursor()

    def can_resume(self) -> bool:
        """Whether the cursor is one of this thread's and near enough to be served without a snapshot."""
        thread = self._thread()
        if not 0 < self.cursor.rev <= thread.rev:
            return False
        return thread.rev - self.cursor.rev <= MAX_CATCH_UP_ROWS

    def begin(self, *, tail: int = 50) -> list[Frame]:
        """The first frames: a snapshot of at most 200 messages; or, to a cursor that can be served, ``resumed``, what
        is new, and the thread's own state."""
        if not self.can_resume():
            return [self.snapshot(tail=max(1, min(tail, MAX_TAIL)))]
        thread = self._thread()
        resumed = {"type": "resumed", "thread": str(thread.pk), "rev": self.cursor.rev}
        return [resumed, *self._news(thread), self.thread_frame(thread)]

    def snapshot(self, *, tail: int = 50) -> Frame:
        """Committed messages, the last ``tail`` of them and the queued ones, with the open stream folded in.

        They are a megabyte at most, unless the last step of the last answer with what is queued after it is more. The
        first message may lack steps at its beginning: ``omitted`` says how many, and ``older`` gives them.
        """
        thread = self._thread()
        shown = Message.objects.shown().for_clients().filter(thread_id=thread.pk, rev__lte=thread.rev)
        placed = list(reversed(shown.filter(position__isnull=False).reverse()[: tail + 1]))
        messages = ui_messages([*placed, *shown.filter(position__isnull=True)], upto_rev=thread.rev)
        open_stream = stream_open_at(thread)
        streams = []
        if open_stream is not None:
            seq = self._fold_into(messages, open_stream)
            streams = [self._stream_entry(open_stream, seq)]
        kept = _newest_that_fit(
            messages[int(len(placed) > tail) :], answer=open_stream.answer.shown_id if open_stream else None
        )
        self.cursor = Cursor(
            rev=thread.rev,
            stream=streams[0]["stream"] if streams else "",
            seq=streams[0]["seq"] if streams else -1,
        )
        return self.thread_frame(thread) | {
            "type": "snapshot",
            "messages": kept,
            "hasOlder": len(kept) < len(messages) or _is_cut(kept),
            "streams": streams,
        }

    def news(self) -> list[Frame]:
        """The frames of everything that happened since the cursor, which moves on with all of them or not at all."""
        return self._news(self._thread())

    def _news(self, thread: Thread) -> list[Frame]:
        changes = self._durable_changes(thread) if thread.rev > self.cursor.rev else []
        rev = max(thread.rev, self.cursor.rev)  # a replica may be behind
        stream = stream_open_at(thread)
        if stream is None:  # a late delta of a closed stream is not passed on
            self.cursor = Cursor(rev=rev)
            return changes
        seq = self.cursor.seq if str(stream.pk) == self.cursor.stream else -1
        deltas = list(Delta.objects.after(stream.pk, seq).values_list("seq", "chunks"))
        self.cursor = Cursor(rev=rev, stream=str(stream.pk), seq=deltas[-1][0] if deltas else seq)
        facts = {"thread": str(thread.pk), "stream": str(stream.pk), "message": stream.answer.shown_id}
        return [*changes, *({"type": "delta", **facts, "seq": number, "chunks": chunks} for number, chunks in deltas)]

    def deltas(self, stream_id: str, *, first: int, last: int | None) -> list[dict[str, Any]]:
        """Stored deltas of one stream of this thread, to fill a gap; an empty list once they are pruned."""
        rows = Delta.objects.after(UUID(stream_id), first - 1).filter(stream__thread_id=self.thread_id)
        if last is not None:
            rows = rows.filter(seq__lte=last)
        return [{"seq": row.seq, "chunks": row.chunks} for row in rows]

    def older(self, before: int, *, limit: int, steps: int = 0) -> tuple[list[UIMessage], bool]:
        """Up to ``limit`` messages before a position, oldest first and at most a megabyte, and whether there are more.

        With ``steps``, as many as a client lacks of the message at that position, these come as that message, the last
        of the page. The first one may lack steps in its turn, as in a snapshot.
        """
        shown = Message.objects.shown().for_clients().filter(thread_id=self.thread_id)
        rows = shown.filter(position__lt=before + (steps > 0)).reverse()[: limit + 1]
        messages = list(reversed(ui_messages(rows)))
        if steps > 0 and messages and messages[-1]["position"] == before:
            messages[-1]["parts"] = _joined(_steps_of(messages[-1])[:steps])
        kept = _newest_that_fit(messages[-limit:])
        return kept, len(kept) < len(messages) or _is_cut(kept)

    def thread_frame(self, thread: Thread | None = None) -> Frame:
        """The thread's own state as a frame."""
        thread = thread or self._thread()
        error = {"code": thread.error_code, "message": thread.error_message} if thread.error_code else None
        return {
            "type": "thread",
            "thread": str(thread.pk),
            "rev": thread.rev,
            "status": thread.status,
            "title": thread.title,
            "error": error,
            "retry": thread.retry,
        }

    def _thread(self) -> Thread:
        thread = Thread.objects.filter(pk=self.thread_id).first()
        if thread is None:
            raise ThreadNotFoundError(self.thread_id)
        return thread

    def _fold_into(self, messages: list[UIMessage], stream: Stream) -> int:
        """Append the partial answer to its message. Returns the seq of the last delta included."""
        rows = list(Delta.objects.after(stream.pk, -1).values_list("seq", "chunks"))
        partial: list[Part] = fold(chunk for _, chunks in rows for chunk in chunks)
        for message in messages:
            if message["id"] == stream.answer.shown_id:
                message["parts"] = message["parts"] + partial
        return rows[-1][0] if rows else -1

    def _stream_entry(self, stream: Stream, seq: int) -> dict[str, Any]:
        return {
            "stream": str(stream.pk),
            "message": stream.answer.shown_id,
            "seq": seq,
            "status": StreamState.STREAMING.value,
        }

    def _durable_changes(self, thread: Thread) -> list[Frame]:
        """One frame for each row that changed, in the order of the changes, the thread's own state last."""
        changed: dict[str, Any] = {
            "thread_id": thread.pk,
            "rev__gt": self.cursor.rev,
            "rev__lte": thread.rev,
        }
        streams = list(Stream.objects.filter(**changed).exclude(state__in=OPEN_STREAM_STATES).select_related("message"))
        frames = [*self._message_frames(changed), *self._stream_frames(streams), *self._tool_frames(changed, streams)]
        return [*sorted(frames, key=lambda frame: frame["rev"]), self.thread_frame(thread)]

    def _message_frames(self, changed: dict[str, Any]) -> Iterator[Frame]:
        gone: defaultdict[int, list[str]] = defaultdict(list)
        for row in Message.objects.for_clients().filter(**changed):
            if row.superseded_at is None:
                yield self._frame("message", row.rev, message=ui_message(row, row.parts))
            else:
                gone[row.rev].append(row.shown_id)
        for rev, ids in gone.items():
            yield self._frame("removed", rev, ids=ids)

    def _stream_frames(self, streams: Sequence[Stream]) -> Iterator[Frame]:
        calls = list(ToolCall.objects.filter(stream__in=streams))
        for stream in streams:
            parts = step_parts(stream, [call for call in calls if call.stream_id == stream.pk])
            facts: dict[str, Any] = {"message": stream.answer.shown_id, "stream": str(stream.pk)}
            if parts and stream.answer.superseded_at is None:
                yield self._frame("step", stream.rev, parts=parts, **facts)
            else:
                yield self._frame("stream", stream.rev, status=_CLOSED_AS.get(stream.finish_reason, "aborted"), **facts)

    def _tool_frames(self, changed: dict[str, Any], streams: Sequence[Stream]) -> Iterator[Frame]:
        """Patches of calls; those of a step that is news itself are in its parts already."""
        calls = ToolCall.objects.filter(**changed, message__superseded_at=None).exclude(stream__in=streams)
        for call in calls:
            frame = self._frame("tool", call.rev, tool_call_id=call.tool_call_id, status=call.status)
            part = call.outcome().part()
            extra = {"output": part.get("output"), "error": part.get("errorText"), "progress": call.progress}
            approval = {"approval": part["approval"]} if "approval" in part else {}
            yield frame | {name: value for name, value in extra.items() if name in _patch_fields(part, call)} | approval

    def accept(self, frame: Frame) -> bool:
        """Whether a published delta is the next in order: then it counts as seen and may be passed on as it is."""
        if frame["stream"] != self.cursor.stream or frame["seq"] != self.cursor.seq + 1:
            return False
        self.cursor = Cursor(rev=self.cursor.rev, stream=self.cursor.stream, seq=frame["seq"])
        return True

    def _frame(self, kind: str, rev: int, **facts: Any) -> Frame:
        return {"type": kind, "thread": str(self.thread_id), "rev": rev, **facts}


_CLOSED_AS = {
    **dict.fromkeys(("crashed", "released", "steered"), "superseded"),
    "error": "failed",
    "stopped": "aborted",
}


def _patch_fields(part: Part, call: ToolCall) -> set[str]:
    fields = {"output"} if "output" in part else {"error"} if "errorText" in part else set()
    return fields | ({"progress"} if call.progress is not None else set())


def _newest_that_fit(messages: Sequence[UIMessage], *, answer: str | None = None) -> list[UIMessage]:
    """The longest tail that is under the limit, its first message without the steps that are not.

    The answer, or else the last message with a position, is there with its last step at least, and so is what comes
    after it: from there a client asks for older ones.
    """
    needed = _place_of(messages, answer)
    kept = list(messages[needed + 1 :])
    room = SNAPSHOT_BYTES - sum(map(_bytes, kept))
    for place in range(needed, -1, -1):
        fitting = _cut(messages[place], room=room, is_needed=place == needed)
        if fitting is not None:
            kept.insert(0, fitting)
        if fitting is not messages[place]:
            break
        room -= _bytes(fitting)
    return kept


def _place_of(messages: Sequence[UIMessage], answer: str | None) -> int:
    places = range(len(messages))
    named = [place for place in places if messages[place]["id"] == answer]
    return (named or [place for place in places if messages[place]["position"] is not None] or [len(messages) - 1])[-1]


def _cut(message: UIMessage, *, room: int, is_needed: bool) -> UIMessage | None:
    """The message with as many of its newest steps as there is room for; None where that is none of them."""
    steps = _steps_of(message)
    room -= _bytes(message | {"parts": [], "omitted": len(steps)})
    kept = 0
    for step in reversed(steps):
        room -= _bytes(step)
        if room < 0 and (kept or not is_needed):
            break
        kept += 1
    if kept == len(steps):
        return message
    return message | {"parts": _joined(steps[-kept:]), "omitted": len(steps) - kept} if kept else None


def _is_cut(messages: Sequence[UIMessage]) -> bool:
    return any("omitted" in message for message in messages)


def _steps_of(message: UIMessage) -> list[list[Part]]:
    """The parts of each step; those before the first ``step-start`` are of the first. One at least."""
    steps: list[list[Part]] = [[]]
    for part in message["parts"]:
        if part["type"] == "step-start" and steps[-1]:
            steps.append([])
        steps[-1].append(part)
    return steps


def _joined(steps: Sequence[Sequence[Part]]) -> list[Part]:
    return [part for step in steps for part in step]


def _bytes(value: Any) -> int:
    """The size of a JSON value as it travels."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


@dataclass(frozen=True, kw_only=True)
class Sign:
    """What shows that a watched thread has news: its rev and the number of deltas of its open stream."""

    rev: int
    seq: int


def signs_of(thread_ids: Sequence[UUID]) -> dict[UUID, Sign]:
    """The sign of each of these threads that still exists. Two queries."""
    newest = Delta.objects.filter(stream__thread_id__in=thread_ids, stream__state=StreamState.STREAMING)
    seqs: dict[UUID, int] = dict(newest.values_list("stream__thread_id").annotate(newest=Max("seq")))
    revs = Thread.objects.filter(pk__in=thread_ids).values_list("pk", "rev")
    return {pk: Sign(rev=rev, seq=seqs.get(pk, -1)) for pk, rev in revs}
