"""Serve the changes of a thread as server-sent events.

The events come from the same feed as the frames of websockets. The feed reads a change once for all clients of a
process that have seen the same part of the thread. A delta that arrives as a notification is passed on without a read.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection
from uuid import UUID

from durable_agents.delta_writer import Frame
from durable_agents.exceptions import InvalidCursorError, ThreadNotFoundError
from durable_agents.live.caller_limits import Slot
from durable_agents.live.database_threads import in_database
from durable_agents.live.encoded_frame import EncodedFrame
from durable_agents.live.frame_sender import MAX_WAITING
from durable_agents.live.personal_frames import PersonalFrames
from durable_agents.live.reader import Cursor, ThreadReader, thread_gone
from durable_agents.live.sign_outs import SignOutWatch
from durable_agents.live.socket_checks import CheckedAsker, Finding, recheck, socket_checks
from durable_agents.live.sse import HEARTBEAT_SECONDS, KEEP_ALIVE, event
from durable_agents.live.thread_feed import Subscription, feeds, follow, unfollow
from durable_agents.logs import log_error
from durable_agents.policies import SignIn

_CURSOR = re.compile(r"(\d{1,18})\.([0-9a-f-]{36}|)\.(\d{1,18}|-1)", re.ASCII)


class EventSubscription(Subscription):
    """A subscription whose frames are sent as events. The id of each event is the client's cursor after the event."""

    def __init__(self, *, viewer: ThreadEvents, reader: ThreadReader, name: str) -> None:
        super().__init__(viewer=viewer, reader=reader, name=name)
        self._at = reader.cursor

    def send(self, frame: EncodedFrame) -> None:
        """Send a frame as an event."""
        self._at = self._cursor_after(frame.frame)
        at = self._at
        self.viewer.show(f"id: {at.rev}.{at.stream}.{at.seq}\ndata: {frame.text(self.encoded_name)}\n\n")

    def _cursor_after(self, frame: Frame) -> Cursor:
        at = self._at
        if frame["type"] == "snapshot":
            return self.reader.cursor
        if frame["type"] == "delta":
            return Cursor(rev=at.rev, stream=frame["stream"], seq=frame["seq"])
        return Cursor(rev=max(at.rev, frame["rev"]), stream=at.stream, seq=at.seq)


class ThreadEvents:
    """The changes of one thread for one client, as events in the frame format of the websocket.

    Usage: ``async with events``, then call ``next`` until it returns None. At the end, ``slot`` is released, so that
    the caller can open another event stream.
    """

    def __init__(
        self, reader: ThreadReader, *, asker: CheckedAsker, sign_in: SignIn, slot: Slot, name: str, tail: int
    ) -> None:
        """``name`` is the id by which the client's request named the thread: either the primary key, or the
        ``client_id`` that the client chose. Every frame repeats this id.
        """
        self.asker = asker
        self.sign_in: SignIn | None = sign_in
        self.caller = slot.caller
        self._slot = slot
        self._tail = tail
        self._reader = reader
        self._name = name
        self._waiting: list[str] = []
        self._waiting_size = 0
        self._sent_at = time.monotonic()
        self._news = asyncio.Event()
        self._has_begun = self._is_over = False
        self._check: asyncio.Task[None] | None = None

    # Do not use ``asynccontextmanager`` instead of these methods. Its generator would be closed when the event loop
    # shuts down, before the ``async with`` block ends.

    async def __aenter__(self) -> None:
        # Do not create the subscription in ``__init__``. The subscription and this object refer to each other, so only
        # the garbage collector can delete them. If the response's body is never read, the slot would stay occupied
        # until the garbage collector runs.
        self._subscription = EventSubscription(viewer=self, reader=self._reader, name=self._name)
        try:
            # Follow the thread before reading it, so that a change in between is not lost.
            await follow(self._subscription)
        except BaseException:
            unfollow(self._subscription)
            self._slot.release()
            raise
        self._sign_outs = SignOutWatch(self.asker, end=self._end, check=self._check_sign_in)
        socket_checks().add(self)

    async def __aexit__(self, *_: object) -> None:
        socket_checks().remove(self)
        self._sign_outs.stop()
        if self._check is not None:
            self._check.cancel()
        self._slot.release()
        unfollow(self._subscription)

    async def next(self) -> list[str] | None:
        """Wait until there is news, and return the new events. The first call returns the first events.

        Return a keep-alive comment if nothing was sent for ``HEARTBEAT_SECONDS``. Return None at the end of the stream.

        An error is logged and ends the stream. The error is not raised, because servers cannot handle an exception in
        the middle of a response body.
        """
        try:
            if not self._has_begun:
                self._has_begun = True
                await self._begin()
        except Exception:
            log_error("a stream of events broke off", action="events", thread=self._subscription.reader.thread_id)
            return None
        if not self._waiting and not self._is_over:
            await self._wait()
        events, self._waiting, self._waiting_size = self._waiting, [], 0
        self._news.clear()
        if self._is_over and not events:
            return None
        self._sent_at = time.monotonic()
        if (feed := feeds().get(self._subscription.reader.thread_id)) is not None:
            # The feed reads no rows for a client that reads too slowly. This client has caught up now.
            feed.start()
        return events or [KEEP_ALIVE]

    async def _begin(self) -> None:
        subscription = self._subscription
        try:
            frames = await in_database(self._first_frames, by=self.caller)()
        except ThreadNotFoundError:
            self.end(subscription)
            return
        for frame in frames:
            subscription.send(EncodedFrame(frame))
        subscription.end_read()

    def _first_frames(self) -> list[Frame]:
        reader = self._subscription.reader
        first, *others = reader.begin(tail=self._tail)
        # On a websocket, the first frame repeats the id of the client's request. Here, the request has no id.
        return list(map(PersonalFrames(self.asker, reader.facts).of, (first | {"id": None}, *others)))

    async def _wait(self) -> None:
        """Wait for news, but at most until the next keep-alive comment is due."""
        quiet_seconds = time.monotonic() - self._sent_at
        try:
            async with asyncio.timeout(max(0.0, HEARTBEAT_SECONDS - quiet_seconds)):
                await self._news.wait()
        except TimeoutError:
            pass

    # These methods implement ``thread_feed.Viewer``.

    @property
    def is_full(self) -> bool:
        """Whether the client reads too slowly."""
        return self._waiting_size > MAX_WAITING

    def show(self, text: str) -> None:
        """Send the text of an event."""
        if not self._is_over:
            self._waiting.append(text)
            self._waiting_size += len(text)
            self._news.set()

    def end(self, subscription: Subscription) -> None:
        """End the stream, because its thread is gone."""
        unfollow(subscription)
        self.show(event(thread_gone(subscription.name)))
        self._is_over = True

    # These methods implement ``socket_checks.CheckedSocket``.

    @property
    def thread_ids(self) -> Collection[UUID]:
        """The primary key of the thread."""
        return {self._subscription.reader.thread_id}

    def close_if_unresponsive(self) -> None:
        """Do nothing. Web servers notice when the client of a response is gone."""

    def apply(self, finding: Finding) -> None:
        """End the stream if the caller's sign-in is no longer valid, or the caller may no longer view the thread."""
        if finding.user is None or finding.hidden:
            self._end()
        else:
            self.asker.user = finding.user

    def _end(self) -> None:
        """End the stream at once, and drop the events that wait to be sent."""
        self._waiting.clear()
        self._is_over = True
        self._news.set()

    def _check_sign_in(self) -> None:
        """Check at once what the caller may still see, because the account has changed."""
        self._check = asyncio.get_running_loop().create_task(recheck([self]))


def cursor_of(text: str) -> Cursor:
    """Return the cursor that the id of an event contains. Raises InvalidCursorError."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise InvalidCursorError(text)
    return Cursor(rev=int(match[1]), stream=match[2], seq=int(match[3]))
