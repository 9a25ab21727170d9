"""List the messages of a thread, including the answer that is being written.

The list shows the thread at one revision number (``rev``). A step that is committed between two queries still counts as
unfinished. Otherwise, parts could be missing or appear twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import BigIntegerField, F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce

from durable_agents import models
from durable_agents.actors import Person
from durable_agents.agents import Agent, registry
from durable_agents.models import (
    MessageQuerySet,
    Role,
    Stream,
    Thread,
    ThreadQuerySet,
    ThreadStatus,
)
from durable_agents.parts import Part, text_of
from durable_agents.transcript import UIMessage, add_parts, get_thread, partial_answer, stream_open_at, ui_messages
from durable_agents.utc_times import as_expected

_AFTER_ALL_POSITIONS = 2**62


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as clients see it."""

    id: str
    """The id that the client chose for the message or, if there is none, the id of the row."""
    client_id: str | None
    role: str
    parts: list[Part]
    """UI message parts of the AI SDK."""
    metadata: dict[str, Any]
    """The metadata that the client sent with the message, and the ``sender``."""
    sender: Person | None
    """The ``id`` and ``name`` of the user who sent the message."""
    position: int | None
    """The number that orders the messages of the thread. It is None while the message is queued."""
    created_at: datetime

    @property
    def text(self) -> str:
        """The plain text of the text parts, with a blank line between them."""
        return text_of(self.parts)


@dataclass(frozen=True, kw_only=True)
class OpenStream:
    """The attempt at a model call that is in progress. The attempt's message includes the content so far."""

    id: str
    number: int
    seq: int
    """The number of the last delta that the message includes, or -1 if it includes none."""
    message: str
    """The id of the message that the attempt writes."""


class MessagesWithStream(NamedTuple):
    """The messages of a thread and the attempt in progress. The messages include what the attempt has written so far.
    ``stream`` is None if no attempt is in progress.
    """

    messages: list[Message]
    stream: OpenStream | None


def list_threads(
    *, owner: object = None, scope: str | None = None, agent: str | Agent | None = None, status: str | None = None
) -> ThreadQuerySet:
    """Return the threads that match all arguments, most recently changed first. An argument that is None is ignored.
    Archived threads are included. An agent's threads include those that were created under its aliases.

    The result is a queryset: filter it further, slice it, or iterate over it (with ``async for`` in a coroutine).
    ``owner`` is a user or a user's primary key. Raises ValueError for a status that does not exist.
    """
    names = agent.names if isinstance(agent, Agent) else None if agent is None else registry.names_of(agent)
    filters = {"owner": owner, "scope": scope, "agent__in": names, "status": status and ThreadStatus(status)}
    return Thread.objects.filter(**{field: value for field, value in filters.items() if value is not None})


def list_messages(
    thread: Thread | UUID | str, *, after: int | None = None, limit: int | None = None, include_system: bool = False
) -> list[Message]:
    """Return the messages of a thread as clients see them, oldest first, queued messages last.

    ``after`` is a position: only later messages are returned. ``limit`` is the maximum number of messages. Messages of
    the role system are included only with ``include_system``. Answers without parts are left out, and so are messages
    that an edit or a regeneration replaced.

    The function makes four queries, however many messages there are. Raises ThreadNotFoundError.
    """
    listed = listed_messages(get_thread(thread), include_system=include_system)
    return _values(ui_messages(after_position(listed, after)[:limit]))


def list_messages_with_streams(thread: Thread | UUID | str, *, from_number: int = 0) -> MessagesWithStream:
    """Return all messages of a thread and the attempt in progress. The messages include what the attempt has written so
    far.

    Attempts with a number lower than ``from_number`` are ignored. The function makes six queries, however many messages
    and deltas there are. Raises ThreadNotFoundError.
    """
    row = get_thread(thread)
    stream = open_answer(row, from_number=from_number)
    listed = listed_messages(row, answer_id=stream.message_id if stream else None)
    messages, entry = fold_in(stream, ui_messages(listed, upto_rev=row.rev))
    return MessagesWithStream(_values(messages), entry)


def _values(messages: Iterable[UIMessage]) -> list[Message]:
    return [Message(**it | {"created_at": as_expected(datetime.fromisoformat(it["created_at"]))}) for it in messages]


def listed_messages(thread: Thread, *, answer_id: UUID | None = None, include_system: bool = False) -> MessageQuerySet:
    """Return the messages that clients see in a thread, by position, with queued messages last. Each message is
    annotated with ``turn``, a number to sort by.

    Answers without parts are left out, except the answer ``answer_id``, which is being written.
    """
    # Do not use Exists() here: PostgreSQL would first collect the steps of all threads.
    steps = Stream.objects.in_transcript().filter(message=OuterRef("pk")).order_by().values("pk")
    has_parts = ~Q(role=Role.ASSISTANT) | Q(step__isnull=False) | Q(pk=answer_id)
    queued = Value(_AFTER_ALL_POSITIONS) + F("rev")
    turn = Coalesce(F("position"), queued, output_field=BigIntegerField())
    rows = models.Message.objects.shown().alias(step=Subquery(steps[:1])).filter(has_parts, thread=thread)
    return (rows if include_system else rows.for_clients()).annotate(turn=turn)


def after_position(messages: MessageQuerySet, position: int | None) -> MessageQuerySet:
    """Return the messages after a position, or all messages if the position is None. Queued messages, which have no
    position yet, are included.
    """
    if position is None:
        return messages
    return messages.filter(Q(position__gt=position) | Q(position__isnull=True))


def open_answer(thread: Thread, *, from_number: int) -> Stream | None:
    """Return the attempt that was in progress at the thread's ``rev``, or None. Attempts with a number lower than
    ``from_number`` are ignored.
    """
    stream = stream_open_at(thread)
    return stream if stream is not None and stream.number >= from_number else None


def fold_in(stream: Stream | None, messages: Sequence[UIMessage]) -> tuple[list[UIMessage], OpenStream | None]:
    """Add what the attempt ``stream`` has written so far to its message.

    Return the messages and a description of the attempt. Answers without parts are left out.
    """
    if stream is None:
        return _with_parts(messages), None
    parts, seq = partial_answer(stream)
    add_parts(messages, stream.answer.shown_id, parts)
    entry = OpenStream(id=str(stream.pk), number=stream.number, seq=seq, message=stream.answer.shown_id)
    return _with_parts(messages), entry


def _with_parts(messages: Sequence[UIMessage]) -> list[UIMessage]:
    return [message for message in messages if message["parts"] or message["role"] != Role.ASSISTANT]
