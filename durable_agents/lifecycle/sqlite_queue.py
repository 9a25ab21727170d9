"""Queue SQLite writers on a file lock; SQLite's own back-off wastes most of a short write."""

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
    """Wait for this writer's turn, then run the block. If the connection is not to an SQLite file, or is in a
    transaction already, run the block immediately.

    SQLite lets one connection write at a time. A waiting connection sleeps for 1, 2, 5, 10, 15, 20, 25 ms and so on
    between its tries. Without this queue, several workers would sleep most of the time. Therefore the writers of this
    package queue for a kernel lock, and try to get the lock every millisecond. If a writer has waited a tenth of a
    second, it goes on without the lock. In that case, SQLite's own back-off decides, as it does for writers outside
    this package.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block or connection.is_in_memory_db():
        yield
        return
    name = str(connection.settings_dict["NAME"])
    gates: dict[tuple[int, str], _Gate] = _own.__dict__.setdefault("gates", {})
    # A forked child shares its parent's open file and therefore the parent's lock. The process id in the key makes the
    # child open the file anew.
    key = (os.getpid(), name)
    if key not in gates:
        gates[key] = _Gate(name)
    descriptor = gates[key].descriptor
    deadline = time.monotonic() + PATIENCE_SECONDS
    # Give up after ``PATIENCE_SECONDS``: the process that holds the lock may be suspended.
    while not (has_turn := lockfiles.take(descriptor)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        if has_turn:
            lockfiles.free(descriptor)


class _Gate:
    """The open lock file of a database. It is closed when the Python thread that opened it has ended."""

    def __init__(self, name: str) -> None:
        self.descriptor = lockfiles.open_lock(f"turn-{hashlib.sha256(name.encode()).hexdigest()[:16]}")

    def __del__(self) -> None:
        os.close(self.descriptor)
