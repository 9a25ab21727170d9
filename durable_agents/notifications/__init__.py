"""Notify workers and clients that rows have changed.

Every notification is only a hint. A failure to send one is logged and never raised, because the next claim or the
sweep finds the due rows anyway.
"""

from durable_agents.notifications.client_sender import flush_notifications
from durable_agents.notifications.clients import (
    close_layer,
    group_of,
    layer_crosses_processes,
    layer_to_receive_from,
    notify_clients,
    publish,
    publish_through,
)
from durable_agents.notifications.workers import notify_cluster, notify_workers, receive_notifications_here

__all__ = [
    "close_layer",
    "flush_notifications",
    "group_of",
    "layer_crosses_processes",
    "layer_to_receive_from",
    "notify_clients",
    "notify_cluster",
    "notify_workers",
    "publish",
    "publish_through",
    "receive_notifications_here",
]
