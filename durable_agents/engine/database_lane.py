"""Run the engine's database work on one thread. Urgent jobs run first; all others run in order of submission."""

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
"""Whether the task can wait, the number of the task, and its function. Tasks are taken in the order of these tuples."""


class DatabaseLane:
    """A thread with a database connection. The thread starts with the first task and ends with the process."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.PriorityQueue[Task] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._name = name
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it has been started already. Raises WorkerLimitError."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, daemon=True, name=self._name)
            start(thread)
            self._thread = thread

    def submit(self, call: Callable[[], R], *, urgent: bool = False) -> Future[R]:
        """Schedule a call. The returned future gets the call's result or error. If the future is cancelled before its
        turn, the call is not made. Only the event loop's thread may use the future.
        """
        self.start()
        future: Future[R] = Future()
        self._tasks.put((not urgent, next(self._numbers), partial(_settle, future, call)))
        return future

    def _run(self) -> None:
        while True:
            _, _, task = self._tasks.get()
            task()
            del task  # free the task's rows and results before the wait for the next task


def _settle(future: Future[R], call: Callable[[], R]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
