"""Store the progress that running tools report, a few times a second."""

from __future__ import annotations

import asyncio

from durable_agents import lifecycle
from durable_agents.engine.held import HeldRows
from durable_agents.engine.runtime import Runtime
from durable_agents.exceptions import DurableAgentsError
from durable_agents.lifecycle import Claim

PROGRESS_SECONDS = 0.25
"""The minimum time between two stored progress values of a call."""


class ProgressReports:
    """Saves the progress values that running tool calls report.

    If a call reports faster than values are saved, values in between are skipped. The final value is always saved.
    """

    def __init__(self, runtime: Runtime, held: HeldRows) -> None:
        self._runtime = runtime
        self._held = held
        self._newest: dict[Claim, object] = {}
        self._tasks: dict[Claim, asyncio.Task[None]] = {}

    def report(self, claim: Claim, value: object) -> None:
        """Store a value for a call that this process holds. Safe to call from any OS thread."""
        self._runtime.loop.call_soon_threadsafe(self._take, claim, value)

    def _take(self, claim: Claim, value: object) -> None:
        if self._held.find(claim) is None:
            return
        self._newest[claim] = value
        if claim not in self._tasks:
            self._tasks[claim] = self._runtime.loop.create_task(self._store(claim))

    async def _store(self, claim: Claim) -> None:
        try:
            while claim in self._newest:
                await self._runtime.in_transition(lifecycle.report_progress, claim, self._newest.pop(claim))
                await asyncio.sleep(PROGRESS_SECONDS)
        except DurableAgentsError:  # the call has ended, so its progress is not shown any more
            self._newest.pop(claim, None)
        finally:
            del self._tasks[claim]
