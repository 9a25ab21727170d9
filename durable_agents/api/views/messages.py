"""Messages: listing and sending them, and saying or answering something anew."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.api import shapes
from durable_agents.api.base import AgentsView
from durable_agents.api.inputs import MessageQuery, NewMessage, NewWords, Regeneration
from durable_agents.api.operations import Gives, Operation
from durable_agents.api.pages import BY_TURN
from durable_agents.exceptions import AgentNotFoundError, InvalidPartsError, MessageNotFoundError, ThreadBusyError
from durable_agents.models import Message, Thread
from durable_agents.policies import sender
from durable_agents.reading import after_position, fold_in, listed_messages, open_answer
from durable_agents.transcript import ui_message, ui_messages

_A_MESSAGE = Gives(shape=shapes.MessageJSON)


class MessageListView(AgentsView):
    """The messages of a thread."""

    @Operation(
        operation_id="listMessages",
        action="view",
        query=MessageQuery,
        answers={
            200: Gives(
                shape=shapes.MessageJSON, paged=True, beside={"stream": cast(type, shapes.OpenStreamJSON | None)}
            )
        },
    )
    def get(self, request: Request, thread_id: str) -> Response:
        """List the messages, oldest first, queued ones last; with streams=1 the open stream is folded in, and
        `stream` says which and how far."""
        thread = self.thread(request, thread_id)
        asked = MessageQuery.of(request)
        if asked.get("streams"):
            return Response(_page_with_stream(request, thread, asked))
        page = BY_TURN.page(after_position(listed_messages(thread), asked.get("after")), request)
        return Response(page.envelope(ui_messages(page.rows)))

    @Operation(
        operation_id="sendMessage",
        action="send",
        body=NewMessage,
        answers={202: _A_MESSAGE, 200: _A_MESSAGE},
        sends=True,
        raises=[AgentNotFoundError, InvalidPartsError, ThreadBusyError],
    )
    def post(self, request: Request, thread_id: str) -> Response:
        """Send a message; the answer comes later. A known client_id gives back its message (200), whatever is sent."""
        thread = self.thread(request, thread_id)
        asked = NewMessage.of(request)
        client_id = asked.get("client_id")
        known = client_id is not None and Message.objects.shown().filter(thread=thread).find(client_id)
        message = lifecycle.send_message(thread, sender=sender(request, asked.get("parts")), **asked)
        answered = status.HTTP_200_OK if known else status.HTTP_202_ACCEPTED
        return Response(ui_message(message, message.parts), status=answered)


class MessageView(AgentsView):
    """One message of a thread."""

    @Operation(
        operation_id="editMessage",
        action="edit",
        body=NewWords,
        answers={202: _A_MESSAGE},
        sends=True,
        raises=[AgentNotFoundError, InvalidPartsError, MessageNotFoundError, ThreadBusyError],
    )
    def put(self, request: Request, thread_id: str, message_id: str) -> Response:
        """Say a user's message anew and have it answered; what was said after it is shown no more."""
        thread = self.thread(request, thread_id)
        asked = NewWords.of(request)
        message = lifecycle.edit_message(thread, message_id, sender=sender(request, asked.get("parts")), **asked)
        return Response(ui_message(message, message.parts), status=status.HTTP_202_ACCEPTED)


class RegenerateView(AgentsView):
    """Another answer to what was asked."""

    @Operation(
        operation_id="regenerate",
        action="edit",
        body=Regeneration,
        answers={202: _A_MESSAGE},
        sends=True,
        raises=[AgentNotFoundError, MessageNotFoundError, ThreadBusyError],
    )
    def post(self, request: Request, thread_id: str) -> Response:
        """Have a question answered once more; the old answer, and what was said after it, is shown no more."""
        thread = self.thread(request, thread_id)
        answer = lifecycle.regenerate(thread, **Regeneration.of(request))
        return Response(ui_message(answer, []), status=status.HTTP_202_ACCEPTED)


def _page_with_stream(request: Request, thread: Thread, asked: dict[str, Any]) -> dict[str, Any]:
    """The page as the thread was at its rev, with the open stream folded in."""
    stream = open_answer(thread, from_number=asked.get("from_number", 0))
    listed = listed_messages(thread, answer_id=stream.message_id if stream else None)
    page = BY_TURN.page(after_position(listed, asked.get("after")), request)
    messages, entry = fold_in(stream, ui_messages(page.rows, upto_rev=thread.rev))
    return page.envelope(messages) | {"stream": asdict(entry) if entry else None}
