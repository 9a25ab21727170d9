"""Transitions for chat clients that do not know whether their thread exists or is running."""

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
    """Send a message to the owner's thread that has this ``client_id``, and return the message. If there is no such
    thread, create it in the same transaction.

    Before the message is sent, ``admit`` is called with the thread. ``admit`` can raise an exception to refuse the
    message. In that case, nothing is stored. Raises the errors of ``create_thread`` and ``send_message``.
    """
    with store_files(parts) as ([parts_with_urls], new_files):
        # The two transitions below run inside this transaction and cannot be retried separately. ``@transition``
        # retries the whole block.
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
    """Stop the thread's run, and return the thread.

    A client can say which answer (``message_id``) or which model call (``stream_id``) it wants to stop. If a newer
    answer or model call has begun since, nothing changes.
    """
    # Compare under the lock. Otherwise, a new answer could begin between the comparison and the stop.
    with hold_thread(id_of(thread)) as locked:
        if message_id is not None or stream_id is not None:
            streams = Stream.objects.using(database()).filter(thread=locked.thread).select_related("message__parent")
            last = streams.order_by("-number").first()
            if last is None:
                return locked.thread
            # A client that has not received any of the answer yet sends the id of the question.
            question = last.answer.parent
            shown = {last.answer.shown_id, question.shown_id if question else None}
            if (message_id not in shown) if stream_id is None else (stream_id != str(last.pk)):
                return locked.thread
        return stop_thread(locked.thread, by=by)
