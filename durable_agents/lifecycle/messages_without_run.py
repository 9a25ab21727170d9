"""Transitions that add messages to a thread without starting a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast
from uuid import UUID

from django.utils.functional import Promise

from durable_agents.actors import Actor, User
from durable_agents.exceptions import InvalidPartsError, ThreadBusyError
from durable_agents.lifecycle.attachments import NewFiles, store_files
from durable_agents.lifecycle.audit import record
from durable_agents.lifecycle.rows import add_finished_stream, put_message
from durable_agents.lifecycle.transaction import Locked, hold_thread, id_of, log_transition, transition
from durable_agents.models import Message, Role, Thread
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
