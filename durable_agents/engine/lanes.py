"""Hides the order in which one thread does the engine's database work: what is urgent first, else as it was asked."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Task = tuple[bool, int, Future[Any], Callable[[], Any]]


class Lane:
    """One thread, and so one database connection. It begins with the first task and ends with the process."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.PriorityQueue[Task] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._name = name
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], Any], *, urgent: bool = False) -> Future[Any]:
        """Have it called; the future gives what it returns or raises. One that is cancelled before is not called. For
        one thread only, the event loop's."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name=self._name)
            self._thread.start()
        future: Future[Any] = Future()
        self._tasks.put((not urgent, next(self._numbers), future, call))
        return future

    def _run(self) -> None:
        while True:
            _, _, future, call = self._tasks.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, call
