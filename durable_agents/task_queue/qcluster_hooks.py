"""Make a qcluster process safe: a killed worker cannot block the others, and workers see a drain.

django-q2 shares semaphores between its processes. One that is killed while it holds a semaphore holds it for ever:
an idle worker sits inside the task queue's read lock, so its death can stop the whole cluster; a sentinel killed
while it waits for the stop event keeps the main process from ever setting it. Here those locks become kernel locks on
a file, which end with their holder, and the events a byte of shared memory.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Self

from durable_agents.databases import close_pools, discard

_stop_events: list[SharedFlag] = []
_locks: weakref.WeakSet[KernelLock] = weakref.WeakSet()


def _reset_locks() -> None:
    for lock in list(_locks):
        lock.reset()


os.register_at_fork(after_in_child=_reset_locks)


class KernelLock:
    """A lock between processes, and between threads of one, that the kernel frees when its holder dies.

    Takes the place of ``multiprocessing.Lock`` in queues and shared values; made before the processes fork.
    """

    def __init__(self) -> None:
        descriptor, path = tempfile.mkstemp(prefix="durable-agents-lock-")
        Path(path).unlink()
        self._descriptor = descriptor
        self._threads = threading.RLock()
        self._depth = 0
        _locks.add(self)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def reset(self) -> None:
        """Reset the lock in a forked child, which owns none of its parent's POSIX locks: its thread lock begins free as
        well.
        """
        self._threads = threading.RLock()
        self._depth = 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002
        """Take the lock; the signature is ``multiprocessing.Lock``'s. A timeout is only honoured between threads."""
        if not self._threads.acquire(block, -1 if timeout is None or not block else timeout):
            return False
        # POSIX locks belong to the process: its threads exclude each other by the lock above.
        if self._depth == 0:
            waits = block and timeout is None
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            except BlockingIOError:
                self._threads.release()
                return False
        self._depth += 1
        return True

    def release(self) -> None:
        """Release the lock."""
        self._depth -= 1
        if self._depth == 0:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        self._threads.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class SharedFlag:
    """An event between processes that forked from one: set once, seen by all; no process waits for another.

    Takes the place of ``multiprocessing.Event``, whose ``set`` waits for ever for a waiter that was killed.
    """

    LOOK_SECONDS = 0.05

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)
        self.parent: int | None = None
        """In a waiting process: the process whose death counts as the event too."""

    def set(self) -> None:
        """Raise the flag."""
        self._byte[0] = 1

    def is_set(self) -> bool:
        """Whether the flag was raised."""
        return bool(self._byte[0])

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is raised, at most ``timeout`` seconds; return whether it is."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set() and (deadline is None or time.monotonic() < deadline):
            if self.parent and os.getppid() != self.parent:
                self.set()  # the main process was killed: no stop will ever come
            time.sleep(self.LOOK_SECONDS)
        return self.is_set()


def harden(prepare: Callable[[], None]) -> None:
    """Install, in the process of ``manage.py qcluster``, kernel locks in its queues and timers, and a stop event that
    workers can see. ``prepare`` runs once in the sentinel before its workers fork.
    """
    import django_q.cluster as django_q_cluster  # noqa: PLC0415 - only a qcluster process needs it

    original_queue, original_sentinel, original_value = (
        django_q_cluster.Queue,
        django_q_cluster.Sentinel,
        django_q_cluster.Value,
    )
    original_scheduler = django_q_cluster.scheduler

    class HardQueue(original_queue):  # type: ignore[misc,valid-type]
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            self._rlock, self._wlock = KernelLock(), KernelLock()
            self.size.count = original_value("i", 0, lock=KernelLock())
            self._reset()  # makes the queue's methods see the locks

    class SeenSentinel(original_sentinel):  # type: ignore[misc,valid-type]
        def __init__(self, stop_event: SharedFlag, *args: object, **kwargs: object) -> None:
            stop_event.parent = os.getppid()
            _stop_events.append(stop_event)

            def leave(*_: object) -> None:
                stop_event.set()  # so that the main process knows that nothing failed
                os._exit(0)

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, leave)
            prepare()
            if stop_event.is_set():
                leave()
            super().__init__(stop_event, *args, **kwargs)

        def spawn_process(self, target: object, *args: object) -> object:
            """See Sentinel; the child inherits no connection."""
            # Between two forks the sentinel looks at the schedules, and a child cannot use a pool that it inherits: it
            # shares the sockets, and waits for threads that a fork does not copy.
            close_pools()
            return super().spawn_process(target, *args)

    def hard_value(*args: object) -> object:
        return original_value(*args, lock=KernelLock())

    def hard_scheduler(*args: object, **kwargs: object) -> None:
        original_scheduler(*args, **kwargs)
        discard()  # it logs every error: a connection that is read-only since a failover would stay for ever

    django_q_cluster.scheduler = hard_scheduler
    django_q_cluster.Queue = HardQueue
    django_q_cluster.Sentinel = SeenSentinel
    django_q_cluster.Value = hard_value
    django_q_cluster.Event = SharedFlag


def cluster_is_stopping() -> bool:
    """Whether the cluster that this worker belongs to is stopping."""
    return any(event.is_set() for event in _stop_events)
