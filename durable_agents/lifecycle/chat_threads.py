"""Transitions for chat clients that do not know whether their thread exists or whether it is running."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from durable_agents.actors import Actor, User
from durable_agents.agents import Agent
from durable_agents.lifecycle.attachments import store_files
from durable_agents.lifecycle.threads import create_thread, get_or_create_message, stop_thread
from durable_agents.lifecycle.transaction import database, hold_thread, id_of, transact, transition
from durable_agents.models import Message, Stream, Thread
from durable_agents.parts import Part


def begin_chat(
    agent: Agent,
    parts: list[Part],
    *,
    admit: Callable[[Thread], object],
    owner: User | None,
    scope: str,
    client_id: str | None,
    context: Mapping[str, object],
    message_client_id: str | None,
    metadata: Mapping[str, object],
    by: Actor | User | None = None,
) -> Message:
    """Send a message to the owner's thread with this ``client_id``. If there is no such thread, create it in the same
    transaction, so that both rows are stored or neither is. Before the message is sent, ``admit`` is called with the
    thread and may raise an exception to refuse the message. Return the message.

    Raises what ``create_thread`` and ``send_message`` raise.
    """
    with store_files(parts) as ([parts_with_urls], new_files):
        # The whole block is retried: both calls run inside its transaction, so neither of them can be retried on its
        # own.
        @transition
        def begin() -> Message:
            with transact():
                thread = create_thread(agent, owner=owner, scope=scope, client_id=client_id, context=context, by=by)
                admit(thread)
                message, _ = get_or_create_message(
                    thread,
                    parts=parts_with_urls,
                    client_id=message_client_id,
                    metadata=metadata,
                    new_files=new_files,
                    by=by,
                )
                return message

        return begin()


@transition
def stop_answer(
    thread: Thread | UUID | str,
    *,
    message_id: str | None = None,
    stream_id: str | None = None,
    by: Actor | User | None = None,
) -> Thread:
    """Stop the thread and return it.

    The client may name what it wants to stop: an answer by ``message_id`` (the shown id of a message), or an attempt by
    ``stream_id``. If the thread has a newer answer or attempt, the stop comes too late and changes nothing.
    """
    # Compare under the lock: otherwise the next answer might begin between the comparison and the stop.
    with hold_thread(id_of(thread)) as locked:
        if message_id is not None or stream_id is not None:
            streams = Stream.objects.using(database()).filter(thread=locked.thread).select_related("message__parent")
            last = streams.order_by("-number").first()
            if last is None:
                return locked.thread
            # A client that has seen nothing of the answer yet sends the id of the question.
            question = last.answer.parent
            shown = {last.answer.shown_id, question.shown_id if question else None}
            if (message_id not in shown) if stream_id is None else (stream_id != str(last.pk)):
                return locked.thread
        return stop_thread(locked.thread, by=by)
