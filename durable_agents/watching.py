"""Hides how a web process learns that a thread may have news: by hints of the channel layer, or from one poller of the
process where the layer does not cross processes. Either only says when to look; what there is is in the rows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from uuid import UUID
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from channels.layers import get_channel_layer

from durable_agents import outbound
from durable_agents.logs import log_error
from durable_agents.streaming import Sign, signs_of

POLL_SECONDS = 0.1
HEAL_SECONDS = 5
"""How long a lost hint may go unnoticed where the channel layer carries them."""


class Watcher(Protocol):
    """Somebody who follows threads."""

    def look(self, thread_id: UUID) -> None:
        """The thread may have news. Called on the event loop; must not block."""


class Poller:
    """Where the channel layer does not cross processes: one a web process asks which watched threads have news."""

    def __init__(self) -> None:
        self._watchers: dict[UUID, set[Watcher]] = {}
        self._signs: dict[UUID, Sign] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, thread_id: UUID, watcher: Watcher) -> None:
        """Tell this watcher from now on when the thread has news."""
        self._watchers.setdefault(thread_id, set()).add(watcher)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def unwatch(self, thread_id: UUID, watcher: Watcher) -> None:
        """Stop telling it."""
        watchers = self._watchers.get(thread_id, set())
        watchers.discard(watcher)
        if not watchers:
            self._watchers.pop(thread_id, None)
            self._signs.pop(thread_id, None)

    async def _run(self) -> None:
        while self._watchers:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._poll()
            except Exception:
                log_error("polling failed", action="poll")
                await asyncio.sleep(1)

    async def _poll(self) -> None:
        watched = list(self._watchers)
        signs: dict[UUID, Sign] = await database_sync_to_async(signs_of)(watched)
        for thread_id in watched:
            if signs.get(thread_id) != self._signs.get(thread_id):
                for watcher in list(self._watchers.get(thread_id, ())):
                    watcher.look(thread_id)
        self._signs = {pk: sign for pk, sign in signs.items() if pk in self._watchers}


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = WeakKeyDictionary()


def poller() -> Poller:
    """The poller of this process's event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _pollers:
        _pollers[loop] = Poller()
    return _pollers[loop]


class _Bell:
    """Rings an event for whoever follows one thread."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def look(self, thread_id: UUID) -> None:
        self._event.set()


@asynccontextmanager
async def news_of(thread_id: UUID) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever the thread may have news, from the moment on in which the block begins.

    A hint may be lost, and a channel layer that does not answer gives none: look now and then without one.
    """
    event = asyncio.Event()
    watching = _by_hints if outbound.layer_crosses_processes() else _by_polling
    async with watching(thread_id, event):
        yield event


@asynccontextmanager
async def _by_polling(thread_id: UUID, event: asyncio.Event) -> AsyncIterator[None]:
    bell = _Bell(event)
    poller().watch(thread_id, bell)
    try:
        yield
    finally:
        poller().unwatch(thread_id, bell)


@asynccontextmanager
async def _by_hints(thread_id: UUID, event: asyncio.Event) -> AsyncIterator[None]:
    layer: Any = get_channel_layer()
    group = outbound.group_of(thread_id)
    try:
        channel = await layer.new_channel("durable_agents")
        await layer.group_add(group, channel)
    except Exception:
        log_error("the channel layer does not answer", action="watch", thread=thread_id)
        yield
        return
    listening = asyncio.get_running_loop().create_task(_listen(layer, channel, event))
    try:
        yield
    finally:
        listening.cancel()
        with contextlib.suppress(Exception):  # a layer that does not answer forgets the channel by itself
            await layer.group_discard(group, channel)


async def _listen(layer: Any, channel: str, event: asyncio.Event) -> None:
    while True:
        try:
            await layer.receive(channel)
        except Exception:
            log_error("a hint could not be received", action="watch")
            await asyncio.sleep(1)
        event.set()
