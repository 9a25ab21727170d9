"""The arrows that rewrite what was said: edit, regenerate and fork, all at rest. Nothing is lost by them: messages that
are replaced stay in the database, superseded, and a fork is a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from durable_agents.conf import config
from durable_agents.exceptions import (
    AgentNotFoundError,
    InvalidPartsError,
    MessageNotFoundError,
    ThreadBusyError,
)
from durable_agents.lifecycle.advance import SUPERSEDED, begin_run, decide
from durable_agents.lifecycle.attachments import Sender, copied_parts, copy_attachments, with_files
from durable_agents.lifecycle.locking import Locked, arrow, database, hold_thread, id_of, log_arrow
from durable_agents.lifecycle.moves import next_position, put_message, settle
from durable_agents.models import Message, MessageQuerySet, Role, Stream, Thread, ToolCall, ToolCallStatus, Usage
from durable_agents.parts import LATE_RESULT, Part, user_parts
from durable_agents.strictjson import clean

_BATCH = 500
_FORKED = "The conversation was continued elsewhere before the tool call had a result."


@with_files
@arrow
def edit_message(
    thread: Thread | UUID | str,
    message_id: UUID | str,
    parts: list[Part] | str | None = None,
    *,
    prompt: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    sender: Sender | None = None,
) -> Message:
    """Say a user's message anew and have it answered: what was said after it is superseded. It is given as ``parts``,
    or as a text, there or as ``prompt``.

    ``message_id`` is the id that clients see; the new message is shown under the same one. Queued messages stay
    queued, and open calls of what is superseded are cancelled. Without ``metadata`` the old message's is kept. Files
    are as in ``send_message``. Returns the new message.

    Raises ThreadNotFoundError, MessageNotFoundError, ThreadBusyError while a run is on, InvalidPartsError for a message
    that is no user's and for bad parts, TooLargeError and AgentNotFoundError.
    """
    if isinstance(parts, str):
        prompt, parts = parts, None
    checked = user_parts(prompt, parts, max_text_chars=config().max_text_chars)
    with hold_thread(id_of(thread)) as locked:
        old = _at_rest(locked, message_id, is_queued_too=True)
        if old.role != Role.USER:
            raise InvalidPartsError("Only messages of the user can be edited. Regenerate an answer instead.")
        itself = Message.objects.using(database()).filter(pk=old.pk)
        _supersede(locked, itself if old.position is None else _said(locked).filter(position__gte=old.position))
        message = put_message(
            locked,
            Role.USER,
            checked,
            client_id=old.shown_id,
            metadata=old.metadata if metadata is None else clean(dict(metadata)),
            parent=old.parent,
            sender=sender,
        )
        _answer_anew(locked)
    log_arrow("edit_message", thread=locked.thread.pk, message_id=message.pk)
    return message


@arrow
def regenerate(thread: Thread | UUID | str, message_id: UUID | str | None = None) -> Message:
    """Have a question answered once more: the answer to it, and what was said after that, is superseded, and its open
    calls are cancelled.

    ``message_id`` names the answer, or the question itself; without one it is the last. Returns the new answer, an
    assistant message that has no parts yet.

    Raises ThreadNotFoundError, MessageNotFoundError (also where nobody has asked anything, and for a queued message),
    ThreadBusyError while a run is on, and AgentNotFoundError.
    """
    with hold_thread(id_of(thread)) as locked:
        named = _at_rest(locked, message_id)
        asked = _last_question(locked, upto=named)
        if asked is None:
            raise MessageNotFoundError(message_id or "that asks something")
        _supersede(locked, _said(locked).filter(position__gt=asked.position))
        _answer_anew(locked)
        answer = _said(locked).filter(role=Role.ASSISTANT).latest("position")
    log_arrow("regenerate", thread=locked.thread.pk, message_id=answer.pk)
    return answer


@arrow
def fork_thread(
    thread: Thread | UUID | str,
    at: UUID | str | None = None,
    owner: Any = None,
    *,
    scope: str | None = None,
    context: Mapping[str, Any] | None = None,
) -> Thread:
    """A new thread that begins with what was said in this one, up to the message ``at`` (its shown id), that one
    included; without it all but queued messages. From then on neither knows of the other, but for ``forked_from``.

    It is the other one's owner's, unless ``owner`` says whose, in the same scope and with the same context. With
    ``scope`` it is in that one, and of exactly this owner, None being nobody; with ``context`` it has that one. What
    the copied answers have cost is not counted again, and calls that are open are cancelled in the fork. At rest;
    nothing starts by itself. Returns the new thread.

    Raises ThreadNotFoundError, MessageNotFoundError, also for a queued message, and ThreadBusyError while a run is on.
    """
    with hold_thread(id_of(thread)) as locked:
        source = locked.thread
        last = _at_rest(locked, at) if at is not None or _said(locked).exists() else None
        fork = Thread(
            agent=source.agent,
            owner=source.owner if owner is None and scope is None else owner,
            scope=source.scope if scope is None else scope,
            title=source.title,
            metadata=source.metadata,
            context=source.context if context is None else clean(dict(context)),
            forked_from=source,
        )
        if at is None:
            fork.status, fork.error_code, fork.error_message = source.status, source.error_code, source.error_message
        fork.save(using=database(), force_insert=True)
        if last is not None:
            _copy_history(locked, _said(locked).filter(position__lte=last.position), into=fork)
        fork.save(using=database(), update_fields=["rev", "last_position", "last_number"])
    log_arrow("fork_thread", thread=fork.pk)
    return fork


def _at_rest(locked: Locked, message_id: UUID | str | None, *, is_queued_too: bool = False) -> Message:
    """The shown message of this id, or the last one, of a thread in which nothing is going on; one that is queued has
    no place in the history yet."""
    if locked.thread.is_running:
        raise ThreadBusyError(locked.thread.pk)
    said = _said(locked).order_by("-position")
    shown = Message.objects.using(database()).shown().filter(thread=locked.thread) if is_queued_too else said
    found = said.first() if message_id is None else shown.find(str(message_id))
    if found is None:
        raise MessageNotFoundError(message_id or "yet")
    return found


def _said(locked: Locked) -> MessageQuerySet:
    """What counts of the thread's history: neither superseded nor queued."""
    return Message.objects.using(database()).filter(
        thread=locked.thread, superseded_at__isnull=True, position__isnull=False
    )


def _last_question(locked: Locked, *, upto: Message) -> Message | None:
    earlier = _said(locked).filter(position__lte=upto.position).order_by("-position")
    return next((message for message in earlier.iterator(chunk_size=_BATCH) if message.asks), None)


def _supersede(locked: Locked, messages: MessageQuerySet) -> None:
    """All at one rev: clients are told of them together. Nobody waits for the results of their calls any more; what
    they told the model of earlier calls is told with these."""
    late = messages.filter(role=Role.SYSTEM, text="").values_list("parts", flat=True)
    told = [part["data"]["toolCallId"] for parts in late for part in parts if part["type"] == LATE_RESULT]
    if told:
        known = ToolCall.objects.using(database()).filter(thread=locked.thread, tool_call_id__in=told)
        known.update(passed_at=None)
    calls = ToolCall.objects.using(database()).open().filter(thread=locked.thread, message__in=messages.values("pk"))
    for call in calls.select_for_update(no_key=True).order_by("pk"):
        settle(locked, call, ToolCallStatus.CANCELLED, code="superseded", error=SUPERSEDED)
    messages.order_by().update(superseded_at=locked.now, rev=locked.thread.next_rev())


def _answer_anew(locked: Locked) -> None:
    if locked.agent is None:
        raise AgentNotFoundError(locked.thread.agent)
    begin_run(locked)
    decide(locked)


# ----------------------------------------------------------------------------------------------------------- copying


def _copy_history(locked: Locked, messages: MessageQuerySet, *, into: Thread) -> None:
    """Copies of these messages, of the steps of their answers and of their calls. Calls keep their ids, and messages
    those that clients gave them; any other message is shown under a new one. The steps have cost nothing. An open call
    is answered where it was made: its copy is cancelled. Attachments are copied as rows; the stored files are the
    same."""
    said = messages.order_by("position")
    attachments = copy_attachments((row.parts for row in said), source=locked.thread, into=into)
    copies: dict[Any, Any] = dict(attachments)
    answers = Stream.objects.using(database()).in_transcript().filter(message__in=messages.values("pk"))
    calls = ToolCall.objects.using(database()).filter(stream__in=answers.values("pk")).order_by("rev")
    free = {field.name: field.get_default() for field in Usage._meta.fields}
    _copy(said, copies, thread=into)
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
        if call.finished_at is None:
            _cancel_copy(call, at=locked.now)
    _copy(calls, copies, thread=into, passed_at=None)


def _cancel_copy(call: ToolCall, *, at: datetime) -> None:
    """Only as it is read here: the row stays open."""
    call.status, call.error_code, call.error, call.finished_at = ToolCallStatus.CANCELLED, "forked", _FORKED, at
    call.lease_owner, call.lease_expires_at, call.expires_at = "", None, None


def _copy(rows: Any, copies: dict[Any, Any], *, thread: Thread, **changes: Any) -> None:
    """Insert these rows once more, for another thread, with their references among each other and new counters."""
    made = [_copied(row, copies, thread=thread, **changes) for row in rows]
    rows.model._default_manager.using(database()).bulk_create(made, batch_size=_BATCH)


def _copied(row: Any, copies: dict[Any, Any], **changes: Any) -> Any:
    thread: Thread = changes["thread"]
    values = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    copy = type(row)(**values)
    for name, value in changes.items():
        setattr(copy, name, value)
    for name in ("message_id", "stream_id", "parent_id"):
        if name in values:
            setattr(copy, name, copies.get(values[name]))
    copy.pk, copy.rev = uuid4(), thread.next_rev()
    if isinstance(copy, Message):
        copy.position = next_position(thread)
        copy.parts = copied_parts(copy.parts, copies)
    elif isinstance(copy, Stream):
        thread.last_number += 1
        copy.number = thread.last_number
    copies[row.pk] = copy.pk
    return copy
