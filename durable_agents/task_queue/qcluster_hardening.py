"""Make a qcluster process safe: a killed worker cannot block the others, and workers see that the cluster stops.

Without this module, a killed process can block django-q2 in three ways:

- Locks: a killed process never releases its semaphores. An idle worker holds the read lock of the task queue, so its
  death can stop the whole cluster.
- Events: the sentinel, which supervises the workers, waits for the stop event. If the sentinel is killed while it
  waits, the main process can never set the event.
- Queues: a process can be killed after it has read the length of a message, but not the message. The next process
  reads a part of the message as a length, and can wait for ever.

This module replaces all three:

- Locks become kernel locks on a file. The kernel releases a lock when the process that holds it dies.
- Events become a byte of shared memory.
- The pipes of queues become sockets. One system call takes a short message and its length from a socket.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol, Self

from durable_agents.database_connections import close_pools, discard
from durable_agents.task_queue.schedule import check_schedules_at_start

_stop_events: list[SharedFlag] = []
_locks: weakref.WeakSet[KernelLock] = weakref.WeakSet()


def reset_locks() -> None:
    """Reset all locks in a forked child."""
    for lock in list(_locks):
        lock.reset()


os.register_at_fork(after_in_child=reset_locks)


class KernelLock:
    """A lock between processes, and between the OS threads of one process. The kernel releases the lock when the
    process that holds it dies.

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
        """Free the lock in a forked child.

        The child does not inherit the kernel lock. It inherits a copy of the ``RLock``, which may be locked.
        """
        self._threads = threading.RLock()
        self._depth = 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:  # noqa: FBT001, FBT002
        """Acquire the lock, and return whether this succeeded. The arguments are those of ``multiprocessing.Lock``.

        A call with a timeout waits only for other OS threads of this process. If another process holds the lock, the
        call returns False immediately.
        """
        if not self._threads.acquire(block, -1 if timeout is None or not block else timeout):
            return False
        # The kernel lock works only between processes. The ``RLock`` above works between OS threads of this process.
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


class WholeMessages(Connection):
    """The reading end of a queue. It takes a short message as a whole.

    If a process is killed before it takes a short message, the message stays in the queue for the next process. A
    longer message is read in pieces, as from a pipe. The tasks of this package are short messages.
    """

    SHORT_BYTES = 4096
    """The size up to which a message fits into a socket's buffer on every system."""
    LOOK_SECONDS = 0.001

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO:
        with socket.socket(fileno=os.dup(self.fileno())) as stream:
            stream.settimeout(None)
            head = self.peek(stream, _HEADER.size)
            size: int = _HEADER.unpack(head)[0] + len(head)
            if len(head) <= size <= self.SHORT_BYTES:
                self.peek(stream, size)
                return io.BytesIO(stream.recv(size)[len(head) :])
        whole: io.BytesIO = super()._recv_bytes(maxsize)  # type: ignore[misc]
        return whole

    def peek(self, stream: socket.socket, size: int) -> bytes:
        """Wait until ``size`` bytes have arrived. Return these bytes without removing them from the socket."""
        while len(seen := stream.recv(size, socket.MSG_PEEK)) < size:
            if not seen:
                raise EOFError
            time.sleep(self.LOOK_SECONDS)  # only a part of the message has arrived
        return seen


_HEADER = struct.Struct("!i")
"""The format of a message's length. ``multiprocessing`` sends the length before the message."""


def ends_of_queue() -> dict[str, Connection]:
    """Return new ``_reader`` and ``_writer`` attributes for a ``multiprocessing.Queue``, connected by a socket."""
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(True)  # whatever ``socket.setdefaulttimeout`` says  # noqa: FBT003
    reading = WholeMessages(reader.detach(), writable=False)
    return {"_reader": reading, "_writer": Connection(writer.detach(), readable=False)}


class SharedFlag:
    """An event for the process that created it and all processes forked from that process. It can be set, but not
    cleared.

    It replaces ``multiprocessing.Event``, which breaks if a process is killed while waiting for the event: a later
    ``set`` blocks for ever.
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
    """Patch django-q2 in the process of ``manage.py qcluster``. The description of this module lists the changes.

    ``prepare`` runs once in django-q2's sentinel process, before the workers fork.
    """
    import django_q.cluster as django_q_cluster  # noqa: PLC0415 - only a qcluster process needs it

    original_queue, original_sentinel = django_q_cluster.Queue, django_q_cluster.Sentinel
    original_value = django_q_cluster.Value
    original_scheduler = django_q_cluster.scheduler

    class HardQueue(original_queue):  # type: ignore[misc,valid-type]
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            self._rlock, self._wlock = KernelLock(), KernelLock()
            self.__dict__.update(ends_of_queue())
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
            """Start a child process, which inherits no database connection."""
            # The sentinel opens connections when it checks the schedules. A child cannot use an inherited connection
            # pool: the child would share the parent's sockets and wait for OS threads that a fork does not copy.
            close_pools()
            return super().spawn_process(target, *args)

    def hard_value(*args: object) -> object:
        return original_value(*args, lock=KernelLock())

    def hard_scheduler(*args: object, **kwargs: object) -> None:
        original_scheduler(*args, **kwargs)
        discard()  # the scheduler ignores errors, so discard a connection that a failover might have broken

    django_q_cluster.scheduler = hard_scheduler
    check_schedules_first(SeenSentinel, hard_scheduler)
    close_pools_first(django_q_cluster.Cluster)
    exit_quietly_on_signals(django_q_cluster.Cluster)
    django_q_cluster.Queue = HardQueue
    django_q_cluster.Sentinel = SeenSentinel
    django_q_cluster.Value = hard_value
    django_q_cluster.Event = SharedFlag


class Supervisor(Protocol):
    """The parts of django-q2's ``Sentinel`` that ``check_schedules_first`` uses."""

    start_event: SharedFlag
    broker: object

    def guard(self) -> None: ...


def check_schedules_first(sentinel: type[Supervisor], scheduler: Callable[..., None]) -> None:
    """Patch the class of django-q2's sentinel, so that it checks the schedules before it supervises the workers."""
    original_guard = sentinel.guard

    def guard(self: Supervisor) -> None:
        self.start_event.set()
        check_schedules_at_start(scheduler, self.broker)
        original_guard(self)

    sentinel.guard = guard  # type: ignore[method-assign]


class MainProcess(Protocol):
    """The parts of django-q2's ``Cluster`` that this module uses."""

    pid: int
    stop_event: SharedFlag
    sentinel: BaseProcess | None

    def start(self) -> int: ...
    def sig_handler(self, *args: object) -> None: ...


def close_pools_first(cluster: type[MainProcess]) -> None:
    """Patch django-q2's main process, so that the sentinel and its children inherit no database connection.

    With Django 6.1, system checks use the database before the sentinel is forked.
    """
    original_start = cluster.start

    def start(self: MainProcess) -> int:
        close_pools()
        return original_start(self)

    cluster.start = start  # type: ignore[method-assign]


def exit_quietly_on_signals(cluster: type[MainProcess]) -> None:
    """Patch django-q2's signal handler, so that a signal during the start of a cluster ends its processes.

    - The main process ends if no sentinel is running. Without the patch, it would ignore the signal.
    - The sentinel, which supervises the workers, ends immediately. It uses the main process's handler until it installs
      its own handlers.
    """
    original_sig_handler = cluster.sig_handler

    def sig_handler(self: MainProcess, *args: object) -> None:
        if os.getpid() != self.pid:
            self.stop_event.set()  # shows the main process that this exit is not a failure
            os._exit(0)
        if self.sentinel is None or not self.sentinel.is_alive():
            sys.exit(0)
        original_sig_handler(self, *args)

    cluster.sig_handler = sig_handler  # type: ignore[method-assign]


def cluster_is_stopping() -> bool:
    """Return whether the cluster of this worker is stopping."""
    return any(event.is_set() for event in _stop_events)
