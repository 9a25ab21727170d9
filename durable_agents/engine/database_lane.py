"""Run the engine's database work on an OS thread. Urgent jobs run first. All other jobs run in order of submission."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from durable_agents.engine.resource_errors import start

R = TypeVar("R")
Task = tuple[bool, int, Callable[[], None]]
"""A tuple of three values. The tasks run in the sort order of their tuples.

- False for an urgent task, True for any other task.
- A consecutive number.
- The function to call.
"""


class DatabaseLane:
    """An OS thread with a database connection. The OS thread runs until the process ends."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.PriorityQueue[Task] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._name = name
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the OS thread, unless it has been started already. Raises WorkerLimitError."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, daemon=True, name=self._name)
            start(thread)
            self._thread = thread

    def submit(self, call: Callable[[], R], *, urgent: bool = False) -> Future[R]:
        """Schedule a function call. The returned future gets the call's result or error.

        If the future is cancelled before the function starts, the function is not called. Use the future only in the
        event loop's OS thread.
        """
        self.start()
        future: Future[R] = Future()
        self._tasks.put((not urgent, next(self._numbers), partial(_settle, future, call)))
        return future

    def _run(self) -> None:
        while True:
            _, _, task = self._tasks.get()
            task()
            del task  # free the memory of the task before the wait for the next one


def _settle(future: Future[R], call: Callable[[], R]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
