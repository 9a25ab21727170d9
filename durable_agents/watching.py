"""Hides how a web process learns that a thread may have news: by hints of the channel layer, or from one poller of the
process where the layer does not cross processes. Either only says when to look; what there is is in the rows.
"""

from __future__ import annotations

import asyncio
import contextlib
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


class News:
    """Rings whenever one thread may have news, from the moment on in which its block begins: ``async with News(id) as
    news``, then ``await news.wait()``.

    A hint may be lost, and a channel layer that does not answer gives none: look now and then without one.
    """

    def __init__(self, thread_id: UUID) -> None:
        self._thread_id = thread_id
        self._event = asyncio.Event()
        self._channel: str | None = None
        self._listening: asyncio.Task[None] | None = None

    def look(self, thread_id: UUID) -> None:
        """See Watcher."""
        self._event.set()

    # No generator of ``contextlib``: a loop that is shut down closes it before whoever stands in the block.

    async def __aenter__(self) -> asyncio.Event:
        if outbound.layer_crosses_processes():
            await self._listen_to_hints()
        else:
            poller().watch(self._thread_id, self)
        return self._event

    async def __aexit__(self, *_: object) -> None:
        poller().unwatch(self._thread_id, self)
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(Exception):  # a layer that does not answer forgets the channel by itself
                await _layer().group_discard(outbound.group_of(self._thread_id), self._channel)

    async def _listen_to_hints(self) -> None:
        try:
            self._channel = str(await _layer().new_channel("durable_agents"))
            await _layer().group_add(outbound.group_of(self._thread_id), self._channel)
        except Exception:
            log_error("the channel layer does not answer", action="watch", thread=self._thread_id)
            return
        self._listening = asyncio.get_running_loop().create_task(self._listen(self._channel))

    async def _listen(self, channel: str) -> None:
        while True:
            try:
                await _layer().receive(channel)
            except Exception:
                log_error("a hint could not be received", action="watch", thread=self._thread_id)
                await asyncio.sleep(1)
            self._event.set()


def _layer() -> Any:
    return get_channel_layer()
