"""Transitions that add messages to a thread without starting a run, and that delete threads with all their data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast
from uuid import UUID

from django.db.models import Q
from django.utils.functional import Promise

from durable_agents.actors import Actor, User, scope_digest, user_digest
from durable_agents.exceptions import InvalidPartsError, ThreadBusyError
from durable_agents.lifecycle.attachments import NewFiles, store_files
from durable_agents.lifecycle.audit import forget, record
from durable_agents.lifecycle.rows import add_finished_stream, put_message
from durable_agents.lifecycle.transaction import (
    Locked,
    database,
    hold_thread,
    id_of,
    log_transition,
    only_row,
    transact,
    transition,
)
from durable_agents.models import Attachment, Command, Message, Role, Stream, Thread, ToolCall
from durable_agents.notifications import notify_clients
from durable_agents.parts import Part, user_parts

_NO_LIMIT = 10**9


def add_message(
    thread: Thread | UUID | str, role: str, parts: list[Part] | str, *, by: Actor | User | None = None
) -> Message:
    """Add a message to a thread without starting a run, and return the message.

    ``role`` is ``user``, ``system`` or ``assistant``. ``parts`` is a list of parts or a text; system and assistant
    messages may contain only text. A user's message is answered when another message or ``resume_thread`` starts a run.

    Raises ThreadNotFoundError, InvalidPartsError and TooLargeError. Raises ThreadBusyError during a run.
    """
    with store_files(parts) as ([parts_with_urls], new_files):
        return _add_message(id_of(thread), role, parts_with_urls, new_files, by=by)


@transition
def _add_message(
    thread_id: UUID, role: str, parts: list[Part] | str, new_files: NewFiles, *, by: Actor | User | None
) -> Message:
    with hold_thread(thread_id) as locked:
        if locked.thread.is_running:
            raise ThreadBusyError(locked.thread.pk)
        message = write_message(locked, role, parts, new_files=new_files, by=by)
        record("add_message", message.thread_id, by, subject=message.shown_id, arguments=message.parts)
    log_transition("add_message", thread=message.thread_id, message_id=message.pk)
    return message


def write_message(
    locked: Locked, role: str, parts: list[Part] | str | Promise, *, new_files: NewFiles, by: Actor | User | None = None
) -> Message:
    """Store a message and send its signal. The caller holds the thread's lock."""
    if role not in Role.values:
        raise InvalidPartsError(f"A message has no role {role!r}; roles: {', '.join(Role.values)}.")
    if isinstance(parts, str | Promise):  # the text may be a lazy translation
        checked = user_parts(cast(str, parts), None, max_text_chars=_NO_LIMIT)
    else:
        checked = user_parts(None, parts, max_text_chars=_NO_LIMIT)
    if role != Role.USER and any(part["type"] != "text" for part in checked):
        raise InvalidPartsError(f"A message of the {role} is text.")
    if role != Role.ASSISTANT:
        return put_message(locked, Role(role), checked, new_files=new_files, by=Actor.of(by))
    message = put_message(locked, Role.ASSISTANT, [])
    add_finished_stream(locked, message, [{"type": "step-start"}, *({**part, "state": "done"} for part in checked)])
    return message


def content_of(message: Mapping[str, object]) -> object:
    """Return the ``parts`` of an imported message, or its text (``content``) if it has no parts."""
    return message.get("parts", message.get("content"))


def write_history(
    locked: Locked, messages: Iterable[Mapping[str, object]], contents: Iterable[object], *, new_files: NewFiles
) -> None:
    """Store imported messages in a thread.

    ``contents`` has the content of each message, as ``content_of`` returns it. Embedded files are already stored and
    replaced by their URLs.
    """
    for message, content in zip(messages, contents, strict=True):
        if not isinstance(content, list | str | Promise):
            raise InvalidPartsError("A message has a role and either parts (a list) or content (a text).")
        write_message(locked, str(message.get("role")), content, new_files=new_files)


@transition
def remove_thread(thread_id: UUID, *, by: Actor | User | None = None) -> bool:
    """Delete a thread with all its data, and notify browsers. Return whether the thread existed."""
    using = database()
    with transact():
        row = only_row(Thread.objects.using(using).filter(pk=thread_id))
        if row is None:
            return False
        row.deleted_by = by
        row.delete(using=using)
        notify_clients(thread_id, using=using)
    log_transition("delete_thread", thread=thread_id)
    return True


def erase(*, owner: User | None = None, scope: str | None = None, by: Actor | User | None = None) -> int:
    """Delete all data of an owner, of a scope, or of an owner within a scope: threads, usage, audit entries and unsent
    files. Return the number of threads deleted.

    ``by`` is the user who erases. The audit log records this user, but not what was erased. Threads are deleted one by
    one. If an error stops the deletion, call ``erase`` again to delete the rest.

    Raises ValueError if neither owner nor scope is given, because that would erase everything.
    """
    if owner is None and not scope:
        raise ValueError("erase() needs an owner, a scope or both.")
    whose = (Q() if owner is None else Q(owner=owner)) & (Q() if scope is None else Q(scope=scope))
    # Read all ids first. SQLite cannot delete rows while a query still reads them.
    threads = list(Thread.objects.using(database()).filter(whose).order_by("pk").values_list("pk", flat=True))
    erased = sum(map(remove_thread, threads))
    _remove_rest(whose, owner=owner, scope=scope, threads=threads, by=by)
    log_transition("erase", threads=erased)
    return erased


@transition
def _remove_rest(
    whose: Q, *, owner: User | None, scope: str | None, threads: list[UUID], by: Actor | User | None
) -> None:
    """Delete the rows of an erased owner or scope that belong to no thread. Also remove the owner or scope from the
    audit log.
    """
    with transact():
        Stream.objects.using(database()).filter(whose, thread=None).delete()
        Attachment.objects.using(database()).unsent().filter(whose).delete()
        forget(owner=owner, scope=scope, threads=threads)
        if owner is None:
            _forget_commands(scope_digest(scope))
        elif scope is None:
            # Keep what the user did in other people's threads, but remove the user from those rows.
            Message.objects.using(database()).filter(sender=owner).update(sender=None)
            calls = ToolCall.objects.using(database())
            calls.filter(approval_decided_by=owner).update(approval_decided_by=None)
            calls.filter(answered_by_user=owner).update(answered_by_user=None)
            _forget_commands(user_digest(getattr(owner, "pk", owner)))
        record("erase", None, by)


def _forget_commands(caller: str) -> None:
    """Delete the answers that are stored for a caller's websocket commands. They contain the sender's name and text.

    If a client repeats one of these commands, the command runs again.
    """
    Command.objects.using(database()).filter(caller=caller).delete()
