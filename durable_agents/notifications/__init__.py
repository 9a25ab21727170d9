"""Notify workers and clients that rows have changed.

Every notification is only a hint. If it cannot be sent, the failure is logged and no error is raised, because workers
and web processes also look for changes regularly.
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
from durable_agents.notifications.sign_outs import (
    connect_signals,
    listen_here,
    session_topic,
    stop_listening,
    user_topic,
)
from durable_agents.notifications.workers import notify_cluster, notify_workers, receive_notifications_here

__all__ = [
    "close_layer",
    "connect_signals",
    "flush_notifications",
    "group_of",
    "layer_crosses_processes",
    "layer_to_receive_from",
    "listen_here",
    "notify_clients",
    "notify_cluster",
    "notify_workers",
    "publish",
    "publish_through",
    "receive_notifications_here",
    "session_topic",
    "stop_listening",
    "user_topic",
]
