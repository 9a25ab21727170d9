"""Hides how an answer that is being written is shown to callers who poll: folded into its message.

What is read is one state of the thread, the one at its ``rev``: a step that is committed meanwhile is not listed and
its stream still counts as open, so that no part is shown twice or is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from durable_agents.api.shapes import OpenStreamJSON
from durable_agents.models import OPEN_STREAM_STATES, Delta, Role, Stream, Thread
from durable_agents.parts import fold
from durable_agents.transcript import UIMessage


def open_answer(thread: Thread, *, from_number: int) -> Stream | None:
    """The stream that was open at the thread's ``rev``, unless its number is lower than ``from_number``."""
    newest = Stream.objects.filter(thread=thread, number=thread.last_number, number__gte=from_number)
    stream = newest.select_related("message").first()
    if stream is None or (stream.state not in OPEN_STREAM_STATES and stream.rev <= thread.rev):
        return None
    return stream


def fold_in(stream: Stream | None, messages: Sequence[UIMessage]) -> tuple[list[UIMessage], OpenStreamJSON | None]:
    """The messages with the stream's deltas in its own one, without answers that have no parts yet."""
    if stream is None:
        return _with_parts(messages), None
    message_id, seq = stream.message.shown_id, -1
    for message in messages:
        if message["id"] == message_id:
            seq = _append_deltas(message, stream)
    entry: OpenStreamJSON = {"id": str(stream.pk), "number": stream.number, "seq": seq, "message": message_id}
    return _with_parts(messages), entry


def _append_deltas(message: UIMessage, stream: Stream) -> int:
    """Append what the deltas say. Returns the seq of the last one, -1 if there is none."""
    deltas = list(Delta.objects.after(stream.pk, -1).values_list("seq", "chunks"))
    message["parts"] = message["parts"] + fold(chunk for _, chunks in deltas for chunk in chunks)
    return deltas[-1][0] if deltas else -1


def _with_parts(messages: Sequence[UIMessage]) -> list[UIMessage]:
    return [message for message in messages if message["parts"] or message["role"] != Role.ASSISTANT]
