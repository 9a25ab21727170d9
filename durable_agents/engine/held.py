"""The table of the rows that this process holds."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from uuid import UUID

from durable_agents.lifecycle import Claim

TRIAL_SECONDS = 1.0
"""How long the first trial of a suspect takes."""
MOST_DOUBLINGS = 12
"""A suspect may crash its worker later than that, so each further trial takes twice as long, up to about an hour."""

MOST_ABANDONED = 1000


@dataclass(kw_only=True)
class HeldRow:
    """A row that this process works on."""

    claim: Claim
    task: asyncio.Task[None]
    overdue: asyncio.Event = field(default_factory=asyncio.Event)
    is_dropped: bool = False
    began_at: float = field(default_factory=time.monotonic)
    is_cleared: bool = False
    """Whether the row was a suspect and has survived its trial."""
    has_ended: bool = False
    """Whether the tool's function has ended, so that it needs no thread any more."""

    @property
    def is_on_trial(self) -> bool:
        """Whether the row may have crashed its earlier holders, so that nothing else is claimed meanwhile."""
        return self.claim.is_suspect and not self.is_cleared

    @property
    def has_settled(self) -> bool:
        """Whether the row has run for a while without crashing the process."""
        return time.monotonic() - self.began_at >= TRIAL_SECONDS

    @property
    def has_outlived_its_trial(self) -> bool:
        """Whether the row is on trial and has run for long enough: twice as long after each earlier clearance."""
        trial = TRIAL_SECONDS * 2 ** min(self.claim.clearances, MOST_DOUBLINGS)
        return self.is_on_trial and time.monotonic() - self.began_at >= trial


class HeldRows:
    """The rows that this process holds, by row id. A row may be claimed again by the process that has lost it, so most
    methods take the claim and do nothing for one that is not the current one.
    """

    def __init__(self, *, on_slot_freed: Callable[[], None]) -> None:
        self._rows: dict[UUID, HeldRow] = {}
        self._abandoned: deque[tuple[UUID, int]] = deque(maxlen=MOST_ABANDONED)
        self._on_slot_freed = on_slot_freed

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[HeldRow]:
        return iter(list(self._rows.values()))

    @property
    def claims(self) -> list[Claim]:
        """The claims of all rows."""
        return [row.claim for row in self]

    def add(self, claim: Claim, task: asyncio.Task[None]) -> None:
        """Add a row and the task that works on it."""
        earlier = self._rows.get(claim.row_id)
        if earlier is not None:  # its lease ran out, and this very process won the row again
            earlier.task.cancel()
        self._rows[claim.row_id] = HeldRow(claim=claim, task=task)

    def remove(self, claim: Claim) -> None:
        """Remove a row whose task has ended."""
        if self.find(claim) is not None:
            del self._rows[claim.row_id]
        self._on_slot_freed()

    def find(self, claim: Claim) -> HeldRow | None:
        """Return the row of this very claim. May be called from any thread."""
        row = self._rows.get(claim.row_id)
        return row if row is not None and row.claim is claim else None

    def drop(self, row_ids: Collection[UUID]) -> None:
        """Stop working on rows that have another holder or are settled; this closes the model's connection."""
        for row in self:
            if row.claim.row_id in row_ids and not row.is_dropped:  # once: it may be recording what it has used
                row.is_dropped = True
                row.task.cancel()

    def drop_claim(self, claim: Claim) -> None:
        """Stop working on one row."""
        if self.find(claim) is not None:
            self.drop({claim.row_id})

    def keep(self, claim: Claim) -> None:
        """Let the task of this row continue even if the row is lost: the task releases the row itself."""
        row = self.find(claim)
        if row is not None:
            row.is_dropped = True

    def abandon(self, claim: Claim) -> None:
        """Remember that this row was begun, and that an error may have left it under a lease of this process."""
        self._abandoned.append((claim.row_id, claim.fence))

    def knows(self, claim: Claim) -> bool:
        """Whether this process holds this row, or has begun it and abandoned it."""
        row = self._rows.get(claim.row_id)
        is_held = row is not None and row.claim.fence == claim.fence
        return is_held or (claim.row_id, claim.fence) in self._abandoned

    def is_stopped(self, claim: Claim) -> bool:
        """Whether the outcome of this row is no longer wanted; may be called from any thread."""
        row = self.find(claim)
        return row is None or row.is_dropped

    def end_function(self, claim: Claim) -> None:
        """Record that the function of this call has ended: another one may run while its outcome is stored."""
        row = self.find(claim)
        if row is not None:
            row.has_ended = True
            self._on_slot_freed()

    def mark_overdue(self, row_ids: Collection[UUID]) -> None:
        """End the waiting of ``overdue`` for these rows."""
        for row in self:
            if row.claim.row_id in row_ids:
                row.overdue.set()

    async def overdue(self, claim: Claim) -> None:
        """Wait until the time of this tool call is over by its row, which may be changed meanwhile; may be called
        again.
        """
        row = self.find(claim)
        if row is not None:
            await row.overdue.wait()
            row.overdue.clear()

    def claim_of(self, task: asyncio.Task[object] | None) -> Claim | None:
        """Return the row that a task works on, itself or under the row's name."""
        name = task.get_name() if task else ""
        return next((row.claim for row in self if row.task is task or str(row.claim.row_id) == name), None)

    def holds(self, thread_id: UUID) -> bool:
        """Whether a row of this thread is held."""
        return any(row.claim.thread_id == thread_id for row in self._rows.values())

    @property
    def streams(self) -> int:
        """Number of model steps."""
        return sum(1 for row in self if row.claim.kind == "stream")

    @property
    def running_tools(self) -> int:
        """Number of tool calls whose functions have not ended."""
        return sum(1 for row in self if row.claim.kind == "tool" and not row.has_ended)
