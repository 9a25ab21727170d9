"""The websocket for the AI SDK's ``WebSocketChatTransport``: the same requests as over HTTP, many on one connection.

Format: AI SDK 7, ``websocket-chat-transport.ts``. Each request of a client has a ``requestId``, and each frame to the
client repeats this id. The client closes the connection if it gets a frame in any other format.
"""

from __future__ import annotations

import asyncio
import io
from functools import partial
from urllib.parse import parse_qs
from uuid import UUID

from rest_framework.exceptions import APIException, ValidationError

from durable_agents import throttles
from durable_agents.api.ai_sdk_requests import Chat, ChatRequest, StreamedAnswer, WaitQuery, current_answer
from durable_agents.api.errors import answer
from durable_agents.api.json_bodies import ChatParser
from durable_agents.conf import config
from durable_agents.exceptions import (
    DurableAgentsError,
    ThreadNotFoundError,
    TooLargeError,
    TooManyStreamsError,
)
from durable_agents.live.caller_limits import Slot
from durable_agents.live.close_codes import CloseCode
from durable_agents.live.consumer import ThreadConsumer
from durable_agents.live.encoded_frame import encode
from durable_agents.live.sse import KEEP_ALIVE, Reads, in_any_thread, stream_slot
from durable_agents.logs import log_error
from durable_agents.policies import public_thread
from durable_agents.reading import AnswerStream

MAX_ID_CHARS = 200
Payload = dict[str, object]


class ChatConsumer(ThreadConsumer):
    """The consumer of one websocket of the AI SDK. Origin, sign-in, policy and limits are checked as in
    ``ThreadConsumer``.

    A client that cannot send cookies or headers passes a ticket in the query string: ``?ticket=...``.
    """

    subprotocol = None
    # Clients of the AI SDK do not know ``closing`` frames, and send no pings.
    sends_reason = False
    must_ping = False

    async def connect(self) -> None:
        """Accept the connection, as ``ThreadConsumer`` does."""
        self.requests: dict[str, asyncio.Task[None]] = {}
        await super().connect()

    async def await_ticket(self) -> None:
        """Sign in with the ticket in the query string. Close the socket if there is no valid ticket."""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        await self._redeem(next(iter(query.get("ticket", ())), None))

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Parse one frame, and start to respond to it. The response can take as long as the run."""
        if not self.is_admitted:
            return
        payload = await self.parse(text_data or "")
        if isinstance(payload, CloseCode):
            await self.close_with(payload)
            return
        request_id = str(payload["requestId"])
        if payload.get("type") == "abort":
            # The client does not want the rest of the response. The run continues, as it does when a client closes an
            # HTTP response.
            if task := self.requests.get(request_id):
                task.cancel()
        elif request_id not in self.requests:
            self.requests[request_id] = self._start(self.respond(request_id, payload))

    async def parse(self, text: str) -> Payload | CloseCode:
        """Return the content of a frame. If the frame is refused, return the code to close the websocket with.

        Parsing runs in another OS thread, because a frame can be as large as a whole chat history.
        """
        if not self.rate_limit.take():
            return CloseCode.TOO_MANY
        try:
            payload = await in_any_thread(ChatParser().parse, io.BytesIO(text.encode("utf-8", "replace")))
        except TooLargeError:
            return CloseCode.TOO_BIG
        except APIException:
            return CloseCode.MALFORMED
        request_id = payload.get("requestId") if isinstance(payload, dict) else None
        is_named = isinstance(request_id, str) and 0 < len(request_id) <= MAX_ID_CHARS
        return payload if is_named else CloseCode.MALFORMED

    async def respond(self, request_id: str, payload: Payload) -> None:
        """Respond to one request: stream an answer, or report that no answer is in progress, or send an error."""
        slot = None
        try:
            slot = await in_any_thread(self.take_slot)
            wait_seconds, streamed = await in_any_thread(self.execute, payload)
            if streamed is None:
                await self._say({"type": "no-active", "requestId": request_id})
                return
            await self._say({"type": "start", "requestId": request_id})
            await self.stream(request_id, streamed, wait_seconds, slot)
        except Exception as error:
            text = await in_any_thread(error_text, error)
            await self._say({"type": "error", "requestId": request_id, "errorText": text})
        finally:
            self.requests.pop(request_id, None)
            if slot is not None:
                slot.release()

    def take_slot(self) -> Slot:
        """Return a slot: the right to stream one response. Raises TooManyStreamsError if the caller has too many
        responses open.
        """
        # ``stream_slot`` does not limit callers who are known only by their IP address. Therefore each websocket also
        # has a limit.
        if len(self.requests) > (limit := config().max_streams_per_user):
            raise TooManyStreamsError(limit)
        return stream_slot(self.asker)

    def execute(self, payload: Payload) -> tuple[float, StreamedAnswer | None]:
        """Perform the action of the request. Return two values:

        - For how many seconds the response stays open while the run waits.
        - The answer to stream, or None if no answer is in progress.
        """
        throttles.count("requests", self.asker)
        body = payload.get("body")
        fields = body if isinstance(body, dict) else {}
        names = ("id", "messages", "trigger", "messageId")
        request = ChatRequest.checked(fields | {name: payload[name] for name in names if name in payload})
        if payload.get("type") == "resume":
            if payload.get("lastSequence") is not None:
                raise ValidationError("A resumed answer is sent from its beginning: leave 'lastSequence' out.")
            waits = bool(WaitQuery.checked(fields).get("wait"))
            return config().max_wait_seconds * waits, current_answer(self.asker, request["id"], waits=waits)
        if payload.get("type") != "send":
            raise ValidationError("A frame has the type 'send', 'resume' or 'abort'.")
        throttles.count("sends", self.asker)
        agent = self.scope["url_route"]["kwargs"].get("agent")
        return 0, Chat(self.asker, request, agent=agent).execute()

    async def stream(self, request_id: str, streamed: StreamedAnswer, wait_seconds: float, slot: Slot) -> None:
        thread_id = streamed.thread.pk
        # Only version 7 of the AI SDK has this transport.
        answer_stream = AnswerStream(
            thread_id,
            answer=streamed.answer,
            question=streamed.question,
            seen=streamed.seen,
            knows_7=True,
            wait_seconds=wait_seconds,
        )
        source = ChunkSource(answer_stream, request_id)
        reads = Reads(thread_id, source, asker=self.asker, slot=slot, may_stay=partial(self.may_stay, thread_id))
        async with reads:
            while (texts := await reads.next()) is not None:
                await self.flow.wait()
                for text in (text for text in texts if text != KEEP_ALIVE):
                    self.show(text)
        if not source.is_over:
            raise ThreadNotFoundError(thread_id)

    def may_stay(self, thread_id: UUID) -> bool:
        """Return whether the caller may still see the thread. ``ThreadConsumer`` checks the sign-in."""
        try:
            public_thread(self.asker, thread_id, "view")
        except DurableAgentsError:
            return False
        return True

    async def _say(self, frame: Payload) -> None:
        await self.flow.wait()
        await self.send_frame(frame)


class ChunkSource:
    """The frames of one answer. Chunks are numbered; if a number is missing, the client closes the connection."""

    def __init__(self, answer_stream: AnswerStream, request_id: str) -> None:
        self._answer_stream = answer_stream
        self._request_id = request_id
        self._sequence = 0
        self.is_over = False

    def read(self) -> list[str]:
        """Return the new frames. The last frame of the answer is of type ``end``, or of type ``error`` if the thread
        was deleted.
        """
        try:
            chunks = self._answer_stream.read()
        except ThreadNotFoundError as error:
            self.is_over = True
            return [self._text({"type": "error", "errorText": error_text(error)})]
        texts = []
        for chunk in chunks:
            texts.append(self._text({"type": "chunk", "sequence": self._sequence, "chunk": chunk}))
            self._sequence += 1
        self.is_over = self._answer_stream.is_over
        return [*texts, self._text({"type": "end"})] if self.is_over else texts

    def _text(self, frame: Payload) -> str:
        return encode(frame | {"requestId": self._request_id})


def error_text(error: Exception) -> str:
    """Return the text for an error: the JSON that the body of an HTTP error response would contain."""
    if isinstance(error, DurableAgentsError):
        return encode({"code": error.code, "detail": str(error)})
    response = answer(error, {})
    if response is not None:
        return encode(response.data)
    log_error("a request of a chat failed", action="frame")
    return encode({"code": "internal", "detail": "Something went wrong on the server. Try again."})
