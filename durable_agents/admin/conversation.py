"""Hides how a thread is told on its page: its newest messages, every attempt at each answer, every tool call.

Five queries, however long it is; what is shown is bounded, and the lists have the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from durable_agents.admin.deciding import Decision, Question, arguments_to_change, decisions_of, question_of
from durable_agents.admin.display import brief, cut, joined, money, pretty, seconds, tokens
from durable_agents.models import OPEN_STREAM_STATES, Delta, Message, Stream, Thread, ToolCall
from durable_agents.parts import Part, attachment_id, fold

MAX_MESSAGES, MAX_ATTEMPTS = 100, 300
_MAX_VALUE_CHARS = 4_000


@dataclass(frozen=True, kw_only=True)
class ShownCall:
    """A tool call with what went in, on one line and in full, what came out, and what is to be decided of it."""

    row: ToolCall
    brief: str
    arguments: str
    approved_arguments: str
    result: str
    progress: str
    detail: str
    took: str
    question: Question | None
    decisions: Sequence[Decision]
    editable: str
    """The arguments as text to be changed; empty where they are too long for that."""

    @property
    def key(self) -> str:
        """What makes ids on the page unique."""
        return self.row.pk.hex

    @property
    def is_open(self) -> bool:
        """Whether it has no outcome yet, so that its time can be changed."""
        return self.row.finished_at is None


@dataclass(frozen=True, kw_only=True)
class ShownPart:
    """A piece of a message: ``kind`` is text, reasoning, tool, file or data; a tool has its call, the others a text. A
    file has the id of its attachment."""

    kind: str
    text: str = ""
    call: ShownCall | None = None
    attachment: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class ShownAttempt:
    """One stream: what became of it, and what it said so far or in the end."""

    row: Stream
    parts: Sequence[ShownPart]
    facts: str
    detail: str

    @property
    def is_open(self) -> bool:
        """Whether it is due or under way."""
        return self.row.state in OPEN_STREAM_STATES


@dataclass(frozen=True, kw_only=True)
class ShownMessage:
    """A message: a user's has parts, an assistant's has attempts."""

    row: Message
    parts: Sequence[ShownPart]
    attempts: Sequence[ShownAttempt]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """The newest messages of a thread, oldest first, and whether there are older messages or attempts."""

    messages: Sequence[ShownMessage]
    is_cut: bool

    @property
    def open_calls(self) -> list[ShownCall]:
        """The calls without an outcome, in order."""
        parts = (part for message in self.messages for attempt in message.attempts for part in attempt.parts)
        return [part.call for part in parts if part.call is not None and part.call.is_open]

    @property
    def waiting(self) -> list[ShownCall]:
        """Those of them that wait for a person."""
        return [call for call in self.open_calls if call.question is not None]


def conversation(thread: Thread) -> Conversation:
    """The thread as its page tells it."""
    newest = list(Message.objects.shown().filter(thread=thread).reverse()[: MAX_MESSAGES + 1])
    messages = newest[:MAX_MESSAGES][::-1]
    latest = list(Stream.objects.filter(message__in=messages).order_by("-number")[: MAX_ATTEMPTS + 1])
    streams = latest[:MAX_ATTEMPTS][::-1]
    attempts = _Attempts(streams)
    shown = [ShownMessage(row=row, parts=_parts(row.parts, {}), attempts=list(attempts.of(row.pk))) for row in messages]
    return Conversation(messages=shown, is_cut=len(newest) > MAX_MESSAGES or len(latest) > MAX_ATTEMPTS)


class _Attempts:
    """Streams with their calls and, where they are open, with the deltas stored so far."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams: Mapping[UUID, list[Stream]] = defaultdict(list)
        self._calls: Mapping[UUID, dict[str, ShownCall]] = defaultdict(dict)
        for stream in streams:
            self._streams[stream.answer_id].append(stream)
        calls = ToolCall.objects.filter(stream__in=streams).select_related("approval_decided_by")
        for call in calls.order_by("created_at", "rev"):
            self._calls[call.stream_id][call.tool_call_id] = shown_call(call)

    def of(self, message_id: UUID) -> Iterator[ShownAttempt]:
        """The attempts of one message, in order."""
        for stream in self._streams[message_id]:
            parts = stream.parts or (_so_far(stream) if stream.state in OPEN_STREAM_STATES else [])
            yield ShownAttempt(
                row=stream,
                parts=_parts(parts, self._calls[stream.pk]),
                facts=_facts(stream),
                detail=cut(stream.error_detail),
            )


def _so_far(stream: Stream) -> list[Part]:
    deltas = Delta.objects.after(stream.pk, -1).values_list("chunks", flat=True)
    return fold(chunk for chunks in deltas for chunk in chunks)


def _parts(parts: Iterable[Part], calls: Mapping[str, ShownCall]) -> list[ShownPart]:
    return [_part(part, calls.get(str(part.get("toolCallId")))) for part in parts if part.get("type") != "step-start"]


def _part(part: Part, call: ShownCall | None) -> ShownPart:
    if call is not None:
        return ShownPart(kind="tool", call=call)
    kind = part.get("type")
    if kind in {"text", "reasoning"}:
        return ShownPart(kind=kind, text=cut(str(part.get("text", ""))))
    if kind == "file" and (key := attachment_id(part)):
        return ShownPart(kind="file", text=joined(part.get("filename", ""), part.get("mediaType", "")), attachment=key)
    return ShownPart(kind="data", text=pretty(part, max_chars=_MAX_VALUE_CHARS))


def shown_call(row: ToolCall) -> ShownCall:
    """A call as pages show it."""

    def shown(value: object) -> str:
        return "" if value is None else pretty(value, max_chars=_MAX_VALUE_CHARS)

    return ShownCall(
        row=row,
        brief=brief(row.arguments),
        arguments=shown(row.arguments),
        approved_arguments=shown(row.approved_arguments),
        result=shown(row.result),
        progress=shown(row.progress),
        detail=cut(row.error_detail),
        took=seconds(row.created_at, row.finished_at),
        question=question_of(row),
        decisions=decisions_of(row),
        editable=arguments_to_change(row) if question_of(row) == Question.APPROVAL else "",
    )


def _facts(stream: Stream) -> str:
    used = tokens(stream)
    return joined(
        stream.model,
        stream.finish_reason,
        used and f"{used} tokens",
        money(stream.cost),
        seconds(stream.started_at, stream.finished_at),
    )
