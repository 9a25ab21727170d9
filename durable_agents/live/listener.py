"""The interface of the hub for its sources, receiver and poller."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from durable_agents.delta_writer import Frame


class Listener(Protocol):
    """Receives changes of some threads. The methods are called on the event loop and must not block."""

    @property
    def followed(self) -> Collection[UUID]:
        """The threads whose changes the listener has to receive."""

    def on_change(self, thread_id: UUID) -> None:
        """Handle a possible change of the thread."""

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Take a published delta of the thread."""
