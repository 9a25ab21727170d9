"""Hides how tests let a process die at a named point: armed by a file, and nothing at all without one.

``DURABLE_AGENTS_CRASHPOINT`` names a file. The first process that reaches a point whose name the file holds takes the
file away and ends itself with SIGKILL.
"""

from __future__ import annotations

import os
import signal
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


def crashpoint(name: str) -> None:
    """Die here if a test wants it."""
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
