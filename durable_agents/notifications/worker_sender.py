"""Notify clusters of workers in a separate OS thread, if the broker is reached over a socket (such as Redis).

A broker that hangs must delay neither requests nor workers. While the broker fails, only the names of the clusters to
notify are kept in memory.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable

from django.db import connections

from durable_agents.logs import Repeated

PATIENCE_SECONDS = 1.0
"""The maximum time that a caller waits for the broker. While the broker is known to fail, callers do not wait."""
PAUSE_SECONDS = 0.5
"""Delay in seconds between two attempts to reach the broker."""
KEEP_SECONDS = 60.0
"""Unsent notifications are dropped after this time, because the periodic sweep has notified the workers by then."""


class WorkerSender:
    """The daemon OS thread that notifies clusters. Each process has one such OS thread, which starts with the first
    notification.
    """

    def __init__(self, enqueue: Callable[[str], None]) -> None:
        self._enqueue = enqueue
        self._trouble = Repeated("workers were not notified: the broker does not answer", action="ring_workers")
        self.reset()

    def reset(self) -> None:
        """Reset the sender. This method is also called in a forked child: the child does not have its parent's OS
        thread, and must not send its parent's notifications.
        """
        self._news = threading.Condition()
        self._asked: defaultdict[str, int] = defaultdict(int)
        """The number of calls of ``tell`` for each cluster. If the number changes while a task is being sent, another
        task is sent.
        """
        self._told: defaultdict[str, int] = defaultdict(int)
        self._since: dict[str, float] = {}
        """The clusters that still have to be notified. The value is the time of the first call of ``tell`` since the
        cluster's last notification.
        """
        self._fails = False
        self._thread: threading.Thread | None = None

    def tell(self, cluster: str) -> bool:
        """Put a task into the cluster's queue, immediately or as soon as the broker accepts tasks. Return whether the
        broker has already accepted the task.
        """
        with self._news:
            self._asked[cluster] += 1
            number = self._asked[cluster]
            self._since.setdefault(cluster, time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="durable_agents courier", daemon=True)
                self._thread.start()
            self._news.notify_all()
            has_news = self._news.wait_for(lambda: self._told[cluster] >= number or self._fails, PATIENCE_SECONDS)
            self._fails = self._fails or not has_news
            is_told = self._told[cluster] >= number
        if not has_news:
            self._trouble.note("TimeoutError", cluster=cluster)
        return is_told

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._since)
                cluster = min(self._since, key=lambda one: self._since[one])
                number = self._asked[cluster]
            problem: Exception | None = None
            try:
                self._enqueue(cluster)
            except Exception as error:
                problem = error
            finally:
                connections.close_all()  # a custom broker might have opened connections in this OS thread
            with self._news:
                self._fails = problem is not None
                self._told[cluster] = self._told[cluster] if problem else number
                # If ``tell`` was called again while this task was being sent, send another task. The sent task might
                # run too early to find the rows of the latest call.
                is_asked_again = self._asked[cluster] != number
                is_old = time.monotonic() - self._since[cluster] > KEEP_SECONDS
                if is_old if problem else not is_asked_again:
                    del self._since[cluster]
                self._news.notify_all()
            if problem is None:
                self._trouble.tell()
            else:
                self._trouble.note(problem, cluster=cluster)
                time.sleep(PAUSE_SECONDS)
