"""Run the database work of websockets in a few OS threads, and keep the database connections of these OS threads open.

By default, Channels runs all database work in one OS thread. One user with expensive requests would make all others
wait. Here, callers take turns, and no caller can occupy all OS threads.

By default, Channels also closes the database connection after each call if ``CONN_MAX_AGE`` is 0. With PostgreSQL,
opening a connection takes longer than most queries. Therefore, this module keeps connections while any websocket is
open. It does not keep connections from Django's connection pool: each is returned to the pool after each call.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import AsyncToSync, SyncToAsync
from channels.db import database_sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from durable_agents.conf import config
from durable_agents.database_connections import is_pooled

P = ParamSpec("P")
R = TypeVar("R")

KEEP_SECONDS = 10.0
"""A connection that was not used for this long is closed at the next call."""


class DatabaseThreads:
    """The OS threads that do database work for one event loop. Each has its own connection, and runs one call at a
    time.
    """

    def __init__(self, count: int) -> None:
        self._threads = [ThreadPoolExecutor(1, f"durable_agents websockets {number}") for number in range(count)]
        # OS threads with low numbers are used first, so that a quiet process needs only one connection.
        self._free = list(range(count))
        self._waiting: dict[Hashable, deque[asyncio.Future[int]]] = {}
        self._running: Counter[Hashable] = Counter()
        self._used: set[int] = set()
        self.users: set[object] = set()

    async def run(self, call: Callable[[], R], by: Hashable) -> R:
        """Call a function in an OS thread. Callers take turns, and ``by`` identifies the caller.

        The OS thread is occupied until the function ends, even if the waiting task is cancelled.
        """
        number = await self._turn(by)
        function = database_sync_to_async(call, thread_sensitive=False, executor=self._threads[number])
        work: asyncio.Task[R] = asyncio.get_running_loop().create_task(function())

        def end_turn(done: asyncio.Task[R]) -> None:
            if not done.cancelled():
                # If ``run`` was cancelled, nothing awaits the result. Read the error here, because asyncio logs errors
                # that are not read.
                done.exception()
            self._end_turn(number, by)

        work.add_done_callback(end_turn)
        return await asyncio.shield(work)

    async def close(self) -> None:
        """Close the connections that were kept open. Each is closed after the call that is running on it."""
        for number in sorted(self._used):
            executor = self._threads[number]
            await database_sync_to_async(_close_kept, thread_sensitive=False, executor=executor)()
        await database_sync_to_async(_close_kept)()

    async def _turn(self, by: Hashable) -> int:
        """Wait for a free OS thread, and return its number."""
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(by, deque()).append(turn)
        self._give_turns()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end_turn(turn.result(), by)
            raise

    def _give_turns(self) -> None:
        """Give free OS threads to waiting function calls, one function call of each caller in turn.

        A single caller never gets all OS threads, unless there is only one.
        """
        most = max(1, len(self._threads) - 1)
        while self._free:
            for by in self._waiting:
                if self._running[by] < most:
                    break
            else:
                return
            queue = self._waiting.pop(by)
            turn = queue.popleft()
            if queue:
                # A caller who has just had a turn comes last.
                self._waiting[by] = queue
            if not turn.cancelled():
                number = heapq.heappop(self._free)
                self._used.add(number)
                self._running[by] += 1
                turn.set_result(number)

    def _end_turn(self, number: int, by: Hashable) -> None:
        heapq.heappush(self._free, number)
        self._running[by] -= 1
        if not self._running[by]:
            del self._running[by]
        self._give_turns()


_threads: WeakKeyDictionary[asyncio.AbstractEventLoop, DatabaseThreads] = WeakKeyDictionary()


def database_threads() -> DatabaseThreads:
    """Return the OS threads that do database work for the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _threads:
        _threads[loop] = DatabaseThreads(config().websocket_threads)
    return _threads[loop]


def in_database(function: Callable[P, R], *, by: Hashable = None) -> Callable[P, Coroutine[object, object, R]]:
    """Return a coroutine function that calls ``function`` in an OS thread for database work.

    Callers take turns. ``by`` identifies the caller.
    """

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        threads = database_threads()

        def run() -> R:
            try:
                return function(*args, **kwargs)
            finally:
                for connection in connections.all(initialized_only=True) if threads.users else ():
                    _keep(connection)

        if asyncio.get_running_loop() in AsyncToSync.loop_thread_executors:
            # A Django ``TestCase`` runs the event loop. Use the test's own OS thread, because only this OS thread sees
            # the rows of the test's transaction.
            result: R = await database_sync_to_async(run)()
            return result
        return await threads.run(run, by)

    return call


def _keep(connection: BaseDatabaseWrapper) -> None:
    """Keep a connection of this OS thread open for ``KEEP_SECONDS``, even if ``CONN_MAX_AGE`` is 0."""
    if is_pooled(connection):
        # Channels returns this connection to the connection pool. Do not keep it: kept connections could use up a small
        # pool.
        return
    if connection.close_at is not None:
        connection.close_at = time.monotonic() + KEEP_SECONDS
    # The database server may close the connection before the next call. Make Django check the connection first.
    connection.health_check_enabled = True  # type: ignore[attr-defined]


def keep_of_channels(*, connection: BaseDatabaseWrapper, **_: object) -> None:
    """Keep a new connection if it was opened in Channels' own OS thread.

    Channels loads the sessions and users of all websockets in this OS thread. If the connection were closed after each
    call, many clients that connect at once would have to wait for a new connection each.
    """
    executor = SyncToAsync.single_thread_executor
    is_of_channels = threading.current_thread() in getattr(executor, "_threads", ())
    if is_of_channels and any(threads.users for threads in list(_threads.values())):
        _keep(connection)


connection_created.connect(keep_of_channels, dispatch_uid="durable_agents.live")


def keep_for(user: object) -> None:
    """Keep the connections open until ``let_go`` is called with the same ``user``, which is a websocket."""
    database_threads().users.add(user)


async def let_go(user: object) -> None:
    """Record that the websocket ``user`` has ended.

    If no other websocket is open, close the database connections that were kept open. Connections of databases whose
    ``CONN_MAX_AGE`` is not 0 stay open.
    """
    threads = database_threads()
    threads.users.discard(user)
    if not threads.users:
        await threads.close()


def _close_kept() -> None:
    for connection in connections.all(initialized_only=True):
        has_checks = connection.settings_dict["CONN_HEALTH_CHECKS"]
        connection.health_check_enabled = has_checks  # type: ignore[attr-defined]
        if connection.settings_dict["CONN_MAX_AGE"] == 0:
            connection.close_at = time.monotonic()  # Channels closes the connection after this call
