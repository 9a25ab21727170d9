"""Notify the websockets and event streams of one event loop about threads that may have changed.

A notification is only a hint to read the rows. A hub has one source of changes: the channel layer if it carries
messages between processes (``channel_layer_receiver``), otherwise the database (``database_poller``).
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
"""How long a lost hint may go unnoticed: every follower of a thread reads the rows this often even without a hint."""
INBOX_SIZE = 100


class Watcher(Protocol):
    """A subscriber to threads. Both methods are called on the event loop and must not block."""

    def on_change(self, thread_id: UUID) -> None:
        """Handle a possible change of the thread; its rows show whether it has changed."""

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Handle a published delta of the thread."""


class ChangeSource(Protocol):
    """Reports changes of threads to a hub; the source is the channel layer or the database."""

    async def follow(self, thread_id: UUID) -> None:
        """Report the changes of this thread from now on. Return within a second, even if the source fails: reporting
        then begins when the source works again.
        """

    def forget(self, thread_id: UUID) -> None:
        """Stop reporting the changes of this thread."""


class Hub:
    """The subscriptions of one event loop."""

    def __init__(self) -> None:
        self._watchers: dict[UUID, set[Watcher]] = {}
        self._source: ChangeSource = Receiver(self) if notifications.layer_crosses_processes() else Poller(self)

    @property
    def followed(self) -> Collection[UUID]:
        """The threads that have a watcher."""
        return self._watchers.keys()

    async def watch(self, thread_id: UUID, watcher: Watcher) -> None:
        """Report the changes of the thread to this watcher from now on. A second call changes nothing."""
        self._watchers.setdefault(thread_id, set()).add(watcher)
        try:
            await self._source.follow(thread_id)
        except BaseException:  # after a cancellation, the caller does not call ``unwatch``
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
            self._source.forget(thread_id)

    def on_change(self, thread_id: UUID) -> None:
        """Report that the thread may have changed."""
        for watcher in list(self._watchers.get(thread_id, ())):
            watcher.on_change(thread_id)

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Pass on a published delta."""
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
    """A watcher that queues notifications in order, at most ``INBOX_SIZE``, until its owner takes them.

    A client that reads slowly gets fewer notifications, not later and later ones: when the queue is full, it is reduced
    to one hint per thread to read the rows.
    """

    def __init__(self) -> None:
        self._news: deque[tuple[UUID, Frame | None]] = deque()
        self._arrived = asyncio.Event()

    def on_change(self, thread_id: UUID) -> None:
        """See Watcher. Adjacent notifications of the same thread are merged."""
        if not self._news or self._news[-1] != (thread_id, None):
            self._put(thread_id, None)

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """See Watcher."""
        self._put(thread_id, delta)

    def _put(self, thread_id: UUID, delta: Frame | None) -> None:
        if len(self._news) >= INBOX_SIZE:
            self._news = deque((one, None) for one in dict.fromkeys(one for one, _ in self._news))
        self._news.append((thread_id, delta))
        self._arrived.set()

    async def next(self) -> tuple[UUID, Frame | None]:
        """Wait for a notification, and return the oldest: the thread's id, and a delta or None."""
        while not self._news:
            self._arrived.clear()
            await self._arrived.wait()
        return self._news.popleft()


class News:
    """An event that is set whenever one thread may have changed: ``async with News(thread_id) as news``.

    Hints may be lost, and a channel layer that fails sends none. Therefore also read the thread regularly without one.
    """

    def __init__(self, thread_id: UUID) -> None:
        self._thread_id = thread_id
        self._event = asyncio.Event()

    def on_change(self, thread_id: UUID) -> None:
        """See Watcher."""
        self._event.set()

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """See Watcher. The waiting task reads the delta from its row."""
        self._event.set()

    # This is not a generator of ``contextlib``, because an event loop that shuts down would close the generator before
    # the task inside the block ends.

    async def __aenter__(self) -> asyncio.Event:
        await hub().watch(self._thread_id, self)
        return self._event

    async def __aexit__(self, *_: object) -> None:
        hub().unwatch(self._thread_id, self)
