"""The arrows by which messages come into a thread, or leave the database, without a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from durable_agents.exceptions import InvalidPartsError, ThreadBusyError
from durable_agents.lifecycle.attachments import with_files
from durable_agents.lifecycle.locking import Locked, arrow, database, hold_thread, id_of, log_arrow, only_row, transact
from durable_agents.lifecycle.moves import add_finished_stream, put_message
from durable_agents.models import Attachment, Message, Role, Stream, Thread
from durable_agents.outbound import ring_browsers
from durable_agents.parts import Part, user_parts

_NO_LIMIT = 10**9


@with_files
@arrow
def add_message(thread: Thread | UUID | str, role: str, parts: list[Part] | str) -> Message:
    """One more message of a thread at rest: ``user``, ``system`` or ``assistant``, as parts or as a text. No run
    begins; a later one, or ``resume_thread``, answers a user's message that is unanswered. System and assistant
    messages are text.

    Raises ThreadNotFoundError, ThreadBusyError while a run is on, InvalidPartsError and TooLargeError.
    """
    with hold_thread(id_of(thread)) as locked:
        if locked.thread.is_running:
            raise ThreadBusyError(locked.thread.pk)
        message = write_message(locked, role, parts)
    log_arrow("add_message", thread=message.thread_id, message_id=message.pk)
    return message


def write_message(locked: Locked, role: str, parts: list[Part] | str) -> Message:
    """Store a message as it is told, under the thread's lock."""
    if role not in Role.values:
        raise InvalidPartsError(f"A message has no role {role!r}; roles: {', '.join(Role.values)}.")
    given = {"prompt": parts, "parts": None} if isinstance(parts, str) else {"prompt": None, "parts": parts}
    checked = user_parts(**given, max_text_chars=_NO_LIMIT)
    if role != Role.USER and any(part["type"] != "text" for part in checked):
        raise InvalidPartsError(f"A message of the {role} is text.")
    if role != Role.ASSISTANT:
        return put_message(locked, Role(role), checked)
    message = put_message(locked, Role.ASSISTANT, [])
    add_finished_stream(locked, message, [{"type": "step-start"}, *({**part, "state": "done"} for part in checked)])
    return message


def write_history(locked: Locked, messages: Iterable[Mapping[str, Any]]) -> None:
    """Store messages that another system had: each with ``role`` and ``parts``, or ``content`` as a text."""
    for given in messages:
        content = given.get("parts", given.get("content"))
        if not isinstance(content, list | str):
            raise InvalidPartsError("A message has a role and either parts (a list) or content (a text).")
        write_message(locked, str(given.get("role")), content)


@arrow
def remove_thread(thread_id: UUID) -> bool:
    """Take a thread away with everything that belongs to it, and tell browsers. Returns whether there was one."""
    using = database()
    with transact():
        row = only_row(Thread.objects.using(using).filter(pk=thread_id))
        if row is None:
            return False
        row.delete(using=using)
        ring_browsers(thread_id, using=using)
    log_arrow("delete_thread", thread=thread_id)
    return True


def erase(*, owner: Any = None, scope: str | None = None) -> int:
    """Remove all threads of an owner, of a scope, or of an owner in a scope, with everything that belongs to them, what
    they have cost included, and files that were uploaded and not sent. Thread by thread: where it ends in an error,
    call it again for the rest. Returns how many threads. Raises ValueError without either: it would erase everything.
    """
    if owner is None and not scope:
        raise ValueError("erase() wants an owner, a scope or both.")
    whose: dict[str, Any] = {} if owner is None else {"owner": owner}
    whose |= {} if scope is None else {"scope": scope}
    # All ids at once: reading on while rows are deleted would fail on SQLite where somebody else has written meanwhile.
    threads = list(Thread.objects.using(database()).filter(**whose).order_by("pk").values_list("pk", flat=True))
    erased = sum(map(remove_thread, threads))
    _remove_rest(whose)
    log_arrow("erase", threads=erased)
    return erased


@arrow
def _remove_rest(whose: Mapping[str, Any]) -> None:
    """What belongs to somebody and to no thread."""
    with transact():
        Stream.objects.using(database()).filter(thread=None, **whose).delete()
        Attachment.objects.using(database()).unsent().filter(**whose).delete()
