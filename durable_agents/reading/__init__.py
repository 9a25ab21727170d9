"""Hides how Python code reads threads: their messages as values, a run as it goes on, a thread as a whole.

Nothing here writes. Who may see a thread is not asked here: that is for the edges, by the policy.
"""

from durable_agents.reading.export import export_thread
from durable_agents.reading.following import astream_thread, await_for_thread, stream_thread, wait_for_thread
from durable_agents.reading.messages import (
    Message,
    MessagesWithStream,
    OpenStream,
    after_position,
    fold_in,
    list_messages,
    list_messages_with_streams,
    list_threads,
    listed_messages,
    open_answer,
)

__all__ = [
    "Message",
    "MessagesWithStream",
    "OpenStream",
    "after_position",
    "astream_thread",
    "await_for_thread",
    "export_thread",
    "fold_in",
    "list_messages",
    "list_messages_with_streams",
    "list_threads",
    "listed_messages",
    "open_answer",
    "stream_thread",
    "wait_for_thread",
]
