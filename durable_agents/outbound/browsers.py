"""Doorbells to browsers: hints over the channel layer that a thread has news."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from django.db import transaction

from durable_agents.logs import log

Message = dict[str, Any]

_publisher: Callable[[str, Message], None] | None = None


def group_of(thread_id: UUID) -> str:
    """Name of the channel-layer group of a thread; made from the primary key, never from client text."""
    return f"durable_agents.{thread_id.hex}"


def layer_crosses_processes() -> bool:
    """Whether the project's channel layer carries messages from workers to web processes."""
    from channels.layers import InMemoryChannelLayer, get_channel_layer  # noqa: PLC0415 - workers may do without

    layer = get_channel_layer()
    return layer is not None and not isinstance(layer, InMemoryChannelLayer)


def ring_browsers(thread_id: UUID, *, using: str) -> None:
    """After commit: tell whoever watches the thread to look past their cursor."""
    message = {"type": "thread.changed", "thread": str(thread_id)}
    transaction.on_commit(lambda: publish(thread_id, message), using=using, robust=True)


def publish(thread_id: UUID, message: Message) -> None:
    """Send a message to whoever watches the thread, now. Never raises."""
    if not layer_crosses_processes():
        return  # the poller of each web process sees the rows
    try:
        (_publisher or _send)(group_of(thread_id), message)
    except Exception:
        log(logging.WARNING, "browsers were not told", action="ring_browsers", thread=thread_id)


def publish_through(publisher: Callable[[str, Message], None] | None) -> None:
    """In a worker: hand messages to its kept event loop, which the layer's connections are bound to."""
    global _publisher  # noqa: PLW0603 - one worker, one loop, one publisher
    _publisher = publisher


def _send(group: str, message: Message) -> None:
    from channels.layers import get_channel_layer  # noqa: PLC0415 - as above

    layer = get_channel_layer()
    if layer is not None:
        async_to_sync(layer.group_send)(group, message)
