"""Notify the websockets and event streams of one event loop about threads that may have changed.

After a notification, a subscriber reads the thread's rows to see what has changed. Notifications come from the channel
layer if it reaches other processes (``channel_layer_receiver``). Otherwise, they come from polling the database
(``database_poller``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

from durable_agents import notifications
from durable_agents.delta_writer import Frame
from durable_agents.live.channel_layer_receiver import Receiver
from durable_agents.live.database_poller import Poller

HEAL_SECONDS = 4
"""Interval at which every subscriber reads its thread even without a notification, because notifications can be lost.
"""


class Watcher(Protocol):
    """A subscriber to threads. Its methods are called on the event loop and must not block."""

    def on_change(self, thread_id: UUID) -> None:
        """Handle a notification that the thread may have changed. Read the thread's rows to see what has changed."""

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Handle a delta: a new piece of the answer that the model is streaming in this thread."""


class ChangeSource(Protocol):
    """Reports changes of threads to a hub. ``Receiver`` uses the channel layer, and ``Poller`` uses the database."""

    async def follow(self, thread_id: UUID) -> None:
        """Start to report changes of this thread. Return within a second, even if the source of notifications is down.

        If the source is down, reports begin when it works again.
        """


class Hub:
    """All subscribers of one event loop. The hub passes each notification on to the subscribers of the thread."""

    def __init__(self) -> None:
        self._watchers: dict[UUID, set[Watcher]] = {}
        self._source: ChangeSource = Receiver(self) if notifications.layer_crosses_processes() else Poller(self)

    @property
    def followed(self) -> Collection[UUID]:
        """The threads that have a watcher."""
        return self._watchers.keys()

    def watch(self, thread_id: UUID, watcher: Watcher) -> None:
        """Start to report changes of the thread to this watcher. A second call changes nothing."""
        self._watchers.setdefault(thread_id, set()).add(watcher)

    async def reports(self, thread_id: UUID) -> None:
        """Wait until changes of a watched thread are reported, but at most a second.

        If the source of notifications is down, reports begin when it works again.
        """
        await self._source.follow(thread_id)

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
        """Pass a delta (a piece of a streamed answer) on to the thread's watchers."""
        for watcher in list(self._watchers.get(thread_id, ())):
            watcher.on_delta(thread_id, delta)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """Return the hub of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub()
    return _hubs[loop]


class News:
    """An event that is set whenever a thread may have changed. Usage: ``async with News(thread_id) as news``.

    Notifications can be lost, for example while the channel layer is down. Callers must therefore also read the thread
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

    # Do not use ``asynccontextmanager`` instead of these methods. Its generator would be closed when the event loop
    # shuts down, before the ``async with`` block ends.

    async def __aenter__(self) -> asyncio.Event:
        hub().watch(self._thread_id, self)
        try:
            await hub().reports(self._thread_id)
        except BaseException:
            # ``__aexit__`` is not called if this method raises, for example because it is cancelled.
            hub().unwatch(self._thread_id, self)
            raise
        return self._event

    async def __aexit__(self, *_: object) -> None:
        hub().unwatch(self._thread_id, self)
