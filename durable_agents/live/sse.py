"""Serve a thread as server-sent events. A response subscribes to the thread and reads it. It reads again after each
notification, and at intervals.

Closing the response does not affect the run. The section "Server-sent events" of the HTML standard defines the format.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import ParamSpec, Protocol, TypeVar
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import close_old_connections
from django.http import HttpResponse, StreamingHttpResponse

from durable_agents.exceptions import InvalidCursorError, ThreadNotFoundError
from durable_agents.lifecycle import notify_overdue
from durable_agents.live.hub import HEAL_SECONDS, News
from durable_agents.live.reader import Cursor, ThreadReader
from durable_agents.logs import log_error
from durable_agents.reading import AnswerStream

HEARTBEAT_SECONDS = 14
"""Interval of keep-alive comments. Some proxies time out after a minute, and some clients expect a sign of life every
15 s.
"""
RECHECK_SECONDS = 60
"""The maximum time that a response continues after its user has lost access to the thread."""
UI_MESSAGE_STREAM = {"x-vercel-ai-ui-message-stream": "v1"}
_HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    # Without this header, middleware that compresses responses would delay events.
    "Content-Encoding": "identity",
    "X-Accel-Buffering": "no",
}
_TYPE = "text/event-stream"
_DONE = "data: [DONE]\n\n"
_CURSOR = re.compile(r"(\d{1,18})\.([0-9a-f-]{36}|)\.(\d{1,18}|-1)", re.ASCII)


P = ParamSpec("P")
T = TypeVar("T")


class EventSource(Protocol):
    """A source of server-sent events about one thread. ``read`` is synchronous and may use the ORM."""

    is_over: bool

    def read(self) -> list[str]:
        """Return the new events."""


def event_stream(
    thread_id: UUID, source: EventSource, *, may_stay: Callable[[], bool], headers: Mapping[str, str] | None = None
) -> StreamingHttpResponse:
    """Return a streaming response. The response ends when the source has no more events, the client disconnects, or
    ``may_stay`` returns False.

    ``may_stay`` is called every minute. The view must run under ASGI.
    """
    # Otherwise, the thread that runs the view would keep its database connections until the response ends.
    close_old_connections()
    body = _body(thread_id, source, may_stay)
    return StreamingHttpResponse(body, content_type=_TYPE, headers=_HEADERS | dict(headers or {}))


def head_of_stream(headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Return the response to a HEAD request, without a body. Daphne would send the events of a streaming response even
    after HEAD, and the client would mistake them for its next response.
    """
    return HttpResponse(content_type=_TYPE, headers=_HEADERS | dict(headers or {}))


async def _body(thread_id: UUID, source: EventSource, may_stay: Callable[[], bool]) -> AsyncIterator[str]:
    yield ": stream-open\n\n"
    reads = _Reads(thread_id, source, may_stay)
    async with News(thread_id) as news:
        while (events := await reads.next(news)) is not None:
            for event in events:
                yield event


class _Reads:
    """A reader that decides when to read an event source, and returns its events."""

    def __init__(self, thread_id: UUID, source: EventSource, may_stay: Callable[[], bool]) -> None:
        self._thread_id = thread_id
        self._source = source
        self._may_stay = may_stay
        self._has_begun = False
        self._sent_at = self._checked_at = time.monotonic()

    async def next(self, news: asyncio.Event) -> list[str] | None:
        """Wait until there may be news, and return the new events. The first call does not wait. Return None at the end
        of the stream. Return a keep-alive comment if nothing was sent for ``HEARTBEAT_SECONDS``.

        An error is logged and ends the stream. It is not raised, because servers fail on exceptions in the middle of a
        body.
        """
        try:
            if self._has_begun and not await self._wait(news):
                return None
            self._has_begun = True
            # Clear the event before the read: a notification during the read must cause another read.
            news.clear()
            events = await _in_database(self._source.read)
        except Exception:
            log_error("a stream of events broke off", action="events", thread=self._thread_id)
            return None
        now = time.monotonic()
        if not events and now - self._sent_at >= HEARTBEAT_SECONDS:
            events = [": keep-alive\n\n"]
        self._sent_at = now if events else self._sent_at
        return events

    async def _wait(self, news: asyncio.Event) -> bool:
        """Wait for a notification, and return whether to read again. The wait ends when a heartbeat is due, and at the
        latest after ``HEAL_SECONDS``, because a notification may have been lost.
        """
        if self._source.is_over:
            return False
        quiet_seconds = time.monotonic() - self._sent_at
        try:
            await asyncio.wait_for(news.wait(), max(0.0, min(HEARTBEAT_SECONDS - quiet_seconds, HEAL_SECONDS)))
        except TimeoutError:
            await _in_database(notify_overdue, [self._thread_id], seconds=HEAL_SECONDS)
        if time.monotonic() - self._checked_at < RECHECK_SECONDS:
            return True
        self._checked_at = time.monotonic()
        return await _in_database(self._may_stay)


async def _in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that uses the database, and run it in a worker thread. Between such calls, a waiting response
    occupies neither a thread nor a database connection.
    """
    result: T = await database_sync_to_async(function, thread_sensitive=False)(*args, **kwargs)
    return result


class AnswerSource:
    """A source that sends one answer of the agent in the AI SDK's UI message stream format."""

    def __init__(self, answer_stream: AnswerStream) -> None:
        self._answer_stream = answer_stream
        self.is_over = False

    def read(self) -> list[str]:
        """Return the new events. If the answer was cut off, the final ``[DONE]`` is missing, so the client requests the
        answer again.
        """
        try:
            chunks = self._answer_stream.read()
        except ThreadNotFoundError:
            self.is_over = True
            return [_event({"type": "error", "errorText": "The thread is gone."}), _DONE]
        self.is_over = self._answer_stream.is_over
        events = [_event(chunk) for chunk in chunks]
        return [*events, _DONE] if self.is_over and not self._answer_stream.is_cut else events


def _event(value: Mapping[str, object]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'), allow_nan=False)}\n\n"


class FrameSource:
    """A source that sends the changes of one thread, in the frame format of the websocket. The id of each event is the
    client's cursor after the event.
    """

    is_over = False

    def __init__(self, reader: ThreadReader, *, name: str, tail: int) -> None:
        self._reader = reader
        self._name = name
        """The id by which the client's request named the thread: either the primary key, or the ``client_id`` that the
        client chose. Every frame repeats this id.
        """
        self._tail = tail
        self._has_begun = False

    def read(self) -> list[str]:
        """Return the new frames as events."""
        at = self._reader.cursor
        try:
            frames = self._reader.news() if self._has_begun else self._reader.begin(tail=self._tail)
        except ThreadNotFoundError:
            self.is_over = True
            gone = {"type": "error", "code": "thread_not_found", "message": "The thread is gone.", "retryable": False}
            return [_event(gone | {"thread": self._name})]
        if not self._has_begun:
            # On a websocket, the first frame repeats the id of the client's request. Here there is no such id.
            frames[0] |= {"id": None}
        self._has_begun = True
        events = []
        for frame in frames:
            if frame["type"] == "snapshot":
                at = self._reader.cursor
            elif frame["type"] == "delta":
                at = Cursor(rev=at.rev, stream=frame["stream"], seq=frame["seq"])
            else:
                at = Cursor(rev=max(at.rev, frame["rev"]), stream=at.stream, seq=at.seq)
            events.append(f"id: {at.rev}.{at.stream}.{at.seq}\n{_event(frame | {'thread': self._name})}")
        return events


def cursor_of(text: str) -> Cursor:
    """Parse the id of an event, and return the cursor that it contains. Raises InvalidCursorError."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidCursorError(text)
    return Cursor(rev=int(match[1]), stream=match[2], seq=int(match[3]))
