"""Views for the AI SDK (``useChat``, assistant-ui), and the view that streams the events of a thread.

All views except ``ChatStopView`` respond with a stream and need an ASGI server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypedDict

from django.contrib.auth import get_user_model
from django.http import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.api.ai_sdk_requests import Chat, ChatRequest, Id, StreamedAnswer, WaitQuery, current_answer
from durable_agents.api.base import AgentsView
from durable_agents.api.json_bodies import ChatParser
from durable_agents.api.openapi.operation_decorator import Gives, Operation
from durable_agents.api.request_serializers import Body, Query
from durable_agents.caller_credentials import Credential
from durable_agents.conf import config
from durable_agents.exceptions import (
    AgentNotFoundError,
    AgentRemovedError,
    AgentRequiredError,
    AsgiRequiredError,
    DurableAgentsError,
    IdempotencyKeyReusedError,
    InvalidCursorError,
    InvalidPartsError,
    MessageNotFoundError,
    ThreadBusyError,
    ThreadNotFoundError,
    TooManyStreamsError,
)
from durable_agents.live.caller_limits import Slot
from durable_agents.live.reader import ThreadReader
from durable_agents.live.sse import (
    UI_MESSAGE_STREAM,
    AnswerSource,
    Events,
    Reads,
    event_stream,
    head_of_stream,
    stream_slot,
)
from durable_agents.live.thread_sse import ThreadEvents, cursor_of
from durable_agents.models import Thread, ThreadStatus
from durable_agents.policies import SignIn, public_thread
from durable_agents.reading import AnswerStream, PersonalView

_EVENTS = Gives(shape=str, media_type="text/event-stream")


class StopQuery(Body):
    """The body of a stop request: the id of an answer or the id of an attempt. Without an id, the current run is
    stopped.
    """

    messageId = Id()  # noqa: N815 - the AI SDK's name
    streamId = Id()  # noqa: N815


class StoppedJSON(TypedDict):
    """The status of a thread after a request to stop it."""

    status: ThreadStatus


class EventQuery(Query):
    """The query parameters of an event stream. They say where the stream begins and how many messages its snapshot
    contains.
    """

    cursor = serializers.CharField(required=False, help_text="The id of the last event that the client has seen.")
    tail = serializers.IntegerField(required=False, help_text="Messages in the snapshot: 50 by default, at most 200.")


class StreamingView(AgentsView):
    """A view with a streaming response."""

    slot: Slot | None = None
    """The right to stream one response. A view that changes something takes the slot before the change and sets this
    attribute. For all other views, ``stream`` takes the slot.
    """

    def check_server(self, request: Request) -> None:
        """Raise AsgiRequiredError unless the request came through ASGI. A WSGI server would block an OS thread for the
        whole response.
        """
        if not hasattr(request._request, "scope"):
            raise AsgiRequiredError

    def stream(
        self, request: Request, events: Callable[[SignIn, Slot], Events], headers: Mapping[str, str] | None = None
    ) -> HttpResponseBase:
        """Return a streaming response. ``events`` gets the caller's sign-in and slot, and returns the events to stream.

        The events end when the caller may no longer view the thread.
        """
        # Return only headers for a HEAD request. Daphne would send the body of a streaming response, and the client
        # would read this body as the start of the next response.
        if request.method == "HEAD":
            return head_of_stream(headers)
        is_row = isinstance(request.user, get_user_model())
        sign_in = SignIn(request, Credential.of(request) if is_row else None)
        return event_stream(events(sign_in, self.slot or stream_slot(request)), headers)

    def stream_answer(self, request: Request, streamed: StreamedAnswer, *, wait_seconds: float = 0) -> HttpResponseBase:
        """Return the response that streams an answer."""
        # The AI SDK does not send its version. A client may send it in this header; otherwise, the project's setting
        # applies.
        text = request.headers.get("X-AI-SDK-Version", "").partition(".")[0].strip()
        major = text if text.isascii() and text.isdigit() and len(text) < 4 else config().ai_sdk_dialect
        answer_stream = AnswerStream(
            streamed.thread.pk,
            answer=streamed.answer,
            question=streamed.question,
            seen=streamed.seen,
            knows_7=int(major) >= 7,
            wait_seconds=wait_seconds,
            view=PersonalView(request, streamed.thread),
        )
        thread = streamed.thread

        def events(sign_in: SignIn, slot: Slot) -> Reads:
            may_stay = partial(_may_view, request, thread, sign_in)
            return Reads(thread.pk, AnswerSource(answer_stream), asker=request, slot=slot, may_stay=may_stay)

        return self.stream(request, events, UI_MESSAGE_STREAM)


class ChatView(StreamingView):
    """A view to which ``useChat`` posts its requests."""

    parser_classes = (ChatParser,)

    @Operation(
        operation_id="chat",
        action="send",
        body=ChatRequest,
        answers={200: _EVENTS},
        sends=True,
        raises=[
            AgentNotFoundError,
            AgentRemovedError,
            AgentRequiredError,
            AsgiRequiredError,
            IdempotencyKeyReusedError,
            InvalidPartsError,
            MessageNotFoundError,
            ThreadBusyError,
            ThreadNotFoundError,
            TooManyStreamsError,
        ],
    )
    def post(self, request: Request, agent: str | None = None) -> HttpResponseBase:
        """Send or edit a message, regenerate an answer, or answer tool calls. The response streams the answer until the
        run ends or waits for the client.
        """
        self.check_server(request)
        self.slot = stream_slot(request)
        return self.stream_answer(request, Chat(request, ChatRequest.of(request), agent=agent).execute())


class ChatStreamView(StreamingView):
    """A view that streams the current answer to a client that lost its connection."""

    @Operation(
        operation_id="resumeChat",
        action="view",
        query=WaitQuery,
        answers={200: _EVENTS, 204: None},
        raises=[AsgiRequiredError, TooManyStreamsError],
    )
    def get(self, request: Request, thread_id: str, agent: str | None = None) -> HttpResponseBase:
        """Stream the current answer: first the part that exists already, then the rest as it arrives. If the
        thread is not running, or if its run waits only for approvals or for tool results from outside, the response is
        204.

        With ``wait=1``, the response stays open while the run waits, for at most ``MAX_WAIT_SECONDS``.
        """
        self.check_server(request)
        wait_seconds = config().max_wait_seconds if WaitQuery.of(request).get("wait") else 0
        streamed = current_answer(request, thread_id, waits=wait_seconds > 0)
        if streamed is None:
            return Response(status=204)
        return self.stream_answer(request, streamed, wait_seconds=wait_seconds)


class ChatStopView(AgentsView):
    """A view that stops the current answer."""

    via = "chat"

    @Operation(operation_id="stopChat", action="stop", body=StopQuery, answers={200: Gives(shape=StoppedJSON)})
    def post(self, request: Request, thread_id: str, agent: str | None = None) -> Response:
        """Stop the run, and end the responses that stream its answer. The body may contain the id of an answer or of
        an attempt. If the thread already has a newer answer or attempt, nothing is stopped.
        """
        thread = self.thread(request, thread_id)
        body = StopQuery.of(request)
        stopped = lifecycle.stop_answer(
            thread,
            message_id=body.get("messageId"),
            stream_id=body.get("streamId"),
            by=self.actor(request, thread),
        )
        return Response({"status": str(stopped.status)})


class EventsView(StreamingView):
    """A view that streams a thread as server-sent events, for networks that block websockets."""

    @Operation(
        operation_id="threadEvents",
        action="view",
        query=EventQuery,
        answers={200: _EVENTS},
        raises=[AsgiRequiredError, TooManyStreamsError],
    )
    def get(self, request: Request, thread_id: str) -> HttpResponseBase:
        """Stream the frames that a websocket would receive. The first frames are a snapshot or, with a cursor, the
        changes since that cursor. Every later change follows.
        """
        thread = self.thread(request, thread_id)
        self.check_server(request)
        query = EventQuery.of(request)
        # A browser that reconnects sends the header Last-Event-ID, but repeats the URL of its first connection. Then
        # the cursor in the URL is outdated, so prefer the header.
        last = request.headers.get("Last-Event-ID")
        position: str | None = last or query.get("cursor")
        try:
            cursor = None if position is None else cursor_of(position)
        except InvalidCursorError:
            # Ignore an invalid header, because an EventSource never reconnects after an error response.
            if not last:
                raise
            cursor = None
        reader, tail = ThreadReader(thread.pk, cursor), query.get("tail", 50)

        def events(sign_in: SignIn, slot: Slot) -> ThreadEvents:
            return ThreadEvents(reader, asker=request, sign_in=sign_in, slot=slot, name=thread_id, tail=tail)

        return self.stream(request, events)


def _may_view(request: Request, thread: Thread, sign_in: SignIn) -> bool:
    """Return whether the user is still signed in and may still view the thread. Otherwise, the stream must end."""
    user = sign_in.user_now()
    if user is None:
        return False
    request.user = user
    try:
        # Look up the thread by its primary key. The id in the URL may be a client_id. After this thread is deleted, a
        # new thread can get the same client_id.
        public_thread(request, thread.pk, "view")
    except DurableAgentsError:
        return False
    return True
