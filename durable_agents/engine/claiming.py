"""Decide what a worker claims: as many due rows as it has free slots for, and suspects in a way that protects the
other rows.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from typing import TypedDict

from durable_agents import lifecycle
from durable_agents.agents import registry
from durable_agents.conf import config
from durable_agents.crashpoints import crashpoint
from durable_agents.engine.held import HeldRows
from durable_agents.engine.runtime import Runtime
from durable_agents.lifecycle import Claim, Ending, HandOver, Suspects

CLAIM_BATCH = 8
"""Rows won in one claim: small, so that workers which start together share what is due."""
SUSPECTS_SECONDS = 0.5
"""How long the answer to whether suspects are due is cached."""


class _Batch(TypedDict):
    """How many rows of each kind to claim at most."""

    streams: int
    tools: int


class Claimer:
    """Claims rows of some pools for one process, and starts them."""

    def __init__(
        self,
        runtime: Runtime,
        held: HeldRows,
        *,
        pools: Sequence[str],
        holder: str,
        start: Callable[[Claim], object],
        notify_others: Callable[[], Awaitable[None]],
    ) -> None:
        self.makes_room = False
        """Whether this is the one process of its cluster that finishes its rows in order to try a suspect alone."""
        self.left_some = True
        """Whether rows may be due for which there was no free slot when they were made or at the last claim."""
        self._left_meanwhile = False
        """Whether a transaction has left rows since the last claim began."""
        self._reserved_streams = 0
        self._reserved_tools = 0
        self._runtime = runtime
        self._held = held
        self._pools = pools
        self._holder = holder
        self._start = start
        self._notify_others = notify_others
        self._tried_suspects_last = False
        self._suspects_wait = False
        self._suspects_read_at = 0.0

    async def claim_due(self) -> int:
        """Claim due rows, as many as there are free slots but at most a batch, and start working on them. Returns the
        number of rows claimed.

        A suspect, whose earlier holders died, starts with a trial: until it has survived that, nothing else is claimed.
        """
        streams, tools = self.free_slots()
        # Most suspects were only held together with the culprit, or with each other when their workers were killed.
        for row in self._held:
            if row.has_outlived_its_trial:
                await self._runtime.in_database(lifecycle.clear, row.claim)
                row.is_cleared = True
        if any(row.is_on_trial for row in self._held):
            await self._notify_others()
            return 0
        self._left_meanwhile = False
        # One slot is left, once rows are held: what a transaction makes due while this claim runs would find all slots
        # reserved, and have to wait for the next claim.
        most = [max(1, free - 1) if free and self._held else free for free in (streams, tools)]
        batch: _Batch = {"streams": min(CLAIM_BATCH, most[0]), "tools": min(CLAIM_BATCH, most[1])}
        # Alternate, so that neither kind starves the other when many of both are due.
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
        """Return what this process takes over of what these endings make due, and reserve the slots for it; nothing
        while a suspect is on trial.
        """
        if any(row.is_on_trial for row in self._held):
            return None
        free_streams, free_tools = self.free_slots()
        if self.left_some:
            # New rows must not overtake those that wait for a slot, which may be of other owners. A share of the slots
            # is kept for them, not all: a slot would be idle until the next claim.
            free_streams -= _share(config().streams_per_process)
            free_tools -= _share(config().tool_threads)
        due_calls = sum(ending.due_calls for ending in endings)
        streams = min(max(0, free_streams), len({ending.claim.thread_id for ending in endings}))
        tools = min(max(0, free_tools), due_calls)
        if due_calls > tools:
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
        )

    def take_back(self, offer: HandOver | None) -> None:
        """Free the slots that were reserved; what was taken over holds slots of its own."""
        if offer is not None:
            self._reserved_streams -= offer.offered[0]
            self._reserved_tools -= offer.offered[1]

    def free_slots(self) -> tuple[int, int]:
        """Return how many more model steps and tool calls this process has room for. A hung thread keeps its slot."""
        streams = self._held.streams + self._reserved_streams
        tools = self._held.running_tools + self._reserved_tools + self._runtime.hung_threads()
        return max(0, config().streams_per_process - streams), max(0, config().tool_threads - tools)

    async def _try_suspects(self, *, streams: int, tools: int) -> int:
        """Claim suspects: alone if this process holds nothing, or beside rows that have run for a while if many are
        due or one has waited too long. Returns the number of rows claimed.

        When workers were killed, this clears their many suspects within seconds. A suspect whose holder died several
        times while it held nothing else waits for a process without other work.
        """
        if not await self._suspects_are_waiting():
            return 0
        if not self._held:
            kinds = [lifecycle.TRIED_BEFORE, lifecycle.FIRST_ACCUSED]
        elif all(row.has_settled for row in self._held):
            kinds = [lifecycle.CROWD, lifecycle.impatient()]
        else:
            return 0
        for suspects in kinds:
            if won := await self._claim(streams=streams, tools=tools, suspects=suspects):
                return won
        return 0

    async def _claim(self, *, streams: int, tools: int, suspects: Suspects | None = None) -> int:
        # A transaction that this process commits meanwhile must not take over rows for the same slots.
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
            crashpoint("claimed")
            self._start(claim)
        return len(won)

    async def _suspects_are_waiting(self) -> bool:
        """Whether any suspect is due; read from the database at most every ``SUSPECTS_SECONDS``."""
        if time.monotonic() - self._suspects_read_at > SUSPECTS_SECONDS:
            self._suspects_read_at = time.monotonic()
            self._suspects_wait = await self._runtime.in_database(
                lifecycle.suspects_wait, self._pools, code=registry.code()
            )
        return self._suspects_wait


def _share(slots: int) -> int:
    """Return how many of these slots are kept for claims while rows may wait."""
    return min(CLAIM_BATCH, ceil(slots / 2))
