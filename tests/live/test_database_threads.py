"""Callers take turns in the threads for database work, and none of them gets all threads."""

import asyncio
import threading

from django.db import connection
from django.test import SimpleTestCase

from durable_agents.live.database_threads import DatabaseThreads, database_threads, in_database, keep_for, let_go


def note(order, name):
    """Return a function that notes its call."""
    return lambda: order.append(name)


async def test_callers_take_turns_however_many_calls_one_has_made_before():
    threads, order = DatabaseThreads(1), []
    gate = threading.Event()
    tasks = [asyncio.create_task(threads.run(gate.wait, "noisy"))]
    tasks += [asyncio.create_task(threads.run(note(order, ("noisy", number)), "noisy")) for number in range(20)]
    tasks += [asyncio.create_task(threads.run(note(order, (name, 0)), name)) for name in ("ann", "bob")]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    assert order[:4] == [("noisy", 0), ("ann", 0), ("bob", 0), ("noisy", 1)]
    assert order[4:] == [("noisy", number) for number in range(2, 20)]


async def test_one_caller_leaves_a_thread_to_others():
    threads, gate = DatabaseThreads(3), threading.Event()
    noisy = [asyncio.create_task(threads.run(gate.wait, "noisy")) for _ in range(10)]
    assert await asyncio.wait_for(threads.run(threading.get_ident, "ann"), 5)
    gate.set()
    await asyncio.gather(*noisy)


async def test_a_quiet_process_uses_one_thread():
    threads = DatabaseThreads(3)
    assert len({await threads.run(threading.get_ident, name) for name in "abc"}) == 1


async def test_calls_that_nobody_waits_for_any_more_give_their_threads_back():
    threads, gate = DatabaseThreads(1), threading.Event()
    running, waiting = (asyncio.create_task(threads.run(gate.wait, name)) for name in ("ann", "bob"))
    await asyncio.sleep(0.01)
    running.cancel()
    waiting.cancel()
    await asyncio.wait([running, waiting])
    gate.set()
    assert await threads.run(lambda: 1, "ann") == 1


async def test_the_connections_of_all_threads_are_kept_and_closed_together(transactional_db):
    def is_open() -> bool:
        return connection.connection is not None

    def ask() -> None:
        connection.ensure_connection()
        barrier.wait(5)

    keep_for("socket")
    barrier = threading.Barrier(3)
    await asyncio.gather(*(in_database(ask, by=name)() for name in "abc"))
    pool = database_threads()
    kept = [executor.submit(is_open).result() for executor in pool._threads]
    await let_go("socket")
    left = [executor.submit(is_open).result() for executor in pool._threads]
    assert (kept, left) == ([True] * 3, [False] * 3)


class InATestCase(SimpleTestCase):
    """In Django's own test cases, only the thread of the test sees the rows of its transaction."""

    async def test_the_thread_of_the_test_is_used(self) -> None:
        assert await in_database(threading.get_ident)() == threading.main_thread().ident
