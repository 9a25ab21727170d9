"""Commit finished steps and tool calls, and start the rows that their commits hand over to this process. One
transaction commits everything that has finished while the last transaction ran.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain, repeat

from durable_agents import lifecycle
from durable_agents.engine.history_cache import RunHistories
from durable_agents.engine.runtime import LOCKED_WAITS_SECONDS, Runtime
from durable_agents.lifecycle import CallResult, Claim, Ended, Ending, Handed, HandOver, StepOutcome

MOST_TOGETHER = 64
"""How many rows one transaction commits at most. With more, the first rows would wait longer without much gain."""


class Endings:
    """The finished steps and tool calls that wait to be committed."""

    def __init__(self, runtime: Runtime, histories: RunHistories) -> None:
        self._runtime = runtime
        self._histories = histories
        self._waiting: list[tuple[Ending, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self.offer: Callable[[Sequence[Ending]], HandOver | None] = lambda _: None
        """Choose how many rows this process may take over, among the rows that a commit makes due. Slots are reserved
        for them until ``take_back`` is called.
        """
        self.take_back: Callable[[HandOver | None], None] = lambda _: None
        self.start: Callable[[Handed], object] = lambda _: None
        """Begin to work on a row that was handed over to this process."""

    async def end(self, claim: Claim, outcome: StepOutcome | CallResult) -> None:
        """Commit the outcome of a held row. If another transaction has locked the thread, try again later, while other
        rows are committed.

        Raises LeaseLostError, ThreadNotFoundError or a database error; nothing has been written then.
        """
        waits = chain(LOCKED_WAITS_SECONDS, repeat(LOCKED_WAITS_SECONDS[-1]))
        ending = Ending(claim=claim, outcome=outcome)
        while True:
            committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((ending, committed))
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._commit_all())
            try:
                return await committed
            except lifecycle.ThreadHeldError:
                await asyncio.sleep(next(waits))

    async def settle(self, *, seconds: float) -> list[Handed]:
        """Wait until nothing is being committed, but for at most ``seconds``. Return the rows that were handed over
        meanwhile; they were not started.
        """
        left: list[Handed] = []
        if self._task is not None and not self._task.done():
            start, self.start = self.start, left.append
            await asyncio.wait([self._task], timeout=seconds)
            self.start = start
        return left

    async def _commit_all(self) -> None:
        while self._waiting:
            group = self._next_group()
            endings = [ending for ending, _ in group]
            offer = self.offer(endings)
            try:
                results: Sequence[Ended | Exception] = await self._runtime.in_database(
                    lifecycle.end_together, endings, hand_over=offer
                )
            except Exception as error:
                results = [error] * len(group)
            finally:
                self.take_back(offer)
            for (ending, committed), result in zip(group, results, strict=True):
                self._finish(ending, committed, result)

    def _next_group(self) -> list[tuple[Ending, asyncio.Future[None]]]:
        """Remove and return the steps and tool calls to commit next. If callbacks of the project run in the transaction
        of one of them, it is committed alone; the others are committed together.
        """
        self._waiting = [item for item in self._waiting if not item[1].cancelled()]
        alone = [item for item in self._waiting if lifecycle.has_callbacks_inside(item[0].claim)]
        if alone and alone[0] is self._waiting[0]:
            group = alone[:1]
        else:
            group = [item for item in self._waiting if item not in alone][:MOST_TOGETHER]
        self._waiting = [item for item in self._waiting if item not in group]
        return group

    def _finish(self, ending: Ending, committed: asyncio.Future[None], result: Ended | Exception) -> None:
        error = result if isinstance(result, Exception) else result.error
        if isinstance(result, Ended) and error is None:
            self._histories.note(ending, result)
            for handed in result.handed:
                self.start(handed)
        if committed.done():  # the task was cancelled during the transaction: nothing awaits the result
            return
        if error is None:
            committed.set_result(None)
        else:
            committed.set_exception(error)
