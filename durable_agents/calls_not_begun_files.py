"""Record in a local file which tool calls a worker has claimed but not begun. If the worker is killed, the process that
recovers the worker's calls reads this file.

A call that has begun may have had an effect, so the call runs again only if its tool allows this. A call that has not
begun can simply run in another worker. The database does not record which calls have begun, because an extra write per
call would cost as much as a claim.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from durable_agents import lockfiles

ROOM = 256
"""The maximum number of calls in one file. Further calls are not recorded, and count as begun."""
ENTRY_BYTES = 16
OLD_SECONDS = 86_400


class CallsNotBegun:
    """The file of this process, mapped into memory. It survives a SIGKILL of the process, but not a crash of the
    machine. All methods are thread-safe.
    """

    def __init__(self, holder: str) -> None:
        """Create an empty file. ``holder`` is the name of this process in the leases."""
        # Delete files that are older than a day: their processes are probably dead. If such a process is still alive,
        # all its calls are treated as begun.
        for path in lockfiles.folder().glob("not-begun-*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > OLD_SECONDS:
                    path.unlink()
        descriptor = os.open(_path(holder), os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, ROOM * ENTRY_BYTES)
            self._memory = mmap.mmap(descriptor, ROOM * ENTRY_BYTES)
        finally:
            os.close(descriptor)
        self._lock = threading.Lock()
        self._free = list(range(ROOM))
        self._places: dict[UUID, int] = {}

    def add(self, row_id: UUID) -> None:
        """Record a call that has not begun. This process has claimed the call, or is about to claim it."""
        with self._lock:
            if self._free and row_id not in self._places:
                self._places[row_id] = self._free.pop()
                self._write(self._places[row_id], row_id.bytes)

    def remove(self, row_id: UUID) -> None:
        """Record that this call is about to begin, or that this process no longer holds it. Ignore unknown calls."""
        with self._lock:
            place = self._places.pop(row_id, None)
            if place is not None:
                self._write(place, bytes(ENTRY_BYTES))
                self._free.append(place)

    def _write(self, place: int, entry: bytes) -> None:
        self._memory[place * ENTRY_BYTES : (place + 1) * ENTRY_BYTES] = entry


def calls_not_begun(holder: str) -> Collection[UUID]:
    """Return the calls that a dead process of this machine had claimed but not begun. Return none if the process has
    left no file.
    """
    try:
        content = _path(holder).read_bytes()
    except OSError:
        return frozenset()
    entries = (content[start : start + ENTRY_BYTES] for start in range(0, len(content), ENTRY_BYTES))
    return frozenset(UUID(bytes=entry) for entry in entries if len(entry) == ENTRY_BYTES and any(entry))


def _path(holder: str) -> Path:
    name = hashlib.sha256(holder.encode()).hexdigest()[:32]
    return lockfiles.folder() / f"not-begun-{os.getuid()}-{name}"
