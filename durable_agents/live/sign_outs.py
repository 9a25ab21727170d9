"""End websockets and event streams at once when their user signs out or is no longer allowed to sign in.

If the notification does not arrive, for example because the channel layer is down, the connection ends within a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from durable_agents import notifications
from durable_agents.delta_writer import Frame
from durable_agents.live.hub import hub
from durable_agents.policies import Asker


class SignOutWatch:
    """Follows the session and the user of one connection. It is registered with the hub as a watcher."""

    def __init__(self, asker: Asker, *, end: Callable[[], object], check: Callable[[], object]) -> None:
        """``end`` is called on the event loop when the session has ended. ``check`` is called when the account has
        changed. ``check`` must then find out whether the account is still valid.
        """
        self._end, self._check = end, check
        self._loop = asyncio.get_running_loop()
        session_key = getattr(getattr(asker, "session", None), "session_key", None)
        user_id = getattr(asker.user, "pk", None)
        self._session = notifications.session_topic(session_key) if session_key else None
        user = notifications.user_topic(user_id) if user_id is not None else None
        self._topics = [topic for topic in (self._session, user) if topic is not None]
        self._joining: asyncio.Task[None] | None = None
        if notifications.layer_crosses_processes():
            self._joining = self._loop.create_task(self._join())
        else:
            for topic in self._topics:
                notifications.listen_here(topic, self._on_change_here)

    async def _join(self) -> None:
        for topic in self._topics:
            hub().watch(topic, self)
            await hub().reports(topic)

    def stop(self) -> None:
        """Stop following the session and the user. A second call changes nothing."""
        for topic in self._topics:
            if self._joining is None:
                notifications.stop_listening(topic, self._on_change_here)
            else:
                self._joining.cancel()
                hub().unwatch(topic, self)

    def on_change(self, thread_id: UUID) -> None:
        """Handle a change of the session or the user. Here, ``thread_id`` is a topic from ``_topics``."""
        if thread_id == self._session:
            self._end()
        else:
            self._check()

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Do nothing. Only threads have deltas."""

    def _on_change_here(self, topic: UUID) -> None:
        self._loop.call_soon_threadsafe(self.on_change, topic)
