"""Make SQLite writers queue on a file lock, because SQLite's own waiting takes much longer than a short write."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from durable_agents import lockfiles

LOOK_SECONDS = 0.001
PATIENCE_SECONDS = 0.1

_own = threading.local()


@contextmanager
def turn(connection: Any) -> Iterator[None]:
    """Wait for this writer's turn, then run the block. If the database is not an SQLite file, or a transaction is
    already open, run the block at once.

    SQLite lets one connection write at a time. A waiting connection sleeps 1, 2, 5, 10, 15, 20, 25 ms and so on between
    tries, so several workers would sleep most of the time. Here, writers try to get a file lock every millisecond
    instead.

    After a tenth of a second, a writer goes on without the lock. SQLite's own waiting then applies, as it does for all
    other programs.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block or connection.is_in_memory_db():
        yield
        return
    name = str(connection.settings_dict["NAME"])
    gates: dict[tuple[int, str], _Gate] = _own.__dict__.setdefault("gates", {})
    # The key contains the process id, so that a forked child opens the lock file again. If the child used the file that
    # its parent has opened, both processes would hold the same lock.
    key = (os.getpid(), name)
    if key not in gates:
        gates[key] = _Gate(name)
    descriptor = gates[key].descriptor
    deadline = time.monotonic() + PATIENCE_SECONDS
    # Stop waiting after ``PATIENCE_SECONDS``, because the process with the lock may be suspended.
    while not (has_turn := lockfiles.take(descriptor)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        if has_turn:
            lockfiles.free(descriptor)


class _Gate:
    """The open lock file of a database. The file is closed when the OS thread that opened it ends."""

    def __init__(self, name: str) -> None:
        self.descriptor = lockfiles.open_lock(f"turn-{hashlib.sha256(name.encode()).hexdigest()[:16]}")

    def __del__(self) -> None:
        os.close(self.descriptor)
