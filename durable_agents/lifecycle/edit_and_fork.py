"""Transitions that change or copy the history of a thread that is not running: edit, regenerate and fork.

No text is lost. Replaced messages stay in the database, marked as superseded, and a fork is a separate thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from uuid import UUID, uuid4

from django.db.models import QuerySet
from django.utils.functional import Promise

from durable_agents.actors import Actor, User
from durable_agents.conf import config
from durable_agents.exceptions import (
    AgentRemovedError,
    InvalidPartsError,
    MessageNotFoundError,
    ThreadBusyError,
)
from durable_agents.lifecycle.advance import SUPERSEDED, begin_run, decide
from durable_agents.lifecycle.attachments import (
    NO_FILES,
    NewFiles,
    Sender,
    copied_parts,
    copy_attachments,
    store_files,
)
from durable_agents.lifecycle.audit import record
from durable_agents.lifecycle.rows import next_position, put_message, settle
from durable_agents.lifecycle.transaction import Locked, database, hold_thread, id_of, log_transition, transition
from durable_agents.metadata_and_context import json_object
from durable_agents.models import (
    Message,
    MessageQuerySet,
    Role,
    Stream,
    Thread,
    ToolCall,
    ToolCallStatus,
    Usage,
    next_state,
)
from durable_agents.parts import LATE_RESULT, Part, user_parts

Row = TypeVar("Row", Message, Stream, ToolCall)
_BATCH = 500
_FORKED = "The conversation was continued elsewhere before the tool call had a result."


def edit_message(
    thread: Thread | UUID | str,
    message_id: UUID | str,
    parts: list[Part] | str | None = None,
    *,
    prompt: str | None = None,
    metadata: Mapping[str, object] | None = None,
    sender: Sender | None = None,
    by: Actor | User | None = None,
) -> Message:
    """Replace a user's message, hide all later messages, and start a run that answers the new message. Return the new
    message.

    The new content is a list of parts or a text (``prompt``). ``message_id`` is the id that clients see; the new
    message keeps it. Hidden messages stay in the database as superseded, and their open tool calls are cancelled.
    Queued messages stay queued. If ``metadata`` is None, the old metadata is kept. Files are handled as in
    ``send_message``. ``by`` is the user who edits. If given, the new message's field
    ``sender`` stores this user.

    Raises ThreadNotFoundError, MessageNotFoundError, TooLargeError and AgentRemovedError. Raises ThreadBusyError
    during a run. Raises InvalidPartsError for bad parts, and for a message that no user sent.
    """
    return edit_message_with_files(
        thread, message_id, parts, prompt=prompt, metadata=metadata, sender=sender, new_files=NO_FILES, by=by
    )


def edit_message_with_files(
    thread: Thread | UUID | str,
    message_id: UUID | str,
    parts: list[Part] | str | None,
    *,
    prompt: str | None = None,
    metadata: Mapping[str, object] | None = None,
    sender: Sender | None = None,
    new_files: NewFiles,
    by: Actor | User | None = None,
) -> Message:
    """Edit a message like ``edit_message``, with files that are already stored.

    A caller with its own transaction calls ``store_files`` before the transaction begins, and passes the result as
    ``new_files``.
    """
    if isinstance(parts, str | Promise):
        prompt, parts = parts, None
    with store_files(parts) as ([parts_with_urls], stored):
        return _edit_message(
            id_of(thread),
            message_id,
            prompt=prompt,
            parts=parts_with_urls,
            metadata=metadata,
            sender=sender,
            new_files={**new_files, **stored},
            by=by,
        )


@transition
def _edit_message(
    thread_id: UUID,
    message_id: UUID | str,
    *,
    prompt: str | None,
    parts: list[Part] | None,
    metadata: Mapping[str, object] | None,
    sender: Sender | None,
    new_files: NewFiles,
    by: Actor | User | None,
) -> Message:
    checked = user_parts(prompt, parts, max_text_chars=config().max_text_chars)
    with hold_thread(thread_id) as locked:
        old = _at_rest(locked, message_id, is_queued_too=True)
        if old.role != Role.USER:
            raise InvalidPartsError("Only messages of the user can be edited. Regenerate an answer instead.")
        itself = Message.objects.using(database()).filter(pk=old.pk)
        _supersede(locked, itself if old.position is None else _current(locked).filter(position__gte=old.position))
        message = put_message(
            locked,
            Role.USER,
            checked,
            client_id=old.shown_id,
            metadata=old.metadata if metadata is None else json_object("metadata", metadata),
            parent=old.parent,
            sender=sender,
            new_files=new_files,
            by=Actor(user=old.sender) if by is None else Actor.of(by),
        )
        _answer_anew(locked)
        record("edit_message", locked.thread.pk, by, subject=message.shown_id, arguments=message.parts)
    log_transition("edit_message", thread=locked.thread.pk, message_id=message.pk)
    return message


@transition
def regenerate(
    thread: Thread | UUID | str, message_id: UUID | str | None = None, *, by: Actor | User | None = None
) -> Message:
    """Answer a question again, and return the new answer: an assistant message without parts so far.

    ``message_id`` is the id of the question or of its answer; the default is the last question. The old answer and all
    later messages are marked as superseded. Their open tool calls are cancelled.

    Raises ThreadNotFoundError and AgentRemovedError. Raises ThreadBusyError during a run. Raises MessageNotFoundError
    if there is no such message or question, or if the message is queued.
    """
    with hold_thread(id_of(thread)) as locked:
        upto = _at_rest(locked, message_id)
        earlier = _current(locked).filter(position__lte=upto.position).order_by("-position")
        question = next((message for message in earlier.iterator(chunk_size=_BATCH) if message.asks), None)
        if question is None:
            raise MessageNotFoundError(message_id or "that asks something")
        _supersede(locked, _current(locked).filter(position__gt=question.position))
        _answer_anew(locked)
        answer = _current(locked).filter(role=Role.ASSISTANT).latest("position")
        record("regenerate", locked.thread.pk, by, subject=question.shown_id)
    log_transition("regenerate", thread=locked.thread.pk, message_id=answer.pk)
    return answer


@transition
def fork_thread(
    thread: Thread | UUID | str,
    at: UUID | str | None = None,
    owner: User | None = None,
    *,
    scope: str | None = None,
    context: Mapping[str, object] | None = None,
    by: Actor | User | None = None,
) -> Thread:
    """Copy a thread's history into a new thread, and return the new thread. No run starts.

    The copy ends with the message ``at`` (the id that clients see). By default, all messages except queued ones are
    copied. The original thread must not be running. Later changes in one thread do not affect the other.

    By default, the fork has the owner, scope and context of the original. The arguments ``owner``, ``scope`` and
    ``context`` replace these values. If ``scope`` is passed and ``owner`` is None, the fork has no owner. The cost of
    the copied answers is not counted again. Copies of open tool calls are cancelled.

    Raises ThreadNotFoundError. Raises MessageNotFoundError, also for a queued message. Raises ThreadBusyError during a
    run.
    """
    with hold_thread(id_of(thread)) as locked:
        source = locked.thread
        last = _at_rest(locked, at) if at is not None or _current(locked).exists() else None
        fork = Thread(
            agent=source.agent,
            agent_is_public=locked.agent.public if locked.agent else source.agent_is_public,
            owner=source.owner if owner is None and scope is None else owner,
            scope=source.scope if scope is None else scope,
            title=source.title,
            metadata=source.metadata,
            context=source.context if context is None else json_object("context", context),
            forked_from=source,
        )
        if at is None:
            fork.status, fork.error_code, fork.error_message = source.status, source.error_code, source.error_message
        fork.save(using=database(), force_insert=True)
        if last is not None:
            _copy_history(locked, _current(locked).filter(position__lte=last.position), into=fork)
        fork.save(using=database(), update_fields=["rev", "last_position", "last_number"])
        record("fork_thread", source.pk, by, subject=str(fork.pk))
        record("create_thread", fork.pk, by, subject=str(source.pk))
    log_transition("fork_thread", thread=fork.pk)
    return fork


def _at_rest(locked: Locked, message_id: UUID | str | None, *, is_queued_too: bool = False) -> Message:
    """Return the message that clients see under this id, or the last message if the id is None.

    Queued messages are searched only with ``is_queued_too``. Raises ThreadBusyError during a run. Raises
    MessageNotFoundError if there is no such message.
    """
    if locked.thread.is_running:
        raise ThreadBusyError(locked.thread.pk)
    current = _current(locked).order_by("-position")
    shown = Message.objects.using(database()).shown().filter(thread=locked.thread) if is_queued_too else current
    message = current.first() if message_id is None else shown.find(str(message_id))
    if message is None:
        raise MessageNotFoundError(message_id or "yet")
    return message


def _current(locked: Locked) -> MessageQuerySet:
    """Return the thread's messages without superseded and queued ones."""
    return Message.objects.using(database()).filter(thread=locked.thread).in_history()


def _supersede(locked: Locked, messages: MessageQuerySet) -> None:
    """Mark these messages as superseded, and cancel their open tool calls.

    All messages get the same revision, so that clients see all of them change at the same time. If a message contains a
    late result (a result that the run did not wait for), the history shows the result in the tool call instead.
    """
    late = messages.late_results().values_list("parts", flat=True)
    late_ids = [part["data"]["toolCallId"] for parts in late for part in parts if part["type"] == LATE_RESULT]
    if late_ids:
        passed_over = ToolCall.objects.using(database()).filter(thread=locked.thread, tool_call_id__in=late_ids)
        passed_over.update(passed_at=None)
    calls = ToolCall.objects.using(database()).open().filter(thread=locked.thread, message__in=messages.values("pk"))
    for call in calls.select_for_update(no_key=True).order_by("pk"):
        settle(locked, call, ToolCallStatus.CANCELLED, code="superseded", error=SUPERSEDED)
    messages.order_by().update(superseded_at=locked.now, rev=locked.thread.next_rev())


def _answer_anew(locked: Locked) -> None:
    if locked.agent is None:
        raise AgentRemovedError(locked.thread.agent)
    begin_run(locked)
    decide(locked)


def _copy_history(locked: Locked, messages: MessageQuerySet, *, into: Thread) -> None:
    """Copy these messages with their steps, tool calls and attachment rows into another thread.

    Messages keep ids that a client chose. A message without such an id is shown under a new id. Tool calls keep their
    ids. An open tool call stays open in its own thread, and its copy is cancelled. The copied steps have no cost.
    Attachments share the stored file with the original.
    """
    ordered = messages.order_by("position")
    copies = copy_attachments((row.parts for row in ordered), source=locked.thread, into=into)
    answers = Stream.objects.using(database()).in_transcript().filter(message__in=messages.values("pk"))
    calls = ToolCall.objects.using(database()).filter(stream__in=answers.values("pk")).order_by("rev")
    free = {field.name: field.get_default() for field in Usage._meta.fields}
    _copy(ordered, copies, thread=into)
    _copy(
        answers.order_by("number"),
        copies,
        thread=into,
        owner=into.owner,
        scope=into.scope,
        goes_on=False,
        started_at=None,
        **free,
    )
    for call in calls:
        # This changes only the copy in memory. The original call stays open.
        if call.finished_at is None:
            call.status = next_state(call.status, ToolCallStatus.CANCELLED)
            call.error_code, call.error, call.finished_at = "forked", _FORKED, locked.now
            call.end_lease()
            call.expires_at = None
    _copy(calls, copies, thread=into, passed_at=None)


def _copy(rows: QuerySet[Row], copies: dict[UUID, UUID], *, thread: Thread, **changes: object) -> None:
    """Insert copies of these rows into another thread, with the given field ``changes``.

    ``copies`` maps original ids to ids of copies. It is used to set foreign keys, and the new copies are added to it.
    The copies get the next revisions, positions and numbers of the other thread.
    """
    made: list[Row] = []
    for row in rows:
        copy = type(row)(**{field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields})
        for name, value in {"thread": thread, **changes}.items():
            setattr(copy, name, value)
        for name in ("message_id", "stream_id", "parent_id"):
            if hasattr(row, name):
                setattr(copy, name, copies.get(getattr(row, name)))
        copy.pk, copy.rev = uuid4(), thread.next_rev()
        if isinstance(copy, Message):
            copy.position = next_position(thread)
            copy.parts = copied_parts(copy.parts, copies)
        elif isinstance(copy, Stream):
            thread.last_number += 1
            copy.number = thread.last_number
        copies[row.pk] = copy.pk
        made.append(copy)
    rows.model._default_manager.using(database()).bulk_create(made, batch_size=_BATCH)
