"""Count events of live delivery to browsers in this process, such as closed websockets, for ``agents_doctor``.

Counting one event takes about a microsecond. Single frames are not counted. ``lifecycle.store_delivery_counts`` writes
the counts to the database.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID, uuid4

STORE_SECONDS = 30.0
"""Minimum interval between two writes of the counts."""
PERIOD_SECONDS = 3600.0
"""After an hour, a new period begins, and all counts are zero again. Old problems are therefore not shown for ever."""


class Event(StrEnum):
    """The events that are counted. Closed websockets are counted too, by close code (see ``CLOSED``)."""

    HINT_NOT_SENT = "hint_not_sent"
    """A notification about a change could not be sent to the channel layer, and was dropped."""
    HINT_NOT_RECEIVED = "hint_not_received"
    """The rows of a followed thread have changed, but no channel-layer message about the change has arrived."""
    STALE_THREAD = "stale_thread"
    """Deltas of a followed thread were lost or arrived too fast, so the thread's rows were read again."""
    SLOW_CLOSE = "slow_close"
    """A websocket was closed because its client read too slowly or not at all."""
    SNAPSHOT = "snapshot"
    """A snapshot of a whole thread was sent to a client."""


CLOSED = "closed_"
"""Closed websockets are counted under this prefix, followed by the close code."""


@dataclass(frozen=True, kw_only=True)
class Period:
    """What this process has counted since a period began."""

    id: UUID
    seconds: float
    """How long ago the period began."""
    counts: Mapping[str, int]


class DeliveryCounts:
    """The counts of one process. All methods are thread-safe."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero.

        This method is also called in a forked child, because the parent process stores the counts from before the fork.
        """
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._id, self._began_at = uuid4(), time.monotonic()
        self._has_changed = False
        self._stored_at = -math.inf

    def add(self, name: str, number: int = 1) -> None:
        """Add ``number`` to the count with this name."""
        now = time.monotonic()
        with self._lock:
            is_over = not self._has_changed and now - self._began_at > PERIOD_SECONDS
            if is_over or not self._counts:
                self._id, self._began_at, self._counts = uuid4(), now, Counter()
            self._counts[name] += number
            self._has_changed = True

    @property
    def are_due(self) -> bool:
        """Whether the counts have changed, and were not stored within the last ``STORE_SECONDS``."""
        return self._has_changed and time.monotonic() - self._stored_at >= STORE_SECONDS

    def take(self) -> Period | None:
        """Return the counts if they are due to be stored, otherwise None. If storing them fails, call ``put_back``."""
        with self._lock:
            if not self.are_due:
                return None
            self._has_changed, self._stored_at = False, time.monotonic()
            return Period(id=self._id, seconds=self._stored_at - self._began_at, counts=dict(self._counts))

    def put_back(self) -> None:
        """Note that the counts were not stored. They are due again after ``STORE_SECONDS``."""
        self._has_changed = True


_here = DeliveryCounts()


def delivery_counts() -> DeliveryCounts:
    """Return the counts of this process."""
    return _here


os.register_at_fork(after_in_child=_here.reset)
