"""Crash points for tests: kill a process when it reaches a named point in the code.

The environment variable ``DURABLE_AGENTS_CRASHPOINT`` contains the path of a file, and the file contains the name of a
point. The first process that reaches the point deletes the file and kills itself with SIGKILL. If there is no file,
nothing happens. A test that runs in one process calls ``rehearse`` instead, which sets a function to call at each
point.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

POINTS = (
    # The worker has claimed a row, but has not begun to run it.
    "claimed",
    # The model's answer is complete, but not committed.
    "answered",
    "step_committed",
    # A tool that is not atomic has returned, but its result is not stored.
    "tool_ended",
    "tool_committed",
    # The transaction of an atomic tool is open, but its function has not been called.
    "atomic_begun",
    # The function of an atomic tool has returned, but its result is not written.
    "atomic_ran",
    # The result of an atomic tool is written, but not committed.
    "atomic_settled",
    "atomic_committed",
)

_armed = os.environ.get("DURABLE_AGENTS_CRASHPOINT", "")
_rehearsal: Callable[[str], None] | None = None


def rehearse(reached: Callable[[str], None] | None) -> None:
    """Set the function that is called at each crash point that this process reaches. Its argument is the point's name.

    None removes the function.
    """
    global _rehearsal  # noqa: PLW0603 - one process, one test at a time
    _rehearsal = reached


def crashpoint(name: str) -> None:
    """Mark a point in the code at which a test can kill this process.

    If ``rehearse`` has set a function, call it with the name. If the file of ``DURABLE_AGENTS_CRASHPOINT`` contains the
    name, kill this process.
    """
    if _rehearsal is not None:
        _rehearsal(name)
    if not _armed:
        return
    file = Path(_armed)
    try:
        if file.read_text().strip() != name:
            return
        # If several processes reach this point, only the one that deletes the file dies.
        file.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
