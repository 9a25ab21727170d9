"""Crash points for tests: a process dies at a named point, armed by a file; without the file nothing happens.

``DURABLE_AGENTS_CRASHPOINT`` names a file. The first process that reaches a point whose name the file holds removes the
file and ends itself with SIGKILL. Tests in the same process call a function at each point instead: ``rehearse``.
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
    """Call ``reached`` with the name of every crash point that this process reaches from now on; None stops that."""
    global _rehearsal  # noqa: PLW0603 - one process, one test at a time
    _rehearsal = reached


def crashpoint(name: str) -> None:
    """Kill this process if a test has armed this point; ``rehearse`` may have set a function to call instead."""
    if _rehearsal is not None:
        _rehearsal(name)
    if not _armed:
        return
    file = Path(_armed)
    try:
        if file.read_text().strip() != name:
            return
        file.unlink()  # of several processes at this point, only the one that removes the file ends
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
