"""Hides how writers of SQLite take turns without losing time between them."""

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
    """A turn to write, where the connection is one of SQLite's with a file and not in a transaction already.

    SQLite lets one write at a time, and whoever waits looks again after 1, 2, 5, 10, 15, 20, 25 ms and so on: with some
    workers most of their time would pass between two looks. So they queue for a lock of the kernel's, looking every
    millisecond; after a tenth of a second, and with whoever knows nothing of this, SQLite's own way decides.
    """
    if connection.vendor != "sqlite" or connection.in_atomic_block or connection.is_in_memory_db():
        yield
        return
    descriptor = _gate(str(connection.settings_dict["NAME"])).descriptor
    has_turn = _wait(descriptor)
    try:
        yield
    finally:
        if has_turn:
            lockfiles.free(descriptor)


class _Gate:
    """An open file that stands for a database; it is closed when the thread that it belongs to has ended."""

    def __init__(self, name: str) -> None:
        self.descriptor = lockfiles.open_lock(f"turn-{hashlib.sha256(name.encode()).hexdigest()[:16]}")

    def __del__(self) -> None:
        os.close(self.descriptor)


def _gate(name: str) -> _Gate:
    """This thread's own."""
    gates: dict[tuple[int, str], _Gate] = _own.__dict__.setdefault("gates", {})
    key = (os.getpid(), name)
    if key not in gates:
        gates[key] = _Gate(name)
    return gates[key]


def _wait(descriptor: int) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not lockfiles.take(descriptor):
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True
