"""Decide where a worker runs a function: on the event loop, on the database's OS thread, or on a new OS thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from django.db import Error, reset_queries

from durable_agents import lifecycle
from durable_agents.agents import Callback, is_async
from durable_agents.database_connections import close_all, discard, discard_after, discarding, is_outage
from durable_agents.engine.cancellation_source import cancelled_by_us_only
from durable_agents.engine.database_lane import DatabaseLane
from durable_agents.engine.resource_errors import Shortage, start
from durable_agents.exceptions import LeaseLostError
from durable_agents.lifecycle import Claim
from durable_agents.logs import log

P = ParamSpec("P")
R = TypeVar("R")

DATABASE_WAITS_SECONDS = (0.2, 1, 3)
LOCKED_WAITS_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Delays in seconds between attempts to lock the row of a chat thread. The last delay repeats."""

Loader = Callable[[Sequence[Claim]], Mapping[UUID, R]]


class Runtime(ABC):
    """Runs the functions of model steps and tool calls.

    The runtime of a worker uses several OS threads. The runtime of a test uses only the test's own OS thread.
    """

    loop: asyncio.AbstractEventLoop
    failed_at = 0.0
    """When the database last failed, as a value of ``time.monotonic()``."""

    def __init__(self) -> None:
        self._requested: dict[Loader[Any], dict[Claim, asyncio.Future[Any]]] = {}
        self._loading: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def in_database(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function on the connection for database work."""

    @abstractmethod
    async def in_transition(self, function: Callable[..., R], *args: object, **kwargs: object) -> R:
        """Run a ``lifecycle`` function that locks the row of a chat thread, on the connection for database work."""

    @abstractmethod
    async def in_lease_lane(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function that keeps leases alive, on a separate connection.

        On a shared connection, all leases could expire while another function waits for a row lock.
        """

    @abstractmethod
    async def in_history_lane(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function that reads a long history, on a separate connection.

        On a shared connection, the work of other chat threads would have to wait for this read.
        """

    @abstractmethod
    async def in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a developer's synchronous function in an OS thread where the function can use the ORM."""

    def hung_threads(self) -> int:
        """Return the number of OS threads that still run a function whose result nothing awaits any more."""
        return 0

    async def call_user(self, function: Callback, *args: object, **kwargs: object) -> Any:
        """Call a developer's function.

        A coroutine function runs on the event loop, and any other function in an OS thread.
        """
        call = partial(function, *args, **kwargs)
        with cancelled_by_us_only(RuntimeError(f"A CancelledError came out of {function!r}.")):
            return await (call() if is_async(function) else self.in_thread(call))

    async def load(self, function: Loader[R], claim: Claim) -> R:
        """Read the data for this claim with ``function``, and return it.

        If several tasks call this method at the same time, ``function`` is called once. Its argument is the list of
        all their claims, and its result is the data by row id.

        Raises LeaseLostError if the result contains no data for the row of this claim.
        """
        requested = self._requested.setdefault(function, {})
        if not requested:
            task = asyncio.create_task(self._load_together(function))
            self._loading.add(task)  # the event loop keeps only a weak reference to the task
            task.add_done_callback(self._loading.discard)
        requested[claim] = asyncio.get_running_loop().create_future()
        row: R = await requested[claim]
        return row

    async def _load_together(self, function: Loader[R]) -> None:
        requested = self._requested.pop(function)
        try:
            rows = await self.in_database(function, list(requested))
        except Exception as error:
            for future in requested.values():
                _set_exception(future, error)
            return
        for claim, future in requested.items():
            if claim.row_id in rows:
                _set_result(future, rows[claim.row_id])
            else:
                _set_exception(future, LeaseLostError(f"{claim.kind} {claim.row_id}"))


class WorkerRuntime(Runtime):
    """The runtime of a worker process.

    The process keeps one event loop until it exits, because the model library's connections belong to the loop.

    Two OS threads for database work also run until the process exits: one for general work and one for leases. A third
    starts when the first long history is read. Each of the three has its own connection.

    Each call of a developer's synchronous function gets a new OS thread, so that a function that hangs does not delay
    the others.
    """

    def __init__(self, *, shortage: Shortage, urgent: Collection[Callable[..., object]]) -> None:
        """Set up the event loop.

        - ``urgent``: functions that run before all other waiting database work.
        - ``shortage``: counts the rows that could not run for lack of OS threads or memory. The runtime resets the
          count when it has started an OS thread for a developer's function.
        """
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self._urgent = urgent
        self._shortage = shortage
        self._database = DatabaseLane("durable-agents-database")
        self._leases = DatabaseLane("durable-agents-leases")
        self._histories = DatabaseLane("durable-agents-histories")
        self._left_behind: list[threading.Thread] = []

    def start(self) -> None:
        """Start the OS threads that this process needs until it exits. Raises WorkerLimitError."""
        self._database.start()
        self._leases.start()

    async def in_database(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See Runtime."""
        return await self._submit(partial(function, *args, **kwargs), urgent=function in self._urgent)

    async def in_transition(self, function: Callable[..., R], *args: object, **kwargs: object) -> R:
        """See Runtime. If the chat thread's row is locked, for example by a slow view, try again later.

        Meanwhile, the database work of other rows goes on.
        """
        call = partial(function, *args, **kwargs, nowait=True)
        waits = chain(LOCKED_WAITS_SECONDS, repeat(LOCKED_WAITS_SECONDS[-1]))
        while True:
            try:
                return await self._submit(call, urgent=function in self._urgent)
            except lifecycle.ThreadHeldError:
                await asyncio.sleep(next(waits))

    async def in_lease_lane(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See Runtime."""
        call = partial(self._with_connection, partial(function, *args, **kwargs))
        return await asyncio.wrap_future(self._leases.submit(call))

    async def in_history_lane(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See Runtime. Long histories are rare, so the connection is closed after each read."""

        def read() -> R:
            try:
                return self._with_connection(partial(function, *args, **kwargs))
            finally:
                close_all()

        return await asyncio.wrap_future(self._histories.submit(read))

    async def in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See Runtime. If the awaiting task is cancelled, the OS thread keeps running. ``hung_threads`` counts it."""
        ended: asyncio.Future[R] = self.loop.create_future()
        call = partial(function, *args, **kwargs)
        thread = threading.Thread(target=self._run, args=(call, ended), daemon=True, name="durable-agents-tool")
        start(thread)
        self._shortage.end()
        try:
            return await ended
        finally:
            if ended.cancelled():
                self._left_behind.append(thread)

    def hung_threads(self) -> int:
        """See Runtime."""
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        return len(self._left_behind)

    async def _submit(self, call: Callable[[], R], *, urgent: bool) -> R:
        return await asyncio.wrap_future(self._database.submit(partial(self._with_connection, call), urgent=urgent))

    def _with_connection(self, call: Callable[[], R]) -> R:
        """Call a function and return its result. If the database fails, call the function again on a new connection.

        A second call is safe: a transition that was already committed does nothing the second time.
        """
        reset_queries()  # with DEBUG, Django keeps all queries until the next request; a worker has no requests
        for wait_seconds in DATABASE_WAITS_SECONDS:
            try:
                return call()
            except Error as error:
                discard_after(error)
                if not is_outage(error):
                    raise
                self.failed_at = time.monotonic()
                log(logging.WARNING, "the database failed: retrying", action="database", problem=type(error).__name__)
                time.sleep(wait_seconds)
        with discarding():
            return call()

    def _run(self, call: Callable[[], R], ended: asyncio.Future[R]) -> None:
        try:
            settle = partial(_set_result, ended, call())
        except BaseException as error:
            settle = partial(_set_exception, ended, error)
            discard()
        close_all()
        with contextlib.suppress(RuntimeError):  # if the loop is closed, nothing awaits the result
            self.loop.call_soon_threadsafe(settle)


def _set_result(future: asyncio.Future[R], value: R) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: asyncio.Future[R], error: BaseException) -> None:
    """Set an exception on a future.

    A RuntimeError replaces StopIteration, which futures refuse. It also replaces SystemExit and similar exceptions,
    which would end the event loop.
    """
    if future.done():
        return
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        cause, error = error, RuntimeError(f"{type(error).__name__} was raised: {error}")
        error.__cause__ = cause
    future.set_exception(error)
