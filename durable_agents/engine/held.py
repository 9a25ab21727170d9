"""The table of the rows that this process holds. A row is a model step or a tool call."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from durable_agents.calls_not_begun_files import CallsNotBegun
from durable_agents.lifecycle import Claim

TRIAL_SECONDS = 1.0
"""The length of a suspect's first trial. A suspect is a row whose earlier workers died; it runs alone during its trial.
"""
MOST_DOUBLINGS = 12
"""The maximum number of times that the length of a trial is doubled. The longest trial takes about an hour.

During a trial, a suspect (a row whose earlier workers died) runs alone. Each trial takes twice as long as the row's
previous trial, because a row may run for a while before it crashes its worker.
"""

MOST_ABANDONED = 1000


@dataclass(kw_only=True)
class HeldRow:
    """A model step or tool call that this process works on."""

    claim: Claim
    task: asyncio.Task[None]
    overdue: asyncio.Event = field(default_factory=asyncio.Event)
    is_dropped: bool = False
    began_at: float = field(default_factory=time.monotonic)
    is_cleared: bool = False
    """Whether the row was a suspect (its earlier workers died) and has since run for long enough without a crash."""
    has_begun: bool = False
    """Whether the tool call has been given a slot. If so, the tool's function might have run."""
    has_ended: bool = False
    """Whether the tool's function has ended, so that the row no longer needs a slot."""

    @property
    def is_on_trial(self) -> bool:
        """Whether the row is a suspect (a row whose earlier workers died) and has not run for long enough yet.

        During the trial, the process claims nothing else.
        """
        return self.claim.is_suspect and not self.is_cleared

    @property
    def has_settled(self) -> bool:
        """Whether the row has run for a while without crashing the process."""
        return time.monotonic() - self.began_at >= TRIAL_SECONDS

    @property
    def has_outlived_its_trial(self) -> bool:
        """Whether the row, whose earlier workers died, has run alone for long enough to end its trial.

        A trial takes twice as long as the row's previous trial.
        """
        trial = TRIAL_SECONDS * 2 ** min(self.claim.clearances, MOST_DOUBLINGS)
        return self.is_on_trial and time.monotonic() - self.began_at >= trial


class HeldRows:
    """The rows that this process holds, by row id.

    A process may lose a row and claim it again. Therefore, most methods take the claim instead of the id. They do
    nothing if the row has a newer claim.
    """

    def __init__(self, *, on_slot_freed: Callable[[], None], not_begun: CallsNotBegun | None = None) -> None:
        """Set up an empty table. ``on_slot_freed`` is called when a slot becomes free.

        ``not_begun`` records the tool calls that have not begun. If this process dies, the process that recovers its
        calls reads this record.
        """
        self._rows: dict[UUID, HeldRow] = {}
        self._abandoned: deque[tuple[UUID, int]] = deque(maxlen=MOST_ABANDONED)
        self._on_slot_freed = on_slot_freed
        self._not_begun = not_begun

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[HeldRow]:
        return iter(list(self._rows.values()))

    @property
    def claims(self) -> list[Claim]:
        return [row.claim for row in self]

    def add(self, claim: Claim, task: asyncio.Task[None]) -> None:
        earlier = self._rows.get(claim.row_id)
        if earlier is not None:  # the lease expired, and this process claimed the row again
            earlier.task.cancel()
        self._rows[claim.row_id] = HeldRow(claim=claim, task=task)

    def remove(self, claim: Claim) -> None:
        """Remove a row whose task has ended."""
        if self.find(claim) is not None:
            del self._rows[claim.row_id]
            self._end_record(claim.row_id)
        self._on_slot_freed()

    def expect(self, row_id: UUID) -> None:
        """Record a tool call that this process is going to hold but has not begun."""
        if self._not_begun is not None:
            self._not_begun.add(row_id)

    def forget_expected(self, row_id: UUID) -> None:
        """Delete the record that ``expect`` made, for example because the claim was rolled back.

        Do nothing if this process holds the tool call.
        """
        if row_id not in self._rows:
            self._end_record(row_id)

    def _end_record(self, row_id: UUID) -> None:
        if self._not_begun is not None:
            self._not_begun.remove(row_id)

    def find(self, claim: Claim) -> HeldRow | None:
        """Return the row with exactly this claim, or None. Safe to call from any OS thread."""
        row = self._rows.get(claim.row_id)
        return row if row is not None and row.claim is claim else None

    def drop(self, row_ids: Collection[UUID]) -> None:
        """Cancel the tasks of these rows. This also closes their connections to model providers.

        Used for rows that another process holds now, or whose outcome is already stored.
        """
        for row in self:
            # Cancel a task only once. After the first cancellation, the task records the usage of its model call. A
            # second cancellation would interrupt this work.
            if row.claim.row_id in row_ids and not row.is_dropped:
                row.is_dropped = True
                row.task.cancel()

    def drop_claim(self, claim: Claim) -> None:
        """Stop working on the row of this claim."""
        if self.find(claim) is not None:
            self.drop({claim.row_id})

    def keep(self, claim: Claim) -> None:
        """Mark the row, so that ``drop`` does not cancel its task. The task releases the row itself."""
        row = self.find(claim)
        if row is not None:
            row.is_dropped = True

    def abandon(self, claim: Claim) -> None:
        """Remember that this process gave up the row after an error. Its lease may still be in the database."""
        self._abandoned.append((claim.row_id, claim.fence))

    def knows(self, claim: Claim) -> bool:
        """Return whether this process holds the row of this claim, or has given it up with ``abandon``."""
        row = self._rows.get(claim.row_id)
        is_held = row is not None and row.claim.fence == claim.fence
        return is_held or (claim.row_id, claim.fence) in self._abandoned

    def is_stopped(self, claim: Claim) -> bool:
        """Return whether the outcome of this row is no longer wanted. Safe to call from any OS thread."""
        row = self.find(claim)
        return row is None or row.is_dropped

    def begin(self, claim: Claim) -> None:
        """Record that the tool's function may run from now on."""
        self._end_record(claim.row_id)
        row = self.find(claim)
        if row is not None:
            row.has_begun = True

    def end_function(self, claim: Claim) -> None:
        """Record that the tool's function has ended. This frees the call's slot, although the outcome is not stored
        yet.
        """
        row = self.find(claim)
        if row is not None:
            row.has_ended = True
            self._on_slot_freed()

    def mark_overdue(self, row_ids: Collection[UUID]) -> None:
        """Wake the tasks that wait in ``overdue`` for these rows."""
        for row in self:
            if row.claim.row_id in row_ids:
                row.overdue.set()

    async def overdue(self, claim: Claim) -> None:
        """Wait until ``mark_overdue`` reports that the deadline of this tool call has passed.

        The deadline may have been extended since the report. In this case, call this method again.
        """
        row = self.find(claim)
        if row is not None:
            await row.overdue.wait()
            row.overdue.clear()

    def claim_of(self, task: asyncio.Task[object] | None) -> Claim | None:
        """Return the claim of the row that this task works on, or None.

        A tool call can have a second task, which runs the tool's function. The name of the second task is the row's id.
        """
        name = task.get_name() if task else ""
        return next((row.claim for row in self if row.task is task or str(row.claim.row_id) == name), None)

    def holds(self, thread_id: UUID) -> bool:
        """Return whether this process holds a row of this chat thread."""
        return any(row.claim.thread_id == thread_id for row in self._rows.values())

    @property
    def streams(self) -> int:
        """The number of model steps that this process holds."""
        return sum(1 for row in self if row.claim.kind == "stream")

    @property
    def running_tools(self) -> int:
        """The number of tool calls whose functions have not ended."""
        return sum(1 for row in self if row.claim.kind == "tool" and not row.has_ended)
