"""Hides how a message is assembled from rows: nothing is rewritten as a run grows.

An assistant message is the parts of its closed streams, in order, with the outcomes of its tool-call rows filled in.
Two readers want it in two shapes: clients (UI messages) and the model (turns).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import Q

from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.llm import Step, Turn
from durable_agents.models import Attachment, Message, MessageQuerySet, Role, Stream, Thread, ToolCall
from durable_agents.parts import CallOutcome, Part, assemble, attachment_id

UIMessage = dict[str, Any]


def ui_messages(
    messages: MessageQuerySet | Sequence[Message], *, upto_rev: int | None = None, using: str | None = None
) -> list[UIMessage]:
    """The messages as clients see them, with the steps committed up to ``upto_rev``, by the database of this alias,
    else where the project reads. Three queries, however many."""
    rows = list(messages)
    steps = _StepsOf((row.pk for row in rows if row.role == Role.ASSISTANT), upto_rev=upto_rev, using=using)
    return [ui_message(row, steps.parts(row.pk) if row.role == Role.ASSISTANT else row.parts) for row in rows]


def ui_message(row: Message, parts: Sequence[Part]) -> UIMessage:
    """One message as clients see it, with these parts."""
    return {
        "id": row.shown_id,
        "client_id": row.client_id,
        "role": row.role,
        "parts": list(parts),
        "metadata": row.metadata,
        "position": row.position,
        "created_at": row.created_at.isoformat(),
    }


def step_parts(stream: Stream, calls: Iterable[ToolCall]) -> list[Part]:
    """The parts of one closed stream as clients see them."""
    return assemble(stream.parts, {call.tool_call_id: call.outcome() for call in calls})


def turns(thread_id: UUID, *, upto: int | None = None, using: str | None = None) -> list[Turn]:
    """The history for the model: every shown message with a position, at most ``upto``, in order. Three queries."""
    return histories({thread_id: upto}, using=using)[thread_id]


def histories(upto: Mapping[UUID, int | None], *, using: str | None = None) -> dict[UUID, list[Turn]]:
    """The histories of several threads, each up to a position or whole. Three queries, however many."""
    shown = Message.objects.using(using).shown().filter(thread_id__in=upto, position__isnull=False)
    rows = [row for row in shown if _is_within(row, upto[row.thread_id])]
    steps = _StepsOf((row.pk for row in rows if row.role == Role.ASSISTANT), using=using)
    found: dict[UUID, list[Turn]] = {thread_id: [] for thread_id in upto}
    for row in rows:
        found[row.thread_id].append(_turn(row, steps))
    return found


def attachments_of(histories: Mapping[UUID, Sequence[Turn]], *, using: str | None = None) -> dict[UUID, Attachment]:
    """The attachments that the messages of these threads carry, by id. One query at most, however many."""
    named = {
        key for turns in histories.values() for turn in turns for part in turn.parts if (key := attachment_id(part))
    }
    rows = Attachment.objects.using(using).filter(pk__in=named, thread_id__in=histories)
    return {row.pk: row for row in rows} if named else {}


def _is_within(row: Message, upto: int | None) -> bool:
    return upto is None or (row.position or 0) <= upto


def _turn(row: Message, steps: _StepsOf) -> Turn:
    if row.role == Role.ASSISTANT:
        return Turn(role=row.role, steps=steps.of(row.pk))
    return Turn(role=row.role, parts=row.parts)


class _StepsOf:
    """The closed streams and the call outcomes of some assistant messages."""

    def __init__(self, message_ids: Iterable[UUID], *, upto_rev: int | None = None, using: str | None = None) -> None:
        ids = list(message_ids)
        upto = Q() if upto_rev is None else Q(rev__lte=upto_rev)
        self._streams: Mapping[UUID, list[Stream]] = defaultdict(list)
        self._outcomes: Mapping[UUID, dict[str, CallOutcome]] = defaultdict(dict)
        if not ids:
            return
        steps = Stream.objects.using(using).in_transcript().filter(upto, message_id__in=ids)
        for stream in steps.only("message_id", "number", "parts", "model"):
            self._streams[stream.answer_id].append(stream)
        for call in ToolCall.objects.using(using).filter(message_id__in=ids).order_by("thread_id", "rev"):
            self._outcomes[call.stream_id][call.tool_call_id] = call.outcome()

    def parts(self, message_id: UUID) -> list[Part]:
        """All parts of the message, step after step."""
        return [part for row in self._streams[message_id] for part in assemble(row.parts, self._outcomes[row.pk])]

    def of(self, message_id: UUID) -> list[Step]:
        """The steps of the message as the model is told of them."""
        return [Step(parts=row.parts, calls=self._calls(row), model=row.model) for row in self._streams[message_id]]

    def _calls(self, row: Stream) -> list[CallOutcome]:
        outcomes = self._outcomes[row.pk]
        ids = (part.get("toolCallId") for part in row.parts)
        return [outcomes[call_id] for call_id in ids if call_id in outcomes]


def get_thread(thread_id: UUID | str) -> Thread:
    """The thread of this id. Raises ThreadNotFoundError."""
    try:
        return Thread.objects.get(pk=thread_id)
    except (Thread.DoesNotExist, ValidationError) as error:
        raise ThreadNotFoundError(thread_id) from error
