"""The endpoint of the AI SDK (``useChat``, assistant-ui) and the event stream of a thread: what is sent, and responses
that go on for as long as there is something to tell. They need an ASGI server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypedDict

from django.http import HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from durable_agents import lifecycle
from durable_agents.api.base import AgentsView
from durable_agents.api.gestures import Chat, ChatRequest, Id, Told
from durable_agents.api.inputs import Body, Query
from durable_agents.api.operations import Gives, Operation
from durable_agents.api.wire import ChatParser
from durable_agents.conf import config
from durable_agents.exceptions import (
    AgentNotFoundError,
    AgentRequiredError,
    AsgiRequiredError,
    DurableAgentsError,
    InvalidCursorError,
    InvalidPartsError,
    MessageNotFoundError,
    ThreadBusyError,
    ThreadNotFoundError,
)
from durable_agents.models import Thread, ThreadStatus
from durable_agents.policies import SignIn, public_thread
from durable_agents.reading import AnswerTeller, latest_answer_of, waits_for_others
from durable_agents.sse import UI_MESSAGE_STREAM, AnswerSource, FrameSource, Source, cursor_of, event_stream
from durable_agents.streaming import Cursor, ThreadReader

_EVENTS = Gives(shape=str, media_type="text/event-stream")


class StopQuery(Body):
    """Which answer or attempt is to be stopped; neither: whatever is going on."""

    messageId = Id()  # noqa: N815 - the AI SDK's name
    streamId = Id()  # noqa: N815


class StoppedJSON(TypedDict):
    """What a thread is once it was stopped."""

    status: ThreadStatus


class EventQuery(Query):
    """Where the events begin."""

    cursor = serializers.CharField(required=False, help_text="The id of the last event that was seen.")
    tail = serializers.IntegerField(required=False, help_text="Messages in the first snapshot: 50, at most 200.")


class StreamingView(AgentsView):
    """A view whose response goes on."""

    def check_server(self, request: Request) -> None:
        """Raises AsgiRequiredError where the server would hold a thread for the whole response."""
        if not hasattr(request._request, "scope"):
            raise AsgiRequiredError

    def stream(
        self, request: Request, thread: Thread, source: Source, headers: Mapping[str, str] | None = None
    ) -> HttpResponseBase:
        """The response that tells what the source says of the thread."""
        may_stay = partial(_may_see, request, thread, SignIn(request))
        return event_stream(thread.pk, source, may_stay=may_stay, headers=headers)

    def tell(self, request: Request, told: Told) -> HttpResponseBase:
        """The response that tells an answer."""
        teller = AnswerTeller(
            told.thread.pk,
            answer=told.answer,
            question=told.question,
            seen=told.seen,
            knows_7=_knows_7(request),
        )
        return self.stream(request, told.thread, AnswerSource(teller), UI_MESSAGE_STREAM)


class ChatView(StreamingView):
    """What a user of ``useChat`` does."""

    parser_classes = (ChatParser,)

    @Operation(
        operation_id="chat",
        action="send",
        body=ChatRequest,
        answers={200: _EVENTS},
        sends=True,
        raises=[
            AgentNotFoundError,
            AgentRequiredError,
            AsgiRequiredError,
            InvalidPartsError,
            MessageNotFoundError,
            ThreadBusyError,
            ThreadNotFoundError,
        ],
    )
    def post(self, request: Request, agent: str | None = None) -> HttpResponseBase:
        """Send, edit, regenerate or answer calls, and follow the answer until the client has to act."""
        self.check_server(request)
        return self.tell(request, Chat(request, agent=agent).carry_out())


class ChatStreamView(StreamingView):
    """The answer that is being written, for a client that has lost it."""

    @Operation(operation_id="resumeChat", action="view", answers={200: _EVENTS, 204: None}, raises=[AsgiRequiredError])
    def get(self, request: Request, thread_id: str, agent: str | None = None) -> HttpResponseBase:
        """Replay the current answer from its start and go on with it; 204 where none is being written."""
        self.check_server(request)
        try:
            thread = public_thread(request, thread_id, "view")
        except ThreadNotFoundError:
            return Response(status=204)
        if not thread.is_running or waits_for_others(thread):
            return Response(status=204)
        return self.tell(request, Told(thread=thread, answer=latest_answer_of(thread)))


class ChatStopView(AgentsView):
    """Halting the answer that is being written."""

    @Operation(operation_id="stopChat", action="stop", body=StopQuery, answers={200: Gives(shape=StoppedJSON)})
    def post(self, request: Request, thread_id: str, agent: str | None = None) -> Response:
        """Stop the run, and end the responses that tell it. A stop that names another answer than the last one comes
        too late and does nothing."""
        thread = self.thread(request, thread_id)
        asked = StopQuery.of(request)
        meant = {"message_id": asked.get("messageId"), "stream_id": asked.get("streamId")}
        return Response({"status": str(lifecycle.stop_answer(thread, **meant).status)})


class EventsView(StreamingView):
    """A thread as server-sent events, for networks that block websockets."""

    @Operation(
        operation_id="threadEvents",
        action="view",
        query=EventQuery,
        answers={200: _EVENTS},
        raises=[AsgiRequiredError],
    )
    def get(self, request: Request, thread_id: str) -> HttpResponseBase:
        """Send the frames of the websocket: a snapshot, or what is new since the cursor, and then whatever happens."""
        thread = self.thread(request, thread_id)
        self.check_server(request)
        asked = EventQuery.of(request)
        reader = ThreadReader(thread.pk, _cursor(request, asked))
        return self.stream(request, thread, FrameSource(reader, name=thread_id, tail=asked.get("tail", 50)))


def _cursor(request: Request, asked: Mapping[str, Any]) -> Cursor | None:
    """Where the client stands: the header, which a browser sends when it comes back, else the query's. An unusable
    header counts as none, since a browser would give up for good. Raises InvalidCursorError."""
    last = request.headers.get("Last-Event-ID")
    if last:
        try:
            return cursor_of(last)
        except InvalidCursorError:
            return None
    return cursor_of(asked["cursor"]) if "cursor" in asked else None


def _knows_7(request: Request) -> bool:
    """Whether the client's AI SDK is of major 7 or later, by its header, else by the setting."""
    major = request.headers.get("X-AI-SDK-Version", "").partition(".")[0].strip()
    return int(major if major.isascii() and major.isdigit() and len(major) < 4 else config().ai_sdk_dialect) >= 7


def _may_see(request: Request, thread: Thread, sign_in: SignIn) -> bool:
    user = sign_in.user_now()
    if user is None:
        return False
    request.user = user
    try:
        public_thread(request, str(thread.pk), "view")
    except DurableAgentsError:
        return False
    return True
