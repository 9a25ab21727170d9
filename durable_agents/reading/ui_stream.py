"""Stream one answer to an AI SDK client. The stream begins at the start of the answer, or after the steps that the
client already shows. It ends when the client has to act, the answer is complete, or the run is over.

All clients get the chunks that version 6 of the SDK understands. Clients of version 7 also get these chunks:

- ``reset-step`` removes the content of an attempt.
- ``steering-message`` contains a message that the run took in.
- ``tool-approval-response`` contains a person's decision about a tool call.

The format is ``uiMessageChunkSchema`` under "UI message stream" in the AI SDK.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from durable_agents.agents import registry
from durable_agents.lifecycle import database
from durable_agents.models import Message, Role, Stream, Thread, ThreadStatus, ToolCall
from durable_agents.parts import Chunk, Part
from durable_agents.reading.follow_run import (
    FINISH_REASONS,
    Follower,
    beginning_of,
    last_chunk,
    position_after,
    row_of,
)
from durable_agents.reading.personal_view import PersonalView, waiting_calls
from durable_agents.reading.usage import usage_metadata
from durable_agents.utc_times import to_iso

_ENDS = frozenset({"finish", "abort", "error"})
_STATES = {
    "tool-output-available": "output-available",
    "tool-output-error": "output-error",
    "tool-output-denied": "output-denied",
    "tool-approval-request": "approval-requested",
    "tool-approval-response": "approval-responded",
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How much of an answer a client already shows, according to its request."""

    steps: int = 0
    calls: Mapping[str, Part] = field(default_factory=dict)
    """The tool parts that the client shows, by tool call id."""

    def shows(self, chunk: Chunk) -> bool:
        """Return whether the client already shows the tool call in the state that this chunk reports."""
        part = self.calls.get(chunk.get("toolCallId") or chunk["approvalId"], {})
        approval = part.get("approval")
        if chunk["type"] == "tool-approval-response":
            return isinstance(approval, dict) and approval.get("approved") == chunk["approved"]
        if chunk["type"] == "tool-approval-request":
            return isinstance(approval, dict)
        if part.get("state") != _STATES[chunk["type"]]:
            return False
        is_same = part.get("output") == chunk.get("output")
        return is_same and bool(part.get("preliminary")) == bool(chunk.get("preliminary"))


def waits_for_others(thread: Thread) -> bool:
    """Return whether the run waits only for people, browsers or services, and not for a worker.

    The result is False if the thread has changed since ``thread`` was loaded.
    """
    if thread.status != ThreadStatus.AWAITING_TOOL_RESULTS:
        return False
    calls = list(ToolCall.objects.using(database()).open().filter(thread=thread))
    if not calls or any(call.waits_for_worker for call in calls):
        return False
    return Thread.objects.using(database()).filter(pk=thread.pk, rev=thread.rev).exists()


class AnswerStream:
    """A stream that sends one answer to an AI SDK client.

    Without ``answer``, the stream sends the first answer to the user's message ``question``. The methods use the ORM
    and are synchronous.
    """

    def __init__(
        self,
        thread_id: UUID,
        *,
        answer: Message | None = None,
        question: Message | None = None,
        seen: Seen | None = None,
        knows_7: bool = False,
        wait_seconds: float = 0,
        view: PersonalView | None = None,
    ) -> None:
        """Prepare the stream.

        If the run waits for people, browsers or services, the stream stays open for at most ``wait_seconds`` after its
        creation. With ``view``, the message metadata say which tool calls the caller may approve or reject.
        """
        self.thread_id = thread_id
        self.is_over = False
        """Whether the stream has ended."""
        self.is_cut = False
        """Whether the stream ended because the client cannot remove the content of a discarded attempt. In that case,
        the client has to request the answer again.
        """
        self._answer = answer
        self._question = question
        self._seen = seen or Seen()
        self._knows_7 = knows_7
        self._view = view
        self._waits_until = time.monotonic() + wait_seconds
        self._follower: Follower | None = None
        self._is_in_step = False
        self._has_parts = False
        """Whether the current step has any part yet."""
        self._open: dict[str, str] = {}
        """The kind (text or reasoning) of each part that has begun but not ended, by the part's id."""
        self._drops_rest = False

    def read(self) -> list[Chunk]:
        """Return the new chunks. Raises ThreadNotFoundError."""
        if self._follower is not None and self._answer is not None:
            return list(self._news(self._follower, self._answer))
        # Read the thread first. If the answer were read first, a run that begins and ends between the two queries would
        # seem to have no answer.
        thread = row_of(self.thread_id)
        if self._answer is None and self._question is not None:
            self._answer = first_answer_to(self._question)
        position = None
        if self._answer is not None:
            position = position_after(self._answer, steps=self._seen.steps) or beginning_of(self._answer.pk)
        if position is None or self._answer is None:
            if not thread.is_running:
                return list(self._end(thread, last_chunk(thread)))
            return list(self._end_of_wait(thread))
        self._follower = Follower(self.thread_id, position, knows_7=self._knows_7)
        metadata = {
            "threadId": str(thread.pk),
            "createdAt": to_iso(self._answer.created_at),
            "status": str(thread.status),
        }
        start = {"type": "start", "messageId": self._answer.shown_id, "messageMetadata": metadata}
        return [start, *self._news(self._follower, self._answer)]

    def _news(self, follower: Follower, answer: Message) -> Iterator[Chunk]:
        for _, chunk in follower.read():
            yield from self._convert(follower.thread, answer, chunk)
            if self.is_over:
                return
        yield from self._end_of_wait(follower.thread)

    def _end_of_wait(self, thread: Thread) -> Iterator[Chunk]:
        """End the stream if the run waits for people, browsers or services, and the stream's waiting time is over."""
        if time.monotonic() >= self._waits_until and waits_for_others(thread):
            yield from self._end(thread, {"type": "finish", "finishReason": "tool-calls"})

    def _convert(self, thread: Thread, answer: Message, chunk: Chunk) -> Iterator[Chunk]:
        kind = chunk["type"]
        if kind in _ENDS:
            yield from self._end(thread, chunk)
        elif kind == "start":
            if chunk["messageId"] != answer.shown_id:
                yield from self._end(thread, *_end_of(thread, answer, knows_7=self._knows_7))
        elif kind != "reset-step":
            if not self._drops_rest:
                yield from self._pass_on(thread, chunk)
        elif self._has_parts and self._knows_7:
            self._open.clear()
            self._has_parts = False
            yield chunk
        elif self._has_parts and thread.is_running:
            # End the stream early. A client of version 6 cannot remove content, so it must request the answer again.
            self.is_over = self.is_cut = True
        elif self._has_parts:
            # No other attempt follows. The client keeps the content that it has, and gets nothing more.
            self._drops_rest = True

    def _pass_on(self, thread: Thread, chunk: Chunk) -> Iterator[Chunk]:
        kind = chunk["type"]
        if kind == "start-step":
            # After ``reset-step``, the client is still in the step. It must not get ``start-step`` again.
            if self._is_in_step:
                return
            self._is_in_step, self._has_parts = True, False
        elif kind == "finish-step":
            self._is_in_step = False
        elif kind in _STATES:
            if self._seen.shows(chunk):
                return
            if kind == "tool-approval-request" and self._view is not None:
                # ``canDecide`` is message metadata, because some versions of the AI SDK refuse additional keys in a
                # ``tool-approval-request``.
                for call in waiting_calls(thread, [chunk["toolCallId"]]):
                    metadata = {"canDecide": {call.tool_call_id: self._view.can_decide(call)}}
                    yield {"type": "message-metadata", "messageMetadata": metadata}
        else:
            self._has_parts = True
            # The AI SDK expects an end chunk for each text that has begun, even if the text is incomplete.
            part, _, phase = kind.rpartition("-")
            if phase == "start" and "id" in chunk:
                self._open[chunk["id"]] = part
            elif phase == "end":
                self._open.pop(chunk["id"], None)
        yield chunk

    def _end(self, thread: Thread, *last_chunks: Chunk) -> Iterator[Chunk]:
        self.is_over = True
        *others, chunk = last_chunks
        for part_id, kind in self._open.items():
            yield {"type": f"{kind}-end", "id": part_id}
        if self._is_in_step:
            yield {"type": "finish-step"}
        yield from others
        if chunk["type"] != "finish":
            yield chunk
            return
        metadata = {"threadId": str(thread.pk), "status": str(thread.status)}
        yield chunk | {"messageMetadata": metadata | (usage_metadata(self._answer) if self._answer else {})}


def first_answer_to(question: Message) -> Message | None:
    """Return the first answer after a user's message, or None. Superseded answers are left out. A queued message has no
    answer.
    """
    position = Message.objects.using(database()).filter(pk=question.pk).values_list("position", flat=True).first()
    if position is None:
        return None
    answers = Message.objects.using(database()).filter(role=Role.ASSISTANT, superseded_at=None)
    later = answers.filter(thread_id=question.thread_id, position__gt=position)
    return later.order_by("position").first()


def _end_of(thread: Thread, answer: Message, *, knows_7: bool) -> list[Chunk]:
    """Return the last chunks of an answer that is followed by another answer.

    If the user sends messages while an answer is written, the run can take them in and continue in the next answer. In
    this case, the chunks depend on the client:

    - Clients of version 7 get the user's messages and the finish reason ``interrupted``. They do not send another
      request automatically.
    - Clients of version 6 get only the finish reason ``tool-calls``.
    """
    last = Stream.objects.using(database()).filter(message=answer).order_by("-number").first()
    reason = last.finish_reason if last else None
    if reason == "stopped":
        return [{"type": "abort"}]
    agent = registry.find(thread.agent)
    is_complete = reason in FINISH_REASONS - {"tool-calls"}
    # A queued message waits until the run is complete, so it does not interrupt the answer.
    is_queued = is_complete and agent is not None and agent.when_busy == "queue"
    following = [] if is_queued or last is None else _messages_after(answer)
    steering = [row for row in following if not is_complete or row.rev < last.rev] if last else []
    if is_complete and not steering:
        return [{"type": "finish", "finishReason": reason}]
    if not knows_7:
        return [{"type": "finish", "finishReason": "tool-calls"}]
    taken_in = [{"type": "steering-message", "id": row.shown_id, "parts": row.parts} for row in steering]
    return [*taken_in, {"type": "finish", "finishReason": "interrupted"}]


def _messages_after(answer: Message) -> list[Message]:
    """Return the user's messages between an answer and the next answer."""
    later = Message.objects.using(database()).shown().filter(thread_id=answer.thread_id, position__gt=answer.position)
    next_answer = later.filter(role=Role.ASSISTANT).order_by("position").values_list("position", flat=True).first()
    until = {} if next_answer is None else {"position__lt": next_answer}
    return list(later.filter(role=Role.USER, **until).order_by("position"))


def steps_in(parts: Iterable[Part]) -> int:
    """Return the number of steps in a message from a client."""
    return sum(1 for part in parts if part.get("type") == "step-start")
