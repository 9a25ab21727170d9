"""Read what has changed in a thread since a client's cursor, as frames of the websocket protocol.

A cursor (rev, stream, seq) says what the client has seen. Notifications only decide when to read.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Max, Q

from durable_agents.delta_writer import Frame
from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.models import OPEN_STREAM_STATES, Delta, Message, Stream, StreamState, Thread, ToolCall
from durable_agents.parts import Part
from durable_agents.transcript import UIMessage, add_partial_answer, step_parts, stream_open_at, ui_message, ui_messages

SNAPSHOT_BYTES = 1_000_000
"""Maximum size in bytes, as JSON, of the messages in one snapshot or in one page of older messages."""
MAX_TAIL = 200
MAX_CATCH_UP_ROWS = 500
"""Maximum number of changes that are sent one by one after a reconnect. For more changes, a snapshot is cheaper."""


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The part of a thread that a client has seen: all changes up to revision ``rev``, and the deltas of the streamed
    answer ``stream`` up to number ``seq``. If the client has seen none of these deltas, ``seq`` is -1.
    """

    rev: int = 0
    stream: str = ""
    seq: int = -1


class ThreadReader:
    """A reader of one thread for one client. If the client needs a snapshot, the reader returns it first. After that,
    it returns only what is new.

    The methods are synchronous and use the ORM. They raise ThreadNotFoundError if the thread was deleted.
    """

    def __init__(self, thread_id: UUID, cursor: Cursor | None = None) -> None:
        self.thread_id = thread_id
        self.cursor = cursor or Cursor()

    def can_resume(self) -> bool:
        """Return whether the cursor is valid for this thread and recent enough to continue without a snapshot."""
        thread = self._thread()
        if not 0 < self.cursor.rev <= thread.rev:
            return False
        return thread.rev - self.cursor.rev <= MAX_CATCH_UP_ROWS

    def begin(self, *, tail: int = 50) -> list[Frame]:
        """Return the first frames for the client.

        If the client can resume from its cursor, return a frame of type ``resumed``, frames with the changes since the
        cursor, and a frame with the thread's status. Otherwise, return only a snapshot of at most 200 messages.
        """
        if not self.can_resume():
            return [self.snapshot(tail=max(1, min(tail, MAX_TAIL)))]
        thread = self._thread()
        resumed = {"type": "resumed", "thread": str(thread.pk), "rev": self.cursor.rev}
        return [resumed, *self._news(thread), self.thread_frame(thread)]

    def snapshot(self, *, tail: int = 50) -> Frame:
        """Return a snapshot of the thread: its last ``tail`` messages, the queued messages, and the answer that is
        being streamed.

        The messages take at most a megabyte. Only the last step of the last answer and the queued messages after it may
        exceed this limit. The first message may lack its earliest steps: ``omitted`` is the number of missing
        steps, and ``older`` returns these steps.
        """
        thread = self._thread()
        shown = Message.objects.shown().for_clients().filter(thread_id=thread.pk, rev__lte=thread.rev)
        placed = list(reversed(shown.filter(position__isnull=False).reverse()[: tail + 1]))
        messages = ui_messages([*placed, *shown.filter(position__isnull=True)], upto_rev=thread.rev)
        open_stream = stream_open_at(thread)
        streams = []
        if open_stream is not None:
            seq = add_partial_answer(messages, open_stream)
            entry: Frame = {"stream": str(open_stream.pk), "message": open_stream.answer.shown_id, "seq": seq}
            streams = [entry | {"status": StreamState.STREAMING.value}]
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
        """Return frames with everything that happened since the cursor, and move the cursor past them. If an error is
        raised, the cursor does not move.
        """
        return self._news(self._thread())

    def _news(self, thread: Thread) -> list[Frame]:
        changes = self._durable_changes(thread) if thread.rev > self.cursor.rev else []
        # A read replica may return an older ``rev`` than the client's.
        rev = max(thread.rev, self.cursor.rev)
        stream = stream_open_at(thread)
        # If no answer is being streamed, there are no deltas to send.
        if stream is None:
            self.cursor = Cursor(rev=rev)
            return changes
        seq = self.cursor.seq if str(stream.pk) == self.cursor.stream else -1
        deltas = list(Delta.objects.after(stream.pk, seq).values_list("seq", "chunks"))
        self.cursor = Cursor(rev=rev, stream=str(stream.pk), seq=deltas[-1][0] if deltas else seq)
        address = {"thread": str(thread.pk), "stream": str(stream.pk), "message": stream.answer.shown_id}
        return [*changes, *({"type": "delta", **address, "seq": number, "chunks": chunks} for number, chunks in deltas)]

    def deltas(self, stream_id: str, *, first: int, last: int | None) -> list[Frame]:
        """Return the stored deltas of one stream from number ``first`` to ``last``, to fill a gap. If the
        deltas have been deleted, the list is empty.
        """
        rows = Delta.objects.after(UUID(stream_id), first - 1).filter(stream__thread_id=self.thread_id)
        if last is not None:
            rows = rows.filter(seq__lte=last)
        return [{"seq": row.seq, "chunks": row.chunks} for row in rows]

    def older(self, before: int, *, limit: int, steps: int = 0) -> tuple[list[UIMessage], bool]:
        """Return up to ``limit`` messages before the position ``before``, oldest first. Also return whether there are
        more messages. The messages take at most a megabyte.

        The client may have the message at ``before`` itself, but without its earliest steps. In that case, pass the
        number of missing steps as ``steps``. With ``steps``, the last message returned is the message at ``before``,
        reduced to the missing steps. The first message returned may lack its earliest steps, as in a snapshot.
        """
        shown = Message.objects.shown().for_clients().filter(thread_id=self.thread_id)
        rows = shown.filter(position__lt=before + (steps > 0)).reverse()[: limit + 1]
        messages = list(reversed(ui_messages(rows)))
        if steps > 0 and messages and messages[-1]["position"] == before:
            messages[-1]["parts"] = _joined(_steps_of(messages[-1])[:steps])
        kept = _newest_that_fit(messages[-limit:])
        return kept, len(kept) < len(messages) or _is_cut(kept)

    def thread_frame(self, thread: Thread | None = None) -> Frame:
        """Return a frame with the thread's own fields, such as its status and title."""
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

    def _durable_changes(self, thread: Thread) -> list[Frame]:
        """Return frames for the rows that changed since the cursor, in the order of the changes. The last frame
        describes the thread itself.
        """
        changed = Q(thread_id=thread.pk, rev__gt=self.cursor.rev, rev__lte=thread.rev)
        streams = list(Stream.objects.filter(changed).exclude(state__in=OPEN_STREAM_STATES).select_related("message"))
        frames = []
        removed: defaultdict[int, list[str]] = defaultdict(list)
        for row in Message.objects.for_clients().filter(changed):
            if row.superseded_at is None:
                frames.append(self._frame("message", row.rev, message=ui_message(row, row.parts)))
            else:
                removed[row.rev].append(row.shown_id)
        frames += [self._frame("removed", rev, ids=ids) for rev, ids in removed.items()]
        calls = list(ToolCall.objects.filter(stream__in=streams))
        for stream in streams:
            parts = step_parts(stream, [call for call in calls if call.stream_id == stream.pk])
            address = {"message": stream.answer.shown_id, "stream": str(stream.pk)}
            if parts and stream.answer.superseded_at is None:
                frames.append(self._frame("step", stream.rev, parts=parts) | address)
            else:
                status = _CLOSED_AS.get(stream.finish_reason, "aborted")
                frames.append(self._frame("stream", stream.rev, status=status) | address)
        frames += self._tool_frames(changed, streams)
        # Send the thread's frame last, because it has the highest ``rev``. If the connection breaks earlier, the client
        # resumes from a lower ``rev`` and misses nothing.
        return [*sorted(frames, key=lambda frame: frame["rev"]), self.thread_frame(thread)]

    def _tool_frames(self, changed: Q, streams: Sequence[Stream]) -> Iterator[Frame]:
        """Yield a frame for each tool call that changed. Skip the calls of ``streams``, because other frames contain
        these calls already.
        """
        calls = ToolCall.objects.filter(changed, message__superseded_at=None).exclude(stream__in=streams)
        for call in calls:
            frame = self._frame("tool", call.rev, tool_call_id=call.tool_call_id, status=call.status)
            part = call.outcome().part()
            if "output" in part:
                frame["output"] = part["output"]
            elif "errorText" in part:
                frame["error"] = part["errorText"]
            if call.progress is not None:
                frame["progress"] = call.progress
            if "approval" in part:
                frame["approval"] = part["approval"]
            yield frame

    def accept(self, frame: Frame) -> bool:
        """Return whether this delta directly follows the cursor. If so, move the cursor past it; the caller may send
        the delta unchanged.
        """
        if frame["stream"] != self.cursor.stream or frame["seq"] != self.cursor.seq + 1:
            return False
        self.cursor = Cursor(rev=self.cursor.rev, stream=self.cursor.stream, seq=frame["seq"])
        return True

    def _frame(self, frame_type: str, rev: int, **fields: object) -> Frame:
        return {"type": frame_type, "thread": str(self.thread_id), "rev": rev, **fields}


_CLOSED_AS = {
    **dict.fromkeys(("crashed", "released", "steered"), "superseded"),
    "error": "failed",
    "stopped": "aborted",
}


def _newest_that_fit(messages: Sequence[UIMessage], *, answer: str | None = None) -> list[UIMessage]:
    """Return the newest messages that fit into ``SNAPSHOT_BYTES``. The first of them may lack its earliest steps.

    Always include the message with the id ``answer``, at least its last step, and all later messages. The default of
    ``answer`` is the last message that has a position, because a client needs a position to request older messages.
    """
    places = range(len(messages))
    named = [place for place in places if messages[place]["id"] == answer]
    placed = [place for place in places if messages[place]["position"] is not None]
    needed = (named or placed or [len(messages) - 1])[-1]
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


def _cut(message: UIMessage, *, room: int, is_needed: bool) -> UIMessage | None:
    """Return the message with as many of its newest steps as fit into ``room`` bytes, or None if none fits. With
    ``is_needed``, always keep the last step.
    """
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
    """Split the parts of a message into steps. There is at least one step. Each ``step-start`` part begins a new
    step.
    """
    steps: list[list[Part]] = [[]]
    for part in message["parts"]:
        if part["type"] == "step-start" and steps[-1]:
            steps.append([])
        steps[-1].append(part)
    return steps


def _joined(steps: Sequence[Sequence[Part]]) -> list[Part]:
    return [part for step in steps for part in step]


def _bytes(value: object) -> int:
    """Return the size of a value in bytes when it is sent as JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A fingerprint of a thread: it differs after every change. ``rev`` is the thread's revision. ``seq`` is the
    number of the last delta of the answer that is being streamed, or -1 if there is none.
    """

    rev: int
    seq: int


def signs_of(thread_ids: Sequence[UUID]) -> dict[UUID, Sign]:
    """Return the fingerprints of these threads, by thread id. Deleted threads are left out. This takes two queries."""
    newest = Delta.objects.filter(stream__thread_id__in=thread_ids, stream__state=StreamState.STREAMING)
    seqs: dict[UUID, int] = dict(newest.values_list("stream__thread_id").annotate(newest=Max("seq")))
    revs = Thread.objects.filter(pk__in=thread_ids).values_list("pk", "rev")
    return {pk: Sign(rev=rev, seq=seqs.get(pk, -1)) for pk, rev in revs}
