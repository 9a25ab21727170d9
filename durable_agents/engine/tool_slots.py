"""Limit how many tool calls a worker process runs at the same time, and how many more it keeps waiting."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from durable_agents.lifecycle import Claim

MOST_WAITING = 192
"""The maximum number of calls that wait for a slot."""
WAIT_SECONDS = 0.25
"""The planned maximum wait for a slot. If a call would probably wait longer, the process does not claim it."""
PATIENCE_SECONDS = 1.0
"""The maximum time that a call waits for a slot. After this time, another process should run the call."""
UNKNOWN_SECONDS = 3.0
"""The expected duration of a call if this process has not run its tool before."""
FORGETTING = 0.5
"""How slowly a tool's expected duration falls after a call that was faster than expected. The new value is the mean of
the expected duration and the call's duration. The weight of the expected duration in this mean is ``FORGETTING``.
"""

ToolName = tuple[str, str]
"""The names of an agent and of one of its tools."""


class ToolSlots:
    """The slots for tool calls. Each running call occupies one slot. Other calls wait in order.

    A process holds more calls than it has slots only if its tools are fast. If the tools are slow, another process
    could run the waiting calls earlier.
    """

    def __init__(self, size: Callable[[], int]) -> None:
        """``size`` returns the number of calls that may run at the same time."""
        self._size = size
        self._running: dict[Claim, tuple[ToolName, float]] = {}
        self._waiting: deque[tuple[Claim, ToolName, asyncio.Future[None]]] = deque()
        self._seconds: dict[ToolName, float] = {}
        """The expected duration of a call, by tool, from recent calls."""

    async def take(self, claim: Claim, tool: str) -> bool:
        """Wait for a slot. Return False if no slot is free within ``PATIENCE_SECONDS``.

        Call ``free`` afterwards in both cases. ``free`` also removes tool calls that have stopped waiting.
        """
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((claim, (claim.agent, tool), granted))
        self._grant()
        if not granted.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await granted
        return claim in self._running

    def free(self, claim: Claim) -> None:
        """Free the slot of a call, if it has one. Then give free slots to waiting calls."""
        tool, began_at = self._running.pop(claim, (None, 0.0))
        if tool is not None:
            took, usual = time.monotonic() - began_at, self._seconds.get(tool, 0.0)
            self._seconds[tool] = max(took, FORGETTING * usual + (1 - FORGETTING) * took)
        self._grant()

    def capacity(self, tools: Iterable[ToolName] | None = None) -> int:
        """Return how many calls this process may hold, running and waiting together.

        ``tools`` are the tools of the next calls. If they are not known yet, assume the slowest tool that has run in
        this process.
        """
        size, now = self._size(), time.monotonic()
        names = self._seconds if tools is None else tools
        expected = [self._seconds.get(name, UNKNOWN_SECONDS) for name in names]
        # If a running call has already taken longer than expected, expect at least the time that it has taken so far.
        running = [max(self._seconds.get(name, UNKNOWN_SECONDS), now - began) for name, began in self._running.values()]
        seconds = max([*expected, *running], default=UNKNOWN_SECONDS)
        return size + min(MOST_WAITING, int(size * WAIT_SECONDS / max(seconds, 0.001)))

    def _grant(self) -> None:
        while self._waiting and (len(self._running) < self._size() or self._waiting[0][2].done()):
            claim, tool, granted = self._waiting.popleft()
            if not granted.done():  # skip calls that were cancelled or have stopped waiting
                self._running[claim] = (tool, time.monotonic())
                granted.set_result(None)
