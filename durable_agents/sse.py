"""Hides how something that follows a thread becomes a response of server-sent events: watch first, then read, then look
again at each hint, and now and then without one.

Closing the response touches nothing: a run goes on whoever watches. The format is the HTML standard's, "Server-sent
events".
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Protocol
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import close_old_connections
from django.http import StreamingHttpResponse

from durable_agents.exceptions import InvalidCursorError, ThreadNotFoundError
from durable_agents.lifecycle import ring_overdue
from durable_agents.logs import log_error
from durable_agents.parts import Chunk
from durable_agents.reading import AnswerTeller
from durable_agents.streaming import Cursor, Frame, ThreadReader
from durable_agents.watching import HEAL_SECONDS, News

HEARTBEAT_SECONDS = 14
"""Proxies that wait for a minute, and clients that were promised a sign of life every 15 s, see one in time."""
RECHECK_SECONDS = 60
"""How long a response may go on for somebody who may not see the thread any more."""
UI_MESSAGE_STREAM = {"x-vercel-ai-ui-message-stream": "v1"}
_HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "Content-Encoding": "identity",  # or compressing middleware would hold events back
    "X-Accel-Buffering": "no",
}
_DONE = "data: [DONE]\n\n"
_CURSOR = re.compile(r"(\d{1,18})\.([0-9a-f-]{36}|)\.(\d{1,18}|-1)", re.ASCII)


class Source(Protocol):
    """Something that follows one thread. Synchronous: it is called where the ORM may be called."""

    is_over: bool

    def read(self) -> list[str]:
        """The events that are new."""


def event_stream(
    thread_id: UUID, source: Source, *, may_stay: Callable[[], bool], headers: Mapping[str, str] | None = None
) -> StreamingHttpResponse:
    """A response that goes on until its source is over, its client is gone, or ``may_stay`` says no: that is asked
    every minute. Give it back from a view under ASGI."""
    close_old_connections()  # the view's own, which its thread would hold for as long as the response lasts
    body = _body(thread_id, source, may_stay)
    return StreamingHttpResponse(body, content_type="text/event-stream", headers=_HEADERS | dict(headers or {}))


async def _body(thread_id: UUID, source: Source, may_stay: Callable[[], bool]) -> AsyncIterator[str]:
    yield ": stream-open\n\n"
    looks = _Looks(thread_id, source, may_stay)
    async with News(thread_id) as news:
        while (events := await looks.next(news)) is not None:
            for event in events:
                yield event


class _Looks:
    """When to look at a source, and what each look has found."""

    def __init__(self, thread_id: UUID, source: Source, may_stay: Callable[[], bool]) -> None:
        self._thread_id = thread_id
        self._source = source
        self._may_stay = may_stay
        self._has_begun = False
        self._told_at = self._checked_at = time.monotonic()

    async def next(self, news: asyncio.Event) -> list[str] | None:
        """The events of the next look, at once the first time, else when there may be news; None at the end.

        An error is an end, and logged: servers break on what is raised in the middle of a body.
        """
        try:
            if self._has_begun and not await self._goes_on(news):
                return None
            self._has_begun = True
            news.clear()
            return self._told(await _in_database(self._source.read))
        except Exception:
            log_error("a stream of events broke off", action="events", thread=self._thread_id)
            return None

    async def _goes_on(self, news: asyncio.Event) -> bool:
        """Wait for a hint, but not for longer than a lost one may go unnoticed."""
        if self._source.is_over:
            return False
        quiet_seconds = time.monotonic() - self._told_at
        try:
            await asyncio.wait_for(news.wait(), max(0.0, min(HEARTBEAT_SECONDS - quiet_seconds, HEAL_SECONDS)))
        except TimeoutError:
            await _in_database(ring_overdue, [self._thread_id], seconds=HEAL_SECONDS)
        if time.monotonic() - self._checked_at < RECHECK_SECONDS:
            return True
        self._checked_at = time.monotonic()
        return bool(await _in_database(self._may_stay))

    def _told(self, events: list[str]) -> list[str]:
        """With a sign of life, where there has been none for long."""
        now = time.monotonic()
        if not events and now - self._told_at >= HEARTBEAT_SECONDS:
            events = [": keep-alive\n\n"]
        self._told_at = now if events else self._told_at
        return events


async def _in_database(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call it in a thread of the event loop's pool: a response that waits holds neither a thread nor a connection."""
    return await database_sync_to_async(function, thread_sensitive=False)(*args, **kwargs)


def _data(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class AnswerSource:
    """One answer as the AI SDK's UI message stream."""

    def __init__(self, teller: AnswerTeller) -> None:
        self._teller = teller
        self.is_over = False

    def read(self) -> list[str]:
        """See Source. One that is cut has no end: its client begins anew."""
        try:
            chunks = self._teller.look()
        except ThreadNotFoundError:
            self.is_over = True
            return [_chunk({"type": "error", "errorText": "The thread is gone."}), _DONE]
        self.is_over = self._teller.is_over
        told = [_chunk(chunk) for chunk in chunks]
        return [*told, _DONE] if self.is_over and not self._teller.is_cut else told


def _chunk(chunk: Chunk) -> str:
    return f"data: {_data(chunk)}\n\n"


class FrameSource:
    """One thread in the frames of the websocket, each with the cursor after it as its id."""

    is_over = False

    def __init__(self, reader: ThreadReader, *, name: str, tail: int) -> None:
        self._reader = reader
        self._name = name
        """The thread's id as the client wrote it, which may be the client's own: every frame carries this one."""
        self._tail = tail
        self._has_begun = False

    def read(self) -> list[str]:
        """See Source."""
        before = self._reader.cursor
        try:
            frames = self._reader.news() if self._has_begun else self._first()
        except ThreadNotFoundError:
            self.is_over = True
            gone = {"type": "error", "code": "thread_not_found", "message": "The thread is gone.", "retryable": False}
            return [_chunk(gone | {"thread": self._name})]
        self._has_begun = True
        return list(self._events(frames, before))

    def _first(self) -> list[Frame]:
        """As the websocket answers a request without an id."""
        answer, *others = self._reader.begin(tail=self._tail)
        return [answer | {"id": None}, *others]

    def _events(self, frames: list[Frame], before: Cursor) -> Iterator[str]:
        at = before
        for frame in frames:
            at = self._reader.cursor if frame["type"] == "snapshot" else _after(frame, at)
            yield f"id: {at.rev}.{at.stream}.{at.seq}\n{_chunk(frame | {'thread': self._name})}"


def _after(frame: Frame, cursor: Cursor) -> Cursor:
    """The cursor of a client that has seen this frame, too."""
    if frame["type"] == "delta":
        return Cursor(rev=cursor.rev, stream=frame["stream"], seq=frame["seq"])
    return Cursor(rev=max(cursor.rev, frame["rev"]), stream=cursor.stream, seq=cursor.seq)


def cursor_of(text: str) -> Cursor:
    """The cursor that an event's id says. Raises InvalidCursorError."""
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InvalidCursorError(text)
    return Cursor(rev=int(found[1]), stream=found[2], seq=int(found[3]))
