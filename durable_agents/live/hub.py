"""Notify the websockets and event streams of one event loop about threads that may have changed.

A notification is only a reason to read the rows. If the channel layer sends messages between processes, notifications
come from the channel layer (``channel_layer_receiver``). Otherwise, they come from polling the database
(``database_poller``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

from durable_agents import notifications
from durable_agents.delta_writer import Frame
from durable_agents.live.channel_layer_receiver import Receiver
from durable_agents.live.database_poller import Poller

HEAL_SECONDS = 5
"""Interval at which every subscriber reads its thread even without a notification, because notifications can be lost.
"""
INBOX_SIZE = 100


class Watcher(Protocol):
    """A subscriber to threads. Both methods are called on the event loop and must not block."""

    def on_change(self, thread_id: UUID) -> None:
        """Handle a notification that the thread may have changed. To know whether it has changed, read its rows."""

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Handle a delta, a new piece of the answer that the model is streaming in this thread."""


class ChangeSource(Protocol):
    """Reports changes of threads to a hub; the source is the channel layer or the database."""

    async def follow(self, thread_id: UUID) -> None:
        """Start to report changes of this thread. Return within a second, even if the source is down. In that
        case, reports begin when the source works again.
        """


class Hub:
    """The registry of all subscribers of one event loop. It passes each notification on to the subscribers of the
    thread.
    """

    def __init__(self) -> None:
        self._watchers: dict[UUID, set[Watcher]] = {}
        self._source: ChangeSource = Receiver(self) if notifications.layer_crosses_processes() else Poller(self)

    @property
    def followed(self) -> Collection[UUID]:
        """The threads that have a watcher."""
        return self._watchers.keys()

    async def watch(self, thread_id: UUID, watcher: Watcher) -> None:
        """Start to report changes of the thread to this watcher. A second call changes nothing."""
        self._watchers.setdefault(thread_id, set()).add(watcher)
        try:
            await self._source.follow(thread_id)
        except BaseException:
            # A caller that is cancelled while it waits here does not call ``unwatch`` itself.
            self.unwatch(thread_id, watcher)
            raise

    def unwatch(self, thread_id: UUID, watcher: Watcher) -> None:
        """Stop reporting the changes of the thread to this watcher."""
        watchers = self._watchers.get(thread_id)
        if watchers is None:
            return
        watchers.discard(watcher)
        if not watchers:
            del self._watchers[thread_id]

    def on_change(self, thread_id: UUID) -> None:
        """Notify the thread's watchers that the thread may have changed."""
        for watcher in list(self._watchers.get(thread_id, ())):
            watcher.on_change(thread_id)

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Pass a delta of a streamed answer on to the thread's watchers."""
        for watcher in list(self._watchers.get(thread_id, ())):
            watcher.on_delta(thread_id, delta)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """Return the hub of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub()
    return _hubs[loop]


class Inbox:
    """A watcher with a queue of at most ``INBOX_SIZE`` notifications, in order.

    When the queue is full, it is reduced to one notification per thread, which means that the rows must be read. A slow
    client therefore gets fewer notifications. Without this limit, the client's delay would grow without end.
    """

    def __init__(self) -> None:
        self._news: deque[tuple[UUID, Frame | None]] = deque()
        self._arrived = asyncio.Event()

    def on_change(self, thread_id: UUID) -> None:
        """Queue a notification, unless the newest notification in the queue is the same."""
        if not self._news or self._news[-1] != (thread_id, None):
            self._put(thread_id, None)

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Queue the delta."""
        self._put(thread_id, delta)

    def _put(self, thread_id: UUID, delta: Frame | None) -> None:
        if len(self._news) >= INBOX_SIZE:
            self._news = deque((one, None) for one in dict.fromkeys(one for one, _ in self._news))
        self._news.append((thread_id, delta))
        self._arrived.set()

    async def next(self) -> tuple[UUID, Frame | None]:
        """Wait until the queue has a notification, and return the oldest: the thread's id and the delta. If rows have
        changed, the delta is None.
        """
        while not self._news:
            self._arrived.clear()
            await self._arrived.wait()
        return self._news.popleft()


class News:
    """An event that is set whenever a thread may have changed: ``async with News(thread_id) as news``.

    Notifications can be lost, for example while the channel layer is down. Therefore, callers must also read the thread
    at intervals.
    """

    def __init__(self, thread_id: UUID) -> None:
        self._thread_id = thread_id
        self._event = asyncio.Event()

    def on_change(self, thread_id: UUID) -> None:
        """Set the event."""
        self._event.set()

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Set the event. The waiting task reads the delta from the database."""
        self._event.set()

    # Do not use ``asynccontextmanager`` here: its generator would be closed when the event loop shuts down, before the
    # ``async with`` block ends.

    async def __aenter__(self) -> asyncio.Event:
        await hub().watch(self._thread_id, self)
        return self._event

    async def __aexit__(self, *_: object) -> None:
        hub().unwatch(self._thread_id, self)
