"""Serve streaming responses with server-sent events.

If a client closes its response, the agent's run continues. The section "Server-sent events" of the HTML standard
defines the format.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import ParamSpec, Protocol, TypeVar
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import close_old_connections
from django.http import HttpResponse, StreamingHttpResponse

from durable_agents.conf import config
from durable_agents.exceptions import ThreadNotFoundError, TooManyStreamsError
from durable_agents.lifecycle import notify_overdue, store_delivery_counts
from durable_agents.live.caller_limits import STREAMS, AddressedAsker, Slot, caller_of
from durable_agents.live.hub import HEAL_SECONDS, News
from durable_agents.live.response_backpressure import at_readers_pace
from durable_agents.live.sign_outs import SignOutWatch
from durable_agents.live_delivery_counts import delivery_counts
from durable_agents.logs import log_error
from durable_agents.policies import Asker
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


P = ParamSpec("P")
T = TypeVar("T")


class Events(Protocol):
    """The events of a response. Usage: ``async with events``, then call ``next`` until it returns None."""

    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...

    async def next(self) -> list[str] | None:
        """Wait for events and return them. Return None at the end of the stream."""


def event_stream(events: Events, headers: Mapping[str, str] | None = None) -> StreamingHttpResponse:
    """Return a streaming response with these events.

    The response ends after the last event, or when the client disconnects. The view must run under ASGI.
    """
    # Close the database connections of the view's OS thread. Otherwise, they would stay open until the response ends.
    close_old_connections()
    return EventStreamResponse(_body(events), content_type=_TYPE, headers=_HEADERS | dict(headers or {}))


class EventStreamResponse(StreamingHttpResponse):
    """A response that reads and sends nothing more while its client does not read."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the parts of the body."""
        return at_readers_pace(super().__aiter__())


def head_of_stream(headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Return the response to a HEAD request: the headers of an event stream, without a body.

    A streaming response must not be used for HEAD. Daphne would send the events, and the client would read them as the
    response to its next request.
    """
    return HttpResponse(content_type=_TYPE, headers=_HEADERS | dict(headers or {}))


def stream_slot(request: AddressedAsker) -> Slot:
    """Return a slot for an event stream of this caller. Raises TooManyStreamsError."""
    limit = config().max_streams_per_user
    slot = STREAMS.take(caller_of(request), limit=limit)
    if slot is None:
        raise TooManyStreamsError(limit)
    return slot


KEEP_ALIVE = ": keep-alive\n\n"


async def _body(events: Events) -> AsyncIterator[str]:
    yield ": stream-open\n\n"
    async with events:
        while (texts := await events.next()) is not None:
            for text in texts:
                yield text


class EventSource(Protocol):
    """A source of events about one thread. ``read`` is synchronous and may use the ORM."""

    is_over: bool

    def read(self) -> list[str]:
        """Return the new events."""


class Reads:
    """The events of a source. The source is read after each notification, and also at intervals.

    Usage: ``async with reads``, then call ``next`` until it returns None.
    """

    def __init__(
        self, thread_id: UUID, source: EventSource, *, asker: Asker, slot: Slot, may_stay: Callable[[], bool]
    ) -> None:
        """Prepare the event stream.

        - ``asker`` is the caller. When the caller signs out, the event stream ends.
        - ``may_stay`` is called every minute, and when the caller's account has changed. If it returns False, the event
          stream ends.
        - ``slot`` is released at the end of the event stream.
        """
        self._thread_id = thread_id
        self._source = source
        self._asker = asker
        self._slot = slot
        self._may_stay = may_stay
        self._has_begun = self._is_ended = False
        self._sent_at = self._checked_at = time.monotonic()
        self._watched = News(thread_id)

    # Do not use ``asynccontextmanager`` instead of these methods. Its generator would be closed when the event loop
    # shuts down, before the ``async with`` block ends.

    async def __aenter__(self) -> None:
        self._news = await self._watched.__aenter__()
        self._sign_outs = SignOutWatch(self._asker, end=self._end, check=self._check)

    async def __aexit__(self, *_: object) -> None:
        self._sign_outs.stop()
        self._slot.release()
        await self._watched.__aexit__()

    def _end(self) -> None:
        """Make the event stream end, because its caller has signed out."""
        self._is_ended = True
        self._news.set()

    def _check(self) -> None:
        """Make the event stream check at once whether its caller may still see the thread."""
        self._checked_at = -math.inf
        self._news.set()

    async def next(self) -> list[str] | None:
        """Wait until there may be news, and return the new events. The first call does not wait.

        Return a keep-alive comment if nothing was sent for ``HEARTBEAT_SECONDS``. Return None at the end of the stream.

        An error is logged and ends the stream. The error is not raised, because servers cannot handle an exception in
        the middle of a response body.
        """
        try:
            if self._has_begun and not await self._wait(self._news):
                return None
            self._has_begun = True
            # Clear ``news`` before the read, so that a notification during the read causes another read.
            self._news.clear()
            events = await in_any_thread(self._source.read)
        except Exception:
            log_error("a stream of events broke off", action="events", thread=self._thread_id)
            return None
        now = time.monotonic()
        if not events and now - self._sent_at >= HEARTBEAT_SECONDS:
            events = [KEEP_ALIVE]
        self._sent_at = now if events else self._sent_at
        return events

    async def _wait(self, news: asyncio.Event) -> bool:
        """Wait for a notification. Return True if the source should be read again, or False at the end of the stream.

        The wait also ends when a heartbeat is due, and after ``HEAL_SECONDS`` at the latest, because a notification may
        have been lost.
        """
        if self._source.is_over:
            return False
        quiet_seconds = time.monotonic() - self._sent_at
        try:
            await asyncio.wait_for(news.wait(), max(0.0, min(HEARTBEAT_SECONDS - quiet_seconds, HEAL_SECONDS)))
        except TimeoutError:
            await in_any_thread(notify_overdue, [self._thread_id], seconds=HEAL_SECONDS)
            if delivery_counts().are_due:
                await in_any_thread(store_delivery_counts)
        if self._is_ended:
            return False
        if time.monotonic() - self._checked_at < RECHECK_SECONDS:
            return True
        self._checked_at = time.monotonic()
        return await in_any_thread(self._may_stay)


async def in_any_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in another OS thread, where the function can use the database.

    A response that waits between two calls occupies neither an OS thread nor a database connection.
    """
    result: T = await database_sync_to_async(function, thread_sensitive=False)(*args, **kwargs)
    return result


class AnswerSource:
    """The events of one answer of the agent, in the AI SDK's UI message stream format."""

    def __init__(self, answer_stream: AnswerStream) -> None:
        self._answer_stream = answer_stream
        self.is_over = False

    def read(self) -> list[str]:
        """Return the new events.

        If the answer was cut off, leave out the final ``[DONE]``, so that the client requests the answer again.
        """
        try:
            chunks = self._answer_stream.read()
        except ThreadNotFoundError:
            self.is_over = True
            return [event({"type": "error", "errorText": "The thread is gone."}), _DONE]
        self.is_over = self._answer_stream.is_over
        events = [event(chunk) for chunk in chunks]
        return [*events, _DONE] if self.is_over and not self._answer_stream.is_cut else events


def event(value: Mapping[str, object]) -> str:
    """Return the text of an event without an id."""
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'), allow_nan=False)}\n\n"
