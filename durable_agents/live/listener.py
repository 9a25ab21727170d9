"""Define the interface through which the sources of a hub report changes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from durable_agents.delta_writer import Frame


class Listener(Protocol):
    """Receives the changes of followed threads. The methods are called on the event loop and must not block."""

    @property
    def followed(self) -> Collection[UUID]:
        """The threads whose changes must be reported."""

    def on_change(self, thread_id: UUID) -> None:
        """Handle a possible change of the thread."""

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Handle a published delta of the thread."""
