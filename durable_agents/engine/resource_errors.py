"""Recognise errors that occur because the process lacks OS threads or memory.

The model step or tool call that raises such an error has not necessarily caused the shortage.
"""

from __future__ import annotations

import threading
import time

NO_THREAD = "can't start new thread"
"""Python's error message if the operating system refuses a new thread (``RLIMIT_NPROC``, a cgroup's ``pids.max``, too
little memory).
"""


LIMITED_EXIT_CODE = 71
MAX_LIMITS = 3
"""A worker exits after it has lacked OS threads or memory for this many rows in succession."""
PAUSE_SECONDS = 1.0


class WorkerLimitError(BaseException):
    """The process lacks the OS threads or memory to run a row. Another process might have enough.

    The class is not a subclass of ``Exception``. Therefore, the handlers for errors of user functions do not catch it.
    """


def start(thread: threading.Thread) -> None:
    """Start an OS thread.

    Raises WorkerLimitError if the operating system refuses the thread. The thread's function is then not called.
    """
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise WorkerLimitError(str(error) or type(error).__name__) from error


def is_limit(error: BaseException) -> bool:
    """Return whether this error, or one of its causes, means that the process lacks OS threads or memory.

    A library may wrap such an error in one of its own. For example, the lookup of a host name fails if no OS thread can
    be started for it.
    """
    seen: set[int] = set()
    cause: BaseException | None = error  # check the error itself, then its causes
    while cause is not None and id(cause) not in seen:
        # Only Python's own RuntimeError counts. A provider's error message might contain the same words.
        is_refusal = isinstance(cause, RuntimeError) and NO_THREAD in str(cause)
        if is_refusal or isinstance(cause, WorkerLimitError | MemoryError):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


class Shortage:
    """Counts how many rows in succession could not run because this process lacked OS threads or memory."""

    def __init__(self) -> None:
        self._rows = 0
        self._claims_again_at = 0.0
        self.is_final = False
        """Whether this process has to exit. A new process might get enough OS threads and memory."""

    @property
    def forbids_claims(self) -> bool:
        """Whether this process must wait before it claims rows, so that other processes can claim the rows first."""
        return time.monotonic() < self._claims_again_at

    def note_row(self) -> bool:
        """Count a row that could not run because this process lacks OS threads or memory. Forbid claims for some
        seconds.

        Return True if the count reaches ``MAX_LIMITS`` for the first time.
        """
        self._rows += 1
        self._claims_again_at = time.monotonic() + self._rows * PAUSE_SECONDS
        becomes_final = self._rows >= MAX_LIMITS and not self.is_final
        self.is_final = self.is_final or becomes_final
        return becomes_final

    def end(self) -> None:
        """Reset the counter, because an OS thread has started."""
        self._rows = 0
