"""Hides how one answer is told to a client of the AI SDK: from its start, or from where the client stands, until the
client has to act, the answer is closed, or the run is over.

What is told is what every major of the SDK from 6 on understands; ``reset-step``, by which an attempt is taken back,
and how a person decided about a call, only where the client says that it knows 7. Format: AI SDK, "UI message stream",
``uiMessageChunkSchema``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Sum

from durable_agents.agents import registry
from durable_agents.lifecycle import database
from durable_agents.models import Message, Role, Stream, Thread, ThreadStatus, ToolCall
from durable_agents.parts import Chunk, Part
from durable_agents.reading.chunks import Place
from durable_agents.reading.following import (
    FINISH_REASONS,
    Follower,
    Phase,
    Position,
    beginning_of,
    last_chunk,
    row_of,
)

_WHOLE_STEP = Place(2**31, 0)
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
    """What a client shows of an answer that it wants to go on with, by its own account."""

    steps: int = 0
    calls: Mapping[str, Part] = field(default_factory=dict)
    """Its tool parts, by the id of their calls."""


def waits_for_others(thread: Thread) -> bool:
    """Whether the run, as the thread was when it was read, waits for people, browsers or services only."""
    if thread.status != ThreadStatus.AWAITING_TOOL_RESULTS:
        return False
    calls = list(ToolCall.objects.using(database()).open().filter(thread=thread))
    if not calls or any(call.waits_for_worker for call in calls):
        return False
    return Thread.objects.using(database()).filter(pk=thread.pk, rev=thread.rev).exists()


class AnswerTeller:
    """Tells one answer: the one of this id, or the first one after a user's message. Synchronous: call it where the
    ORM may be called."""

    def __init__(
        self,
        thread_id: UUID,
        *,
        answer: Message | None = None,
        question: Message | None = None,
        seen: Seen | None = None,
        knows_7: bool = False,
    ) -> None:
        self.thread_id = thread_id
        self.is_over = False
        """Nothing more is told."""
        self.is_cut = False
        """It is over because an attempt was taken back that the client cannot take back: it has to begin anew."""
        self._answer = answer
        self._question = question
        self._seen = seen or Seen()
        self._knows_7 = knows_7
        self._follower: Follower | None = None
        self._is_in_step = False
        self._has_parts = False
        """Whether the step that is told has any part yet."""
        self._open: dict[str, str] = {}
        """Texts and reasonings that have begun, by their id."""
        self._is_mute = False

    def look(self) -> list[Chunk]:
        """What was not told yet. Raises ThreadNotFoundError."""
        if self._follower is not None and self._answer is not None:
            return list(self._news(self._follower, self._answer))
        thread = row_of(self.thread_id)
        position = self._find()
        if position is None or self._answer is None:
            return list(self._without_answer(thread))
        self._follower = Follower(self.thread_id, position, knows_7=self._knows_7)
        return [_start(thread, self._answer), *self._news(self._follower, self._answer)]

    def _find(self) -> Position | None:
        """Where the answer goes on for this client; None while there is none."""
        if self._answer is None and self._question is not None:
            self._answer = first_answer_to(self._question)
        if self._answer is None:
            return None
        return _position_after(self._answer, self._seen.steps) or beginning_of(self._answer.pk)

    def _without_answer(self, thread: Thread) -> Iterator[Chunk]:
        """There is no answer: it is waited for, unless the thread is at rest or the run waits, too."""
        if not thread.is_running:
            yield from self._end(thread, last_chunk(thread))
        elif waits_for_others(thread):
            yield from self._end(thread, {"type": "finish", "finishReason": "tool-calls"})

    def _news(self, follower: Follower, answer: Message) -> Iterator[Chunk]:
        for _, chunk in follower.look():
            yield from self._told(follower.seen_thread, answer, chunk)
            if self.is_over:
                return
        if waits_for_others(follower.seen_thread):
            yield from self._end(follower.seen_thread, {"type": "finish", "finishReason": "tool-calls"})

    def _told(self, thread: Thread, answer: Message, chunk: Chunk) -> Iterator[Chunk]:
        kind = chunk["type"]
        if kind in _ENDS:
            yield from self._end(thread, chunk)
        elif kind == "start":
            if chunk["messageId"] != answer.shown_id:
                yield from self._end(thread, _end_of(thread, answer))
        elif kind == "reset-step":
            yield from self._reset(thread)
        elif not self._is_mute:
            yield from self._passed_on(chunk)

    def _reset(self, thread: Thread) -> Iterator[Chunk]:
        if not self._has_parts:
            return
        if self._knows_7:
            self._open.clear()
            self._has_parts = False
            yield {"type": "reset-step"}
        elif thread.is_running:
            self.is_over = self.is_cut = True
        else:  # nothing else comes in its place: what the client shows is closed as it is
            self._is_mute = True

    def _passed_on(self, chunk: Chunk) -> Iterator[Chunk]:
        kind = chunk["type"]
        if kind == "start-step":
            if self._is_in_step:  # one that was reset: the client still stands in it
                return
            self._is_in_step, self._has_parts = True, False
        elif kind == "finish-step":
            self._is_in_step = False
        elif kind in _STATES:
            if self._is_shown(chunk):
                return
        else:
            self._has_parts = True
            self._note(chunk)
        yield chunk

    def _note(self, chunk: Chunk) -> None:
        """Which texts are open."""
        kind, _, phase = chunk["type"].rpartition("-")
        if phase == "start" and "id" in chunk:
            self._open[chunk["id"]] = kind
        elif phase == "end":
            self._open.pop(chunk["id"], None)

    def _is_shown(self, chunk: Chunk) -> bool:
        """Whether the client shows already what the chunk says of a call."""
        part = self._seen.calls.get(chunk.get("toolCallId") or chunk["approvalId"], {})
        approval = part.get("approval")
        if chunk["type"] == "tool-approval-response":
            return isinstance(approval, dict) and approval.get("approved") == chunk["approved"]
        if chunk["type"] == "tool-approval-request":
            return isinstance(approval, dict)
        if part.get("state") != _STATES[chunk["type"]]:
            return False
        is_same = part.get("output") == chunk.get("output")
        return is_same and bool(part.get("preliminary")) == bool(chunk.get("preliminary"))

    def _end(self, thread: Thread, chunk: Chunk) -> Iterator[Chunk]:
        self.is_over = True
        for part_id, kind in self._open.items():
            yield {"type": f"{kind}-end", "id": part_id}
        if self._is_in_step:
            yield {"type": "finish-step"}
        if chunk["type"] != "finish":
            yield chunk
            return
        facts = {"threadId": str(thread.pk), "status": str(thread.status)}
        yield chunk | {"messageMetadata": facts | (_spent(self._answer) if self._answer else {})}


def _start(thread: Thread, answer: Message) -> Chunk:
    facts = {"threadId": str(thread.pk), "createdAt": answer.created_at.isoformat(), "status": str(thread.status)}
    return {"type": "start", "messageId": answer.shown_id, "messageMetadata": facts}


def first_answer_to(question: Message) -> Message | None:
    """The first answer after a user's message that still stands; None while it is queued or none has begun."""
    position = Message.objects.using(database()).filter(pk=question.pk).values_list("position", flat=True).first()
    if position is None:
        return None
    answers = Message.objects.using(database()).filter(role=Role.ASSISTANT, superseded_at=None)
    later = answers.filter(thread_id=question.thread_id, position__gt=position)
    return later.order_by("position").first()


def _position_after(answer: Message, steps: int) -> Position | None:
    """Right after so many steps of an answer; None for none."""
    told = list(_steps_of(answer).order_by("number")[:steps])
    if not told:
        return None
    last = told[-1]
    return Position(
        rev=last.rev, phase=Phase.BETWEEN_STEPS, number=last.number, place=_WHOLE_STEP, message_id=answer.pk
    )


def _steps_of(answer: Message) -> Any:
    return Stream.objects.using(database()).in_transcript().filter(message=answer)


def _end_of(thread: Thread, answer: Message) -> Chunk:
    """How an answer ended that another one has followed: one that a message has steered has no end of its own."""
    reasons = Stream.objects.using(database()).filter(message=answer).order_by("-number")
    reason = reasons.values_list("finish_reason", flat=True).first()
    if reason == "stopped":
        return {"type": "abort"}
    agent = registry.find(thread.agent)
    is_whole = reason in FINISH_REASONS and agent is not None and agent.when_busy == "queue"
    return {"type": "finish", "finishReason": reason if is_whole else "tool-calls"}


def _spent(answer: Message) -> dict[str, Any]:
    """What metadata says of the attempts at an answer: the model of the last one, and what they used together."""
    attempts = Stream.objects.using(database()).filter(message=answer)
    names = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "cost")
    used = attempts.aggregate(**{name: Sum(name) for name in names})
    counted = {_camel(name): used[name] or 0 for name in names[:-1]}
    counted["totalTokens"] = counted["inputTokens"] + counted["outputTokens"]
    if used["cost"] is not None:
        counted["cost"] = format(used["cost"], "f")
    model = attempts.exclude(model="").order_by("-number").values_list("model", flat=True).first()
    return ({"model": model} if model else {}) | {"usage": counted}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def steps_in(parts: Iterable[Part]) -> int:
    """How many steps a client's message shows."""
    return sum(1 for part in parts if part.get("type") == "step-start")
