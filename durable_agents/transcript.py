"""Build messages from database rows, for clients and for the model. A run only adds rows and never rewrites a stored
message.

An assistant message consists of the parts of its closed streams, in order. The outcomes of its tool calls come from
the rows of the tool calls.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import Q, Value
from django.db.models.functions import Least

from durable_agents.actors import Person, ShowPerson, person_of
from durable_agents.conf import config
from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.llm import MANY_MESSAGES, Step, Turn
from durable_agents.logs import log
from durable_agents.models import (
    OPEN_STREAM_STATES,
    Attachment,
    Delta,
    Message,
    MessageQuerySet,
    Role,
    Stream,
    Thread,
    ToolCall,
)
from durable_agents.parts import CallOutcome, Part, assemble, attachment_id, fold
from durable_agents.stored_sizes import StoredBytes
from durable_agents.utc_times import to_iso

UIMessage = dict[str, Any]


def ui_messages(
    messages: MessageQuerySet | Sequence[Message],
    *,
    upto_rev: int | None = None,
    streams: Collection[UUID] | None = None,
    using: str | None = None,
    show_person: ShowPerson | None = person_of,
) -> list[UIMessage]:
    """Return the messages as clients see them. With ``upto_rev``, only steps up to this revision are included. With
    ``streams``, only the steps of these streams are included.

    ``show_person`` returns what clients see of a sender. With None, clients see no senders. ``using`` is a database
    alias. With None, the project's database router chooses the database. There are at most three queries, however many
    messages there are.
    """
    rows = list(messages.select_related("sender") if isinstance(messages, MessageQuerySet) else messages)
    answers = [row.pk for row in rows if row.role == Role.ASSISTANT]
    steps = _StepsOf(answers, upto_rev=upto_rev, streams=streams, using=using)
    return [
        ui_message(row, steps.parts(row.pk) if row.role == Role.ASSISTANT else row.parts, show_person=show_person)
        for row in rows
    ]


def ui_message(row: Message, parts: Sequence[Part], *, show_person: ShowPerson | None) -> UIMessage:
    """Return a message with these parts in the form that clients get. ``show_person`` returns what clients see of the
    sender. With None, clients do not see the sender.
    """
    message = {
        "id": row.shown_id,
        "client_id": row.client_id,
        "role": row.role,
        "parts": list(parts),
        "metadata": row.metadata,
        "position": row.position,
        "created_at": to_iso(row.created_at),
    }
    return with_sender(message, None if show_person is None or row.sender is None else show_person(row.sender))


def with_sender(message: UIMessage, sender: Person | None) -> UIMessage:
    """Return a copy of the message with this sender. None means that no sender is shown."""
    # Ignore a sender that is stored in the metadata: clients write the metadata, so it could be false.
    metadata = {name: value for name, value in message["metadata"].items() if name != "sender"}
    return message | {"metadata": metadata if sender is None else metadata | {"sender": sender}, "sender": sender}


def step_parts(stream: Stream, calls: Iterable[ToolCall]) -> list[Part]:
    """Return the parts of one closed stream as clients see them."""
    return assemble(stream.parts, {call.tool_call_id: call.outcome() for call in calls})


def stream_open_at(thread: Thread) -> Stream | None:
    """Return the stream that was open when ``thread`` was loaded, or None. The stream might be closed by now."""
    if not thread.last_number:
        return None
    streams = Stream.objects.using(thread._state.db).filter(thread_id=thread.pk, number=thread.last_number)
    last = streams.select_related("message").defer("message__parts", "message__text", "message__metadata").first()
    if last is None or (last.state not in OPEN_STREAM_STATES and last.rev <= thread.rev):
        return None
    return last


def partial_answer(stream: Stream) -> tuple[list[Part], int]:
    """Return the parts that an open stream has written so far, and the ``seq`` of the stream's last delta. If the
    stream has no deltas, ``seq`` is -1.
    """
    deltas = list(Delta.objects.after(stream.pk, -1).values_list("seq", "chunks"))
    return fold(chunk for _, chunks in deltas for chunk in chunks), deltas[-1][0] if deltas else -1


def add_parts(messages: Sequence[UIMessage], message_id: str, parts: Sequence[Part]) -> None:
    """Append parts to the message with this id, if ``messages`` contains it."""
    for message in messages:
        if message["id"] == message_id:
            message["parts"] = [*message["parts"], *parts]


def turns(thread_id: UUID, *, upto: int | None = None, using: str | None = None) -> list[Turn]:
    """Return a thread's history for the model, up to position ``upto``. Superseded and queued messages are left out.

    If ``upto`` is at most ``MANY_MESSAGES``, there are at most three queries. For longer histories, see ``histories``.
    """
    return histories({thread_id: upto}, using=using)[thread_id]


def histories(upto: Mapping[UUID, int | None], *, using: str | None = None) -> dict[UUID, list[Turn]]:
    """Return the histories of several threads.

    ``upto`` maps each thread to the position of the last message to include, or to None for the whole history. All
    threads together need at most three queries, except for long histories.

    A history is long if its last position is above ``MANY_MESSAGES``. It needs queries of its own, and is limited to
    ``MAX_HISTORY_BYTES``. A note replaces the oldest messages if they do not fit.
    """
    ends = {thread_id: inf if end is None else end for thread_id, end in upto.items()}
    short = [thread_id for thread_id, end in upto.items() if end is None or end <= MANY_MESSAGES]
    shown = Message.objects.using(using).shown().filter(thread_id__in=short, position__isnull=False)
    rows = [row for row in shown if (row.position or 0) <= ends[row.thread_id]] if short else []
    found: dict[UUID, list[Turn]] = {
        thread_id: [] if end is None or thread_id in short else _long_history(thread_id, end, using=using)
        for thread_id, end in upto.items()
    }
    for row, turn in zip(rows, _turns_of(rows, using=using), strict=True):
        found[row.thread_id].append(turn)
    return found


def _turns_of(rows: Sequence[Message], *, using: str | None) -> list[Turn]:
    steps = _StepsOf((row.pk for row in rows if row.role == Role.ASSISTANT), using=using)
    return [
        Turn(role=row.role, steps=steps.of(row.pk))
        if row.role == Role.ASSISTANT
        else Turn(role=row.role, parts=row.parts)
        for row in rows
    ]


def _long_history(thread_id: UUID, end: int, *, using: str | None) -> list[Turn]:
    """Return the newest messages that fit into ``MAX_HISTORY_BYTES``. If older ones are left out, a note comes first.

    The messages are read in batches, because other OS threads of this process could not run during one large query.
    """
    messages = Message.objects.using(using).shown().filter(thread_id=thread_id, position__lte=end)
    start, left_out = _newest_that_fit(messages, end, using=using)
    read: list[Turn] = []
    if left_out:
        log(logging.WARNING, "messages were left out", action="history_cut", thread=thread_id, left_out=left_out)
        text = f"[{left_out} earlier messages are left out here, because the conversation is too long.]"
        read.append(Turn(role=Role.USER, parts=[{"type": "text", "text": text}]))
    for first in range(start, end + 1, MANY_MESSAGES):
        portion = messages.filter(position__gte=first, position__lt=first + MANY_MESSAGES)
        read += _turns_of(list(portion.only("role", "parts")), using=using)
    return read


def _newest_that_fit(messages: MessageQuerySet, end: int, *, using: str | None) -> tuple[int, int]:
    """Find the newest messages that together fit into ``MAX_HISTORY_BYTES``. The last message is always included.

    Return the position of the first included message, and the number of messages before it.
    """
    room, first = config().max_history_bytes, end
    for last in range(end, -1, -MANY_MESSAGES):
        portion = messages.filter(position__gt=last - MANY_MESSAGES, position__lte=last)
        for position, size in sorted(_sizes(portion, using=using).items(), reverse=True):
            room -= size
            if room < 0 and position < end:
                return first, messages.filter(position__lt=first).count()
            first = position
    return first, 0


def _sizes(messages: MessageQuerySet, *, using: str | None) -> Mapping[int, int]:
    """Return approximately how many bytes the model gets for each message. The keys are the messages' positions."""
    keys, sizes = messages.order_by().values("pk"), defaultdict[int, int](int)
    streams = Stream.objects.using(using).in_transcript().filter(message__in=keys).order_by()
    calls = ToolCall.objects.using(using).filter(message__in=keys).order_by()
    result_size = Least(StoredBytes("result"), Value(config().max_tool_result_bytes))
    for position, size in (
        *messages.values_list("position", StoredBytes("parts")),
        *streams.values_list("message__position", StoredBytes("parts")),
        *calls.values_list("message__position", StoredBytes("arguments") + result_size),
    ):
        sizes[position or 0] += size
    return sizes


def attachments_of(histories: Mapping[UUID, Sequence[Turn]], *, using: str | None = None) -> dict[UUID, Attachment]:
    """Return the attachments to which the messages of these threads refer, by id. There is at most one query."""
    named = {
        key for turns in histories.values() for turn in turns for part in turn.parts if (key := attachment_id(part))
    }
    rows = Attachment.objects.using(using).filter(pk__in=named, thread_id__in=histories)
    return {row.pk: row for row in rows} if named else {}


class _StepsOf:
    """The closed streams of some assistant messages, and the outcomes of their tool calls."""

    def __init__(
        self,
        message_ids: Iterable[UUID],
        *,
        upto_rev: int | None = None,
        streams: Collection[UUID] | None = None,
        using: str | None = None,
    ) -> None:
        ids = list(message_ids)
        upto = Q() if upto_rev is None else Q(rev__lte=upto_rev)
        self._streams: Mapping[UUID, list[Stream]] = defaultdict(list)
        self._outcomes: Mapping[UUID, dict[str, CallOutcome]] = defaultdict(dict)
        if not ids:
            return
        steps = Stream.objects.using(using).in_transcript().filter(upto, message_id__in=ids)
        calls = ToolCall.objects.using(using).filter(message_id__in=ids)
        if streams is not None:
            steps, calls = steps.filter(pk__in=streams), calls.filter(stream_id__in=streams)
        for stream in steps.only("message_id", "number", "parts", "model"):
            self._streams[stream.answer_id].append(stream)
        for call in calls.defer("error_detail").order_by("thread_id", "rev"):
            self._outcomes[call.stream_id][call.tool_call_id] = call.outcome()

    def parts(self, message_id: UUID) -> list[Part]:
        """Return all parts of the message, in order."""
        return [part for row in self._streams[message_id] for part in assemble(row.parts, self._outcomes[row.pk])]

    def of(self, message_id: UUID) -> list[Step]:
        """Return the steps of the message as the model gets them."""
        return [step_of(row, self._outcomes[row.pk]) for row in self._streams[message_id]]


def step_of(stream: Stream, outcomes: Mapping[str, CallOutcome]) -> Step:
    """Return a closed stream as the model gets it. The outcomes are in the order of the tool calls."""
    ids = [part.get("toolCallId") for part in stream.parts]
    calls = [outcomes[call_id] for call_id in ids if call_id in outcomes]
    return Step(parts=stream.parts, calls=calls, model=stream.model)


def get_thread(thread: Thread | UUID | str) -> Thread:
    """Load the current row of a thread. ``thread`` is an id, or an instance that may be outdated. Raises
    ThreadNotFoundError.
    """
    thread_id = thread.pk if isinstance(thread, Thread) else thread
    try:
        return Thread.objects.get(pk=thread_id)
    except (Thread.DoesNotExist, ValidationError) as error:
        raise ThreadNotFoundError(thread_id) from error
