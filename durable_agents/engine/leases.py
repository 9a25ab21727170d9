"""Extend the leases of the rows that this process holds. Detect lost leases and tool calls that take too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import UUID

from durable_agents import lifecycle
from durable_agents.conf import config
from durable_agents.engine.held import HeldRows
from durable_agents.engine.problem_reports import Attempts
from durable_agents.engine.runtime import Runtime
from durable_agents.lifecycle import Claim
from durable_agents.logs import log_error

CHECK_SECONDS = 0.5
GIVE_BACK_SECONDS = 1.0


class LeaseKeeper:
    """Extends the leases of the rows that this process holds, and stops work on rows whose lease is lost."""

    def __init__(self, runtime: Runtime, held: HeldRows, *, holder: str, health: Attempts) -> None:
        self._runtime = runtime
        self._held = held
        self._holder = holder
        self._health = health
        self._checked_at = time.monotonic()
        self._unknown: set[Claim] = set()

    @property
    def is_unsure(self) -> bool:
        """Whether the database might contain leases that this process does not know of, after a database failure."""
        return self._runtime.failed_at >= self._checked_at or bool(self._unknown)

    async def extend(self) -> None:
        """Extend the leases at intervals, until this task is cancelled."""
        while True:
            await asyncio.sleep(config().lease_seconds / 3)
            claims = self._held.claims
            if claims:
                self._health.begin()
                try:
                    lost = await self._runtime.in_lease_lane(lifecycle.heartbeat, claims)
                except Exception as error:
                    self._health.fail(error)
                    log_error("leases were not checked", action="heartbeat")
                    continue
                self._held.drop(lost)
            self._health.succeed()

    async def watch(self) -> None:
        """Look for lost leases and for tool calls past their deadline, at intervals, until this task is cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if not self._held:
                self._health.succeed()
            await self.drop_lost()
            self._held.mark_overdue(await self._read(lifecycle.overdue_calls))
            await self._give_back_unknown()

    async def drop_lost(self) -> None:
        """Stop working on rows that were stopped or that another process holds now."""
        self._held.drop(await self._read(lifecycle.lost_claims))

    async def _give_back_unknown(self) -> None:
        """Release rows that are leased to this process without its knowledge.

        This can happen after a database failure, if the response to the COMMIT of a claim was lost. Work on these rows
        has not begun.
        """
        if not self.is_unsure:
            return
        began = time.monotonic()
        try:
            async with asyncio.timeout(GIVE_BACK_SECONDS):  # a locked chat thread must not delay the other checks
                leased = await self._runtime.in_database(lifecycle.leased_to, self._holder)
                unknown = {claim for claim in leased if not self._held.knows(claim)}
                # Release a row only if two successive checks have found it. After only one check, this process might be
                # in the middle of claiming the row: the claim is in the database, but its work has not started.
                for claim in unknown & self._unknown:
                    await self._runtime.in_transition(lifecycle.release, claim, has_begun=False)
        except Exception:
            log_error("leases were not checked", action="heartbeat")
            return
        self._checked_at, self._unknown = began, unknown

    async def _read(self, query: Callable[[list[Claim]], set[UUID]]) -> set[UUID]:
        claims = self._held.claims
        if not claims:
            return set()
        try:
            return await self._runtime.in_lease_lane(query, claims)
        except Exception:
            log_error("leases were not checked", action="heartbeat")
            return set()
