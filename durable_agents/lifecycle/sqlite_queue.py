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
    """Queue for a turn to write, where the connection is to an SQLite file and not in a transaction already.

    SQLite lets one connection write at a time, and a waiting one looks again after 1, 2, 5, 10, 15, 20, 25 ms and so
    on: with some workers most of their time would pass between two looks. So writers queue for a kernel lock, looking
    every millisecond; after a tenth of a second, and for writers outside this package, SQLite's own back-off decides.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block or connection.is_in_memory_db():
        yield
        return
    name = str(connection.settings_dict["NAME"])
    gates: dict[tuple[int, str], _Gate] = _own.__dict__.setdefault("gates", {})
    key = (os.getpid(), name)  # a forked child shares its parent's open file, and with it the lock: it opens its own
    if key not in gates:
        gates[key] = _Gate(name)
    descriptor = gates[key].descriptor
    deadline = time.monotonic() + PATIENCE_SECONDS
    # A stopped process that holds the lock costs the others this long for each write, no more.
    while not (has_turn := lockfiles.take(descriptor)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        if has_turn:
            lockfiles.free(descriptor)


class _Gate:
    """An open lock file for a database; closed when the thread that it belongs to has ended."""

    def __init__(self, name: str) -> None:
        self.descriptor = lockfiles.open_lock(f"turn-{hashlib.sha256(name.encode()).hexdigest()[:16]}")

    def __del__(self) -> None:
        os.close(self.descriptor)
