"""Views of messages: list, send, edit, and regenerate."""

from __future__ import annotations

from dataclasses import asdict
from typing import cast

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.api import serializers
from durable_agents.api.base import AgentsView
from durable_agents.api.openapi.operation_decorator import Gives, Operation
from durable_agents.api.pagination import BY_TURN
from durable_agents.api.request_serializers import MessageQuery, NewMessage, NewWords, Regeneration
from durable_agents.exceptions import (
    IdempotencyKeyReusedError,
    InvalidPartsError,
    MessageNotFoundError,
    ThreadBusyError,
)
from durable_agents.models import Message, Thread
from durable_agents.policies import sender
from durable_agents.reading import PersonalView, after_position, fold_in, listed_messages, open_answer
from durable_agents.stored_sizes import count_that_fit
from durable_agents.transcript import ui_message, ui_messages

_A_MESSAGE = Gives(shape=serializers.MessageJSON)


class MessageListView(AgentsView):
    """The messages of a thread."""

    @Operation(
        operation_id="listMessages",
        action="view",
        query=MessageQuery,
        answers={
            200: Gives(
                shape=serializers.MessageJSON,
                paged=True,
                beside={"stream": cast(type, serializers.OpenStreamJSON | None)},
            )
        },
    )
    def get(self, request: Request, thread_id: str) -> Response:
        """List the messages, oldest first, with queued messages at the end. A page ends before `limit` is reached if
        further messages would make it larger than a megabyte. With `streams=1`, the list includes the unfinished
        answer. In that case, `stream` describes the attempt that produces the answer, and says how much of the answer
        is included.
        """
        thread = self.thread(request, thread_id)
        query = MessageQuery.of(request)
        with_stream = query.get("streams", False)
        stream = open_answer(thread, from_number=query.get("from_number", 0)) if with_stream else None
        listed = listed_messages(thread, answer_id=stream.message_id if stream else None)
        listed = after_position(listed, query.get("after"))
        # Choose the messages of the page before reading their content, because a single message can be larger than a
        # page.
        page = BY_TURN.page(listed.defer("parts", "metadata", "text"), request, fitting=count_that_fit)
        view = PersonalView(request, thread)
        rows = Message.objects.filter(pk__in=[row.pk for row in page.rows]).defer("text")
        if not with_stream:
            return Response(page.envelope(view.mark(ui_messages(rows, show_person=view.person))))
        # Return the messages as they were when the thread was loaded. A step that has been committed since then would
        # appear twice: as a committed step and as the open stream.
        messages, entry = fold_in(stream, ui_messages(rows, upto_rev=thread.rev, show_person=view.person))
        return Response(page.envelope(view.mark(messages)) | {"stream": asdict(entry) if entry else None})

    @Operation(
        operation_id="sendMessage",
        action="send",
        body=NewMessage,
        answers={202: _A_MESSAGE, 200: _A_MESSAGE},
        sends=True,
        raises=[IdempotencyKeyReusedError, InvalidPartsError, ThreadBusyError],
    )
    def post(self, request: Request, thread_id: str) -> Response:
        """Send a message; the agent answers in the background. If the thread already has a message with this client_id,
        return that message (200).
        """
        thread = self.thread(request, thread_id)
        body = NewMessage.of(request)
        message, created = lifecycle.get_or_create_message(
            thread,
            body.get("prompt"),
            parts=body.get("parts"),
            client_id=body.get("client_id"),
            metadata=body.get("metadata"),
            sender=sender(request, body.get("parts")),
            by=self.actor(request, thread),
        )
        code = status.HTTP_202_ACCEPTED if created else status.HTTP_200_OK
        return Response(
            ui_message(message, message.parts, show_person=PersonalView(request, thread).person), status=code
        )


class MessageView(AgentsView):
    """One message of a thread."""

    @Operation(
        operation_id="editMessage",
        action="edit",
        body=NewWords,
        answers={202: _A_MESSAGE},
        sends=True,
        raises=[InvalidPartsError, MessageNotFoundError, ThreadBusyError],
    )
    def put(self, request: Request, thread_id: str, message_id: str) -> Response:
        """Replace a user's message and generate a new answer; later messages are no longer shown."""
        thread = self.thread(request, thread_id)
        body = NewWords.of(request)
        message = lifecycle.edit_message(
            thread,
            message_id,
            body.get("parts"),
            prompt=body.get("prompt"),
            metadata=body.get("metadata"),
            sender=sender(request, body.get("parts")),
            by=self.actor(request, thread),
        )
        return _message_response(request, thread, message)


class RegenerateView(AgentsView):
    """A view that regenerates an answer."""

    @Operation(
        operation_id="regenerate",
        action="edit",
        body=Regeneration,
        answers={202: _A_MESSAGE},
        sends=True,
        raises=[MessageNotFoundError, ThreadBusyError],
    )
    def post(self, request: Request, thread_id: str) -> Response:
        """Regenerate an answer; the old answer and all later messages are no longer shown."""
        thread = self.thread(request, thread_id)
        message_id = Regeneration.of(request).get("message_id")
        answer = lifecycle.regenerate(thread, message_id, by=self.actor(request, thread))
        return _message_response(request, thread, answer)


def _message_response(
    request: Request, thread: Thread, message: Message, *, status: int = status.HTTP_202_ACCEPTED
) -> Response:
    shown = ui_message(message, message.parts, show_person=PersonalView(request, thread).person)
    return Response(shown, status=status)
