"""Send what is new in a thread to all websockets and event streams of one event loop that follow the thread.

A feed reads the rows of its thread once for all clients that have seen the same part of the thread, and serializes each
frame once.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

from durable_agents.delta_writer import Frame
from durable_agents.exceptions import ThreadNotFoundError
from durable_agents.live.database_threads import in_database
from durable_agents.live.encoded_frame import EncodedFrame, encode
from durable_agents.live.hub import hub
from durable_agents.live.personal_frames import Facts, PersonalFrames
from durable_agents.live.reader import Cursor, Sign, ThreadReader
from durable_agents.live_delivery_counts import Event, delivery_counts
from durable_agents.logs import log_error
from durable_agents.policies import Asker

MAX_HELD = 100
"""Maximum number of deltas that are kept for a subscription while rows are read for it. If more deltas arrive, all kept
deltas are dropped, and the rows are read again.
"""

LATE_SECONDS = 2.0
"""If a change is found in the rows and no notification arrives for this long, a notification counts as lost."""

RECENT_SECONDS = 1.0
"""This number has two uses in ``ThreadFeed.on_sign``.

- Maximum age of a notification that counts as recent.
- After a recent notification, the feed waits this long for the next notification before it reads the rows.
"""


class Viewer(Protocol):
    """The websocket or event stream of a subscription. Its methods must not block."""

    caller: str
    """The name of the caller, as in ``caller_limits``."""

    @property
    def is_full(self) -> bool:
        """Whether the client reads too slowly. If so, nothing should be sent to it for now."""

    @property
    def asker(self) -> Asker:
        """The caller, as policies see the caller."""

    def show(self, text: str) -> None:
        """Send the text of a frame."""

    def end(self, subscription: Subscription) -> None:
        """End a subscription whose thread is gone."""


class Subscription:
    """The subscription of a client to one thread."""

    def __init__(self, *, viewer: Viewer, reader: ThreadReader, name: str) -> None:
        self.viewer = viewer
        self.reader = reader
        self.name = name
        """The id by which the client's request named the thread: either the primary key, or the ``client_id`` that the
        client chose. Every frame repeats this id.
        """
        self.is_reading = True
        """Whether rows are being read for this subscription. A new subscription begins with a read of its own."""
        self.is_stale = False
        """Whether rows must be read. A notification may have arrived, or a delta that does not follow the last one."""
        self.encoded_name = encode(name)
        self._held: list[EncodedFrame] = []

    @property
    def is_due(self) -> bool:
        """Whether rows must be read for this subscription now.

        While the client reads too slowly, nothing is read or sent. When the client has caught up,
        ``ThreadFeed.refresh`` is called.
        """
        return self.is_stale and not self.is_reading and not self.viewer.is_full

    def take(self, delta: EncodedFrame) -> None:
        """Handle a new delta of the thread.

        - If rows are being read, keep the delta until ``end_read`` is called.
        - If the client already has the delta, ignore it.
        - If the delta directly follows the cursor and the client reads fast enough, send the delta.
        - Otherwise, record that the rows must be read.
        """
        cursor, frame = self.reader.cursor, delta.frame
        if self.is_reading:
            if len(self._held) == MAX_HELD:
                self._become_stale()
            # Do not keep the delta if the rows must be read again anyway. The next read includes the delta.
            self._held += [] if self.is_stale else [delta]
        elif frame["stream"] == cursor.stream and frame["seq"] <= cursor.seq:
            return
        elif not self.is_stale and not self.viewer.is_full and self.reader.accept(frame):
            self.send(delta)
        elif frame["stream"] == cursor.stream and not self.viewer.is_full:
            # An earlier delta of this stream has not arrived. Count the loss.
            self._become_stale()
        else:
            # Do not count a loss: a delta of another stream may just be early or late.
            self.is_stale = True

    def _become_stale(self) -> None:
        if not self.is_stale:
            delivery_counts().add(Event.STALE_THREAD)
        self.is_stale = True

    def show(self, frames: Iterable[EncodedFrame], cursor: Cursor) -> None:
        """Send frames that were read for this subscription, and move its cursor past them."""
        self.reader.cursor = cursor
        for frame in frames:
            self.send(frame)

    def send(self, frame: EncodedFrame) -> None:
        """Send a frame to the client. The cursor has already moved past the frame."""
        self.viewer.show(frame.text(self.encoded_name))

    def end_read(self) -> None:
        """Record that the rows were read, and send the deltas that arrived during the read."""
        self.is_reading = False
        held, self._held = self._held, []
        for delta in held if not self.is_stale else ():
            self.take(delta)


class ThreadFeed:
    """What is new in one thread, for all subscriptions of one event loop."""

    def __init__(self, thread_id: UUID) -> None:
        self.thread_id = thread_id
        self.subscriptions: set[Subscription] = set()
        self._task: asyncio.Task[None] | None = None
        self._notified_at = -math.inf
        """When the last notification about the thread arrived, by the monotonic clock."""

    def on_change(self, thread_id: UUID) -> None:
        """Start to read the rows for all subscriptions, because the rows may have changed."""
        self._notified_at = time.monotonic()
        for subscription in self.subscriptions:
            subscription.is_stale = True
        self.start()

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Pass a delta on to all subscriptions."""
        self._notified_at = time.monotonic()
        encoded = EncodedFrame(delta)
        for subscription in tuple(self.subscriptions):
            subscription.take(encoded)
        self.start()

    def on_sign(self, sign: Sign | None, *, read_at: float) -> None:
        """Read the rows for each subscription that has missed a change. This makes up for lost notifications.

        - ``sign`` is the thread's current fingerprint, or None if the thread was deleted.
        - ``read_at`` is the monotonic time just before the fingerprint was read.
        """
        if self._notified_at >= read_at - RECENT_SECONDS and sign is not None:
            # Notifications work, because one has arrived lately. First wait for the notification of this change.
            asyncio.get_running_loop().call_later(RECENT_SECONDS, self._read_if_behind, sign)
            return
        behind = self._behind(sign)
        if any(not one.is_reading and not one.is_stale for one in behind):
            asyncio.get_running_loop().call_later(LATE_SECONDS, self._count_if_lost, read_at)
        self._read_if_behind(sign)

    def _behind(self, sign: Sign | None) -> list[Subscription]:
        """Return the subscriptions that have not seen the thread's state with this fingerprint."""
        return [one for one in self.subscriptions if sign is None or sign.is_news_for(one.reader.cursor)]

    def _read_if_behind(self, sign: Sign | None) -> None:
        for subscription in self._behind(sign):
            subscription.is_stale = True
        self.start()

    def _count_if_lost(self, read_at: float) -> None:
        """If no notification has arrived since ``read_at``, count a lost notification."""
        if self._notified_at < read_at:
            delivery_counts().add(Event.HINT_NOT_RECEIVED)

    async def refresh(self, subscription: Subscription) -> None:
        """Read the rows for one subscription, and wait until the read has ended."""
        subscription.is_stale = True
        self.start()
        if self._task is not None:
            await asyncio.wait([self._task])

    def start(self) -> None:
        """Start to read rows if they must be read for a subscription. If a read is already running, do nothing."""
        is_idle = self._task is None or self._task.done()
        if is_idle and any(subscription.is_due for subscription in self.subscriptions):
            self._task = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        """Read rows while any subscription needs a read. One read serves all subscriptions with the same cursor."""
        try:
            while due := [subscription for subscription in self.subscriptions if subscription.is_due]:
                cursor = due[0].reader.cursor
                await self._read_for([one for one in due if one.reader.cursor == cursor], cursor)
        except Exception:
            # The rows are read again after the next notification, or by ``socket_checks.heal``.
            log_error("news could not be read for websockets", action="listen", thread=self.thread_id)

    async def _read_for(self, group: Sequence[Subscription], cursor: Cursor) -> None:
        for subscription in group:
            subscription.is_reading, subscription.is_stale = True, False
        reader, is_done = ThreadReader(self.thread_id, cursor), False
        read = in_database(reader.news, by=group[0].viewer.caller)
        try:
            frames = [EncodedFrame(frame) for frame in await read()]
            own = await _own_frames(group, frames, reader.facts)
            is_done = True
        except ThreadNotFoundError:
            for subscription in self.subscriptions.intersection(group):
                subscription.viewer.end(subscription)
        finally:
            for subscription in group:
                # A subscription may have ended during the read.
                if is_done and subscription in self.subscriptions:
                    subscription.show(own.get(subscription, frames), reader.cursor)
                subscription.is_stale = subscription.is_stale or not is_done or reader.has_more
                subscription.end_read()


async def _own_frames(
    group: Iterable[Subscription], frames: Sequence[EncodedFrame], facts: Facts
) -> Mapping[Subscription, Sequence[EncodedFrame]]:
    """Return each subscription's own version of the frames, or an empty mapping if all versions are the same."""
    if not any(facts.concern(frame.frame) for frame in frames):
        return {}

    def make() -> Mapping[Subscription, Sequence[EncodedFrame]]:
        return {one: PersonalFrames(one.viewer.asker, facts).all(frames) for one in group}

    # Make the frames of all viewers in one call. On a busy machine, a hundred calls one after the other would delay all
    # viewers by seconds.
    return await in_database(make)()


_feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[UUID, ThreadFeed]] = WeakKeyDictionary()


def feeds() -> dict[UUID, ThreadFeed]:
    """Return the feeds of the running event loop, by thread. Each has at least one subscription."""
    return _feeds.setdefault(asyncio.get_running_loop(), {})


async def follow(subscription: Subscription) -> None:
    """Start to send news of a thread to a subscription.

    Deltas are held back until the subscription's ``end_read`` is called.
    """
    thread_id = subscription.reader.thread_id
    feed = feeds().setdefault(thread_id, ThreadFeed(thread_id))
    feed.subscriptions.add(subscription)
    hub().watch(thread_id, feed)
    await hub().reports(thread_id)


def unfollow(subscription: Subscription) -> None:
    """Stop sending news to a subscription."""
    thread_id = subscription.reader.thread_id
    feed = feeds().get(thread_id)
    if feed is None:
        return
    feed.subscriptions.discard(subscription)
    if not feed.subscriptions:
        del feeds()[thread_id]
        hub().unwatch(thread_id, feed)
