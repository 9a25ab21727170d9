"""Poll the database for changes to followed threads. Used if the channel layer does not reach other processes."""

from __future__ import annotations

import asyncio
from uuid import UUID

from durable_agents.live.database_threads import in_database
from durable_agents.live.listener_protocol import Listener
from durable_agents.live.reader import Sign, signs_of
from durable_agents.logs import log_error

POLL_SECONDS = 0.1


class Poller:
    """Polls the database for changes to all followed threads of an event loop, with two queries each time.

    The polling ends when no thread is followed.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._signs: dict[UUID, Sign] = {}
        self._task: asyncio.Task[None] | None = None

    async def follow(self, thread_id: UUID) -> None:
        """Start to report changes of this thread."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._listener.followed:
            await asyncio.sleep(POLL_SECONDS)
            followed = list(self._listener.followed)
            try:
                signs: dict[UUID, Sign] = await in_database(signs_of)(followed)
                for thread_id in [pk for pk in followed if signs.get(pk) != self._signs.get(pk)]:
                    self._listener.on_change(thread_id)
                self._signs = {pk: sign for pk, sign in signs.items() if pk in self._listener.followed}
            except Exception:
                log_error("polling failed", action="poll")
                # Do not query a failing database ten times a second.
                await asyncio.sleep(1)
