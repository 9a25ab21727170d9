"""Read threads from Python: list messages, follow a run or wait for its end, search, report usage, and export.

These functions check no permissions; the views and the websocket check them with the policy.
"""

from durable_agents.reading.export import export_thread, exported
from durable_agents.reading.follow_run import (
    astream_thread,
    await_for_thread,
    latest_answer_of,
    stream_thread,
    wait_for_thread,
)
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
from durable_agents.reading.personal_view import PersonalView, waiting_calls, waiting_parts
from durable_agents.reading.read_only_reason import ReadOnlyJSON, read_only
from durable_agents.reading.search import MAX_SEARCH_CHARS, threads_with_text
from durable_agents.reading.ui_stream import AnswerStream, Seen, steps_in, waits_for_others
from durable_agents.reading.usage import UsageByModel, attempts, usage_by_model

__all__ = [
    "MAX_SEARCH_CHARS",
    "AnswerStream",
    "Message",
    "MessagesWithStream",
    "OpenStream",
    "PersonalView",
    "ReadOnlyJSON",
    "Seen",
    "UsageByModel",
    "after_position",
    "astream_thread",
    "attempts",
    "await_for_thread",
    "export_thread",
    "exported",
    "fold_in",
    "latest_answer_of",
    "list_messages",
    "list_messages_with_streams",
    "list_threads",
    "listed_messages",
    "open_answer",
    "read_only",
    "steps_in",
    "stream_thread",
    "threads_with_text",
    "usage_by_model",
    "wait_for_thread",
    "waiting_calls",
    "waiting_parts",
    "waits_for_others",
]
