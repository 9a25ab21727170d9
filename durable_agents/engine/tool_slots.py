"""Limit how many tool calls run at once in a worker process, and decide how many more calls the process may hold."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from durable_agents.lifecycle import Claim

MOST_WAITING = 64
"""How many calls wait for a slot at most."""
WAIT_SECONDS = 0.25
"""How long a call may be expected to wait for a slot."""
PATIENCE_SECONDS = 1.0
"""How long a call waits for a slot at most. After that, another process should run it."""
UNKNOWN_SECONDS = 3.0
"""How long a call is expected to take if this process has not run its tool before."""
FORGETTING = 0.5
"""The weight of the earlier calls in the estimate of a tool that has become faster."""

ToolName = tuple[str, str]
"""The names of an agent and of one of its tools."""


class ToolSlots:
    """The slots for tool calls. Each running call occupies one slot; further calls wait in order.

    A process holds calls that wait only if its tools are fast. With slow tools, the calls would wait while another
    process could run them.
    """

    def __init__(self, size: Callable[[], int]) -> None:
        """``size`` returns the number of calls that may run at once."""
        self._size = size
        self._running: dict[Claim, tuple[ToolName, float]] = {}
        self._waiting: deque[tuple[Claim, ToolName, asyncio.Future[None]]] = deque()
        self._seconds: dict[ToolName, float] = {}
        """How long a call of each tool took recently."""

    async def take(self, claim: Claim, tool: str) -> bool:
        """Wait until the call has a slot. Return False if it got none within ``PATIENCE_SECONDS``. The caller has to
        call ``free`` in any case.
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
        """Free the slot of a call that has ended. Do nothing if it has none."""
        tool, began_at = self._running.pop(claim, (None, 0.0))
        if tool is not None:
            took, usual = time.monotonic() - began_at, self._seconds.get(tool, 0.0)
            self._seconds[tool] = max(took, FORGETTING * usual + (1 - FORGETTING) * took)
        self._grant()

    def capacity(self, tools: Iterable[ToolName] | None = None) -> int:
        """Return how many calls this process may hold, running and waiting, if the next calls are calls of these tools.
        If the tools are not known yet, assume the slowest tool of those that have run in this process.
        """
        size, now = self._size(), time.monotonic()
        names = self._seconds if tools is None else tools
        expected = [self._seconds.get(name, UNKNOWN_SECONDS) for name in names]
        # A running call may take longer than the tool's calls before it.
        running = [max(self._seconds.get(name, UNKNOWN_SECONDS), now - began) for name, began in self._running.values()]
        seconds = max([*expected, *running], default=UNKNOWN_SECONDS)
        return size + min(MOST_WAITING, int(size * WAIT_SECONDS / max(seconds, 0.001)))

    def _grant(self) -> None:
        while self._waiting and (len(self._running) < self._size() or self._waiting[0][2].done()):
            claim, tool, granted = self._waiting.popleft()
            if not granted.done():  # otherwise the task was cancelled or has waited too long
                self._running[claim] = (tool, time.monotonic())
                granted.set_result(None)
