"""Make a qcluster process safe: a killed worker cannot block the others, and workers see that the cluster stops.

django-q2 shares semaphores between its processes. If a process is killed while it holds a semaphore, the semaphore is
never released. An idle worker holds the read lock of the task queue, so its death can stop the whole cluster. If a
sentinel is killed while it waits for the stop event, the main process can never set the event.

This module replaces the locks with kernel locks on a file, which are released when their process dies. It replaces the
events with a byte of shared memory.
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
from typing import Protocol, Self

from durable_agents.database_connections import close_pools, discard

_stop_events: list[SharedFlag] = []
_locks: weakref.WeakSet[KernelLock] = weakref.WeakSet()


def _reset_locks() -> None:
    for lock in list(_locks):
        lock.reset()


os.register_at_fork(after_in_child=_reset_locks)


class KernelLock:
    """A lock between processes, and between the threads of one process. The kernel releases it when the process that
    holds it dies.

    It replaces ``multiprocessing.Lock`` in queues and shared values. Create it before the processes fork.
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
        """Reset the lock in a forked child. A child inherits no POSIX lock from its parent, so its thread lock must be
        free too.
        """
        self._threads = threading.RLock()
        self._depth = 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002
        """Acquire the lock, and return whether this succeeded. The signature is that of ``multiprocessing.Lock``.

        The timeout applies only between threads of this process. While another process holds the lock, a call with a
        timeout returns False immediately.
        """
        if not self._threads.acquire(block, -1 if timeout is None or not block else timeout):
            return False
        # A POSIX lock belongs to the whole process. The ``RLock`` above is needed between the threads of this process.
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
    """An event that is shared by the process that created it and all processes forked from that process. The event can
    be set, but not cleared.

    It replaces ``multiprocessing.Event``. If a process is killed while it waits for a ``multiprocessing.Event``, a
    later ``set`` of that event blocks for ever.
    """

    LOOK_SECONDS = 0.05

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)
        self.parent: int | None = None
        """The pid of the sentinel's parent. ``wait`` sets the flag when this parent dies."""

    def set(self) -> None:
        """Set the flag."""
        self._byte[0] = 1

    def is_set(self) -> bool:
        """Return whether the flag is set."""
        return bool(self._byte[0])

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set, for at most ``timeout`` seconds. Return whether it is set."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set() and (deadline is None or time.monotonic() < deadline):
            if self.parent and os.getppid() != self.parent:
                self.set()  # the main process was killed, so it will not set the flag
            time.sleep(self.LOOK_SECONDS)
        return self.is_set()


def harden(prepare: Callable[[], None]) -> None:
    """Patch django-q2 in the process of ``manage.py qcluster``. Its queues and timers get locks that the kernel
    releases when a process dies, and its workers can see that the cluster stops.

    ``prepare`` runs once in django-q2's sentinel process, before the workers fork.
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
            self._reset()  # make the queue's methods use the new locks

    class SeenSentinel(original_sentinel):  # type: ignore[misc,valid-type]
        def __init__(self, stop_event: SharedFlag, *args: object, **kwargs: object) -> None:
            stop_event.parent = os.getppid()
            _stop_events.append(stop_event)

            def leave(*_: object) -> None:
                stop_event.set()  # shows the main process that this exit is not a failure
                os._exit(0)

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, leave)
            prepare()
            if stop_event.is_set():
                leave()
            super().__init__(stop_event, *args, **kwargs)

        def spawn_process(self, target: object, *args: object) -> object:
            """See Sentinel. The child process inherits no database connection."""
            # The sentinel opens connections when it checks the schedules between two forks. A child cannot use an
            # inherited pool: it would share the parent's sockets and wait for threads that a fork does not copy.
            close_pools()
            return super().spawn_process(target, *args)

    def hard_value(*args: object) -> object:
        return original_value(*args, lock=KernelLock())

    def hard_scheduler(*args: object, **kwargs: object) -> None:
        original_scheduler(*args, **kwargs)
        discard()  # the scheduler swallows errors, so discard a connection that a failover may have broken

    django_q_cluster.scheduler = hard_scheduler
    exit_quietly_after_fork(django_q_cluster.Cluster)
    django_q_cluster.Queue = HardQueue
    django_q_cluster.Sentinel = SeenSentinel
    django_q_cluster.Value = hard_value
    django_q_cluster.Event = SharedFlag


class MainProcess(Protocol):
    """The parts of django-q2's ``Cluster`` that ``exit_quietly_after_fork`` uses."""

    pid: int
    stop_event: SharedFlag

    def sig_handler(self, *args: object) -> None: ...


def exit_quietly_after_fork(cluster: type[MainProcess]) -> None:
    """Patch the signal handler of django-q2's main process. The sentinel inherits this handler, and may get a signal
    before it has installed handlers of its own. In that case, the sentinel exits immediately.
    """
    original_sig_handler = cluster.sig_handler

    def sig_handler(self: MainProcess, *args: object) -> None:
        if os.getpid() != self.pid:
            self.stop_event.set()  # shows the main process that this exit is not a failure
            os._exit(0)
        original_sig_handler(self, *args)

    cluster.sig_handler = sig_handler  # type: ignore[method-assign]


def cluster_is_stopping() -> bool:
    """Return whether the cluster of this worker is stopping."""
    return any(event.is_set() for event in _stop_events)
