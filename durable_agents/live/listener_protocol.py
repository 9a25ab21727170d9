"""The interface of an object that is notified about changes of threads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from durable_agents.delta_writer import Frame


class Listener(Protocol):
    """Receives notifications about followed threads. Its methods are called on the event loop and must not block."""

    @property
    def followed(self) -> Collection[UUID]:
        """The threads whose changes must be reported."""

    def on_change(self, thread_id: UUID) -> None:
        """Handle a notification that the thread may have changed."""

    def on_delta(self, thread_id: UUID, delta: Frame) -> None:
        """Handle a delta: a new piece of the answer that the model is streaming in this thread."""
