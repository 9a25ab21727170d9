"""Read what has changed in a thread since a client's cursor, as frames of the websocket protocol.

A cursor (``rev``, ``stream``, ``seq``) says what the client has already seen.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf
from uuid import UUID

from django.db.models import OuterRef, Q, Subquery

from durable_agents.delta_writer import Frame
from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.live.personal_frames import Facts
from durable_agents.live_delivery_counts import Event, delivery_counts
from durable_agents.models import (
    OPEN_STREAM_STATES,
    Delta,
    Message,
    MessageQuerySet,
    Stream,
    StreamState,
    Thread,
    ToolCall,
    ToolCallStatus,
)
from durable_agents.parts import Part
from durable_agents.reading import read_only, waiting_calls, waiting_parts
from durable_agents.stored_sizes import REPLY_BYTES, MessageSize, change_sizes, message_sizes
from durable_agents.transcript import (
    UIMessage,
    add_parts,
    partial_answer,
    step_parts,
    stream_open_at,
    ui_message,
    ui_messages,
)

THREAD_CONTENT = ("metadata", "context")
"""Fields of a thread that may be large, and that no frame shows."""
MAX_TAIL = 200
MAX_CATCH_UP_ROWS = 500
"""Maximum number of changes that are sent one by one after a reconnect. For more changes, a snapshot is cheaper."""
MAX_UNMEASURED = 8
"""Maximum number of changes that are read without a separate query that measures their size first."""
MAX_DELTAS = 200
"""Maximum number of deltas that are read at once."""


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """How far a client has read a thread.

    The client has seen all changes up to revision ``rev``. Of the streamed answer ``stream``, it has seen the deltas
    (pieces) up to number ``seq``. If it has seen none, ``seq`` is -1.
    """

    rev: int = 0
    stream: str = ""
    seq: int = -1


class ThreadReader:
    """Reads one thread for one client. Returns a snapshot first if the client needs one, and later only what is new.

    The methods are synchronous and use the ORM. They raise ThreadNotFoundError if the thread was deleted.
    """

    def __init__(self, thread_id: UUID, cursor: Cursor | None = None) -> None:
        self.thread_id = thread_id
        self.cursor = cursor or Cursor()
        self.facts = Facts()
        """The senders and waiting approvals in the frames of the last read. ``PersonalFrames`` uses them to complete
        the frames for one viewer.
        """
        self.has_more = False
        """Whether the last read has left out later changes, because the read would have been too large."""

    def can_resume(self) -> bool:
        """Return whether the cursor is valid for this thread and recent enough to continue without a snapshot."""
        if self.cursor.rev <= 0:
            return False
        thread = self._thread()
        return self.cursor.rev <= thread.rev and thread.rev - self.cursor.rev <= MAX_CATCH_UP_ROWS

    def begin(self, *, tail: int = 50) -> list[Frame]:
        """Return the first frames for the client.

        If the client can resume from its cursor, return:

        - a ``resumed`` frame
        - frames with the changes since the cursor
        - a frame with the thread's status

        Otherwise, or if the changes are too large, return only a snapshot of at most 200 messages.
        """
        if self.can_resume():
            self.facts = Facts()
            thread = self._thread()
            resumed = {"type": "resumed", "thread": str(thread.pk), "rev": self.cursor.rev}
            news = self._news(thread)
            if not self.has_more:
                return [resumed, *news, self.thread_frame(thread)]
        delivery_counts().add(Event.SNAPSHOT)
        return [self.snapshot(tail=max(1, min(tail, MAX_TAIL)))]

    def snapshot(self, *, tail: int = 50) -> Frame:
        """Return a snapshot: the last ``tail`` messages, the queued messages, and the answer that is being streamed.

        - The messages take at most a megabyte.
        - The first message may lack its earliest steps. Its field ``omitted`` is their number, and the method ``older``
          returns them.
        - The last step of the last answer and the queued messages are always included, even if they are too large.
        """
        self.facts, self.has_more = Facts(), False
        thread = self._thread()
        shown = Message.objects.shown().for_clients().filter(thread_id=thread.pk, rev__lte=thread.rev)
        open_stream = stream_open_at(thread)
        partial, seq = partial_answer(open_stream) if open_stream else ([], -1)
        position = open_stream.answer.position if open_stream else None
        chosen, has_older = _newest_that_fit(
            message_sizes(shown.reverse(), count=tail + 1, upto_rev=thread.rev),
            limit=tail,
            room=REPLY_BYTES - (_bytes(partial) if partial else 0),
            needed=inf if position is None else position,
            needs_step=not partial,
        )
        messages = self._read(shown, chosen, upto_rev=thread.rev)
        streams = []
        if open_stream is not None:
            answer = open_stream.answer.shown_id
            add_parts(messages, answer, partial)
            entry: Frame = {"stream": str(open_stream.pk), "message": answer, "seq": seq}
            streams = [entry | {"status": StreamState.STREAMING.value}]
        self.cursor = Cursor(
            rev=thread.rev,
            stream=streams[0]["stream"] if streams else "",
            seq=streams[0]["seq"] if streams else -1,
        )
        return self.thread_frame(thread) | {
            "type": "snapshot",
            "messages": messages,
            "hasOlder": has_older,
            "streams": streams,
        }

    def news(self) -> list[Frame]:
        """Return frames with what happened since the cursor, and move the cursor past them.

        One call returns changes of at most a megabyte, or a single larger change. If ``has_more`` is true afterwards,
        the next call returns further changes. If an error is raised, the cursor does not move.
        """
        self.facts = Facts()
        return self._news(self._thread())

    def _news(self, thread: Thread) -> list[Frame]:
        upto_rev = self._rev_that_fits(thread)
        changes = self._durable_changes(thread, upto_rev) if upto_rev > self.cursor.rev else []
        self.has_more = upto_rev < thread.rev
        if self.has_more:
            self.cursor = replace(self.cursor, rev=upto_rev)
            return changes
        # A read replica may return a ``rev`` that is older than the client's.
        rev = max(thread.rev, self.cursor.rev)
        stream = stream_open_at(thread)
        # No answer is being streamed, so there are no deltas to send.
        if stream is None:
            self.cursor = Cursor(rev=rev)
            return changes
        seq = self.cursor.seq if str(stream.pk) == self.cursor.stream else -1
        deltas = list(Delta.objects.after(stream.pk, seq).values_list("seq", "chunks")[: MAX_DELTAS + 1])
        self.has_more = len(deltas) > MAX_DELTAS
        del deltas[MAX_DELTAS:]
        self.cursor = Cursor(rev=rev, stream=str(stream.pk), seq=deltas[-1][0] if deltas else seq)
        address = {"thread": str(thread.pk), "stream": str(stream.pk), "message": stream.answer.shown_id}
        return [*changes, *({"type": "delta", **address, "seq": number, "chunks": chunks} for number, chunks in deltas)]

    def _rev_that_fits(self, thread: Thread) -> int:
        """Return the revision up to which one read can return the changes since the cursor.

        This is the thread's revision, or an earlier revision if the changes are too large for one read. At least one
        change is always included.
        """
        if thread.rev - self.cursor.rev <= MAX_UNMEASURED:
            return thread.rev
        changed = Q(thread_id=thread.pk, rev__gt=self.cursor.rev, rev__lte=thread.rev)
        room, last = REPLY_BYTES, 0
        for rev, size in change_sizes(changed):
            room -= size
            if room < 0 and last:
                return last
            last = rev
        return thread.rev

    def deltas(self, stream_id: str, *, first: int, last: int | None) -> list[Frame]:
        """Return the stored deltas (pieces) of one stream, from number ``first`` to ``last`` or to the end.

        The list is empty if the deltas have been deleted.
        """
        rows = Delta.objects.after(UUID(stream_id), first - 1).filter(stream__thread_id=self.thread_id)
        if last is not None:
            rows = rows.filter(seq__lte=last)
        return [{"seq": row.seq, "chunks": row.chunks} for row in rows]

    def older(self, before: int, *, limit: int, steps: int = 0) -> tuple[list[UIMessage], bool]:
        """Return up to ``limit`` messages before the position ``before``, oldest first, and whether there are more.

        The messages take at most a megabyte. The first message may lack its earliest steps, as in a snapshot.

        If the client lacks the first steps of the message at ``before``, ``steps`` is the number of missing steps. The
        result then ends with the message at ``before``, which contains only the missing steps.
        """
        self.facts = Facts()
        shown = Message.objects.shown().for_clients().filter(thread_id=self.thread_id)
        earlier = shown.filter(position__lt=before + (steps > 0))
        sizes = (
            replace(size, steps=size.steps[:steps]) if steps > 0 and size.position == before else size
            for size in message_sizes(earlier.reverse(), count=limit + 1)
        )
        chosen, has_older = _newest_that_fit(sizes, limit=limit, room=REPLY_BYTES)
        return self._read(earlier, chosen), has_older

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
            "read_only": read_only(thread),
        }

    def _thread(self) -> Thread:
        thread = Thread.objects.filter(pk=self.thread_id).defer(*THREAD_CONTENT).first()
        if thread is None:
            raise ThreadNotFoundError(self.thread_id)
        return thread

    def _read(
        self, messages: MessageQuerySet, chosen: Sequence[Chosen], *, upto_rev: int | None = None
    ) -> list[UIMessage]:
        """Return the chosen messages, oldest first."""
        rows = list(messages.filter(pk__in=[one.message_id for one in chosen]).defer("text").select_related("sender"))
        streams = [stream for one in chosen for stream in one.streams]
        omitted = {one.message_id: one.omitted for one in chosen if one.omitted}
        read = ui_messages(rows, upto_rev=upto_rev, streams=streams, show_person=None)
        self._note(rows, [part for message in read for part in message["parts"]])
        return [
            message | {"omitted": omitted[row.pk]} if row.pk in omitted else message
            for row, message in zip(rows, read, strict=True)
        ]

    def _note(self, messages: Sequence[Message], parts: Iterable[Part], tool_call_ids: Iterable[str] = ()) -> None:
        """Store in ``facts`` the senders of these messages, and the tool calls that wait for an approval."""
        waiting = {part["toolCallId"] for part in waiting_parts(parts)}.union(tool_call_ids)
        self.facts.senders = {row.shown_id: row.sender for row in messages if row.sender is not None}
        if self.facts.senders or waiting:
            self.facts.thread = self._thread()
            self.facts.calls = {call.tool_call_id: call for call in waiting_calls(self.facts.thread, waiting)}

    def _durable_changes(self, thread: Thread, upto_rev: int) -> list[Frame]:
        """Return frames for the rows that have changed since the cursor, up to the revision ``upto_rev``, in order.

        If ``upto_rev`` is the thread's own revision, the last frame contains the thread's status and title.
        """
        changed = Q(thread_id=thread.pk, rev__gt=self.cursor.rev, rev__lte=upto_rev)
        streams = list(Stream.objects.filter(changed).exclude(state__in=OPEN_STREAM_STATES).select_related("message"))
        frames = []
        removed: defaultdict[int, list[str]] = defaultdict(list)
        messages = list(Message.objects.for_clients().filter(changed).select_related("sender"))
        for row in messages:
            if row.superseded_at is None:
                frames.append(self._frame("message", row.rev, message=ui_message(row, row.parts, show_person=None)))
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
        tools = list(self._tool_frames(changed, streams))
        waiting = [frame["tool_call_id"] for frame in tools if frame["status"] == ToolCallStatus.APPROVAL_REQUESTED]
        self._note(messages, [part for frame in frames for part in frame.get("parts", ())], waiting)
        frames += tools
        # The thread's frame has the highest ``rev``, so it comes last. If the connection breaks before this frame, the
        # client resumes from a lower ``rev`` and misses nothing.
        last = [self.thread_frame(thread)] if upto_rev == thread.rev else []
        return [*sorted(frames, key=lambda frame: frame["rev"]), *last]

    def _tool_frames(self, changed: Q, streams: Sequence[Stream]) -> Iterator[Frame]:
        """Yield a frame for each tool call that has changed.

        ``streams`` are the changed steps, which have frames of their own. Their tool calls are left out.
        """
        calls = ToolCall.objects.filter(changed, message__superseded_at=None).exclude(stream__in=streams)
        for call in calls:
            frame = self._frame("tool", call.rev, tool_call_id=call.tool_call_id, status=call.status)
            part = call.outcome().part()
            if "output" in part:
                frame["output"] = part["output"]
            elif "errorText" in part:
                frame["error"] = part["errorText"]
            if "preliminary" in part:
                frame["preliminary"] = True
            if call.progress is not None:
                frame["progress"] = call.progress
            if "approval" in part:
                frame["approval"] = part["approval"]
            yield frame

    def accept(self, frame: Frame) -> bool:
        """Return whether this delta directly follows the cursor.

        If so, move the cursor past it. The caller can then send the delta unchanged.
        """
        if frame["stream"] != self.cursor.stream or frame["seq"] != self.cursor.seq + 1:
            return False
        self.cursor = Cursor(rev=self.cursor.rev, stream=self.cursor.stream, seq=frame["seq"])
        return True

    def _frame(self, frame_type: str, rev: int, **fields: object) -> Frame:
        return {"type": frame_type, "thread": str(self.thread_id), "rev": rev, **fields}


def thread_gone(name: str) -> Frame:
    """Return the last frame about a thread that was deleted, or that the client is no longer allowed to view. ``name``
    is the id by which the client knows the thread.
    """
    error: Frame = {"type": "error", "thread": name, "code": "thread_not_found"}
    return error | {"message": "The thread is gone.", "retryable": False}


_CLOSED_AS = {
    **dict.fromkeys(("crashed", "released", "steered"), "superseded"),
    "error": "failed",
    "stopped": "aborted",
}


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A message to read.

    For an answer, ``streams`` contains the ids of the steps to read. ``omitted`` is the number of earlier steps that
    are not read.
    """

    message_id: UUID
    streams: Sequence[UUID]
    omitted: int


def _newest_that_fit(
    sizes: Iterable[MessageSize], *, limit: int, room: int, needed: float = inf, needs_step: bool = True
) -> tuple[list[Chosen], bool]:
    """Choose the newest messages that fit into ``room`` bytes. Return them, and whether anything older is left out.

    - ``sizes`` begins with the newest message.
    - At most ``limit`` messages are chosen. Queued messages do not count, because they have no position.
    - The message at the position ``needed`` and all newer messages are chosen even if they take more than ``room``. By
      default, this is the newest message with a position. A client needs its position to request older messages.
    - ``needs_step`` says whether at least the last step of the message at ``needed`` is chosen, too.
    - The oldest chosen message may lack its earliest steps.
    """
    chosen: list[Chosen] = []
    is_needed = True
    placed = 0
    for size in sizes:
        placed += size.position is not None
        is_last_needed = is_needed and size.position is not None and size.position <= needed
        room -= size.own
        if placed > limit or (room < 0 and not is_needed):
            return chosen, True
        streams: list[UUID] = []
        for stream_id, step_size in reversed(size.steps):
            room -= step_size
            is_step_needed = is_needed and (not is_last_needed or (needs_step and not streams))
            if room < 0 and not is_step_needed:
                break
            streams.append(stream_id)
        if size.steps and not streams and not is_needed:
            return chosen, True
        omitted = len(size.steps) - len(streams)
        chosen.append(Chosen(message_id=size.message_id, streams=streams, omitted=omitted))
        if omitted:
            return chosen, True
        is_needed = is_needed and not is_last_needed
    return chosen, False


def _bytes(value: object) -> int:
    """Return the size of a value in bytes when it is sent as JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A fingerprint of a thread, which differs after every change.

    ``rev`` is the thread's revision. ``stream`` is the answer that is being streamed, and ``seq`` is the number of its
    last delta (piece). If no answer is being streamed, or the answer has no delta yet, ``stream`` is an empty string
    and ``seq`` is -1.
    """

    rev: int
    stream: str = ""
    seq: int = -1

    def is_news_for(self, cursor: Cursor) -> bool:
        """Return whether a client with this cursor might have missed a change."""
        if self.rev != cursor.rev:
            # A client with a later revision has read a later state of the thread, so it lacks nothing.
            return self.rev > cursor.rev
        return self.seq > (cursor.seq if self.stream == cursor.stream else -1)


def signs_of(thread_ids: Sequence[UUID]) -> dict[UUID, Sign]:
    """Return the fingerprints of these threads, by thread id. Deleted threads are left out. This takes two queries."""
    newest = Delta.objects.filter(stream=OuterRef("pk")).order_by("-seq").values("seq")[:1]
    streams = Stream.objects.filter(thread_id__in=thread_ids, state=StreamState.STREAMING)
    rows = streams.annotate(newest=Subquery(newest)).values_list("thread_id", "pk", "newest")
    last = {thread_id: (str(pk), seq) for thread_id, pk, seq in rows if seq is not None}
    signs = {}
    for pk, rev in Thread.objects.filter(pk__in=thread_ids).values_list("pk", "rev"):
        stream, seq = last.get(pk, ("", -1))
        signs[pk] = Sign(rev=rev, stream=stream, seq=seq)
    return signs
