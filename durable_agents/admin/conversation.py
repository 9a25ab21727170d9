"""Build the admin page of a thread: its newest messages, every attempt at each answer, and every tool call.

The page shows a limited number of messages and attempts. For a thread of any length, it makes five queries. The admin's
lists of messages and streams show all messages and attempts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.utils.translation import gettext

from durable_agents.actors import User
from durable_agents.admin.decisions import (
    Decision,
    Question,
    arguments_to_change,
    decisions_of,
    is_left_to_user,
    question_of,
)
from durable_agents.admin.formatting import brief, cut, joined, money, pretty, seconds, tokens
from durable_agents.models import OPEN_STREAM_STATES, Delta, Message, Stream, Thread, ToolCall
from durable_agents.parts import Part, attachment_id, fold
from durable_agents.tool_call_permissions import may_set_time, whom

MAX_MESSAGES, MAX_ATTEMPTS = 100, 300
_MAX_VALUE_CHARS = 4_000


@dataclass(frozen=True, kw_only=True)
class ShownCall:
    """A tool call as an admin page shows it. ``brief`` is the beginning of the call's arguments, on one line."""

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
    """The decisions that the user of the page is allowed to make about the call."""
    is_left_to_user: bool
    """Whether the options of the tool allow the user of the page to answer the call."""
    may_set_time: bool
    """Whether the options of the tool allow the user of the page to change the time limit."""
    left_to: str
    """A text that says who may answer the call."""
    editable: str
    """The arguments as text that can be edited, if the call waits for an approval. Otherwise, or if the arguments are
    too long for a form, it is empty.
    """

    @property
    def key(self) -> str:
        """A suffix that makes HTML ids unique on the page."""
        return self.row.pk.hex

    @property
    def is_open(self) -> bool:
        """Whether the call is unfinished. Only an unfinished call can get a new time limit."""
        return self.row.finished_at is None


@dataclass(frozen=True, kw_only=True)
class ShownPart:
    """A part of a message. ``kind`` is text, reasoning, tool, file or data. A tool part has ``call``, all other parts
    have ``text``, and a file part also has ``attachment``, the file's id.
    """

    kind: str
    text: str = ""
    call: ShownCall | None = None
    attachment: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class ShownAttempt:
    """One attempt at a model call (a stream), with its state and the content that has arrived so far."""

    row: Stream
    parts: Sequence[ShownPart]
    facts: str
    detail: str

    @property
    def is_open(self) -> bool:
        """Whether the attempt is in progress or waits to start."""
        return self.row.state in OPEN_STREAM_STATES


@dataclass(frozen=True, kw_only=True)
class ShownMessage:
    """A message. A user's message has parts; an assistant message has attempts."""

    row: Message
    parts: Sequence[ShownPart]
    attempts: Sequence[ShownAttempt]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """The newest messages of a thread, oldest first. ``is_cut`` says whether there are older messages or attempts."""

    messages: Sequence[ShownMessage]
    is_cut: bool

    @property
    def open_calls(self) -> list[ShownCall]:
        """The unfinished calls, in the order of the page."""
        parts = (part for message in self.messages for attempt in message.attempts for part in attempt.parts)
        return [part.call for part in parts if part.call is not None and part.call.is_open]

    @property
    def waiting(self) -> list[ShownCall]:
        """The calls that wait for a person."""
        return [call for call in self.open_calls if call.question is not None]


def conversation(thread: Thread, user: User) -> Conversation:
    """Return the thread as its page shows it to this user."""
    newest = list(Message.objects.shown().filter(thread=thread).reverse()[: MAX_MESSAGES + 1])
    messages = newest[:MAX_MESSAGES][::-1]
    latest = list(Stream.objects.filter(message__in=messages).order_by("-number")[: MAX_ATTEMPTS + 1])
    streams = latest[:MAX_ATTEMPTS][::-1]
    attempts = _Attempts(streams, user)
    shown = [
        ShownMessage(row=row, parts=list(_parts(row.parts, {})), attempts=list(attempts.of(row.pk))) for row in messages
    ]
    return Conversation(messages=shown, is_cut=len(newest) > MAX_MESSAGES or len(latest) > MAX_ATTEMPTS)


class _Attempts:
    """The attempts (streams) of some messages, with their tool calls. An unfinished attempt includes the content that
    has arrived so far.
    """

    def __init__(self, streams: Sequence[Stream], user: User) -> None:
        self._streams: Mapping[UUID, list[Stream]] = defaultdict(list)
        self._calls: Mapping[UUID, dict[str, ShownCall]] = defaultdict(dict)
        for stream in streams:
            self._streams[stream.answer_id].append(stream)
        # ``with_asker`` loads the user who caused each call, because the right to decide about a call can depend on
        # that user.
        calls = ToolCall.objects.filter(stream__in=streams).select_related("thread", "approval_decided_by").with_asker()
        for call in calls.order_by("created_at", "rev"):
            self._calls[call.stream_id][call.tool_call_id] = shown_call(call, user)

    def of(self, message_id: UUID) -> Iterator[ShownAttempt]:
        """Yield the attempts of one message, oldest first."""
        for stream in self._streams[message_id]:
            parts = stream.parts
            if not parts and stream.state in OPEN_STREAM_STATES:
                deltas = Delta.objects.after(stream.pk, -1).values_list("chunks", flat=True)
                parts = fold(chunk for chunks in deltas for chunk in chunks)
            used = tokens(stream)
            facts = joined(
                stream.model,
                stream.finish_reason,
                used and gettext("%(used)s tokens") % {"used": used},
                money(stream.cost),
                seconds(stream.started_at, stream.finished_at),
            )
            yield ShownAttempt(
                row=stream,
                parts=list(_parts(parts, self._calls[stream.pk])),
                facts=facts,
                detail=cut(stream.error_detail),
            )


def _parts(parts: Iterable[Part], calls: Mapping[str, ShownCall]) -> Iterator[ShownPart]:
    for part in parts:
        kind, call = part.get("type"), calls.get(str(part.get("toolCallId")))
        if kind == "step-start":
            continue
        if call is not None:
            yield ShownPart(kind="tool", call=call)
        elif kind in {"text", "reasoning"}:
            yield ShownPart(kind=kind, text=cut(str(part.get("text", ""))))
        elif kind == "file" and (key := attachment_id(part)):
            text = joined(part.get("filename", ""), part.get("mediaType", ""))
            yield ShownPart(kind="file", text=text, attachment=key)
        else:
            yield ShownPart(kind="data", text=pretty(part, max_chars=_MAX_VALUE_CHARS))


def shown_call(row: ToolCall, user: User) -> ShownCall:
    """Return a call as pages show it to this user."""

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
        decisions=decisions_of(row, user),
        is_left_to_user=is_left_to_user(row, user),
        may_set_time=may_set_time(user, row),
        left_to=whom(row.approved_by if question_of(row) == Question.APPROVAL else row.answered_by, gettext),
        editable=arguments_to_change(row) if question_of(row) == Question.APPROVAL else "",
    )
