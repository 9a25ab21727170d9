"""Recognise errors of a process that lacks threads or memory. The model step or tool call in which such an error occurs
is not necessarily its cause.
"""

from __future__ import annotations

import threading
import time

NO_THREAD = "can't start new thread"
"""Python's message if the system refuses a thread (``RLIMIT_NPROC``, a cgroup's ``pids.max``, too little memory)."""


LIMITED_EXIT_CODE = 71
MAX_LIMITS = 3
"""A worker exits after it has lacked threads or memory for this many rows in succession."""
PAUSE_SECONDS = 1.0


class WorkerLimitError(BaseException):
    """The process lacks the threads or memory to run a row. Another process may have enough.

    This is not a subclass of ``Exception``, so that code that handles errors of user functions does not catch it.
    """


def start(thread: threading.Thread) -> None:
    """Start a thread. If the operating system refuses to start it, raise WorkerLimitError. In that case, the thread's
    function is not called.
    """
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise WorkerLimitError(str(error) or type(error).__name__) from error


def is_limit(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, means that this process lacks threads or memory. Libraries wrap
    such errors, for example when the look-up of a host name needs a thread.
    """
    seen: set[int] = set()
    cause: BaseException | None = error  # check the error itself, then its causes
    while cause is not None and id(cause) not in seen:
        # Only Python's own error counts, not a provider's message with the same words.
        is_refusal = isinstance(cause, RuntimeError) and NO_THREAD in str(cause)
        if is_refusal or isinstance(cause, WorkerLimitError | MemoryError):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


class Shortage:
    """A counter of the rows in succession that could not run because this process lacks threads or memory."""

    def __init__(self) -> None:
        self._rows = 0
        self._claims_again_at = 0.0
        self.is_final = False
        """Whether this process has to exit. A new process may get enough threads and memory."""

    @property
    def forbids_claims(self) -> bool:
        """Whether this process must not claim rows for now, so that other processes claim them first."""
        return time.monotonic() < self._claims_again_at

    def note_row(self) -> bool:
        """Count one more row that could not run because the process lacks threads or memory, and stop claiming for some
        seconds. Return whether the count has reached ``MAX_LIMITS``.
        """
        self._rows += 1
        self._claims_again_at = time.monotonic() + self._rows * PAUSE_SECONDS
        becomes_final = self._rows >= MAX_LIMITS and not self.is_final
        self.is_final = self.is_final or becomes_final
        return becomes_final

    def end(self) -> None:
        """Reset the counter, because a thread has started."""
        self._rows = 0
