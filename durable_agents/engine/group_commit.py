"""Commit finished steps and tool calls in groups.

Steps and calls that finish during a transaction wait, and the next transaction commits them all. A commit can make more
rows due. The same transaction can claim these rows for this process, which then starts them.
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
"""The maximum number of rows that one transaction commits. A larger transaction would delay all its rows for little
gain.
"""


class Endings:
    """A queue of finished steps and tool calls. One transaction commits many of them."""

    def __init__(self, runtime: Runtime, histories: RunHistories) -> None:
        self._runtime = runtime
        self._histories = histories
        self._waiting: list[tuple[Ending, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self.offer: Callable[[Sequence[Ending]], HandOver | None] = lambda _: None
        """A function that decides how many newly due rows this process claims in a commit. It reserves slots for these
        rows until ``take_back`` is called.
        """
        self.take_back: Callable[[HandOver | None], None] = lambda _: None
        self.start: Callable[[Handed], object] = lambda _: None
        """A function that starts to work on a row that a commit of this process has made due and claimed."""

    async def end(self, claim: Claim, outcome: StepOutcome | CallResult) -> None:
        """Commit the outcome of a step or tool call that this process holds.

        If another transaction has locked the row of the chat thread, try again at intervals. Meanwhile, other rows are
        committed.

        Raises LeaseLostError, ThreadNotFoundError or a database error. After a database error, it is unknown whether
        the outcome was written. After any other error, the outcome was not written.
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
        """Wait until no commit is running, or until ``seconds`` have passed.

        Return the rows that commits claimed for this process during the wait. These rows have not been started.
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
            results: Sequence[Ended | Exception]
            try:
                try:
                    results = await self._runtime.in_database(lifecycle.end_together, endings, hand_over=offer)
                except Exception as error:
                    results = [error] * len(group)
                for (ending, committed), result in zip(group, results, strict=True):
                    self._finish(ending, committed, result)
            finally:
                self.take_back(offer)

    def _next_group(self) -> list[tuple[Ending, asyncio.Future[None]]]:
        """Choose the steps and tool calls of the next commit. Remove them from the queue, and return them.

        A row is committed alone if callbacks of the project run inside its transaction. All other rows are committed
        together.
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
        if committed.done():  # the task was cancelled during the transaction, so nothing awaits the result
            return
        if error is None:
            committed.set_result(None)
        else:
            committed.set_exception(error)
