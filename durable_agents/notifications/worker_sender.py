"""Notify clusters, on a thread of its own, over a broker that is reached through a socket.

A broker that hangs must delay neither a request nor a worker. What the broker has not yet accepted is remembered as the
names of the clusters that are still to be notified, nothing more.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable

from django.db import connections

from durable_agents.logs import Repeated

PATIENCE_SECONDS = 1.0
"""How long a caller waits for the broker, once: not at all while the broker is known to fail."""
PAUSE_SECONDS = 0.5
"""Delay between two attempts."""
KEEP_SECONDS = 60.0
"""How long notifications are kept; after that the sweep has found what is due."""


class WorkerSender:
    """A daemon thread, started with the first notification; one for each process."""

    def __init__(self, enqueue: Callable[[str], None]) -> None:
        self._enqueue = enqueue
        self._trouble = Repeated("workers were not told: the broker does not answer", action="ring_workers")
        self.reset()

    def reset(self) -> None:
        """Begin anew: a forked child does not have its parent's thread, and tells nobody for its parent."""
        self._news = threading.Condition()
        self._asked: defaultdict[str, int] = defaultdict(int)
        """How often each cluster was to be notified; a task that is already on its way may be too early for the
        next.
        """
        self._told: defaultdict[str, int] = defaultdict(int)
        self._since: dict[str, float] = {}
        """The clusters that are still to be notified, each with the time of the first request."""
        self._fails = False
        self._thread: threading.Thread | None = None

    def tell(self, cluster: str) -> bool:
        """Put a task into the cluster's queue, now or as soon as the broker accepts it. Return whether the broker has
        accepted it already.
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
                connections.close_all()  # the project's own broker may have used the ORM in this thread
            with self._news:
                self._fails = problem is not None
                self._told[cluster] = self._told[cluster] if problem else number
                # Asked again while the task was on its way: its worker may have looked before the new rows came.
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
