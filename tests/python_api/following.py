"""A client that follows a thread from Python and keeps what it is sent."""

from durable_agents import lifecycle
from durable_agents.lifecycle import Append
from durable_agents.models import Delta
from durable_agents.parts import fold, text_of
from tests.lifecycle.histories import History


class FaithfulHistory(History):
    """A history in which a step says what its deltas have said, and more."""

    def _answer(self, claim, *, calls=0):
        made = [self._call() for _ in range(calls)]
        said = stored_text(claim.row_id) + "".join(self._words())
        self._then_drop(claim, lambda: self.worker.answer(said, *made, claim=claim))


def stored_text(stream_id):
    """Return what the stored deltas of a stream say."""
    return text_of(fold(chunk for delta in Delta.objects.after(stream_id, -1) for chunk in delta.chunks))


def begin_call(worker, claim, call):
    """Store a delta in which the model begins this call."""
    chunk = {"type": "tool-input-start", "toolCallId": call.tool_call_id, "toolName": call.tool_name}
    seq = worker.said.get(claim.row_id, 0)
    worker.said[claim.row_id] = seq + 1
    lifecycle.append_deltas([Append(claim=claim, seq=seq, chunks=[chunk])])
