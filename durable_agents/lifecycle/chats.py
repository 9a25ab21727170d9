"""The arrows of a chat whose client knows neither whether its thread exists nor what goes on in it just now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from durable_agents.agents import Agent
from durable_agents.lifecycle.attachments import with_files
from durable_agents.lifecycle.locking import Locked, arrow, database, hold_thread, id_of, transact
from durable_agents.lifecycle.people import create_thread, send_message, stop_thread
from durable_agents.models import Message, Stream, Thread
from durable_agents.parts import Part


@with_files
@arrow
def begin_chat(
    agent: Agent,
    parts: list[Part],
    *,
    admit: Callable[[Thread], None],
    owner: Any,
    scope: str,
    client_id: str | None,
    context: Mapping[str, Any],
    message_client_id: str | None,
    metadata: Mapping[str, Any],
) -> Message:
    """A new thread with its first message, both or neither. One that the owner has of this ``client_id`` gets the
    message; ``admit`` is asked about it before and raises what speaks against it. Returns the message.

    Raises what ``create_thread`` and ``send_message`` raise.
    """
    with transact():
        thread = create_thread(agent, owner=owner, scope=scope, client_id=client_id, context=context)
        admit(thread)
        return send_message(thread, parts=parts, client_id=message_client_id, metadata=metadata)


@arrow
def stop_answer(thread: Thread | UUID | str, *, message_id: str | None = None, stream_id: str | None = None) -> Thread:
    """``stop_thread``, unless the client means another answer (the shown id of a message) or attempt (the id of a
    stream) than the last one: then it comes too late, and nothing happens. Returns the thread."""
    with hold_thread(id_of(thread)) as locked:
        if not _is_last(locked, message_id, stream_id):
            return locked.thread
        return stop_thread(locked.thread)


def _is_last(locked: Locked, message_id: str | None, stream_id: str | None) -> bool:
    """Whether the last attempt is the one, or works at the answer, or answers the question, that is meant."""
    if message_id is None and stream_id is None:
        return True
    streams = Stream.objects.using(database()).filter(thread=locked.thread).select_related("message__parent")
    last = streams.order_by("-number").first()
    if last is None:
        return False
    if stream_id is not None:
        return stream_id == str(last.pk)
    asked = last.answer.parent
    return message_id in {last.answer.shown_id, asked.shown_id if asked else None}
