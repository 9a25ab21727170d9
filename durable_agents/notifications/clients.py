"""Notify browsers over the channel layer that a thread has changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import transaction

from durable_agents.logs import log
from durable_agents.notifications.client_sender import Message, sender

CLOSE_SECONDS = 1.0

_publisher: Callable[[str, Message], None] | None = None


SHARDS = 8
"""The number of channel-layer groups. Each group serves many chat threads. With few groups, a worker needs few messages
for the changes of many threads, and a web process joins few groups.
"""


def group_of(thread_id: UUID) -> str:
    """Return the name of the channel-layer group that a thread belongs to. The name is made from the primary key only,
    never from text that a client sent.
    """
    return f"durable_agents.threads.{thread_id.int % SHARDS}"


def layer_crosses_processes() -> bool:
    """Return whether the project's channel layer carries messages from workers to web processes."""
    from channels.layers import InMemoryChannelLayer, get_channel_layer  # noqa: PLC0415 - not every worker needs it

    layer = get_channel_layer()
    return layer is not None and not isinstance(layer, InMemoryChannelLayer)


def notify_clients(thread_id: UUID, *, using: str) -> None:
    """After the commit, send a hint to all browsers that follow the thread: the thread has changed."""
    message = {"type": "thread.changed", "thread": str(thread_id)}
    transaction.on_commit(lambda: publish(thread_id, message), using=using, robust=True)


def publish(thread_id: UUID, message: Message) -> None:
    """Queue a message for the browsers that follow the thread. This function never raises and never waits."""
    if not layer_crosses_processes():
        return  # web processes get no messages, but poll the rows
    try:
        (_publisher or sender().put)(group_of(thread_id), message)
    except Exception:
        log(logging.WARNING, "browsers were not notified", action="ring_browsers", thread=thread_id)


def publish_through(publisher: Callable[[str, Message], None] | None) -> None:
    """Pass messages to ``publisher`` instead of the channel layer, for tests. None restores the channel layer."""
    global _publisher  # noqa: PLW0603 - for the tests of a project, one at a time
    _publisher = publisher


def layer_to_receive_from() -> Any:
    """Return a channel layer for one receiver.

    - For ``channels_redis``, this is a new layer object. The project's own object has a lock and a limited buffer,
      which the receiver must not share with the project's consumers.
    - For any other layer, this is the project's own object. Some layers keep their messages in the object.
    """
    from channels import DEFAULT_CHANNEL_LAYER  # noqa: PLC0415 - as above
    from channels.layers import channel_layers, get_channel_layer  # noqa: PLC0415

    layer = get_channel_layer()
    return channel_layers.make_backend(DEFAULT_CHANNEL_LAYER) if _is_of_channels_redis(layer) else layer


async def close_layer(layer: Any) -> None:
    """Close the connections of a layer object that ``layer_to_receive_from`` has created.

    If ``layer_to_receive_from`` returned the object that the project uses, do nothing. This function takes at most a
    second and never raises.
    """
    if not _is_of_channels_redis(layer):
        return
    # The two layer classes of ``channels_redis`` differ. ``RedisChannelLayer`` has ``close_pools``; its ``flush`` would
    # delete all messages. ``RedisPubSubChannelLayer`` has only ``flush``, which disconnects.
    close = layer.close_pools if hasattr(type(layer), "close_pools") else layer.flush
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await close()
    except Exception as error:
        log(logging.DEBUG, "a channel layer was not closed", action="watch", problem=type(error).__name__)


def _is_of_channels_redis(layer: object) -> bool:
    return any(one.__module__.startswith("channels_redis.") for one in type(layer).__mro__)
