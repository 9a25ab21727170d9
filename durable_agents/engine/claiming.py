"""Decide which due rows a worker claims, up to the number of its free slots.

A suspect is a row whose earlier workers died. Suspects are claimed separately, so that they cannot harm other rows.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from math import ceil
from typing import TypedDict

from durable_agents import lifecycle
from durable_agents.agents import registry
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.engine.held import HeldRows
from durable_agents.engine.runtime import Runtime
from durable_agents.engine.tool_slots import ToolName, ToolSlots
from durable_agents.lifecycle import Claim, Ending, HandOver, SuspectRule

CLAIM_BATCH = 8
"""The maximum number of rows of each kind in one claim. The number is small, so that workers that start together share
the due rows.
"""
SUSPECTS_SECONDS = 0.5
"""The minimum number of seconds between two queries that look for due suspects (rows whose earlier workers died)."""


class _Batch(TypedDict):
    """The maximum numbers of rows to claim in one batch."""

    streams: int
    tools: int


class Claimer:
    """Claims due rows (model steps and tool calls) for one worker process, and starts them.

    It claims only rows of this worker's pools.
    """

    def __init__(
        self,
        runtime: Runtime,
        held: HeldRows,
        slots: ToolSlots,
        *,
        pools: Sequence[str],
        holder: str,
        start: Callable[[Claim], object],
        notify_others: Callable[[], Awaitable[None]],
    ) -> None:
        self.makes_room = False
        """Whether this process makes room for suspects (rows whose earlier workers died), which must run alone. While a
        suspect is due, the process claims no other rows. One process of each cluster does this.
        """
        self.left_some = True
        """Whether this process might have left due rows unclaimed for lack of a free slot. This can happen at a claim,
        or when a commit makes rows due.
        """
        self._left_meanwhile = False
        """Whether a commit has made more rows due than there were free slots. Each claim first resets this value."""
        self._reserved_streams = 0
        self._reserved_tools = 0
        self._runtime = runtime
        self._held = held
        self._slots = slots
        self._pools = pools
        self._holder = holder
        self._start = start
        self._notify_others = notify_others
        self._tried_suspects_last = False
        self._suspects_wait = False
        self._suspects_read_at = 0.0

    async def claim_due(self) -> int:
        """Claim due rows and start them. Return the number of rows claimed.

        This claims one row for each free slot, but at most one batch. A suspect (a row whose earlier workers died) is
        on trial until it has run for a while. During the trial, this process claims nothing else.
        """
        streams, tools = self.free_slots()
        # End the trial of suspects (rows whose earlier workers died) that have run for long enough. Most suspects did
        # not crash their worker: another row did, or the worker was killed from outside.
        for row in self._held:
            if row.has_outlived_its_trial:
                await self._runtime.in_database(lifecycle.clear, row.claim)
                row.is_cleared = True
        if any(row.is_on_trial for row in self._held):
            await self._notify_others()
            return 0
        self._left_meanwhile = False
        # A process that holds rows may commit one of them during this claim. The commit can make another row due. Leave
        # one slot free for the new due row, so that it does not have to wait for the next claim.
        most = [max(1, free - 1) if free and self._held else free for free in (streams, tools)]
        batch: _Batch = {"streams": min(CLAIM_BATCH, most[0]), "tools": min(CLAIM_BATCH, most[1])}
        # Alternate between suspects (rows whose earlier workers died) and other rows. Otherwise, one kind would never
        # run while many rows of the other kind are due.
        won = 0 if self._tried_suspects_last else await self._try_suspects(**batch)
        self._tried_suspects_last = won > 0
        if not won and not (self.makes_room and await self._suspects_are_waiting()):
            won = await self._claim(**batch)
        if not won and not self._held:
            won = await self._claim(**batch, suspects=lifecycle.ANY_SUSPECT)
        self.left_some = (
            self._left_meanwhile or min(streams, tools) <= 0 or won >= min(batch["streams"], batch["tools"])
        )
        if min(streams, tools) <= 0:
            await self._notify_others()
        return won

    def offer(self, endings: Sequence[Ending]) -> HandOver | None:
        """Reserve slots for the rows that the commit of these steps and tool calls will make due.

        Return how many of the new due rows the commit may claim for this process. Return None while a suspect (a row
        whose earlier workers died) is on trial, because the suspect must run alone.
        """
        if any(row.is_on_trial for row in self._held):
            return None
        due_tools = [tool for ending in endings for tool in ending.due_tools]
        free_streams, free_tools = self.free_slots(due_tools)
        if self.left_some:
            # Older due rows may be waiting for the next claim. Keep some slots free for the older rows. Do not keep all
            # slots free, because they are idle until the next claim.
            free_streams -= _share(config().streams_per_process)
            free_tools -= _share(self._slots.capacity(due_tools))
        streams = min(max(0, free_streams), len({ending.claim.thread_id for ending in endings}))
        tools = min(max(0, free_tools), len(due_tools))
        if len(due_tools) > tools:
            self.left_some = self._left_meanwhile = True
        self._reserved_streams += streams
        self._reserved_tools += tools
        pools = [pool for pool in self._pools if config().pool(pool).limit is None]
        return HandOver(
            holder=self._holder,
            code=registry.code(),
            pools=pools,
            streams=streams,
            tools=tools,
            offered=(streams, tools),
            on_call=self._held.expect,
        )

    def take_back(self, offer: HandOver | None) -> None:
        """End the reservation of slots that the method ``offer`` has made.

        Call this when the commit has ended. Rows that the commit has claimed are held rows now, and keep their slots.
        """
        if offer is not None:
            self._reserved_streams -= offer.offered[0]
            self._reserved_tools -= offer.offered[1]
            for row_id in offer.calls:
                self._held.forget_expected(row_id)

    def free_slots(self, next_tools: Collection[ToolName] | None = None) -> tuple[int, int]:
        """Return two numbers: how many more model steps and how many more tool calls this process can hold.

        The number of tool calls depends on how fast their tools are. ``next_tools`` contains these tools, or is None if
        they are not known yet.
        """
        streams = self._held.streams + self._reserved_streams
        tools = self._held.running_tools + self._reserved_tools
        return max(0, config().streams_per_process - streams), max(0, self._slots.capacity(next_tools) - tools)

    async def _try_suspects(self, *, streams: int, tools: int) -> int:
        """Claim suspects (rows whose earlier workers died), and return the number of rows claimed.

        If this process holds no other rows, it may claim suspects at any time. If it holds other rows, it claims
        suspects only under these conditions:

        - All held rows have run for a while.
        - Many suspects are due, or a suspect has waited too long.
        """
        if not await self._suspects_are_waiting():
            return 0
        if not self._held:
            kinds = [lifecycle.TRIED_BEFORE, lifecycle.NEW_SUSPECTS]
        elif all(row.has_settled for row in self._held):
            kinds = [lifecycle.MANY_NEW_SUSPECTS, lifecycle.impatient()]
        else:
            return 0
        for suspects in kinds:
            if won := await self._claim(streams=streams, tools=tools, suspects=suspects):
                return won
        return 0

    async def _claim(self, *, streams: int, tools: int, suspects: SuspectRule | None = None) -> int:
        # Reserve the slots during the query. A concurrent commit of this process must not claim rows for the same
        # slots.
        self._reserved_streams += streams
        self._reserved_tools += tools
        try:
            won = await self._runtime.in_database(
                lifecycle.claim,
                pools=self._pools,
                holder=self._holder,
                streams=streams,
                tools=tools,
                code=registry.code(),
                suspects=suspects or False,
            )
        finally:
            self._reserved_streams -= streams
            self._reserved_tools -= tools
        for claim in won:
            if claim.kind == "tool":
                self._held.expect(claim.row_id)
            crashpoint("claimed")
            self._start(claim)
        return len(won)

    async def _suspects_are_waiting(self) -> bool:
        """Return whether any suspect (a row whose earlier workers died) is due.

        Query the database at most once every ``SUSPECTS_SECONDS``.
        """
        if time.monotonic() - self._suspects_read_at > SUSPECTS_SECONDS:
            self._suspects_read_at = time.monotonic()
            self._suspects_wait = await self._runtime.in_database(
                lifecycle.suspects_wait, self._pools, code=registry.code()
            )
        return self._suspects_wait


def _share(slots: int) -> int:
    """Return how many slots to leave free for rows that already wait: half of them, but at most ``CLAIM_BATCH``."""
    return min(CLAIM_BATCH, ceil(slots / 2))
