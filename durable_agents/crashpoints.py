"""Hides how tests let a process die at a named point: armed by a file, and nothing at all without one.

``DURABLE_AGENTS_CRASHPOINT`` names a file. The first process that reaches a point whose name the file holds takes the
file away and ends itself with SIGKILL. Tests in the same process call a function at each point instead: ``rehearse``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

POINTS = (
    "claimed",  # a row is won, nothing is done with it
    "answered",  # the model's answer is whole, its step not committed
    "step_committed",
    "tool_ended",  # a plain tool has had its effect, its outcome is not stored
    "tool_committed",
    "atomic_begun",  # inside the transaction of an atomic tool, before its function
    "atomic_ran",  # its function has returned, its outcome is not written
    "atomic_settled",  # its outcome is written, not committed
    "atomic_committed",
)

_armed = os.environ.get("DURABLE_AGENTS_CRASHPOINT", "")
_rehearsal: Callable[[str], None] | None = None


def rehearse(reached: Callable[[str], None] | None) -> None:
    """From now on call this with the name of every point that this process reaches; None: no more."""
    global _rehearsal  # noqa: PLW0603 - one process, one test at a time
    _rehearsal = reached


def crashpoint(name: str) -> None:
    """Die here if a test wants it."""
    if _rehearsal is not None:
        _rehearsal(name)
    if not _armed:
        return
    file = Path(_armed)
    try:
        if file.read_text().strip() != name:
            return
        file.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
