"""Cache the histories of the runs that this process works on. A change by another process invalidates a history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from durable_agents.lifecycle import Ended, Ending, Handed
from durable_agents.llm import MANY_MESSAGES, Turn
from durable_agents.models import Attachment, Stream, ToolCall
from durable_agents.parts import PART_STATES, CallOutcome
from durable_agents.transcript import step_of

MOST_UNHELD = 32


@dataclass(kw_only=True)
class RunHistory:
    """The history of a thread at one revision (``Thread.rev``). The last turn is the answer of the current run."""

    rev: int
    message_id: UUID
    message: str
    """The answer's public id. ``message_id`` is its primary key."""
    turns: Sequence[Turn]
    attachments: Mapping[UUID, Attachment]
    step: Stream | None = None
    """The last committed step, until ``close_step`` adds it to ``turns``. Its tool calls may still be running."""
    outcomes: dict[str, CallOutcome] = field(default_factory=dict)
    """The tool calls of ``step`` with their outcomes so far, by tool call id."""

    @property
    def waits_for_calls(self) -> bool:
        """Whether workers still have to finish a tool call of the last step."""
        return any(PART_STATES[outcome.status] == "input-available" for outcome in self.outcomes.values())

    def close_step(self) -> None:
        """Add the committed step and the outcomes of its calls to the last turn."""
        if self.step is None:
            return
        if self.step.parts:
            last = self.turns[-1]
            self.turns = [*self.turns[:-1], replace(last, steps=[*last.steps, step_of(self.step, self.outcomes)])]
        self.step, self.outcomes = None, {}


class RunHistories:
    """The cached histories, by thread."""

    def __init__(self) -> None:
        self._known: dict[UUID, RunHistory] = {}
        self._unheld: dict[UUID, None] = {}
        """Threads that have a cached history, but no row that this process holds. The oldest entry comes first."""

    def __len__(self) -> int:
        return len(self._known)

    def keep(self, thread_id: UUID, history: RunHistory) -> None:
        """Store a history that was read from the database."""
        self._known[thread_id] = history
        self._unheld.pop(thread_id, None)

    def release(self, thread_id: UUID) -> None:
        """Record that this process no longer holds a row of the thread.

        Keep the thread's history only if it is short, and if workers still have to finish a tool call of its last step.
        Of all the threads without a held row, keep at most ``MOST_UNHELD`` histories.
        """
        known = self._known.get(thread_id)
        if known is None:
            return
        if not known.waits_for_calls or len(known.turns) > MANY_MESSAGES:
            self.forget(thread_id)
            return
        self._unheld[thread_id] = None
        if len(self._unheld) > MOST_UNHELD:
            self.forget(next(iter(self._unheld)))

    def forget(self, thread_id: UUID) -> None:
        """Drop the thread's history."""
        self._known.pop(thread_id, None)
        self._unheld.pop(thread_id, None)

    def note(self, ending: Ending, ended: Ended) -> None:
        """Add a committed step or tool call to the history of its thread.

        If another process has changed the thread as well, drop the history instead.
        """
        thread_id, (before, after) = ending.claim.thread_id, ended.revs
        known = self._known.get(thread_id)
        if known is None:
            return
        if known.rev != before:
            self.forget(thread_id)
            return
        known.rev = after
        self._unheld.pop(thread_id, None)
        if isinstance(ended.row, Stream):
            known.close_step()
            known.step = ended.row
            known.outcomes = {call.tool_call_id: call.outcome() for call in ended.new_calls}
        elif isinstance(ended.row, ToolCall):
            known.outcomes[ended.row.tool_call_id] = ended.row.outcome()

    def of(self, handed: Handed) -> RunHistory | None:
        """Return the cached history for a model step that this process has just claimed.

        Return None if the history must be read from the database.
        """
        known = self._known.get(handed.claim.thread_id)
        if known is None or not isinstance(handed.row, Stream):
            return None
        if known.message_id != handed.row.message_id or known.rev != handed.thread.rev:
            return None
        known.close_step()
        return known
